"""`mlflow server` on the store of a folder, which can be killed and started again."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from desk import Desk, free_port
from halted import epochs_logged
from patience import until


class Server:
    """A server with proxied artifacts, at one address for its whole life."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._desk = Desk(folder)

    def start(self) -> None:
        words = ("mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port))
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self._desk.folder,
            env=self._desk.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        until(self._answers, self._process)

    def signal(self, number: signal.Signals) -> None:
        """Signal the server and its worker; one that is killed answers no more."""
        os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()
            until(lambda: not self._answers())

    def epochs(self) -> int:
        """How many epochs its store holds, whether it answers or not."""
        return epochs_logged(self._desk.folder)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False
