"""Drill: the map of linear attention, which a softmax teacher can be compared with."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def linear_attention_map(queries: Tensor, keys: Tensor) -> Tensor:
    """Return how much each query attends to each key up to its own place, shape (B, heads, L, L).

    Entry (i, j) is f(q_i) · f(k_j), divided by the sum of these over the keys 0 to i; after the
    place i it is 0. f works on each number: f(x) = x + 1 above 0 and exp(x) below, which is 1 +
    ELU(x). Nothing else is scaled or added, so each row sums to 1 also where all of f is tiny.
    queries, keys: shape (B, heads, L, D).
    """

    def feature(x: Tensor) -> Tensor:
        return torch.where(x >= 0, x + 1, x.clamp(max=0).exp())

    products = (feature(queries) @ feature(keys).transpose(-2, -1)).tril()
    return products / products.sum(dim=-1, keepdim=True)


def example() -> Case:
    """One sequence of three places, one head of two numbers."""
    queries = torch.tensor([[[[1.0, -1.0], [-2.0, 3.0], [0.5, 1.0]]]], dtype=torch.float64)
    keys = torch.tensor([[[[2.0, -1.0], [1.0, 1.0], [-1.0, 4.0]]]], dtype=torch.float64)
    return {"queries": queries, "keys": keys}


def cases(generator: Generator) -> list[Case]:
    """Several batches, heads, lengths and widths."""
    return [
        {"queries": draws.normal(generator, *shape), "keys": draws.normal(generator, *shape)}
        for shape in ((2, 3, 4, 5), (3, 2, 6, 2), (1, 4, 5, 3))
    ]


def edges() -> list[Edge]:
    """One place, features whose 1 + ELU rounds to 0 or whose exp overflows, float32."""
    case = example()
    queries, keys = case["queries"], case["keys"]
    return [
        Edge("one place", {name: value[:, :, :1] for name, value in case.items()}),
        Edge(
            "features near 0",
            {"queries": queries - 50, "keys": keys - 50},
            "There elu(x) rounds to -1, and adding 1 leaves 0: take exp(x) itself below 0.",
        ),
        Edge(
            "features of 1000",
            {"queries": queries + 1000, "keys": keys + 1000},
            "torch.where works out both sides, and backward() multiplies the infinite slope of the "
            "one not taken by 0: clamp before exp.",
        ),
        Edge("float32", {"queries": queries.float(), "keys": keys.float()}),
    ]


def _feature(wrong: Wrong, x: Tensor) -> Tensor:
    """The feature map with its switches."""
    made = {
        "no-feature-map": lambda: x,
        "relu": x.relu,
        "exponential": x.exp,
        "softplus": lambda: F.softplus(x),
        "softmax-features": lambda: x.softmax(-1),
        "square": x.square,
        "elu-alone": lambda: F.elu(x),
        "rounded": lambda: F.elu(x) + 1,
        "nan-gradient": lambda: torch.where(x >= 0, x + 1, x.exp()),
    }
    right = torch.where(x >= 0, x + 1, x.clamp(max=0).exp())
    return next((made[name]() for name in made if name in wrong), right)


def family(wrong: Wrong, queries: Tensor, keys: Tensor) -> Tensor:
    """The map with its switches."""
    width = queries.shape[-1]
    q = queries / width**0.5 if "queries-scaled" in wrong else queries
    k = keys
    if "both-scaled" in wrong:
        q, k = q / width**0.25, k / width**0.25
    q = q if "keys-alone" in wrong else _feature(wrong, q)
    k = k if "queries-alone" in wrong else _feature(wrong, k)
    products = q @ k.mT
    if "of-the-product" in wrong:
        products = _feature(wrong, queries @ keys.mT)
    if "softmax-attention" in wrong:
        products = (queries @ keys.mT / width**0.5).exp()
    if "transposed" in wrong:
        products = products.mT
    hidden = {"own-place-hidden": -1, "one-too-many": 1, "not-causal": products.shape[-1]}
    last = next((hidden[name] for name in hidden if name in wrong), 0)
    seen = torch.ones_like(products, dtype=torch.bool).tril(last)
    if "other-side" in wrong:
        seen = seen.mT
    if "softmax" in wrong:
        return products.masked_fill(~seen, -torch.inf).softmax(-1)
    kept = products.masked_fill(~seen, 0.0)
    over = products if "masked-afterwards" in wrong else kept
    sums = {
        "not-normalized": torch.ones_like(kept),
        "over-queries": over.sum(-2, keepdim=True),
        "over-heads": over.sum(1, keepdim=True),
        "altogether": over.sum((-2, -1), keepdim=True),
        "length": over.norm(dim=-1, keepdim=True),
        "guarded": over.sum(-1, keepdim=True) + 1e-6,
        "by-count": seen.sum(-1, keepdim=True),
        "largest": over.amax(-1, keepdim=True),
    }
    return kept / next((sums[n] for n in sums if n in wrong), over.sum(-1, keepdim=True))


drill = Drill(
    id="linear-attention-map",
    title="The map of linear attention",
    task=(
        "A softmax teacher is to be turned into a student with linear attention, whose cost does "
        "not grow with the square of the length. Linear attention never forms its map, but to "
        "compare it with the teacher's you need one. Write the causal map with the feature map $1 "
        "+ \\mathrm{ELU}$."
    ),
    minutes=8,
    level="core",
    hints=(
        "Where softmax attention has the exponential of one product, there is here a product of "
        "two features. What has to be true of them for a row to be a distribution?",
        "Which keys may the query at place i see, and over which keys does the sum run that a row "
        "is divided by? Do these two differ?",
        "Let x be -50 and work out ELU(x) in floating point by hand: what is left of exp(x) after "
        "a 1 was taken from it and given back?",
    ),
    explanation=(
        "O(B h L² D) for the map, which is only for training; in use, $\\sum_j f(k_j) v_j^\\top$ "
        "and $\\sum_j f(k_j)$ are carried along, D · D + D numbers a head whatever the length, and "
        "that is the point. The features must be positive, or a row is no distribution. The mask "
        "comes before the division, as a row is divided by what it sees. A root of D that divides "
        "the products would cancel; inside f it would not, and there is none. `F.elu(x) + 1` takes "
        "1 from exp(x) and gives it back, and below about -37 in float64, -17 in float32 and -6 in "
        "bfloat16 nothing is left: a row of 0 / 0. Such a map is flatter than a softmax's, so it "
        "cannot copy a teacher that looks at one key; feature maps that learn to imitate the "
        "teacher's can be spikier. A map in logarithms, log(f(q) · f(k)), goes through the "
        "teacher's own softmax and gives the same rows. The interviewer listens for: positivity, "
        "the causal sum, what the state costs. Sources: [Katharopoulos et al., ICML "
        "2020](cite:katharopoulos2020transformers); [Zhang et al., The Hedgehog and the Porcupine, "
        "ICLR 2024](cite:zhang2024hedgehog)."
    ),
    reference=linear_attention_map,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # feature map
        - no-feature-map: there is no feature map: products of queries and keys can be negative, and
          then a row is no distribution.
        - elu-alone: ELU alone reaches down to -1: the 1 makes it positive.
        - relu: the feature map is a ReLU: asked for is 1 + ELU, which is nowhere 0 and lets a
          gradient through everywhere.
        - exponential: the feature map is the exponential: asked for is 1 + ELU, which grows
          linearly above 0.
        - softplus: the feature map is a softplus: it looks like 1 + ELU, and is another function.
        - softmax-features: the feature map is a softmax over the width: asked for is 1 + ELU,
          number by number.
        - square: the feature map is the square: asked for is 1 + ELU.
        - rounded: where the features are near 0, F.elu(x) + 1 is exactly 0: ELU rounds to -1 there,
          and the row is 0 / 0. Take exp(x) itself below 0.
          Seen in code: fla-org/flash-linear-attention issue 1261
        - nan-gradient: the map is right, and its gradient is NaN where features are large:
          torch.where works out both sides, exp(x) is infinite there, and backward() multiplies it
          by 0. Clamp x before exp.
        # sides
        - queries-alone: only the queries go through the feature map: both sides have to.
        - keys-alone: only the keys go through the feature map: both sides have to.
        - of-the-product: the feature map is applied to the products of queries and keys: then they
          have to be formed, all L² of them. It goes on either side, before the product.
        - softmax-attention: this is softmax attention, the teacher's map.
        # causal
        - not-causal: queries attend to later places: the map has to be causal.
        - own-place-hidden: a query does not see its own place: it may, and the first one has
          nothing else.
        - one-too-many: a query sees one place after its own: the diagonal is the last.
        - other-side: the queries attend to their own and later places, not to earlier ones.
        - transposed: rows and columns are exchanged: a row belongs to a query.
        # normalization
        - not-normalized: the rows are not divided by their sums: these are products, not a map.
          Seen in code: lucidrains/performer-pytorch issue 40
        - masked-afterwards: the rows are divided by the sum over all keys, later ones included, and
          masked afterwards: they sum to less than 1, and a query learns from what is to come.
        - softmax: a softmax is taken of the products: linear attention divides by their sum, with
          no exponential. With the logarithm of the products it would be the same.
        - over-queries: the sums run over the queries: columns sum to 1. They belong on the last
          dimension, the keys.
        - over-heads: the sums run over the heads: they belong on the last dimension, the keys.
        - altogether: the whole map sums to 1, not each row.
        - length: the rows have length 1: asked for is sum 1.
        - by-count: the rows are divided by the number of keys seen, not by the sum of the products.
        - largest: the rows are divided by their largest entry: asked for is their sum.
        - guarded: a guard is added to the sum: where the features are small it is larger than the
          sum, and the row vanishes. The features are positive, so it needs none.
        # scale
        - queries-scaled: the queries are divided by the root of the width before the feature map:
          nothing is to be scaled here.
        - both-scaled: both sides are divided by the fourth root of the width before the feature
          map: nothing is to be scaled here.
        """
    ),
    sizes=lambda case: {"L": case["queries"].shape[2], "D": case["queries"].shape[3]},
    gradients=("queries", "keys"),
)
