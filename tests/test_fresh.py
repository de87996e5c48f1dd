"""Fresh processes: they answer whatever else they write, and never outlive whoever started them."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import ROOT
from exact_model import exact_model
from patience import until

from tvae.checkpoint import save, verify
from tvae.checkpoint.verification import load_afresh
from tvae.fresh import FreshProcess, ProcessError
from tvae.metrics import evaluate
from tvae.model import COMPONENTS
from tvae.plots.draw import draw

pytestmark = pytest.mark.integration
START = FreshProcess._start


@pytest.fixture(autouse=True, scope="module")
def real_processes(forked_processes: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FreshProcess, "_start", START)
        yield


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path, model = tmp_path / "checkpoint.safetensors", exact_model()
    save(path, model, trained=COMPONENTS, training={}, metrics=evaluate(model).metrics())
    return path


def test_a_process_in_which_something_prints_answers_all_the_same(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint.parent / "sitecustomize.py").write_text("import os; os.write(1, b'{}' * 100_000); print('ready')\n")
    monkeypatch.setenv("PYTHONPATH", str(checkpoint.parent))
    monkeypatch.setenv("MKL_VERBOSE", "1")
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    # File and code are found from any folder.
    monkeypatch.chdir(checkpoint.parent)
    assert verify(checkpoint.name, reloads=1).passed


def test_a_process_does_one_call_after_another(tmp_path: Path, checkpoint: Path) -> None:
    with FreshProcess("tvae.checkpoint") as process:
        drawn = process.submit(draw, tmp_path / "a.png", "radius_by_valuation", evaluate(exact_model()))
        assert verify(checkpoint, loaded=process.submit(load_afresh, str(checkpoint))).passed
        drawn.result()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_call_raises_is_said_and_the_next_one_is_answered() -> None:
    with FreshProcess() as process:
        failing = process.submit(math.sqrt, -1.0)
        with pytest.raises(ProcessError, match="ValueError: math domain error"):
            failing.result()
        assert process.submit(math.sqrt, 4.0).result() == 2.0


def test_a_process_that_was_killed_fails_the_verification(checkpoint: Path) -> None:
    with FreshProcess() as process:
        process._process.kill()
        verdict = verify(checkpoint, loaded=process.submit(load_afresh, str(checkpoint)))
    assert verdict.failures == "reloads not computed (1 result in 2 processes)"


def test_a_module_that_cannot_be_imported_ahead_fails_no_call_that_does_not_need_it() -> None:
    with FreshProcess("no.such.module") as process:
        assert process.submit(math.sqrt, 4.0).result() == 2.0


def test_how_a_process_ended_is_told() -> None:
    with FreshProcess() as process, pytest.raises(ProcessError, match="it ended with exit code 3"):
        process.submit(os._exit, 3).result()


def test_the_last_words_of_a_process_are_told() -> None:
    with FreshProcess() as process, pytest.raises(ProcessError, match="not today"):
        process.submit(sys.exit, "not today").result()


def test_a_process_that_is_at_work_can_be_closed() -> None:
    with FreshProcess() as process:
        asleep = process.submit(time.sleep, 600)
    assert asleep.done()


def test_a_process_ends_when_whoever_started_it_is_killed() -> None:
    code = (
        "import os, time; from tvae.fresh import FreshProcess\n"
        "process = FreshProcess(); print(process._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    until(lambda: not is_at_work(done.stdout.strip()))


def is_at_work(pid: str) -> bool:
    """Whether a process is there and has not ended; one that has ended has no command line."""
    assert pid
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
