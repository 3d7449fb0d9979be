"""Drill: softmax with a temperature."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def softmax_with_temperature(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the probabilities of logits softened by T, over the last dimension.

    logits: any shape (..., C); finite, but as large as floating point allows. Do not call torch's
    softmax or logsumexp.
    """
    scaled = logits / temperature
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    powers = scaled.exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def example() -> Case:
    """Two rows, three classes."""
    logits = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    return {"logits": logits, "temperature": 2.0}


def cases(generator: Generator) -> list[Case]:
    """Shapes of two to four dimensions."""
    return [
        {
            "logits": draws.normal(generator, *shape, scale=3),
            "temperature": draws.real(generator, 1.5, 8),
        }
        for shape in ((4, 5), (2, 3, 6), (5, 5), (2, 3, 4, 5))
    ]


def edges() -> list[Edge]:
    """Logits whose exponential is infinite, in one row or in all; one class; three dimensions."""
    logits = example()["logits"]
    hint = "Subtract each row's own maximum before exp."
    far = torch.stack([logits[0], logits[1] - 1e5])
    return [
        Edge("logits of 100,000", {"logits": 1e5 * logits, "temperature": 2.0}, hint),
        Edge("logits of -100,000", {"logits": -1e5 * logits.abs() - 1e5, "temperature": 2.0}, hint),
        Edge("rows that are far apart", {"logits": far, "temperature": 2.0}, hint),
        Edge("one vector", {"logits": logits[0], "temperature": 2.0}),
        Edge(
            "three dimensions",
            {
                "logits": logits[None].repeat(2, 1, 1) * torch.tensor([1.0, 2.0])[:, None, None],
                "temperature": 2.0,
            },
        ),
        Edge("one class", {"logits": logits[:, :1], "temperature": 2.0}),
        Edge("T = 1", {"logits": logits, "temperature": 1.0}, without="the temperature"),
        Edge("a whole number as T", {"logits": logits, "temperature": 4}),
        Edge("float32 logits", {"logits": logits.float(), "temperature": 2.0}),
        Edge("logits in half precision", {"logits": logits.half(), "temperature": 2.0}, hint),
    ]


def family(wrong: Wrong, logits: Tensor, *, temperature: float) -> Tensor:
    """Softmax with its switches."""
    t = temperature
    powers = {"multiplied": 1 / t, "temperature-ignored": 1.0, "divided-afterwards": 1.0}
    powers |= {"divided-by-t-squared": t**2, "divided-by-root": t**0.5}
    divisor = next((powers[name] for name in powers if name in wrong), t)
    z = logits.softmax(-1) / t if "softmax-twice" in wrong else logits / divisor
    dims: tuple[int, ...] = (-1,)
    if "wrong-dimension" in wrong:
        dims = (0,)
    if "second-dimension" in wrong:
        dims = (1,)
    if "over-everything" in wrong:
        dims = tuple(range(z.dim()))
    largest = z.detach().amax(dims, keepdim=True)
    if "overflow" in wrong:
        largest = torch.zeros_like(largest)
    if "one-maximum-for-all" in wrong:
        largest = z.detach().max()
    if "maximum-before-temperature" in wrong:
        largest = logits.detach().amax(dims, keepdim=True)
    powers_of_e = (z - largest).exp()
    total = powers_of_e.sum(dims, keepdim=True)
    if "not-normalized" in wrong:
        total = torch.ones_like(total)
    if "guard" in wrong:
        total = total + 1e-6
    if "divided-by-norm" in wrong:
        total = powers_of_e.square().sum(dims, keepdim=True).sqrt()
    result = powers_of_e / total
    if "logarithm" in wrong:
        result = (z - largest) - total.log()
    if "divided-afterwards" in wrong:
        result = result / t
    return result.detach() if "detached" in wrong else result


drill = Drill(
    id="softmax-temperature",
    title="Softmax with temperature",
    task=(
        "Write softmax with a temperature from exponentials and sums. It must not fail for large "
        "logits."
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "What does T do to the differences between logits? And what may be added to all logits "
        "without changing the result?",
        "exp(1000) is infinite. Which constant, subtracted from a row, keeps every exponent at or "
        "below 0?",
        "logits may have one dimension or three: which dimension do the maximum and the sum run "
        "over, and which shape must they keep?",
    ),
    explanation=(
        "O(C) for each row. Softmax does not change when a constant is added to all logits, so the "
        "maximum can be subtracted: every exponent is then at most 0, nothing overflows, and the "
        "sum is at least 1. T > 1 brings probabilities nearer to each other and keeps their order; "
        "T to infinity gives 1/C, T to 0 the largest class alone. The interviewer listens for "
        "division (not multiplication) by T, for the dimension, and for the maximum."
    ),
    reference=softmax_with_temperature,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # temperature
        - multiplied: the logits are multiplied by T, not divided: the distribution gets sharper
          with T, not softer.
        - softmax-twice: softmax is applied twice: probabilities lie between 0 and 1, so the second
          one makes them nearly uniform.
          Seen proposed: haitongli/knowledge-distillation-pytorch issue 10
        - divided-afterwards: T divides the probabilities, not the logits: they sum to 1/T, and
          their ratios are as they were.
        - temperature-ignored: T changes nothing: these are the probabilities at T = 1.
        - divided-by-t-squared: the logits are divided by T², not by T.
        - divided-by-root: the logits are divided by the root of T, not by T.
        # dimension
        - wrong-dimension: the probabilities sum to 1 over the first dimension, the batch: classes
          are in the last one.
        - second-dimension: the probabilities sum to 1 over dimension 1: classes are in the last
          one, whatever its number.
        - over-everything: all probabilities together sum to 1: each row has a sum of its own.
        # maximum
        - overflow: exp overflows for large logits, and infinity over infinity is NaN: subtract the
          maximum of each row first.
        - one-maximum-for-all: the maximum of the whole tensor is subtracted: in a row far below it
          every exponential is 0, and 0 over 0 is NaN. Take each row's own.
        - maximum-before-temperature: the maximum is subtracted from logits that were divided by T,
          but it is that of the logits before.
        # result
        - logarithm: these are the logarithms of the probabilities.
        - not-normalized: the exponentials are not divided by their sum.
        - guard: a guard is added to the sum: the probabilities sum to less than 1. After the
          maximum was subtracted the sum is at least 1, and needs none.
        - divided-by-norm: the exponentials are divided by their L2 norm, not by their sum.
        # gradient
        - detached: the result carries no gradient: .detach(), .data or no_grad() cuts the graph.
        """
    ),
    sizes=lambda case: {"C": case["logits"].shape[-1], "T": case["temperature"]},
    gradients=("logits",),
    forbidden=("softmax", "log_softmax", "logsumexp", "softmin"),
)
