"""The training loop, and what it needs: data, views, history, engine, checkpoints."""

from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit
from kdlearn.training.generation import Written, generate
from kdlearn.training.history import History
from kdlearn.training.on_policy import OnPolicy, answer_mask, next_tokens
from kdlearn.training.optimizer import adamw
from kdlearn.training.speculation import speculate

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Engine",
    "History",
    "OnPolicy",
    "Written",
    "adamw",
    "answer_mask",
    "fit",
    "generate",
    "next_tokens",
    "speculate",
]
