"""A model on a real server, as `mlflow models serve` starts it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["HOST", "Server", "serve"]

HOST = "127.0.0.1"
START_SECONDS = 60


class Server(NamedTuple):
    """A server that is up.

    Attributes:
        port: where it listens, on `HOST`.
        session: the session that its processes are in: the command, and the server proper that it has started.
    """

    port: int
    session: int

    def resident_bytes(self) -> int:
        """Return the memory that its processes hold; pages that they share are counted for each."""
        return sum(self.resident_bytes_of_each())

    def resident_bytes_of_each(self) -> list[int]:
        """Return the memory that each of its processes holds, the server proper first: it is the younger."""
        processes = [process for process in Path("/proc").glob("[0-9]*") if self._has(process)]
        return [_resident_bytes(process) for process in sorted(processes, key=lambda p: -int(p.name))]

    def _has(self, process: Path) -> bool:
        try:
            return os.getsid(int(process.name)) == self.session
        except ProcessLookupError:
            return False


def _resident_bytes(process: Path) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@contextmanager
def serve(model: Path) -> Iterator[Server]:
    """Serve a model for as long as the context lasts."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    # mlflow starts `uvicorn` by name; the one beside this Python is meant.
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [*command, "-h", HOST, "-p", str(port)],
            cwd=model.parent,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if not is_up(server, port):
                log.seek(0)
                raise RuntimeError(f"The server must answer within {START_SECONDS} s; it said: {log.read().decode()}")
            yield Server(port, server.pid)
        finally:
            # The command is the parent of the server proper; both are in the session.
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def is_up(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a server answers, and return whether it does."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), closing(http.client.HTTPConnection(HOST, port, timeout=1)) as connection:
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.1)
    return False
