"""Drill: temperature scaling, which calibrates a finished model with one number."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import chosen
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches
from kdlearn.drills.tasks import calibration_error


def temperature_scaling(
    val_logits: Tensor,
    val_labels: Tensor,
    test_logits: Tensor,
    test_labels: Tensor,
    *,
    temperatures: list[float],
    bins: int,
) -> dict[str, float]:
    """Return what one temperature makes of a finished model, as Python numbers.

    val_logits: (V, C), val_labels: (V,); test_logits: (N, C), test_labels: (N,). "temperature":
    that of the candidates, all above 0, with the smallest mean negative log-likelihood of the
    validation labels, where logits are divided by it before the softmax. "accuracy" and "ece": of
    the test images at that temperature. The expected calibration error has M = bins bins of the
    largest probability, ((m - 1) / M, m / M]: it is the sum over them of |accuracy - mean
    confidence|, each weighted by the bin's share of the images.
    """
    losses = [F.cross_entropy(val_logits / t, val_labels).item() for t in temperatures]
    temperature = temperatures[losses.index(min(losses))]
    confidence, predicted = F.softmax(test_logits / temperature, dim=1).max(dim=1)
    right = (predicted == test_labels).to(confidence.dtype)
    number = (confidence * bins).ceil().long() - 1
    sums = torch.zeros(bins, dtype=right.dtype).index_add(0, number, right - confidence)
    return {
        "temperature": temperature,
        "accuracy": right.mean().item(),
        "ece": (sums.abs().sum() / len(right)).item(),
    }


def example() -> Case:
    """Four images to fit on and four to test on; the model is too sure of three classes."""
    val = [[4.0, 0.0, 1.0], [0.0, 5.0, 2.0], [3.0, 1.0, 0.0], [1.0, 0.0, 3.0]]
    test = [[3.0, 0.0, 2.0], [0.0, 1.0, 4.0], [2.0, 5.0, 0.0], [1.0, 2.0, 0.0]]
    return {
        "val_logits": torch.tensor(val, dtype=torch.float64),
        "val_labels": torch.tensor([0, 1, 1, 2]),
        "test_logits": torch.tensor(test, dtype=torch.float64),
        "test_labels": torch.tensor([0, 1, 1, 1]),
        "temperatures": [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0],
        "bins": 4,
    }


def cases(generator: Generator) -> list[Case]:
    """Models that are too sure, candidates in no order."""
    made = []
    for rows, tests, classes, bins in ((60, 90, 4, 5), (80, 50, 6, 10), (50, 70, 3, 7)):
        logits, labels = calibration_error.answers(generator, rows + tests, classes)
        candidates = torch.linspace(0.2, draws.real(generator, 5, 6), 40, dtype=torch.float64)
        order = torch.randperm(len(candidates), generator=generator)
        made.append(
            {
                "val_logits": logits[:rows],
                "val_labels": labels[:rows],
                "test_logits": logits[rows:],
                "test_labels": labels[rows:],
                "temperatures": candidates[order].tolist(),
                "bins": bins,
            }
        )
    return made


def edges() -> list[Edge]:
    """A model that is not sure enough, one candidate, large logits."""
    case = example()
    sides = ("val_logits", "test_logits")
    return [
        Edge(
            "a model that is not sure enough",
            case | {name: case[name] / 8 for name in sides},
            "Its temperature is below 1.",
        ),
        Edge("one candidate", case | {"temperatures": [2.0]}, without="the fit"),
        Edge(
            "one test image",
            case
            | {name: case[name][:1] for name in sides[1:]}
            | {"test_labels": case["test_labels"][:1]},
        ),
        Edge(
            "logits of 4,000",
            case | {name: 1e3 * case[name] for name in sides},
            "Work with cross_entropy or log_softmax: where a probability underflows, its logarithm "
            "is -inf.",
        ),
        Edge("float32 logits", case | {name: case[name].float() for name in sides}),
    ]


def criterion(wrong: Wrong, logits: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Return what is to be small at the best temperature; faults of `drill`.

    Example:
        >>> logits, labels = torch.zeros(1, 4), torch.tensor([1])
        >>> criterion(frozenset({"fitted-by-squares"}), logits, labels, 5).item()
        0.75
    """
    p = logits.softmax(1)
    confidence, predicted = p.max(1)
    right = (predicted == labels).to(p.dtype)
    if "fitted-by-ece" in wrong:
        return calibration_error.error_of(frozenset(), confidence, right, bins)
    if "fitted-by-mean-confidence" in wrong:
        return (confidence.mean() - right.mean()).abs()
    if "fitted-by-squares" in wrong:
        return (p - F.one_hot(labels, p.shape[1])).square().sum(1).mean()
    if "fitted-by-accuracy" in wrong:
        return -right.mean()
    if "softmax-twice" in wrong:
        return F.cross_entropy(p, labels)
    return F.cross_entropy(logits, labels)


