"""Cohorts trained side by side: in this process, in processes of this machine, or on a Dask or Ray cluster.

A cohort is a task. The driver hands it over as bytes and gets bytes back, so a worker needs torch and tvae, and nothing
else: it knows no MLflow, and the driver alone writes down what came back. A worker process has one cohort at a time.
So when a process dies, it is known which cohort died with it.

What is used of joblib is loky's processes. `joblib.Parallel` does not bring all cohorts home (seen with joblib 1.6.0,
Dask 2026.8.0, Ray 2.60.0): the death of one of loky's processes ends the call, and what the others had is gone; on Dask
its generator waits for ever for a task that kills its workers; on Ray it has no generator, and a death ends the call.
So each library is given single tasks.
"""

import atexit
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch
from joblib.externals.loky.backend import get_context

import tvae
from tvae.configuration import BACKENDS
from tvae.errors import ConfigurationError
from tvae.training import Member, Result, train_cohort

__all__ = ["RETRIES", "Trained", "train_cohorts"]

# A cohort that was lost is tried as often again. Two workers may die of something else; a third one dies of the cohort.
RETRIES = 2
# Seconds: within which a cluster must answer; for which it may be without workers (a nanny starts one anew in 3);
# between two looks at a worker.
CONNECT_TIMEOUT = 8.0
WORKERLESS_TIMEOUT = 30.0
POLL = 0.5
# Workers may join a Dask cluster at any time: so many are used without being asked for. A slot is a waiting thread.
DASK_SLOTS = 64
_LOKY = get_context("loky")


@dataclass(frozen=True, slots=True)
class Trained:
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


