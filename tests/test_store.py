"""The tracking store and the experiment that a command chooses."""

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pytest
from desk import ROOT, Desk, put_store
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from registry_store import tracking_in

from tvae.checkpoint import FILE_NAME
from tvae.errors import TrackingError
from tvae.tracking import failure, store
from tvae.tracking.run import Run, open_run
from tvae.tracking.store import EXPERIMENT, connect, using_store


def test_the_later_to_make_the_experiment_logs_to_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking_in(tmp_path):
        made = MlflowClient().create_experiment(EXPERIMENT)
        look = TrackingServiceClient.get_experiment_by_name
        answers = iter([None])  # once too early

        def too_early(client: TrackingServiceClient, name: str) -> Experiment | None:
            return next(answers, look(client, name))

        monkeypatch.setattr(TrackingServiceClient, "get_experiment_by_name", too_early)
        connect()
        with mlflow.start_run() as run:
            assert run.info.experiment_id == made


@pytest.mark.parametrize("code", ["ENOSYS", "ENOTSUP", "ENOLCK", "EINVAL"])
def test_a_new_store_needs_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, code), "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with store._first_use(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"):
        pass


def test_who_makes_a_new_store_is_waited_for(tmp_path: Path) -> None:
    entered = Event()

    def enter() -> None:
        with store._first_use(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"):
            entered.set()

    other = Thread(target=enter)
    with store._first_use(f"sqlite:///{tmp_path}/./mlflow.db", tmp_path / "mlflow.db"):
        other.start()
        assert not entered.wait(0.2)
    other.join()
    assert entered.is_set()


@pytest.mark.parametrize(
    "error", [BrokenPipeError("by the reader"), OSError("No space left"), ModuleNotFoundError("No module named 'x'")]
)
def test_what_goes_wrong_beside_the_store_is_not_blamed_on_it(tmp_path: Path, error: Exception) -> None:
    with tracking_in(tmp_path):
        client = connect()
        with pytest.raises(type(error), match=str(error)), open_run(client, name="fails", tags={}):
            raise error
        (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        assert (run.info.status, run.data.tags["failure"]) == ("FAILED", str(error))


def test_a_store_whose_artifacts_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    artifacts = LocalArtifactRepository(str(tmp_path / "file" / "artifacts"))
    with pytest.raises(TrackingError, match=r"^The tracking store .* must be usable; found: .*file"), using_store():
        artifacts.log_artifact(__file__)


def test_epochs_whose_answer_was_lost_stand_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}]
    with tracking_in(tmp_path):
        client = connect()
        with open_run(client, name="interrupted", tags={}) as run:
            taken = MlflowClient.log_batch

            def without_an_answer(self: MlflowClient, *arguments: Any, **named: Any) -> None:
                taken(self, *arguments, **named)
                raise MlflowException("Read timed out")

            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, "log_batch", without_an_answer)
                with pytest.raises(TrackingError):
                    run.log_epochs(epochs[:1])
            time.sleep(0.01)  # another millisecond than the first time
            run.log_epochs(epochs[1:])
            checkpoint = run.folder / "checkpoint.safetensors"
            checkpoint.write_bytes(b"x")
            run.log_checkpoint(checkpoint, epochs)
            logged = client.get_metric_history(run.id, "loss")
        assert [(metric.step, metric.value) for metric in logged] == [(1, 0.5), (2, 0.25)]


# What a server that is going away sends before it is gone, and what is said of it.
CUT_OFF = {
    b"": "Remote end closed connection without response",
    b"HTTP/1.": "HTTP/1.",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n": "IncompleteRead(0 bytes read, 9 more expected)",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}": "IncompleteRead(2 bytes read, 7 more expected)",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}": "IncompleteRead(2 bytes read, 7 more expected)",
}


