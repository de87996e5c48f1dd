"""Cohorts trained side by side: in this process, in processes of this machine, or on a Dask or Ray cluster.

A backend is a `concurrent.futures.Executor` whose future fails if the worker that had the cohort died. A cohort travels
as bytes, and so does what came of it: a worker needs torch and tvae and knows no MLflow. The driver alone writes down
what came back.
"""

import importlib
import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import loky
import torch

import tvae
from tvae.config.training import BACKENDS
from tvae.errors import ConfigurationError
from tvae.training import Member, Result, train_cohort

__all__ = ["RETRIES", "TrainedCohort", "Workers"]

_logger = logging.getLogger(__name__)

# A cohort that was lost is tried as often again. Two workers may die of something else; a third one dies of the cohort.
RETRIES = 2
# Seconds: within which a cluster must answer; for which it may be without workers, and a sweep waits for one that died;
# between two looks at a cohort.
CONNECT_TIMEOUT = 8.0
WORKERLESS_TIMEOUT = 30.0
POLL = 0.5


@dataclass(frozen=True, slots=True)
class TrainedCohort:
    """What came back of one cohort.

    Attributes:
        task: the cohort's place in the list that was given.
        results: one for each member, in their order, models on the CPU; empty if the cohort was lost.
        error: why the cohort was lost, or None. What stopped a single member stands in its own result.
        seconds: wall time of the training, where it took place; 0 if nothing came back.
        ended: when it came back, on the driver's `time.perf_counter`.
    """

    task: int
    results: list[Result]
    error: str | None
    seconds: float
    ended: float = field(default_factory=time.perf_counter)


class _Backend(NamedTuple):
    """An open backend: cohorts' executor, how many train at a time, how often a lost one is tried again (a Dask cluster
    of somebody else's does that itself), and for how many seconds there has been no worker."""

    executor: Executor
    width: int
    retries: int
    workerless: Callable[[], float] = float


