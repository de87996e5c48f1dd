"""Aides: processes that wait for their task, do it, and never outlive whoever started them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exact_model import exact_model

from tvae.aides import NICENESS, RELOADS, Aide, AideError, aides
from tvae.checkpoint import save, verify
from tvae.drawing import Drawing, draw
from tvae.metrics import evaluate
from tvae.model import COMPONENTS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.integration


def test_a_file_written_after_the_aides_started_is_reloaded_by_them(tmp_path: Path) -> None:
    path, model = tmp_path / "checkpoint.safetensors", exact_model()
    with aides() as ready:
        save(path, model, trained=COMPONENTS, training={}, metrics=evaluate(model).metrics())
        verdict = verify(path, reloads=RELOADS, aides=ready.reload)
    assert (verdict.checks[1].name, verdict.checks[1].value, verdict.passed) == ("reloads", 1, True)


def test_an_aide_that_was_killed_while_it_waited_fails_the_verification(tmp_path: Path) -> None:
    path, model = tmp_path / "checkpoint.safetensors", exact_model()
    save(path, model, trained=COMPONENTS, training={}, metrics={})
    with aides() as ready:
        ready.reload[1].dismiss()
        verdict = verify(path, reloads=RELOADS, aides=ready.reload)
    assert "reloads" in verdict.failures


def test_figures_are_drawn_under_their_names(tmp_path: Path) -> None:
    evaluation = evaluate(exact_model())
    draw(
        [Drawing("radius_by_valuation", (evaluation,), {}), Drawing("radius_by_valuation", (evaluation,), {}, "again")],
        tmp_path,
        Aide.to_draw(),
    )
    names = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    assert names == {"radius_by_valuation.png": b"\x89PNG", "again.png": b"\x89PNG"}


def test_a_figure_that_cannot_be_drawn_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(AideError, match="`points` must"):
        draw([Drawing("poincare_disk", ([[2.0, 0.0]],), {"curvature": 1.0})], tmp_path, Aide.to_draw())


def test_an_aide_that_does_not_answer_is_ended() -> None:
    aide = Aide("http.server")
    with pytest.raises(AideError, match=r"no answer within 0\.2 s"):
        aide.ask(b"", seconds=0.2)
    assert aide._process.returncode is not None


def test_aides_end_when_the_command_that_started_them_is_killed() -> None:
    code = (
        "import os; from tvae.aides import Aide\n"
        "print(*(aide._process.pid for aide in (Aide.to_reload(), Aide.to_draw())), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    left = done.stdout.split()
    assert len(left) == 2
    deadline = time.monotonic() + 120
    while any(map(is_at_work, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_at_work, left))


def is_at_work(pid: str) -> bool:
    """Whether a process is there and has not ended; one that has ended has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_aide_does_not_take_time_from_the_training() -> None:
    with aides() as ready:
        found = [os.getpriority(os.PRIO_PROCESS, aide._process.pid) for aide in (*ready.reload, ready.draw)]
    assert found == [os.getpriority(os.PRIO_PROCESS, 0) + NICENESS] * 3
