"""What serving costs: the model against a no-op with the same signature, each on a real server of its own.

The no-op (`no_op.py`) answers every row with the same record of one number, so what it costs is MLflow's: reading the
body, turning it into an array, writing the response. With `--spare-gc` it also spares the garbage collector as the
model does, and what is left of the difference is what the model itself does with a request. Requests to the two servers
take turns, so that a busy machine slows both.

Before that, each server is started some times, to its first answer. With `--beside` all this is measured of another
model too, such as one that an earlier version of the project has logged.

Then many clients at once ask the model alone, and every tenth request is one that cannot be answered.

Prints Markdown tables. `python benchmarks/serving.py --help` lists the options; with the defaults it takes three
minutes.
"""

import argparse
import gc
import http.client
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import numpy as np
import torch
from load import REFUSED, Load, put_under_load
from mlflow.pyfunc import scoring_server
from model_server import HOST, serve

from tvae import ternary
from tvae.checkpoint import FILE_NAME, read, save
from tvae.config.architecture import Architecture
from tvae.model import COMPONENTS, TernaryVAE
from tvae.served import TABLE, read_table
from tvae.serving import pyfunc_arguments
from tvae.ternary import N_TRITS

REQUEST_SECONDS = 30
SETTLED_SECONDS = 10
NAMES = ("model", "no-op", "beside")


def main() -> None:
    """Start both servers, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="what to serve; default: a model with random weights")
    parser.add_argument("--beside", type=Path, help="the folder of another MLflow model to measure beside it")
    parser.add_argument("--starts", type=int, default=3, help="how often each server is started to its first answer")
    parser.add_argument("--single", type=int, default=500, help="requests of one row, to each server")
    parser.add_argument("--bulk", type=int, default=15, help="requests of all operations, to each server")
    parser.add_argument("--load", type=float, default=60, help="seconds of many clients at once; 0: none")
    parser.add_argument("--clients", type=int, default=8, help="how many these are")
    parser.add_argument("--spare-gc", action="store_true", help="let the no-op spare the garbage collector too")
    options = parser.parse_args()
    if options.spare_gc:
        os.environ["NO_OP_SPARES_GC"] = "1"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        saved = save_models(Path(folder), options.checkpoint)
        if options.beside:
            saved = (*saved, options.beside.resolve())
        if options.starts:
            print(report_starts(saved, options.starts), "\n")
        servers = [stack.enter_context(serve(path)) for path in saved]
        clients = [stack.enter_context(closing(Client(server.port))) for server in servers]
        print(report(clients, options.single, options.bulk))
        for name, path in zip(NAMES[: len(saved)], saved, strict=True):
            print(f"\n{name}: {report_stages(path, options.bulk)}")
        if options.load:
            known = read_table(saved[0] / "data" / "served" / TABLE)[0]
            under_load = put_under_load(servers[0], known, clients=options.clients, seconds=options.load)
            print(f"\n{report_load(under_load, options.clients)}")


class Client:
    """One connection to a server, kept alive."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)

    def seconds(self, body: bytes) -> float:
        """Send a request and return how long it took until the whole response was here."""
        try:
            return self._seconds(body)
        except ConnectionError:  # The server has ended a connection that was idle for 5 s.
            self.close()
            return self._seconds(body)

    def _seconds(self, body: bytes) -> float:
        start = time.perf_counter()
        self.connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        content = response.read()
        elapsed = time.perf_counter() - start
        if response.status != 200:
            raise RuntimeError(f"The server must answer 200, got {response.status}: {content[:300]!r}.")
        return elapsed

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


def report_starts(saved: Sequence[Path], times: int) -> str:
    """Start each server some times, in turns, and return what it takes to the first answer, as a table.

    Memory is that of the server proper, and with the command that started it.
    """
    body = json.dumps({"inputs": [[0] * N_TRITS]}).encode()
    taken: list[list[tuple[float, float, float]]] = [[] for _ in saved]
    for _ in range(times):
        for path, one in zip(saved, taken, strict=True):
            start = time.perf_counter()
            with serve(path) as server, closing(Client(server.port)) as client:
                client.seconds(body)
                seconds = time.perf_counter() - start
                held = server.resident_bytes_of_each()
                one.append((seconds, held[0] / 2**20, sum(held) / 2**20))
    medians = [[statistics.median(column) for column in zip(*one, strict=True)] for one in taken]
    names = ("start to first answer, s", "server, MB", "server and command, MB")
    rows = [
        f"| {name} | {' | '.join(f'{m[i]:.2f}' if i == 0 else f'{m[i]:.0f}' for m in medians)} |"
        for i, name in enumerate(names)
    ]
    return "\n".join(
        [
            f"Medians of {times} starts, in turns.",
            "",
            f"| | {' | '.join(NAMES[: len(saved)])} |",
            "| --- |" + " --- |" * len(saved),
            *rows,
        ]
    )


