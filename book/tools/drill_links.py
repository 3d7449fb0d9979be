"""Where a drill is in the book, and what its card says."""

from dataclasses import dataclass

from docutils.nodes import make_id

from kdlearn.drills import CHAPTERS, find


@dataclass(frozen=True)
class DrillLink:
    """A drill as a page leads to it; the address is below book/."""

    title: str
    minutes: int
    address: str


def drill_link(name: str) -> DrillLink:
    """Return the card of a drill.

    Example:
        >>> drill_link("kd-loss").address
        'implement/drills-logits.html#the-distillation-loss'
    """
    drill = find(name)
    chapter = next(chapter.name for chapter in CHAPTERS if name in chapter.drills)
    address = f"implement/drills-{chapter}.html#{make_id(drill.title)}"
    return DrillLink(drill.title, drill.minutes, address)
