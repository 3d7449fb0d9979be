"""What does a model give away: its answers, its training images, and a mark that finds a copy?

A provider trains a network on 1,000 real digits and answers queries. Students are trained on the
answers alone, whole or cut down. Every student is asked whose training images it knows, and some
were given wrong answers on purpose, canaries: whoever gives them back was trained on them. Nothing
was tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from kdlearn.data import RandomShift, Split, mnist5k
from kdlearn.data.digits import base_digits
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.experiments.real_digits import mlp
from kdlearn.measure import accuracy, agreement, predict

CLASSES = 10


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        members: images that the provider's model was trained on.
        strangers: other images of the same kind, which a student may ask about.
        teacher: hidden layers of the provider's model.
        student: hidden layers of a student.
        steps: of every model.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedule.
        canaries: share of the answers that are wrong on purpose, where there are canaries.
    """

    members: int = 1000
    strangers: int = 2000
    teacher: tuple[int, ...] = (200, 200)
    student: tuple[int, ...] = (100, 100)
    steps: int = 800
    batch_size: int = 100
    learning_rate: float = 2e-3
    canaries: float = 0.02


@dataclass(frozen=True)
class Method:
    """What a student asks, and what it is told.

    Attributes:
        queries: how many images it asks about.
        told: "probabilities", "rounded" to one decimal, "answer" (the class alone), or "labels",
            which are no answers of the model but the truth.
        images: "strangers", "members", "scikit-learn" (digits of another source) or "noise".
        temperature: of the loss.
        canaries: whether some answers are wrong on purpose.
        jitter: whether the student moves each image by up to two pixels, anew each step.
    """

    queries: int = 2000
    told: str = "probabilities"
    images: str = "strangers"
    temperature: float = 1.0
    canaries: bool = False
    jitter: bool = False


METHODS = {
    **{
        f"{told}, {queries:,} queries": Method(queries, told)
        for queries in (50, 200, 500, 2000)
        for told in ("answer", "rounded", "probabilities", "labels")
    },
    "probabilities T=4, 500 queries": Method(500, temperature=4.0),
    "probabilities T=4, 2,000 queries": Method(temperature=4.0),
    "other handwriting": Method(1000, images="scikit-learn"),
    "noise": Method(images="noise"),
    "labels, members": Method(1000, "labels", "members"),
    "probabilities, members": Method(1000, images="members"),
    "probabilities T=4, members": Method(1000, images="members", temperature=4.0),
    "labels, 1,000 strangers": Method(1000, "labels"),
    "probabilities, 1,000 strangers": Method(1000),
    "canaries, answer": Method(told="answer", canaries=True),
    "canaries, probabilities": Method(canaries=True),
    "canaries, answer, jitter": Method(told="answer", canaries=True, jitter=True),
    "canaries, probabilities, jitter": Method(canaries=True, jitter=True),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "agreement", "member_auc", "member_found", "repeats_canaries")


def shown(probabilities: Tensor, told: str) -> Tensor:
    """Cut an answer down to what is told; rows still sum to 1.

    Example:
        >>> answer = torch.tensor([[0.62, 0.36, 0.02]])
        >>> shown(answer, "rounded"), shown(answer, "answer")
        (tensor([[0.6000, 0.4000, 0.0000]]), tensor([[1., 0., 0.]]))
    """
    if told == "rounded":
        rounded = (10 * probabilities).round()
        return rounded / rounded.sum(1, keepdim=True)
    if told == "answer":
        return F.one_hot(probabilities.argmax(1), probabilities.shape[1]).float()
    return probabilities


def with_canaries(answers: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Swap the first class of some answers with another one, drawn at random.

    Args:
        answers: probabilities, shape (N, C).
        share: of the answers.
        seed: of the draw, which a provider keeps secret.

    Returns:
        The answers to give, and the rows that were changed.

    Example:
        >>> told, rows = with_canaries(torch.eye(4).repeat(5, 1), 0.1, seed=0)
        >>> len(rows), (told.argmax(1) != torch.eye(4).repeat(5, 1).argmax(1)).sum().item()
        (2, 2)
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(answers), generator=generator)[: round(share * len(answers))]
    first = answers[rows].argmax(1)
    other = torch.randint(1, answers.shape[1], (len(rows),), generator=generator)
    other = (first + other) % answers.shape[1]
    told, kept = answers.clone(), answers[rows].clone()
    told[rows, first] = kept.gather(1, other[:, None])[:, 0]
    told[rows, other] = kept.gather(1, first[:, None])[:, 0]
    return told, rows


