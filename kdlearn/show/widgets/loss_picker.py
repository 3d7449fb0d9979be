"""Tick what you have, and read which losses ask for no more."""

from __future__ import annotations

import inspect

from kdlearn import losses
from kdlearn.measure import load_results
from kdlearn.show.widgets.figure import HTMLFigure, static_table

HAVE = {
    "logits": "the teacher's logits, for the same classes",
    "labels": "labels",
    "coins": "yes-or-no outputs (sigmoids)",
    "second head": "a second head on the student",
    "features": "features of a layer, of both",
    "same shape": "layers of equal shape, or a projector",
    "factors": "a paraphraser, trained before",
    "memory": "an embedding of every sample, in memory",
    "image gradients": "gradients of the loss by the image",
    "batch": "one vector a sample, and 2 samples or more",
    "scores": "attention scores, with equal heads",
    "states": "states, queries, keys or values of tokens",
    "tokens": "logits for each token, the same vocabulary",
    "other tokens": "logits for each token, another vocabulary",
    "heads": "last hidden states, and both output heads",
    "stored": "a few stored probabilities of each token",
    "own text": "sequences that the student wrote",
    "text": "text alone, such as the teacher wrote",
}
"""What one may have: a key, and the words beside its box."""

NEEDS = {
    "soft_target_loss": "logits",
    "distillation_loss": "logits, labels",
    "dkd_loss": "logits, labels",
    "target_class_loss": "logits, labels",
    "nontarget_class_loss": "logits, labels",
    "dist_loss": "logits, batch",
    "soft_cross_entropy": "logits",
    "logit_mse_loss": "logits",
    "deit_soft_loss": "logits, labels, second head",
    "deit_hard_loss": "logits, labels, second head",
    "binary_distillation_loss": "coins",
    "multi_label_distillation_loss": "coins",
    "attention_transfer_loss": "features",
    "gradient_attention_loss": "image gradients, labels",
    "flip_symmetry_loss": "image gradients, labels",
    "hint_loss": "features, same shape",
    "hcl_loss": "features, same shape",
    "activation_boundary_loss": "features, same shape",
    "factor_transfer_loss": "features, factors",
    "nst_loss": "features",
    "fsp_loss": "features, same shape",
    "VIDLoss": "features",
    "MGDLoss": "features",
    "similarity_preserving_loss": "batch",
    "rkd_distance_loss": "batch",
    "rkd_angle_loss": "batch",
    "pkt_loss": "batch",
    "correlation_congruence_loss": "batch, same shape",
    "contrastive_loss": "batch, same shape",
    "crd_loss": "batch, memory, same shape",
    "attention_score_loss": "scores",
    "attention_distribution_loss": "scores",
    "vit_attention_loss": "scores",
    "relation_loss": "states",
    "hidden_state_loss": "states, same shape",
    "forward_kl": "tokens",
    "reverse_kl": "tokens",
    "generalized_jsd": "tokens",
    "skew_kl": "tokens",
    "total_variation": "tokens",
    "linear_distillation_loss": "heads",
    "top_k_kl": "stored",
    "sampled_kl": "stored",
    "sampled_reverse_kl": "tokens, own text",
    "sequence_reverse_kl": "tokens, own text",
    "uld_loss": "other tokens",
    "cross_entropy": "text",
}
"""What each loss asks for: keys of `HAVE`; in the order of the list."""

START = ("logits", "labels")
COSTS = {
    "image": "{:.3g} % of a training step of a WRN-16-2",
    "transformer": "{:.3g} % of a training step of a small transformer",
    "vocabulary": "{:.3g} % of the time of forward_kl",
}


def loss_picker() -> HTMLFigure:
    """Let the reader tick what there is, and list the losses that ask for no more.

    The words on a loss are the first line of its docstring; its cost is that of the table
    ``loss-cost``, forward and backward, measured on one thread. It starts with logits and labels.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` names the losses for logits
        and labels.

    Example:
        >>> loss_picker()
        47 losses to choose from by what you have. With the teacher's logits, for the same classes; labels: soft_target_loss, distillation_loss, dkd_loss, ...
    """  # noqa: E501
    rows = [
        {
            "name": name,
            "needs": needs.split(", "),
            "summary": str(inspect.getdoc(getattr(losses, name))).splitlines()[0],
            "cost": costs.get(name, ""),
        }
        for costs in [_costs()]
        for name, needs in NEEDS.items()
    ]
    fit = [str(row["name"]) for row in rows if set(row["needs"]) <= set(START)]
    text = (
        f"{len(rows)} losses to choose from by what you have. With "
        f"{'; '.join(HAVE[key] for key in START)}: {', '.join(fit)}."
    )
    fallback = static_table(
        "What each loss asks for. With scripts on (in a notebook: run this cell), it can be chosen "
        "by what you have.",
        ["loss", "asks for"],
        [
            [name, "; ".join(HAVE[key] for key in needs.split(", "))]
            for name, needs in NEEDS.items()
        ],
    )
    data = {"have": list(HAVE.items()), "losses": rows, "start": START}
    return HTMLFigure("loss_picker", data, fallback, text)


def _costs() -> dict[str, str]:
    """The measured cost of each loss in words; of two settings the first."""
    words: dict[str, str] = {}
    for kind, loss, share in load_results("loss-cost")[["kind", "loss", "share"]].itertuples(
        index=False
    ):
        name, _, setting = str(loss).partition(", ")
        if name in NEEDS and name not in words:
            words[name] = COSTS[kind].format(share) + (f" ({setting})" if setting else "")
    return words
