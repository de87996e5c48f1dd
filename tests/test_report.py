"""The report says what follows from its figures, and nothing else."""

import dataclasses
import json
import math
import re
import signal
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from registry_store import tracking_in

from entry_points.report import main
from tvae.config.architecture import Architecture
from tvae.config.training import Configuration
from tvae.errors import TrackingError
from tvae.metrics import hierarchy_ceiling
from tvae.report import Runs, gather, headline, to_markdown, to_page
from tvae.report.answer import Advice, answer, effects
from tvae.report.gather import RunRecord, Version
from tvae.report.layout import phases_of
from tvae.sweeps import reference
from tvae.sweeps.phases import PHASES
from tvae.tracking.description import REFERENCE

PARENT = RunRecord("p" * 32, "sweep", "FINISHED", "sweep", {"objective": "ranking"}, {"train_seconds": 12.0})
# Deviations of eight seeds: no two alike, and the same for every cell, as seeds that are shared make them.
NOISE = (0.0004, -0.0011, 0.0007, -0.0002, 0.0013, -0.0008, 0.0001, -0.0005)


def trial(
    cell: str, seed: int, hierarchy: float | None, phase: str = "grid", richness: float = 0.01, **changes: Any
) -> RunRecord:
    """A trial as a sweep leaves it; without a hierarchy it has failed."""
    settings = Architecture().to_dict() | Configuration(seed=seed).to_dict() | {"load": "matched"}
    settings |= {name: value for name, value in changes.items() if name in settings}
    metrics = {name: value for name, value in changes.items() if name not in settings}
    tags = {"phase": phase, "cell": cell, "trial": f"{phase} {cell} {seed}"}
    if hierarchy is None:
        tags, metrics = tags | {"failure": "NaN in the loss at epoch 4."}, {}
    else:
        metrics = {
            "init_hierarchy": 0.1,
            "best_hierarchy": hierarchy,
            "final_hierarchy": hierarchy,
            "degradation": 0.0,
            "best_epoch": 20.0,
            "best_coverage": 1.0,
            "best_richness": richness,
            "best_q": 1.3,
            "train_seconds": 0.5,
        } | metrics
    return RunRecord(
        id=f"{phase}-{cell}-{seed}",
        name=f"{cell} seed={seed}",
        status="FAILED" if hierarchy is None else "FINISHED",
        stage="trial",
        params={name: str(value) for name, value in settings.items()},
        metrics=metrics,
        tags=tags,
        parent=PARENT.id,
        history=tuple((epoch, -0.1 * min(epoch, 7)) for epoch in range(26)) if hierarchy is not None else (),
    )


def cell(name: str, mean: float, seeds: int = 5, **changes: Any) -> list[RunRecord]:
    """Trials of one cell around a mean: half of the noise goes with the seed, half with the cell."""
    own = sum(map(ord, name))
    values = [mean + NOISE[seed] + NOISE[(seed * 3 + own) % 8] for seed in range(seeds)]
    return [trial(name, seed, value, **changes) for seed, value in enumerate(values)]


def sweep_of(*trials: RunRecord, **more: Any) -> Runs:
    return Runs("a sweep", "run", (PARENT,), trials, **more)


def advice(held: Runs) -> Advice:
    return answer(held).advice


def fact(held: Runs, head: str) -> str:
    (text,) = [text for name, text in answer(held).facts if name == head]
    return text


