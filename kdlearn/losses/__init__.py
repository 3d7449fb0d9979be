"""Distillation losses: pure functions of tensors, student first, teacher second.

One file a family: ``logits``, ``features``, ``relations``, ``attention``, ``transformers``,
``language`` and ``estimators``. All of them are re-exported here; ``maps`` has the maps that some
compare.

What every loss keeps, and its own page does not repeat:

* **Order.** Student, teacher, then labels or tokens. The teacher's side is detached: no gradient
  reaches it. The student's side has first and second derivatives, unless its page says otherwise.
* **Numbers** such as a temperature or a weight are Python's, NumPy's or a tensor's without
  dimensions. No gradient reaches them: one that asks for it is refused.
* **Inference.** What was made under ``torch.inference_mode`` is welcome, on the teacher's side and
  as mask or labels: it is copied where autograd has to keep it.
* **One number.** A scalar comes back, 0 at agreement unless its page says otherwise. Half precision
  is computed in float32, under autocast too; float64 stays float64. A gradient goes back in the
  student's own precision: float16 ends at 65,504, and what is beyond is infinite there, which a
  gradient scaler sees and skips.
* **Finite or refused.** What is let in has a finite and right value and gradient. The rest is
  refused: a wrong kind of thing by a ``TypeError``; by a ``ValueError`` an empty batch, shapes or
  devices that do not fit, NaN, infinity, labels and options out of their range. A page lists under
  "Raises" only what is its own.
* **Ruled out.** Before a softmax, logits and scores may hold minus infinity. What both sides rule
  out counts nothing, as if it were cropped. Where a divergence would be infinite, a row has nothing
  left to choose from, or the number of classes is part of the formula (:func:`dist_loss`,
  :func:`deit_soft_loss`, sigmoids), the loss refuses.
* **Not twice.** Rows that are nowhere below 0 and sum to 1 have been through a softmax already:
  refused where logits or scores are expected. Rows of zeros with a one are taken for logits.
* **Softened, not dissolved.** A divergence of softened probabilities shrinks as 1/T² and its
  rounding does not. Where T² log C is above 2,000, as with 10 classes from T = 30 on and 32,000
  from T = 14 on, it is computed in float64, and comes back in the usual precision; where it is
  above some 10¹², with T of half a million, that rounds too, and the loss refuses.
* **Not alone.** A relation is between samples: the losses of ``relations``, and the correlation
  over the batch in :func:`dist_loss`, refuse a batch of one. :func:`crd_loss` has others in memory.
* **Masks** are True where a token counts. The others are as if cropped, whatever they hold, NaN
  too, and their gradient is 0.
* **Classes last.** A softmax goes over the last dimension, all others are rows. Logits of images,
  (B, C, H, W), come as ``logits.movedim(1, -1).flatten(0, -2)``, their labels (B, H, W) as
  ``labels.flatten()``. Four dimensions are taken only where their strides show that movedim, and
  that no dimension of size 1 hides it.
* **Channels second.** Features are (B, C, *spatial). Tokens (B, N, C) and images (B, H, W, C) come
  by :func:`kdlearn.losses.maps.channels_first`, on both sides. Where student and teacher differ in
  size, the other layouts are seen and refused; where their shapes are equal, no check can tell.
* **Speed.** ``torch.compile(loss, fullgraph=True)`` works. Values are then not looked at, nor where
  the environment says ``KDLEARN_CHECKS=0`` when kdlearn is imported: kinds and shapes still are.

"Official code" in a source is the authors' repository; a factor named there turns one number into
the other.
"""

from kdlearn.losses.attention import (
    attention_transfer_loss,
    flip_symmetry_loss,
    gradient_attention_loss,
)
from kdlearn.losses.estimators import sampled_reverse_kl
from kdlearn.losses.features import (
    MGDLoss,
    VIDLoss,
    activation_boundary_loss,
    factor_transfer_loss,
    fsp_loss,
    hcl_loss,
    hint_loss,
    nst_loss,
)
from kdlearn.losses.language import (
    cross_entropy,
    forward_kl,
    generalized_jsd,
    linear_distillation_loss,
    reverse_kl,
    sampled_kl,
    sequence_reverse_kl,
    skew_kl,
    top_k_kl,
    total_variation,
    uld_loss,
)
from kdlearn.losses.logits import (
    binary_distillation_loss,
    deit_hard_loss,
    deit_soft_loss,
    dist_loss,
    distillation_loss,
    dkd_loss,
    logit_mse_loss,
    multi_label_distillation_loss,
    nontarget_class_loss,
    soft_cross_entropy,
    soft_target_loss,
    standardize_logits,
    target_class_loss,
)
from kdlearn.losses.relations import (
    contrastive_loss,
    correlation_congruence_loss,
    crd_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)
from kdlearn.losses.transformers import (
    attention_distribution_loss,
    attention_score_loss,
    hidden_state_loss,
    layer_map,
    relation_loss,
    vit_attention_loss,
)

__all__ = [
    "MGDLoss",
    "VIDLoss",
    "activation_boundary_loss",
    "attention_distribution_loss",
    "attention_score_loss",
    "attention_transfer_loss",
    "binary_distillation_loss",
    "contrastive_loss",
    "correlation_congruence_loss",
    "crd_loss",
    "cross_entropy",
    "deit_hard_loss",
    "deit_soft_loss",
    "dist_loss",
    "distillation_loss",
    "dkd_loss",
    "factor_transfer_loss",
    "flip_symmetry_loss",
    "forward_kl",
    "fsp_loss",
    "generalized_jsd",
    "gradient_attention_loss",
    "hcl_loss",
    "hidden_state_loss",
    "hint_loss",
    "layer_map",
    "linear_distillation_loss",
    "logit_mse_loss",
    "multi_label_distillation_loss",
    "nontarget_class_loss",
    "nst_loss",
    "pkt_loss",
    "relation_loss",
    "reverse_kl",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "sampled_kl",
    "sampled_reverse_kl",
    "sequence_reverse_kl",
    "similarity_preserving_loss",
    "skew_kl",
    "soft_cross_entropy",
    "soft_target_loss",
    "standardize_logits",
    "target_class_loss",
    "top_k_kl",
    "total_variation",
    "uld_loss",
    "vit_attention_loss",
]
