"""Drill: one step of on-policy distillation of a language model."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.optim import SGD, Optimizer

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.compare import copied, same
from kdlearn.drills.grader.drill import Case, Drill, Solution


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
        embedded = self.embedding[tokens]
        counts = torch.arange(1, tokens.shape[1] + 1, dtype=embedded.dtype)
        mean = embedded.cumsum(dim=1) / counts[:, None]
        logits: Tensor = self.dropout(embedded + mean) @ self.head
        return logits


def on_policy_step(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Do one step of on-policy distillation; return the sequences, shape (B, P + new_tokens), and the detached loss.

    student, teacher: causal models from tokens (B, L) to logits (B, L, V), position i predicting token i + 1. The
    teacher is a constant: it is used in evaluation mode, whatever its mode is, and gets no gradient.
    prompts: tokens, shape (B, P).
    Sampling: the student writes new_tokens tokens at T = 1, one position after the other for the whole batch, each by
    torch.multinomial(probabilities, 1, generator=generator) with probabilities of shape (B, V). No gradient goes
    through the choice of tokens.
    Loss: KL(student || teacher) over the vocabulary at the positions that predict the new tokens, averaged over
    those positions and the batch; of the models as they are before the step.
    Step: one of optimizer, which holds the student's parameters; gradients that they had before do not count.
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


def cases(generator: Generator) -> list[Case]:
    """Several batches and lengths; the teacher is wider than the student, has dropout, and is in evaluation mode."""
    made: list[Case] = []
    for batch, prompt, new, vocabulary in (
        (4, 3, 4, 7),
        (3, 5, 2, 6),
        (6, 2, 3, 5),
        (2, 4, 3, 8),
    ):
        student = Causal(generator, vocabulary, 3)
        made.append(
            {
                "student": student,
                "teacher": Causal(generator, vocabulary, 8, dropout=0.5).eval(),
                "prompts": draws.whole(generator, 0, vocabulary - 1, batch, prompt),
                "new_tokens": new,
                "optimizer": SGD(student.parameters(), lr=draws.real(generator, 0.2, 1)),
                "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
            }
        )
    return made


def observe(case: Case, result: object) -> dict[str, object]:
    """What was written, the loss, and what became of the models."""
    if not (isinstance(result, tuple | list) and len(result) == 2):
        result = (result, result)
    tokens, loss = result
    reached = any(weight.grad is not None for weight in case["teacher"].parameters())
    return {
        "tokens": tokens,
        "loss": loss,
        "student's weights": parameters_to_vector(case["student"].parameters()),
        "teacher's weights": parameters_to_vector(case["teacher"].parameters()),
        "teacher's gradients": "there are some" if reached else "there are none",
    }


drill = Drill(
    id="on-policy",
    title="One step of on-policy distillation",
    task=(
        "Write one training step of on-policy distillation: the student continues the prompts with $N$ tokens of its "
        "own, the teacher scores what the student wrote, and the student takes one optimizer step on the reverse KL "
        "$\\mathrm{KL}(p_s \\,\\|\\, p_t)$ of the positions that it wrote."
    ),
    minutes=20,
    level="hard",
    hints=(
        "Three parts: sample under no_grad; run both models once over prompt and answer; loss and step. Whose "
        "distribution do you sample from, and in which mode is the teacher?",
        "Logits at position i predict token i + 1: with P prompt tokens the first new token is predicted at P - 1, and "
        "the last position predicts nothing that was written.",
        "Slice both with [:, P - 1 : -1], take log_softmax; loss = (s.exp() * (s - t)).sum(-1).mean(); zero_grad, "
        "backward, step.",
    ),
    explanation=(
        "Sampling costs N forward passes of the student (N steps with a cache of keys and values), scoring one pass of "
        "each model and one backward pass: the teacher never generates. The student learns where its own prefixes "
        "lead, mistakes included, which is what it meets at inference; on the teacher's text it would never see "
        "its own errors. The whole KL over the vocabulary is used at each position: far less variance than the "
        "log-ratio of the drawn token. The choice of tokens gets no gradient: the step treats the prefixes as "
        "given data, so it does not learn that one token leads to worse prefixes; that part needs REINFORCE. One "
        "sampled log-ratio, differentiated directly, has a mean gradient of zero. The interviewer listens for: who "
        "samples, the shift by one, prompt left out, eval() and no_grad() on the teacher, zero_grad, the direction."
    ),
    reference=on_policy_step,
    cases=cases,
    sizes=lambda case: {
        "B": case["prompts"].shape[0],
        "N": case["new_tokens"],
        "V": case["student"].head.shape[1],
    },
    # A teacher may be put in evaluation mode or frozen; what must not change of it is observed.
    changes=("student", "teacher", "optimizer", "generator"),
    observe=observe,
)


def _after(solution: Solution, case: Case) -> object:
    """What a solution returns for a case, and the student's weights after it."""
    names = ("student", "teacher", "prompts")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result = solution(
            *(case[name] for name in names),
            **{name: value for name, value in case.items() if name not in names},
        )
    return result, parameters_to_vector(case["student"].parameters()).detach()