def train_cohorts(
    tasks: Sequence[Sequence[Member]],
    *,
    backend: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
) -> Iterator[Trained]:
    """Train cohorts, and give each as it is done: in any order, every one once.

    A cohort whose worker dies is tried again elsewhere, after all that were not tried yet. One that is lost three times
    comes back with an error, and the others go on. What this call starts ends with its iterator, whether that is
    exhausted, closed, dropped or interrupted. On a cluster that was there before, what runs is cancelled; a Dask worker
    still finishes the cohort it is at.

    Args:
        tasks: the cohorts, each as `train_cohort` takes it.
        backend: `local` trains in this process what is one cohort or needs the GPU, and else in a process a core, which
            is faster than threads; `loky` always in processes of this machine; `dask` and `ray` on a cluster whose
            workers have the versions of torch and tvae that are here.
        address: of a running cluster: `tcp://host:8786` for Dask; `ray://host:10001` for Ray, or `host:6379` or `auto`
            on one of its own machines. Without one, Dask and Ray start a cluster of processes of this machine.
        workers: how many cohorts train at a time. By default as many as this machine has cores, or the cluster Dask
            workers or Ray CPUs.
        device: a torch device, there where a cohort trains. A cohort on a GPU takes one GPU of a Ray cluster.

    Returns:
        An iterator of what came back. It starts its workers when it is first asked.

    Raises:
        ConfigurationError: if the backend is unknown or not installed, if it takes no address, or if `workers` is not
            positive; from the iterator, if the cluster does not answer.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"`backend` must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if workers is not None and workers < 1:
        raise ConfigurationError(f"`workers` must be positive, got {workers}.")
    if address is not None and backend not in ("dask", "ray"):
        raise ConfigurationError(f"`address` is for dask and ray; {backend} trains on this machine. Leave it out.")
    cohorts = [list(task) for task in tasks]
    cores = joblib.cpu_count()
    processes = max(1, min(workers or cores, len(cohorts)))
    threads = max(1, cores // processes)
    if backend == "local" and (processes == 1 or device != "cpu"):
        return (Trained(place, *_attempt(partial(list, members), device)) for place, members in enumerate(cohorts))
    if backend in ("local", "loky"):
        return _fan_out(cohorts, lambda: _Loky(processes, threads, device))
    library, cluster = _import(backend), _Dask if backend == "dask" else _Ray
    if address is None:
        return _fan_out(cohorts, lambda: cluster(library, None, processes, threads, device))
    return _fan_out(cohorts, lambda: cluster(library, address, workers, None, device))


def _import(backend: str) -> Any:
    try:
        return importlib.import_module({"dask": "distributed"}.get(backend, backend))
    except ImportError as error:
        raise ConfigurationError(
            f"`backend` {backend} is not installed ({error}); pip install 'tvae[{backend}]'."
        ) from error


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


# What a worker does


class _Reply(NamedTuple):
    """What a worker sends back, as a plain tuple: a worker of another version then is understood, too."""

    results: bytes
    error: str | None
    seconds: float
    refusal: str | None


def _work(task: bytes, driver: dict[str, str], device: str, threads: int | None) -> tuple[Any, ...]:
    """Train a cohort in a worker. Nothing is unpickled unless the worker's code is the driver's."""
    if differing := [name for name in _CODE if driver.get(name, _CODE[name]) != _CODE[name]]:
        versions = [f"{name} {_CODE[name]} instead of {driver[name]}" for name in differing if "." not in name]
        what = " and ".join(versions) or f"another state of {', '.join(differing)}"
        return b"", None, 0.0, f"the worker has {what}; install there what is here"
    if threads is not None:
        torch.set_num_threads(threads)
    results, error, seconds = _attempt(lambda: pickle.loads(task), device)
    return pickle.dumps(results), error, seconds, None


def _travelling_work() -> Callable[..., tuple[Any, ...]]:
    """Return `_work` as a function that travels by value.

    A function of a module travels as its name, and whoever unpickles it imports the module. A Dask scheduler does so,
    and would have to have torch and tvae.
    """

    def work(*order: Any) -> tuple[Any, ...]:
        from tvae.experiments import fanout

        return fanout._work(*order)

    return work


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
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no further word'}"


# What the driver does


class _Lost(Exception):
    """A cohort did not come back from its worker. The text says why, as a clause."""


class _NoWorkers(Exception):
    """Nobody is there to train, nor to be expected. The text says why, as a clause."""


class _Closed(Exception):
    """Nobody wants the results any more."""


class _Workers(ABC):
    """Workers of one kind. `slots` threads ask for seats at a time."""

    slots: int

    def __init__(self, threads: int | None, device: str) -> None:
        self.closed = threading.Event()
        self._threads, self._device, self._work = threads, device, _travelling_work()

    @abstractmethod
    def seat(self) -> AbstractContextManager[Callable[[bytes], _Reply]]:
        """Wait for a worker that has no cohort, and give what trains one there.

        What is given raises `_Lost` if the cohort does not come back.

        Raises:
            _NoWorkers: if there is no worker at all.
        """

    @abstractmethod
    def close(self) -> None:
        """End what was started. Nobody has a seat then."""

    def _order(self, task: bytes, threads: int | None) -> tuple[Any, ...]:
        return task, _CODE, self._device, threads

    def _go_on(self) -> None:
        if self.closed.is_set():
            raise _Closed


def _fan_out(tasks: Sequence[list[Member]], open_workers: Callable[[], _Workers]) -> Iterator[Trained]:
    """Give each cohort as it is done.

    Threads hand the cohorts out and wait for them, so workers go on while the caller is busy with what came back.
    """
    if not tasks:
        return
    workers = open_workers()
    todo: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    done: queue.SimpleQueue[Trained | BaseException] = queue.SimpleQueue()
    for place in range(len(tasks)):
        todo.put((place, 1))
    threads = [
        threading.Thread(target=_serve, args=(workers, tasks, todo, done), daemon=True)
        for _ in range(min(workers.slots, len(tasks)))
    ]

    def end() -> None:
        workers.closed.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join(CONNECT_TIMEOUT)
        workers.close()

    # An iterator that is kept to the end of the program would be closed too late for its libraries.
    atexit.register(end)
    try:
        for thread in threads:
            thread.start()
        for _ in tasks:
            trained = done.get()
            if isinstance(trained, BaseException):
                raise trained
            yield trained
    finally:
        end()
        atexit.unregister(end)


def _serve(
    workers: _Workers,
    tasks: Sequence[list[Member]],
    todo: "queue.SimpleQueue[tuple[int, int]]",
    done: "queue.SimpleQueue[Trained | BaseException]",
) -> None:
    """Give cohorts to workers, one at a time, until all are begun. A lost one is put back, and begun again last."""
    try:
        while True:
            try:
                with workers.seat() as train:
                    place, attempt = todo.get_nowait()
                    trained = _train_once(train, place, tasks[place], attempt)
            except _NoWorkers as reason:
                place, attempt = todo.get_nowait()
                trained = _untrained(place, reason)
            if trained is None:
                todo.put((place, attempt + 1))
            else:
                done.put(trained)
    except (_Closed, queue.Empty):
        return
    except BaseException as error:
        done.put(error)


def _train_once(train: Callable[[bytes], _Reply], place: int, members: list[Member], attempt: int) -> Trained | None:
    """Return what came back of a cohort, or None if it is to be tried again."""
    try:
        reply = train(pickle.dumps(members))
        if reply.refusal is not None:
            raise _Lost(reply.refusal)
        return Trained(place, pickle.loads(reply.results), reply.error, reply.seconds)
    except _Closed:
        raise
    except _NoWorkers as reason:
        return _untrained(place, reason)
    except _Lost as reason:
        if attempt <= RETRIES:
            return None
        return Trained(place, [], f"The cohort was lost {attempt} times, the last time because {reason}.", 0.0)
    except Exception as error:
        return Trained(place, [], _words(error), 0.0)


def _untrained(place: int, reason: _NoWorkers) -> Trained:
    return Trained(place, [], f"There was no worker to train the cohort: {reason}.", 0.0)


class _Loky(_Workers):
    """Processes of this machine."""

    def __init__(self, processes: int, threads: int, device: str) -> None:
        super().__init__(threads, device)
        self.slots = processes
        self._processes: set[_Process] = set()
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()

    @contextmanager
    def seat(self) -> Iterator[Callable[[bytes], _Reply]]:
        self._go_on()
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = _Process()
            self._processes.add(process)
        try:
            yield partial(self._train, process)
        finally:
            if process in self._processes:
                self._idle.put(process)

    def _train(self, process: "_Process", task: bytes) -> _Reply:
        try:
            process.pipe.send(self._order(task, self._threads))
            while not process.pipe.poll(POLL):
                self._go_on()
            return _Reply(*process.pipe.recv())
        except (EOFError, OSError) as error:
            self._processes.remove(process)
            raise _Lost(f"its process {process.end()}") from error

    def close(self) -> None:
        for process in self._processes:
            process.end()


class _Process:
    """A process of loky's, which does not import the program that started it, and a pipe to it."""

    def __init__(self) -> None:
        self.pipe, theirs = _LOKY.Pipe()
        self._process = _LOKY.Process(target=_attend, args=(theirs, os.getpid()), daemon=True)
        self._process.start()
        # The pipe breaks when its only other end goes with the process.
        theirs.close()

    def end(self) -> str:
        """End the process if it is alive, and return how it ended."""
        if self._process.is_alive():
            # A process ignores what the one that started it ignores.
            ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            os.kill(self._process.pid, signal.SIGKILL if ignored else signal.SIGTERM)
        self._process.join()
        self.pipe.close()
        code: int = self._process.exitcode
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"


