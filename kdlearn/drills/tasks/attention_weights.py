"""Drill: scaled dot-product attention weights with a mask."""

import math

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Return how much each query attends to each key, shape (B, heads, L, S).

    queries: (B, heads, L, D). keys: (B, heads, S, D), of any precision. mask: bool, (B, S), True at
    keys that may be attended. Each row sums to 1 over the keys that may be attended, others have 0.
    Where no key may be attended, the row is all 0.
    """
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    allowed = mask[:, None, None, :]
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~allowed, 0)


def example() -> Case:
    """Two sequences of three keys, one head of two numbers, two queries."""
    queries = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [-1.0, 0.0]]])
    keys = torch.tensor(
        [[[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]], [[0.0, 1.0], [3.0, 0.0], [1.0, -1.0]]]
    )
    mask = torch.tensor([[True, True, False], [True, False, True]])
    return {"queries": queries[:, None].double(), "keys": keys[:, None].double(), "mask": mask}


def cases(generator: Generator) -> list[Case]:
    """Unequal numbers of queries and keys; every sequence keeps a key and hides one."""
    made = []
    for batch, heads, queries, keys, width in ((2, 3, 4, 5, 6), (3, 2, 5, 4, 8), (1, 4, 3, 6, 5)):
        mask = torch.rand(batch, keys, generator=generator) > 0.4
        mask[:, 0], mask[:, -1] = True, False
        made.append(
            {
                "queries": draws.normal(generator, batch, heads, queries, width),
                "keys": draws.normal(generator, batch, heads, keys, width),
                "mask": mask,
            }
        )
    return made


def edges() -> list[Edge]:
    """Rows in which nothing may be attended, everything may, as many queries as keys."""
    case = example()
    queries, keys, mask = case["queries"], case["keys"], case["mask"]
    none = mask.clone()
    none[0] = False
    scores = {"queries": 500 * queries, "keys": 500 * keys}
    none_half = {"queries": queries.half(), "keys": keys.half(), "mask": none}
    return [
        Edge(
            "a sequence in which nothing may be attended",
            case | {"mask": none},
            "Such a row is NaN after -inf and uniform after a finite number: return zeros.",
        ),
        Edge("a mask that hides nothing", case | {"mask": torch.ones_like(mask)}),
        Edge("one query", case | {"queries": queries[:, :, :1]}),
        Edge("one sequence", {"queries": queries[:1], "keys": keys[:1], "mask": mask[:1]}),
        Edge(
            "large scores",
            case | scores,
            "A hidden key needs a score far below every other: -inf, or the lowest number.",
        ),
        Edge(
            "large negative scores",
            case | {"queries": -500 * queries.abs() - 500, "keys": 500 * keys.abs() + 500},
            "A hidden key needs a score far below every other: -inf, or the lowest number.",
        ),
        Edge("float32", case | {"queries": queries.float(), "keys": keys.float()}),
        Edge(
            "half precision",
            none_half,
            "Half precision ends at 65,504: take torch.finfo(scores.dtype).min, or -inf.",
        ),
    ]


def family(wrong: Wrong, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """The weights with their switches."""
    width, allowed = queries.shape[-1], mask[:, None, None, :]
    if "mask-inverted" in wrong:
        allowed = ~allowed
    scales = {
        "not-scaled": 1.0,
        "divided-by-width": width,
        "multiplied-by-root": width**-0.5,
        "scaled-by-keys": keys.shape[-2] ** 0.5,
        "scaled-by-queries": queries.shape[-2] ** 0.5,
        "scaled-by-model": (width * queries.shape[1]) ** 0.5,
        "scaled-afterwards": 1.0,
    }
    scores = queries @ keys.mT / next((scales[n] for n in scales if n in wrong), math.sqrt(width))
    if "energy-map" in wrong:
        strength = keys.square().sum(-1) * allowed[:, 0]
        share = strength / strength.sum(-1, keepdim=True).clamp(min=1e-300)
        return share[:, :, None].expand(-1, -1, queries.shape[2], -1) + 0 * scores
    low = {"hidden-scores-zero": 0.0, "hidden-scores-small": -10.0, "nan-rows": -torch.inf}
    fill = next((low[name] for name in low if name in wrong), torch.finfo(scores.dtype).min)
    if "mask-added" in wrong:
        scores = scores + allowed
    elif not {"masked-after-softmax", "mask-ignored"} & wrong:
        scores = scores.masked_fill(~allowed, fill)
    dims = {"softmax-over-queries": 2, "softmax-over-heads": 1, "softmax-over-batch": 0}
    weights = scores.softmax(next((dims[name] for name in dims if name in wrong), -1))
    if "softmax-missing" in wrong:
        weights = scores
    if "sigmoid" in wrong:
        weights = scores.sigmoid()
    if "softmax-twice" in wrong:
        weights = weights.softmax(-1)
    if "scaled-afterwards" in wrong:
        weights = weights / math.sqrt(width)
    open_end = {
        "nan-rows",
        "uniform-rows",
        "mask-ignored",
        "hidden-scores-zero",
        "hidden-scores-small",
        "mask-added",
    }
    return weights if open_end & wrong else weights.masked_fill(~allowed, 0)


drill = Drill(
    id="attention-weights",
    title="Attention weights",
    task=(
        "Write the weights of scaled dot-product attention for a padded batch, without the values."
    ),
    minutes=6,
    level="warm-up",
    hints=(
        "Which of the three dimensions B, L, S does the softmax run over, and where does the mask "
        "go: before or after it?",
        "The product of two vectors of D independent entries has which variance? That says by "
        "what a score is divided.",
        "What is the softmax of a row in which every score is -inf? The last sentence of the "
        "docstring is about such a row.",
    ),
    explanation=(
        "O(B h L S D) time, O(B h L S) memory: the memory is why fast kernels never form this "
        "matrix, and why a distillation that wants it must ask for the slow path. The root of D "
        "keeps the scores' variance at 1 for independent entries; without it the softmax saturates "
        "as heads get wider. The mask goes before the softmax, or rows no longer sum to 1. A row "
        "of nothing but -inf is NaN, and one NaN spoils the batch's loss. The interviewer listens "
        "for the dimension, the root, and padded rows. Source: [Vaswani et al., NeurIPS "
        "2017](cite:vaswani2017attention), section 3.2.1."
    ),
    reference=attention_weights,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # scale
        - not-scaled: the scores are not divided by the root of the width: wide heads give large
          scores, and the softmax puts everything on one key, where its gradient is 0.
        - divided-by-width: the scores are divided by the width, not by its root: attention becomes
          nearly uniform.
        - multiplied-by-root: the scores are multiplied by the root of the width, not divided.
        - scaled-by-keys: the scores are divided by the root of the number of keys: it is the width
          of a head, the last dimension of the queries.
        - scaled-by-queries: the scores are divided by the root of the number of queries: it is the
          width of a head, the last dimension.
        - scaled-by-model: the scores are divided by the root of the whole model's width (heads
          times D): each head has its own width D.
        - scaled-afterwards: the root of the width divides the weights, not the scores: rows no
          longer sum to 1.
        # softmax
        - softmax-over-queries: the softmax runs over the queries: columns sum to 1, so the queries
          compete for a key. It belongs on the last dimension.
        - softmax-over-heads: the softmax runs over the heads: it belongs on the last dimension, the
          keys.
        - softmax-over-batch: the softmax runs over the batch: it belongs on the last dimension, the
          keys.
        - softmax-twice: softmax is applied twice: the second one makes the rows nearly uniform.
          Seen withdrawn: mit-han-lab/once-for-all issue 5, by who asked, the same day
        - softmax-missing: there is no softmax: these are scores, not weights.
        - sigmoid: a sigmoid stands in place of the softmax: rows do not sum to 1.
        - energy-map: this is an activation map, the energy of the keys: it is the same for every
          query. Self-attention compares each query with each key.
        # mask
        - masked-after-softmax: the mask is applied after the softmax: what hidden keys got is lost,
          and the rows sum to less than 1.
        - mask-inverted: the mask is inverted: True marks keys that may be attended here. Libraries
          differ in this; look it up each time.
        - mask-ignored: the mask is not used: padded keys are attended to.
        - hidden-scores-zero: hidden keys get the score 0, which is no small one: exp(0) is 1. Give
          them the lowest number there is.
        - hidden-scores-small: hidden keys get a score such as -1 or -10: they keep a part of the
          weight.
        - mask-added: the mask is added to the scores as 0 and 1: it raises the score of seen keys
          by 1, and hides nothing.
        # empty rows
        - nan-rows: a row in which nothing may be attended is NaN: the softmax of nothing but -inf.
          One such row makes the loss of the whole batch NaN; return zeros there.
        - uniform-rows: a row in which nothing may be attended is uniform, the softmax of equal
          scores: the task asks for zeros there.
        """
    ),
    sizes=lambda case: {"S": case["keys"].shape[2], "D": case["keys"].shape[3]},
    gradients=("queries", "keys"),
)
