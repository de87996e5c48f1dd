"""Replacing a file in one step: its readers see the old content or the new, also after a power cut or `kill -9`."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["replace"]


def replace(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks to a file, atomically and durably.

    The bytes go to a temporary file in the same folder, to the disk, and only then under the final name. A writer holds
    a lock on its temporary file for as long as it lives, so that the next one can tell what a killed writer left behind
    from what another is still writing, and removes the former.

    Args:
        path: where to write; a symbolic link is followed, and stays.
        chunks: the content, in order.

    Raises:
        OSError: if the content cannot be written; what stood at `path` is unchanged.
    """
    target = Path(os.path.realpath(path))
    # As root, `--out /dev/null` would otherwise put a plain file in the device's place.
    if target.exists() and not target.is_file():
        raise OSError("there is something here that is not a regular file")
    _remove_leftovers(target)
    temporary, descriptor = _create(target)
    try:
        with open(descriptor, "wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, target)
    except BaseException:  # a signal as well as an error leaves nothing half-written
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _create(target: Path) -> tuple[Path, int]:
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another writer may have taken the file for a leftover before it was locked.
            if os.fstat(descriptor).st_nlink:
                return temporary, descriptor
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    for name in os.listdir(target.parent):
        if name.startswith(f".{target.name}.") and name.endswith(".tmp"):
            with suppress(OSError):
                _remove_if_abandoned(target.with_name(name))


def _remove_if_abandoned(temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
