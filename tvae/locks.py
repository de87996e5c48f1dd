"""Locks on files, on file systems that have them and on those that have not."""

import errno
import fcntl

__all__ = ["lock"]

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN)


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder, where its file system has locks; closing the descriptor gives the lock back.

    Some network and cluster file systems have none, and each answers in its own way (ENOSYS, ENOTSUP, ENOLCK, EINVAL).
    Only one answer means that somebody else holds the lock.

    Args:
        descriptor: of the open file or folder.
        wait: until whoever holds the lock gives it back.

    Returns:
        Whether the lock is held now; False where there are no locks.

    Raises:
        BlockingIOError: if another holds it, unless `wait`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            raise BlockingIOError(error.errno, "another process holds the lock") from error
        return False
    return True
