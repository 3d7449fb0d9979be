"""What happened in each epoch of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What happened in each epoch; prints as a table, and `kdlearn.show.plots.history` draws it.

    Attributes:
        epochs: a dict per epoch: ``epoch`` from 1, ``loss`` (mean over its steps), ``parts`` (the
            same for each named part, weight included) and, with validation data, a number named
            after the metric, such as ``validation_accuracy`` in [0, 1].

    Example:
        >>> row = {"epoch": 1, "loss": 1.25, "parts": {"labels": 1.25}, "validation_accuracy": 0.5}
        >>> print(History([row]))
        epoch    loss  labels  validation
            1   1.250   1.250      50.0 %
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.epochs:
            return "no epoch yet"
        parts = list(self.epochs[0]["parts"])
        # A run that was resumed may have been measured otherwise before, or not at all.
        names = dict.fromkeys(name for row in self.epochs for name in row)
        measured = [name for name in names if name.startswith("validation")]
        widths = [max(6, len(part)) for part in parts]
        columns = zip(parts, widths, strict=True)
        lines = ["epoch    loss" + "".join(f"  {part:>{width}}" for part, width in columns)]
        lines[0] += "  validation" * len(measured)
        for row in self.epochs:
            line = f"{row['epoch']:5d}  {row['loss']:6.3f}"
            for part, width in zip(parts, widths, strict=True):
                line += f"  {row['parts'][part]:{width}.3f}"
            lines.append(line + "".join(_shown(name, row.get(name)) for name in measured))
        return "\n".join(lines)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return f"  {'-':>10}"
    return f"  {100 * value:8.1f} %" if name == "validation_accuracy" else f"  {value:10.4f}"
