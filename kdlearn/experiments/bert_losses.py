"""Which of the losses that made small BERTs teaches a lookup from 100 sequences?

Associative recall. A causal teacher of three layers learns it from endless data; students of two
layers see 100 sequences. Labels, soft targets, copied layers, attention scores or maps, hidden
states and relations are tried one by one, and with them the controls: maps of another sequence,
maps with their keys permuted, maps of an untrained teacher.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Recall, associative_recall
from kdlearn.distill import Taps
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.losses import (
    attention_distribution_loss,
    attention_score_loss,
    hidden_state_loss,
    relation_loss,
    soft_target_loss,
)
from kdlearn.models import TinyTransformer
from kdlearn.training import adamw

HELD_OUT = {"validation": 10_001, "test": 10_002}


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        sequences: how many a student sees.
        teacher_width: of the teacher; its heads are two.
        teacher_layers: of the teacher.
        student_width: of a student that copies nothing.
        student_layers: of all students.
        most_steps: of the teacher at most, which stops when it can do the task.
        enough: share of answers at which it stops, looked at every 50 steps.
        steps: of a student.
        teacher_rate: of AdamW, after 40 steps of warm-up.
        learning_rate: of a student's.
    """

    sequences: int = 100
    teacher_width: int = 64
    teacher_layers: int = 3
    student_width: int = 32
    student_layers: int = 2
    most_steps: int = 1600
    enough: float = 0.995
    steps: int = 200
    teacher_rate: float = 3e-3
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Method:
    """What a student is told, and how it is made.

    Attributes:
        labels: whether it sees the labels.
        soft: whether it sees soft targets.
        attention: "scores" by squared error, "maps" by KL, "mean" by KL of maps averaged over
            heads, or "" for none.
        teacher_layers: which layers of the teacher its layers learn from; None for those that do
            the lookup, see :func:`working_layers`.
        hidden: whether hidden states are compared, through a projector.
        relations: which parts of its last layer are compared by relations: "v", or "qkv".
        last: whether attention is compared in the last of these layers alone.
        maps: whose attention: "own", "other" (another sequence's), "permuted" (its keys in another
            order) or "untrained".
        copied: whether it starts as the teacher's layers; it is as wide as the teacher then.
        wide: whether it is as wide as the teacher.
        cosine: whether the directions of the last states are compared.
        heads: of the student.
        staged: whether the inner losses have the first half of the steps and soft targets the rest.
    """

    labels: bool = True
    soft: bool = False
    attention: str = ""
    teacher_layers: tuple[int, int] | None = None
    hidden: bool = False
    relations: str = ""
    last: bool = False
    maps: str = "own"
    copied: bool = False
    wide: bool = False
    cosine: bool = False
    heads: int = 2
    staged: bool = False


UNIFORM, LAST = (0, 2), (1, 2)
METHODS = {
    "labels": Method(),
    "soft targets": Method(soft=True),
    "attention maps": Method(attention="maps"),
    "attention maps, every second layer": Method(attention="maps", teacher_layers=UNIFORM),
    "attention scores": Method(attention="scores"),
    "attention maps, 4 heads, averaged": Method(attention="mean", heads=4),
    "hidden states": Method(hidden=True, teacher_layers=UNIFORM),
    "TinyBERT": Method(attention="scores", hidden=True, teacher_layers=UNIFORM),
    "TinyBERT in stages": Method(
        labels=False,
        soft=True,
        attention="scores",
        hidden=True,
        teacher_layers=UNIFORM,
        staged=True,
    ),
    "MiniLM": Method(attention="maps", last=True, relations="v", teacher_layers=LAST),
    "MiniLM, working layer": Method(attention="maps", last=True, relations="v"),
    "MiniLMv2, working layer, 4 heads": Method(relations="qkv", heads=4),
    "maps of another sequence": Method(attention="maps", maps="other"),
    "maps with permuted keys": Method(attention="maps", maps="permuted"),
    "maps of an untrained teacher": Method(attention="maps", maps="untrained"),
    "labels, full width": Method(wide=True),
    "copied layers": Method(copied=True, wide=True, teacher_layers=UNIFORM),
    "DistilBERT": Method(copied=True, wide=True, soft=True, cosine=True, teacher_layers=UNIFORM),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "gaze", "from_layer", "to_layer")


