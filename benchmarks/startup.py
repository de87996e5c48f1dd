"""What a command costs beside its training: a second `mlflow run . -e finetune`, in imports of torch and mlflow.

U is `python -c 'import torch, mlflow'`. The command, U, and `mlflow run` of a project that does nothing take turns, so
that a busy machine slows all three; what is printed are medians. Wall time is what a person waits for. Processor time,
of all processes together, is steadier on a machine that others use, and shows what was moved beside other work rather
than saved. Then one more command under cProfile says where the time of its own process goes, and `--help` of every
entry point is timed.

The store is a temporary one. `python benchmarks/startup.py --help` lists the options; with the defaults it takes some
minutes.
"""

import argparse
import json
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
# In U: of `mlflow run`, and of the command by itself.
AIM, AIM_ALONE = 3.1, 2.0
HELP_SECONDS = 0.5
MLFLOW_RUN = (sys.executable, "-m", "mlflow", "run")
LOCAL = "--env-manager=local"
# Functions whose time says where the time goes, by file and name.
PARTS = {
    "imports": ("tvae/workflows/session.py", "<module>"),
    "the store is opened": ("tracking/store.py", "connect"),
    "the start is found": ("tvae/workflows/session.py", "starting_checkpoint"),
    "training": ("training/cohort.py", "train_cohort"),
    "epochs are logged": ("tracking/run.py", "log_epochs"),
    "evaluation": ("metrics/evaluation.py", "evaluate"),
    "what the run holds: all but the evaluation": ("tracking/outcome.py", "log_embedding"),
    "the served model": ("tracking/model.py", "log_model"),
    "promotion": ("registry/promotion.py", "promote"),
}


class Took(NamedTuple):
    """Seconds of a command: what a person waits, and what all its processes used."""

    wall: float
    processor: float


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each command is measured")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.run(*MLFLOW_RUN, str(ROOT), "-e", "finetune", LOCAL)
        print(f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {rounds} in turns.\n")
        print(desk.compare(rounds), "\n", sep="")
        print(desk.profile(), "\n", sep="")
        print(desk.helps())


class Desk:
    """A folder with a store of its own, in which commands are measured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nothing = folder, folder / "nothing"
        self.nothing.mkdir()
        (self.nothing / "MLproject").write_text('name: nothing\nentry_points:\n  main:\n    command: "true"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path, "PYTHONPATH": str(ROOT)}
        self.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"

    def run(self, *words: str) -> Took:
        """Run a command to its end, and return what it took."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} must succeed, got exit code {done.returncode}:\n{done.stderr}")
        return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def compare(self, rounds: int) -> str:
        """Return the table of U, of MLflow's own share, and of the command."""
        unit, own, whole, alone = [], [], [], []
        for _ in range(rounds):
            unit.append(self.run(sys.executable, "-c", "import torch, mlflow"))
            own.append(self.run(*MLFLOW_RUN, str(self.nothing), LOCAL))
            whole.append(self.run(*MLFLOW_RUN, str(ROOT), "-e", "finetune", LOCAL))
            alone.append(self.run(sys.executable, "-m", "entry_points.finetune"))
        training = self.train_seconds()[: 2 * rounds][::-1]  # they come the newest first
        units = Took(*(statistics.median(values) for values in zip(*unit, strict=True)))
        rows = ["| | wall | in U | processor | in U |", "| --- | --- | --- | --- | --- |"]
        for name, took in (
            ("`python -c 'import torch, mlflow'`, U", unit),
            ("`mlflow run` of nothing", own),
            ("`mlflow run . -e finetune`", whole),
            ("`python -m entry_points.finetune`", alone),
        ):
            wall, processor = (statistics.median(values) for values in zip(*took, strict=True))
            shares = f"{wall / units.wall:.2f} | {processor:.2f} s | {processor / units.processor:.2f}"
            rows.append(f"| {name} | {wall:.2f} s | {shares} |")
        for name, took, seconds, aim in (
            ("`mlflow run`", whole, training[::2], AIM),
            ("the command", alone, training[1::2], AIM_ALONE),
        ):
            beside = [one.wall - trained for one, trained in zip(took, seconds, strict=True)]
            in_units = statistics.median(rest / one.wall for rest, one in zip(beside, unit, strict=True))
            name = f"{name} less `train_seconds` ({statistics.median(seconds):.2f} s)"
            rows.append(f"| {name} | {statistics.median(beside):.2f} s | {in_units:.2f}, aim <= {aim} | | |")
        return "\n".join(rows)

    def train_seconds(self) -> list[float]:
        """Return the training time of every finetuning of this desk, the newest first."""
        code = (
            "import json, mlflow\n"
            "runs = mlflow.search_runs(search_all_experiments=True, output_format='list', "
            "filter_string=\"tags.stage = 'finetune'\")\n"
            "print(json.dumps([run.data.metrics['train_seconds'] for run in runs]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return list(json.loads(done.stdout))

    def profile(self) -> str:
        """Return where the time of the command's own process goes; profiling itself adds to it."""
        to = self.folder / "profile"
        self.run(sys.executable, "-m", "cProfile", "-o", str(to), "-m", "entry_points.finetune")
        found = pstats.Stats(str(to)).stats  # type: ignore[attr-defined]
        seconds = {
            part: sum(entry[3] for (path, _, name), entry in found.items() if path.endswith(file) and name == function)
            for part, (file, function) in PARTS.items()
        }
        seconds["what the run holds: all but the evaluation"] -= seconds["evaluation"]
        seconds["training"] -= seconds["epochs are logged"]
        lines = [f"| {part} | {took:.2f} s |" for part, took in seconds.items()]
        return "\n".join(["| under cProfile, wall | |", "| --- | --- |", *lines])

    def helps(self) -> str:
        """Return how long `--help` of every entry point takes."""
        names = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].keys() - {"main"}
        took = {
            name: min(self.run(sys.executable, "-m", f"entry_points.{name}", "--help").wall for _ in range(3))
            for name in sorted(names)
        }
        lines = [f"| {name} | {seconds:.2f} s |" for name, seconds in took.items()]
        return "\n".join([f"| `--help`, best of 3, aim <= {HELP_SECONDS} s | |", "| --- | --- |", *lines])


if __name__ == "__main__":
    main()
