"""Knowledge distillation and attention transfer in PyTorch, small enough to read.

What a first chapter needs can be imported from here; the rest has its rooms: `kdlearn.losses`,
`kdlearn.distill`, `kdlearn.training`, `kdlearn.store`, `kdlearn.measure`, `kdlearn.show`,
`kdlearn.data`, `kdlearn.models`.
"""

from kdlearn.distill import Distiller, Taps, label_term, layer_term, logit_term
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit

__all__ = [
    "Distiller",
    "Taps",
    "accuracy",
    "attention_transfer_loss",
    "fit",
    "label_term",
    "layer_term",
    "logit_term",
    "predict",
    "soft_target_loss",
]
__version__ = "1.0.0"
