"""Drill: the soft targets of several teachers."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def ensemble_targets(teacher_logits: Tensor, weights: Tensor, *, temperature: float) -> Tensor:
    """Return the soft targets of an ensemble: the weighted mean of its members' probabilities.

    teacher_logits: shape (M, B, C), of M teachers, constants. weights: shape (M,), none below 0,
    some above; their sum need not be 1, but only their ratios count. Each teacher's probabilities
    are softened by T. Result: shape (B, C), each row sums to 1.
    """
    probabilities = torch.softmax(teacher_logits.detach() / temperature, dim=-1)
    return torch.einsum("m,mbc->bc", weights / weights.sum(), probabilities)


def example() -> Case:
    """Three teachers, two images, three classes; the second teacher counts twice."""
    logits = [
        [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]],
        [[0.0, 4.0, 1.0], [1.0, 0.0, 2.0]],
        [[1.0, 0.0, 3.0], [2.0, 2.0, 0.0]],
    ]
    return {
        "teacher_logits": torch.tensor(logits, dtype=torch.float64),
        "weights": torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64),
        "temperature": 2.0,
    }


def cases(generator: Generator) -> list[Case]:
    """Teachers that disagree, and whose logits differ in scale."""
    made = []
    for teachers, batch, classes in ((3, 4, 5), (2, 6, 3), (5, 3, 4), (4, 2, 7)):
        scales = 1 + torch.rand(teachers, 1, 1, generator=generator, dtype=torch.float64) * 3
        made.append(
            {
                "teacher_logits": scales * draws.normal(generator, teachers, batch, classes),
                "weights": 0.3 + draws.normal(generator, teachers).abs(),
                "temperature": draws.real(generator, 1.5, 6),
            }
        )
    return made


def edges() -> list[Edge]:
    """One teacher, equal weights, a weight of 0, as many teachers as images, large logits."""
    case = example()
    logits, weights = case["teacher_logits"], case["weights"]
    return [
        Edge(
            "one teacher",
            case | {"teacher_logits": logits[:1], "weights": weights[:1]},
            without="the mean over teachers",
        ),
        Edge("equal weights", case | {"weights": torch.ones_like(weights)}, without="the weights"),
        Edge("a teacher of weight 0", case | {"weights": weights * (weights < 2)}),
        Edge(
            "as many teachers as images and classes",
            case | {"teacher_logits": torch.cat([logits, logits[:, :1] + logits[:, 1:]], dim=1)},
            "There every dimension fits every other, and nobody complains.",
        ),
        Edge(
            "logits of 4,000",
            case | {"teacher_logits": 1e3 * logits},
            "The mean of logarithms is -inf, or nearly, where one teacher gives a class nothing.",
        ),
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature"),
        Edge(
            "float32",
            case | {"teacher_logits": logits.float(), "weights": weights.float()},
        ),
    ]


def family(wrong: Wrong, teacher_logits: Tensor, weights: Tensor, *, temperature: float) -> Tensor:
    """The targets with their switches."""
    z, w, t = teacher_logits.detach(), weights, temperature
    if "multiplied" in wrong:
        t = 1 / temperature
    if {"temperature-ignored", "divided-afterwards", "softened-afterwards"} & wrong:
        t = 1.0
    if "softened-twice" in wrong:
        t = temperature**2
    dim = -1
    if "softmax-over-teachers" in wrong:
        dim = 0
    if "softmax-over-images" in wrong:
        dim = 1
    if "softmax-twice" in wrong:
        z = z.softmax(-1)
    log_p = (z / t).log_softmax(dim)
    p = log_p.exp()
    if "votes" in wrong:
        p = F.one_hot(z.argmax(-1), z.shape[-1]).to(z.dtype)
    shares = w / w.sum()
    if "weights-ignored" in wrong:
        shares = torch.ones_like(w) / len(w)
    if "weights-not-normalized" in wrong:
        shares = w
    if "divided-by-their-number" in wrong:
        shares = w / len(w)
    if "weights-through-softmax" in wrong:
        shares = w.softmax(0)
    if "largest-weight-alone" in wrong:
        shares = F.one_hot(w.argmax(), len(w)).to(w.dtype)
    if "first-teacher-alone" in wrong:
        shares = (torch.arange(len(w)) == 0).to(w.dtype)
    each = shares[:, None, None]
    if "surest-teacher" in wrong:
        surest = p.amax(-1).argmax(0)
        each = F.one_hot(surest, len(w)).to(w.dtype).mT[:, :, None]
    mean = (each * p).sum(0)
    if "logits-averaged" in wrong:
        mean = (each * z / t).sum(0).softmax(-1)
    if "logits-averaged-without-softmax" in wrong:
        mean = (each * z / t).sum(0)
    if "logarithms-averaged" in wrong:
        mean = (each * log_p).sum(0).exp()
    if "logarithms-returned" in wrong:
        mean = (each * log_p).sum(0)
    if "multiplied-together" in wrong:
        mean = log_p.sum(0).softmax(-1)
    if "largest-kept" in wrong:
        mean = p.amax(0)
    if "averaged-over-images" in wrong:
        mean = p.mean(1)
    if "softened-afterwards" in wrong:
        mean = (mean.log() / temperature).softmax(-1)
    if "divided-afterwards" in wrong:
        mean = mean / temperature
    return mean


drill = Drill(
    id="ensemble-targets",
    title="Targets of several teachers",
    task=(
        "Three teachers, one student. Write the soft targets that the student is to match: those "
        "of the ensemble. Not all teachers are equally good, so each has a weight."
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "One teacher is nearly sure of a class, and another rules it out. What does the ensemble "
        "say, and of which quantities is that the mean?",
        "Of the three dimensions one holds classes and one goes away. Which of them does the "
        "softmax need, and which the mean?",
        "The result must sum to 1 for each image, whatever the weights sum to. And where does T "
        "belong: before the mean, or after it?",
    ),
    explanation=(
        "O(MBC). The mean of probabilities is a mixture: it is what you get if you draw a teacher "
        "by its weight and ask it, so a class that one teacher believes in keeps a share. The mean "
        "of logits is, after a softmax, the normalized geometric mean of the teachers' "
        "probabilities: a class that one of them rules out is ruled out by all, and a teacher with "
        "logits of larger scale has more say, without being better. Exponentials of mean "
        "logarithms without the softmax even sum to less than 1. Published methods take either; "
        "say which, as the two give different targets. Training on the mean is also what M "
        "separate losses come to: their weighted sum of cross-entropies has the same gradient, and "
        "the mean is computed once. T softens each teacher before the mean, and the student uses "
        "the same T. The interviewer listens for: probabilities, the dimension, weights that sum "
        "to 1, T. Source: [Hinton et al., 2015](cite:hinton2015distilling), who name the "
        "arithmetic and the geometric mean."
    ),
    reference=ensemble_targets,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # mean
        - logits-averaged: this is the softmax of the mean logits, or the geometric mean of the
          probabilities: a class that one teacher rules out is ruled out for all, and larger logits
          have more say. Average the probabilities.
        - logits-averaged-without-softmax: this is the mean of the logits: no probabilities at all.
        - logarithms-averaged: these are exponentials of mean logarithms: they sum to less than 1
          where teachers differ. Average the probabilities.
        - logarithms-returned: these are the mean logarithms of the probabilities: asked for is the
          mean of the probabilities.
        - multiplied-together: the teachers' probabilities are multiplied and normalized: M teachers
          that agree then look surer than any of them.
        - largest-kept: of each class the largest probability is kept: together they exceed 1.
        - votes: each teacher gives one vote to its first class: what it says of the others is lost,
          and with it what distillation is for.
        - averaged-over-images: the mean runs over the images, not over the teachers: it is
          dimension 0 that goes away.
        # weights
        - weights-ignored: all teachers count alike: use the weights.
        - weights-not-normalized: the weights are not divided by their sum: the targets do not sum
          to 1.
        - divided-by-their-number: the weighted sum is divided by M = {M}, the number of teachers:
          divide by the sum of the weights.
        - weights-through-softmax: the weights go through a softmax: ratios are changed. Divide by
          their sum.
        - largest-weight-alone: only the teacher with the largest weight is asked.
        - first-teacher-alone: only the first teacher is asked.
        - surest-teacher: of each image only the surest teacher is asked: its confidence says little
          of whether it is right, and the weights are not used.
        # dimension
        - softmax-over-teachers: the softmax runs over the teachers, dim=0: classes are the last
          dimension.
        - softmax-over-images: the softmax runs over the images, dim=1: classes are the last
          dimension. It would be right for one teacher.
        # temperature
        - multiplied: the logits are multiplied by T, not divided: the targets get sharper as T
          grows.
        - temperature-ignored: T changes nothing: these are the targets at T = 1, and the student
          is softened.
        - softened-afterwards: the mean is softened, not the teachers: the T-th root of a mean is
          not the mean of T-th roots. Divide each teacher's logits by T.
        - softened-twice: the logits are divided by T twice.
        - divided-afterwards: T divides the probabilities, not the logits: they sum to 1/T.
        # softmax
        - softmax-twice: softmax is applied twice: every target is then nearly uniform.
        """
    ),
    sizes=lambda case: {
        "M": case["teacher_logits"].shape[0],
        "B": case["teacher_logits"].shape[1],
        "C": case["teacher_logits"].shape[2],
        "T": case["temperature"],
    },
    detached=("teacher_logits",),
)
