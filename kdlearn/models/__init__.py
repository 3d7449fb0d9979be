"""Small networks with readable module names, so that a layer can be tapped by its path."""

from kdlearn.models.copying import copy_matching_weights
from kdlearn.models.encoder import TinyEncoder
from kdlearn.models.linear_attention import linearized
from kdlearn.models.recurrent import RecurrentLM
from kdlearn.models.seq2seq import Seq2Seq
from kdlearn.models.small_cnn import SmallCNN
from kdlearn.models.table import TableLM
from kdlearn.models.transformer import TinyTransformer
from kdlearn.models.vit import TinyViT
from kdlearn.models.wrn import SlimWRN

__all__ = [
    "RecurrentLM",
    "Seq2Seq",
    "SlimWRN",
    "SmallCNN",
    "TableLM",
    "TinyEncoder",
    "TinyTransformer",
    "TinyViT",
    "copy_matching_weights",
    "linearized",
]
