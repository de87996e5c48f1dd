"""Commands that stop where a test wants them, so that a fault can come at just that moment.

The product has no place for this: the process patches itself before the entry point begins.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
from desk import Desk, Forked
from patience import PATIENCE_SECONDS, Command, until
from registry_store import tracking_in

from tvae.tracking.store import connect

HALT = """
import time
from pathlib import Path

def halt():
    Path("halted").touch()
    # Not signal.pause(): a signal that comes right before it would not end it.
    while Path("halted").exists():
        time.sleep(0.05)
"""


def start(desk: Desk, fault: str, *words: str, **environment: str) -> Forked:
    """Start a command with a fault, in which `halt()` awaits a signal or `go_on`."""
    return desk.fork(*words, fault=HALT + fault, **environment)


def until_halted(desk: Desk, process: Command) -> None:
    """Await the place where a command halts."""
    until((desk.folder / "halted").exists, process)


def go_on(desk: Desk) -> None:
    """Let a command that has halted go on."""
    (desk.folder / "halted").unlink()


def fell(desk: Desk, process: Command, number: int, send: Callable[[int, int], None] = os.kill) -> tuple[int, str, str]:
    """Await the place where a command halts, send it a signal, and return what it came to."""
    until_halted(desk, process)
    try:
        send(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        go_on(desk)
    return process.returncode, out, err


def count(folder: Path, query: str) -> int:
    """Count in the store of a folder, past MLflow, which would otherwise migrate what another process is making.

    What cannot be read yet counts 0: wait for something to be there, not for nothing to be left.
    """
    try:
        with closing(sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True)) as database:
            return int(database.execute(f"SELECT count(*) FROM {query}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def epochs_logged(folder: Path) -> int:
    """How many epochs the store of a folder holds."""
    return count(folder, "metrics WHERE key = 'loss'")


def begin_next_command(desk: Desk) -> None:
    """Do what every command does first: make the store ready."""
    with tracking_in(desk.folder):
        mlflow.set_tracking_uri(desk.uri)
        connect()
