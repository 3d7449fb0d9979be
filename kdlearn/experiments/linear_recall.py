"""What does a linear attention recall, and how much of it do the softmax teacher's maps bring back?

A transformer with softmax attention learns associative recall. Then its attention is replaced by
linear attention, whose feature maps are new while every other weight is copied. Students differ in
what trains them: nothing, the teacher's maps, or the right answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdlearn.data import Recall, associative_recall
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.losses import attention_distribution_loss
from kdlearn.models import TinyTransformer, linearized
from kdlearn.models.linear_attention import FeatureMap
from kdlearn.training import adamw


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        batch_size: sequences a step, never the same twice.
        teacher_rate: peak, reached after 20 steps.
        teacher_accuracy: what ends the teacher's training, per cent on 250 sequences of its own.
        most_steps: what ends it else.
        student_steps: of every student that is trained after the swap.
        maps_rate: of the feature maps, from here to 0.
        labels_rate: of every weight, if every weight is trained.
        exam: sequences to measure on.
    """

    batch_size: int = 32
    teacher_rate: float = 2e-3
    teacher_accuracy: float = 99.5
    most_steps: int = 1000
    student_steps: int = 100
    maps_rate: float = 1e-2
    labels_rate: float = 1e-3
    exam: int = 250


@dataclass(frozen=True)
class Method:
    """What a student is and what trains it.

    Attributes:
        features: its feature map.
        trained_on: the teacher's maps, answers with the feature maps free, answers with every
            weight free, answers from random weights with the teacher's steps; or nothing.
    """

    features: FeatureMap
    trained_on: Literal["nothing", "maps", "answers", "answers, all", "scratch"]


METHODS = {
    "swapped in, hedgehog": Method("hedgehog", "nothing"),
    "maps, hedgehog": Method("hedgehog", "maps"),
    "answers, hedgehog": Method("hedgehog", "answers"),
    "answers and every weight, hedgehog": Method("hedgehog", "answers, all"),
    "from scratch, hedgehog": Method("hedgehog", "scratch"),
    "swapped in, 1 + ELU": Method("elu", "nothing"),
    "maps, 1 + ELU": Method("elu", "maps"),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "map_kl", "largest_weight", "steps")
CHECK_EVERY = 100
EXAMS = {"validation": 90_000, "test": 91_000}


def queries_and_keys(model: TinyTransformer, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's queries and keys, (B, heads, L, d): what the scores are made of."""
    found: list[tuple[Tensor, Tensor]] = []
    handles = [
        layer.attention.scores.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda module, inputs: found.append((inputs[0], inputs[1]))
        )
        for layer in model.layers
    ]
    try:
        with torch.no_grad():
            model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found


def scores_of(model: TinyTransformer, read: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return the scores that a model's layers give to queries and keys of somebody else."""
    layers = zip(model.layers, read, strict=True)
    return [layer.attention.scores(*pair) for layer, pair in layers]  # type: ignore[union-attr, operator]


def batches(batch_size: int, seed: int) -> Iterator[Recall]:
    """Yield new sequences without end, the same for the same seed."""
    seed *= 1000
    while True:
        data, seed = associative_recall(50 * batch_size, seed=seed), seed + 1
        for i in range(0, len(data), batch_size):
            rows = slice(i, i + batch_size)
            yield Recall(data.tokens[rows], data.queries, data.answers[rows], data.sources[rows])


def answer_loss(model: nn.Module, batch: Recall) -> Tensor:
    """Return the cross-entropy of the right values at the places where they are asked for."""
    return F.cross_entropy(
        model(batch.tokens)[:, batch.queries].flatten(0, 1), batch.answers.flatten()
    )


def map_loss(student: TinyTransformer, teacher: TinyTransformer, batch: Recall) -> Tensor:
    """Return the KL between both models' maps of the teacher's queries and keys, over layers.

    Each layer is asked about the teacher's own input, so no layer answers for the errors of the
    one below; that is right where queries and keys are copied and stay as they are.
    """
    read = queries_and_keys(teacher, batch.tokens)
    pairs = zip(scores_of(student, read), scores_of(teacher, read), strict=True)
    return torch.stack([attention_distribution_loss(*pair) for pair in pairs]).mean()


def learn_answers(
    model: nn.Module, weights: Iterable[Tensor], steps: int, rate: float, data: Iterator[Recall]
) -> None:
    """Train some weights on the right answers, in place; the rate rises over 20 steps."""
    weights = list(weights)
    optimizer = adamw(weights, rate)
    rise = LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20))
    for _ in range(steps):
        _step(answer_loss(model, next(data)), weights, optimizer, rise)


