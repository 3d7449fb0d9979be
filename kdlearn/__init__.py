"""Knowledge distillation and attention transfer in PyTorch, small enough to read."""

__version__ = "0.1.0"
