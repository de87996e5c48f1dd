"""What training many runs at once is worth: cohorts against single runs, growth, and the whole sweep as a command.

Everything is measured in one run on one machine, and the bounds are ratios or sums of the same run: two machines, or a
busy and a quiet one, differ by more than what is measured. Prints a Markdown table and writes it to RESULTS.md beside
this file. `python benchmarks/training.py --help` lists the options; with the defaults it takes six to ten minutes.
"""

import argparse
import copy
import itertools
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import torch
from mlflow import MlflowClient

import tvae
from tvae.config.presets import resolve
from tvae.model import TernaryVAE
from tvae.training import Member, train, train_cohort
from tvae.training.start import from_scratch

HERE = Path(__file__).resolve().parent
EPOCHS = 4
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
TRITS = (7, 8, 9, 10, 11)
SINGLES = 25


class Row(NamedTuple):
    """A line of the table."""

    what: str
    bound: str
    seen: str


def members(count: int, n_trits: int = 9) -> list[Member]:
    """Return runs that share an encoder; each has a projection of its own, as in a sweep."""
    architecture, settings = resolve("radii", {"n_trits": n_trits, "epochs": EPOCHS, "initial_hierarchy": "any"})
    base = TernaryVAE(architecture)
    base.initialise(torch.Generator().manual_seed(0))
    made = []
    for seed in range(count):
        model, generator = copy.deepcopy(base), torch.Generator().manual_seed(seed)
        model.initialise(generator, ("projection",))
        made.append(Member(settings.replace(seed=seed), model, ("projection",), generator))
    return made


def member_epoch(count: int, n_trits: int = 9) -> float:
    """Return the milliseconds that an epoch of one member takes in a cohort."""
    cohort = members(count, n_trits)
    return seconds(lambda: train_cohort(cohort)) / count / EPOCHS * 1e3


def seconds(work: Callable[[], object]) -> float:
    """Time some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cohort_against_singles() -> Row:
    """Train the same runs together and one by one."""
    together = seconds(lambda: train_cohort(members(SINGLES)))
    singles = members(SINGLES)
    apart = seconds(lambda: [train(member) for member in singles])
    return Row(
        f"cohort of {SINGLES} against {SINGLES} single runs, time a member",
        "<= 0.40",
        f"{together / apart:.2f} ({together / SINGLES / EPOCHS * 1e3:.0f} against {apart / SINGLES / EPOCHS * 1e3:.0f} "
        "ms an epoch)",
    )


def growth_with_members(repeats: int) -> Row:
    """Time cohorts of growing size, in turns, so that a busy moment does not fall on one of them alone."""
    rounds = [[member_epoch(count) for count in MEMBERS] for _ in range(repeats)]
    best = [min(times) for times in zip(*rounds, strict=True)]
    shown = ", ".join(f"{count}: {ms:.0f}" for count, ms in zip(MEMBERS, best, strict=True))
    worst = max(later / earlier for earlier, later in itertools.pairwise(best))
    return Row("time a member-epoch from 1 to 64 members (ms)", "never grows", f"{shown}; largest step ×{worst:.2f}")


def growth_with_operations(repeats: int) -> Row:
    """Fit the exponent of time against the number of operations."""
    rounds = [[member_epoch(8, n) for n in TRITS] for _ in range(repeats)]
    best = [min(times) for times in zip(*rounds, strict=True)]
    exponent = np.polyfit([n * math.log(3) for n in TRITS], np.log(best), 1)[0]
    shown = ", ".join(f"3^{n}: {ms:.1f}" for n, ms in zip(TRITS, best, strict=True))
    return Row("exponent of time in operations, 3^7 to 3^11", "<= 1.1", f"{exponent:.2f} ({shown} ms)")


def default_beside_a_busy_process() -> Row:
    """Time a run of the default preset by itself, and beside a process that keeps one processor busy."""
    alone = default_epoch()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        beside = default_epoch()
        busy.kill()
    return Row("an epoch of `default`, alone and beside a busy process", "-", f"{alone:.0f} and {beside:.0f} ms")


def default_epoch() -> float:
    """Return the milliseconds that an epoch of a single run of the default preset takes."""
    member = from_scratch(*resolve("default", {"epochs": EPOCHS}))
    return train(member).seconds / EPOCHS * 1e3


class Watch(threading.Thread):
    """Samples the memory of a process and all that it has started."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.peak = max(self.peak, sum(_resident(pid) for pid in _family(self.pid)))


def _family(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _resident(pid: int) -> int:
    """Return the bytes a process holds, pages that it shares with others divided among them."""
    with suppress(OSError, StopIteration, IndexError, ValueError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) * 1024
    return 0


def sweep(folder: Path, seeds: int, bound: str, command_bound: str | None) -> list[Row]:
    """Type the sweep of the reference's 55 experiments as a user does, and read what it says of itself."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    started = time.perf_counter()
    with (folder / f"sweep-{seeds}.txt").open("w") as out:
        command = [sys.executable, "-m", "entry_points.sweep", "--seeds", str(seeds)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        watch = Watch(process.pid)
        watch.start()
        code = process.wait()
        watch.over.set()
        watch.join()
    whole = time.perf_counter() - started
    if code != 0:
        raise SystemExit(f"The sweep failed with exit code {code}:\n{(folder / f'sweep-{seeds}.txt').read_text()}")
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("tvae")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.stage = 'sweep'", max_results=1)
    metrics = run.data.metrics
    name = f"`sweep phase=all seeds={seeds}`, {metrics['trials']:.0f} runs"
    return [
        Row(f"{name}: training", bound, f"{metrics['train_seconds']:.0f} s"),
        Row(f"{name}: whole command", command_bound or "-", f"{whole:.0f} s"),
        Row(f"{name}: writing to MLflow, of the whole", "<= 40 %", f"{metrics['logging_seconds'] / whole:.0%}"),
        Row(f"{name}: memory of all its processes", "<= 3 GB", f"{watch.peak / 1e9:.2f} GB"),
    ]


def machine() -> str:
    """Describe the machine in a sentence."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return (
        f"{name}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, tvae {tvae.__version__}."
    )


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table."""
    return "\n".join(["| | bound | seen |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    """Measure everything, print it, and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement of growth; the fastest counts")
    parser.add_argument("--no-sweep", action="store_true", help="leave the sweeps out: two minutes rather than eight")
    asked = parser.parse_args()
    # What a process does first, it does slowly.
    member_epoch(2)
    busy = statistics.median(member_epoch(1) for _ in range(3))
    rows = [
        default_beside_a_busy_process(),
        cohort_against_singles(),
        growth_with_members(asked.repeats),
        growth_with_operations(asked.repeats),
    ]
    if not asked.no_sweep:
        for seeds, bound, command_bound in ((1, "<= 45 s", None), (3, "<= 120 s", "<= 240 s")):
            with tempfile.TemporaryDirectory() as folder:
                rows += sweep(Path(folder), seeds, bound, command_bound)
    again = statistics.median(member_epoch(1) for _ in range(3))
    text = (
        f"# What training many runs at once is worth\n\nWritten by `make bench`. {machine()}\n"
        f"A single run took {busy:.0f} ms an epoch at the start of these measurements and {again:.0f} at the end: "
        f"where the two differ, so did the machine's other work.\n\n{table(rows)}\n"
    )
    print(text)
    if not asked.no_sweep:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
