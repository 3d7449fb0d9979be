"""Drill: one step of on-policy distillation of a language model."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from kdlearn.drills.families import REVERSE, reverse_terms
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Call, Case, Drill, Edge, Wrong, noted, switches


def on_policy_step(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Do one step of on-policy distillation; return the sequences and the detached loss.

    Sequences: shape (B, P + new_tokens).
    student, teacher: causal models from tokens (B, L) to logits (B, L, V), position i predicting
    token i + 1. The teacher is a constant: it is used in evaluation mode, whatever its mode is,
    and gets no gradient.
    prompts: tokens, shape (B, P).
    Sampling: the student writes new_tokens tokens at T = 1, one position after the other for the
    whole batch, each by torch.multinomial(probabilities, 1, generator=generator) with probabilities
    of shape (B, V). No gradient goes through the choice of tokens.
    Loss: KL(student || teacher) over the vocabulary at the positions that predict the new tokens,
    averaged over those positions and the batch; of the models as they are before the step.
    Step: one of optimizer, which holds the student's parameters; gradients that they had before do
    not count.
    """
    tokens, start = prompts, prompts.shape[1] - 1
    teacher.eval()
    with torch.no_grad():
        for _ in range(new_tokens):
            probabilities = F.softmax(student(tokens)[:, -1], dim=-1)
            drawn = torch.multinomial(probabilities, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
        log_teacher = F.log_softmax(teacher(tokens)[:, start:-1], dim=-1)
    log_student = F.log_softmax(student(tokens)[:, start:-1], dim=-1)
    loss = (log_student.exp() * (log_student - log_teacher)).sum(dim=-1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return tokens, loss.detach()


class Causal(nn.Module):
    """A tiny causal language model: the logits at a position depend on the tokens up to it.

    Args:
        generator: draws the weights.
        vocabulary: number of tokens.
        width: of the embedding.
        dropout: probability, in training mode.
    """

    def __init__(
        self, generator: Generator, vocabulary: int, width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Parameter(draws.normal(generator, vocabulary, width))
        self.head = nn.Parameter(draws.normal(generator, width, vocabulary))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Give logits of shape (B, L, V) for tokens of shape (B, L)."""
        noted(self, tokens)
        embedded = self.embedding[tokens]
        counts = torch.arange(1, tokens.shape[1] + 1, dtype=embedded.dtype)
        mean = embedded.cumsum(dim=1) / counts[:, None]
        logits: Tensor = self.dropout(embedded + mean) @ self.head
        return logits


def observe(case: Case, result: tuple[Tensor, Tensor]) -> dict[str, object]:
    """What was written, and the loss."""
    return {"tokens": result[0], "loss": result[1]}


def _case(generator: Generator, batch: int, prompt: int, new: int, vocabulary: int) -> Case:
    student = Causal(generator, vocabulary, 3)
    return {
        "student": student,
        "teacher": Causal(generator, vocabulary, 8, dropout=0.5).eval(),
        "prompts": draws.whole(generator, 0, vocabulary - 1, batch, prompt),
        "new_tokens": new,
        "optimizer": SGD(student.parameters(), lr=draws.real(generator, 0.2, 1)),
        "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
    }


def example() -> Case:
    """Two prompts of two tokens, two new tokens of a vocabulary of four."""
    return _case(Generator().manual_seed(0), 2, 2, 2, 4)


def cases(generator: Generator) -> list[Case]:
    """Several batches and lengths; the teacher is wider, has dropout, and is in evaluation mode."""
    return [_case(generator, *s) for s in ((4, 3, 4, 7), (3, 5, 2, 6), (6, 2, 3, 5), (2, 4, 3, 8))]


def edges() -> list[Edge]:
    """One new token, a prompt of one token, a teacher in training mode, earlier gradients."""
    noisy, old = example(), example()
    noisy["teacher"].train()
    for weight in old["student"].parameters():
        weight.grad = torch.ones_like(weight)
    return [
        Edge("one new token", example() | {"new_tokens": 1}),
        Edge("prompts of one token", example() | {"prompts": example()["prompts"][:, :1]}),
        Edge("one prompt", example() | {"prompts": example()["prompts"][:1]}),
        Edge("a teacher that arrives in training mode", noisy),
        Edge("a student that holds gradients of an earlier step", old),
    ]


def watch(case: Case, calls: list[Call]) -> list[str]:
    """In which mode the teacher ran."""
    noisy = any(call.of == "teacher" and call.training for call in calls)
    return ["teacher-in-train-mode"] if noisy else []


def _written(
    wrong: Wrong, writer: nn.Module, prompts: Tensor, new_tokens: int, generator: Generator
) -> Tensor:
    """Prompts and what a model writes after them."""
    tokens, first = prompts, None
    short = {"one-token-short": -1, "one-token-more": 1}
    count = new_tokens + next((short[name] for name in short if name in wrong), 0)
    with torch.no_grad():
        for _ in range(count):
            logits = writer(tokens)[:, 0 if "first-position" in wrong else -1]
            if "drawn-all-at-once" in wrong:
                logits = first = logits if first is None else first
            heat = {"sampled-at-half": 0.5, "sampled-at-two": 2.0, "uniform": 1e9}
            logits = logits / next((heat[name] for name in heat if name in wrong), 1.0)
            if "greedy" in wrong:
                drawn = logits.argmax(-1, keepdim=True)
            else:
                source = None if "global-state" in wrong else generator
                drawn = torch.multinomial(logits.softmax(-1), 1, generator=source)
            tokens = torch.cat([tokens, drawn], 1)
    return tokens


def _loss(
    wrong: Wrong, student: nn.Module, teacher: nn.Module, tokens: Tensor, start: int
) -> Tensor:
    """The loss of what was written."""
    places = {
        "prompt-counted": slice(0, -1),
        "not-shifted": slice(start + 1, None),
        "last-position-counted": slice(start, None),
        "first-token-left-out": slice(start + 1, -1),
        "every-position": slice(0, None),
        "last-token-only": slice(-2, -1),
    }
    place = next((places[name] for name in places if name in wrong), slice(start, -1))
    t = 2 if {"softened", "softened-without-factor"} & wrong else 1
    with torch.no_grad():
        log_p = (teacher(tokens)[:, place] / t).log_softmax(-1)
    log_q = (student(tokens)[:, place] / t).log_softmax(-1)
    terms = reverse_terms(wrong, log_q, log_p)
    if {"drawn-tokens-only", "likelihood"} & wrong:
        following = torch.cat([tokens[:, 1:], tokens[:, -1:]], 1)[:, place, None]
        ratio = -log_q if "likelihood" in wrong else log_q - log_p
        terms = ratio.gather(-1, following)
    total = terms.sum(-1).mean()
    if "mean-reduction" in wrong:
        total = terms.mean()
    if "divided-by-batch" in wrong:
        total = terms.sum() / len(terms)
    if "sum-reduction" in wrong:
        total = terms.sum()
    return total * (4 if "softened" in wrong else 1) * (-1 if "sign" in wrong else 1)


def family(
    wrong: Wrong,
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """The step with its switches."""
    if "teacher-in-train-mode" not in wrong:
        teacher.eval()
    writer, start = teacher if "off-policy" in wrong else student, prompts.shape[1] - 1
    tokens = _written(wrong, writer, prompts, new_tokens, generator)
    loss = _loss(wrong, student, teacher, tokens, start)
    if "zero-grad-missing" not in wrong:
        optimizer.zero_grad()
    loss.backward()
    if "no-step" not in wrong:
        optimizer.step()
    if "two-steps" in wrong:
        optimizer.step()
    if "loss-after-step" in wrong:
        loss = _loss(wrong, student, teacher, tokens, start)
    if "new-tokens-only" in wrong:
        tokens = tokens[:, start + 1 :]
    return tokens, loss.detach()


drill = Drill(
    id="on-policy",
    title="One step of on-policy distillation",
    task=(
        "Write one training step of on-policy distillation: the student continues the prompts with "
        "$N$ tokens of its own, the teacher scores what the student wrote, and the student takes "
        "one optimizer step on the reverse KL $\\mathrm{KL}(p_s \\,\\|\\, p_t)$ of the positions "
        "that it wrote."
    ),
    minutes=20,
    level="hard",
    hints=(
        "Three parts: writing, scoring, a step. Whose distribution do you draw from, in which of "
        "the parts is no graph needed, and in which mode is the teacher?",
        "Logits at position i predict token i + 1. With P prompt tokens, which position predicts "
        "the first new token, and what does the last position predict?",
        "The sum of the loss runs over the vocabulary, its mean over which two dimensions? And "
        "what may be in .grad when your function begins?",
    ),
    explanation=(
        "Sampling costs N forward passes of the student (N steps with a cache of keys and values), "
        "scoring one pass of each model and one backward pass: the teacher never generates. The "
        "student learns where its own prefixes lead, mistakes included, which is what it meets at "
        "inference; on the teacher's text it would never see its own errors. The whole KL over the "
        "vocabulary is used at each position: far less variance than the log-ratio of the drawn "
        "token. The choice of tokens gets no gradient: the step treats the prefixes as given data, "
        "so it does not learn that one token leads to worse prefixes; that part needs REINFORCE. "
        "One sampled log-ratio, differentiated directly, has a mean gradient of zero. The "
        "interviewer listens for: who samples, the shift by one, prompt left out, eval() and "
        "no_grad() on the teacher, zero_grad, the direction."
    ),
    reference=on_policy_step,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # writer
        - off-policy: your tokens are the teacher's: that is distillation on its text, in which the
          student never meets its own mistakes. On-policy means that the student samples, and the
          teacher only scores.
        # draw
        - greedy: your tokens are the most probable ones: argmax is no sample, and the student would
          be trained on one prefix per prompt that it hardly ever writes at T = 1. Draw with
          torch.multinomial.
        - global-state: your tokens come from the global random state: nobody can repeat the step.
          Pass generator=generator to torch.multinomial.
        - sampled-at-half: the tokens are drawn at T = 1/2 or from squared probabilities: the
          student is sampled at T = 1.
        - sampled-at-two: the tokens are drawn at T = 2: the student is sampled at T = 1.
        - uniform: the tokens are drawn evenly: they are the student's, by its probabilities.
        - first-position: the next token is drawn from the logits of the first position: the last
          one predicts what follows.
        - drawn-all-at-once: all new tokens are drawn from the prompt's last position: each follows
          from those before it.
        - one-token-short: one token too few is written: new_tokens are asked for.
        - one-token-more: one token too many is written: new_tokens are asked for.
        # positions
        - prompt-counted: positions inside the prompt are in the loss: the student did not write
          those tokens. Begin at P - 1, the position that predicts the first new token.
        - not-shifted: your positions are late by one: logits at position i predict token i + 1. You
          leave out the first new token, and count the last position, which predicts a token that
          nobody wrote. Slice [:, P - 1 : -1].
        - last-position-counted: the last position is in the loss: it predicts a token that nobody
          wrote.
        - first-token-left-out: the position that predicts the first new token is left out: begin at
          P - 1.
        - every-position: every position counts, the prompt's and the last one: only those that
          predict the new tokens do.
        - last-token-only: only the last new token counts: average over all of them.
        # step
        - no-step: the student's weights did not change: optimizer.step() or backward() is missing,
          or the gradients were cleared between backward() and step().
        - zero-grad-missing: gradients that the student had before your step are in your step:
          backward() adds to them. Call optimizer.zero_grad() before loss.backward().
        - two-steps: the optimizer steps twice.
        - sign: the loss has the wrong sign: the step leads away from the teacher.
        # loss
        - drawn-tokens-only: your loss holds the log-ratio of the drawn tokens only. As a value it
          is right on average, but its gradient is zero on average, for the weight of each token is
          missing. Sum over the vocabulary, or use REINFORCE.
        - likelihood: your loss is the likelihood of the drawn tokens: the teacher is not asked.
        # reduction
        - mean-reduction: the loss is V = {V} times too small: the mean runs over the vocabulary
          too. Sum over it, average over positions.
        - divided-by-batch: the sum is divided by the batch alone, as 'batchmean' does: average over
          positions too.
        - sum-reduction: the loss is summed over positions and batch, not averaged.
        # temperature
        - softened: both sides are divided by T = 2 and the loss is multiplied by 4: here T is 1.
        - softened-without-factor: both sides are divided by T = 2: here T is 1.
        # returned
        - loss-after-step: the loss that you return is that after the step: asked for is that of the
          models as they are before it.
        - new-tokens-only: you return the new tokens alone: asked for are the sequences, the prompts
          included.
        # teacher
        - teacher-in-train-mode: a teacher that arrives in training mode gives you another loss: its
          dropout is on, so its answers are noisy. Call teacher.eval() before you use it.
        """
    )
    | REVERSE,
    watch=watch,
    sizes=lambda case: {
        "B": case["prompts"].shape[0],
        "N": case["new_tokens"],
        "V": case["student"].head.shape[1],
    },
    changes=("student", "optimizer", "generator"),
    free=frozenset(
        {"requires_grad of the teacher", "gradients of the student", "mode of the student"}
    ),
    observe=observe,
)