def _attend(pipe: Any, driver: int) -> None:
    """Do what comes through the pipe, for as long as there is a driver."""
    # Ctrl-C reaches the whole group of processes, but it is the driver that ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_after, args=(driver,), daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_work(*pipe.recv()))


def _leave_after(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(POLL)
    os._exit(1)


class _Dask(_Workers):
    """Workers of a Dask cluster. A cohort is sent to a certain worker, and a worker has one at a time.

    By itself Dask would give what killed a worker to the next one at once, to four in all, and would suspect what else
    was waiting there. A task that is bound to a worker is lost with it, and comes back here.
    """

    def __init__(
        self, distributed: Any, address: str | None, workers: int | None, threads: int | None, device: str
    ) -> None:
        super().__init__(threads, device)
        self._distributed, self._lock = distributed, threading.Lock()
        self._busy: set[str] = set()
        self._refusals: dict[str, str] = {}
        with ExitStack() as opened:
            # Above 10 MB Dask advises to load data where they are needed. A cohort of 30 models is as large.
            config = importlib.import_module("dask").config
            opened.enter_context(config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}))
            cluster: Any = address
            if address is None:
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    # Its web server takes a port even without a dashboard. One that is free does not warn.
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
                opened.enter_context(cluster)
            try:
                self._client = distributed.Client(cluster, timeout=CONNECT_TIMEOUT, set_as_default=False)
            except Exception as error:
                raise _unreachable("Dask scheduler", address, error) from error
            opened.enter_context(self._client)
            self._present: dict[str, int] = self._client.nthreads()
            self._looked = self._manned = time.monotonic()
            self._opened = opened.pop_all()
        self.slots = workers or max(DASK_SLOTS, len(self._present))

    @contextmanager
    def seat(self) -> Iterator[Callable[[bytes], _Reply]]:
        while (worker := self._free_worker()) is None:
            time.sleep(POLL / 5)
        try:
            yield partial(self._train, worker)
        finally:
            with self._lock:
                self._busy.discard(worker)

    def _free_worker(self) -> str | None:
        """Take a worker that has no cohort, and return its address, or None if all have one."""
        self._go_on()
        with self._lock:
            now = time.monotonic()
            able = self._workers(now).keys() - self._refusals.keys()
            if self._present:
                self._manned = now
            if self._present and not able:
                raise _NoWorkers(next(iter(self._refusals.values())))
            if now > self._manned + WORKERLESS_TIMEOUT:
                raise _NoWorkers(f"the cluster had none for {WORKERLESS_TIMEOUT:g} s")
            if not (free := able - self._busy):
                return None
            worker = free.pop()
            self._busy.add(worker)
            return worker

    def _workers(self, now: float) -> dict[str, int]:
        """Return the workers with their threads, as they were at most `POLL` ago."""
        if now > self._looked + POLL:
            try:
                self._present, self._looked = self._client.nthreads(), now
            except Exception as error:
                raise _NoWorkers(f"the scheduler does not answer ({_words(error)})") from error
        return self._present

    def _train(self, worker: str, task: bytes) -> _Reply:
        threads = self._present.get(worker) if self._threads is None else self._threads
        future = self._client.submit(
            self._work, *self._order(task, threads), workers=[worker], pure=False, retries=0, allow_other_workers=False
        )
        try:
            reply = _Reply(*self._wait(worker, future))
        except ImportError as error:
            reply = _Reply(b"", None, 0.0, f"of {_words(error)} on the worker")
        except (CancelledError, self._distributed.KilledWorker) as error:
            raise _Lost(f"of {_words(error)}") from error
        finally:
            with suppress(Exception):
                future.cancel()
        if reply.refusal is not None:
            # One that cannot train is always free, and would take one cohort after another.
            with self._lock:
                self._refusals[worker] = reply.refusal
        return reply

    def _wait(self, worker: str, future: Any) -> Any:
        while True:
            try:
                return future.result(timeout=POLL)
            except TimeoutError as error:
                if future.status == "error":
                    raise _Lost(f"of {_words(error)}") from error
            self._go_on()
            with self._lock:
                if worker not in self._workers(time.monotonic()):
                    raise _Lost(f"its worker {worker} died")

    def close(self) -> None:
        self._opened.close()


