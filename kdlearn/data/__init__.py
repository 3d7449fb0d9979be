"""Small data sets that need no download (CIFAR alone does); batches, samples and views.

Everything is a tensor, and everything follows from a seed: the same call gives the same data, and
no global random state is read or touched.
"""

from kdlearn.data.augment import RandomAffine, RandomCropFlip, RandomShift
from kdlearn.data.batch import Batch
from kdlearn.data.cifar import cifar
from kdlearn.data.cluttered import cluttered_digits
from kdlearn.data.dates import Dates, written_dates
from kdlearn.data.digits import BaseDigits, base_digits
from kdlearn.data.dyck import dyck_language
from kdlearn.data.mnist1d import mnist1d
from kdlearn.data.mnist5k import mnist5k
from kdlearn.data.recall import Recall, associative_recall
from kdlearn.data.samples import Samples
from kdlearn.data.sequences import Sequences, reordering_task
from kdlearn.data.splits import Split, Splits, balanced_subset
from kdlearn.data.stdlib_text import python_docstrings
from kdlearn.data.tokenizers import Tokenizer, learn_pairs, shared_spans
from kdlearn.data.views import FixedCopies
from kdlearn.data.walk import shortest_walks
from kdlearn.data.warped import warped_digits

__all__ = [
    "BaseDigits",
    "Batch",
    "Dates",
    "FixedCopies",
    "RandomAffine",
    "RandomCropFlip",
    "RandomShift",
    "Recall",
    "Samples",
    "Sequences",
    "Split",
    "Splits",
    "Tokenizer",
    "associative_recall",
    "balanced_subset",
    "base_digits",
    "cifar",
    "cluttered_digits",
    "dyck_language",
    "learn_pairs",
    "mnist1d",
    "mnist5k",
    "python_docstrings",
    "reordering_task",
    "shared_spans",
    "shortest_walks",
    "warped_digits",
    "written_dates",
]
