"""Drill: the gradient of the distillation loss, by hand."""

from torch import Generator, Tensor

from kdlearn.drills.families import example_logits, logits_edges
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def kd_gradient(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Return the gradient of the batch's mean T² · KL(teacher || student) by the student's logits.

    student_logits, teacher_logits: (B, C), softened by T on both sides. Do not use autograd.
    Result: (B, C).
    """
    q = (student_logits / temperature).softmax(dim=1)
    p = (teacher_logits / temperature).softmax(dim=1)
    return temperature * (q - p) / len(student_logits)


def example() -> Case:
    """Two rows, three classes."""
    student, teacher = example_logits()
    return {"student_logits": student, "teacher_logits": teacher, "temperature": 2.0}


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes and temperatures."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "temperature": draws.real(generator, 1.5, 8),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


def edges() -> list[Edge]:
    """No temperature, one row, large logits."""
    case = example()
    return [
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature and its factor"),
        *logits_edges(case, sure=0),
    ]


def family(wrong: Wrong, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """The gradient with its switches."""
    t, dim = temperature, 0 if "wrong-dimension" in wrong else 1
    ours = theirs = 1 / t
    if {"not-softened", "teacher-alone-softened"} & wrong:
        ours = 1.0
    if {"not-softened", "student-alone-softened"} & wrong:
        theirs = 1.0
    if "multiplied" in wrong:
        ours = theirs = t
    log_q, log_p = (student * ours).log_softmax(dim), (teacher * theirs).log_softmax(dim)
    q, p = log_q.exp(), log_p.exp()
    gap = q - p
    if "logits-matched" in wrong:
        gap = (student - teacher) / (t * student.shape[1])
    if "logits-subtracted" in wrong:
        gap = student - teacher
    if "logs-subtracted" in wrong:
        gap = log_q - log_p
    if "reversed" in wrong:
        ratio = log_q - log_p
        gap = q * (ratio - (q * ratio).sum(1, keepdim=True))
    if "weighted" in wrong:
        gap = q * gap
    if "mean-squared" in wrong:
        gap = 2 * q * (gap - (q * gap).sum(1, keepdim=True))
    powers = {"t-squared-missing": -1, "inner-derivative-missing": 2, "no-factor": 0, "t-cubed": 3}
    factor = t ** next((powers[name] for name in powers if name in wrong), 1)
    over = len(student)
    if "batch-not-averaged" in wrong:
        over = 1
    if "divided-by-classes" in wrong:
        over = student.shape[1]
    if "divided-by-everything" in wrong:
        over = student.numel()
    return (-1 if "sign" in wrong else 1) * factor * gap / over


drill = Drill(
    id="kd-gradient",
    title="The gradient by hand",
    task=(
        "On the whiteboard: what is the gradient of $T^2 \\,\\mathrm{KL}(p_t^T \\| p_s^T)$ with "
        "respect to a logit of the student? Then program it, without autograd, and say what "
        "becomes of it for large T."
    ),
    minutes=8,
    level="core",
    hints=(
        "For T = 1 it is the gradient of cross-entropy with a soft target. Which one is that?",
        "The chain rule through z / T gives one factor. Which stands in front already, and what "
        "is left of both?",
        "The loss is averaged over the batch: what does that do to the gradient of one row? And "
        "to what must each row of the gradient sum?",
    ),
    explanation=(
        "O(BC). The gradient of the KL with respect to z_s / T is q - p; the inner derivative is "
        "1/T; T² in front leaves T (q - p). For large T, q - p is about (z_s - z_t) / (C T) where "
        "each row of logits has mean 0, so the whole tends to (z_s - z_t) / C: matching logits. "
        "Without T² it would vanish as 1/T². The rows sum to 0, because adding a constant to all "
        "logits changes nothing: a check that you can say aloud. Source: [Hinton et al. "
        "2015](cite:hinton2015distilling), section 2.1."
    ),
    reference=kd_gradient,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # sign
        - sign: the sign is wrong: this is the step of gradient descent, not the gradient. It is
          student minus teacher.
        # factor
        - t-squared-missing: T² is missing: this is the gradient of the KL alone, (q - p) / T, and
          it shrinks as 1/T² when T grows.
        - inner-derivative-missing: the inner derivative 1/T is missing: T² (q - p) is the gradient
          with respect to z / T, not to z.
        - no-factor: there is no factor: T² in front and 1/T from the inside leave T (q - p).
        - t-cubed: the factor is T³: the inner derivative divides by T, it does not multiply.
        # reduction
        - batch-not-averaged: the loss is averaged over the batch, and so is its gradient: divide by
          B = {B}.
        - divided-by-classes: the gradient is divided by the classes: the KL is summed over them,
          and only averaged over the batch.
        - divided-by-everything: the gradient is divided by B · C: the KL is summed over classes,
          and only averaged over the batch.
        # softmax
        - not-softened: the distributions are those at T = 1: both softmaxes run over logits divided
          by T.
        - multiplied: the logits are multiplied by T: softened distributions come of a division.
        - student-alone-softened: only the student's logits are divided by T: both sides are
          softened.
        - teacher-alone-softened: only the teacher's logits are divided by T: both sides are
          softened.
        - wrong-dimension: the softmax runs over the batch, dim=0: the classes are dim=1.
        - logits-matched: this is (z_s - z_t) / (C B), the limit for large T: at this T the
          softmaxes are not linear yet.
        - logits-subtracted: logits are subtracted, not probabilities: the gradient of a KL is q -
          p.
        - logs-subtracted: log-probabilities are subtracted, not probabilities: the gradient of a KL
          is q - p.
        # direction
        - reversed: this is the gradient of KL(student || teacher), in which the log-ratio is
          weighed by q and centered: for KL(teacher || student) it is just q - p.
        - weighted: q - p is multiplied by q, as if the softmax's derivative had no terms between
          classes: they cancel to leave q - p alone.
        - mean-squared: this is the gradient of the squared difference of probabilities, through the
          softmax's derivative.
        """
    ),
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    forbidden=("grad", "backward", "jacobian", "vjp", "kl_div"),
)