class Workers(AbstractContextManager["Workers"]):
    """Workers that train cohorts. They start when they are first needed, and end with the context.

    Args:
        backend: `local` trains in this process what is one cohort or needs the GPU, and else in a process a core, which
            is faster than threads; `loky` always in processes of this machine; `dask` and `ray` on a cluster that has
            the versions of torch and tvae that are here.
        address: of a running cluster: `tcp://host:8786` for Dask; `ray://host:10001` for Ray, or `host:6379` or `auto`
            on one of its own machines. Without one, Dask and Ray start a cluster of processes of this machine.
        workers: how many cohorts train at a time. By default as many as this machine has cores, or the cluster has Dask
            workers or Ray CPUs when it is first used.
        device: a torch device, there where a cohort trains. A cohort on a GPU takes one GPU of a Ray cluster.

    Raises:
        ConfigurationError: if the backend is unknown or not installed, if it takes no address, or if `workers` is not
            positive; later, if the cluster does not answer.
    """

    def __init__(
        self, backend: str = "local", *, address: str | None = None, workers: int | None = None, device: str = "cpu"
    ) -> None:
        if backend not in BACKENDS:
            raise ConfigurationError(f"`backend` must be one of {', '.join(BACKENDS)}, got {backend!r}.")
        if workers is not None and workers < 1:
            raise ConfigurationError(f"`workers` must be positive, got {workers}.")
        if address is not None and backend not in ("dask", "ray"):
            raise ConfigurationError(f"`address` is for dask and ray; {backend} trains on this machine. Leave it out.")
        self._in_process, self._here, self._device = backend == "local", address is None, device
        open_backend = {"dask": _dask, "ray": _ray}.get(backend, _processes)
        self._open = partial(open_backend, _import(backend), address, workers, device)
        self._width = (workers or loky.cpu_count()) if device == "cpu" else 1
        self._opened: _Backend | None = None
        self._stopped = threading.Event()
        self._stack = ExitStack()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started. On a cluster that was there before, a Dask worker still finishes its cohort."""
        self._stopped.set()
        self._opened = None
        self._stack.close()

    @property
    def width(self) -> int:
        """How many cohorts train at a time; a cluster is asked."""
        return self._width if self._in_process else self._backend().width

    def train(self, cohorts: Sequence[Callable[[], Sequence[Member]]]) -> Iterator[TrainedCohort]:
        """Train cohorts, and give each as it is done: in any order, every one once.

        A cohort whose worker dies is tried again by another. One that is lost three times comes back with an error, and
        the others go on. If the iterator ends early, the workers end too.

        Args:
            cohorts: each returns its members, as `train_cohort` takes them. It is called when a worker is free for
                them, in a thread: there are never more models than those at work, and as many that wait for the caller.
        """
        if not cohorts:
            return
        if self._in_process and min(self._width, len(cohorts)) == 1:
            for place, members in enumerate(cohorts):
                yield TrainedCohort(place, *_attempt(partial(list, members()), self._device))
            return
        backend = self._backend()
        busy = min(backend.width, len(cohorts))
        threads = max(1, loky.cpu_count() // busy) if self._here else None
        work = partial(_work, code=_CODE, device=self._device, threads=threads)
        stopped = self._stopped = threading.Event()
        room = threading.Semaphore(2 * busy)

        def train(place: int) -> TrainedCohort:
            while not (room.acquire(timeout=POLL) or stopped.is_set()):
                pass
            if stopped.is_set():
                raise CancelledError
            return _train(backend, partial(work, pickle.dumps(list(cohorts[place]()))), place, stopped)

        # The threads give cohorts to workers while the caller is busy with what came back.
        with ThreadPoolExecutor(busy) as pool:
            try:
                for future in as_completed([pool.submit(train, place) for place in range(len(cohorts))]):
                    yield future.result()
                    room.release()
            except BaseException:
                self.close()
                raise

    def _backend(self) -> _Backend:
        if self._opened is None:
            self._opened = self._stack.enter_context(self._open())
        return self._opened


def _train(backend: _Backend, work: Callable[[], Any], place: int, stopped: threading.Event) -> TrainedCohort:
    """Have a cohort trained, again where it was lost."""
    for _ in range(backend.retries + 1):
        try:
            future = backend.executor.submit(work)
            while not wait([future], timeout=POLL).done and not stopped.is_set():
                if backend.workerless() > WORKERLESS_TIMEOUT:
                    raise RuntimeError(f"the cluster had no worker for {WORKERLESS_TIMEOUT:g} s")
            if stopped.is_set():
                future.cancel()
                raise CancelledError
            results, error, seconds = future.result()
            return TrainedCohort(place, pickle.loads(results), error, seconds)
        except Exception as error:
            if stopped.is_set():
                raise
            reason = _words(error)
    return TrainedCohort(place, [], f"The cohort was lost (tries: {backend.retries + 1}). {reason}.", 0.0)


def _import(backend: str) -> Any:
    try:
        return importlib.import_module({"dask": "distributed", "ray": "ray"}.get(backend, "loky"))
    except ImportError as error:
        raise ConfigurationError(
            f"`backend` {backend} is not installed ({error}); pip install 'tvae[{backend}]'."
        ) from error


# The backends


@contextmanager
def _processes(_: Any, __: str | None, workers: int | None, ___: str) -> Iterator[_Backend]:
    executor = _Processes()
    try:
        yield _Backend(executor, workers or loky.cpu_count(), RETRIES)
    finally:
        for pool in executor.pools:
            pool.shutdown(kill_workers=True)


class _Processes(Executor):
    """Processes of this machine. Each is a pool of its own: where a process dies, loky gives up its whole pool."""

    def __init__(self) -> None:
        self.pools: list[loky.ProcessPoolExecutor] = []
        self._idle: queue.SimpleQueue[loky.ProcessPoolExecutor] = queue.SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        try:
            pool = self._idle.get_nowait()
        except queue.Empty:
            pool = loky.ProcessPoolExecutor(1, initializer=_leave_with, initargs=(os.getpid(),), timeout=None)
            self.pools.append(pool)
        future: Future[Any] = pool.submit(fn, *args, **kwargs)
        future.add_done_callback(lambda done: None if _broken(done) else self._idle.put(pool))
        return future


def _broken(future: "Future[Any]") -> bool:
    return future.cancelled() or isinstance(future.exception(), BrokenExecutor)


@contextmanager
def _dask(distributed: Any, address: str | None, workers: int | None, _: str) -> Iterator[_Backend]:
    config = importlib.import_module("dask").config
    with ExitStack() as opened:
        # Above 10 MB Dask advises to load data where they are needed: a cohort of 30 models is as large. And by itself
        # it would give what killed a worker to three more.
        # By itself too it would have its workers give memory back to the system at once, and take it again at the next
        # step: a cohort then trains for twice as long.
        settings = {
            "admin.large-graph-warning-threshold": "1 GiB",
            "scheduler.allowed-failures": 0,
            "nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        }
        opened.enter_context(config.set({f"distributed.{name}": value for name, value in settings.items()}))
        cluster: Any = address
        if address is None:
            cluster = distributed.LocalCluster(
                n_workers=workers or loky.cpu_count(),
                threads_per_worker=1,
                # Its web server takes a port even without a dashboard. One that is free does not warn.
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
            )
            opened.enter_context(cluster)
        try:
            client = opened.enter_context(distributed.Client(cluster, timeout=CONNECT_TIMEOUT, set_as_default=False))
        except Exception as error:
            raise _unreachable("Dask scheduler", address, error) from error
        last = time.monotonic()

        def workerless() -> float:
            nonlocal last
            now = time.monotonic()
            last = now if client.nthreads() else last
            return now - last

        width = workers or max(1, len(client.nthreads()))
        executor = client.get_executor(pure=False, retries=0)
        if address is None:
            yield _Backend(_Dask(client, executor, width), width, RETRIES, workerless)
        else:
            yield _Backend(executor, width, 0, workerless)


class _Dask(Executor):
    """A Dask cluster of this machine's own: nothing is submitted until a worker that died is back.

    Dask would queue a cohort behind another on a worker that is left, and if that one dies, both are lost.
    """

    def __init__(self, client: Any, executor: Executor, workers: int) -> None:
        self._client, self._executor, self._workers = client, executor, workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        try:
            self._client.wait_for_workers(self._workers, timeout=WORKERLESS_TIMEOUT)
        except TimeoutError:
            self._workers = max(1, len(self._client.nthreads()))
            _logger.warning(f"A Dask worker that died did not come back: {self._workers} left.")
        return self._executor.submit(fn, *args, **kwargs)


@contextmanager
def _ray(ray: Any, address: str | None, workers: int | None, device: str) -> Iterator[_Backend]:
    with ExitStack() as opened:
        if not ray.is_initialized():
            opened.callback(ray.shutdown)
            _open_ray(ray, address, workers)
        there = ray.cluster_resources()
        # Ray would wait for a GPU that is not there. Without one, torch says so.
        gpus = 1 if device.startswith("cuda") and "GPU" in there else 0
        executor = _Ray(ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0))
        yield _Backend(executor, workers or max(1, int(there.get("CPU", 0))), RETRIES)


class _Ray(Executor):
    """A Ray cluster, which has a process for each task."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self._call = remote(lambda fn, *args, **kwargs: fn(*args, **kwargs))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        return self._call.remote(fn, *args, **kwargs).future()  # type: ignore[no-any-return]


