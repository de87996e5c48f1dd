"""Cohorts trained elsewhere: they come back as from here, whoever dies of them, and leave no process behind."""

import dataclasses
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import uuid
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import loky
import pytest
import torch
from patience import PATIENCE_SECONDS, until

import tvae
from tvae.config.architecture import Architecture
from tvae.config.training import Configuration
from tvae.errors import ConfigurationError
from tvae.sweeps import executors as fanout
from tvae.sweeps.executors import RETRIES, TrainedCohort, Workers
from tvae.training import Member, Result
from tvae.training.start import from_scratch

SMALL = Architecture(
    n_trits=4, latent_dim=6, encoder_hidden=(32,), decoder_hidden=(24,), hidden_dim=16, n_projection_layers=1
)
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
# In every process that a test starts, however far down: Linux shows it.
MARK = "TVAE_FANOUT_TEST"
each_elsewhere = pytest.mark.parametrize("backend", ["loky", "dask", "ray"])


class Trap(tuple[str, ...]):
    """What a member has drawn, and Python code that runs where the member is unpickled."""

    code = ""

    def __reduce__(self) -> Any:
        return eval, (f"[exec({self.code!r}), {tuple(self)!r}][1]",)


KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# The first time only, and when training is well under way.
KILL_ONCE = """
import os, signal, threading
try:
    os.mkdir({path!r})
    threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGKILL)).start()
except FileExistsError:
    pass
"""
TELL = """
import json, os, pathlib, sys, torch
told = {{"modules": sorted(sys.modules), "threads": torch.get_num_threads(), "process": os.getpid()}}
pathlib.Path({path!r}).write_text(json.dumps(told))
"""


def train_cohorts(tasks: Sequence[Sequence[Member]], **settings: Any) -> Iterator[TrainedCohort]:
    with Workers(**settings) as workers:
        yield from workers.train([partial(list, task) for task in tasks])


def member(seed: int, epochs: int = 3, architecture: Architecture = SMALL) -> Member:
    return from_scratch(architecture, Configuration(batch_size=32, epochs=epochs, patience=epochs, seed=seed))


def trapped(code: str, member: Member) -> Member:
    trap = Trap(member.reinitialised)
    trap.code = code
    return dataclasses.replace(member, reinitialised=trap)


def outlasting(code: str, seed: int) -> list[Member]:
    """A cohort that trains for a second."""
    return [trapped(code, member(seed, epochs=150))]


def endless(seed: int) -> list[Member]:
    """A cohort that keeps its worker, and lets the others have the cores."""
    return [trapped("import time; time.sleep(600)", member(seed))]


PLAIN, UNLUCKY, KILLER, MISFITS, TELLING, LAST = range(6)
GOOD = [PLAIN, UNLUCKY, TELLING, LAST]


def cohorts(folder: Path) -> list[list[Member]]:
    """Return one of each kind, each at its place."""
    return [
        [member(1), member(2, epochs=5)],
        outlasting(KILL_ONCE.format(path=str(folder / "killed")), 3),
        [trapped(KILL, member(4))],
        [member(5), member(6, architecture=dataclasses.replace(SMALL, latent_dim=4))],
        [trapped(TELL.format(path=str(folder / "told")), member(7))],
        [member(8)],
    ]


def assert_as_here(found: TrainedCohort, here: TrainedCohort) -> None:
    assert found.error is None
    for one, other in zip(found.results, here.results, strict=True):
        assert one.configuration == other.configuration
        assert one.best_epoch == other.best_epoch
        assert one.summary()["best_hierarchy"] == pytest.approx(other.summary()["best_hierarchy"], abs=1e-4)
        assert one.summary()["final_hierarchy"] == pytest.approx(other.summary()["final_hierarchy"], abs=1e-4)
        assert {p.device.type for p in one.model.parameters()} == {"cpu"}


def alive(mark: str) -> list[str]:
    """Return the commands of processes that bear a mark. Trackers of shared memory go with the one that they serve."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if marked and command and "resource_tracker" not in command and process.name != str(os.getpid()):
            found.append(command)
    return found


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[str]:
    """A mark for all processes, and a token for Ray, which otherwise leaves one in the home of whoever tests."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
        yield mark


