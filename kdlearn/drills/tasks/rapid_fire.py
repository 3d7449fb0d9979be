"""Drill: twelve statements, true or false."""

import torch
from torch import Generator

from kdlearn.drills.grader.drill import Case, Drill, Solution


def judge(letters: list[str]) -> list[bool]:
    """Return, for each letter, whether the statement of that letter is true.

    letters: letters from "a" to "l", in any order. The statements are in the task above. Result: one bool a letter.
    """
    true = {"c", "g", "i"}
    return [letter in true for letter in letters]


STATEMENTS = {
    "a": (
        "Attention transfer copies the teacher's attention into the student once, before training.",
        "attention-copied",
        "a is false: attention transfer is a loss on the student's own maps, in every step. Copying attention "
        "exists for vision transformers, under that name.",
        "a circulating article",
    ),
    "b": (
        "In activation-based attention transfer it matters whether energies are summed or averaged over channels.",
        "sum-or-mean",
        "b is false: the constant cancels, as each map is normalized to length 1.",
        "szagoruyko/attention-transfer issue 34",
    ),
    "c": (
        "A map of squared activations summed over channels is computed without queries, keys and a softmax.",
        "map-is-self-attention",
        "c is true: it is an activation map, and no self-attention in the sense of a transformer.",
        "",
    ),
    "d": (
        "The student must be initialized from the teacher, or have its architecture.",
        "must-start-from-teacher",
        "d is false: logits and maps can be compared between any two architectures. Copying weights is an option where "
        "shapes agree.",
        "a circulating article",
    ),
    "e": (
        "With a larger and better teacher, the same student always gets better.",
        "bigger-is-better",
        "e is false: a student can fail to follow a teacher that is too far away (Cho and Hariharan 2019; "
        "Mirzadeh et al. 2020).",
        "",
    ),
    "f": (
        "The small DeepSeek-R1-Distill models were trained to match the large model's logits.",
        "r1-used-logits",
        "f is false: they were fine-tuned on texts that the large model wrote, as on any labeled text "
        "(DeepSeek-AI 2025).",
        "",
    ),
    "g": (
        "Hints, the matching of intermediate features, were introduced by FitNets.",
        "hints-by-hinton",
        "g is true: Romero et al., ICLR 2015. Hinton et al. 2015 match outputs.",
        "course notes that credit Hinton et al.",
    ),
    "h": (
        "Attention transfer for convolutional networks was published at a conference in 2016.",
        "published-2016",
        "h is false: Zagoruyko and Komodakis presented it at ICLR 2017; the preprint is of December 2016.",
        "course notes",
    ),
    "i": (
        "Transferring attention between vision transformers failed for some model families that were tested.",
        "universal-for-vit",
        "i is true: of 11 families it helped 7, and put 4 below training from scratch; unequal architectures were "
        "the cause (Qin et al. 2026, arXiv 2605.07191).",
        "",
    ),
    "j": (
        "An attention heat map explains why the model decided as it did.",
        "map-is-explanation",
        "j is false: it shows where activations or weights are large. Whether that caused the decision needs a "
        "test, such as changing the place.",
        "",
    ),
    "k": (
        "The generalized Jensen-Shannon divergence goes from forward KL at beta = 0 to reverse KL at beta = 1 "
        "without a jump.",
        "jsd-interpolates",
        "k is false: it tends to 0 at both ends. Libraries put the two divergences there as special cases.",
        "huggingface/trl pull request 3043 and issue 6780",
    ),
    "l": (
        "Since the best T for images is above 1, it is above 1 for language models too.",
        "high-t-for-language",
        "l is false: it does not follow, and in a large study of language models T = 1 worked best (Busbridge et "
        "al. 2025).",
        "",
    ),
}
"""For each letter: the statement, the name of its wrong verdict, what is right, and where the error was seen."""


def cases(generator: Generator) -> list[Case]:
    """All letters in random order, twice."""
    letters = sorted(STATEMENTS)
    orders = [torch.randperm(len(letters), generator=generator).tolist() for _ in range(2)]
    return [{"letters": [letters[number] for number in order]} for order in orders]


def observe(case: Case, result: list[bool]) -> dict[str, object]:
    """One verdict a statement."""
    if not isinstance(result, list) or len(result) != len(case["letters"]):
        return {"list of verdicts": result}
    pairs = zip(case["letters"], result, strict=True)
    return {"list of verdicts": "complete"} | {
        f"verdict on {letter}": verdict for letter, verdict in sorted(pairs)
    }


drill = Drill(
    id="rapid-fire",
    title="Twelve statements",
    task=(
        "True or false? Twelve statements, as an interviewer fires them. Your function gets letters and gives "
        "verdicts.\n\n"
        + "\n".join(f"- **{letter}.** {entry[0]}" for letter, entry in STATEMENTS.items())
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Three of the twelve are true.",
        "Words such as must, always and every are rarely right in this field.",
        "true = {...}; return [letter in true for letter in letters]",
    ),
    explanation=(
        "True are c, g and i; the folded list of mistakes has the reason for each. The pattern behind the false "
        "ones: a loss is taken for a copy, one measurement for a law, a picture for a cause, and a preprint's "
        "year for a paper's. The interviewer listens for a verdict in one word and a reason in one sentence."
    ),
    reference=judge,
    cases=cases,
    observe=observe,
)


def _flipped(wrong: str) -> Solution:
    """The right verdicts but one."""

    def solution(letters: list[str]) -> list[bool]:
        return [
            verdict != (letter == wrong)
            for letter, verdict in zip(letters, judge(letters), strict=True)
        ]

    return solution


for _letter, (_, _name, _reason, _seen) in STATEMENTS.items():
    drill.mistake(_name, _reason, seen=_seen)(_flipped(_letter))


@drill.alternative
def by_table(letters: list[str]) -> list[bool]:
    """A table of all."""
    answers = dict.fromkeys("abdefhjkl", False) | dict.fromkeys("cgi", True)
    return [answers[letter] for letter in letters]


@drill.alternative
def by_membership(letters: list[str]) -> list[bool]:
    """A text of the true ones."""
    verdicts = []
    for letter in letters:
        verdicts.append("cgi".find(letter) >= 0)
    return verdicts
