"""docs/metrics.md: the names on the page are those that the code logs, no more and no fewer.

Each list of names comes from running the code that logs it, with a recorder in place of MLflow.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exact_model import architecture, exact_model
from mlflow import MlflowClient

from tvae import metrics, ternary
from tvae.checkpoint import read, save, verification, verify
from tvae.checkpoint.verification import load_afresh
from tvae.config.architecture import Architecture
from tvae.config.bounds import Bounds
from tvae.config.presets import resolve
from tvae.config.training import FOUNDATION, Configuration
from tvae.metrics import evaluate
from tvae.model import COMPONENTS
from tvae.objectives import TERMS, level_margin
from tvae.registry.comparison import RANKING
from tvae.sweeps.executors import TrainedCohort
from tvae.sweeps.plan import Plan
from tvae.sweeps.stability import stability_metrics
from tvae.sweeps.trial import Trial
from tvae.tracking import outcome
from tvae.tracking import run as run_module
from tvae.tracking.children import Children
from tvae.training import Result, train
from tvae.training.cohort import MAX_REDRAWS
from tvae.training.start import from_foundation, from_scratch
from tvae.workflows import sweep as sweep_workflow
from tvae.workflows.sweep import Clock, Sweep

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PROSE = re.sub(r"\s+", " ", TEXT)
N_TRITS = 3

OF_THE_MODEL = {"tree_precision", "sibling_recall", "ball_coverage", "q"}
"""What a run logs of its model at the end, beside what its epochs have."""


# Reading the page


def rows(header: str) -> list[list[str]]:
    """Return the rows of every table of the page whose first column has this header."""
    found = []
    for table in TEXT.split(f"\n| {header} | ")[1:]:
        lines = table.split("\n\n")[0].splitlines()[2:]
        found += [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert found
    return found


def section(title: str) -> str:
    return TEXT.split(f"# {title}\n")[1].split("\n#")[0]


def names_of(title: str) -> list[str]:
    """Return the metrics in the first columns of the tables of a section, one for each that a pattern stands for."""
    named = []
    for cell in re.findall(r"^\| (`.+?) \|", section(title), re.MULTILINE):
        name = cell.strip("`")
        if "TERM" in name:
            named += [name.replace("TERM", term) for term in listed("TERM")]
        elif "NAME" in name:
            named += [name.replace("NAME", of) for of in listed("NAME")]
        else:
            named.append(name)
    assert len(named) == len(set(named))
    return named


def listed(what: str) -> list[str]:
    """Return the list in the sentence that begins `WHAT is one of`."""
    return re.findall(r"`(\w+)`", TEXT.split(f"{what} is one of ")[1].split(", as ")[0].split(", each")[0])


# What the code logs


WEIGHTS = {f"{term}_weight": 1.0 for term in TERMS if term != "kl"}
SETTINGS = Configuration(epochs=2, batch_size=27, unfreeze="all", lr=1e-3, **WEIGHTS)


@pytest.fixture(scope="module")
def foundation() -> Result:
    return train(from_scratch(architecture(N_TRITS), FOUNDATION.replace(epochs=2, batch_size=27)))


@pytest.fixture(scope="module")
def embedding(foundation: Result) -> Result:
    """A training in which every term and the controller take part."""
    return train(from_foundation(foundation, SETTINGS))


def of_epochs(result: Result) -> set[str]:
    return {name for record in result.history for name in record} - {"epoch"}


class Recorder:
    """Stands in for a run of MLflow."""

    id = experiment_id = "1"

    def __init__(self, folder: Path) -> None:
        self.folder, self.metrics = folder, set[str]()

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.metrics |= values.keys()

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *_, **__: ""


@pytest.fixture
def run(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def test_first_table_has_the_metrics_of_an_evaluation() -> None:
    assert set(names_of("Which metric answers which question")) == evaluate(exact_model()).metrics().keys()


def test_epoch_table_has_what_epochs_log(foundation: Result, embedding: Result) -> None:
    of_levels = {f"radius_v{v}" for v in range(N_TRITS + 1)}
    assert set(names_of("Each epoch")) | of_levels == of_epochs(foundation) | of_epochs(embedding)
    assert {metric.key for metric in run_module._metrics(embedding.history, 0)} == of_epochs(embedding) - of_levels
    assert ternary.N_TRITS == 9
    assert "`radius_v0` to `radius_v9`" in section("Each epoch")
    assert listed("TERM") == list(TERMS)


def test_a_foundation_logs_what_the_page_says(foundation: Result) -> None:
    said = re.search(r"A foundation \(`train`\) has (.+?)\s+and no more", PROSE)
    assert said is not None
    assert set(re.findall(r"`([\w/]+)`", said[1])) == of_epochs(foundation) | foundation.summary().keys()


@pytest.fixture
def logged(run: Recorder, embedding: Result, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """Names of metrics and plots that a run logs at its end."""
    # Whether the model has these metrics test_commands.py asks a store.
    monkeypatch.setattr(outcome, "log_model", lambda _, __, found, *, step: run.log_metrics(found.metrics, step))
    monkeypatch.setattr(outcome, "draw", lambda *_, **__: None)
    client, process = MlflowClient(), ThreadPoolExecutor(1)
    made, *_ = outcome.log_embedding(client, run, embedding, COMPONENTS, {}, process)  # type: ignore[arg-type]
    return run.metrics, set(made.figures)


def test_end_table_has_what_a_run_logs_at_its_end(logged: tuple[set[str], set[str]]) -> None:
    assert set(names_of("At the end of a run")) == logged[0]


def test_plot_table_has_the_plots_of_a_run(logged: tuple[set[str], set[str]]) -> None:
    assert {row[0].strip("`") for row in rows("plot")} == logged[1]


def trial() -> Trial:
    return Trial("phase", "cell", architecture(N_TRITS), SETTINGS)


def test_runs_of_a_sweep_log_all_but_what_is_measured_of_the_model(tmp_path: Path, embedding: Result) -> None:
    logged: set[str] = set()

    class Client:
        def log_batch(self, _: str, metrics: Any = (), params: Any = ()) -> None:
            logged.update(metric.key for metric in metrics)

        def __getattr__(self, name: str) -> Callable[..., Any]:
            return lambda *_, **__: SimpleNamespace(info=SimpleNamespace(run_id="1"))

    Children(Client(), "1", "1", tmp_path, {}).log_result(trial(), embedding, {})  # type: ignore[arg-type]
    of_levels = {f"radius_v{v}" for v in range(N_TRITS + 1)}
    assert logged == (of_epochs(embedding) - of_levels) | embedding.summary().keys()
    assert logged == set(names_of("Each epoch")) | set(names_of("At the end of a run")) - OF_THE_MODEL
    first, *others = ([row[0].strip("`"), row[1]] for row in rows("metric") if row[0].strip("`") in OF_THE_MODEL
                      and len(row) == 2)  # fmt: skip
    assert "as all that follow; not in runs of a sweep or of `stability`" in first[1]
    assert {name for name, _ in (first, *others)} == OF_THE_MODEL


def test_parent_tables_have_what_the_parents_log(
    run: Recorder, embedding: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(tasks: Any) -> Iterator[TrainedCohort]:
        tasks[0]()
        yield TrainedCohort(task=0, results=[embedding], error=None, seconds=1.0, ended=2.0)

    monkeypatch.setattr(sweep_workflow, "cohorts", lambda trials, _: [trials])
    monkeypatch.setattr(Sweep, "_find_foundations", lambda *_: None)
    monkeypatch.setattr(Sweep, "_start", lambda *_: (None, {}))
    children: Any = SimpleNamespace(log_result=lambda *_: None)
    workers: Any = SimpleNamespace(width=1, train=trained)
    client: Any = None
    clock = Clock(dict.fromkeys(CLOCK, 0.0))
    Sweep(client, run, children, workers, clock, Plan((trial(),)), "", {}).train()  # type: ignore[arg-type]
    runs = [embedding.summary() | {"init_hierarchy": x, "best_hierarchy": x * x} for x in (0.1, 0.3, 0.2, 0.5)]
    of_stability = stability_metrics(runs)
    assert set(names_of("The parent of a sweep or of `stability`")) == run.metrics | of_stability.keys()
    tables = section("The parent of a sweep or of `stability`").split("The parent of `stability` also has")
    assert all(f"`{name}`" in tables[0] for name in run.metrics)
    assert not any(f"| `{name}` |" in tables[0] for name in of_stability)


CLOCK = ("train_seconds", "logging_seconds", "total_seconds")


def test_the_sentence_on_what_is_better_holds() -> None:
    said = re.search(r"Less is\s+better of `(\w+)` and `(\w+)`", PROSE)
    assert said is not None
    runs = [dict.fromkeys([f"best_{n.removeprefix('best_')}" for n in listed("NAME")], x) for x in (1.0, 2.0)]
    found = stability_metrics([run | {"init_hierarchy": 0.0} for run in runs])
    assert {name for name in listed("NAME") if found[f"{name}_best"] == 1.0} == set(said.groups())


def test_metrics_are_logged_nowhere_else() -> None:
    """Whoever logs in another place says on the page what it logs, and adds a test here."""
    logging = set()
    for path in ROOT.glob("tvae/**/*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        called = {getattr(n.func, "attr", getattr(n.func, "id", "")) for n in tree if isinstance(n, ast.Call)}
        if called & {"log_metrics", "log_metric", "log_epochs", "log_history", "Metric"}:
            logging.add(path.relative_to(ROOT).as_posix())
    assert logging == {
        "tvae/workflows/sweep.py",
        "tvae/cli/convert.py",  # `conversion.metrics`, those of an evaluation
        "tvae/workflows/session.py",
        "tvae/cli/verify.py",  # `verification.metrics`, those of an evaluation
        "tvae/tracking/children.py",
        "tvae/tracking/model.py",  # `verification.metrics`
        "tvae/tracking/outcome.py",
        "tvae/tracking/run.py",
    }


def test_the_example_of_a_parameter_has_what_auto_comes_to() -> None:
    example = re.search(r"params\.(lr) = '([\d.]+)'", PROSE)
    assert example is not None
    assert str(resolve("default", {})[1].to_dict()[example[1]]) == example[2]


# What verification says


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_load_elsewhere", lambda path: load_afresh(str(path)))


@pytest.mark.usefixtures("without_processes")
def test_check_table_has_the_checks_of_a_verification(tmp_path: Path) -> None:
    path, model = tmp_path / "checkpoint.safetensors", exact_model()
    save(path, model, trained=COMPONENTS, training={}, metrics=evaluate(model).metrics())
    found = verify(path)
    assert [row[0] for row in rows("check")] == [check.name for check in found.checks]
    # What `verify` logs.
    assert found.metrics.keys() == set(names_of("Which metric answers which question"))
    assert "`verify` and `convert` log all ten metrics" in PROSE
    assert len(found.metrics) == 10
    save(path, model, trained=("encoder", "decoder"), training={}, metrics={"coverage": 1.0})
    said = re.search(r"A foundation is checked for (.+?) alone\.", PROSE)
    assert said is not None
    assert re.findall(r"\*(.+?)\*", said[1]) == [check.name for check in verify(path).checks]
    assert "for a foundation `verify` logs `coverage`" in PROSE
    assert list(verify(path).metrics) == ["coverage"]
    assert read(path).trained == ("encoder", "decoder")


def test_bounds_on_the_page_are_those_of_verification() -> None:
    said = {row[0]: re.findall(r"-?\d+(?:\.\d+)?", row[1]) for row in rows("check")}
    bounds = Bounds()
    assert [float(said[name][0]) for name in ("coverage", "hierarchy", "distinct points")] == [
        bounds.coverage,
        bounds.hierarchy,
        bounds.distinct_points,
    ]
    assert float(said["claimed metrics"][0]) == bounds.metric_tolerance
    assert float(said["hierarchy ceiling"][0]) == bounds.ceiling_slack
    assert bounds.ordered_levels is bounds.level_gap is None
    assert said["level gap"][0] == "0"
    assert said["ordered levels"] == ["9"]


def test_champions_are_compared_as_the_page_says() -> None:
    said = re.search(r"They are compared by (.+?), in this order", PROSE)
    assert said is not None
    compared = [(name, float(step)) for name, step in re.findall(r"`(\w+)` \(([\d.]+)\)", said[1])]
    assert compared == [(criterion.name, criterion.step) for criterion in RANKING]
    guards = re.search(r"where the other is worse in one of (.+?):", PROSE)
    assert guards is not None
    assert re.findall(r"`(\w+)`", guards[1]) == [criterion.name for criterion in RANKING if criterion.guards]


# Figures


def test_limits_on_the_page() -> None:
    said = {row[0].strip("`"): re.findall(r"(?:limit|chance) (-?[\d.]+)", row[2]) for row in rows("metric")
            if len(row) == 6}  # fmt: skip
    # math.md derives them, and is tested against the code.
    derived = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
    fidelity, tree, siblings = (
        float(re.search(pattern, derived)[1])  # type: ignore[index]
        for pattern in (r"\(32\).* = (\d\.\d+)", r"\(34\).* = (\d\.\d+)", r"2/\(N - 1\) = (\d\.\d+)")
    )
    limits = {
        "hierarchy": f"{metrics.hierarchy_ceiling():.5f}",
        "level_gap": "1",
        "richness": f"{metrics.richness_ceiling(Architecture().max_radius):.4f}",
        "distance_fidelity": f"{fidelity:.4f}",
        "tree_precision": f"{tree:.4f}",
        "sibling_recall": f"{siblings:.4f}",
        "q": re.search(r"Q is at most ([\d.]+)", derived)[1],  # type: ignore[index]
    }
    assert {name: found[0] for name, found in said.items() if found} == limits
    assert "`distance_fidelity` + 1.5·abs(`hierarchy`)" in PROSE
    assert metrics.q.__doc__ == "Return Q, distance fidelity + 1.5·|hierarchy|."


def test_figures_of_a_collapse_and_of_redraws() -> None:
    margin = level_margin(torch.tensor(resolve("radii", {})[0].largest_radius))
    assert f"stands at the margin, {float(margin):.4f} in `radii`" in PROSE
    assert f"at most {MAX_REDRAWS} times" in PROSE
