"""Student, teacher and the terms between them: distiller, taps, projectors, attention layers."""

from kdlearn.distill.attention_layers import attention_layers
from kdlearn.distill.distiller import (
    DistillationLoss,
    Distiller,
    Term,
    label_term,
    layer_term,
    logit_term,
    sparse_term,
)
from kdlearn.distill.projectors import ConvProjector, LinearProjector, Paraphraser
from kdlearn.distill.taps import Taps
from kdlearn.distill.teachers import LiveTeacher, Outputs, TeacherOutputs

__all__ = [
    "ConvProjector",
    "DistillationLoss",
    "Distiller",
    "LinearProjector",
    "LiveTeacher",
    "Outputs",
    "Paraphraser",
    "Taps",
    "TeacherOutputs",
    "Term",
    "attention_layers",
    "label_term",
    "layer_term",
    "logit_term",
    "sparse_term",
]
