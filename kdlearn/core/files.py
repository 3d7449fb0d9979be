"""Files that are whole or not there: atomic writes, digests, locks, and why a write failed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.

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
    """Return in a few words why something failed.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory"))
        'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Let a ``with`` block write a file that is whole or not there at all.

    Inside, write to the path that is given: another name in the same folder, which is flushed and
    renamed at the end of the block, and removed after an error. What stood there before stays
    until the new file is complete.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder, "a.txt")) as partial:
        ...         _ = partial.write_text("all of it")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    partial = path.with_name(f"{path.name}{PARTIAL}-{os.getpid()}")
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed writers left half written in a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt.partial-1").write_text("half")
        ...     sweep(Path(folder))
        ...     list(Path(folder).iterdir())
        []
    """
    for left in folder.glob(f"*{PARTIAL}-*"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON with a digest of themselves on the last line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder, "a.json"), {"rows": 3})
        ...     read_json(Path(folder, "a.json"))
        {'rows': 3}
    """
    text = json.dumps(value)
    with whole(path) as partial:
        partial.write_text(f"{text}\n{_checksum(text)}\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        ValueError: the file is not what was written.
        OSError: it cannot be read.
    """
    text, _, rest = path.read_text(encoding="utf-8").partition("\n")
    if rest.strip() != _checksum(text):
        raise ValueError("its content does not fit its checksum")
    return json.loads(text)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_held: set[Any] = set()


def _let_go() -> None:
    """Close in a forked process what its parent holds: a lock lasts while a copy is open."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for a ``with`` block.

    The lock dies with the process that holds it, also when that is killed and processes that it
    forked (workers of a loader) outlive it. Systems without ``fcntl`` (Windows) have none.

    Raises:
        BlockingIOError: another process is at work in the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     Path(folder, ".lock").exists()
        True
    """
    with (folder / ".lock").open("w") as file:
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:
            yield
            return
        flock(file, LOCK_EX | LOCK_NB)
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
