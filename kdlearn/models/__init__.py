"""Small networks with readable module names, so that a layer can be tapped by its path."""

from kdlearn.models.copying import copy_matching_weights
from kdlearn.models.seq2seq import Seq2Seq
from kdlearn.models.small_cnn import SmallCNN
from kdlearn.models.transformer import TinyTransformer
from kdlearn.models.wrn import SlimWRN

__all__ = ["Seq2Seq", "SlimWRN", "SmallCNN", "TinyTransformer", "copy_matching_weights"]
