"""Drill: cross-entropy with soft targets."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import chosen, divergence_knobs, example_logits, logits_edges
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def soft_cross_entropy(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Return the mean over the batch of -Σ_c p_c · log q_c, with q the student's softmax at T = 1.

    student_logits: (B, C). target_probabilities: (B, C), rows that sum to 1, a constant.
    """
    logs = F.log_softmax(student_logits, dim=1)
    return -(target_probabilities.detach() * logs).sum(dim=1).mean()


def example() -> Case:
    """Two rows, three classes."""
    targets = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=torch.float64)
    return {"student_logits": example_logits()[0], "target_probabilities": targets}


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "target_probabilities": draws.normal(generator, batch, classes, scale=2).softmax(1),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


def edges() -> list[Edge]:
    """Among others, rows that are labels, and a student so sure that a probability rounds to 0."""
    case = example()
    labels = torch.eye(3, dtype=torch.float64)[:2]
    sides = ("student_logits", "target_probabilities")
    found = logits_edges(case, equal=sides, far=("student_logits",))
    hint = "0 · log 0 is NaN in floating point: no logarithm of the target is needed."
    keep = [
        edge
        for edge in found
        if edge.title
        not in ("two classes", "a student that equals its teacher", "probabilities near 0")
    ]
    sure = case | {"student_logits": 15 * case["student_logits"]}
    return [
        *keep,
        Edge("targets that are one-hot", case | {"target_probabilities": labels}, hint),
        Edge("probabilities near 0", sure, "A guard inside a logarithm is too large there."),
    ]


def family(wrong: Wrong, z: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy with its switches."""
    p = targets.detach()
    if "softmax-on-targets" in wrong:
        p = p.softmax(1)
    if "argmax-targets" in wrong:
        p = F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)
    if "targets-left-out" in wrong:
        p = torch.ones_like(p)
    if "softmax-twice-student" in wrong:
        z = z.softmax(1)
    dim = 0 if "wrong-dimension-student" in wrong else 1
    logs = z.log_softmax(dim)
    if "over-everything" in wrong:
        logs = z.flatten().log_softmax(0).view_as(z)
    if "log-of-softmax" in wrong:
        logs = z.softmax(dim).log()
    q = logs.exp()
    if "guard-in-logarithm" in wrong:
        logs = (q + 1e-8).log()
    if "probabilities-as-input" in wrong:
        logs = q
    if "logits-as-input" in wrong:
        logs = z
    terms = -p * logs
    if "divergence" in wrong:
        terms = terms + torch.xlogy(p, p)
    if "divergence-unguarded" in wrong:
        terms = terms + p * p.log()
    if "sides-swapped" in wrong:
        terms = -q * p.log()
    if "squared-gap" in wrong:
        terms = (p - q).square()
    total = terms.sum() / len(z)
    if "mean-reduction" in wrong:
        total = terms.mean()
    if "sum-reduction" in wrong:
        total = terms.sum()
    if "mean-over-classes-only" in wrong:
        total = terms.mean(1).sum()
    return -total if "sign" in wrong else total


drill = Drill(
    id="soft-cross-entropy",
    title="Cross-entropy with soft targets",
    task=(
        "Labels are one-hot rows; a teacher gives whole rows. Write the cross-entropy for such "
        "targets."
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "Which of the two rows is inside the logarithm, and which weighs it?",
        "With one-hot rows your formula must become what you know from labels. Which sum "
        "disappears then?",
        "A probability of the student can round to 0. Which function of PyTorch goes from logits "
        "to logarithms without passing through the probability?",
    ),
    explanation=(
        "O(BC). It differs from KL(target || student) by the target's entropy, which is constant "
        "for the student: "
        'the same gradient, another number. A KL of 0 means "equal", a cross-entropy of its '
        "minimum does not "
        "say so; report the KL. F.cross_entropy accepts probabilities as targets and gives the "
        "same. The interviewer listens for log_softmax in place of log(softmax), for the sum over "
        "classes, and for targets that are probabilities already."
    ),
    reference=soft_cross_entropy,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs(temperature=False),
        "direction",
        "wrong-dimension",
        "wrong-dimension-teacher",
        "softmax-twice",
        "softmax-twice-teacher",
        "input",
    )
    | switches(
        """
        # input
        - probabilities-as-input: the student's probabilities stand where their logarithms belong:
          there is no logarithm in it.
        - logits-as-input: the student's logits stand where the logarithms of its probabilities
          belong: take log_softmax.
        # targets
        - softmax-on-targets: softmax is applied to targets that are probabilities already: they
          become nearly uniform, and the student is taught that all classes are alike.
          Seen withdrawn: mit-han-lab/once-for-all issue 5, by who asked, the same day
        - argmax-targets: only the most probable class of the target counts: that is hard
          distillation. The probabilities of the other classes are lost.
        - targets-left-out: the logarithms are summed without their weights, the target's
          probabilities.
        # what
        - divergence: this is KL(target || student): the target's entropy was subtracted. The
          gradient is the same, the number is not.
        - divergence-unguarded: this is KL(target || student), and its p · log p is NaN where a
          target is 0. A cross-entropy needs no logarithm of the target.
        - sides-swapped: the logarithm is of the target, and the student's probabilities weigh it:
          cross-entropy has the target outside and the student inside the logarithm.
        - squared-gap: this is the squared difference of probabilities: there is no logarithm in it.
        """
    ),
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
    },
    gradients=("student_logits",),
    detached=("target_probabilities",),
)
