"""Replacing a file in one step: its readers see the old content or the new, also after a power cut or `kill -9`."""

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tvae.locks import lock

__all__ = ["replace"]

# What a file system answers that cannot sync: nothing is wrong with the file.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_ATTEMPTS = 20


def replace(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks to a file, atomically; and durably, where the file system can.

    The bytes go to a temporary file in the same folder, to the disk, and only then under the final name. A writer holds
    a lock on its temporary file for as long as it lives, so that the next one can tell what a killed writer left behind
    from what another is still writing, and removes the former. Where the file system has no locks, nothing is removed.

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
    with suppress(OSError):  # a folder may be writable and not readable
        _remove_leftovers(target)
    temporary, descriptor = _create(target)
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.writelines(chunks)
        _sync(descriptor)
        os.replace(temporary, target)
    except BaseException:  # a signal as well as an error leaves nothing half-written
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        with suppress(OSError):  # the content is on the disk by then, or the error that matters is on its way
            os.close(descriptor)
    _sync_folder(target.parent)


def _create(target: Path) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        # Another writer may take the file for a leftover before it is locked: it holds the lock, or has removed it.
        with suppress(BlockingIOError):
            lock(descriptor)
            if temporary.exists():
                return temporary, descriptor
        os.close(descriptor)
        with suppress(OSError):
            temporary.unlink()
    raise OSError(f"{_ATTEMPTS} new files were each locked or removed by another process at once")


def _remove_leftovers(target: Path) -> None:
    for name in os.listdir(target.parent):
        if name.startswith(f".{target.name}.") and name.endswith(".tmp"):
            with suppress(OSError):
                _remove_if_abandoned(target.with_name(name))


def _remove_if_abandoned(temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and lock(descriptor):
            temporary.unlink()
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, if the file system can: the new content is in its place whatever it answers."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