def _open_ray(ray: Any, address: str | None, workers: int | None) -> None:
    settings: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # A cluster of this machine's own has no reason to report its use.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings |= {"num_cpus": workers, "include_dashboard": False}
    # Ray makes SIGTERM an exit of its own. What the program does about it is the program's affair.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address not in (None, "auto"):
            # Ray tries to connect for minutes, and may then end the process.
            host, _, port = str(address).rpartition("://")[2].partition(":")
            socket.create_connection((host, int(port or 10001)), timeout=CONNECT_TIMEOUT).close()
        ray.init(**settings)
    except Exception as error:
        raise _unreachable("Ray cluster", address, error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _unreachable(what: str, address: str | None, error: Exception) -> ConfigurationError:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    reason = (str(root).strip() or type(root).__name__).splitlines()[-1].rstrip(".")
    return ConfigurationError(f"A {what} must answer at `address`, got none from {address}: {reason}.")


# What a worker does


def _code() -> dict[str, str]:
    """Return the versions of tvae and torch, and a digest of each module of tvae that is imported.

    While tvae is worked on, its sources change and its version does not.
    """
    files = {name: getattr(m, "__file__", None) for name, m in list(sys.modules.items()) if name.startswith("tvae.")}
    sources = {name: Path(file).read_text(encoding="utf-8") for name, file in files.items() if file}
    digests = {name: sha256(source.encode()).hexdigest() for name, source in sources.items()}
    # What follows the plus names the build, for a CPU or a GPU: that may differ.
    return {"tvae": tvae.__version__, "torch": torch.__version__.partition("+")[0]} | digests


# Of the code that is imported, whatever the files hold later.
_CODE = _code()


def _work(task: bytes, *, code: dict[str, str], device: str, threads: int | None) -> tuple[bytes, str | None, float]:
    """Train a cohort in a worker. Nothing is unpickled unless the worker's code is the driver's."""
    if differing := [name for name in _CODE if code.get(name, _CODE[name]) != _CODE[name]]:
        versions = [f"{name} {_CODE[name]} instead of {code[name]}" for name in differing if "." not in name]
        what = " and ".join(versions) or f"another state of {', '.join(differing)}"
        raise RuntimeError(f"the worker has {what}; install there what is here")
    if threads is not None:
        torch.set_num_threads(threads)
    results, error, seconds = _attempt(partial(pickle.loads, task), device)
    return pickle.dumps(results), error, seconds


def _attempt(members: Callable[[], list[Member]], device: str) -> tuple[list[Result], str | None, float]:
    """Train a cohort; return its results, what stopped it as a whole, and the seconds it took."""
    started = time.perf_counter()
    try:
        return train_cohort(members(), device=device), None, time.perf_counter() - started
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{_words(error)} ({os.path.basename(place.filename)}, line {place.lineno})"
        return [], words, time.perf_counter() - started


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".") or "no further word"
    return f"{type(error).__name__}: {text}"[:500]


def _leave_with(driver: int) -> None:
    """Let a process of this machine end when its driver does. Ctrl-C reaches both, but the driver ends its workers."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(POLL)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