# What is asked for


ADDRESS = "tcp://127.0.0.1:8786"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "spark"}, r"^`backend` must be one of local, loky, dask, ray, got 'spark'\.$"),
        ({"workers": 0}, r"^`workers` must be positive, got 0\.$"),
        ({"address": ADDRESS}, "^`address` is for dask and ray; local trains on this machine"),
        ({"address": ADDRESS, "backend": "loky"}, "^`address` is for dask and ray; loky trains on this machine"),
    ],
)
def test_what_no_workers_can_have_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Workers(**settings)


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_extra_that_is_missing_is_named(backend: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'tvae\[{backend}\]'\.$"):
        Workers(backend)


@pytest.mark.parametrize("extra", ["dask", "ray"])
def test_extra_has_exact_versions(extra: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(re.fullmatch(r"\w+==[\d.]+", pin) for pin in extras[extra])


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("backend", "address"),
    [("dask", "tcp://127.0.0.1:1"), ("ray", "127.0.0.1:1"), ("ray", "ray://127.0.0.1:1"), ("ray", "nonsense")],
)
def test_cluster_that_does_not_answer_is_named(backend: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CONNECT_TIMEOUT", 0.5)
    with pytest.raises(ConfigurationError, match=rf"must answer at `address`, got none from {address}: "):
        next(train_cohorts([[member(0)]], backend=backend, address=address))


@pytest.mark.cluster
@each_elsewhere
def test_nothing_to_train_starts_nothing(backend: str) -> None:
    assert list(train_cohorts([], backend=backend, address=None if backend == "loky" else "127.0.0.1:1")) == []


# Here


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[TrainedCohort]:
    """What comes back of each cohort from this process, where no trap springs."""
    return list(train_cohorts(cohorts(tmp_path_factory.mktemp("here")), workers=1))


def test_one_worker_trains_cohorts_here_one_after_another(here: list[TrainedCohort]) -> None:
    assert [trained.task for trained in here] == list(range(len(here)))


def test_a_cohort_that_fails_as_a_whole_is_an_error_in_words(here: list[TrainedCohort]) -> None:
    expected = "ConfigurationError: Members of a cohort must agree in latent_dim; train them apart (cohort.py, line "
    assert str(here[MISFITS].error).startswith(expected)
    assert here[MISFITS].results == []


def test_the_others_go_on(here: list[TrainedCohort]) -> None:
    assert [trained.task for trained in here if trained.error is None] == [*range(MISFITS), *range(MISFITS + 1, 6)]


def test_an_error_of_a_member_stays_in_its_result() -> None:
    broken = dataclasses.replace(member(1), reinitialised=())
    with torch.no_grad():
        broken.model.projection.radius_net[2].weight.fill_(math.nan)
    (trained,) = train_cohorts([[member(0), broken]])
    assert trained.error is None
    assert [result.error is None for result in trained.results] == [True, False]


def test_seconds_are_those_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "train_cohort", lambda *_, **__: time.sleep(0.1))
    began = time.perf_counter()
    (trained,) = train_cohorts([[member(0)]])
    assert 0.1 <= trained.seconds <= time.perf_counter() - began


def test_there_are_no_more_models_than_those_at_work_and_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def cohort(seed: int) -> list[Member]:
        nonlocal alive, most
        made = member(seed)
        weakref.finalize(made.model, gone)
        alive += 1
        most = max(most, alive)
        return [made]

    workers = Workers("loky", workers=2)
    monkeypatch.setattr(
        fanout, "_attempt", lambda members, _: ([Result(m.configuration, m.model) for m in members()], None, 0.0)
    )
    with ThreadPoolExecutor(2) as threads:
        monkeypatch.setattr(workers, "_opened", fanout._Backend(threads, 2, 0))
        found = [trained.task for trained in workers.train([partial(cohort, seed) for seed in range(100)])]
    assert sorted(found) == list(range(100))
    assert most <= 4


@pytest.mark.integration
def test_workers_stay_from_one_training_to_the_next(tmp_path: Path) -> None:
    told = []
    with Workers("loky", workers=1) as workers:
        for seed in range(2):
            cohort = [trapped(TELL.format(path=str(tmp_path / "told")), member(seed))]
            (trained,) = workers.train([partial(list, cohort)])
            assert trained.error is None
            told.append(json.loads((tmp_path / "told").read_text())["process"])
    assert told[0] == told[1] != os.getpid()


def test_an_interrupt_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fanout, "train_cohort", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(train_cohorts([[member(0)]]))


# Elsewhere


class Elsewhere(NamedTuple):
    """What came back of the cohorts from two workers, and which processes were left then."""

    backend: str
    trained: list[TrainedCohort]
    folder: Path
    attempts: int
    left: list[str]

    def of(self, task: int) -> TrainedCohort:
        (trained,) = (trained for trained in self.trained if trained.task == task)
        return trained

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "told").read_text())
        return found


