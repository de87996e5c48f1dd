"""A store that is lost: servers that go, hang or are slow, disks that are full, folders that cannot be written."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
from desk import ROOT, Desk, free_port
from halted import begin_next_command, go_on, start, until_halted
from mlflow_server import Server
from patience import PATIENCE_SECONDS, until

from tvae.checkpoint import FILE_NAME, read

pytestmark = [pytest.mark.fault, pytest.mark.integration]

TRAIN = ("entry_points.train", "--promote", "never", "--patience", "10000")
# MLflow's own settings; those of tvae would let the tests of servers that never come back last minutes.
HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
OUTAGE_SECONDS = 20


# Halts once the first epoch is logged; each is logged by itself.
AT_AN_EPOCH = """
from tvae.tracking.run import Run
from tvae.workflows import session
session._LOG_SECONDS = 0.0
def logging(self, records, offset=0, true=Run.log_epochs):
    true(self, records, offset)
    if "loss" in records[-1]:
        Run.log_epochs = true
        halt()
Run.log_epochs = logging
"""


class Way:
    """The way of one client to a server: it can be cut and opened again, and can be slow."""

    def __init__(self, server_port: int, seconds: float = 0.0) -> None:
        self._to, self._seconds, self.port = server_port, seconds, free_port()
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self._accept, args=(self._door,), daemon=True).start()

    def cut(self) -> None:
        """Refuse what comes, as a machine does on which no server runs, and end what goes on."""
        for end in (self._door, *self._connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._connections.clear()

    def _accept(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = door.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._connections += [near, far]
                if door.fileno() < 0:  # cut in the meantime
                    near.close()
                    far.close()
                    return
                Thread(target=self._pass, args=(near, far, 0.0), daemon=True).start()
                Thread(target=self._pass, args=(far, near, self._seconds), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, seconds: float) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                time.sleep(seconds)
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.signal(signal.SIGKILL)


@pytest.fixture
def client_desk(desk: Desk, running: Server) -> Desk:
    """A desk whose commands log to the server."""
    desk.uri = desk.environment["MLFLOW_TRACKING_URI"] = running.uri
    return desk


def run_of(desk: Desk, seed: int) -> tuple[str, str, dict[str, str]]:
    """The id, status and tags of the run with a seed."""
    (run,) = [run for run in desk.runs() if run.data.params.get("seed") == str(seed)]
    return run.info.run_id, run.info.status, run.data.tags


def steps(desk: Desk, seed: int) -> list[int]:
    """The epochs that the run with a seed holds."""
    return sorted(metric.step for metric in desk.client.get_metric_history(run_of(desk, seed)[0], "loss"))


@contextmanager
def opened(desk: Desk, server: Server, seconds: float = 0.0) -> Iterator[Way]:
    """A way from a desk to the server."""
    way = Way(server.port, seconds)
    way.open()
    desk.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{way.port}"
    yield way
    way.cut()


def test_a_server_that_is_gone_for_20_seconds_costs_nothing(client_desk: Desk, running: Server) -> None:
    desk = client_desk
    with opened(desk, running) as way:
        process = start(desk, AT_AN_EPOCH, *TRAIN, "--seed", "1", "--epochs", "10")
        until_halted(desk, process)
        way.cut()
        go_on(desk)
        time.sleep(OUTAGE_SECONDS)  # what is tested
        assert process.poll() is None
        way.open()
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert run_of(desk, 1)[1] == "FINISHED"
    assert steps(desk, 1) == list(range(1, 11))


def test_epochs_that_a_server_missed_are_logged_when_it_is_back(client_desk: Desk, running: Server) -> None:
    desk, before = client_desk, running.epochs()
    with opened(desk, running) as way:
        process = desk.start(*TRAIN, "--seed", "2", "--epochs", "60", **HASTY)
        until(lambda: running.epochs() > before, process)
        way.cut()
        assert process.stdout is not None
        told = process.stdout.readline() + process.stdout.readline()
        way.open()
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert "must be usable; found: no answer, " in told
    assert "Training goes on" in told
    assert process.returncode == 0, err
    assert run_of(desk, 2)[1] == "FINISHED"
    assert steps(desk, 2) == list(range(1, 61))


@pytest.mark.parametrize(
    ("seed", "number", "found"),
    [
        (3, signal.SIGKILL, "no answer, [Errno 111] Connection refused"),
        (4, signal.SIGSTOP, "no answer, timed out"),
    ],
    ids=["down", "hangs"],
)
def test_a_server_that_never_comes_back_does_not_cost_the_training(
    client_desk: Desk, running: Server, seed: int, number: signal.Signals, found: str
) -> None:
    desk = client_desk
    process = start(desk, AT_AN_EPOCH, *TRAIN, "--seed", str(seed), "--epochs", "12", **HASTY)
    until_halted(desk, process)
    running.signal(number)
    go_on(desk)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "Traceback" not in out + err
    message, *advice = err.splitlines()
    assert f"must be usable; found: {found}. Mend it, or set MLFLOW_TRACKING_URI to another." in message
    assert "the next command on this machine that reaches the store marks it as FAILED" in message
    (kept,) = (desk.folder / "kept").glob(f"*/{FILE_NAME}")
    assert advice == [
        f"The trained model is not lost: {kept}",
        f"Continue with: python -m entry_points.finetune --checkpoint {kept}",
    ]
    assert read(kept).training["seed"] == seed
    assert len((kept.parent / "history.csv").read_text().splitlines()) == 14

    if number == signal.SIGSTOP:
        running.signal(signal.SIGCONT)
    else:
        running.start()
    begin_next_command(desk)
    run_id, status, tags = run_of(desk, seed)
    assert (run_id, status) == (kept.parent.name, "FAILED")
    assert tags["failure"]


def test_a_server_that_is_slow_costs_time_only(client_desk: Desk, running: Server) -> None:
    desk = client_desk
    with opened(desk, running, seconds=0.4):
        process = desk.fork(*TRAIN, "--seed", "5", "--epochs", "3")
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    run_id, status, _ = run_of(desk, 5)
    assert status == "FINISHED"
    assert steps(desk, 5) == [1, 2, 3]
    names = {artifact.path for artifact in desk.client.list_artifacts(run_id)}
    assert {"checkpoint", "verification.json", "history.csv"} <= names


# Disks and folders


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB, which takes the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tvae-test", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_costs_neither_the_training_nor_the_store(small_disk: Path) -> None:
    desk = Desk(small_disk)
    process = start(desk, AT_AN_EPOCH, *TRAIN, "--epochs", "12")
    until_halted(desk, process)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    go_on(desk)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "Traceback" not in out + err
    message, where, _ = err.splitlines()
    assert "must be usable; found: " in message
    assert "Training goes on" in out
    kept = Path(where.removeprefix("The trained model is not lost: "))
    assert small_disk not in kept.parents
    assert read(kept).trained == ("encoder", "decoder")

    filler.unlink()
    begin_next_command(desk)
    (run,) = desk.runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"]
    assert desk.client.get_metric_history(run.info.run_id, "loss")
    desk.done("entry_points.finetune", "--checkpoint", str(kept), "--epochs", "1", "--promote", "never")


@pytest.fixture
def read_only_project(tmp_path: Path) -> Iterator[Path]:
    """This project, mounted so that nothing in it can be written."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["mount", "--bind", ROOT, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_project_that_cannot_be_written_runs_where_the_store_can_be(desk: Desk, read_only_project: Path) -> None:
    words = ("-e", "train", "-P", "epochs=1", "-P", "promote=never", "--env-manager=local")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    process = desk.start("mlflow", "run", str(read_only_project), *words, PATH=path)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    (run,) = desk.runs("Default")
    assert run.info.status == "FINISHED"


def test_a_command_in_a_folder_that_cannot_be_written_says_so(read_only_project: Path) -> None:
    desk = Desk(read_only_project, bare=True)
    desk.environment["MLFLOW_TRACKING_URI"] = "sqlite:///here.db"
    code, out, err = desk.type(*TRAIN, "--epochs", "1")
    assert code == 1
    assert "Traceback" not in out + err
    assert "must be a database that can be written; found: unable to open database file" in err
    assert "Set MLFLOW_TRACKING_URI to another" in err
