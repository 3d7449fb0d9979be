"""Files that are whole or not there: digests, flushing, and why a write failed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def digest(path: Path) -> str:
    """Give the SHA-256 of a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_text("a")
        ...     digest(Path(folder, "a"))[:8]
        'ca978112'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; a rename before that could outlive the content.

    Example:
        >>> flush(Path("."))
    """
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder to flush it
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: BaseException) -> str:
    """Say in a few words why something failed.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory"))
        'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