def report(clients: list[Client], single: int, bulk: int) -> str:
    """Measure all servers, and return the table.

    Args:
        clients: of the model, of the no-op, and of the model beside them if there is one.
        single: requests of one row to each.
        bulk: requests of all operations to each.
    """
    trits = ternary.operations().tolist()
    indices = [[i] for i in range(len(trits))]
    rows, n = len(trits), len(clients)
    requests = {
        "one row of trits, p50": ({"inputs": trits[:1]}, single),
        "one index, p50": ({"inputs": indices[:1]}, single),
        f"{rows:,} rows of trits": ({"inputs": trits}, bulk),
        f"{rows:,} indices": ({"inputs": indices}, bulk),
        f"{rows:,} indices, `embedding`": ({"inputs": indices, "params": {"embedding": True}}, 3),
    }
    lines = [
        f"Medians of {single} requests of one row and {bulk} of {rows:,} rows, to each server in turns; "
        f"one worker each, keep-alive. {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"mlflow {mlflow.__version__}.",
        "",
        f"| request, ms | {' | '.join(NAMES[:n])} | model against {' | against '.join(NAMES[1:n])} |",
        "| --- |" + " --- |" * (2 * n - 1),
    ]
    for name, (request, times) in requests.items():
        model, *others = taken = in_turns(clients, request, times)
        shown = [f"{seconds * 1e3:.2f}" for seconds in taken] + [f"{model / other:.2f}" for other in others]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def report_stages(model_path: Path, times: int) -> str:
    """Return what a request of all operations spends where, measured in this process, as a table.

    Args:
        model_path: of the saved model.
        times: how often each stage is measured.
    """
    model = mlflow.pyfunc.load_model(str(model_path))
    schema = model.metadata.get_input_schema()
    gc.collect()
    gc.freeze()  # as the model does in the server
    trits = ternary.operations().tolist()
    taken: dict[str, list[float]] = {"MLflow reads the body": [], "the model": [], "MLflow writes the answer": []}
    for inputs in (trits, [[i] for i in range(len(trits))]):
        body = json.dumps({"inputs": inputs}).encode()
        cells = scoring_server._parse_json_data(body, model.metadata, schema).data
        records = model.predict(cells)
        stages: tuple[Callable[[], object], ...] = (
            lambda body=body: scoring_server._parse_json_data(body, model.metadata, schema),
            lambda cells=cells: model.predict(cells),
            lambda records=records: scoring_server.predictions_to_json(records, io.StringIO()),
        )
        for name, stage in zip(taken, stages, strict=True):
            taken[name].append(statistics.median(processor_seconds(stage) for _ in range(times)))
    gc.unfreeze()
    taken["together"] = [sum(column) for column in zip(*taken.values(), strict=True)]
    rows = (
        f"| {name} | {by_trits * 1e3:.1f} ms | {by_index * 1e3:.1f} ms | {by_trits / by_index:.2f} |"
        for name, (by_trits, by_index) in taken.items()
    )
    return "\n".join(
        [
            f"where a request of {len(trits):,} rows spends its processor time, medians of {times}:",
            "",
            "| stage | trits | indices | trits against indices |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def processor_seconds(stage: Callable[[], object]) -> float:
    """Return the processor time that a stage takes, in seconds: other processes do not count."""
    start = time.process_time()
    stage()
    return time.process_time() - start


def report_load(load: Load, clients: int) -> str:
    """Return what a server did under load, as a table."""
    lasted, requests = load.resident[-1][0], len(load.statuses)
    settled = min(SETTLED_SECONDS, lasted / 2)
    before, after = (held / 2**20 for held in load.growth(settled))
    counts = ", ".join(f"{load.statuses.count(status):,} times {status}" for status in sorted(set(load.statuses)))
    lines = [
        f"{clients} clients at once for {lasted:.0f} s, one request in ten bad: {requests:,} requests, "
        f"{requests / lasted:,.0f} a second; answered {counts}; {len(load.wrong)} answers wrong. "
        f"Memory of the server's processes: {before:.0f} MB after the first {settled:g} s, {after:.0f} MB at the end.",
        "",
        "| request | p50 | p99 | longest |",
        "| --- | --- | --- | --- |",
    ]
    for kind, seconds in sorted(load.seconds.items(), key=lambda item: (item[0] == REFUSED, item[0])):
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        lines.append(f"| {kind} | {p50:.1f} ms | {p99:.1f} ms | {max(seconds) * 1e3:.0f} ms |")
    return "\n".join([*lines, *load.wrong])


def in_turns(clients: list[Client], request: object, times: int) -> tuple[float, ...]:
    """Return each client's median seconds for a request."""
    body = json.dumps(request).encode()
    taken: list[list[float]] = [[] for _ in clients]
    for client in clients:
        client.seconds(body)
    for _ in range(times):
        for client, seconds in zip(clients, taken, strict=True):
            seconds.append(client.seconds(body))
    return tuple(statistics.median(seconds) for seconds in taken)


def save_models(folder: Path, checkpoint: Path | None) -> tuple[Path, ...]:
    """Save the model and the no-op as MLflow models, and return where."""
    if checkpoint is None:
        checkpoint = folder / FILE_NAME
        model = TernaryVAE(Architecture())
        model.initialise(torch.Generator().manual_seed(0))
        save(checkpoint, model, trained=COMPONENTS[:3], training={}, metrics={})
    arguments = pyfunc_arguments(read(checkpoint), folder / "files")
    mlflow.pyfunc.save_model(folder / "model", **arguments)
    same = {name: arguments[name] for name in ("signature", "input_example", "pip_requirements")}
    mlflow.pyfunc.save_model(folder / "no_op", python_model=str(Path(__file__).with_name("no_op.py")), **same)
    return folder / "model", folder / "no_op"


if __name__ == "__main__":
    main()
