"""How a test waits for another process: as long as it takes, with a bound for a machine on which much else goes on."""

import subprocess
import time
from collections.abc import Callable

PATIENCE_SECONDS = 600


def until(
    condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, *, seconds: float = PATIENCE_SECONDS
) -> None:
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
