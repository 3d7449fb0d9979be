"""Drill: two tokenizations of one text, compared in the spans that they have in common."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def span_log_probs(
    student_tokens: list[str],
    teacher_tokens: list[str],
    student_log_probs: Tensor,
    teacher_log_probs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each common span, the student's and the teacher's, each (S,).

    A common span is a piece of the text that begins and ends where both tokenizations have a
    border, and has no such border inside: the text is cut into S of them, in order. Its
    log-probability is that of its tokens together.
    student_tokens, teacher_tokens: what the tokens stand for; either list, joined, is the text.
    No token is empty.
    student_log_probs, teacher_log_probs: shapes (number of student tokens,) and (number of teacher
    tokens,), of each token after those before it. The student's sums are differentiated; the
    teacher is a constant.
    """
    student_ends = torch.tensor([len(token) for token in student_tokens]).cumsum(0)
    teacher_ends = torch.tensor([len(token) for token in teacher_tokens]).cumsum(0)
    borders = student_ends[torch.isin(student_ends, teacher_ends)]
    zeros = student_log_probs.new_zeros(len(borders))
    student_span = torch.searchsorted(borders, student_ends)
    teacher_span = torch.searchsorted(borders, teacher_ends)
    return (
        zeros.index_add(0, student_span, student_log_probs),
        zeros.index_add(0, teacher_span, teacher_log_probs.detach()),
    )


def example() -> Case:
    """A text of two spans: one token against two, and two against two that part elsewhere."""
    return {
        "student_tokens": ["un", "cer", "tain"],
        "teacher_tokens": ["u", "n", "certa", "in"],
        "student_log_probs": torch.tensor([-1.0, -2.0, -4.0], dtype=torch.float64),
        "teacher_log_probs": torch.tensor([-0.5, -0.25, -3.0, -1.0], dtype=torch.float64),
    }


def _cut(generator: Generator, text: str, share: float) -> list[str]:
    """Cut a text at random."""
    inside = torch.rand(len(text) - 1, generator=generator) < share
    ends = [*(inside.nonzero().flatten() + 1).tolist(), len(text)]
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def cases(generator: Generator) -> list[Case]:
    """Texts of two letters and spaces, each cut twice."""
    made: list[Case] = []
    for length, share, other in ((12, 0.6, 0.5), (19, 0.4, 0.6), (25, 0.7, 0.4), (16, 0.5, 0.7)):
        text = "".join("ab "[i] for i in draws.whole(generator, 0, 2, length).tolist())
        student, teacher = _cut(generator, text, share), _cut(generator, text, other)
        made.append(
            {
                "student_tokens": student,
                "teacher_tokens": teacher,
                "student_log_probs": -draws.normal(generator, len(student)).abs(),
                "teacher_log_probs": -draws.normal(generator, len(teacher), scale=1.5).abs(),
            }
        )
    return made


def edges() -> list[Edge]:
    """The same cuts on both sides, one span, one token, borders that only half agree, spaces."""
    case = example()
    student, teacher = case["student_log_probs"], case["teacher_log_probs"]

    def text(ours: str, theirs: str) -> Case:
        pieces = ours.split("|"), theirs.split("|")
        return {
            "student_tokens": pieces[0],
            "teacher_tokens": pieces[1],
            "student_log_probs": student[: len(pieces[0])],
            "teacher_log_probs": teacher[: len(pieces[1])],
        }

    return [
        Edge("two tokenizations that are the same", text("a|b|c", "a|b|c")),
        Edge(
            "tokenizations that meet only at the end",
            text("ab|cd|e", "a|bc|de"),
            "Then the whole text is one span.",
        ),
        Edge("a text of one token", text("abc", "abc")),
        Edge("one student token for the whole text", text("abcd", "a|b|c|d")),
        Edge(
            "the same token at other places",
            text("a|ab|a", "aa|b|a"),
            "Tokens that look alike need not stand at the same place: compare places in the text.",
        ),
        Edge(
            "tokens that begin with a space",
            text("to| be| or", "to |be o|r"),
            "A space is a character like any other.",
        ),
        Edge(
            "float32",
            case | {"student_log_probs": student.float(), "teacher_log_probs": teacher.float()},
        ),
    ]


def family(
    wrong: Wrong,
    student_tokens: list[str],
    teacher_tokens: list[str],
    student_log_probs: Tensor,
    teacher_log_probs: Tensor,
) -> tuple[Tensor, Tensor]:
    """The sums with their switches."""
    sides = []
    for tokens in (student_tokens, teacher_tokens):
        pieces = [token.strip() for token in tokens] if "spaces-dropped" in wrong else tokens
        length = torch.tensor([len(piece) for piece in pieces])
        if "counted-in-tokens" in wrong:
            length = torch.ones_like(length)
        ends = length.cumsum(0)
        sides.append((ends - length if "by-the-start" in wrong else ends, ends))
    ours, theirs = sides[0][1], sides[1][1]
    borders = ours[torch.isin(ours, theirs)].unique()
    cut = {
        "student-borders": ours,
        "teacher-borders": theirs,
        "all-borders": torch.cat([ours, theirs]).unique(),
        "one-span": borders[-1:],
        "last-span-missing": borders[:-1],
    }
    borders = next((cut[name] for name in cut if name in wrong), borders)
    inside = [
        torch.searchsorted(borders, place, right="one-late" in wrong)
        == torch.arange(len(borders))[:, None]
        for place, _ in sides
    ]
    if "single-tokens-only" in wrong:
        single = (inside[0].sum(1) == 1) & (inside[1].sum(1) == 1)
        inside = [members[single] for members in inside]
    log_probs = [student_log_probs, teacher_log_probs.detach()]
    if "student-detached" in wrong:
        log_probs[0] = log_probs[0].detach()
    one, other = (_joined(wrong, *pair) for pair in zip(inside, log_probs, strict=True))
    return (other, one) if "sides-swapped" in wrong else (one, other)