@drill.must(
    "does not add to gradients of an earlier step",
    "zero-grad-missing",
    "gradients that the student had before your step are in your step: backward() adds to them. Call "
    "optimizer.zero_grad() before loss.backward().",
)
def forgets_old_gradients(solution: Solution, generator: Generator) -> bool:
    """Compare a student that has old gradients with one whose gradients are zero."""
    case, found = cases(generator)[0], []
    for old in (0.0, 1.0):
        given = copied(case)
        for weight in given["student"].parameters():
            weight.grad = torch.full_like(weight, old)
        found.append(_after(solution, given))
    return same(*found)


@drill.must(
    "uses the teacher in evaluation mode",
    "teacher-in-train-mode",
    "a teacher that arrives in training mode gives you another loss: its dropout is on, so its answers are noisy. Call "
    "teacher.eval() before you use it.",
)
def quiet_teacher(solution: Solution, generator: Generator) -> bool:
    """Compare a teacher that arrives in training mode with one that does not."""
    case, found = cases(generator)[0], []
    for training in (False, True):
        given = copied(case)
        given["teacher"].train(training)
        found.append(_after(solution, given))
    return same(*found)


@drill.alternative
def scored_while_sampling(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Keep the logits from which each token was drawn; the models are causal, so they are the same."""
    optimizer.zero_grad()
    teacher.eval().requires_grad_(False)
    tokens, losses = prompts.clone(), []
    for _ in range(new_tokens):
        log_q = student(tokens)[:, -1].log_softmax(-1)
        log_p = teacher(tokens)[:, -1].log_softmax(-1)
        losses.append(F.kl_div(log_p, log_q, reduction="batchmean", log_target=True))
        drawn = torch.multinomial(log_q.detach().exp(), 1, generator=generator)
        tokens = torch.hstack([tokens, drawn])
    loss = torch.stack(losses).mean()
    loss.backward()
    optimizer.step()
    return tokens, loss.detach()


@drill.alternative
def masked_positions(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """A buffer that is filled, a mask of positions, and the teacher's mode given back."""
    batch, prompt = prompts.shape
    tokens = prompts.new_zeros(batch, prompt + new_tokens)
    tokens[:, :prompt] = prompts
    mode = teacher.training
    teacher.train(False)
    with torch.no_grad():
        for end in range(prompt, prompt + new_tokens):
            probabilities = torch.softmax(student(tokens[:, :end])[:, end - 1], dim=1)
            tokens[:, end : end + 1] = torch.multinomial(probabilities, 1, generator=generator)
        target = teacher(tokens[:, :-1])
    teacher.train(mode)
    logits = student(tokens[:, :-1])
    written = (torch.arange(prompt + new_tokens - 1) >= prompt - 1).expand(batch, -1)
    q = torch.distributions.Categorical(logits=logits[written])
    p = torch.distributions.Categorical(logits=target[written])
    loss = torch.distributions.kl_divergence(q, p).sum() / (batch * new_tokens)
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return tokens, loss.detach()


def _drawn(probabilities: Tensor, generator: Generator | None) -> Tensor:
    """One token for each row."""
    return torch.multinomial(probabilities, 1, generator=generator)


def _first(probabilities: Tensor, generator: Generator | None) -> Tensor:
    """The most probable token of each row."""
    return probabilities.argmax(dim=-1, keepdim=True)


def _written(
    writer: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    generator: Generator | None,
    choose: Callable[[Tensor, Generator | None], Tensor] = _drawn,
) -> Tensor:
    """Prompts and what a model writes after them."""
    tokens = prompts
    with torch.no_grad():
        for _ in range(new_tokens):
            chosen = choose(F.softmax(writer(tokens)[:, -1], dim=-1), generator)
            tokens = torch.cat([tokens, chosen], dim=1)
    return tokens


def _scores(model: nn.Module, tokens: Tensor, start: int, end: int | None = -1) -> Tensor:
    """Log-probabilities at positions from start to end."""
    return F.log_softmax(model(tokens)[:, start:end], dim=-1)


def _reverse(log_s: Tensor, log_t: Tensor) -> Tensor:
    """KL(student || teacher), averaged over positions."""
    return (log_s.exp() * (log_s - log_t)).sum(dim=-1).mean()


def _step(optimizer: Optimizer, tokens: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """The end of a step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return tokens, loss.detach()


@drill.mistake(
    "off-policy",
    "your tokens are the teacher's: that is distillation on its text, in which the student never meets its own "
    "mistakes. On-policy means that the student samples, and the teacher only scores.",
)
def off_policy(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Let the teacher write."""
    teacher.eval()
    tokens, start = _written(teacher, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, start), log_t))


