"""Refusing a file: what is common to everything that reads files of unknown origin."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from tvae.errors import CheckpointError

__all__ = ["RefusedError", "cut", "open_regular", "os_reason", "quote", "refusing", "require_finite_weights"]

# A refusal quotes what it found, and a hostile file can hold a megabyte there.
_LONGEST_QUOTE = 400


class RefusedError(Exception):
    """What is wrong with a file, where its path is not known."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into a `CheckpointError` that names it.

    Args:
        path: the file, as the user gave it.

    Raises:
        CheckpointError: for a `RefusedError`, and for what the operating system says of the path.
    """
    try:
        yield
    except RefusedError as refused:
        raise CheckpointError(f"{path}: {refused}") from None
    # A path with a NUL in it is a ValueError.
    except (OSError, ValueError) as error:
        text = f"{path}: the file must be readable; found: {os_reason(error)}."
        if path.parts[:1] in (("runs:",), ("models:",)):
            text += " Of an address, load the .safetensors that mlflow.artifacts.download_artifacts(address) brings."
        raise CheckpointError(text) from error


def os_reason(error: Exception) -> str:
    """Return what the operating system says, without the path that the reader already has."""
    return str(getattr(error, "strerror", None) or error)


def open_regular(path: Path, max_bytes: int) -> io.BufferedReader:
    """Open a file for reading, if it is one, is not empty and is not too large.

    Args:
        path: the file.
        max_bytes: the largest size to accept.

    Raises:
        RefusedError: if it is a folder, FIFO, socket or device, is empty, or is too large.
        OSError: if it is missing or not readable.
    """
    # Opening a FIFO would wait for a writer, and opening a device can have effects of its own.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise RefusedError(f"This must be a regular file; found {kinds.get(stat.S_IFMT(mode), 'a device')}.")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    size = os.fstat(descriptor).st_size
    if 0 < size <= max_bytes:
        return open(descriptor, "rb")
    os.close(descriptor)
    if size == 0:
        raise RefusedError("The file must hold a model; it is empty.")
    raise RefusedError(f"The file must have at most {max_bytes} bytes; it has {size}.")


def require_finite_weights(name: str, tensor: Tensor) -> None:
    """Refuse a tensor with NaN or infinity in it.

    Args:
        name: how to call it.
        tensor: any shape.

    Raises:
        RefusedError: says how many values are not finite.
    """
    finite = tensor.isfinite()
    if not bool(finite.all()):
        raise RefusedError(
            f"Every weight must be finite; `{name}` has {int((~finite).sum())} of {tensor.numel()} that are not."
        )


def quote(value: object) -> str:
    """Return `repr(value)`, cut to a readable length."""
    try:
        return cut(repr(value))
    # An integer of more than 4,300 digits, or lists in lists in lists.
    except (ValueError, RecursionError):
        return f"a very long {type(value).__name__}"


def cut(text: str) -> str:
    """Return a text, cut to a readable length."""
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
