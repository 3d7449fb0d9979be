"""The losses in one table, called alike, for the tests of what all of them keep."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn import losses

SHAPES = {
    "logits": (5, 7),
    "features": (3, 4, 6, 6),
    "embeddings": (6, 5),
    "scores": (2, 3, 5, 5),
    "states": (2, 5, 8),
    "tokens": (2, 4, 9),
}
LABELS = torch.tensor([0, 6, 3, 3, 1])


@dataclass
class Spec:
    """One loss, called as ``call(student, teacher)`` on tensors of one kind.

    ``ignores`` are the changes that leave the value alone, ``sees`` those that do not: "batch"
    (both sides reordered), "order" (the student's channels, classes or widths reordered), "both
    orders" (student's and teacher's alike), "scale" and "shift" (of the student).
    """

    kind: str
    call: Callable[[Tensor, Tensor], Tensor]
    ignores: str = ""
    sees: str = ""
    zero: bool = True  # at equality
    positive: bool = True  # everywhere
    second: bool = True  # gradgradcheck
    accuracy: float = 1e-12  # of the zero
    alone: bool = True  # takes a batch of one


def labeled(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: getattr(losses, name)(s, t, LABELS[: len(s)].to(s.device))


def fsp(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.fsp_loss((student, student[:, 1:3]), (teacher, teacher[:, 1:3]))


def top_k(tail: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(student, teacher):
        stored = teacher.float() if teacher.element_size() == 2 else teacher
        log_probs, indices = stored.log_softmax(-1).topk(3)
        return losses.top_k_kl(student, log_probs, indices, tail=tail)

    return call


def sampled(student: Tensor, teacher: Tensor) -> Tensor:
    indices = torch.arange(3, device=teacher.device).expand(*teacher.shape[:-1], 3)
    stored = teacher.float() if teacher.element_size() == 2 else teacher
    return losses.sampled_kl(student, stored.log_softmax(-1).gather(-1, indices), indices)


def sequence(student: Tensor, teacher: Tensor) -> Tensor:
    count = student.shape[0] * student.shape[1]
    tokens = torch.arange(count, device=student.device).reshape(student.shape[:2]) % 9
    return losses.sequence_reverse_kl(student, teacher, tokens)


def drawn(estimator: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(student, teacher):
        count = student[..., 0].numel()
        tokens = torch.arange(count, device=student.device).reshape(student.shape[:-1]) % 9
        return losses.sampled_reverse_kl(student, teacher, tokens, estimator=estimator)

    return call


def plain(name: str, **options) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: getattr(losses, name)(s, t, **options)


def remembered(student: Tensor, teacher: Tensor) -> Tensor:
    batch, others = len(student), max(len(student) - 1, 1)
    step = torch.arange(1 + others, device=student.device)
    places = (torch.arange(batch, device=student.device)[:, None] + step) % batch
    return losses.crd_loss(student, teacher, places, normalizer=2.0, temperature=0.5)


def fused(student: Tensor, teacher: Tensor) -> Tensor:
    head = torch.eye(student.shape[-1], dtype=student.dtype, device=student.device)
    return losses.linear_distillation_loss(student, head, teacher, chunk=3)


KL = {"ignores": "batch, both orders, shift", "sees": "order, scale"}
RELATION = {"ignores": "batch, order, scale", "sees": "shift", "alone": False}

TABLE = {
    "soft_target_loss": Spec("logits", plain("soft_target_loss"), **KL),
    "distillation_loss": Spec(
        "logits", labeled("distillation_loss"), ignores="shift", sees="order, scale", zero=False
    ),
    "soft_cross_entropy": Spec("logits", plain("soft_cross_entropy"), zero=False, **KL),
    "logit_mse_loss": Spec(
        "logits",
        plain("logit_mse_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "target_class_loss": Spec(
        "logits", labeled("target_class_loss"), ignores="shift", sees="order, scale"
    ),
    "nontarget_class_loss": Spec(
        "logits", labeled("nontarget_class_loss"), ignores="shift", sees="order, scale"
    ),
    "dkd_loss": Spec("logits", labeled("dkd_loss"), ignores="shift", sees="order, scale"),
    "dist_loss": Spec("logits", plain("dist_loss"), accuracy=1e-6, alone=False, **KL),
    "binary_distillation_loss": Spec(
        "logits",
        plain("binary_distillation_loss", temperature=2.0),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "multi_label_distillation_loss": Spec(
        "logits",
        plain("multi_label_distillation_loss", temperature=2.0),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "deit_soft_loss": Spec(
        "logits",
        lambda s, t: losses.deit_soft_loss(s, s, t, LABELS[: len(s)].to(s.device)),
        ignores="shift",
        sees="order, scale",
        zero=False,
    ),
    "deit_hard_loss": Spec(
        "logits",
        lambda s, t: losses.deit_hard_loss(s, s, t, LABELS[: len(s)].to(s.device)),
        ignores="shift",
        sees="order, scale",
        zero=False,
    ),
    "attention_transfer_loss": Spec(
        "features",
        plain("attention_transfer_loss"),
        ignores="batch, order, scale",
        sees="shift",
    ),
    "attention_transfer_loss/paper": Spec(
        "features",
        plain("attention_transfer_loss", convention="paper", p=4),
        ignores="batch, order, scale",
        sees="shift",
    ),
    "gradient_attention_loss": Spec(
        "features",
        plain("gradient_attention_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "hint_loss": Spec(
        "features",
        plain("hint_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "nst_loss": Spec("features", plain("nst_loss"), ignores="batch, order, scale", sees="shift"),
    "hcl_loss": Spec(
        "features",
        plain("hcl_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "fsp_loss": Spec("features", fsp, ignores="batch", sees="order, scale, shift"),
    "activation_boundary_loss": Spec(
        "features",
        plain("activation_boundary_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
        zero=False,
        second=False,
    ),
    "factor_transfer_loss": Spec(
        "features",
        plain("factor_transfer_loss"),
        ignores="batch, both orders, scale",
        sees="order, shift",
    ),
    "similarity_preserving_loss": Spec("features", plain("similarity_preserving_loss"), **RELATION),
    "rkd_distance_loss": Spec(
        "embeddings", plain("rkd_distance_loss"), ignores="batch, order, scale, shift", alone=False
    ),
    "rkd_angle_loss": Spec(
        "embeddings", plain("rkd_angle_loss"), ignores="batch, order, scale, shift", alone=False
    ),
    "pkt_loss": Spec("embeddings", plain("pkt_loss"), positive=False, **RELATION),
    "correlation_congruence_loss": Spec(
        "embeddings",
        plain("correlation_congruence_loss"),
        alone=False,
        ignores="both orders",
        sees="batch, order, scale, shift",
    ),
    "contrastive_loss": Spec(
        "embeddings",
        plain("contrastive_loss"),
        alone=False,
        ignores="batch, both orders, scale",
        sees="order, shift",
        zero=False,
    ),
    "crd_loss": Spec(
        "embeddings",
        remembered,
        ignores="batch, both orders, scale",
        sees="order, shift",
        zero=False,
    ),
    "attention_score_loss": Spec(
        "scores",
        plain("attention_score_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "attention_distribution_loss": Spec("scores", plain("attention_distribution_loss"), **KL),
    "vit_attention_loss": Spec("scores", plain("vit_attention_loss"), zero=False, **KL),
    "relation_loss": Spec(
        "states",
        plain("relation_loss", relation_heads=2),
        ignores="batch",
        sees="order, scale, shift",
    ),
    "relation_loss/pair": Spec(
        "states",
        lambda s, t: losses.relation_loss((s, s.flip(0)), (t, t.flip(0)), relation_heads=4),
        ignores="batch",
        sees="order, scale, shift",
    ),
    "hidden_state_loss": Spec(
        "states",
        plain("hidden_state_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "forward_kl": Spec("tokens", plain("forward_kl"), **KL),
    "reverse_kl": Spec("tokens", plain("reverse_kl"), **KL),
    "total_variation": Spec("tokens", plain("total_variation"), **KL),
    "skew_kl": Spec("tokens", plain("skew_kl"), **KL),
    "generalized_jsd": Spec("tokens", plain("generalized_jsd"), **KL),
    "generalized_jsd/forward": Spec("tokens", plain("generalized_jsd", beta=0), **KL),
    "generalized_jsd/reverse": Spec("tokens", plain("generalized_jsd", beta=1), **KL),
    "top_k_kl/bucket": Spec("tokens", top_k("bucket"), **KL),
    "top_k_kl/renormalize": Spec("tokens", top_k("renormalize"), **KL),
    "top_k_kl/ignore": Spec("tokens", top_k("ignore"), positive=False, **KL),
    "sampled_kl": Spec(
        "tokens", sampled, ignores="batch, shift", sees="order, scale", positive=False
    ),
    "linear_distillation_loss": Spec("tokens", fused, second=False, **KL),
    "uld_loss": Spec("tokens", plain("uld_loss"), ignores="batch, order, shift", sees="scale"),
    "sampled_reverse_kl/k1": Spec(
        "tokens", drawn("k1"), ignores="shift", sees="order, scale", positive=False
    ),
    "sampled_reverse_kl/k2": Spec("tokens", drawn("k2"), ignores="shift", sees="order, scale"),
    "sampled_reverse_kl/k3": Spec("tokens", drawn("k3"), ignores="shift", sees="order, scale"),
    "sequence_reverse_kl": Spec(
        "tokens", sequence, ignores="shift", sees="order, scale", positive=False
    ),
}

MASKED = {  # and the kind of their inputs
    "attention_score_loss": "scores",
    "attention_distribution_loss": "scores",
    "relation_loss": "states",
    "hidden_state_loss": "states",
    "forward_kl": "tokens",
    "reverse_kl": "tokens",
    "total_variation": "tokens",
    "skew_kl": "tokens",
    "generalized_jsd": "tokens",
    "linear_distillation_loss": "tokens",
    "uld_loss": "tokens",
    "top_k_kl": "tokens",
    "sampled_kl": "tokens",
    "sampled_reverse_kl": "tokens",
    "sequence_reverse_kl": "tokens",
}


def masked_call(name: str) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The named loss as call(student, teacher, mask)."""
    loss = getattr(losses, name)

    def call(student, teacher, mask):
        fits = mask is not None and mask.dtype == torch.bool and mask.shape == student.shape[:2]
        if name in ("top_k_kl", "sampled_kl"):
            stored = teacher.float() if teacher.element_size() == 2 else teacher
            log_probs, indices = stored.log_softmax(-1).topk(3)
            if fits:  # what a batch is filled up with
                indices = indices.masked_fill(~mask[..., None], -1)
            return loss(student, log_probs, indices, mask=mask)
        if name in ("sampled_reverse_kl", "sequence_reverse_kl"):
            tokens = torch.arange(student.shape[1], device=student.device).expand(student.shape[:2])
            if fits:
                tokens = tokens.masked_fill(~mask, -100)
            return loss(student, teacher, tokens, mask=mask)
        if name == "linear_distillation_loss":
            head = torch.eye(student.shape[-1], dtype=student.dtype, device=student.device)
            return loss(student, head, teacher, mask=mask, chunk=3)
        extra = {"relation_heads": 2} if name == "relation_loss" else {}
        return loss(student, teacher, mask=mask, **extra)

    return call


def cropped(tensor: Tensor, length: int) -> Tensor:
    return tensor[..., :length, :length] if tensor.dim() == 4 else tensor[:, :length]
