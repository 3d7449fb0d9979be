"""A weight from another code base, in the convention of this one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from kdlearn.show.widgets.figure import HTMLFigure, static_table

SIZES = (
    ("T", "temperature T", 4),
    ("C", "classes C", 100),
    ("B", "batch B", 64),
    ("L", "tokens a sentence L", 128),
    ("P", "positions of the map P", 64),
    ("D", "elements of a sample's features D", 4096),
)
"""What a factor may hold: its letter, its name, and a value to start with."""


@dataclass(frozen=True)
class Exchange:
    """How a weight of another code becomes one of ours.

    The weight here is ``a * factor * T**powers["T"] * ...`` with ``a`` the weight there, or 1 minus
    it. With it, the gradient of the loss here is that of the weighted loss there.

    Attributes:
        loss: the name of the loss here.
        code: where the weight comes from.
        parameter: its name there.
        usual: a value to start with.
        factor: a number.
        powers: exponents of the sizes.
        complement: whether the weight there stands before the labels, so that 1 - a counts.
        labels: the weight of the labels: "a", "1 - a", or nothing where it has its own.
        convention: what the loss here must be told besides.
        note: what to know.
    """

    loss: str
    code: str
    parameter: str
    usual: float
    factor: float = 1
    powers: dict[str, int] = field(default_factory=dict)
    complement: bool = False
    labels: str = ""
    convention: str = ""
    note: str = ""

    def convert(self, weight: float, sizes: dict[str, float]) -> float:
        """Return the weight here.

        Example:
            >>> Exchange("soft_target_loss", "DeiT", "alpha", 0.5, powers={"C": -1}).convert(
            ...     0.5, {"C": 100}
            ... )
            0.005
        """
        value = (1 - weight if self.complement else weight) * self.factor
        for letter, power in self.powers.items():
            value *= sizes[letter] ** power
        return value

    @property
    def write(self) -> str:
        """The term to write, with {} for the weight."""
        if self.loss == "attention_transfer_loss":
            call = "layer_term"
            loss = f"partial({self.loss}, {self.convention})" if self.convention else self.loss
            return f'{call}("attention", {loss}, layers, {{}})'
        if self.loss == "hint_loss":
            return 'layer_term("hint", hint_loss, layers, {})'
        return f'logit_term("soft", {self.loss}, {{}})'


SAME = "The two losses are the same number."
ENTROPY = "They differ by the teacher's entropy, a constant: the gradients agree."
SOFT, AT, KL, HINT = "soft_target_loss", "attention_transfer_loss", "forward_kl", "hint_loss"
EXCHANGES = (
    Exchange(SOFT, "AT authors, alpha", "alpha", 0.9, labels="1 - a", note=SAME),
    Exchange(SOFT, "RepDistiller, -a", "a", 0.9, note=SAME + " Its -r is the labels' own weight."),
    Exchange(SOFT, "mdistiller, KD weight", "w", 0.9, note=SAME),
    Exchange(SOFT, "PyTorch tutorial, soft weight", "w", 0.25, note=SAME),
    Exchange(
        SOFT,
        "torchdistill, alpha (not 0)",
        "alpha",
        0.1,
        complement=True,
        labels="a",
        note="There alpha stands before the labels. At alpha = 0 it drops T².",
    ),
    Exchange(
        SOFT,
        "DeiT, alpha (soft)",
        "alpha",
        0.5,
        powers={"C": -1},
        labels="1 - a",
        note="It divides by the batch and by the classes.",
    ),
    Exchange(
        SOFT,
        "nn.KLDivLoss() times T²",
        "w",
        0.9,
        powers={"C": -1},
        note="The default reduction is a mean over all elements, classes too.",
    ),
    Exchange(SOFT, "TextBrewer, kd_ce_loss", "w", 1, powers={"T": -2}, note="No T². " + ENTROPY),
    Exchange(
        SOFT,
        "TinyBERT, prediction layer",
        "w",
        1,
        powers={"T": -2, "C": -1},
        note="No T², and a mean over classes. " + ENTROPY,
    ),
    Exchange(
        SOFT,
        "batchmean on (B, L, V), times T²",
        "w",
        1,
        powers={"L": 1},
        note="batchmean divides by sentences, not by tokens.",
    ),
    Exchange(AT, "AT authors, beta", "beta", 1000, note=SAME),
    Exchange(AT, "RepDistiller, -b", "b", 1000, note=SAME + " For each pair of layers."),
    Exchange(
        AT,
        "squared distance, mean over images",
        "beta",
        1,
        powers={"P": 1},
        note="Summed over positions there. P is another one for each pair of layers.",
    ),
    Exchange(
        AT,
        "squared distance, summed over the batch",
        "beta",
        0.05,
        powers={"P": 1, "B": 1},
        note="A weight that changes with the batch size.",
    ),
    Exchange(
        AT,
        "1 - cosine of the maps",
        "beta",
        1,
        factor=0.5,
        powers={"P": 1},
        note="Ours is 2 (1 - cos) / P.",
    ),
    Exchange(
        AT,
        "paper, Eq. 2, beta",
        "beta",
        0.1,
        factor=0.5,
        convention='convention="paper"',
        note="The paper has beta / 2 before an unsquared norm: no factor leads to the code's.",
    ),
    Exchange(HINT, "RepDistiller, -b", "b", 100, note=SAME),
    Exchange(
        HINT,
        "FitNets, Eq. 3",
        "w",
        1,
        factor=0.5,
        powers={"D": 1},
        note="Half a squared norm, so its scale grows with the layer.",
    ),
    Exchange(KL, "TRL, beta=0", "w", 1, note=SAME),
    Exchange(KL, "torchtune, DistiLLM (forward)", "w", 1, note=ENTROPY),
    Exchange(
        KL,
        "DistillKit, summed over tokens",
        "w",
        1,
        powers={"B": 1, "L": 1},
        note="B L is the number of tokens that count.",
    ),
)
"""What the chapter on conventions asserts, as factors."""

START = 5


def convention_converter() -> HTMLFigure:
    r"""Let the reader type the weight of another code and read the weight to write here.

    .. math:: \beta_\text{here} = \beta_\text{there} \, / \, a, \qquad
        L_\text{here} = a \, L_\text{there} + \text{const}

    It starts with DeiT's ``alpha = 0.5`` and 100 classes.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the start.

    Example:
        >>> convention_converter()
        Weights of 21 other conventions to turn into those of kdlearn. DeiT, alpha (soft), alpha = 0.5 with C = 100: 0.005 before soft_target_loss, 0.5 before the labels.
    """  # noqa: E501
    sizes = {letter: float(value) for letter, _, value in SIZES}
    start = EXCHANGES[START]
    text = (
        f"Weights of {len(EXCHANGES)} other conventions to turn into those of kdlearn. "
        f"{start.code}, {start.parameter} = {start.usual} with C = {sizes['C']:g}: "
        f"{start.convert(start.usual, sizes):g} before {start.loss}, {1 - start.usual:g} before "
        "the labels."
    )
    fallback = static_table(
        "Weights elsewhere and here, for "
        + ", ".join(f"{letter} = {value:g}" for letter, value in sizes.items())
        + ". With scripts on (in a notebook: run this cell), all of them can be typed.",
        ["you come from", "loss here", "its weight", "weight here"],
        [
            [row.code, row.loss, f"{row.usual:g}", f"{row.convert(row.usual, sizes):.6g}"]
            for row in EXCHANGES
        ],
    )
    data = {
        "rows": [{**asdict(row), "write": row.write} for row in EXCHANGES],
        "sizes": SIZES,
        "start": START,
    }
    return HTMLFigure("converter", data, fallback, text)
