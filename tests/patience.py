"""How a test waits for another process: as long as it takes, with a bound for a machine on which much else goes on."""

import time
from collections.abc import Callable
from typing import Any, Protocol

PATIENCE_SECONDS = 600


class Command(Protocol):
    """A command at work: a fork, or a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int: ...
    def poll(self) -> int | None: ...
    def communicate(self, *, timeout: float) -> tuple[Any, Any]: ...


def until(condition: Callable[[], bool], process: Command | None = None, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; a process that ends before it comes fails the test with what it said."""
    deadline = time.monotonic() + seconds
    while True:
        # Asked first: what a process did before it ended counts.
        ended = process is not None and process.poll() is not None
        if condition():
            return
        assert not ended, process is None or process.communicate(timeout=PATIENCE_SECONDS)
        assert time.monotonic() < deadline
        time.sleep(0.05)
