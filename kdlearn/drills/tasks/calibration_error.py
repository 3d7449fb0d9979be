"""Drill: the expected calibration error."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int) -> float:
    """Return the expected calibration error, as a Python number from 0 to 1.

    probabilities: shape (N, C), each row sums to 1. labels: shape (N,). An image's confidence is
    its largest probability. Bin m of M = bins holds the confidences in ((m - 1) / M, m / M]. The
    error is the sum over bins of |accuracy - mean confidence|, each weighted by the bin's share of
    the N images. Empty bins count nothing.
    """
    confidence, predicted = probabilities.max(dim=1)
    gap = (predicted == labels).to(confidence.dtype) - confidence
    number = (confidence * bins).ceil().long() - 1
    sums = torch.zeros(bins, dtype=gap.dtype).index_add(0, number, gap)
    return (sums.abs().sum() / len(gap)).item()


def example() -> Case:
    """Five images of three classes, two bins; both bins hold more than one image."""
    rows = [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.1, 0.2, 0.7], [0.3, 0.45, 0.25]]
    return {
        "probabilities": torch.tensor(rows, dtype=torch.float64),
        "labels": torch.tensor([0, 1, 1, 0, 1]),
        "bins": 2,
    }


def answers(generator: Generator, rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return the logits of a model that is often right and too sure of itself, and the labels."""
    labels = draws.whole(generator, 0, classes - 1, rows)
    truth = F.one_hot(labels, classes).double()
    noise = draws.normal(generator, rows, classes)
    return (1.5 * truth + noise) * draws.real(generator, 1.2, 2.2), labels


def cases(generator: Generator) -> list[Case]:
    """Models that are too sure, with as many bins as are mostly full, or with more."""
    made = []
    for rows, classes, bins in ((60, 4, 5), (45, 6, 10), (80, 3, 15), (50, 10, 7)):
        logits, labels = answers(generator, rows, classes)
        made.append({"probabilities": logits.softmax(1), "labels": labels, "bins": bins})
    return made


def edges() -> list[Edge]:
    """Confidences at the border of two bins and at 1, one bin, one image, empty bins."""
    case = example()
    border = [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [0.0, 0.625, 0.375]]
    at_border = {
        "probabilities": torch.tensor(border, dtype=torch.float64),
        "labels": torch.tensor([1, 0, 0]),
        "bins": 4,
    }
    certain = {
        "probabilities": torch.tensor([[1.0, 0.0, 0.0], *border[1:]], dtype=torch.float64),
        "labels": torch.tensor([1, 0, 1]),
        "bins": 4,
    }
    return [
        Edge(
            "confidences at the border of two bins",
            at_border,
            "A bin holds its upper border: 0.5 of four bins is in the second.",
        ),
        Edge("a confidence of 1", certain, "It belongs to the last bin."),
        Edge("one bin", case | {"bins": 1}, without="the bins"),
        Edge("one image", {name: v[:1] if name != "bins" else v for name, v in case.items()}),
        Edge("more bins than images", case | {"bins": 40}, "The mean of an empty bin is NaN."),
        Edge("float32 probabilities", case | {"probabilities": case["probabilities"].float()}),
    ]