@pytest.fixture(scope="module", params=["local", "dask", "ray"])
def elsewhere(request: pytest.FixtureRequest, environment: str, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        # A worker takes seconds to start. Once more is enough to see it.
        patch.setattr(fanout, "RETRIES", 1)
        trained = list(train_cohorts(cohorts(folder), backend=request.param, workers=2))
        return Elsewhere(request.param, trained, folder, fanout.RETRIES + 1, alive(environment))


@pytest.mark.cluster
@pytest.mark.integration
@pytest.mark.parametrize("task", GOOD)
def test_a_cohort_trains_elsewhere_as_here(elsewhere: Elsewhere, here: list[TrainedCohort], task: int) -> None:
    assert_as_here(elsewhere.of(task), here[task])


@pytest.mark.cluster
@pytest.mark.integration
def test_a_cohort_whose_worker_died_was_tried_again(elsewhere: Elsewhere) -> None:
    assert (elsewhere.folder / "killed").is_dir()
    assert elsewhere.of(UNLUCKY).error is None


@pytest.mark.cluster
@pytest.mark.integration
def test_a_cohort_that_kills_its_workers_is_reported(elsewhere: Elsewhere) -> None:
    found = elsewhere.of(KILLER)
    expected = rf"The cohort was lost \(tries: {elsewhere.attempts}\)\. .*(SIGKILL|died)"
    assert re.match(expected, str(found.error))
    assert (found.results, found.seconds) == ([], 0.0)


@pytest.mark.cluster
@pytest.mark.integration
def test_a_cohort_that_fails_elsewhere_says_what_it_says_here(elsewhere: Elsewhere, here: list[TrainedCohort]) -> None:
    assert elsewhere.of(MISFITS).error == here[MISFITS].error


@pytest.mark.cluster
@pytest.mark.integration
def test_a_worker_needs_torch_and_tvae_and_no_mlflow(elsewhere: Elsewhere) -> None:
    modules = elsewhere.told()["modules"]
    assert {"torch", "tvae"} <= set(modules)
    clusters = {"dask": {"dask", "distributed"}, "ray": {"ray"}}
    foreign = {"mlflow", *itertools.chain.from_iterable(clusters.values())} - clusters.get(elsewhere.backend, set())
    assert not {name.partition(".")[0] for name in modules} & foreign


@pytest.mark.cluster
@pytest.mark.integration
def test_two_workers_are_other_processes_that_share_the_cores(elsewhere: Elsewhere) -> None:
    told = elsewhere.told()
    assert told["process"] != os.getpid()
    assert told["threads"] == max(1, loky.cpu_count() // 2)


@pytest.mark.cluster
@pytest.mark.integration
def test_no_process_outlives_the_last_cohort(elsewhere: Elsewhere) -> None:
    assert elsewhere.left == []


@pytest.mark.integration
def test_a_worker_of_another_version_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "_CODE", fanout._CODE | {"tvae": "9.9"})
    (trained,) = train_cohorts([[member(0)]], backend="loky")
    assert trained.results == []
    assert trained.error == (
        f"The cohort was lost (tries: {RETRIES + 1}). RuntimeError: the worker has tvae {tvae.__version__} "
        "instead of 9.9; install there what is here."
    )


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ({"torch": "1.0"}, f"torch {torch.__version__.partition('+')[0]} instead of 1.0"),
        ({"tvae.model": "edited", "tvae.not_loaded_here": "anything"}, "another state of tvae.model"),
    ],
)
def test_a_worker_says_in_what_its_code_differs(driver: dict[str, str], words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(f"the worker has {words}; install there what is here")):
        fanout._work(b"", code=fanout._CODE | driver, device="cpu", threads=None)


