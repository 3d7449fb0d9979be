"""What does each silent mistake cost? One distillation, run right once, and wrong in many ways.

The canvases, teacher and student of `kdlearn.experiments.feature_losses`. No mistake here raises an
error or stops the loss from falling. Nothing was tuned: temperature and weights are those of the
right run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split
from kdlearn.distill.taps import Taps
from kdlearn.experiments.common import MEASURED, Bench, Row, check, descend, rows_of, seeded
from kdlearn.experiments.feature_losses import TRIALS, Recipe, prepare
from kdlearn.experiments.real_digits import mlp
from kdlearn.experiments.shortcut import network
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.measure import predict

GROUPS = ("group2", "group3")
# Classes in the alphabetical order of their names, eight to zero: another label map than 0 to 9.
ALPHABETICAL = (8, 5, 4, 9, 1, 7, 6, 3, 2, 0)
TOO_STRONG = 100
TEMPERATURE = 4.0


@dataclass(frozen=True)
class Step:
    """What a loss may read in one step.

    Attributes:
        student: being trained, in training mode.
        teacher: a copy of the trained one, in evaluation mode.
        shown: all of the student's canvases.
        stored: what the teacher said of each of them.
        rows: those of this step.
        recipe: the numbers.
    """

    student: nn.Module
    teacher: nn.Module
    shown: Split
    stored: Tensor
    rows: Tensor
    recipe: Recipe

    @property
    def images(self) -> Tensor:
        """The canvases of this step."""
        return self.shown.images[self.rows]

    def learn(self, said: Tensor, soft: Callable[..., Tensor] = soft_target_loss) -> Tensor:
        """Return the loss of labels and of what a teacher said of this step's canvases."""
        own, weight = self.student(self.images), self.recipe.soft_targets
        labels = F.cross_entropy(own, self.shown.labels[self.rows])
        return torch.lerp(labels, soft(own, said, temperature=TEMPERATURE), weight)

    def attend(self, targets: Callable[[str], Tensor], times: float = 1.0) -> Tensor:
        """Return the loss of labels and of attention transfer to targets, by name of the group."""
        with Taps(self.student, list(GROUPS)) as taps:
            loss = F.cross_entropy(self.student(self.images), self.shown.labels[self.rows])
            for group in GROUPS:
                weight = times * TRIALS["AT"][1]
                loss = loss + weight * attention_transfer_loss(taps[group], targets(group))
        return loss


def labels_alone(step: Step) -> Tensor:
    """Ask no teacher."""
    return F.cross_entropy(step.student(step.images), step.shown.labels[step.rows])


def right(step: Step) -> Tensor:
    """Distill as it should be."""
    return step.learn(step.stored[step.rows])


def teacher_in_training_mode(step: Step) -> Tensor:
    """Let the teacher normalize by the statistics of the batch, and update its own."""
    with torch.no_grad():
        said = step.teacher.train()(step.images)
    return step.learn(said)


def teacher_learns(step: Step) -> Tensor:
    """Send the gradient into the teacher too, whose weights are in the optimizer."""

    def both_ways(own: Tensor, said: Tensor, *, temperature: float) -> Tensor:
        p, q = (said / temperature).log_softmax(1), (own / temperature).log_softmax(1)
        return temperature**2 * (p.exp() * (p - q)).sum(1).mean()

    return step.learn(step.teacher(step.images), both_ways)


def another_crop(step: Step) -> Tensor:
    """Give what the teacher said of the same digit elsewhere on another canvas."""
    digits = step.recipe.images
    return step.learn(step.stored[(step.rows + digits) % len(step.stored)])


def rows_moved(step: Step) -> Tensor:
    """Read a cache whose rows are off by one."""
    return step.learn(step.stored[(step.rows + 1) % len(step.stored)])


def other_preprocessing(step: Step) -> Tensor:
    """Show the teacher standardized images; it was trained on images as they are."""
    with torch.no_grad():
        said = step.teacher((step.images - 0.13) / 0.31)
    return step.learn(said)


def other_class_order(step: Step) -> Tensor:
    """Take the teacher's classes in another order than the labels'."""
    return step.learn(step.stored[step.rows][:, list(ALPHABETICAL)])


def untrained_head(step: Step) -> Tensor:
    """Ask a teacher whose last layer was made anew and not trained."""
    head = seeded(partial(nn.Linear, 4 * step.recipe.teacher, 10), 0)
    with torch.no_grad(), Taps(step.teacher, ["flatten"]) as taps:
        step.teacher(step.images)
        said = head(taps["flatten"])
    return step.learn(said)


def mean_reduction(step: Step) -> Tensor:
    """Average over the classes too, as the default of ``KLDivLoss`` does."""

    def loss(own: Tensor, said: Tensor, *, temperature: float) -> Tensor:
        return soft_target_loss(own, said, temperature=temperature) / own.shape[1]

    return step.learn(step.stored[step.rows], loss)


