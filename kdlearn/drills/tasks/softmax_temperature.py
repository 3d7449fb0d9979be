"""Drill: softmax with a temperature."""

from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def softmax_with_temperature(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the probabilities of logits softened by T, over the last dimension.

    logits: any shape (..., C); finite, but as large as floating point allows. Do not call torch's softmax or logsumexp.
    """
    scaled = logits / temperature
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    powers = scaled.exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def cases(generator: Generator) -> list[Case]:
    """Shapes of one to three dimensions."""
    return [
        {
            "logits": draws.normal(generator, *shape, scale=3),
            "temperature": draws.real(generator, 1.5, 8),
        }
        for shape in ((7,), (4, 5), (2, 3, 6), (5, 5))
    ]


def extremes(generator: Generator) -> list[Case]:
    """Logits whose exponential is infinite."""
    return [{"logits": draws.normal(generator, 4, 5, scale=1e5), "temperature": 2.0}]


drill = Drill(
    id="softmax-temperature",
    title="Softmax with temperature",
    task=(
        "Write softmax with a temperature from exponentials and sums. It must not fail for large logits."
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "What does T do to the differences between logits? And what may be added to all logits without changing "
        "the result?",
        "Divide by T first, then subtract the maximum: the largest exponential is then 1.",
        "z = logits / T; z = z - z.amax(-1, keepdim=True); z.exp() / z.exp().sum(-1, keepdim=True)",
    ),
    explanation=(
        "O(C) for each row. Softmax does not change when a constant is added to all logits, so the maximum can be "
        "subtracted: every exponent is then at most 0, nothing overflows, and the sum is at least 1. T > 1 brings "
        "probabilities nearer to each other and keeps their order; T to infinity gives 1/C, T to 0 the largest "
        "class alone. The interviewer listens for division (not multiplication) by T, for the dimension, and for "
        "the maximum."
    ),
    reference=softmax_with_temperature,
    cases=cases,
    extremes=extremes,
    gradients=("logits",),
)


@drill.alternative
def by_torch(logits: Tensor, *, temperature: float) -> Tensor:
    """What the task forbids, and what one uses."""
    return (logits / temperature).softmax(-1)


@drill.alternative
def by_logarithms(logits: Tensor, *, temperature: float) -> Tensor:
    """Through log-probabilities."""
    largest = logits.max(-1, keepdim=True).values
    gaps = (logits - largest) / temperature
    return (gaps - gaps.exp().sum(-1, keepdim=True).log()).exp()


@drill.mistake(
    "multiplied",
    "the logits are multiplied by T, not divided: the distribution gets sharper with T, not softer.",
    seen="a computer-vision distillation page of Hugging Face (commit 01080da)",
)
def multiplied(logits: Tensor, *, temperature: float) -> Tensor:
    """Multiply by T."""
    return (logits * temperature).softmax(-1)


@drill.mistake(
    "softmax-twice",
    "softmax is applied twice: probabilities lie between 0 and 1, so the second one makes them nearly uniform.",
    seen="proposed in haitongli/knowledge-distillation-pytorch issue 10",
)
def twice(logits: Tensor, *, temperature: float) -> Tensor:
    """Soften probabilities as if they were logits."""
    return (logits.softmax(-1) / temperature).softmax(-1)


@drill.mistake(
    "divided-afterwards",
    "T divides the probabilities, not the logits: they sum to 1/T, and their ratios are as they were.",
)
def late(logits: Tensor, *, temperature: float) -> Tensor:
    """Divide the result."""
    return logits.softmax(-1) / temperature


@drill.mistake(
    "temperature-ignored",
    "T changes nothing: these are the probabilities at T = 1.",
)
def ignored(logits: Tensor, *, temperature: float) -> Tensor:
    """Forget T."""
    return logits.softmax(-1)


@drill.mistake(
    "wrong-dimension",
    "the probabilities sum to 1 over the first dimension, the batch: classes are in the last one.",
)
def over_the_batch(logits: Tensor, *, temperature: float) -> Tensor:
    """Normalize over the first dimension."""
    return (logits / temperature).softmax(0)


@drill.mistake(
    "overflow",
    "exp overflows for large logits, and infinity over infinity is NaN: subtract the maximum of each row first.",
)
def naive(logits: Tensor, *, temperature: float) -> Tensor:
    """Exponentials as they come."""
    powers = (logits / temperature).exp()
    return powers / powers.sum(-1, keepdim=True)