@dataclass(frozen=True)
class Inside:
    """What a model computes on sequences; of a student with its graph.

    Attributes:
        logits: at the questions, shape (B, questions, symbols).
        scores: of each layer, before the softmax, shape (B, heads, L, L).
        parts: queries, keys and values of each layer side by side, shape (B, L, 3 width).
        states: after each layer, shape (B, L, width).
    """

    logits: Tensor
    scores: list[Tensor]
    parts: list[Tensor]
    states: list[Tensor]

    def rows(self, chosen: Tensor) -> Inside:
        """Return some of the sequences."""
        lists = [[t[chosen] for t in each] for each in (self.scores, self.parts, self.states)]
        return Inside(self.logits[chosen], *lists)


def look_inside(model: TinyTransformer, data: Recall, tokens: Tensor) -> Inside:
    """Run a model and keep what the losses compare."""
    numbers = range(len(model.layers))
    kinds = ("attention.scores", "attention.query_key_value")
    names = [[f"layers.{n}.{kind}" for n in numbers] for kind in kinds]
    names.append([f"layers.{n}" for n in numbers])
    with Taps(model, sum(names, [])) as taps:
        logits = model(tokens)[:, data.queries]
    return Inside(logits, *([taps[name] for name in group] for group in names))


def answer_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of the answers."""
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten())


def answered(model: TinyTransformer, data: Recall) -> float:
    """Return the share of questions answered right."""
    with torch.no_grad():
        said = model(data.tokens)[:, data.queries].argmax(-1)
    return (said == data.answers).double().mean().item()


def train_teacher(seed: int, *, recipe: Recipe, watched: Recall) -> TinyTransformer:
    """Train the teacher on endless data until it answers `watched`."""
    model = seeded(
        partial(TinyTransformer, width=recipe.teacher_width, layers=recipe.teacher_layers), seed
    )
    optimizer = adamw(model.parameters(), recipe.teacher_rate)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 40, total_iters=40)
    for step in range(recipe.most_steps):
        batch = associative_recall(64, seed=100_000 * (1 + seed) + step)
        loss = answer_loss(model(batch.tokens)[:, batch.queries], batch.answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        if step % 50 == 49 and answered(model, watched) > recipe.enough:
            break
    return model.eval()


def working_layers(model: TinyTransformer, data: Recall) -> tuple[int, int]:
    """Return the two layers that do the lookup, in order.

    In the second, questions look at their answers; in the first, values look at their keys. Only
    the teacher is asked, so this is no choice on any student's result.
    """
    with torch.no_grad():
        maps = [s.softmax(-1) for s in look_inside(model, data, data.tokens).scores]
    index = data.sources[:, None, :, None].expand(-1, maps[0].shape[1], -1, -1)
    found = [m[:, :, data.queries].gather(3, index).mean((0, 2, 3)).max() for m in maps]
    values = torch.arange(1, int(data.queries[0]), 2)
    before = [m[:, :, values, values - 1].mean((0, 2)).max() for m in maps]
    second = 1 + int(torch.stack(found[1:]).argmax())
    return int(torch.stack(before[:second]).argmax()), second


def start_student(method: Method, teacher: TinyTransformer, recipe: Recipe, seed: int) -> nn.Module:
    """Make a student, from random weights or from layers of the teacher."""
    width = recipe.teacher_width if method.wide else recipe.student_width
    make = partial(TinyTransformer, width=width, heads=method.heads, layers=recipe.student_layers)
    student = seeded(make, seed + 1000)
    if method.copied:
        for name in ("token", "position", "norm", "classifier"):
            student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
        for own, its in enumerate(_layers(method)):
            student.layers[own].load_state_dict(teacher.layers[its].state_dict())
    return student


def attention_term(method: Method, own: Inside, its: Inside, order: Tensor) -> Tensor:
    """Compare the attention of the paired layers.

    Args:
        method: which loss, which layers, whose attention.
        own: the student's.
        its: the teacher's on the same sequences.
        order: of the keys, for permuted ones.
    """
    pairs = list(enumerate(_layers(method)))
    total = torch.zeros(())
    for mine, theirs in pairs[-1:] if method.last else pairs:
        student, teacher = own.scores[mine], its.scores[theirs]
        if method.maps == "other":
            teacher = teacher.roll(1, dims=0)
        if method.maps == "permuted":
            teacher = teacher[..., order]
        if method.attention == "scores":
            total = total + attention_score_loss(student, teacher)
        elif method.attention == "mean":
            maps = [side.softmax(-1).mean(1, keepdim=True) for side in (student, teacher)]
            total = total + attention_distribution_loss(*(m.clamp_min(1e-9).log() for m in maps))
        else:
            total = total + attention_distribution_loss(student, teacher)
    return total


def relation_term(method: Method, own: Inside, its: Inside) -> Tensor:
    """Compare relations of queries, keys or values in the last layers, in `heads` heads."""
    total = torch.zeros(())
    for name, mine, theirs in zip(
        "qkv",
        own.parts[-1].chunk(3, -1),
        its.parts[_layers(method)[-1]].chunk(3, -1),
        strict=True,
    ):
        if name in method.relations:
            total = total + relation_loss(mine, theirs, relation_heads=method.heads)
    return total


def train_student(
    method: Method,
    data: Recall,
    teacher: TinyTransformer,
    taught: Inside,
    *,
    recipe: Recipe,
    seed: int,
) -> TinyTransformer:
    """Train one student on a few sequences.

    Args:
        method: what it is told, its layers named.
        data: the sequences.
        teacher: for a start from its layers.
        taught: what the teacher, or an untrained one, computes on these sequences.
        recipe: the numbers.
        seed: of first weights and order.
    """
    student = start_student(method, teacher, recipe, seed)
    assert isinstance(student, TinyTransformer)
    width = student.token.embedding_dim
    projector = seeded(partial(nn.Linear, width, recipe.teacher_width), seed)
    optimizer = adamw([*student.parameters(), *projector.parameters()], recipe.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for step in range(recipe.steps):
        rows = torch.randperm(len(data), generator=generator)[:32]
        order = torch.randperm(data.tokens.shape[1], generator=generator)
        own, its = look_inside(student, data, data.tokens[rows]), taught.rows(rows)
        inner = not method.staged or step < recipe.steps // 2
        loss = torch.zeros(())
        if method.labels:
            loss = loss + answer_loss(own.logits, data.answers[rows])
        if method.soft and not (method.staged and inner):
            loss = loss + soft_target_loss(own.logits, its.logits, temperature=1)
        if method.attention and inner:
            loss = loss + attention_term(method, own, its, order)
        if method.hidden and inner:
            for mine, theirs in enumerate(_layers(method)):
                loss = loss + hidden_state_loss(projector(own.states[mine]), its.states[theirs])
        if method.relations:
            loss = loss + relation_term(method, own, its)
        if method.cosine:
            alike = F.cosine_similarity(own.states[-1], its.states[-1], dim=-1)
            loss = loss + (1 - alike).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.eval()


def _layers(method: Method) -> tuple[int, int]:
    assert method.teacher_layers is not None
    return method.teacher_layers


def gaze(model: TinyTransformer, data: Recall) -> float:
    """Return the weight of the last layer on the answer's place, from each question, in per cent.

    The mean over heads: a model with one head for the lookup and one idle has half of it.
    """
    with torch.no_grad():
        scores = look_inside(model, data, data.tokens).scores[-1]
    rows = scores.softmax(-1).mean(1)[:, data.queries]
    return 100 * rows.gather(2, data.sources[..., None]).mean().item()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``gaze`` is the weight of the last layer on the answer's place, per cent; the teacher's row has
    the numbers of its :func:`working_layers`.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    held_out = associative_recall(500, seed=HELD_OUT[on])
    watched = associative_recall(200, seed=HELD_OUT["validation"] + 10)
    teacher = train_teacher(seed, recipe=recipe, watched=watched)
    shape = partial(TinyTransformer, width=recipe.teacher_width, layers=recipe.teacher_layers)
    untrained = seeded(shape, seed + 2000).eval()
    data = associative_recall(recipe.sequences, seed=seed)
    with torch.no_grad():
        taught = look_inside(teacher, data, data.tokens)
        noise = look_inside(untrained, data, data.tokens)

    def row(name: str, model: TinyTransformer) -> Row:
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * answered(model, held_out),
            "gaze": gaze(model, held_out),
        }

    working = working_layers(teacher, watched)
    yield row("teacher", teacher) | {"from_layer": working[0], "to_layer": working[1]}
    for name in methods:
        method = METHODS[name]
        if method.teacher_layers is None:
            method = replace(method, teacher_layers=working)
        told = noise if method.maps == "untrained" else taught
        yield row(name, train_student(method, data, teacher, told, recipe=recipe, seed=seed))