def confidences(wrong: Wrong, probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how sure the model is of each image, and 1.0 where it is right; faults of `drill`.

    Example:
        >>> p, labels = torch.tensor([[0.75, 0.25]]), torch.tensor([1])
        >>> [one.item() for one in confidences(frozenset({"of-the-label"}), p, labels)]
        [0.25, 0.0]
    """
    p = probabilities
    if "softmax-again" in wrong:
        p = p.softmax(1)
    confidence, predicted = p.max(1)
    right = (predicted == labels).to(p.dtype)
    if "of-the-label" in wrong:
        confidence = p.gather(1, labels[:, None])[:, 0].clamp(min=1e-9)
    if "margin" in wrong:
        two = p.topk(2, 1).values
        confidence = (two[:, 0] - two[:, 1]).clamp(min=1e-9)
    if "error-rate" in wrong:
        right = 1 - right
    return confidence, right


def error_of(wrong: Wrong, confidence: Tensor, right: Tensor, bins: int) -> Tensor:
    """Return the calibration error of confidences; faults of `drill`.

    Example:
        >>> sure, right = torch.tensor([0.75, 0.25]), torch.tensor([1.0, 0.0])
        >>> error_of(frozenset({"largest-gap"}), sure, right, 2).item()
        0.25
    """
    if "fifteen-bins" in wrong:
        bins = 15
    if "ten-bins" in wrong:
        bins = 10
    number = (confidence * bins).ceil().long() - 1
    if "lower-borders" in wrong:
        number = (confidence * bins).floor().long().clamp(max=bins - 1)
    if "rounded-to-bins" in wrong:
        number = (confidence * (bins - 1)).round().long()
    if "equally-full" in wrong:
        number = confidence.argsort().argsort() * bins // len(confidence)
    if "no-bins" in wrong:
        number = torch.zeros_like(number)
    member = F.one_hot(number, bins).to(right.dtype)
    if "certain-left-out" in wrong:
        member = member * (confidence < 1).to(right.dtype)[:, None]
    size = member.sum(0)
    hits = right @ member / size.clamp(min=1)
    if "accuracy-of-all" in wrong:
        hits = right.mean().expand_as(size)
    sure = confidence @ member / size.clamp(min=1)
    if "middle-of-the-bin" in wrong:
        sure = (torch.arange(len(size), dtype=right.dtype) + 0.5) / len(size)
    gap = (hits - sure) * (size > 0)
    weight = size / len(confidence)
    if "weights-missing" in wrong:
        weight = torch.ones_like(weight)
    if "averaged-over-bins" in wrong:
        weight = torch.ones_like(weight) / len(size)
    if "averaged-over-full-bins" in wrong:
        weight = torch.ones_like(weight) / (size > 0).sum()
    if "counted" in wrong:
        weight = size
    distance = gap.abs()
    if "signed" in wrong:
        distance = gap
    if {"squared", "rooted"} & wrong:
        distance = gap.square()
    total = (weight * distance).sum()
    if "image-by-image" in wrong:
        total = (right - confidence).abs().mean()
    if "largest-gap" in wrong:
        total = distance.max()
    if "rooted" in wrong:
        total = total.sqrt()
    return total


def family(wrong: Wrong, probabilities: Tensor, labels: Tensor, *, bins: int) -> float:
    """The error with its switches."""
    confidence, right = confidences(wrong, probabilities, labels)
    error = error_of(wrong, confidence, right, bins).item()
    return 100 * error if "in-per-cent" in wrong else error


drill = Drill(
    id="calibration-error",
    title="The expected calibration error",
    task=(
        "A student is right less often than its probabilities say. Write the number that sums this "
        "up over all its answers: the expected calibration error."
    ),
    minutes=8,
    level="core",
    hints=(
        "One image has a confidence, and is right or wrong: no accuracy. What do you need to group "
        "before the two can be compared?",
        "Bins hold very different numbers of images. What should a bin with two of them count "
        "beside one with two hundred?",
        "Weight times gap: the size of a bin cancels. What is then left to sum in each bin, and "
        "what becomes of an empty one?",
    ),
    explanation=(
        "O(NC + M). In each bin the share |B|/N times the gap of two means is a sum over the bin's "
        "images of (right minus confidence), divided by N: no bin is divided by its size, so an "
        "empty one needs no case of its own. The absolute value is taken after the sum over a bin: "
        "earlier it would count every single answer as wrong, later it would let one bin's excess "
        "pay for another's lack. The number depends on M: with one bin it is the gap of overall "
        "accuracy and mean confidence, and with many bins and few images noise alone makes it "
        "large. A model that gives every image the shares of the classes has an error near 0 and "
        "knows nothing, so report accuracy or the log-likelihood beside it. The interviewer "
        "listens for: the largest probability, the weights, the absolute value for each bin, and "
        "that M and N are said. Source: [Guo et al., 2017](cite:guo2017calibration), who use 15 "
        "bins."
    ),
    reference=calibration_error,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # confidence
        - of-the-label: the confidence is the probability of the label: a model in use does not know
          the label. Take the largest probability, right or wrong.
        - margin: the confidence is the lead over the second class: asked for is the largest
          probability.
        - softmax-again: softmax is applied to what are probabilities already: every confidence
          comes near 1/C.
        # accuracy
        - error-rate: the confidence is compared with the share of wrong answers: it has to be that
          of right ones.
        - accuracy-of-all: every bin's confidence is compared with the accuracy of all images: take
          that of the bin.
        # weights
        - weights-missing: the gaps of the bins are summed without weights: a bin of two images
          counts as much as one of two hundred, and the sum can exceed 1.
        - averaged-over-bins: the gaps are averaged over all M = {M} bins, the empty ones included:
          weigh each by its share of the images.
        - averaged-over-full-bins: the gaps are averaged over the bins that hold images: weigh each
          by its share of the images.
        - counted: the gaps are weighted by the numbers of images, not by their shares: divide by N
          = {N}.
        # gap
        - signed: the gaps keep their signs: a bin that is too sure and one that is not sure enough
          cancel, and what is left is accuracy minus mean confidence.
        - squared: the gaps are squared: asked for is the absolute value.
        - rooted: this is the root of the mean squared gap: asked for is the mean absolute gap.
        # total
        - largest-gap: this is the largest gap of a bin, the maximum calibration error: asked for is
          the weighted mean.
        - image-by-image: each image is a bin of its own: a single answer is right or wrong and has
          no accuracy, so that a calibrated model is charged for every doubt.
        # bins
        - no-bins: all images are in one bin: this is the gap of overall accuracy and mean
          confidence, where errors of opposite sign cancel.
        - equally-full: the bins hold equally many images: asked for are bins of equal width.
        - lower-borders: a confidence at the border of two bins is in the upper one: a bin holds its
          upper border.
        - rounded-to-bins: the confidence is rounded to one of M = {M} values: the first and the
          last bin are then half as wide as the others.
        # number
        - fifteen-bins: there are always 15 bins: use the number that is given.
        - ten-bins: there are always 10 bins: use the number that is given.
        # certain
        - certain-left-out: a confidence of exactly 1 is in no bin: the last one holds its upper
          border.
        # mean
        - middle-of-the-bin: the accuracy is compared with the middle of the bin: asked for is the
          mean confidence of its images.
        # unit
        - in-per-cent: the error is in per cent: the task asks for a number from 0 to 1.
        """
    ),
    sizes=lambda case: {"N": len(case["labels"]), "M": case["bins"]},
    plain=True,
)