def learn_maps(
    student: TinyTransformer, teacher: TinyTransformer, recipe: Recipe, data: Iterator[Recall]
) -> None:
    """Train the feature maps alone on the teacher's maps, in place; no answer is read."""
    weights = feature_weights(student)
    optimizer = adamw(weights, recipe.maps_rate, weight_decay=0)
    fall = LambdaLR(optimizer, lambda step: 1 - step / recipe.student_steps)
    for _ in range(recipe.student_steps):
        _step(map_loss(student, teacher, next(data)), weights, optimizer, fall)


def feature_weights(student: nn.Module) -> list[Tensor]:
    """Return the weights of the feature maps, the only new ones after the swap."""
    return [weight for name, weight in student.named_parameters() if ".scores." in name]


def train_teacher(recipe: Recipe, seed: int) -> tuple[TinyTransformer, int]:
    """Train until the teacher recalls, and return it with the number of its steps."""
    teacher = seeded(TinyTransformer, seed)
    own = associative_recall(recipe.exam, seed=EXAMS["validation"] + 500 + seed)
    data = batches(recipe.batch_size, seed)
    weights = list(teacher.parameters())
    optimizer = adamw(weights, recipe.teacher_rate)
    rise = LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20))
    for step in range(1, recipe.most_steps + 1):
        _step(answer_loss(teacher, next(data)), weights, optimizer, rise)
        if step % CHECK_EVERY == 0 and recalled(teacher, own) >= recipe.teacher_accuracy:
            break
    return teacher.eval(), step


def recalled(model: nn.Module, exam: Recall) -> float:
    """Return how many answers are right, per cent."""
    with torch.no_grad():
        right = model(exam.tokens)[:, exam.queries].argmax(-1) == exam.answers
    return 100 * right.float().mean().item()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``map_kl`` is the mean KL between the teacher's maps and the model's, in nats, of the teacher's
    queries and keys; ``largest_weight`` the mean of the largest weight in a row of them, in per
    cent; ``steps`` is how long a model was trained. A student from scratch has queries of its own,
    so nothing is said of its maps.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    exam = associative_recall(recipe.exam, seed=EXAMS[on] + seed)
    teacher, teacher_steps = train_teacher(recipe, seed)
    read = queries_and_keys(teacher, exam.tokens)

    def row(name: str, model: TinyTransformer, steps: int, maps: bool = True) -> Row:
        measured: Row = {"seed": seed, "method": name, "accuracy": recalled(model, exam)}
        if maps:
            with torch.no_grad():
                weights = torch.stack(scores_of(model, read)).softmax(-1)
                measured["map_kl"] = map_loss(model, teacher, exam).item()
            measured["largest_weight"] = 100 * weights.amax(-1).mean().item()
        return {**measured, "steps": steps}

    yield row("teacher", teacher, teacher_steps)
    for name in methods:
        method = METHODS[name]
        scratch = method.trained_on == "scratch"
        start = seeded(TinyTransformer, seed) if scratch else teacher
        student = seeded(lambda m=start, f=method.features: linearized(m, f), seed)  # type: ignore[misc]
        data = batches(recipe.batch_size, seed + (0 if scratch else 500))
        steps = recipe.student_steps
        if scratch:
            steps = teacher_steps
            learn_answers(student, student.parameters(), steps, recipe.teacher_rate, data)
        elif method.trained_on == "maps":
            learn_maps(student, teacher, recipe, data)
        elif method.trained_on == "answers":
            learn_answers(student, feature_weights(student), steps, recipe.maps_rate, data)
        elif method.trained_on == "answers, all":
            learn_answers(student, student.parameters(), steps, recipe.labels_rate, data)
        else:
            steps = 0
        yield row(name, student, steps, maps=not scratch)


def _step(
    loss: Tensor, weights: Sequence[Tensor], optimizer: Optimizer, scheduler: LambdaLR
) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    scheduler.step()