class _Ray(_Workers):
    """Workers of a Ray cluster. Ray has a process for each task, and replaces one that died."""

    def __init__(self, ray: Any, address: str | None, workers: int | None, threads: int | None, device: str) -> None:
        super().__init__(threads, device)
        self._ray, self._opened = ray, not ray.is_initialized()
        if self._opened:
            self._open(address, workers)
        there = ray.cluster_resources()
        self.slots = workers or max(1, int(there.get("CPU", 0)))
        # Ray would wait for a GPU that is not there. Without one, torch says so.
        gpus = 1 if device.startswith("cuda") and "GPU" in there else 0
        self._remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(self._work)

    def _open(self, address: str | None, workers: int | None) -> None:
        settings: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            # A cluster of this machine's own has no reason to report its use.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            settings |= {"num_cpus": workers, "include_dashboard": False}
        elif address != "auto":
            _knock(address)
        # Ray makes SIGTERM an exit of its own. What the program does about it is the program's affair.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(**settings)
        except Exception as error:
            raise _unreachable("Ray cluster", address, error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)

    @contextmanager
    def seat(self) -> Iterator[Callable[[bytes], _Reply]]:
        self._go_on()
        yield self._train

    def _train(self, task: bytes) -> _Reply:
        reference = self._remote.remote(*self._order(task, self._threads))
        try:
            while not self._ray.wait([reference], timeout=POLL)[0]:
                self._go_on()
            return _Reply(*self._ray.get(reference))
        except _Closed:
            self._ray.cancel(reference, force=True)
            raise
        except self._ray.exceptions.RayError as error:
            raise _Lost(f"of {_words(getattr(error, 'cause', None) or error)}") from error

    def close(self) -> None:
        if self._opened:
            self._ray.shutdown()


def _knock(address: str) -> None:
    """Connect and disconnect. Ray itself tries for minutes, and may then end the process."""
    host, _, port = address.rpartition("://")[2].partition(":")
    try:
        socket.create_connection((host, int(port or 10001)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise _unreachable("Ray cluster", address, error) from error


def _unreachable(what: str, address: str | None, error: Exception) -> ConfigurationError:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    reason = (str(root).strip() or type(root).__name__).splitlines()[-1].rstrip(".")
    return ConfigurationError(f"A {what} must answer at `address`, got none from {address}: {reason}.")