# A cluster that was there before, whose workers nobody starts again


@pytest.fixture(scope="module")
def address(environment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Dask scheduler with two workers, each started by its command."""
    file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    worker = [BIN / "dask", "worker", *common, "--no-nanny", "--nthreads", "1"]
    started = [subprocess.Popen([BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", *common])]
    started += [subprocess.Popen(worker) for _ in range(2)]
    try:
        import distributed

        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in started:
            process.kill()
            process.wait()


Tried = tuple[list[TrainedCohort], list[TrainedCohort]]


@pytest.fixture(scope="module")
def on_cluster(address: str, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """What came back when one of two workers died, and then from the one that was left, when it died, too."""
    unlucky = outlasting(KILL_ONCE.format(path=str(tmp_path_factory.mktemp("cluster") / "killed")), 3)
    killer = [trapped(KILL, member(4))]

    def train(*tasks: Sequence[Member]) -> list[TrainedCohort]:
        found = train_cohorts(tasks, backend="dask", address=address)
        return sorted(found, key=lambda trained: trained.task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "WORKERLESS_TIMEOUT", 1.0)
        return train([member(1), member(2, epochs=5)], unlucky, [member(8)]), train([member(8)], killer)


@pytest.mark.cluster
@pytest.mark.integration
def test_a_worker_that_is_left_takes_over(on_cluster: Tried, here: list[TrainedCohort]) -> None:
    for found, task in zip(on_cluster[0], (PLAIN, UNLUCKY, LAST), strict=True):
        assert_as_here(found, here[task])


@pytest.mark.cluster
@pytest.mark.integration
def test_without_a_worker_left_nobody_waits_for_ever(on_cluster: Tried, here: list[TrainedCohort]) -> None:
    back, lost = on_cluster[1]
    assert_as_here(back, here[LAST])
    assert re.match(r"The cohort was lost \(tries: 1\)\. .*(no worker for 1 s|died)", str(lost.error))


# The end before the end

DRIVER = """
import sys, time
sys.path.insert(0, "tests")
from test_fanout import Workers, endless, member

if __name__ == "__main__":
    with Workers(sys.argv[1], workers=1) as workers:
        for trained in workers.train([lambda: [member(0)], lambda: endless(1)]):
            print(trained.error, flush=True)
            time.sleep(float(sys.argv[2]))
"""


@pytest.mark.cluster
@pytest.mark.integration
@pytest.mark.parametrize("pause", ["0", "600"], ids=["waiting", "busy"])
@each_elsewhere
def test_no_process_outlives_a_program_that_is_interrupted(
    backend: str, pause: str, environment: str, tmp_path: Path
) -> None:
    """It waits for an endless cohort when it is interrupted, or is busy with what came back."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, script, backend, pause],
        cwd=ROOT,
        env=os.environ | {MARK: f"{environment}-{backend}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "None\n"
    time.sleep(0.2)  # either is right: it is interrupted there, or on its way
    driver.send_signal(signal.SIGINT)
    _, words = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in words
    if backend == "loky":
        assert alive(f"{environment}-{backend}") == []
    until(lambda: alive(f"{environment}-{backend}") == [], seconds=30)


@pytest.mark.integration
def test_a_worker_ignores_the_signals_that_its_driver_ignores() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with fanout._processes(None, None, 1, "cpu") as backend:
            worker = backend.executor.submit(os.getpid).result(PATIENCE_SECONDS)
            os.kill(worker, signal.SIGTERM)
            assert backend.executor.submit(os.getpid).result(PATIENCE_SECONDS) == worker
    finally:
        signal.signal(signal.SIGTERM, before)
