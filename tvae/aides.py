"""Processes that import what they need ahead, and wait for their one task: importing torch takes longer than the tasks.

A command starts them before its own imports, so that they are ready when its training ends. Each is an interpreter of
its own that has never seen a model. It reads its task from standard input to the end and answers on standard output; it
ends by itself when the command does, however that ends, since its input then ends too.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["RELOADS", "Aide", "AideError", "Aides", "aides"]

# Two fresh processes show whether loading leaves anything to chance; `verify` by itself starts more.
RELOADS = 2
# Below the command's own priority: they take the time that its training leaves, and do not make its threads wait.
NICENESS = 5
_RELOAD, _DRAW = "tvae.checkpoint.reload", "tvae.drawing"


class AideError(RuntimeError):
    """A task was not done; the text is the last line of what its process said, or why there is none."""


class Aide:
    """One process, for one task.

    Args:
        module: what it runs, of this package.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self, module: str) -> None:
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if hasattr(os, "setpriority"):
            lower = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
            os.setpriority(os.PRIO_PROCESS, self._process.pid, lower)

    @classmethod
    def to_reload(cls) -> "Aide":
        """Return one that loads a checkpoint, whose path is its task."""
        return cls(_RELOAD)

    @classmethod
    def to_draw(cls) -> "Aide":
        """Return one that draws figures; see `tvae.drawing`."""
        return cls(_DRAW)

    def ask(self, task: bytes, *, seconds: float | None = None) -> bytes:
        """Give it its task, and return its answer; this ends the process.

        Args:
            task: may be given once.
            seconds: how long to wait.

        Raises:
            AideError: if it failed, or did not answer in time.
        """
        try:
            answer, said = self._process.communicate(task, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise AideError(f"no answer within {error.timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise AideError(str(error)) from error
        finally:
            self.dismiss()
        if self._process.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines()
            raise AideError(lines[-1] if lines else f"exit code {self._process.returncode}")
        return answer

    def dismiss(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class Aides(NamedTuple):
    """Who helps with what one training leaves.

    Attributes:
        reload: one for each reload of its verification.
        draw: for its figures.
    """

    reload: tuple[Aide, ...]
    draw: Aide


@contextmanager
def aides() -> Iterator[Aides]:
    """Start the aides of one training, and end those that are left when the context ends.

    Raises:
        OSError: if one cannot be started.
    """
    with ExitStack() as stack:

        def started(aide: Aide) -> Aide:
            stack.callback(aide.dismiss)
            return aide

        yield Aides(
            tuple(started(Aide.to_reload()) for _ in range(RELOADS)),
            started(Aide.to_draw()),
        )
