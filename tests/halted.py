"""Commands that stop where a test wants them, so that a fault can come at just that moment.

The product has no place for this: the process patches itself before the entry point begins, and is the real one from
then on.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import mlflow
from desk import Desk
from registry_store import tracking_in

from tvae.tracking.store import connect

# A bound, for a machine on which much else is at work.
PATIENCE_SECONDS = 400

_START = """
import runpy, signal, sys, time
from pathlib import Path

def halt():
    Path("halted").touch()
    # Not signal.pause(): a signal that comes right before it would not end it.
    while True:
        time.sleep(0.05)

# Where the tests run in the background of a shell, Ctrl-C is ignored, also by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
{fault}
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def start(desk: Desk, fault: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own; it brings a fault, in which `halt()` waits for a signal."""
    return desk.launch(sys.executable, "-c", _START.format(fault=fault), *words, apart=True, **environment)


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a condition; a process that ends before it comes fails the test with what it said."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def fell(desk: Desk, process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Await the place where a command halts, send it a signal, and return what it came to."""
    until((desk.folder / "halted").exists, process)
    (desk.folder / "halted").unlink()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def begin_next_command(desk: Desk) -> None:
    """Do what every command does first: make the store ready."""
    with tracking_in(desk.folder):
        mlflow.set_tracking_uri(desk.uri)
        connect()
