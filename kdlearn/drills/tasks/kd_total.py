"""Drill: labels and soft targets together."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Return (1 - weight) · cross-entropy with the labels + weight · T² · KL(teacher || student) at temperature T.

    student_logits, teacher_logits: (B, C); labels: (B,), class numbers. Both terms are averaged over the batch. The
    teacher is a constant.
    """
    hard = F.cross_entropy(student_logits, labels)
    logs = F.log_softmax(student_logits / temperature, dim=1)
    targets = F.softmax(teacher_logits.detach() / temperature, dim=1)
    soft = temperature**2 * F.kl_div(logs, targets, reduction="batchmean")
    return (1 - weight) * hard + weight * soft


def cases(generator: Generator) -> list[Case]:
    """Batches with labels that the teacher does not always know."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "labels": draws.whole(generator, 0, classes - 1, batch),
            "temperature": draws.real(generator, 1.5, 8),
            "weight": draws.real(generator, 0.6, 0.95),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


drill = Drill(
    id="kd-total",
    title="The whole loss",
    task=(
        "Write the loss that a student is trained with: labels and the teacher's soft targets. Where does the "
        "temperature go, and where does it not?"
    ),
    minutes=8,
    level="core",
    hints=(
        "The labels' term is what you would use without a teacher. Does it need T?",
        "T divides the logits on both sides of the soft term alone, and T² stands before that term alone.",
        "(1 - weight) * F.cross_entropy(z_s, y) + weight * T**2 * F.kl_div(log_softmax(z_s / T), softmax(z_t / "
        "T), 'batchmean')",
    ),
    explanation=(
        "O(BC). T² keeps the soft term's gradient comparable with the labels' when T changes, so weight means the "
        "same at each T. The labels' term is at T = 1, as the student is used. With weight = 1 no labels are "
        "needed. In papers the weight has many names and sides: Hinton et al. call the soft term's weight the "
        "considerably larger one, libraries differ in what alpha multiplies. Say which one you mean; the "
        "interviewer listens for that, and for labels that are not replaced by anything."
    ),
    reference=distillation_loss,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)


def _soft(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """T² · KL."""
    log_q, log_p = (s / temperature).log_softmax(1), (t.detach() / temperature).log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


@drill.alternative
def written_out(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Both terms by their definitions."""
    rows = torch.arange(len(labels))
    hard = -student_logits.log_softmax(1)[rows, labels].mean()
    return hard + weight * (_soft(student_logits, teacher_logits, temperature) - hard)


@drill.alternative
def by_cross_entropies(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Two cross-entropies, less the teacher's entropy."""
    p = (teacher_logits.detach() / temperature).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    soft = F.cross_entropy(student_logits / temperature, p) - entropy
    one_hot = F.one_hot(labels, student_logits.shape[1]).to(p.dtype)
    hard = F.cross_entropy(student_logits, one_hot)
    return torch.lerp(hard, temperature**2 * soft, weight)


@drill.mistake(
    "weights-swapped",
    "the weights are swapped: weight belongs to the soft term, 1 - weight to the labels.",
)
def swapped(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Exchange the weights."""
    return distillation_loss(
        student_logits, teacher_logits, labels, temperature=temperature, weight=1 - weight
    )


@drill.mistake(
    "labels-softened",
    "the labels' term is softened by T too: the student would be trained for answers at a temperature at which it "
    "is not used.",
)
def hard_softened(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Divide by T in both terms."""
    hard = F.cross_entropy(student_logits / temperature, labels)
    return (1 - weight) * hard + weight * _soft(student_logits, teacher_logits, temperature)


@drill.mistake(
    "argmax-as-labels",
    "the hard term uses the teacher's most probable class in place of the labels: where the teacher is wrong, "
    "both terms now teach its error.",
)
def taught_labels(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Take the teacher's argmax."""
    return distillation_loss(
        student_logits,
        teacher_logits,
        teacher_logits.argmax(1),
        temperature=temperature,
        weight=weight,
    )


@drill.mistake(
    "t-squared-missing",
    "T² is missing: the soft term's gradient shrinks as 1/T², so weight means something else at each T.",
    seen="keras-team/keras-io before pull request 870",
)
def no_square(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Forget T²."""
    soft = _soft(student_logits, teacher_logits, temperature) / temperature**2
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "t-squared-on-labels",
    "T² multiplies the labels' term too: it has no temperature, so nothing has shrunk there.",
)
def square_on_both(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Multiply everything by T²."""
    hard = temperature**2 * F.cross_entropy(student_logits, labels)
    return (1 - weight) * hard + weight * _soft(student_logits, teacher_logits, temperature)


@drill.mistake(
    "softmax-twice",
    "softmax is applied before cross_entropy, which applies its own: the labels' term cannot get small any more.",
    seen="proposed in haitongli/knowledge-distillation-pytorch issue 10",
)
def twice(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Give cross_entropy probabilities."""
    hard = F.cross_entropy(student_logits.softmax(1), labels)
    return (1 - weight) * hard + weight * _soft(student_logits, teacher_logits, temperature)


@drill.mistake(
    "added-in-full",
    "the labels' term has weight 1, not 1 - weight: that is another common form, and not what the task asks for.",
)
def added(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Add the soft term."""
    hard = F.cross_entropy(student_logits, labels)
    return hard + weight * _soft(student_logits, teacher_logits, temperature)


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_logits.detach().",
)
def live_teacher(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Leave the teacher in the graph."""
    log_q = (student_logits / temperature).log_softmax(1)
    p = (teacher_logits / temperature).softmax(1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "mean-reduction",
    "the soft term is C times too small: reduction='mean', the default of F.kl_div, divides by the classes too. Use "
    "'batchmean'.",
)
def mean_reduction(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Average over classes too."""
    soft = _soft(student_logits, teacher_logits, temperature) / student_logits.shape[1]
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "reversed",
    "the soft term is KL(student || teacher): the arguments of F.kl_div are swapped. The student's logarithms "
    "come first.",
)
def swapped_sides(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Swap the sides of the divergence."""
    log_q = (student_logits / temperature).log_softmax(1)
    log_p = (teacher_logits.detach() / temperature).log_softmax(1)
    soft = temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "probabilities-as-input",
    "F.kl_div got the student's probabilities where it wants their logarithms: the soft term can be negative, "
    "which a KL divergence never is.",
)
def probabilities(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Give probabilities on both sides."""
    q = (student_logits / temperature).softmax(1)
    p = (teacher_logits.detach() / temperature).softmax(1)
    soft = temperature**2 * F.kl_div(q, p, reduction="batchmean")
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "labels-missing",
    "the labels are not used: this is the soft term alone, without its weight.",
)
def soft_alone(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Leave the labels out."""
    return _soft(student_logits, teacher_logits, temperature)


@drill.mistake(
    "one-sided-temperature",
    "only the teacher's logits are divided by T in the soft term: the student is matched at another temperature. "
    "Both sides use the same T.",
)
def one_sided(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Soften the teacher alone."""
    log_q = student_logits.log_softmax(1)
    log_p = (teacher_logits.detach() / temperature).log_softmax(1)
    soft = temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft


@drill.mistake(
    "reduction-and-t-squared",
    "two faults in the soft term: reduction='mean' makes it C times too small, and T² is missing. Together they "
    "make it nearly nothing, and the labels alone train.",
)
def both_missing(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Leave the default reduction, and forget T²."""
    soft = _soft(student_logits, teacher_logits, temperature) / student_logits.shape[1]
    soft = soft / temperature**2
    return (1 - weight) * F.cross_entropy(student_logits, labels) + weight * soft
