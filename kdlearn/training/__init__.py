"""The training loop, and what it needs: data, views, history, engine, checkpoints."""

from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit
from kdlearn.training.history import History

__all__ = ["CheckpointError", "Checkpoints", "Engine", "History", "fit"]
