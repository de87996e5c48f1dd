"""Who writes a run, whether it still lives, and what becomes of a run whose process does not."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from registry_store import tracking_in

from tvae.registry.lock import locked
from tvae.tracking.failure import UNADOPTED_MINUTES, close_ended
from tvae.tracking.process import PROCESS, own_process, process_state

PROJECT = Path(__file__).parent.parent
OWN = "import time; from tvae.tracking.process import own_process; print(own_process(), flush=True); time.sleep(600)"


def changed(**fields: str) -> str:
    """This process, but for some fields."""
    names = ("host", "number", "place", "boot", "began")
    return " ".join((dict(zip(names, own_process().split(" "), strict=True)) | fields).values())


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process, and what it says of itself."""
    process = subprocess.Popen([sys.executable, "-c", OWN], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_this_process_lives() -> None:
    assert process_state(own_process()) == "alive"


@pytest.mark.integration
def test_a_process_lives_until_it_is_killed(other: tuple[subprocess.Popen[str], str]) -> None:
    process, owner = other
    assert process_state(owner) == "alive"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for by its parent
    assert process_state(owner) == "ended"
    process.wait()
    assert process_state(owner) == "ended"


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"host": "elsewhere"}, "unknown"),
        ({"place": "another"}, "unknown"),
        ({"boot": "before"}, "ended"),
        ({"began": "1"}, "ended"),
        ({"number": "4194305"}, "ended"),
        ({"number": "9" * 30}, "ended"),
    ],
    ids=[
        "another host",
        "a container of the name",
        "started again",
        "a number used again",
        "gone",
        "no number of a process",
    ],
)
def test_a_process_is_ended_only_where_it_can_be_seen(fields: dict[str, str], state: str) -> None:
    assert process_state(changed(**fields)) == state


@pytest.mark.parametrize("text", ["", "host 1", "host x y z w", "a b c d e f"])
def test_what_is_no_process_is_unknown(text: str) -> None:
    assert process_state(text) == "unknown"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with tracking_in(tmp_path_factory.mktemp("store")) as client:
        yield client


def status_after(client: MlflowClient, minutes: float = 0, **tags: str) -> tuple[str, str]:
    """The status and the description of a run that was RUNNING, after the next command began."""
    tags = {name.replace("__", "."): value for name, value in tags.items()}
    made = client.create_run("0", tags=tags, start_time=int((time.time() - 60 * minutes) * 1000))
    close_ended(client)
    run = client.get_run(made.info.run_id)
    return run.info.status, run.data.tags.get("mlflow.note.content", "")


def test_a_run_whose_process_ended_is_failed_with_the_reason(client: MlflowClient) -> None:
    status, note = status_after(client, tvae__process=changed(number="4194305"), stage="finetune")
    assert status == "FAILED"
    assert note.startswith("**Failed**: its process ended without a word (pid 4194305, host ")
    assert "start the command again" in note


def test_a_sweep_whose_process_ended_says_how_to_go_on(client: MlflowClient) -> None:
    _, note = status_after(client, tvae__process=changed(began="1"), stage="sweep")
    assert "mlflow run . -e sweep -P resume=" in note


@pytest.mark.parametrize(
    "fields", [{}, {"host": "elsewhere"}, {"place": "another"}], ids=["alive", "host", "container"]
)
def test_a_run_whose_process_may_live_is_not_touched(client: MlflowClient, fields: dict[str, str]) -> None:
    assert status_after(client, 9999, tvae__process=changed(**fields)) == ("RUNNING", "")


def test_a_run_that_mlflow_made_for_this_project_and_nobody_adopted_is_failed(client: MlflowClient) -> None:
    status, note = status_after(client, UNADOPTED_MINUTES + 1, mlflow__source__name=PROJECT.as_uri())
    assert status == "FAILED"
    assert "no command began. Run it again." in note


@pytest.mark.parametrize(
    ("minutes", "source"),
    [(UNADOPTED_MINUTES - 1, PROJECT.as_uri()), (9999, "file:///another/project"), (-9999, PROJECT.as_uri())],
    ids=["may still be made ready", "another project", "made after a clock was set back"],
)
def test_a_run_that_somebody_may_still_adopt_is_not_touched(client: MlflowClient, minutes: float, source: str) -> None:
    assert status_after(client, minutes, mlflow__source__name=source)[0] == "RUNNING"


def test_all_are_closed_however_many(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvae.tracking.search._PAGE", 2)
    made = [client.create_run("0", tags={PROCESS: changed(began="1")}) for _ in range(5)]
    close_ended(client)
    assert {client.get_run(run.info.run_id).info.status for run in made} == {"FAILED"}


def test_the_lock_of_a_process_that_ended_is_free_at_once(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_registered_model("waited-for")
    client.set_registered_model_tag("waited-for", "tvae.turn.00", f"1.0 {changed(began='1')}")
    monkeypatch.setattr("tvae.registry.lock.ABANDONED_SECONDS", float("inf"))
    with locked(client, "waited-for"):
        assert "tvae.turn.00" not in client.get_registered_model("waited-for").tags
