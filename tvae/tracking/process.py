"""Which process writes a run, so that another can tell whether it still lives.

A process that is killed cannot close its run. So every run carries who writes it from the moment it is made, and a
later command on the same machine sees that nobody does any more. A process is known by its host, its number, and when
it began, counted since the machine was started: numbers are used again, and clocks are set.
"""

import hashlib
import os
import socket
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["PROCESS", "own_process", "process_state"]

PROCESS = "tvae.process"
"""The tag of a run that holds what `own_process` returned to its process."""


class _Process(NamedTuple):
    """A process.

    Attributes:
        host: name of the machine.
        number: of the process.
        place: what tells machines, and containers on them, of one name apart: numbers are compared within one only.
        boot: when the machine was started.
        began: when the process began, in ticks since then.
    """

    host: str
    number: str
    place: str
    boot: str
    began: str


def own_process() -> str:
    """Return this process, as the value of a tag."""
    number = str(os.getpid())
    return " ".join(_Process(socket.gethostname(), number, _place(), _boot(), _stat(number)[1]))


def process_state(owner: str) -> Literal["alive", "ended", "unknown"]:
    """Return what has become of a process.

    Args:
        owner: what `own_process` returned to it.

    Returns:
        `unknown` for a process of another machine or container, and for what is no process.
    """
    parts = owner.split(" ")
    if len(parts) != len(_Process._fields) or not parts[1].isdecimal():
        return "unknown"
    process = _Process(*parts)
    if (process.host, process.place) != (socket.gethostname(), _place()):
        return "unknown"
    if process.boot != _boot():
        return "ended"
    try:
        os.kill(int(process.number), 0)
    except (ProcessLookupError, OverflowError):
        return "ended"
    except PermissionError:
        pass  # another user's: it is there
    state, began = _stat(process.number)
    return "ended" if state == "Z" or began not in ("-", process.began) else "alive"


def _place() -> str:
    try:
        machine, namespace = _read("/etc/machine-id"), str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        machine, namespace = "-", "-"
    return hashlib.sha256(f"{machine} {namespace}".encode()).hexdigest()[:12]


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")[:8]


def _stat(number: str) -> tuple[str, str]:
    """Return the state of a process and when it began; `-` where the system does not tell."""
    # The name of a program, in parentheses, may hold anything: what is wanted stands behind it.
    fields = _read(f"/proc/{number}/stat").rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("-", "-")


def _read(path: str) -> str:
    try:
        # A process may have a name in any encoding.
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or "-"
    except OSError:
        return "-"
