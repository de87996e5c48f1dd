"""Whatever its standard streams are, a command does its work and says what it can."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from desk import ROOT, Desk
from exact_model import exact_model

from tvae.checkpoint import save
from tvae.model import COMPONENTS

COMMAND = """
import logging, os, sys
import click
from tvae.cli.command import command
from tvae.workflows.messages import Progress

@command
@click.option("--lines", type=int, default=3)
def main(lines):
    '''Poincaré …'''
    opened = os.open("opened", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with Progress("training", lines) as progress:
        for number in range(lines):
            logging.getLogger("tvae").info(f"line {number}: Poincaré … 3⁹ ✓ \\udce9")
            progress.event("an event …")
    print("an error é …", file=sys.stderr)
    sys.stdout.flush()
    os.system("echo from a child")
    open("done", "w").write(str(opened))

main()
"""


def run(folder: Path, shell: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a shell, where it stands as `$command`."""
    (folder / "command.py").write_text(COMMAND, encoding="utf-8")
    ours = os.environ | {"PYTHONPATH": str(ROOT), "command": f"{sys.executable} command.py"} | environment
    return subprocess.run(["bash", "-c", shell], cwd=folder, env=ours, capture_output=True, timeout=60)


def start(folder: Path, lines: int, first: str = "", **options: Any) -> subprocess.Popen[bytes]:
    """Start the command itself, after a statement."""
    (folder / "command.py").write_text(f"{first}\n{COMMAND}", encoding="utf-8")
    words = [sys.executable, "command.py", "--lines", str(lines)]
    return subprocess.Popen(words, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)


def done(folder: Path) -> int:
    """The number of the first descriptor that the command opened, at whose end it came."""
    return int((folder / "done").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"PYTHONIOENCODING": "cp1252:strict"}, "cp1252"),
        ({"PYTHONIOENCODING": "koi8-r"}, "koi8-r"),
        ({"PYTHONIOENCODING": "utf-8"}, "utf-8"),
        ({"LC_ALL": "C"}, "utf-8"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value.values()),
)
def test_characters_that_cannot_be_written_are_replaced(
    tmp_path: Path, environment: dict[str, str], encoding: str
) -> None:
    found = run(tmp_path, "$command", **environment)
    assert found.returncode == 0, found.stderr
    line = "line 0: Poincaré … 3⁹ ✓ \udce9".encode(encoding, "replace").decode(encoding)
    out = found.stdout.decode(encoding).splitlines()
    assert (out[0], len(out)) == (line, 7)
    assert found.stderr.decode(encoding).startswith("an error ")


@pytest.mark.parametrize("words", ["--help", "--lines …"])
def test_help_and_mistakes_are_shown_in_few_characters_too(tmp_path: Path, words: str) -> None:
    found = run(tmp_path, f"$command {words}", PYTHONIOENCODING="ascii")
    assert found.returncode == (0 if words == "--help" else 2)
    assert b"Poincar? ?" in found.stdout or rb"'\u2026' is not a valid integer" in found.stderr
    assert b"Traceback" not in found.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&- >&-"])
def test_closed_streams_are_no_fault_and_no_file_takes_their_place(tmp_path: Path, closed: str) -> None:
    found = run(tmp_path, f"$command {closed}")
    assert found.returncode == 0, found.stderr
    assert done(tmp_path) > 2
    assert not (tmp_path / "opened").read_bytes(), "what a child prints must not get into a file of the command's"
    assert (b"line 2" in found.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert (b"an error" in found.stderr) == ("2>&-" not in closed)


@pytest.mark.parametrize(
    "reader", ["| head -1", "2>&1 | head -1", "| true", "2>&1 >/dev/null | true", "> >(exit)", "--help | true"]
)
def test_a_reader_that_leaves_ends_nothing_and_is_not_told(tmp_path: Path, reader: str) -> None:
    found = run(tmp_path, f"set -o pipefail; $command --lines 2000 {reader}")
    assert found.returncode == 0
    assert found.stderr.strip() in (b"", "an error é …".encode())
    assert "--help" in reader or done(tmp_path)


@pytest.mark.parametrize(("place", "why"), [(">/dev/full", "No space left on device"), ("1</dev/null", "Bad file des")])
def test_a_place_that_takes_nothing_is_told_once(tmp_path: Path, place: str, why: str) -> None:
    found = run(tmp_path, f"$command {place}")
    assert found.returncode == 0
    assert found.stderr.decode().count(f"Standard output cannot be written: {why}") == 1
    assert done(tmp_path)


def test_nothing_can_be_written_anywhere(tmp_path: Path) -> None:
    assert run(tmp_path, "$command >/dev/full 2>/dev/full").returncode == 0
    assert done(tmp_path)


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    process = start(tmp_path, 3000, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    time.sleep(1.0)  # the pipe fills up
    with open(ours, "rb") as stream:
        assert len(stream.readlines()) == 6001
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.decode()) == (0, "an error é …\n")


def test_a_terminal_that_is_closed_ends_nothing_where_its_signal_is_ignored(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = start(tmp_path, 2000, ignored, **streams, start_new_session=True)
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert done(tmp_path)


@pytest.mark.fault
@pytest.mark.integration
@pytest.mark.parametrize(
    ("shell", "printed"),
    [
        ("$command <&- >&- 2>&-", ""),
        ("set -o pipefail; PYTHONIOENCODING=latin-1 $command 2>&1 | head -1", "c.safetensors\n"),
        ("PYTHONIOENCODING=ascii $command 2>&1 | grep ^verif", "verification passed\n"),
    ],
    ids=["all closed", "head", "ascii"],
)
def test_a_verification_is_logged_whatever_its_streams_are(desk: Desk, shell: str, printed: str) -> None:
    save(desk.folder / "c.safetensors", exact_model(3), trained=COMPONENTS, training={}, metrics={})
    command = f"{sys.executable} -m entry_points.verify --checkpoint c.safetensors"
    process = desk.launch("bash", "-c", shell, command=command)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (0, printed, "")
    (run,) = desk.runs()
    assert (run.info.status, run.data.tags["verified"]) == ("FINISHED", "true")
