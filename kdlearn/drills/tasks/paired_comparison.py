"""Drill: is method a better than method b, over seeds?"""

import math

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def compare(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Return the mean difference a - b with its 95 % interval, and a verdict.

    a, b: accuracies of two methods, shape (n,), n at least 2; entry i of both comes from seed i. t_quantile: the 97.5 %
    quantile of Student's t with n - 1 degrees of freedom. Keys: "mean", "low", "high", and "verdict", which is "a"
    or "b" where the whole interval is on one side of 0, else "undecided".
    """
    difference = a - b
    mean = difference.mean().item()
    margin = t_quantile * difference.std(correction=1).item() / math.sqrt(len(difference))
    low, high = mean - margin, mean + margin
    verdict = "a" if low > 0 else "b" if high < 0 else "undecided"
    return {"mean": mean, "low": low, "high": high, "verdict": verdict}


def cases(generator: Generator) -> list[Case]:
    """Clear wins of either, a tie within noise, and a gain that only pairing shows."""
    made = []
    for n, quantile, gain in ((5, 2.776, 3.0), (4, 3.182, -4.0), (6, 2.571, 0.0), (8, 2.365, 1.0)):
        seeds = draws.normal(generator, n, scale=6) + 70
        noise = draws.normal(generator, n, scale=0.3)
        noise -= noise.mean()
        wide = draws.normal(generator, n, scale=4) if gain == 0 else noise
        made.append(
            {"a": seeds + gain + wide - wide.mean() + 0.2, "b": seeds, "t_quantile": quantile}
        )
    return made


drill = Drill(
    id="paired-comparison",
    title="Better, or lucky?",
    task=(
        "Five seeds of a student from labels, and five of a distilled one with the same seeds. Is the distilled one "
        'better? Write the function that answers with an interval, and that may say "undecided".'
    ),
    minutes=10,
    level="core",
    hints=(
        "Both methods had the same data order and initial weights for seed i. What does that share, and how do "
        "you remove it?",
        "Work on the differences. The interval of a mean needs its standard error, not the standard deviation.",
        "d = a - b; margin = t_quantile * d.std(correction=1) / sqrt(n); decide by whether 0 is inside.",
    ),
    explanation=(
        "O(n). Seeds move both methods together: a bad subset of the data is bad for both. The differences remove "
        "what is shared, and their interval is often several times narrower than that of two independent samples. "
        "With n = 5 the t quantile is `2.78`, not `1.96`. The interviewer listens for: pairing, n - 1, the standard "
        "error, and the willingness to say that the data do not decide. Choices such as T must have been made on "
        "validation data, or the interval is too good."
    ),
    reference=compare,
    cases=cases,
)


@drill.alternative
def by_sums(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Sums of squares, in plain Python."""
    values = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    margin = t_quantile * (variance / n) ** 0.5
    verdict = "undecided"
    if abs(mean) > margin:
        verdict = "a" if mean > 0 else "b"
    return {"mean": mean, "low": mean - margin, "high": mean + margin, "verdict": verdict}


@drill.alternative
def by_variance(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """The variance of a difference from variances and covariance."""
    both = torch.stack([a, b]).cov()
    error = ((both[0, 0] + both[1, 1] - 2 * both[0, 1]) / len(a)).sqrt()
    mean = a.mean() - b.mean()
    low, high = mean - t_quantile * error, mean + t_quantile * error
    verdict = "undecided" if low <= 0 <= high else ("a" if mean > 0 else "b")
    return {"mean": mean.item(), "low": low.item(), "high": high.item(), "verdict": verdict}


def _answer(mean: float, margin: float) -> dict[str, float | str]:
    """Say what an interval says."""
    verdict = "a" if mean > margin else "b" if mean < -margin else "undecided"
    return {"mean": mean, "low": mean - margin, "high": mean + margin, "verdict": verdict}


@drill.mistake(
    "one-seed",
    "one seed decides: your interval has no width. One run says nothing of how much another would differ.",
    seen="keras-io's distillation example and the PyTorch tutorial report one run",
)
def one_seed(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Look at the first seed."""
    return _answer((a[0] - b[0]).item(), 0.0)


@drill.mistake(
    "unpaired",
    "the two methods are treated as independent samples: what their seeds share stays in, and the interval is far "
    "too wide. Work on the differences a - b.",
)
def unpaired(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Add both variances."""
    error = math.sqrt((a.var() + b.var()).item() / len(a))
    return _answer((a.mean() - b.mean()).item(), t_quantile * error)


@drill.mistake(
    "population-deviation",
    "the deviation divides by n, not by n - 1: with few seeds the interval is too narrow. The t quantile belongs "
    "to the sample deviation.",
)
def population(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Divide by n."""
    d = a - b
    return _answer(d.mean().item(), t_quantile * d.std(correction=0).item() / math.sqrt(len(d)))


@drill.mistake(
    "deviation-for-error",
    "this is the spread of single differences, not of their mean: divide the standard deviation by the root of n.",
)
def no_root(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Forget the root of n."""
    d = a - b
    return _answer(d.mean().item(), t_quantile * d.std().item())


@drill.mistake(
    "normal-quantile",
    "`1.96` is the quantile of the normal distribution: with few seeds the deviation is itself uncertain, and the t "
    "quantile that you were given is larger.",
)
def normal(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Use 1.96."""
    return compare(a, b, t_quantile=1.96)


@drill.mistake(
    "verdict-from-mean",
    'the verdict follows the mean alone and never says "undecided": so would "distillation always helps". Decide by '
    "whether 0 lies in the interval.",
)
def by_mean(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Say a whenever it is ahead."""
    answer = compare(a, b, t_quantile=t_quantile)
    return answer | {"verdict": "a" if (a - b).mean() > 0 else "b"}


@drill.mistake(
    "sides-swapped",
    "the difference is b - a: with the sides swapped, every verdict names the loser.",
)
def swapped(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Subtract the wrong way."""
    return compare(b, a, t_quantile=t_quantile)
