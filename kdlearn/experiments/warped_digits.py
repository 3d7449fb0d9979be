"""What is in a soft target? A small student learns warped digits from few labeled images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, Splits
from kdlearn.distill import Distiller, Term, label_term, logit_term
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, seeded
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit


@dataclass(frozen=True)
class Method:
    """How a student is trained.

    Attributes:
        terms: of the loss; none means labels alone, without a teacher.
        augmented: whether each image is warped anew in each epoch.
        digits: the classes that the student's images show.
    """

    terms: tuple[Term, ...] = ()
    augmented: bool = True
    digits: tuple[int, ...] = tuple(range(10))


def permute_others(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Deal the teacher's logits of the wrong classes out anew among them, image by image.

    Confidence stays as it was, and so does the spread of the other probabilities; which wrong
    class is nearly right is lost.

    Args:
        teacher_logits: shape (B, C).
        labels: shape (B,); their logits stay where they are.

    Example:
        >>> logits = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
        >>> dealt = permute_others(logits, torch.tensor([0]))
        >>> dealt[0, 0].item(), sorted(dealt[0, 1:].tolist())
        (5.0, [1.0, 2.0, 3.0])
    """
    label_first = torch.zeros_like(teacher_logits).scatter(1, labels[:, None], -1.0)
    places = label_first.argsort(dim=1, stable=True)
    drawn = (torch.rand_like(teacher_logits) + 2 * label_first).argsort(dim=1)
    return torch.empty_like(teacher_logits).scatter(1, places, teacher_logits.gather(1, drawn))


def soft_targets(temperature: float) -> tuple[Term, ...]:
    """Return the one term of pure distillation: no label is read."""
    return (logit_term("soft_targets", partial(soft_target_loss, temperature=temperature)),)


def _permuted(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    return soft_target_loss(student_logits, permute_others(teacher_logits, labels))


def _argmax(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.cross_entropy(student_logits, teacher_logits.argmax(dim=1))


WITHOUT_3 = (0, 1, 2, 4, 5, 6, 7, 8, 9)
METHODS = {
    "scratch": Method(),
    "label smoothing": Method((label_term(loss=partial(F.cross_entropy, label_smoothing=0.1)),)),
    "KD T=1": Method(soft_targets(1)),
    "KD T=2": Method(soft_targets(2)),
    "KD T=4": Method(soft_targets(4)),
    "KD T=8": Method(soft_targets(8)),
    "KD T=20": Method(soft_targets(20)),
    "KD, others permuted": Method((logit_term("permuted", _permuted, with_labels=True),)),
    "teacher's argmax": Method((logit_term("argmax", _argmax),)),
    "scratch, not augmented": Method(augmented=False),
    "KD T=4, not augmented": Method(soft_targets(4), augmented=False),
    "scratch, no 3": Method(digits=WITHOUT_3),
    "KD T=1, no 3": Method(soft_targets(1), digits=WITHOUT_3),
    "KD T=4, no 3": Method(soft_targets(4), digits=WITHOUT_3),
    "KD T=8, no 3": Method(soft_targets(8), digits=WITHOUT_3),
    "scratch, only 7 and 8": Method(digits=(7, 8)),
    "KD T=4, only 7 and 8": Method(soft_targets(4), digits=(7, 8)),
}
RECIPE = Recipe.read("warped-digits")
COLUMNS = (*MEASURED, "recall_3", "shift", "accuracy_shifted", "recall_3_shifted")


def train_teacher(data: Splits, *, recipe: Recipe = RECIPE, seed: int = 0) -> nn.Module:
    """Train the teacher on the whole pool, from labels."""
    return recipe.train_teacher(data, seed)


def train_student(
    teacher: nn.Module, images: Split, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> nn.Module:
    """Train a student with one method on the images that it may see.

    The number of steps is the same for every method, also where digits are left out.
    """
    student = seeded(recipe.make_student, seed)
    shown = images.subset(torch.isin(images.labels, torch.tensor(method.digits)))
    steps = recipe.student_epochs * -(-len(images) // recipe.batch_size)
    fit(
        Distiller(student, teacher, method.terms) if method.terms else student,
        shown,
        epochs=round(steps / -(-len(shown) // recipe.batch_size)),
        batch_size=recipe.batch_size,
        learning_rate=recipe.student_rate,
        augment=recipe.augment if method.augmented else None,
        seed=seed,
        progress=False,
    )
    return student


def best_shift(logits: Tensor, labels: Tensor, classes: tuple[int, ...]) -> float:
    """Return what to add to the logits of some classes so that accuracy is highest.

    A class that was never seen, or seen too often, has a wrong bias; one number mends it. Of equal
    candidates (steps of 0.1 from -30 to 30) the one nearest to 0 is taken.

    Args:
        logits: shape (N, C), of a split that is not reported on.
        labels: shape (N,).
        classes: whose logits move, all by the same amount.

    Source: G. Hinton, O. Vinyals and J. Dean, Distilling the Knowledge in a Neural Network, 2015,
        section 3, where the amount was chosen on the test set.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0], [0.0, 4.0]])
        >>> best_shift(logits, torch.tensor([0, 1]), classes=(0,))
        2.0
    """
    candidates = sorted((step / 10 for step in range(-300, 301)), key=abs)
    return max(candidates, key=lambda shift: accuracy(shifted(logits, classes, shift), labels))


def shifted(logits: Tensor, classes: tuple[int, ...], shift: float) -> Tensor:
    """Return the logits with a number added for some classes, as a larger bias would."""
    moved = logits.clone()
    moved[:, list(classes)] += shift
    return moved


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``recall_3`` is the share of 3s that are recognized. Where digits were left out, ``shift``,
    ``accuracy_shifted`` and ``recall_3_shifted`` are what comes out after the bias of the missing
    digit (or of the two that were shown) was set for the best accuracy on the validation split.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    labels = bench.held_out.labels
    threes = labels == 3

    def row(name: str, logits: Tensor) -> Row:
        return {
            **bench.row(name, logits),
            "recall_3": 100 * accuracy(logits[threes], labels[threes]),
        }

    yield row("teacher", bench.teacher_logits)
    for name in methods:
        method = METHODS[name]
        student = train_student(bench.teacher, bench.images, method, recipe=recipe, seed=seed)
        logits = predict(student, bench.held_out.images)
        result = row(name, logits)
        if len(method.digits) < 10:
            classes = method.digits if len(method.digits) < 5 else (3,)
            seen = bench.data.validation
            shift = best_shift(predict(student, seen.images), seen.labels, classes)
            after = shifted(logits, classes, shift)
            result["shift"] = shift
            result["accuracy_shifted"] = 100 * accuracy(after, labels)
            result["recall_3_shifted"] = 100 * accuracy(after[threes], labels[threes])
        yield result
