"""A fresh Python process that calls functions: an interpreter of its own, which has never seen a model.

What it is asked and what it answers go through a socket of their own. Its standard output leads nowhere: what a library
or a `sitecustomize` prints is no answer. It ends when whoever started it does, however that ends, because the socket is
then closed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

__all__ = ["FreshProcess", "ProcessError"]

P = ParamSpec("P")
T = TypeVar("T")


class ProcessError(RuntimeError):
    """A call was not answered; the text is what the call raised, or the last line that the process wrote."""


class FreshProcess:
    """One process, which does one call after another. It imports torch while its user does something else.

    Args:
        modules: to import ahead of the first call.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, *modules: str) -> None:
        self._connection, theirs = Pipe()
        # A file: a pipe that nobody reads would stop a process that says much, as under PYTHONVERBOSE.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._process = self._start(theirs, *modules)
        self._calls = ThreadPoolExecutor(1)

    def _start(self, theirs: Connection, *modules: str) -> "subprocess.Popen[bytes]":
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *modules],
            # A notebook's MPLBACKEND names a module that is not here.
            env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            pass_fds=[theirs.fileno()],
        )

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function of a module there, after those submitted before.

        Returns:
            What it will return; a `ProcessError` if it raised, or if the process has ended.
        """
        return self._calls.submit(self._call, function, args, kwargs)

    def _call(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        try:
            self._connection.send((function.__module__, function.__name__, args, kwargs))
            error, answer = self._connection.recv()
        except (EOFError, OSError) as ended:
            code = self._process.wait()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            raise ProcessError(lines[-1] if lines else f"it ended with exit code {code}") from ended
        if error is not None:
            raise ProcessError(error)
        return cast(T, answer)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._calls.shutdown(cancel_futures=True)
        self._connection.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """Be the process."""
    number, *modules = sys.argv[1:]
    for module in modules:
        # What cannot be imported fails the calls that need it, and no others.
        with suppress(Exception):
            import_module(module)
    with Connection(int(number)) as connection:
        answer(connection)


def answer(connection: Connection) -> None:
    """Answer calls until whoever makes them has closed the connection."""
    while True:
        try:
            module, name, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, getattr(import_module(module), name)(*args, **kwargs)))
        except Exception as error:
            connection.send((f"{type(error).__name__}: {error}", None))


if __name__ == "__main__":
    main()
