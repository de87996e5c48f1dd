"""This checkout beside another one, an older commit's say: the same command in both, in turns, on one machine.

    python benchmarks/against.py ../old "scratch" --theirs "scratch --preset exact_tree" --repeats 3

Each command runs in a new tracking store of its own. What its parent or only run logged as `train_seconds` is compared,
and the seconds of the whole command. Prints a Markdown table: medians, and their ratios. The other checkout needs to be
usable with the Python that runs this.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

OURS = Path(__file__).resolve().parents[1]


def measure(checkout: Path, command: str) -> tuple[float, float]:
    """Return the seconds of training and of the whole of a command.

    Args:
        checkout: where its code is.
        command: an entry point and its options.
    """
    entry_point, *options = command.split()
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{folder}/mlflow.db"
        environment = os.environ | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": address}
        started = time.perf_counter()
        words = [sys.executable, "-m", f"entry_points.{entry_point}", *options]
        subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("tvae")
        assert experiment is not None
        filter_string = f"tags.stage = '{entry_point}'"
        (run,) = client.search_runs([experiment.experiment_id], filter_string, max_results=1)
        return run.data.metrics["train_seconds"], whole


def main() -> None:
    """Measure in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the other one")
    parser.add_argument("command", help="an entry point with its options")
    parser.add_argument("--theirs", help="the command in the other checkout, where it is another")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    sides = {"here": (OURS, asked.command), "there": (asked.checkout.resolve(), asked.theirs or asked.command)}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(asked.repeats):
        for name, side in sides.items():
            seen[name].append(measure(*side))
    print("| | training, s | whole command, s | each, s |\n| --- | --- | --- | --- |")
    medians = {}
    for name, (_, command) in sides.items():
        training, whole = medians[name] = [statistics.median(values) for values in zip(*seen[name], strict=True)]
        each = ", ".join(f"{a:.1f} of {b:.1f}" for a, b in seen[name])
        print(f"| `{command}` {name} | {training:.1f} | {whole:.1f} | {each} |")
    ratios = [f"{a / b:.2f}" for a, b in zip(medians["here"], medians["there"], strict=True)]
    print(f"| here / there | {' | '.join(ratios)} | |")


if __name__ == "__main__":
    main()