def test_what_came_instead_of_a_servers_answer_is_said_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> str:
        with pytest.raises(MlflowException) as caught:
            MlflowClient(f"http://127.0.0.1:{server.getsockname()[1]}").get_run("0" * 32)
        return store.reason(caught.value)

    def answer(sent: bytes, then: Callable[[socket.socket], object]) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(sent)
            then(connection)

    def asked(sent: bytes, then: Callable[[socket.socket], object]) -> str:
        Thread(target=answer, args=(sent, then), daemon=True).start()
        return ask()

    def take_all(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = {sent: asked(sent, take_all) for sent in CUT_OFF}
        assert found == {sent: f"no answer, {said}" for sent, said in CUT_OFF.items()}
        assert {asked(sent, reset) for sent in CUT_OFF} == {"no answer, [Errno 104] Connection reset by peer"}
        Thread(target=answer, args=(b"HTTP/1.", take_all), daemon=True).start()
        with pytest.raises(TrackingError, match=r"must answer within 20 s; found: no answer, HTTP/1\.\. Start it"):
            store.require_answer(f"http://127.0.0.1:{server.getsockname()[1]}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        assert ask() == "no answer, timed out"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # and does not listen
        assert ask() == "no answer, [Errno 111] Connection refused"


# Addresses

# Each breaks another step between a folder's name and SQLite: quoting, options, fragments, filters, unquoting.
FOLDERS = ["my project #2 50% é it's a&b=$HOME", "what?", "a%20b"]


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command is typed in, where nobody has named a store."""
    (made := tmp_path / request.param).mkdir()
    monkeypatch.chdir(made)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    # MLflow keeps stores by address, and a relative address is that of another store in each folder.
    mlflow.tracking._tracking_service.utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    SqlAlchemyStore._engine_map.pop("sqlite:///mlflow.db", None)
    return made


def test_the_default_store_of_any_folder_is_in_it_and_nothing_appears_beside_it(folder: Path) -> None:
    assert connect().get_experiment_by_name(EXPERIMENT)
    assert (folder / "mlflow.db").is_file()
    assert list(folder.parent.iterdir()) == [folder]


def test_an_address_as_mlflow_run_writes_it_opens_the_same_store_and_the_empty_folder_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_store(folder)
    made = MlflowClient().create_run(MlflowClient().create_experiment("of mlflow run")).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    assert connect().get_run(made).info.run_id == made
    assert (folder / "mlflow.db").is_file()
    assert list(folder.parent.iterdir()) == [folder]


def test_a_question_mark_in_an_address_is_refused_with_how_to_write_it(folder: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/what?/mlflow.db")
    with pytest.raises(TrackingError, match="must be written as %3F"):
        connect()
    assert list(folder.iterdir()) == []


def test_home_in_an_address_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home := tmp_path / "home").mkdir()
    put_store(home)
    with tracking_in(tmp_path):
        monkeypatch.setenv("HOME", str(home))
        mlflow.set_tracking_uri("sqlite:///~/mlflow.db")
        connect()
        assert MlflowClient(f"sqlite:///{home}/mlflow.db").get_experiment_by_name(EXPERIMENT)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
@pytest.mark.parametrize("address", ["sqlite:///runs.db", "sqlite:///~/runs.db"])
def test_a_relative_address_under_mlflow_run_is_refused_and_leaves_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    with tracking_in(tmp_path):
        mlflow.set_tracking_uri(address if name == "MLFLOW_TRACKING_URI" else f"sqlite:///{tmp_path}/mlflow.db")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(name, address)
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        with pytest.raises(TrackingError, match=f"{name} must name the same file from every folder.*four slashes"):
            connect()
    assert not (tmp_path / "runs.db").exists()


def test_a_run_of_another_store_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking_in(tmp_path):
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        with pytest.raises(TrackingError, match=r"The run of MLFLOW_RUN_ID must be in the tracking store .*Unset"):
            connect()


BLANK = ["RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "TRACKING_URI", "REGISTRY_URI", "HTTP_REQUEST_MAX_RETRIES"]


@pytest.mark.parametrize("value", ["", "  "])
def test_a_blank_variable_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with tracking_in(tmp_path):
        for name in BLANK:
            monkeypatch.setenv(f"MLFLOW_{name}", value)
        with open_run(connect(), name="blank", tags={}) as run:
            experiment = MlflowClient().get_experiment(run.experiment_id)
        assert experiment.name == EXPERIMENT


@pytest.mark.long
def test_a_command_starts_with_blank_variables_that_mlflow_reads_as_it_is_imported(tmp_path: Path) -> None:
    blank = {f"MLFLOW_{name}": "" for name in (*BLANK, "CONFIGURE_LOGGING", "LOGGING_LEVEL")}
    code, out, err = Desk(tmp_path, bare=True).type("entry_points.store", **blank)
    assert (code, out) == (0, ""), err
    assert (tmp_path / "mlflow.db").is_file()


def test_a_deleted_experiment_is_said_to_be(tmp_path: Path) -> None:
    with tracking_in(tmp_path) as client:
        client.delete_experiment(client.create_experiment(EXPERIMENT))
        with pytest.raises(TrackingError, match="'tvae' must be there; it was deleted"):
            connect()


def test_files_of_an_experiment_that_stayed_where_the_project_was_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking_in(tmp_path) as client:
        client.create_experiment(EXPERIMENT, artifact_location=str(tmp_path / "old place" / "mlruns" / "1"))
        connect()
        assert f"keeps its files in {tmp_path}/old place/mlruns/1, which is gone" in caplog.text
        caplog.clear()
        (tmp_path / "old place").mkdir()
        connect()
        assert caplog.text == ""


# Runs of this project, whatever its folder is called


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("form", ["{0}", "file://{0}", "quoted", "file://{1}#{2}"])
def test_a_run_of_mlflow_run_is_known_by_the_folder_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    project = tmp_path / name
    source = project.as_uri() if form == "quoted" else form.format(project, project.parent, project.name)
    monkeypatch.setattr(failure, "_PROJECT", project)

    def made_here(named: str) -> bool:
        data = SimpleNamespace(tags={"mlflow.source.name": named})
        return failure._made_here(cast(mlflow.entities.Run, SimpleNamespace(data=data)))

    assert made_here(source)
    assert not made_here(f"{source}-2")
    assert not made_here(f"file://{project}#within")


# A run that is deleted while it is written


def test_a_run_that_is_deleted_keeps_its_model_and_says_how_it_comes_back(tmp_path: Path) -> None:
    with tracking_in(tmp_path):
        client = connect()
        kept: list[str | None] = []

        def train(run: Run) -> None:
            checkpoint = run.folder / FILE_NAME
            checkpoint.write_bytes(b"x")
            client.delete_run(run.id)
            try:
                run.log_checkpoint(checkpoint, [{"epoch": 1.0, "loss": 0.5}])
                run.set_tags({"verified": "true"})
            finally:
                kept.append(run.keep_checkpoint())

        with pytest.raises(TrackingError) as raised, open_run(client, name="gone", tags={}) as run:
            train(run)
        assert f"`mlflow runs restore --run-id {run.id}` brings it back" in str(raised.value)
        assert "marks it as FAILED" not in str(raised.value)
        assert kept == [str(tmp_path / "kept" / run.id / FILE_NAME)]
        assert Path(str(kept[0])).read_bytes() == b"x"
        client.restore_run(run.id)


# In a folder of a difficult name, as a person does it


@pytest.mark.fault
def test_mlflow_run_in_a_folder_with_a_space_and_a_relative_store_from_elsewhere(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "my project #2", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0"):
        if name.startswith(("tvae/", "entry_points/", "MLproject", "conda.yaml")):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_bytes((ROOT / name).read_bytes())
    words = ("-e", "report", "--env-manager=local")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    desk = Desk(project, bare=True)
    code, _, err = desk.type("mlflow", "run", ".", *words, PATH=path)
    assert code == 0, err
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "my project #2"]
    assert [run.info.status for run in desk.runs("Default")] == ["FINISHED"]

    (plain := tmp_path / "plain").symlink_to(project)  # MLflow itself takes what follows a # for a folder within
    relative = {"MLFLOW_TRACKING_URI": "sqlite:///runs.db", "PATH": path}
    code, _, err = Desk(elsewhere, bare=True).type("mlflow", "run", str(plain), *words, **relative)
    assert code == 1
    assert "MLFLOW_TRACKING_URI must name the same file from every folder, got sqlite:///runs.db." in err
    assert not (project / "runs.db").exists()
