"""Hinton, Vinyals and Dean's experiments on MNIST in small: section 3 of their paper.

Two fully connected networks, a large one with dropout and a small one without, on 3,000 real
images. Each student starts from the same weights and makes as many steps. "Jitter" moves each image
by up to two pixels, anew in each epoch; the teacher is trained with it, as theirs was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from kdlearn.data import RandomShift, Splits, mnist5k
from kdlearn.distill import Distiller, Term, logit_term
from kdlearn.experiments.common import MEASURED, Bench, Row, seeded
from kdlearn.experiments.warped_digits import WITHOUT_3, shifted, soft_targets
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit

JITTER = RandomShift(2)


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the teacher learns from.
        images: how many a student sees that sees few.
        teacher: hidden layers.
        student: hidden layers.
        teacher_epochs: passes over the pool.
        student_epochs: passes of a student that sees the pool; with fewer images it makes more.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedule.
    """

    pool: int = 3000
    images: int = 300
    teacher: tuple[int, ...] = (400, 400)
    student: tuple[int, ...] = (100, 100)
    teacher_epochs: int = 50
    student_epochs: int = 30
    batch_size: int = 100
    learning_rate: float = 2e-3

    def make_data(self, seed: int) -> Splits:
        """Deal out the images."""
        return mnist5k(train=self.pool, seed=seed)

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train the teacher on jittered images, with dropout, from labels."""
        teacher = seeded(partial(mlp, *self.teacher, dropout=True), seed)
        fit(
            teacher,
            data.train,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=JITTER,
            seed=seed,
            progress=False,
        )
        return teacher


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        terms: of the loss; none means labels alone.
        digits: the classes that the student's images show.
        jitter: whether each image is moved anew in each epoch.
        few: whether it sees the few images.
    """

    terms: tuple[Term, ...] = ()
    digits: tuple[int, ...] = tuple(range(10))
    jitter: bool = False
    few: bool = False


def logit_matching(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Match centered logits, :math:`\frac{1}{2C} \sum_c (z_{s,c} - z_{t,c})^2`, mean over rows.

    The limit of :math:`T^2\,\mathrm{KL}` as T grows, by section 2.1 of the paper.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 5.0]])
        >>> logit_matching(student, teacher).item()
        0.125
    """
    student, teacher = (z - z.mean(1, keepdim=True) for z in (student_logits, teacher_logits))
    return F.mse_loss(student, teacher.detach()) / 2


METHODS = {
    "labels": Method(),
    "KD T=4": Method(soft_targets(4)),
    "KD T=20": Method(soft_targets(20)),
    "logit matching": Method((logit_term("logits", logit_matching),)),
    "labels, jitter": Method(jitter=True),
    "KD T=4, jitter": Method(soft_targets(4), jitter=True),
    "KD T=20, jitter": Method(soft_targets(20), jitter=True),
    "300 labels, jitter": Method(jitter=True, few=True),
    "300 images, KD T=4, jitter": Method(soft_targets(4), jitter=True, few=True),
    "labels, no 3": Method(digits=WITHOUT_3),
    "KD T=20, no 3": Method(soft_targets(20), WITHOUT_3),
    "KD T=20, no 3, jitter": Method(soft_targets(20), WITHOUT_3, jitter=True),
    "labels, only 7 and 8": Method(digits=(7, 8)),
    "KD T=20, only 7 and 8": Method(soft_targets(20), (7, 8)),
    "KD T=20, only 7 and 8, jitter": Method(soft_targets(20), (7, 8), jitter=True),
}
RECIPE = Recipe()
COLUMNS = (*MEASURED, "recall_3", "auc_3", "shift", "accuracy_shifted", "recall_3_shifted")


def mlp(*hidden: int, dropout: bool = False, classes: int = 10) -> nn.Sequential:
    """Make a fully connected network for images of 28 x 28 pixels.

    Args:
        hidden: units of each hidden layer, with ReLU.
        dropout: whether half of each hidden layer and a fifth of the pixels are dropped.
        classes: number of outputs.

    Example:
        >>> mlp(100, 100)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    if dropout:
        layers.append(nn.Dropout(0.2))
    for inputs, outputs in zip((784, *hidden), hidden, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.Linear(hidden[-1], classes))


def share_shift(logits: Tensor, classes: tuple[int, ...], share: float) -> float:
    """Return what to add to the logits of some classes so that they win a share of the images.

    No label is read: only how often the classes should come up must be known.

    Args:
        logits: shape (N, C), of images that are not reported on.
        classes: whose logits move, all by the same amount.
        share: of the images that should go to these classes, in [0, 1].

    Example:
        >>> share_shift(torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), (0,), 2 / 3)
        2.0001
    """
    rest = [c for c in range(logits.shape[1]) if c not in classes]
    lead = logits[:, rest].amax(1) - logits[:, list(classes)].amax(1)
    needed = lead.double().sort().values
    return round(needed[max(round(share * len(needed)), 1) - 1].item() + 1e-4, 4)


def train_student(bench: Bench[Recipe], method: Method) -> nn.Module:
    """Train a student; the number of steps is the same, whatever images it sees."""
    recipe = bench.recipe
    images = bench.images if method.few else bench.data.train
    shown = images.subset(torch.isin(images.labels, torch.tensor(method.digits)))
    steps = recipe.student_epochs * -(-len(bench.data.train) // recipe.batch_size)
    student = seeded(partial(mlp, *recipe.student), bench.seed)
    fit(
        Distiller(student, bench.teacher, method.terms) if method.terms else student,
        shown,
        epochs=round(steps / -(-len(shown) // recipe.batch_size)),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        augment=JITTER if method.jitter else None,
        seed=bench.seed,
        progress=False,
    )
    return student


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``recall_3`` is the share of 3s that are recognized, ``auc_3`` how often a 3 has a larger lead
    of its own logit than another digit has. Where digits were left out, ``shift`` is added to the
    logits of the missing 3 (or of the two digits that were shown) so that a tenth (a fifth) of the
    unlabeled validation images goes to them; ``accuracy_shifted`` and ``recall_3_shifted`` are what
    comes out.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    labels = bench.held_out.labels
    threes = labels == 3

    def row(name: str, logits: Tensor) -> Row:
        others = logits[:, list(WITHOUT_3)].amax(1)
        return {
            **bench.row(name, logits),
            "recall_3": 100 * accuracy(logits[threes], labels[threes]),
            "auc_3": 100 * float(roc_auc_score(threes, logits[:, 3] - others)),
        }

    yield row("teacher", bench.teacher_logits)
    for name in methods:
        method = METHODS[name]
        student = train_student(bench, method)
        logits = predict(student, bench.held_out.images)
        result = row(name, logits)
        if len(method.digits) < 10:
            classes = method.digits if len(method.digits) < 5 else (3,)
            unlabeled = predict(student, bench.data.validation.images)
            shift = share_shift(unlabeled, classes, len(classes) / 10)
            after = shifted(logits, classes, shift)
            result["shift"] = shift
            result["accuracy_shifted"] = 100 * accuracy(after, labels)
            result["recall_3_shifted"] = 100 * accuracy(after[threes], labels[threes])
        yield result