def _joined(wrong: Wrong, inside: Tensor, values: Tensor) -> Tensor:
    """What the tokens of each span give together; ``inside`` says which these are, (S, tokens)."""
    if "first-token-only" in wrong:
        inside = inside & (inside.cumsum(1) == 1)
    if "last-token-only" in wrong:
        inside = inside & (inside.flip(1).cumsum(1).flip(1) == 1)
    total = torch.where(inside, values, 0.0).sum(1)
    made = {
        "averaged": lambda: total / inside.sum(1),
        "product": lambda: torch.where(inside, values, 1.0).prod(1),
        "probabilities-added": lambda: torch.where(inside, values, -torch.inf).logsumexp(1),
        "probabilities": lambda: total.exp(),
        "from-the-beginning": lambda: total.cumsum(0),
    }
    return next((made[name]() for name in made if name in wrong), total)


drill = Drill(
    id="span-alignment",
    title="Spans of two tokenizers",
    task=(
        "Teacher and student read the same text and cut it into different tokens, so no token of "
        "one answers to a token of the other. Cut the text where both have a border, and give for "
        "each piece the log-probability that either model gives to it."
    ),
    minutes=12,
    level="core",
    hints=(
        "A border is a place in the text. What does a token have to be counted in, so that both "
        "tokenizers speak of the same places?",
        "In running sums of lengths, what is a border that both have? And which of the borders is "
        "the one that a token belongs to: the first that lies where?",
        "The tokens of a span are said one after the other, each given those before it. What does "
        "that make of their probabilities, and so of their logarithms?",
    ),
    explanation=(
        "O(n log n) in the number of tokens. By the chain rule the sum of the log-probabilities is "
        "the log-probability of the piece, whichever way it was cut: that is what makes two "
        "vocabularies comparable, and a mean per token is not. Whatever is compared afterwards "
        "(the gap of the sums, a squared gap) has to live with one number per span: the "
        "distributions over the next token still belong to different vocabularies. Work with "
        "places in the text: comparing strings goes wrong where a piece comes back, a byte-level "
        "tokenizer splits a character (then the places are bytes), or one side has a token that "
        "stands for nothing, such as the beginning of a sequence. One caveat for the hard "
        "question: a span's number is that of one tokenization; the probability of the text is a "
        "sum over all of them. The interviewer listens for: places, not tokens; sums, not means; "
        "who gets the gradient. Another way to cross vocabularies is to sort both distributions, "
        "as [Boizard et al., 2024](cite:boizard2024towards) do; that never asks what a token means."
    ),
    reference=span_log_probs,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # borders
        - student-borders: the text is cut at every border of the student: the teacher may have none
          there, and one of its tokens then belongs to two pieces. Cut where both have one.
        - teacher-borders: the text is cut at every border of the teacher: the student may have none
          there. Cut where both have one.
        - all-borders: the text is cut wherever either has a border: cut where both have one.
        - one-span: the whole text is one span: that is right only for texts whose tokens meet at
          the end alone.
        - last-span-missing: the last span is missing: the end of the text is a border too.
        - single-tokens-only: only spans of one token on either side are kept: where the tokenizers
          differ, you compare nothing.
        # places
        - counted-in-tokens: borders are compared by the number of tokens, not by the place in the
          text: the third token of one side ends elsewhere than the third of the other. Add up
          lengths.
        - spaces-dropped: spaces are stripped from the tokens before they are measured: the places
          of the two sides then shift against each other. A space is a character.
        - by-the-start: a token is put into the span whose end its start has reached: one that
          begins at a border belongs to the span after it. Ask for the first border that is not
          before its end.
        - one-late: a token that ends at a border is put into the span after it: ask for the first
          border that is not before the token's end, right=False of torch.searchsorted.
        # sum
        - averaged: the log-probabilities of a span are averaged: the tokenizer that needs more
          tokens for it would look surer. By the chain rule they add.
        - product: the log-probabilities of a span are multiplied: the probabilities are, so the
          logarithms add.
        - probabilities-added: the probabilities of a span's tokens are added: they follow one
          another, so they multiply.
        - probabilities: you return probabilities: asked for are logarithms.
        - first-token-only: only the first token of each span counts: the others are said as well.
        - last-token-only: only the last token of each span counts: its log-probability is given
          those before it, and theirs are missing.
        - from-the-beginning: each number counts from the beginning of the text: subtract the one
          before.
        # sides
        - sides-swapped: the teacher's sums come first: the student's are asked for first.
        # gradient
        - student-detached: the student's sums send no gradient: .item(), .tolist() or a new tensor
          made of numbers cut the graph.
        """
    ),
    gradients=("student_log_probs",),
    detached=("teacher_log_probs",),
)
