"""Figures to touch: they work in Jupyter, in Colab, and on a static page with no kernel behind it.

The two explorers are plain HTML with a few kilobytes of script inside; nothing is fetched and
nothing is asked of Python once they are drawn. The form is for live cells alone: it trains.
"""

from kdlearn.show.widgets.attention import attention_explorer
from kdlearn.show.widgets.figure import HTMLFigure
from kdlearn.show.widgets.form import TrainingForm, training_form
from kdlearn.show.widgets.temperature import temperature_explorer

__all__ = [
    "HTMLFigure",
    "TrainingForm",
    "attention_explorer",
    "temperature_explorer",
    "training_form",
]
