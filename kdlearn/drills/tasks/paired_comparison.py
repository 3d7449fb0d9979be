"""Drill: is method a better than method b, over seeds?"""

import math

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def compare(a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """Return the mean difference a - b with its 95 % interval, and a verdict.

    a, b: accuracies of two methods, shape (n,), n at least 2; entry i of both comes from seed i.
    t_quantile: the 97.5 % quantile of Student's t with n - 1 degrees of freedom. Keys: "mean",
    "low", "high", and "verdict", which is "a" or "b" where the whole interval is on one side of 0,
    else "undecided".
    """
    difference = a - b
    mean = difference.mean().item()
    margin = t_quantile * difference.std(correction=1).item() / math.sqrt(len(difference))
    low, high = mean - margin, mean + margin
    verdict = "a" if low > 0 else "b" if high < 0 else "undecided"
    return {"mean": mean, "low": low, "high": high, "verdict": verdict}


def example() -> Case:
    """Three seeds."""
    a, b = torch.tensor([71.0, 68.0, 75.0]), torch.tensor([70.0, 66.0, 72.0])
    return {"a": a.double(), "b": b.double(), "t_quantile": 4.303}


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


def edges() -> list[Edge]:
    """Two seeds, equal methods, the same difference for every seed, and either method ahead."""
    a = torch.tensor([71.0, 68.0, 75.0, 70.0], dtype=torch.float64)
    same = torch.full_like(a, 2.0)
    small = torch.tensor([0.1, -0.1, 0.2, -0.2], dtype=torch.float64)
    plans = {
        "two seeds": (a[:2], a[:2] - torch.tensor([1.0, 2.0]), 12.706),
        "equal methods": (a, a.clone(), 3.182),
        "a difference that is the same for every seed": (a, a - same, 3.182),
        "methods that rank the seeds otherwise": (a, a.flip(0) - 1, 3.182),
        "a clear win of a": (a, a - 3 - small, 3.182),
        "a clear win of b": (a, a + 3 + small, 3.182),
        "a mean ahead within noise": (a, a - 0.05 - small, 3.182),
        "a mean behind within noise": (a, a + 0.05 + small, 3.182),
        "a lead of between one and two deviations": (a, a - 0.25 - small, 3.182),
    }
    return [
        Edge(title, {"a": one, "b": other, "t_quantile": t})
        for title, (one, other, t) in plans.items()
    ]


def family(wrong: Wrong, a: Tensor, b: Tensor, *, t_quantile: float) -> dict[str, float | str]:
    """The comparison with its switches."""
    if "sides-swapped" in wrong:
        a, b = b, a
    d, n = a - b, len(a)
    mean = (d.quantile(0.5) if "median" in wrong else d.mean()).item()
    correction = 0 if "population-deviation" in wrong else 1
    power = 2 if "variance" in wrong else 1
    spread = d.std(correction=correction).item() ** power
    if "unpaired" in wrong:
        spread = (
            math.sqrt(a.var(correction=correction).item() + b.var(correction=correction).item())
            ** power
        )
    if "deviations-subtracted" in wrong:
        spread = (
            abs(a.std(correction=correction).item() - b.std(correction=correction).item()) ** power
        )
    if "first-deviation-only" in wrong:
        spread = a.std(correction=correction).item() ** power
    roots = {"deviation-for-error": 1.0, "divided-by-n": n, "root-of-n-minus-1": math.sqrt(n - 1)}
    error = spread / next((roots[name] for name in roots if name in wrong), math.sqrt(n))
    quantiles = {
        "normal-quantile": 1.96,
        "two-deviations": 2.0,
        "quantile-ignored": 1.0,
        "half-width": t_quantile / 2,
        "quantile-halved-error": 2 * t_quantile,
    }
    margin = error * next((quantiles[name] for name in quantiles if name in wrong), t_quantile)
    if "one-seed" in wrong:
        mean, margin = d[0].item(), 0.0
    if "no-width" in wrong:
        margin = 0.0
    low, high = mean - margin, mean + margin
    verdict = "a" if low > 0 else "b" if high < 0 else "undecided"
    ahead, behind = int((d > 0).sum()), int((d < 0).sum())
    verdicts = {
        "verdict-from-mean": "a" if mean > 0 else "b",
        "verdict-one-sided": "a" if low > 0 else "undecided",
        "verdict-inverted": {"a": "b", "b": "a"}.get(verdict, verdict),
        "always-undecided": "undecided",
        "verdict-by-low-only": "a" if low > 0 else "b",
        "verdict-by-deviation": "undecided" if abs(mean) <= spread else "a" if mean > 0 else "b",
        "verdict-by-seeds": "a" if ahead > behind else "b" if behind > ahead else "undecided",
    }
    verdict = next((verdicts[name] for name in verdicts if name in wrong), verdict)
    return {"mean": mean, "low": low, "high": high, "verdict": verdict}


drill = Drill(
    id="paired-comparison",
    title="Better, or lucky?",
    task=(
        "Five seeds of a student from labels, and five of a distilled one with the same seeds. Is "
        "the distilled one "
        'better? Write the function that answers with an interval, and that may say "undecided".'
    ),
    minutes=10,
    level="core",
    hints=(
        "Both methods had the same data order and initial weights for seed i. What does that "
        "share, and how do you remove it?",
        "The interval of a mean needs its standard error. How does that come from a deviation, "
        "and by what does the deviation of a sample divide?",
        "When does an interval speak for one of the methods? There are three answers, not two.",
    ),
    explanation=(
        "O(n). Seeds move both methods together: a bad subset of the data is bad for both. The "
        "differences remove what is shared, and their interval is often several times narrower "
        "than that of two independent samples. With n = 5 the t quantile is `2.78`, not `1.96`. "
        "The interviewer listens for: pairing, n - 1, the standard error, and the willingness to "
        "say that the data do not decide. Choices such as T must have been made on validation "
        "data, or the interval is too good."
    ),
    reference=compare,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # error
        - one-seed: one seed decides: your interval has no width. One run says nothing of how much
          another would differ.
          Seen in code: keras-io's distillation example and the PyTorch tutorial report one run
        - no-width: your interval has no width: it is the mean alone.
        - unpaired: the two methods are treated as independent samples: what their seeds share stays
          in, and the interval is far too wide. Work on the differences a - b.
        - deviations-subtracted: the deviations of the two methods are subtracted: the deviation of
          the differences is another number.
        - first-deviation-only: the deviation is that of a alone: take that of the differences.
        # correction
        - population-deviation: the deviation divides by n, not by n - 1: with few seeds the
          interval is too narrow. The t quantile belongs to the sample deviation.
        - variance: the variance stands in place of the deviation: take its root.
        # root
        - deviation-for-error: this is the spread of single differences, not of their mean: divide
          the standard deviation by the root of n.
        - divided-by-n: the deviation is divided by n: the error of a mean has the root of n.
        - root-of-n-minus-1: the deviation is divided by the root of n - 1: that goes with a
          deviation over n, and here it is over n - 1.
        # quantile
        - normal-quantile: 1.96 is the quantile of the normal distribution: with few seeds the
          deviation is itself uncertain, and the t quantile that you were given is larger.
        - two-deviations: the interval is two standard errors wide on each side: use the t quantile
          that you were given.
        - quantile-ignored: the interval is one standard error wide on each side: multiply by the t
          quantile.
        - half-width: the interval is half as wide as it should be: the margin is added on both
          sides in full.
        - quantile-halved-error: the interval is twice as wide as it should be: the quantile is that
          of both sides already.
        # verdict
        - verdict-from-mean: the verdict follows the mean alone and never says "undecided": so would
          "distillation always helps". Decide by whether 0 lies in the interval.
        - verdict-one-sided: the verdict is never "b": the interval can lie below 0 as a whole.
        - verdict-inverted: the verdict names the loser: a positive difference a - b speaks for a.
        - always-undecided: the verdict is always "undecided".
        - verdict-by-low-only: the verdict is "b" wherever the interval is not above 0: where 0 lies
          inside, the data do not decide.
        - verdict-by-deviation: the verdict compares the mean with the deviation, not with the
          interval.
        - verdict-by-seeds: the verdict counts on how many seeds each method is ahead: decide by the
          interval.
        # sides
        - sides-swapped: the difference is b - a: with the sides swapped, every verdict names the
          loser.
        # mean
        - median: the median of the differences stands in place of their mean.
        """
    ),
    sizes=lambda case: {"n": len(case["a"]), "t": case["t_quantile"]},
    observe=lambda case, result: dict(result),
)
