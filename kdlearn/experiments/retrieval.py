"""What does an embedding of 32 numbers learn from a reranker, and from a wider embedding?

The question is the first line of a function's docstring, the document its source; of 1,500
functions of Python's library the right one is to be among the first ten. The teacher reads question
and document together, with the function's name, which the student's document has not. The student
turns each into a unit vector. It starts from the singular vectors of the words, which need no
learning.

The rate of the students was chosen from 3e-4, 1e-3, 3e-3 and 1e-2 on the validation questions of
seed 5, which is not reported; squared differences of the wide embedding's cosines were tried there
and lost to a softmax over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data.stdlib_functions import stdlib_functions
from kdlearn.experiments.common import Row, check, descend, seeded
from kdlearn.losses import soft_target_loss

WIDE_SCALE = 20.0  # what makes logits of the cosines of word vectors


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        labeled: questions whose document is known, to teacher and students.
        validation: questions to choose on.
        test: questions to report on; all others are unlabeled.
        width: of an embedding.
        steps: of a student and of the teacher.
        batch_size: questions a step.
        documents: candidates for each question of a step: the right one, and others.
        hard: from how many of the teacher's best the hard half of the others is drawn.
        rate: peak of a student's one-cycle schedule.
        teacher_rate: the same of the teacher's.
    """

    labeled: int = 300
    validation: int = 150
    test: int = 300
    width: int = 32
    steps: int = 300
    batch_size: int = 32
    documents: int = 16
    hard: int = 30
    rate: float = 3e-3
    teacher_rate: float = 1e-2


@dataclass(frozen=True)
class Method:
    """How an embedding comes about.

    Attributes:
        loss: "labels", "MarginMSE" or "list KL" from the reranker, "wide embedding" for the
            cosines of the word vectors; none is the singular vectors as they are.
        width: of the embedding; 0 is one number for each word, nothing learned.
        unlabeled: whether the questions without a label are used too.
        random: whether it starts from random vectors.
    """

    loss: str = ""
    width: int = 32
    unlabeled: bool = False
    random: bool = False


METHODS = {
    "words": Method(width=0),
    **{f"SVD, width {width}": Method(width=width) for width in (8, 16, 32, 64, 128)},
    **{
        f"wide embedding, width {width}": Method("wide embedding", width, unlabeled=True)
        for width in (8, 16, 32, 64, 128)
    },
    "labels": Method("labels"),
    "MarginMSE": Method("MarginMSE"),
    "list KL": Method("list KL"),
    "MarginMSE, unlabeled": Method("MarginMSE", unlabeled=True),
    "list KL, unlabeled": Method("list KL", unlabeled=True),
    "list KL, unlabeled, width 128": Method("list KL", 128, unlabeled=True),
    "labels, random start": Method("labels", random=True),
    "MarginMSE, random start": Method("MarginMSE", random=True),
}
RECIPE = Recipe()
COLUMNS = ("recall_10", "mrr")


@dataclass(frozen=True)
class Texts:
    """All questions and documents as bags of words, weighted by how rare a word is.

    Attributes:
        questions: rows of length 1, shape (N, V); the answer to question i is document i.
        documents: the same.
        pairs: what the teacher reads of each pair, shape (N, N, 5).
    """

    questions: Tensor
    documents: Tensor
    pairs: Tensor


