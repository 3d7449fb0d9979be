"""Student, teacher and the terms between them: distiller, taps, projectors, attention layers."""

from kdlearn.distill.attention_layers import attention_layers
from kdlearn.distill.crd import CRDLoss, crd_term
from kdlearn.distill.distiller import DistillationLoss, Distiller
from kdlearn.distill.ensemble import Ensemble
from kdlearn.distill.outputs import Keep, Outputs, Want
from kdlearn.distill.projectors import ConvProjector, LinearProjector, Paraphraser
from kdlearn.distill.served import ServedTeacher
from kdlearn.distill.taps import Taps
from kdlearn.distill.teachers import LiveTeacher, TeacherOutputs
from kdlearn.distill.terms import (
    Term,
    label_cross_entropy,
    label_term,
    layer_term,
    logit_term,
    sparse_term,
)

__all__ = [
    "CRDLoss",
    "ConvProjector",
    "DistillationLoss",
    "Distiller",
    "Ensemble",
    "Keep",
    "LinearProjector",
    "LiveTeacher",
    "Outputs",
    "Paraphraser",
    "ServedTeacher",
    "Taps",
    "TeacherOutputs",
    "Term",
    "Want",
    "attention_layers",
    "crd_term",
    "label_cross_entropy",
    "label_term",
    "layer_term",
    "logit_term",
    "sparse_term",
]