def membership(model: nn.Module, members: Split, others: Split) -> tuple[float, float]:
    """Guess from the loss of an image whether a model was trained on it: low means yes.

    Returns:
        The area under the ROC curve, 0.5 for guessing blindly, and the share of the members that
        are found while one in a hundred of the others is accused wrongly.

    Source: S. Yeom et al., Privacy Risk in Machine Learning, CSF 2018 (the loss as the score);
        N. Carlini et al., Membership Inference Attacks From First Principles, IEEE S&P 2022 (the
        share found at few false alarms as the number to report).
    """
    scores = torch.cat(
        [
            -F.cross_entropy(predict(model, split.images).double(), split.labels, reduction="none")
            for split in (members, others)
        ]
    )
    truth = torch.cat([torch.ones(len(members)), torch.zeros(len(others))])
    false, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(roc_auc_score(truth, scores)), float(found[false <= 0.01].max())


def queries_of(method: Method, members: Split, strangers: Split, seed: int) -> Split:
    """Return what a student asks about; noise has no true label, and -1 stands there."""
    if method.images == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(method.queries, 1, 28, 28, generator=generator)
        return Split(noise, torch.full((method.queries,), -1), torch.arange(method.queries))
    if method.images == "scikit-learn":
        digits = base_digits("train")
        large = F.interpolate(digits.images, size=(20, 20), mode="bilinear", align_corners=False)
        return Split(F.pad(large, (4, 4, 4, 4)), digits.labels, digits.index)[: method.queries]
    return (members if method.images == "members" else strangers)[: method.queries]


def train(
    model: nn.Module,
    images: Split,
    targets: Tensor,
    *,
    recipe: Recipe,
    seed: int,
    temperature: float = 1.0,
    jitter: bool = False,
) -> None:
    """Train in place on a probability for each class of each image."""
    soft = targets ** (1 / temperature)
    soft = soft / soft.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        for batch in rows_of(images, recipe.batch_size, seed):
            seen = images.images[batch]
            if jitter:
                seen = RandomShift(2)(seen, generator)
            yield temperature**2 * F.cross_entropy(model(seen) / temperature, soft[batch])

    descend(model.parameters(), losses(), rate=recipe.learning_rate, steps=recipe.steps)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the provider's model and one for each student, see `Experiment`.

    ``member_auc`` and ``member_found`` (per cent, at 1 % false alarms) ask each model, by its
    loss, which images the *provider's* model was trained on. ``repeats_canaries`` is the share of
    its own queries' canaries that a student gives back, also where it was not told any.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.members + recipe.strangers, seed=seed)
    held_out = measured_on(data, on)
    members, strangers = data.train[: recipe.members], data.train[recipe.members :]

    teacher = seeded(partial(mlp, *recipe.teacher), seed)
    truth = F.one_hot(members.labels, CLASSES).float()
    train(teacher, members, truth, recipe=recipe, seed=seed)
    teacher_logits = predict(teacher, held_out.images)

    def measured(name: str, model: nn.Module) -> Row:
        logits = predict(model, held_out.images)
        auc, found = membership(model, members, held_out)
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(logits, held_out.labels),
            "agreement": 100 * agreement(logits, teacher_logits),
            "member_auc": 100 * auc,
            "member_found": 100 * found,
        }

    yield measured("teacher", teacher)
    for name in methods:
        method = METHODS[name]
        images = queries_of(method, members, strangers, seed)
        answers = predict(teacher, images.images).softmax(1)
        marked, rows = with_canaries(answers, recipe.canaries, seed)
        told = marked if method.canaries else answers
        if method.told == "labels":
            told = F.one_hot(images.labels, CLASSES).float()
        told = shown(told, method.told)
        student = seeded(partial(mlp, *recipe.student), seed)
        train(
            student,
            images,
            told,
            recipe=recipe,
            seed=seed,
            temperature=method.temperature,
            jitter=method.jitter,
        )
        repeated = accuracy(predict(student, images.images[rows]), marked[rows].argmax(1))
        yield {**measured(name, student), "repeats_canaries": 100 * repeated}
