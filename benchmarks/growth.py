"""How time and memory grow with the number of operations: tvae from 3^5 to 3^13, and gensim on the same trees.

Each size has a process of its own, whose peak of memory is its own. Prints a Markdown table and writes it to GROWTH.md
beside this file. It takes about ten minutes; `make bench-growth` installs gensim first.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
OURS = range(5, 14)
# An epoch of gensim takes three times as long with each trit, and this is where it has passed half a minute.
THEIRS = range(5, 11)
# Beyond, an epoch is no pass over all operations any more, and an evaluation takes samples: each side has an exponent.
PASSES = 11
SAMPLES = 11
Found = dict[str, float]


def peak() -> float:
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def seconds(work: Callable[[], object]) -> float:
    """Time some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tvae(n_trits: int) -> Found:
    """Train one epoch of both stages of `default`, with the metrics of the epoch, and evaluate."""
    from tvae.config.presets import resolve, resolve_foundation
    from tvae.metrics import evaluate
    from tvae.training import train
    from tvae.training.start import from_foundation, from_scratch

    def stages(n_trits: int) -> Found:
        architecture, configuration = resolve("default", {"n_trits": n_trits, "epochs": 1})
        first = train(from_scratch(architecture, resolve_foundation(architecture, {"epochs": 1})))
        second = train(from_foundation(first, configuration))
        return {"train": first.seconds + second.seconds, "evaluate": seconds(lambda: evaluate(second.model))}

    stages(3)
    before = peak()
    return stages(n_trits) | {"bytes": peak() - before}


def gensim(n_trits: int) -> Found:
    """Train one epoch of gensim's PoincareModel on all ancestors of the tree; nothing is evaluated."""
    from peers import GENSIM_BATCH, PoincareModel, tree

    before = peak()
    model = PoincareModel(tree(n_trits, closure=True), size=16, burn_in=0)
    spent = seconds(lambda: model.train(epochs=1, batch_size=GENSIM_BATCH, print_every=10**9))
    return {"train": spent, "bytes": peak() - before}


def measured(what: str, n_trits: int) -> Found:
    """Measure one size in a process of its own, on one thread."""
    command = [sys.executable, __file__, "--one", what, str(n_trits)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found: Found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    print(what, n_trits, found, file=sys.stderr)
    return found


def exponent(of: dict[int, Found], name: str, first: int, last: int) -> str:
    """Return by which power of the number of operations a figure grows between two sizes."""
    sizes = [n for n in of if first <= n <= last]
    return f"{np.polyfit([n * np.log(3) for n in sizes], np.log([of[n][name] for n in sizes]), 1)[0]:.2f}"


def table(ours: dict[int, Found], theirs: dict[int, Found]) -> str:
    """Return the Markdown table."""
    lines = [
        "| operations | an epoch of both stages (s) | evaluation (s) | bytes an operation and dimension | gensim, an "
        "epoch (s) | bytes an operation and dimension |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n, of in ours.items():
        other = theirs.get(n)
        cells = [f"{other['train']:.1f}", f"{other['bytes'] / 3**n / 16:.0f}"] if other else ["-", "-"]
        own = [f"{of['train']:.1f}", f"{of['evaluate']:.1f}", f"{of['bytes'] / 3**n / 16:.0f}"]
        lines.append(f"| 3^{n} | {' | '.join([*own, *cells])} |")
    exponents = [
        exponent(ours, "train", 7, PASSES),
        exponent(ours, "evaluate", 7, SAMPLES - 1),
        exponent(ours, "bytes", 9, 13),
        *([exponent(theirs, name, 7, 10) for name in ("train", "bytes")] if theirs else ["-", "-"]),
    ]
    lines.append(
        f"| exponent: passes from 3^7 to 3^11, evaluation to 3^10, memory from 3^9 | {' | '.join(exponents)} |"
    )
    capped = [exponent(ours, "train", PASSES, 13), exponent(ours, "evaluate", SAMPLES, 13), "-", "-", "-"]
    lines.append(f"| exponent of what is capped or sampled, from 3^11 | {' | '.join(capped)} |")
    return "\n".join(lines)


def page(ours: dict[int, Found], theirs: dict[int, Found]) -> str:
    """Return the page."""
    from training import machine

    return (
        f"# How time and memory grow\n\nWritten by `make bench-growth`. {machine()} One thread; memory beyond that of "
        f"a process which has trained 27 operations.\n\n{table(ours, theirs)}\n\nFrom 3^11 on an epoch draws 3^11 "
        "operations, and is measured on all, and an evaluation looks for the neighbours of a sample. An epoch of "
        "gensim is given every ancestor of every operation; its exponents are from 3^7.\n"
    )


def main() -> None:
    """Measure everything, print it, and write GROWTH.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps({"tvae": tvae, "gensim": gensim}[asked.one[0]](int(asked.one[1]))))
        return
    ours = {n: measured("tvae", n) for n in OURS}
    theirs = {n: measured("gensim", n) for n in THEIRS} if find_spec("gensim") else {}
    text = page(ours, theirs)
    print(text)
    (HERE / "GROWTH.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