class Page(HTMLParser):
    """What a browser would make of a page, with what it would complain of."""

    VOID = frozenset({"meta", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"{name} is not closed" for name in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{tag} closes something else")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= found.items() for name, found in self.elements)


@pytest.fixture(scope="module")
def planted() -> Runs:
    """Three cells: the second is better than the baseline by twenty times the noise, the third is not."""
    return sweep_of(*cell("base", -0.78), *cell("better", -0.80), *cell("same", -0.78))


# What is concluded


def test_a_difference_that_was_planted_is_found_and_the_other_is_not(planted: Runs) -> None:
    text = to_markdown(planted)
    assert re.search(r"\| \*\*better\*\* \| -0\.79968 ± 0\.\d+ better \|", text)
    assert re.search(r"\| same \| -0\.77968 ± 0\.\d+ same \|", text)


def test_a_grid_is_compared_with_its_first_cell_and_in_all_pairs(planted: Runs) -> None:
    made = phases_of(planted)[0].comparisons["best_hierarchy"]
    assert (made.cells[0], len(made.pairs)) == ("base", 3)


def test_cells_of_the_reference_stand_in_its_order_and_its_baseline_is_first() -> None:
    trials = [t for name in PHASES["curvature"] for t in cell(name, -0.7, phase="curvature")]
    (phase,) = phases_of(sweep_of(*reversed(trials)))
    assert [cell.name for cell in phase.cells] == list(PHASES["curvature"])
    assert phase.first is not None
    assert phase.first.name == "curvature=2"


def test_cells_that_share_no_seed_with_another_are_not_compared() -> None:
    apart = [trial("again", 1000 + seed, -0.78 + NOISE[seed]) for seed in range(3)]
    held = sweep_of(*cell("base", -0.78), *cell("other", -0.78), *apart)
    (phase,) = phases_of(held)
    assert phase.apart == ("again",)
    assert len(phase.comparisons["best_hierarchy"].pairs) == 1
    assert "No seed in common with another cell of grid, so compared with none: again." in to_markdown(held)


def test_too_few_seeds_conclude_nothing() -> None:
    for seeds in (1, 2):
        held = sweep_of(*cell("base", -0.70, seeds), *cell("better", -0.80, seeds))
        for text in (headline(held), to_markdown(held), to_page(held)):
            assert "othing can be concluded" in text
        assert advice(held).action == "Repeat it with at least 3 seeds, better 5."
        assert "better |" not in to_markdown(held)


def test_every_search_trial_is_shown_and_none_is_compared() -> None:
    points = {"a": (-0.80, 0.004), "b": (-0.75, 0.009), "c": (-0.75, 0.003), "d": (-0.60, 0.001)}
    held = sweep_of(*(trial(n, 0, h, phase="search", richness=r) for n, (h, r) in points.items()))
    text = to_markdown(held)
    assert "2 of 4 trials are on the front" in text
    assert re.findall(r"^\| ([a-d]) \|", text.split("## Phase search")[1], re.MULTILINE) == ["a", "b"]
    page = Page(to_page(held))
    assert page.count("circle", **{"class": "seed"}) == 2
    assert page.count("circle", **{"class": "hollow"}) == 2
    assert not phases_of(held)[0].comparisons
    assert advice(held).action.startswith("Train the trials on the front again")


# What is best, and what to do


def test_the_better_cell_is_advised_with_its_figures(planted: Runs) -> None:
    assert fact(planted, "Best:").startswith("better (grid), 5 seeds: coverage 1.00000, hierarchy -0.79968")
    assert re.search(r"against base better in hierarchy by -0\.0198\d* \(95 % ", fact(planted, "Why:"))
    assert advice(planted).action == "Use better: promote its best run."
    assert to_markdown(planted).count("**Next: ") == 1


def test_the_first_cell_is_kept_where_the_lead_is_noise_or_does_not_matter() -> None:
    for mean in (-0.7803, -0.7840):
        held = sweep_of(*cell("base", -0.7800, 8), *cell("other", mean, 8))
        assert fact(held, "Best:").startswith("base (grid)"), mean
        assert "no cell differs from it by as much as matters: any will do." in fact(held, "Why:"), mean


def test_richness_decides_where_hierarchy_does_not() -> None:
    ceiling = hierarchy_ceiling()
    cells = {"base": 0.010, "rich": 0.018}
    held = sweep_of(
        *(trial(n, s, ceiling + 1e-6, richness=r + NOISE[s] / 10) for n, r in cells.items() for s in range(5))
    )
    assert fact(held, "Best:").startswith("rich (grid)")
    assert "better in richness by +0.008" in fact(held, "Why:")


def test_what_the_best_is_worse_in_is_said_with_it() -> None:
    held = sweep_of(*cell("base", -0.78, richness=0.012), *cell("better", -0.81, richness=0.004))
    assert "but worse in richness by -0.008" in fact(held, "Why:")
    assert "better against base: hierarchy -0.030, paid for with richness -0.0080" in fact(held, "Trade-offs:")


def test_settings_that_matter_are_told_from_those_that_do_not() -> None:
    cells = {(c, lr): -0.78 - 0.02 * (lr > 0.001) for c in (1.0, 2.0) for lr in (0.001, 0.01)}
    held = sweep_of(*(t for (c, lr), m in cells.items() for t in cell(f"c={c} lr={lr}", m, curvature=c, lr=lr)))
    found = dict(effects(phases_of(held)))
    assert list(found) == ["lr", "curvature"]
    assert re.fullmatch(r"0\.0\d+: c=\d\.0 lr=0\.01 over c=\d\.0 lr=0\.001", found["lr"]["hierarchy"])
    assert found["curvature"] == {"hierarchy": "no", "richness": "no"}


def test_seeds_that_would_tell_what_is_open_follow_from_the_noise() -> None:
    noisy = [trial("noisy", seed, -0.78 + 20 * NOISE[seed]) for seed in range(3)]
    assert re.search(r"about \d+ in grid", fact(sweep_of(*cell("base", -0.78, 3), *noisy), "Open:"))


def test_a_cell_that_improves_to_its_last_epoch_is_named_unless_its_rate_was_annealed() -> None:
    for scheduler, said in (("constant", True), ("cosine", False)):
        held = sweep_of(*cell("base", -0.78), *cell("slow", -0.7, best_epoch=25.0, scheduler=scheduler))
        assert ("slow of grid was still improving at its last epoch" in to_markdown(held)) == said


def test_a_noisy_cell_is_named() -> None:
    noisy = [trial("noisy", seed, -0.78 + 40 * NOISE[seed]) for seed in range(5)]
    held = sweep_of(*cell("base", -0.78), *cell("b", -0.78), *cell("c", -0.78), *noisy)
    assert re.search(
        r"Noisier than the rest of grid, and judged by their own seeds: .*noisy in hierarchy", to_markdown(held)
    )


def test_a_run_is_to_be_promoted_only_if_it_is_better_than_the_champion() -> None:
    for champion, says in (("-0.81", "Use base: promote"), ("-0.832", "Keep the champion")):
        tags = {"verified": "true", "coverage": "1", "hierarchy": champion, "q": "1.4", "richness": "0.01"}
        held = sweep_of(*cell("base", -0.82), versions=(Version("tvae", 3, ("champion",), "x", tags),))
        assert advice(held).action.startswith(says)


def test_a_run_that_would_not_pass_verification_is_not_to_be_promoted() -> None:
    found = advice(sweep_of(*cell("base", -0.7), *cell("b", -0.75)))
    assert (found.action, found.command) == ("Go on from b, and promote nothing yet.", "")


def test_a_demonstration_of_a_partial_load_is_never_the_best() -> None:
    held = sweep_of(*cell("base", -0.78), *cell("DEMONSTRATION", -0.83, load="mismatched"))
    assert fact(held, "Best:").startswith("base (grid)")


def test_an_experiment_ranks_single_runs_and_trials_alike() -> None:
    runs = [trial("", seed, -0.81 + NOISE[seed], curvature=1.0) for seed in range(2)]
    single = tuple(dataclasses.replace(run, stage="finetune", parent=None) for run in runs)
    held = Runs("tvae", "experiment", (PARENT,), tuple(cell("base", -0.80)), single)
    text = to_markdown(held).split("## Configurations")[1]
    assert re.findall(r"^\| \**(?:\w* ?seed=\d|\w+) \(([a-z ]+)\)\** \| (\d)", text.replace("\\", ""), re.M) == [
        ("single run", "2"), ("grid", "5")
    ]  # fmt: skip


# What is missing


def test_failed_trials_are_counted_and_named_with_their_reason() -> None:
    held = sweep_of(*cell("base", -0.78), *cell("other", -0.78, 4), trial("other", 4, None))
    assert "1 of 10 trials did not finish." in headline(held)
    assert "| grid | other seed=4 | FAILED | NaN in the loss at epoch 4. |" in to_markdown(held)
    # The seed leaves the pair.
    assert [c.n for c in phases_of(held)[0].comparisons["best_hierarchy"].pairs] == [4]


def test_where_many_failed_they_come_first() -> None:
    found = advice(sweep_of(*cell("base", -0.78), *(trial("other", seed, None) for seed in range(5))))
    assert found.action == "Find out why trials failed, then go on with them."
    assert found.command == f"python -m entry_points.sweep --resume {PARENT.id}"


def test_a_sweep_in_which_everything_failed_has_a_report() -> None:
    held = sweep_of(*(trial("base", seed, None) for seed in range(3)), *(trial("b", seed, None) for seed in range(3)))
    assert "6 of 6 trials did not finish." in headline(held)
    assert not Page(to_page(held)).problems


def test_a_terminal_is_shown_no_markdown() -> None:
    advised = {"failure": "NaN in the loss. Try a lower `lr`."}
    trials = [trial("a*b", seed, None) for seed in range(3)]
    held = sweep_of(*(dataclasses.replace(failed, tags={**failed.tags, **advised}) for failed in trials))
    text = headline(held, markdown=False)
    assert "Try a lower `lr`." in text
    assert not re.search(r"\*\*|\\|```|&lt;", text)
    assert "Try a lower \\`lr\\`." in headline(held)


def test_a_metric_that_is_no_number_counts_as_missing() -> None:
    for value in (math.nan, math.inf, 1.7976931348623157e308):
        broken = trial("other", 4, value, best_richness=value)
        held = sweep_of(*cell("base", -0.78), *cell("other", -0.78, 4), broken)
        text = to_markdown(held).replace("*", "")
        assert "| other (4 of 5 seeds) |" in text, value
        assert not re.search(r"\b(nan|inf)\b", text + to_page(held), re.IGNORECASE), value


def test_an_experiment_without_trials_says_so() -> None:
    empty = Runs("nothing", "experiment")
    assert "holds no sweep" in to_markdown(empty)
    assert headline(empty).startswith("- **No trials.** Nothing can be said of configurations.")
    assert headline(empty, markdown=False).startswith("- No trials. Nothing can be said of configurations.")
    assert not Page(to_page(empty)).problems


# The reference sweep


def test_every_cell_of_the_reference_is_a_cell_of_a_phase() -> None:
    for tables in (reference.TABLES, reference.SPREADS, {name: [cell] for name, cell in reference.BASELINES.items()}):
        for phase, cells in tables.items():
            assert set(cells) <= set(PHASES[phase])
    assert set(reference.MINUTES) == set(PHASES)


def test_every_finding_of_the_reference_is_listed_with_its_cause() -> None:
    held = sweep_of(
        *(t for c in (1, 2) for t in cell(f"curvature={c}", -0.7, 3, phase="curvature", curvature=float(c)))
    )
    text = to_markdown(held)
    for finding in reference.FINDINGS:
        assert finding.claim in text
        assert finding.cause in text
    assert "curvature=2 and curvature=1 differ by" in text


def test_the_descriptions_of_runs_state_the_best_figures_of_the_reference() -> None:
    best = {"hierarchy": "-0.792", "degradation": "+0.077", "richness": "0.0050", "coverage": "0.20 to 0.30"}
    assert best == REFERENCE


# The page


def test_the_reference_sweep_is_told_in_120_lines() -> None:
    trials = [t for name, cells in PHASES.items() for one in cells for t in cell(one, -0.7, 3, phase=name)]
    assert len(to_markdown(sweep_of(*trials)).splitlines()) <= 120


def test_the_page_suits_a_phone_and_print_and_folds_all_pairs(planted: Runs) -> None:
    text = to_page(planted)
    assert Page(text).count("meta", name="viewport") == 1
    assert "overflow-x" not in text
    assert "@media print" in text
    folded = re.search(r"(?s)<details>.*?</details>", text)
    assert folded is not None
    assert folded[0].count("<tr") == 2 + 2 * 3


def test_templates_are_part_of_the_package() -> None:
    root = Path(__file__).parent.parent
    packaged = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["tvae"]
    found = {path for pattern in packaged for path in (root / "tvae").glob(pattern)}
    assert found >= {root / "tvae/plots/disk.html", *(root / "tvae/report/templates").iterdir()}


def test_the_page_is_well_formed_and_fetches_nothing(planted: Runs) -> None:
    text = to_page(planted)
    page = Page(text)
    assert not page.problems
    assert page.count("svg", role="img") == 2
    assert not {"script", "link", "img", "iframe", "a", "base", "form"} & {name for name, _ in page.elements}
    attributes = {name for _, found in page.elements for name in found}
    assert not [name for name in attributes if name in ("src", "href", "xlink:href") or name.startswith("on")]
    assert not re.findall(r"https?://|url\(", text)


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;"


def test_what_a_run_is_called_is_text_on_the_page() -> None:
    trials = (*cell(EVIL, -0.78), *cell("b", -0.7), trial("c", 0, None))
    page = Page(to_page(Runs(EVIL, "run", (dataclasses.replace(PARENT, name=EVIL),), trials)))
    assert not page.problems
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert EVIL in page.texts


def test_what_a_run_is_called_is_text_in_markdown() -> None:
    name = "[x](javascript:alert(1)) | `code` **bold**\n# heading <b>"
    text = to_markdown(sweep_of(*cell(name, -0.78), *cell("b", -0.7)))
    assert "[x](" not in text
    assert "<b>" not in text
    assert "\n# heading" not in text
    # Every row of a table has its columns.
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert any("javascript" in table for table in tables)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_every_seed_is_a_dot_and_the_limit_is_marked(planted: Runs) -> None:
    page = Page(to_page(planted))
    assert sum(bool(re.fullmatch(r"(base|better|same), seed \d: -0\.\d{5}", text)) for text in page.texts) == 15
    assert page.texts.count("limit −0.83205") == 1
    assert page.count("line", **{"class": "limit"}) >= 1


# From MLflow


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with tracking_in(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture
def experiment(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    """An experiment of the test's own."""
    return client.create_experiment(request.node.name)


def log(client: MlflowClient, experiment: str, of: RunRecord, parent: str | None = None) -> str:
    tags = {**of.tags, "stage": of.stage} | ({"mlflow.parentRunId": parent} if parent else {})
    run_id: str = client.create_run(experiment, run_name=of.name, tags=tags).info.run_id
    metrics = [Metric(name, value, 0, 0) for name, value in of.metrics.items()]
    metrics += [Metric("hierarchy", value, 0, epoch) for epoch, value in of.history]
    client.log_batch(run_id, metrics=metrics, params=[Param(name, value) for name, value in of.params.items()])
    client.set_terminated(run_id, of.status)
    return run_id


def sweep(client: MlflowClient, experiment: str, trials: list[RunRecord]) -> str:
    parent = log(client, experiment, PARENT)
    for one in trials:
        log(client, experiment, one, parent)
    return parent


def test_a_sweep_is_read_back_in_the_order_of_its_plan(client: MlflowClient, experiment: str, tmp_path: Path) -> None:
    planned = [*cell("second", -0.78, 2), *cell("first", -0.8, 2)]
    plan = [{"phase": "grid", "cell": name, "settings": {}} for name in ("first", "second") for _ in range(2)]
    parent = sweep(client, experiment, [*planned, trial("first", 7, None)])
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    client.log_artifact(parent, str(tmp_path / "plan.json"))
    log(client, experiment, dataclasses.replace(planned[0], stage="repeated trial"), parent)
    log(client, experiment, RunRecord("", "foundation", "FINISHED", "foundation", tags={"campaign": parent}))
    sweep(client, experiment, cell("of another sweep", -0.7, 1))

    found = gather(client, parent)
    assert [(t.cell, t.setting("seed")) for t in found.trials] == [
        ("first", "0"), ("first", "1"), ("first", "7"), ("second", "0"), ("second", "1")
    ]  # fmt: skip
    assert [t.status for t in found.trials] == ["FINISHED", "FINISHED", "FAILED", "FINISHED", "FINISHED"]
    assert found.trials[0].history == planned[0].history
    assert found.trials[0].metrics["best_hierarchy"] == planned[2].metrics["best_hierarchy"]
    assert [run.name for run in found.singles] == ["foundation"]
    assert "1 of 5 trials did not finish." in headline(found)
    assert not Page(to_page(found)).problems

    whole = gather(client, experiment_id=experiment)
    assert [len([t for t in whole.trials if t.parent == p.id]) for p in whole.parents] == [5, 1]
    assert "Phase grid of sweep" in to_markdown(whole)


def test_a_trial_that_was_written_twice_counts_once(client: MlflowClient, experiment: str) -> None:
    once = trial("a", 0, -0.8)
    parent = sweep(client, experiment, [once, dataclasses.replace(once, status="FAILED"), once])
    assert [t.status for t in gather(client, parent).trials] == ["FINISHED"]


def test_versions_with_an_alias_or_from_these_runs_are_there(client: MlflowClient, experiment: str) -> None:
    parent, other = sweep(client, experiment, []), sweep(client, experiment, [])
    client.create_registered_model("tvae")
    for run_id in (other, parent, other):
        client.create_model_version("tvae", source=f"runs:/{run_id}/checkpoint", run_id=run_id)
    client.set_registered_model_alias("tvae", "champion", "3")
    assert [(v.number, v.aliases) for v in gather(client, parent).versions] == [(2, ()), (3, ("champion",))]


def test_the_command_leaves_the_report_in_its_own_run_and_in_the_one_that_was_named(
    client: MlflowClient, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    parent = sweep(client, experiment, [trial("a", 0, -0.8)])
    main(["--run", parent, "--out", str(tmp_path / "out")], standalone_mode=False)
    own = client.search_runs([client.get_experiment_by_name("tvae").experiment_id])[0]
    assert own.data.tags["stage"] == "report"
    link, _, said = own.data.tags["mlflow.note.content"].split("\n", 2)
    page = f"#/experiments/{own.info.experiment_id}/runs/{own.info.run_id}/artifacts/report.html"
    assert link == f"[report]({page}?workflowType=machine_learning)"
    assert said.startswith("- **Best:** a (grid), 1 seed: coverage 1.00000, hierarchy -0.80000")
    for run_id in (parent, own.info.run_id):
        assert {file.path for file in client.list_artifacts(run_id)} == {"report.html", "report.md"}
    assert not Page((tmp_path / "out" / "report.html").read_text()).problems


def test_a_run_that_is_not_there_is_one_sentence(client: MlflowClient) -> None:
    with pytest.raises(TrackingError, match=r"needs a run or an experiment that the store holds; found: .*nosuch"):
        gather(client, "nosuch")
    with pytest.raises(TrackingError, match="needs a run or an experiment that the store holds"):
        gather(client, experiment_id="77")