def factor_missing(step: Step) -> Tensor:
    """Leave the square of the temperature out."""

    def loss(own: Tensor, said: Tensor, *, temperature: float) -> Tensor:
        return soft_target_loss(own, said, temperature=temperature) / temperature**2

    return step.learn(step.stored[step.rows], loss)


def half_precision(step: Step) -> Tensor:
    """Compute softmax and divergence in float16."""

    def loss(own: Tensor, said: Tensor, *, temperature: float) -> Tensor:
        q = (own / temperature).half().log_softmax(1)
        p = (said / temperature).half().softmax(1)
        return temperature**2 * F.kl_div(q, p, reduction="batchmean").float()

    return step.learn(step.stored[step.rows], loss)


def _teachers_maps(step: Step, teacher: nn.Module, times: float = 1.0) -> Tensor:
    with torch.no_grad(), Taps(teacher, list(GROUPS)) as taps:
        teacher(step.images)
    return step.attend(taps.__getitem__, times)


def attention(step: Step) -> Tensor:
    """Transfer attention as it should be."""
    return _teachers_maps(step, step.teacher)


def attention_too_strong(step: Step) -> Tensor:
    """Transfer attention with a weight that belongs to another convention."""
    return _teachers_maps(step, step.teacher, TOO_STRONG)


def attention_of_untrained(step: Step) -> Tensor:
    """Transfer the attention of a teacher that was never trained."""
    return _teachers_maps(step, seeded(partial(network, step.recipe.teacher), 0).eval())


def attention_of_another(step: Step) -> Tensor:
    """Transfer the attention that the teacher pays to the next image of the batch."""
    with torch.no_grad(), Taps(step.teacher, list(GROUPS)) as taps:
        step.teacher(step.images)
    return step.attend(lambda group: taps[group].roll(1, dims=0))


def attention_to_the_box(step: Step) -> Tensor:
    """Take the digit's true box as the map, 1 within and 0 without."""
    assert step.shown.boxes is not None
    x0, y0, x1, y1 = (edge[:, None] for edge in step.shown.boxes[step.rows].unbind(1))
    centers = (torch.arange(7) + 0.5) / 7
    inside_x, inside_y = ((centers >= a) & (centers <= b) for a, b in ((x0, x1), (y0, y1)))
    box = (inside_y[:, None, :, None] & inside_x[:, None, None, :]).float()
    return step.attend(lambda group: box)


@dataclass(frozen=True)
class Method:
    """How a student is trained.

    Attributes:
        loss: of a step.
        student: "cnn" or "mlp", one hidden layer without convolutions.
        trains_teacher: whether the teacher's weights are in the optimizer.
    """

    loss: Callable[[Step], Tensor]
    student: str = "cnn"
    trains_teacher: bool = False


METHODS = {
    "labels": Method(labels_alone),
    "KD": Method(right),
    "teacher in train()": Method(teacher_in_training_mode),
    "teacher learns too": Method(teacher_learns, trains_teacher=True),
    "another crop": Method(another_crop),
    "cache off by one row": Method(rows_moved),
    "other preprocessing": Method(other_preprocessing),
    "other class order": Method(other_class_order),
    "untrained head": Method(untrained_head),
    "mean reduction": Method(mean_reduction),
    "factor missing": Method(factor_missing),
    "float16 softmax": Method(half_precision),
    "MLP: labels": Method(labels_alone, "mlp"),
    "MLP: KD": Method(right, "mlp"),
    "AT": Method(attention),
    "AT, 100 x weight": Method(attention_too_strong),
    "AT, untrained teacher": Method(attention_of_untrained),
    "AT, another image": Method(attention_of_another),
    "AT, true box": Method(attention_to_the_box),
}
RECIPE = Recipe()
COLUMNS = MEASURED


def train_student(bench: Bench[Recipe], stored: Tensor, method: Method) -> nn.Module:
    """Train a student with one method; the bench's teacher stays as it is."""
    recipe, shown = bench.recipe, bench.images
    kinds = {"cnn": partial(network, recipe.student), "mlp": partial(mlp, 32)}
    student = seeded(kinds[method.student], bench.seed).train()
    teacher = deepcopy(bench.teacher)
    weights = [*student.parameters(), *(teacher.parameters() if method.trains_teacher else ())]
    losses = (
        method.loss(Step(student, teacher, shown, stored, rows, recipe))
        for rows in rows_of(shown, recipe.batch_size, bench.seed)
    )
    steps = recipe.student_epochs * (len(shown) // recipe.batch_size)
    descend(weights, losses, rate=recipe.learning_rate, steps=steps)
    return student.eval()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`."""
    methods = list(methods)
    check(METHODS, methods, on)
    bench = prepare(seed, recipe, on)
    stored = predict(bench.teacher, bench.images.images)
    yield bench.row("teacher", bench.teacher_logits)
    for name in methods:
        student = train_student(bench, stored, METHODS[name])
        yield bench.row(name, predict(student, bench.held_out.images))
