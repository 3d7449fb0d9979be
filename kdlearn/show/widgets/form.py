"""A small form for live cells: set temperature and weight, press the button, read the result."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets


class TrainingForm(ipywidgets.VBox):
    """Two sliders, a button and a place for the answer; made by :func:`training_form`.

    Attributes:
        temperature: the slider of T.
        weight: the slider of the soft term's weight w.
        button: starts :meth:`run`.
        answer: shows what the last run returned or what went wrong.
    """

    def __init__(
        self,
        train: Callable[[float, float], str],
        temperature: tuple[float, float],
        weight: tuple[float, float],
    ) -> None:
        self._train = train
        self.temperature = _slider("temperature T", temperature, 4.0, 0.5)
        self.weight = _slider("weight w", weight, 0.9, 0.05)
        self.button = ipywidgets.Button(description="Train", button_style="primary")
        self.button.on_click(lambda _: self.run())
        self.answer = ipywidgets.HTML("Choose both, then press the button.")
        super().__init__([self.temperature, self.weight, self.button, self.answer])

    def run(self) -> str:
        """Train with the values of the sliders, show the answer and return it.

        An exception of the training function becomes a sentence, here as on the screen: a reader
        who tries values should read what was wrong with them, not a traceback.
        """
        temperature, weight = self.temperature.value, self.weight.value
        self.button.disabled = True
        self._show(f"Training with T = {temperature:g}, w = {weight:g} ...")
        try:
            text = str(self._train(temperature, weight))
        except Exception as error:
            text = (
                f"Training with T = {temperature:g}, w = {weight:g} failed: "
                f"{type(error).__name__}: {error}"
            )
        finally:
            self.button.disabled = False
        self._show(text)
        return text

    def _show(self, text: str) -> None:
        self.answer.value = f'<div style="white-space: pre-wrap">{escape(text)}</div>'


def training_form(
    train: Callable[[float, float], str],
    *,
    temperature: tuple[float, float] = (1.0, 20.0),
    weight: tuple[float, float] = (0.0, 1.0),
) -> TrainingForm:
    """Make a form that calls ``train(temperature, weight)`` and shows the text that it returns.

    Works with ipywidgets 7.7 (Colab) and 8. It needs a kernel: on a static page leave a sentence.

    Args:
        train: called when the button is pressed; returns what to show.
        temperature: the lowest and the highest T; the slider starts at 4, or as near as it can.
        weight: the lowest and the highest weight of the soft term; starts at 0.9 likewise.

    Raises:
        TypeError: ``train`` cannot be called.
        ValueError: a range is not two rising numbers, or reaches T = 0 or a weight outside [0, 1].

    Example:
        >>> form = training_form(lambda temperature, weight: f"T = {temperature}, w = {weight}")
        >>> form.temperature.value = 2.0
        >>> form.run()
        'T = 2.0, w = 0.9'
    """
    if not callable(train):
        raise TypeError(
            f"train must be a function of (temperature, weight), got {type(train).__name__}: "
            "hand over the function, not what it returned."
        )
    if not 0 < temperature[0] < temperature[1]:
        raise ValueError(f"temperature must be two rising numbers above 0, got {temperature}.")
    if not 0 <= weight[0] < weight[1] <= 1:
        raise ValueError(f"weight must be two rising numbers in [0, 1], got {weight}.")
    return TrainingForm(train, temperature, weight)


def _slider(
    name: str, limits: tuple[float, float], start: float, step: float
) -> ipywidgets.FloatSlider:
    low, high = limits
    return ipywidgets.FloatSlider(
        value=min(max(start, low), high),
        min=low,
        max=high,
        step=step,
        description=name,
        continuous_update=False,
        style={"description_width": "8em"},
        layout={"width": "24em", "max_width": "100%"},
    )
