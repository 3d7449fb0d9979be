"""Figures to touch: they work in Jupyter, in Colab, and on a static page with no kernel behind it.

All but the form are plain HTML with a few kilobytes of script inside; nothing is fetched and
nothing is asked of Python once they are drawn. The form is for live cells alone: it trains.
"""

from kdlearn.show.widgets.attention import attention_explorer
from kdlearn.show.widgets.bias import bias_explorer
from kdlearn.show.widgets.converter import convention_converter
from kdlearn.show.widgets.divergence import divergence_explorer
from kdlearn.show.widgets.figure import HTMLFigure
from kdlearn.show.widgets.form import TrainingForm, training_form
from kdlearn.show.widgets.gradient import gradient_explorer
from kdlearn.show.widgets.loss_picker import loss_picker
from kdlearn.show.widgets.luck import luck_machine
from kdlearn.show.widgets.map_builder import map_builder
from kdlearn.show.widgets.query import query_explorer
from kdlearn.show.widgets.temperature import temperature_explorer

__all__ = [
    "HTMLFigure",
    "TrainingForm",
    "attention_explorer",
    "bias_explorer",
    "convention_converter",
    "divergence_explorer",
    "gradient_explorer",
    "loss_picker",
    "luck_machine",
    "map_builder",
    "query_explorer",
    "temperature_explorer",
    "training_form",
]