def family(
    wrong: Wrong,
    val_logits: Tensor,
    val_labels: Tensor,
    test_logits: Tensor,
    test_labels: Tensor,
    *,
    temperatures: list[float],
    bins: int,
) -> dict[str, float]:
    """The calibration with its switches."""
    logits, labels = val_logits, val_labels
    if "fitted-on-test" in wrong:
        logits, labels = test_logits, test_labels
    if "fitted-on-both" in wrong:
        logits, labels = torch.cat([logits, test_logits]), torch.cat([labels, test_labels])
    losses = []
    for t in temperatures:
        z = logits / t
        if {"multiplied", "multiplied-in-the-fit"} & wrong:
            z = logits * t
        loss = criterion(wrong, z, labels, bins).item()
        if "times-t-squared" in wrong:
            loss = loss * t**2
        losses.append(loss)
    best = losses.index(min(losses))
    temperature = temperatures[best]
    used, truth = test_logits, test_labels
    if "measured-on-validation" in wrong:
        used, truth = val_logits, val_labels
    scaled = used / temperature
    if {"multiplied", "multiplied-in-use"} & wrong:
        scaled = used * temperature
    if "not-used" in wrong:
        scaled = used
    p = scaled.softmax(1)
    confidence, right = calibration_error.confidences(wrong, p, truth)
    error = calibration_error.error_of(wrong, confidence, right, bins).item()
    accuracy = right.mean().item()
    if "accuracy-as-confidence" in wrong:
        accuracy = confidence.mean().item()
    if "index-returned" in wrong:
        temperature = best
    if "inverse-returned" in wrong:
        temperature = 1 / temperature
    return {"temperature": temperature, "accuracy": accuracy, "ece": error}


drill = Drill(
    id="temperature-scaling",
    title="Temperature scaling",
    task=(
        "Your student is accurate and too sure of itself. You may not train it again. Calibrate it "
        "with one number, of a list of candidates, and report what that does to the test set."
    ),
    minutes=10,
    level="core",
    hints=(
        "There are two sets of images. Which of them may have a say in T, and which may only be "
        "looked at in the end?",
        "A good T makes what happened likely. Which loss says how likely the labels are, and why "
        "is the calibration error itself a poor one to fit by?",
        "Division by T > 0 comes before the softmax, in the fit and in use. What does it do to the "
        "order of the logits of an image, and so to its class?",
    ),
    explanation=(
        "O(V · C) for each candidate. T is a parameter like any other, so it is fitted on data "
        "that the report does not use: fitted on the test images, the error is too good. The "
        "negative log-likelihood is a proper score and smooth, and convex in 1/T, so that a "
        "search by gradient finds the same T, to the spacing of the list. The calibration error is "
        "none of these: it jumps as confidences cross the borders of bins, and depends on M. "
        "Dividing by one T > 0 keeps the order of the logits, so no class changes, and the "
        "accuracy is that of "
        "before. A T for each class does not keep it: that is another method with more to fit. "
        "T > 1 lowers confidence, T < 1 raises it. This T has nothing to do with that of "
        "distillation, which is used in training. The interviewer listens for: validation data, "
        "the likelihood, division, and the accuracy that stays. Source: [Guo et al., "
        "2017](cite:guo2017calibration), section 4.2."
    ),
    reference=temperature_scaling,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # fit
        - fitted-on-test: T is fitted on the test images: the error is then that of data that had a
          say in T, and is too good. Fit on the validation images.
        - fitted-on-both: T is fitted on validation and test images together: the test images may
          have no say in it.
        # criterion
        - fitted-by-ece: T is the candidate with the smallest calibration error: it jumps where
          confidences cross the borders of bins, and depends on their number. Take the negative
          log-likelihood.
        - fitted-by-mean-confidence: T is the candidate whose mean confidence comes nearest to the
          accuracy: one bin in which errors of opposite sign cancel. Take the negative
          log-likelihood.
        - fitted-by-squares: T is the candidate with the smallest Brier score: a proper score as
          well, and another one. Asked for is the negative log-likelihood.
        - fitted-by-accuracy: T is fitted by accuracy: it is the same at every T > 0, so that the
          first candidate wins.
        - softmax-twice: F.cross_entropy got probabilities: it takes a softmax itself. Give it the
          logits.
        - times-t-squared: the loss is multiplied by T², as in distillation: there it keeps the
          gradient's size, and here the candidates are compared, so the smallest one wins.
        # scaling
        - multiplied: the logits are multiplied by T, in the fit and in use: the T that you return
          is about one over the right one.
        - multiplied-in-the-fit: the logits are multiplied by T in the fit and divided in use:
          divide in both.
        - multiplied-in-use: the logits are divided by T in the fit and multiplied in use: divide in
          both.
        - not-used: the test images are measured at T = 1: divide their logits by the T that was
          found.
        # measured
        - measured-on-validation: accuracy and calibration error are those of the validation images,
          on which T was fitted: asked for are those of the test images.
        # returned
        - index-returned: the place of the best candidate is returned, not the candidate.
        - inverse-returned: 1/T is returned: asked for is the T by which logits are divided.
        # accuracy
        - accuracy-as-confidence: the accuracy is the mean confidence: asked for is the share of
          images whose class is right. It is the same at every T.
        """
    )
    | chosen(
        {
            name: calibration_error.drill.knobs[name]
            for name in ("confidence", "weights", "gap", "total", "bins")
        },
        "softmax-again",
        "margin",
        "counted",
        "squared",
        "rooted",
        "largest-gap",
        "equally-full",
        "lower-borders",
        "rounded-to-bins",
    ),
    sizes=lambda case: {"N": len(case["test_labels"]), "M": case["bins"]},
    plain=True,
    observe=lambda case, result: dict(result),
)
