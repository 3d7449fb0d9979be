"""Drill: twelve statements, true or false."""

import torch
from torch import Generator

from kdlearn.drills.grader.drill import Case, Drill, Edge, Fault, Wrong


def judge(letters: list[str]) -> list[bool]:
    """Return, for each letter, whether the statement of that letter is true.

    letters: letters from "a" to "l", in any order. The statements are in the task above. Result:
    one bool a letter.
    """
    true = {"b", "c", "g", "i", "k", "l"}
    return [letter in true for letter in letters]


STATEMENTS = {
    "a": (
        "Attention transfer copies the teacher's attention into the student once, before training.",
        "attention-copied",
        "a is false: attention transfer is a loss on the student's own maps, in every step. "
        "Copying attention exists for vision transformers, under that name.",
        "",
    ),
    "b": (
        "In activation-based attention transfer, summing and averaging energies over channels "
        "give the same loss.",
        "sum-or-mean",
        "b is true: the constant cancels, as each map is normalized to length 1.",
        "claimed otherwise: szagoruyko/attention-transfer issue 34",
    ),
    "c": (
        "A map of squared activations summed over channels is computed without queries, keys and "
        "a softmax.",
        "map-is-self-attention",
        "c is true: it is an activation map, and no self-attention in the sense of a transformer.",
        "",
    ),
    "d": (
        "The student must be initialized from the teacher, or have its architecture.",
        "must-start-from-teacher",
        "d is false: logits and maps can be compared between any two architectures. Copying "
        "weights is an option where shapes agree.",
        "",
    ),
    "e": (
        "With a larger and better teacher, the same student gets better.",
        "bigger-is-better",
        "e is false: a student can fail to follow a teacher that is too far away (Cho and "
        "Hariharan 2019; Mirzadeh et al. 2020).",
        "",
    ),
    "f": (
        "The small DeepSeek-R1-Distill models were trained to match the large model's logits.",
        "r1-used-logits",
        "f is false: they were fine-tuned on texts that the large model wrote, as on any labeled "
        "text (DeepSeek-AI 2025).",
        "",
    ),
    "g": (
        "Without T², the gradient of the soft term shrinks about as 1/T² when T grows.",
        "no-need-for-t-squared",
        "g is true: one 1/T comes from the chain rule, the other from softmaxes that grow alike.",
        "",
    ),
    "h": (
        "Running the teacher under torch.no_grad() also stops its dropout.",
        "no-grad-is-eval",
        "h is false: no_grad() records no graph, and changes nothing else. eval() stops dropout "
        "and makes batch normalization use its running statistics.",
        "",
    ),
    "i": (
        "Transferring attention between vision transformers failed for some model families that "
        "were tested.",
        "universal-for-vit",
        "i is true: of 11 families it helped 7, and put 4 below training from scratch; unequal "
        "architectures were the cause (Qin et al. 2026, arXiv 2605.07191).",
        "",
    ),
    "j": (
        "An attention heat map explains why the model decided as it did.",
        "map-is-explanation",
        "j is false: it shows where activations or weights are large. Whether that caused the "
        "decision needs a test, such as changing the place.",
        "",
    ),
    "k": (
        "The generalized Jensen-Shannon divergence is 0 at beta = 0 and at beta = 1.",
        "jsd-interpolates",
        "k is true: at both ends the mixture is the side that is compared with it. Libraries put "
        "forward and reverse KL there as special cases.",
        "in code: huggingface/trl pull request 3043 and issue 6780",
    ),
    "l": (
        "A best T above 1 for images says nothing about the best T for language models.",
        "high-t-for-language",
        "l is true: in a large study of language models T = 1 worked best (Busbridge et al. 2025).",
        "",
    ),
}
"""By letter: the statement, the name of its wrong verdict, what is right, where it was seen."""


def example() -> Case:
    """The first three letters."""
    return {"letters": ["a", "b", "c"]}


def cases(generator: Generator) -> list[Case]:
    """All letters in random order, twice."""
    letters = sorted(STATEMENTS)
    orders = [torch.randperm(len(letters), generator=generator).tolist() for _ in range(2)]
    return [{"letters": [letters[number] for number in order]} for order in orders]


def edges() -> list[Edge]:
    """One letter, one letter twice."""
    return [
        Edge("one letter", {"letters": ["b"]}),
        Edge(
            "a letter that comes twice",
            {"letters": ["c", "a", "c"]},
            "One verdict for each letter.",
        ),
    ]


def observe(case: Case, result: list[bool]) -> dict[str, object]:
    """One verdict a statement."""
    pairs = zip(case["letters"], result, strict=True)
    return {f"verdict on {letter}": bool(verdict) for letter, verdict in sorted(pairs)}


def family(wrong: Wrong, letters: list[str]) -> list[bool]:
    """The verdicts, some of them turned."""
    turned = {letter for letter, entry in STATEMENTS.items() if entry[1] in wrong}
    pairs = zip(letters, judge(letters), strict=True)
    return [verdict != (letter in turned) for letter, verdict in pairs]


drill = Drill(
    id="rapid-fire",
    title="Twelve statements",
    task=(
        "True or false? Twelve statements, as an interviewer fires them. Your function gets "
        "letters and gives verdicts.\n\n"
        + "\n".join(f"- **{letter}.** {entry[0]}" for letter, entry in STATEMENTS.items())
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Sort them first: which speak of a definition, which of a computation that you can do in "
        "your head, which of what must be or is always so?",
        "A definition can be looked up, a computation can be done. Whoever says that something "
        "must be so, or is so for all, needs more than one experiment.",
        "Four of them you can settle by computing: b, g, h and k. Take them one by one, on paper.",
    ),
    explanation=(
        "The folded list of mistakes has the reason for each. The pattern behind the false ones: a "
        "loss is taken for a copy, one measurement for a law, a picture for a cause, and one "
        "switch for another. The interviewer listens for a verdict in one word and a reason in one "
        "sentence."
    ),
    reference=judge,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs={
        letter: (Fault(name, reason, seen),)
        for letter, (_, name, reason, seen) in STATEMENTS.items()
    },
    observe=observe,
)