@lru_cache(maxsize=1)
def read_texts() -> Texts:
    """Read the library and count."""
    functions = stdlib_functions()
    found = Counter(word for f in functions for word in {*f.question, *f.body})
    known = {word: i for i, word in enumerate(sorted(w for w, n in found.items() if n > 1))}
    rarity = torch.tensor([1 + len(functions) / found[word] for word in known]).log()

    def bags(texts: list[list[str]]) -> Tensor:
        counted = torch.zeros(len(texts), len(known))
        for row, text in zip(counted, texts, strict=True):
            row[[known[word] for word in text if word in known]] = 1
        return F.normalize(counted * rarity, dim=1)

    questions, documents, names = (
        bags([getattr(f, part) for f in functions]) for part in ("question", "body", "name")
    )
    overlap, named = questions @ documents.T, questions @ names.T
    shared = (questions > 0).float() @ (documents > 0).float().T
    covered = shared / (questions > 0).sum(1, keepdim=True).clamp_min(1)
    length = (documents > 0).sum(1).log().expand_as(overlap) / 4
    pairs = torch.stack([overlap, named, covered, length, overlap * named], dim=-1)
    return Texts(questions, documents, pairs)


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Match the margins between a right document and others.

    .. math:: L = \frac{1}{B\,(D-1)} \sum_{b} \sum_{d > 1}
              \bigl((s_{b1} - s_{bd}) - (t_{b1} - t_{bd})\bigr)^2

    Args:
        student: scores, shape (B, D), the right document first.
        teacher: the same of the teacher, detached.

    Source: S. Hofstätter et al., Improving Efficient Neural Ranking Models with Cross-Architecture
        Knowledge Distillation, arXiv 2010.02666, equation 5.

    Example:
        >>> teacher = torch.tensor([[3.0, 1.0, 0.0]])
        >>> margin_mse(teacher + 7, teacher).item()
        0.0
        >>> margin_mse(torch.zeros(1, 3), teacher).item()
        6.5
    """
    ours, theirs = (scores[:, :1] - scores[:, 1:] for scores in (student, teacher.detach()))
    return F.mse_loss(ours, theirs)


class Embedding(nn.Module):
    """A vector for each word; a text is the sum of its words' vectors, brought to length 1.

    Args:
        words: shape (V, width), where it starts.
    """

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words.clone())
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, bags: Tensor) -> Tensor:
        """Return unit vectors, (N, V) to (N, width)."""
        return F.normalize(bags @ self.words, dim=1)


def ranks(scores: Tensor, right: Tensor) -> Tensor:
    """Return how many documents score higher than the right one.

    Example:
        >>> ranks(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([2])).tolist()
        [1]
    """
    return (scores > scores.gather(1, right[:, None])).sum(1)


def candidates(
    rows: Tensor, best: Tensor, count: int, total: int, generator: torch.Generator
) -> Tensor:
    """Draw other documents for each question, half of them from the teacher's best.

    Args:
        rows: the right document of each question, shape (B,).
        best: the teacher's best documents of each, shape (B, H).
        count: how many to draw.
        total: number of documents.
        generator: of the draw.
    """
    others = torch.randint(total, (len(rows), count), generator=generator)
    hard = best.gather(1, torch.randint(best.shape[1], others.shape, generator=generator))
    drawn = torch.where(torch.rand(others.shape, generator=generator) < 0.5, hard, others)
    return torch.where(drawn == rows[:, None], (drawn + 1) % total, drawn)


def train_teacher(texts: Texts, rows: Tensor, recipe: Recipe, seed: int) -> nn.Module:
    """Train the reranker: the right document against random ones."""
    teacher = seeded(
        lambda: nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Linear(16, 1), nn.Flatten(-2)), seed
    )
    generator = torch.Generator().manual_seed(seed)
    size, total = recipe.batch_size, len(texts.questions)

    def losses() -> Iterator[Tensor]:
        while True:
            right = rows[torch.randint(len(rows), (size,), generator=generator)]
            others = torch.randint(total, (size, 2 * recipe.documents - 1), generator=generator)
            shown = torch.cat([right[:, None], others], dim=1)
            scores = teacher(texts.pairs[right[:, None], shown])
            yield F.cross_entropy(scores, torch.zeros(size, dtype=torch.long))

    descend(teacher.parameters(), losses(), rate=recipe.teacher_rate, steps=recipe.steps)
    return teacher


def train_student(
    student: Embedding,
    loss: str,
    texts: Texts,
    rows: Tensor,
    labeled: Tensor,
    taught: Tensor,
    recipe: Recipe,
    seed: int,
) -> None:
    """Train an embedding in place.

    Args:
        student: where it starts.
        loss: see `Method`.
        texts: questions and documents.
        rows: the questions to learn from.
        labeled: whose document is known; for the others the teacher's best stands in.
        taught: the teacher's scores of all pairs.
        recipe: the numbers.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    best = taught.topk(recipe.hard, dim=1).indices
    known = torch.zeros(len(taught), dtype=torch.bool)
    known[labeled] = True
    first = torch.where(known, torch.arange(len(taught)), best[:, 0])
    kinds: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "labels": lambda ours, _: F.cross_entropy(ours, torch.zeros(len(ours), dtype=torch.long)),
        "MarginMSE": margin_mse,
        "list KL": lambda ours, theirs: soft_target_loss(ours, theirs, temperature=1.0),
        "wide embedding": lambda ours, theirs: soft_target_loss(
            ours, WIDE_SCALE * theirs, temperature=1.0
        ),
    }

    def losses() -> Iterator[Tensor]:
        while True:
            asked = rows[torch.randint(len(rows), (recipe.batch_size,), generator=generator)]
            others = candidates(
                first[asked], best[asked], recipe.documents - 1, len(taught), generator
            )
            shown = torch.cat([first[asked][:, None], others], dim=1)
            found, place = shown.unique(return_inverse=True)
            vectors = student(texts.documents[found])[place]
            scores = student.scale * (student(texts.questions[asked])[:, None] * vectors).sum(-1)
            yield kinds[loss](scores, taught[asked[:, None], shown])

    descend(student.parameters(), losses(), rate=recipe.rate, steps=recipe.steps)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the reranker and one for each embedding, see `Experiment`.

    ``recall_10`` is the share of questions whose document is among the first ten of all, per cent,
    ``mrr`` the mean of one over its place, times 100.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    texts = read_texts()
    order = torch.randperm(len(texts.questions), generator=torch.Generator().manual_seed(seed))
    test, validation, labeled, unlabeled = order.split(
        [
            recipe.test,
            recipe.validation,
            recipe.labeled,
            len(order) - recipe.test - recipe.validation - recipe.labeled,
        ]
    )
    asked = validation if on == "validation" else test

    def row(name: str, scores: Tensor) -> Row:
        place = ranks(scores, asked)
        return {
            "seed": seed,
            "method": name,
            "recall_10": 100 * (place < 10).double().mean().item(),
            "mrr": 100 * (1 / (1 + place.double())).mean().item(),
        }

    teacher = train_teacher(texts, labeled, recipe, seed)
    with torch.no_grad():
        taught = teacher(texts.pairs)
    yield row("teacher", taught[asked])

    wide = texts.questions @ texts.documents.T
    widest = max([METHODS[name].width for name in methods], default=0)
    both = torch.cat([texts.questions, texts.documents])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        axes = torch.svd_lowrank(both, widest + 8)[2] if widest else both[:0].T
        noise = torch.randn(both.shape[1], widest) / max(widest, 1) ** 0.5
    for name in methods:
        method = METHODS[name]
        if not method.width:
            yield row(name, wide[asked])
            continue
        start = noise if method.random else axes
        student = Embedding(start[:, : method.width])
        rows = torch.cat([labeled, unlabeled]) if method.unlabeled else labeled
        told = wide if method.loss == "wide embedding" else taught
        known = labeled[:0] if method.loss == "wide embedding" else labeled
        if method.loss:
            train_student(student, method.loss, texts, rows, known, told, recipe, seed)
        with torch.no_grad():
            yield row(name, student(texts.questions[asked]) @ student(texts.documents).T)