@drill.mistake(
    "greedy",
    "your tokens are the most probable ones: argmax is no sample, and the student would be trained on one prefix per "
    "prompt that it hardly ever writes at T = 1. Draw with torch.multinomial.",
)
def greedy(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Take the first choice each time."""
    teacher.eval()
    start = prompts.shape[1] - 1
    tokens = _written(student, prompts, new_tokens, None, _first)
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, start), log_t))


@drill.mistake(
    "generator-unused",
    "your tokens come from the global random state: nobody can repeat the step. Pass generator=generator to "
    "torch.multinomial.",
)
def global_state(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Draw without the generator."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, None), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, start), log_t))


@drill.mistake(
    "prompt-counted",
    "positions inside the prompt are in the loss: the student did not write those tokens. Begin at P - 1, the position "
    "that predicts the first new token.",
)
def prompt_counted(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Score every position that predicts a token."""
    teacher.eval()
    tokens = _written(student, prompts, new_tokens, generator)
    with torch.no_grad():
        log_t = _scores(teacher, tokens, 0)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, 0), log_t))


@drill.mistake(
    "not-shifted",
    "your positions are late by one: logits at position i predict token i + 1. You leave out the first new token, and "
    "count the last position, which predicts a token that nobody wrote. Slice [:, P - 1 : -1].",
)
def not_shifted(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Score the positions of the new tokens themselves."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1]
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start, None)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, start, None), log_t))


@drill.mistake(
    "forward",
    "this is the forward KL(teacher || student): F.kl_div(log q, p) is KL(p || q). On the student's own text the "
    "reverse KL is asked for, in which the student's probabilities come first.",
    seen="siyan-zhao/OPSD issue 14",
)
def forward(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Compute the other direction."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(log_t, _scores(student, tokens, start)))


@drill.mistake(
    "drawn-tokens-only",
    "your loss holds the log-ratio of the drawn tokens only. As a value it is right on average, but its gradient is "
    "zero on average, for the weight of each token is missing. Sum over the vocabulary, or use REINFORCE.",
)
def drawn_only(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Differentiate the log-ratio of the tokens that were drawn."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    ratio = _scores(student, tokens, start) - log_t
    return _step(optimizer, tokens, ratio.gather(-1, tokens[:, start + 1 :, None]).mean())


@drill.mistake(
    "teacher-gradient",
    "the teacher's parameters got gradients: the backward pass through it costs time and memory, and one optimizer "
    "that holds both would train it. Run the teacher under torch.no_grad().",
)
def live_teacher(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Score without no_grad."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    log_s, log_t = _scores(student, tokens, start), _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(log_s, log_t))


@drill.mistake(
    "no-step",
    "the student's weights did not change: optimizer.step() is missing, or the gradients were cleared between "
    "backward() and step().",
)
def no_step(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Clear the gradients before they are used."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    loss = _reverse(_scores(student, tokens, start), log_t)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return tokens, loss.detach()


@drill.mistake(
    "zero-grad-missing",
    "gradients that the student had before your step are in your step: backward() adds to them. Call "
    "optimizer.zero_grad() before loss.backward().",
)
def old_gradients(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Add to what is there."""
    teacher.eval()
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    loss = _reverse(_scores(student, tokens, start), log_t)
    loss.backward()
    optimizer.step()
    return tokens, loss.detach()


@drill.mistake(
    "teacher-in-train-mode",
    "a teacher that arrives in training mode gives you another loss: its dropout is on, so its answers are noisy. Call "
    "teacher.eval() before you use it.",
)
def noisy_teacher(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Tensor,
    *,
    new_tokens: int,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Use the teacher as it comes."""
    tokens, start = _written(student, prompts, new_tokens, generator), prompts.shape[1] - 1
    with torch.no_grad():
        log_t = _scores(teacher, tokens, start)
    return _step(optimizer, tokens, _reverse(_scores(student, tokens, start), log_t))
