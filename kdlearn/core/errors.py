"""Where an error happened, said by those who know it."""

from __future__ import annotations


class noting:
    """Note on an error of the ``with`` block where it happened.

    Args:
        place: anything that prints as the place; printed when there is an error.

    Example:
        >>> try:
        ...     with noting("epoch 2"):
        ...         raise ValueError("no labels.")
        ... except ValueError as error:
        ...     in_full(error)
        'no labels. (epoch 2)'
    """

    # A class, since contextmanager takes three times as long and a step does this four times.
    def __init__(self, place: object) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            error.add_note(str(self._place))


def in_full(error: BaseException) -> str:
    """Return the message of an error with what was noted on it; see `noting`.

    Example:
        >>> in_full(KeyError("no layer 'a'"))
        "no layer 'a'"
    """
    # str() of a KeyError has quotes around its message.
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    notes = getattr(error, "__notes__", None)
    return f"{said} ({'; '.join(notes)})" if notes else said
