"""Commands as a user types them, each test at a desk of its own."""

import atexit
import gc
import os
import runpy
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from patience import PATIENCE_SECONDS

from tvae.fresh import FreshProcess, answer

ROOT = Path(__file__).parent.parent

# What commands and this file import takes seconds. Here one process imports it for all of them, and each is a fork.
_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("tvae.cli.main", "tvae.workflows.session", "tvae.workflows.sweep", "tvae.report", "tvae.plots.figures"),
        *("mlflow.store.tracking.sqlalchemy_store", "optuna", "runpy"),
    ]
)


class Forked:
    """A command in a fork of the process that has imported everything."""

    def __init__(self, desk: "Desk", words: tuple[str, ...], fault: str, environment: dict[str, str]) -> None:
        self._said = tempfile.TemporaryDirectory()
        self._output: tuple[str, str] | None = None
        out, err = self._files = Path(self._said.name, "out"), Path(self._said.name, "err")
        out.touch()
        err.touch()
        surroundings = desk.folder, desk.environment | environment
        self._process = _FORKS.Process(target=_run, args=(words, *surroundings, out, err, fault))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int:
        code = self._process.exitcode
        assert code is not None
        return code

    def communicate(self, *, timeout: float) -> tuple[str, str]:
        """Await its end, and return what it printed."""
        if self._output is None:
            self._process.join(timeout)
            late = self.poll() is None
            self.kill()
            self._process.join()
            out, err = (path.read_text(encoding="utf-8") for path in self._files)
            self._output = out, err
            self._said.cleanup()
            assert not late, f"It did not end within {timeout} s, and had said: {self._output}"
        return self._output

    def leave(self) -> None:
        self.kill()
        self._process.join()
        self._said.cleanup()


class Desk:
    """A folder of its own, in which commands are typed; with a tracking store of its own, unless another is named.

    A `bare` desk has no store yet: the first command makes it, as it does at a user's.
    """

    def __init__(self, folder: Path, uri: str | None = None, *, bare: bool = False) -> None:
        self.folder = folder
        # Not make's either: by it a command tells how it was started.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") and k != "MAKELEVEL"}
        ours |= {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
        self.environment = ours
        self.uri = uri or f"sqlite:///{folder}/mlflow.db"
        if uri:
            self.environment["MLFLOW_TRACKING_URI"] = uri
        elif not bare:
            put_store(folder)
        self.started: list[subprocess.Popen[str]] = []
        self.forked: list[Forked] = []
        self.said = ""  # for what a test that comes later is to see
        atexit.register(self.leave)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return self.launch(sys.executable, "-m", *words, **environment)

    def launch(self, *words: str, apart: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Start a program, in a process group of its own if it is to be apart."""
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=apart,
        )
        self.started.append(process)
        return process

    def leave(self) -> None:
        """End what is still at work."""
        for forked in self.forked:
            forked.leave()
        for process in self.started:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def type(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Run a module, as `python -m` does, to its end; return its exit code and what it printed.

        With variables of its own it is a process from the start: some are read as modules are imported.
        """
        fresh = environment or not words[0].startswith("entry_points.")
        process = self.start(*words, **environment) if fresh else self.fork(*words)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, out, err

    def done(self, *words: str, **environment: str) -> str:
        """Run a module that is to succeed, and return what it printed."""
        code, out, err = self.type(*words, **environment)
        assert code == 0, err
        return out

    def fork(self, *words: str, fault: str = "", **environment: str) -> Forked:
        """Start a module in a fork, in a process group of its own without the fresh process that it starts.

        It brings a fault as code that runs first. Variables that are read as modules are imported come too late.
        """
        forked = Forked(self, words, fault, environment)
        self.forked.append(forked)
        return forked

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self, experiment: str = "tvae") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def artifact(self, run: Run, path: str) -> Path:
        mlflow.set_tracking_uri(self.uri)
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{path}", tracking_uri=self.uri))


def free_port() -> int:
    """Return a port for a server, which nobody else is given: it stays bound here, and servers reuse addresses."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = int(held.getsockname()[1])
    held.detach()  # it is closed when this process ends
    return port


def _run(words: tuple[str, ...], folder: Path, environment: dict[str, str], out: Path, err: Path, fault: str) -> None:
    """Be `python -m WORDS` in a folder and an environment; what is printed goes to files."""
    gc.freeze()  # what was imported stays
    os.setsid()
    # What is ignored where the tests run, as under nohup or in the background of a shell, would be ignored here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    # A fork has its threads by now: the variable comes too late.
    torch.set_num_threads(1)
    sys.argv = list(words)
    sys.path[:0] = [str(folder), str(ROOT)]
    exec(fault, {})
    patch = pytest.MonkeyPatch()
    # Its fresh processes are forks of the same process. By itself a fork would start another to fork from, though it
    # has the address and the descriptor of this one: `multiprocessing.forkserver` sets both in `main` and `_serve_one`.
    patch.setattr(forkserver._forkserver, "ensure_running", lambda: None)  # type: ignore[attr-defined]
    fork_fresh_processes(patch)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


class _Answering:
    """A process that answers the calls of a `FreshProcess` as if it were new: a fork that has seen no model.

    What a real one must import takes seconds; that it is a process of its own is for `test_fresh`.
    """

    def __init__(self, theirs: Connection) -> None:
        self._process = _FORKS.Process(target=_answer, args=(theirs,), daemon=True)
        self._process.start()
        self.kill = self._process.kill

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode


def fork_fresh_processes(patch: pytest.MonkeyPatch) -> None:
    """Let the fresh processes that are asked for be forks."""
    patch.setattr(FreshProcess, "_start", lambda _, theirs, *__: _Answering(theirs))


def _answer(theirs: Connection) -> None:
    os.environ["MPLBACKEND"] = "agg"
    torch.set_num_threads(1)
    with open(os.devnull, "wb") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    answer(theirs)


def put_store(folder: Path) -> None:
    """Put an empty tracking store into a folder, unless something of its name is there."""
    path = folder / "mlflow.db"
    if not path.exists():
        path.write_bytes(_migrated_store())


@cache
def _migrated_store() -> bytes:
    """Return an SQLite store with MLflow's tables and no experiment; to make one takes seconds of migrations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mlflow.db")
        SqlAlchemyStore(f"sqlite:///{path}", folder)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM experiments")
        SqlAlchemyStore._engine_map.pop(f"sqlite:///{path}").dispose()
        return path.read_bytes()
