"""Standard streams that can always be written: closed ones, ones that nobody reads any more, ones of few characters."""

import codecs
import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["make_writable"]

# The reader of a pipe or socket has gone, or the terminal was closed.
_NOBODY_READS = (errno.EPIPE, errno.ECONNRESET, errno.EIO)


def make_writable() -> None:
    """Make the standard streams of this process such that writing to them never fails.

    What a command does is worth more than what it prints: it goes on without a reader. A character that the stream's
    encoding does not have is replaced. Streams that somebody has put in their place, as tests do, are left alone.
    """
    _open_closed_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _writable(sys.stdout, sys.__stdout__)
    sys.stderr = _writable(sys.stderr, sys.__stderr__)


def _open_closed_descriptors() -> None:
    """Otherwise the next file that is opened gets the number, and in it what C libraries and child processes print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            os.set_inheritable(number, True)
            if null != number:
                os.close(null)


def _writable(stream: TextIO | None, original: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors="replace")
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    return _Text(
        io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace" if stream.errors in ("strict", "surrogateescape") else stream.errors,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Text(io.TextIOWrapper):
    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding; click takes ASCII for a mistake, and would write UTF-8 past this stream."""
        name = super().encoding
        return "no more than ascii" if codecs.lookup(name).name == "ascii" else name


class _Output(io.FileIO):
    """A descriptor whose faults cost what was to be written, and nothing else."""

    _told = False

    def write(self, data: "io._Buffer", /) -> int:  # type: ignore[name-defined]
        size = memoryview(data).nbytes
        try:
            # A descriptor that does not block takes nothing while its reader is slow.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self._lose(error)
            return size
        return written

    def _lose(self, error: OSError) -> None:
        if error.errno in _NOBODY_READS:
            # Nobody will read what child processes print either.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
        elif not self._told and self.fileno() != 2:
            self._told = True
            print(f"Standard output cannot be written: {error.strerror}. The command goes on.", file=sys.stderr)
