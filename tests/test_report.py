"""The report says what follows from its figures, and nothing else."""

import dataclasses
import json
import math
import re
import signal
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from registry_store import tracking_in

from entry_points.report import main
from tvae.architecture import Architecture
from tvae.configuration import Configuration
from tvae.errors import TrackingError
from tvae.experiments import reference
from tvae.experiments.phases import PHASES
from tvae.metrics import hierarchy_ceiling
from tvae.report import Campaign, gather, headline, to_markdown, to_page
from tvae.report.findings import study
from tvae.report.gather import RunRecord, Version
from tvae.report.tables import HIERARCHY, detectable, phases_of, seeds_to_see
from tvae.tracking.description import REFERENCE

Values = Callable[[int], float]

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


def campaign(*trials: RunRecord, **more: Any) -> Campaign:
    return Campaign("a sweep", "run", (PARENT,), trials, **more)


def advice(held: Campaign) -> list[str]:
    return [" ".join(recommendation) for recommendation in study(held).recommendations]


def advised(held: Campaign, beginning: str) -> str:
    (found,) = [text for text in advice(held) if text.startswith(beginning)]
    return found


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


@pytest.fixture
def planted() -> Campaign:
    """Three cells: the second is better than the baseline by twenty times the noise, the third is not."""
    return campaign(*cell("base", -0.78), *cell("better", -0.80), *cell("same", -0.78))


# What is concluded


def test_a_difference_that_was_planted_is_distinguishable(planted: Campaign) -> None:
    text = to_markdown(planted)
    assert re.search(r"better and base differ by -0\.0\d+ in hierarchy .*: distinguishable from seed noise\.", text)
    assert "2 comparisons in hierarchy, corrected for 2: 1 distinguishable from seed noise" in text


def test_a_difference_that_was_not_planted_is_seed_noise(planted: Campaign) -> None:
    assert re.search(r"\| same less base \| 5 .*\| not distinguishable from seed noise \|", to_markdown(planted))


def test_a_grid_is_compared_with_its_first_cell(planted: Campaign) -> None:
    (phase,) = phases_of(planted)
    assert [(c.cell, c.against) for c in phase.comparisons["best_hierarchy"]] == [("better", "base"), ("same", "base")]


def test_small_phases_of_the_reference_are_compared_in_all_pairs() -> None:
    trials = [t for name in PHASES["loss_weights"] for t in cell(name, -0.7, phase="loss_weights")]
    (phase,) = phases_of(campaign(*reversed(trials)))
    assert [cell.name for cell in phase.cells] == list(PHASES["loss_weights"])
    assert len(phase.comparisons["best_hierarchy"]) == 10


def test_cells_that_share_no_seed_with_another_are_not_compared() -> None:
    apart = [trial("again", 1000 + seed, -0.78 + NOISE[seed]) for seed in range(3)]
    held = campaign(*cell("base", -0.78), *cell("other", -0.78), *apart)
    (phase,) = phases_of(held)
    assert phase.apart == ("again",)
    assert len(phase.comparisons["best_hierarchy"]) == 1
    assert "No seed in common with another cell, and so compared with none: again." in to_markdown(held)


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_conclude_nothing(seeds: int) -> None:
    held = campaign(*cell("base", -0.70, seeds), *cell("better", -0.80, seeds))
    for text in (headline(held), to_markdown(held), to_page(held)):
        assert "othing can be concluded" in text
        assert "distinguishable from seed noise" not in text.split("How to read")[0]
    assert advised(held, "Run grid with at least 3 seeds.")
    assert not any(text.startswith(("Take", "Stay")) for text in advice(held))


def test_one_seed_of_one_configuration_concludes_nothing_either() -> None:
    assert "Nothing can be concluded" in headline(campaign(trial("only", 0, -0.8, phase="stability")))


def test_every_search_trial_is_shown_and_none_is_compared() -> None:
    points = {"a": (-0.80, 0.004), "b": (-0.75, 0.009), "c": (-0.75, 0.003), "d": (-0.60, 0.001)}
    held = campaign(*(trial(n, 0, h, phase="search", richness=r) for n, (h, r) in points.items()))
    text = to_markdown(held)
    assert "2 of 4 trials are on the front" in text
    assert re.findall(r"^\| ([a-d]) \|", text.split("## Phase search")[1], re.MULTILINE) == ["a", "b"]
    page = Page(to_page(held))
    assert page.count("circle", **{"class": "fill0"}) == 2
    assert page.count("circle", **{"class": "hollow"}) == 2
    assert not phases_of(held)[0].comparisons


# What follows


def test_the_better_cell_is_recommended_with_its_figures(planted: Campaign) -> None:
    said = advised(planted, "Take better rather than base in grid.")
    assert "95 % interval" in said
    assert "5 paired seeds" in said


def test_the_baseline_is_kept_where_the_lead_is_noise() -> None:
    held = campaign(*cell("base", -0.7800), *cell("other", -0.7803))
    assert "not distinguishable from seed noise" in advised(held, "Stay with base in grid: other has the better mean")


def test_the_baseline_is_kept_where_the_lead_does_not_matter() -> None:
    held = campaign(*cell("base", -0.7800, 8), *cell("other", -0.7840, 8))
    assert "smaller than matters (0.005)" in advised(held, "Stay with base in grid: other has the better mean")


def test_richness_decides_at_the_limit() -> None:
    ceiling = hierarchy_ceiling()
    cells = {"base": 0.010, "rich": 0.018}
    held = campaign(
        *(trial(n, s, ceiling + 1e-6, richness=r + NOISE[s] / 10) for n, r in cells.items() for s in range(5))
    )
    said = advised(held, "Take rich rather than base in grid.")
    assert "2 of 2 cells reach the limit of hierarchy with every seed (worst -0.83205, limit -0.83205)" in said


def test_a_cell_that_improves_to_its_last_epoch_is_given_more() -> None:
    slow = cell("slow", -0.7, best_epoch=25.0, scheduler="constant", lr=1e-4)
    held = campaign(*cell("base", -0.78), *slow)
    assert "The best epoch is the last with each of 5 seeds (epoch 25); lr 0.0001" in advised(held, "Give slow of grid")


def test_an_annealed_learning_rate_is_best_at_its_end_and_nothing_follows() -> None:
    held = campaign(*cell("base", -0.78), *cell("slow", -0.7, best_epoch=25.0, scheduler="cosine"))
    assert not any(text.startswith("Give") for text in advice(held))


def test_a_cell_that_is_best_before_training_is_named() -> None:
    held = campaign(*cell("base", -0.78), *cell("worse", -0.4, best_epoch=0.0))
    assert "The best epoch is 0, the start, with each of 5 seeds" in advised(held, "Lower the learning rate of worse")


def test_what_follows_of_one_configuration_needs_no_other_to_compare_it_with() -> None:
    held = campaign(*cell("only", -0.7, phase="stability", best_epoch=25.0, scheduler="constant"))
    assert "it was still improving" in advised(held, "Give only of stability")


def test_epochs_that_lose_hierarchy_are_named() -> None:
    held = campaign(*cell("base", -0.78), *cell("long", -0.78, degradation=0.1))
    assert "by +0.10000 in the mean, 5.0 epochs later" in advised(held, "Train shorter")


@pytest.mark.parametrize(("mean", "expected"), [(-0.79, "Stop as early as hasty"), (-0.70, "Stop later than hasty")])
def test_what_stopping_early_cost_is_told_from_the_pair_that_differs_in_patience(mean: float, expected: str) -> None:
    short = ((0, 0.0), (8, mean))
    hasty = [dataclasses.replace(t, history=short) for t in cell("hasty", mean, 8, patience=5)]
    assert "8.0 epochs against 25.0" in advised(campaign(*cell("base", -0.79, 8), *hasty), expected)


def test_nothing_is_advised_of_stopping_early_where_the_cost_is_unknown() -> None:
    noisy = [
        dataclasses.replace(trial("hasty", s, -0.79 + 50 * NOISE[s], patience=5), history=((8, 0.0),)) for s in range(5)
    ]
    assert not any(text.startswith("Stop") for text in advice(campaign(*cell("base", -0.79), *noisy)))


def test_seeds_that_would_settle_what_is_open_follow_from_the_noise() -> None:
    noisy = [trial("noisy", seed, -0.78 + 20 * NOISE[seed]) for seed in range(3)]
    held = campaign(*cell("base", -0.78, 3), *noisy)
    said = advised(held, "Add seeds to settle what is open: about ")
    power = next(power for power in study(held).powers if power.measure is HIERARCHY)
    assert f"{power.seen:.4f}" in said
    assert power.needed > power.n == 3


def test_no_seeds_are_asked_for_where_everything_that_matters_would_have_been_seen() -> None:
    assert not any(
        text.startswith("Add seeds") for text in advice(campaign(*cell("base", -0.78, 8), *cell("b", -0.78, 8)))
    )


def test_so_many_seeds_find_the_difference_and_one_less_does_not() -> None:
    n = seeds_to_see(0.02, 0.005, 10)
    assert detectable(0.02, n, 10) <= 0.005 < detectable(0.02, n - 1, 10)
    assert seeds_to_see(1e-9, 0.005, 10) == 3


def test_the_best_trial_is_to_be_promoted_where_there_is_no_champion() -> None:
    held = campaign(*cell("base", -0.82))
    assert "No version is champion yet" in advised(held, "Promote the best trial.")


@pytest.mark.parametrize(("champion", "says"), [("-0.81", True), ("-0.832", False)])
def test_a_trial_is_to_be_promoted_only_if_it_is_better_than_the_champion(champion: str, says: bool) -> None:
    tags = {"verified": "true", "coverage": "1", "hierarchy": champion, "q": "1.4", "richness": "0.01"}
    held = campaign(*cell("base", -0.82), versions=(Version("tvae", 3, ("champion",), "x", tags),))
    assert any(text.startswith("Promote the best trial") for text in advice(held)) == says


def test_a_trial_that_would_not_pass_verification_is_not_to_be_promoted() -> None:
    assert "bounds 1 and -0.8" in advised(campaign(*cell("base", -0.7), *cell("b", -0.79)), "Promote none of these")


def test_a_demonstration_of_a_partial_load_is_never_the_best() -> None:
    held = campaign(*cell("base", -0.78), *cell("DEMONSTRATION", -0.83, load="mismatched"))
    assert study(held).best()[0][1].name == "base"
    assert "It shows what a silent partial load does" in headline(held)


# What is missing


def test_failed_trials_are_counted_and_named_with_their_reason() -> None:
    held = campaign(*cell("base", -0.78), *cell("other", -0.78, 4), trial("other", 4, None))
    assert "9 of 10 trials finished.** 1 did not finish." in headline(held)
    assert "The most frequent reason (1): NaN in the loss at epoch 4." in advised(held, "Look at 1 trial of 10")
    assert "| grid | other seed=4 | FAILED | NaN in the loss at epoch 4. |" in to_markdown(held)


def test_a_seed_that_failed_leaves_the_pair() -> None:
    held = campaign(*cell("base", -0.78), *cell("other", -0.78, 4), trial("other", 4, None))
    assert [c.n for c in phases_of(held)[0].comparisons["best_hierarchy"]] == [4]


def test_a_sweep_in_which_everything_failed_has_a_report() -> None:
    held = campaign(*(trial("base", seed, None) for seed in range(3)), *(trial("b", seed, None) for seed in range(3)))
    assert "0 of 6 trials finished.** 6 did not finish." in headline(held)
    assert not Page(to_page(held)).problems


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.7976931348623157e308])
def test_a_metric_that_is_no_number_counts_as_missing(value: float) -> None:
    broken = trial("other", 4, -0.7, best_richness=value)
    broken = dataclasses.replace(broken, metrics={**broken.metrics, "best_hierarchy": value})
    held = campaign(*cell("base", -0.78), *cell("other", -0.78, 4), broken)
    text = to_markdown(held).replace("*", "")
    assert "| other | 4 of 5 |" in text
    assert not re.search(r"\b(nan|inf)\b", text + to_page(held), re.IGNORECASE)


def test_an_experiment_without_trials_says_so() -> None:
    empty = Campaign("nothing", "experiment")
    assert "holds no sweep" in to_markdown(empty)
    assert headline(empty) == "- **No trials.** Nothing can be said of differences between configurations."
    assert not Page(to_page(empty)).problems


def test_single_runs_and_versions_are_listed_without_trials() -> None:
    run = RunRecord("f" * 32, "finetune c=2", "FINISHED", "finetune", {"seed": "7"}, {"best_hierarchy": -0.83203})
    version = Version("tvae", 2, ("champion",), run.id, {"verified": "true", "hierarchy": "-0.832031"})
    text = to_markdown(Campaign("tvae", "experiment", singles=(run,), versions=(version,)))
    assert "| finetune c=2 | finetune | FINISHED | 7 |" in text
    assert "| **tvae version 2** | champion | verified | – | -0.83203 |" in text


# The reference sweep


def test_every_cell_of_the_reference_is_a_cell_of_a_phase() -> None:
    for tables in (reference.TABLES, reference.SPREADS, {name: [cell] for name, cell in reference.BASELINES.items()}):
        for phase, cells in tables.items():
            assert set(cells) <= set(PHASES[phase])
    assert set(reference.MINUTES) == set(PHASES)


def test_the_figures_of_the_reference_stand_beside_ours() -> None:
    held = campaign(*(t for name in PHASES["schedule"] for t in cell(name, -0.7, 3, phase="schedule")))
    (row,) = re.findall(r"^\| \**early_stop_p5.*$", to_markdown(held).split("## Phase schedule")[1], re.MULTILINE)[:1]
    assert [" -0.792 " in row, " -0.715 " in row] == [True, True]


def test_every_finding_of_the_reference_is_listed_with_its_cause() -> None:
    held = campaign(
        *(t for c in (1, 2) for t in cell(f"curvature={c}", -0.7, 3, phase="curvature", curvature=float(c)))
    )
    text = to_markdown(held)
    for finding in reference.FINDINGS:
        assert finding.claim in text
        assert finding.cause in text
    assert "ranking: curvature=1 and curvature=2 differ by" in text


def test_the_descriptions_of_runs_state_the_best_figures_of_the_reference() -> None:
    best = {"hierarchy": "-0.792", "degradation": "+0.077", "richness": "0.0050", "coverage": "0.20 to 0.30"}
    assert best == REFERENCE


# The page


def test_the_page_is_well_formed_and_fetches_nothing(planted: Campaign) -> None:
    text = to_page(planted)
    page = Page(text)
    assert not page.problems
    assert page.count("svg", role="img") >= 3
    assert not {"script", "link", "img", "iframe", "a", "base", "form"} & {name for name, _ in page.elements}
    assert not [
        a for _, found in page.elements for a in found if a in ("src", "href", "xlink:href") or a.startswith("on")
    ]
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;"


def test_what_a_run_is_called_is_text_on_the_page() -> None:
    held = campaign(*cell(EVIL, -0.78), *cell("b", -0.7), trial("c", 0, None))
    parent = dataclasses.replace(PARENT, name=EVIL)
    held = dataclasses.replace(held, name=EVIL, parents=(parent,))
    page = Page(to_page(held))
    assert not page.problems
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert EVIL in page.texts


def test_what_a_run_is_called_is_text_in_markdown() -> None:
    name = "[x](javascript:alert(1)) | `code` **bold**\n# heading <b>"
    text = to_markdown(campaign(*cell(name, -0.78), *cell("b", -0.7)))
    assert "[x](" not in text
    assert "<b>" not in text
    assert "\n# heading" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "javascript" in line]
    assert rows
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows if "less" not in row}) <= 2


def test_every_row_of_a_table_has_its_columns(planted: Campaign) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", to_markdown(planted), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_the_limit_is_marked_in_the_figures(planted: Campaign) -> None:
    page = Page(to_page(planted))
    assert page.texts.count("limit −0.83205") == 2
    assert page.count("line", **{"class": "limit"}) >= 2


def test_every_seed_is_a_dot(planted: Campaign) -> None:
    page = Page(to_page(planted))
    dots = [t for t in page.texts if re.fullmatch(r"(base|better|same), seed \d: -0\.\d{5}", t)]
    assert len(dots) == 15


def test_the_same_campaign_gives_the_same_report(planted: Campaign) -> None:
    again = dataclasses.replace(planted)
    assert to_page(again) == to_page(planted)
    assert to_markdown(again) == to_markdown(planted)


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


def test_a_sweep_is_read_back_from_mlflow_in_the_order_of_its_plan(
    client: MlflowClient, experiment: str, tmp_path: Path
) -> None:
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
    assert "4 of 5 trials finished.** 1 did not finish." in headline(found)
    assert not Page(to_page(found)).problems

    whole = gather(client, experiment_id=experiment)
    assert [len([t for t in whole.trials if t.parent == p.id]) for p in whole.parents] == [5, 1]
    assert "Phase grid of sweep" in to_markdown(whole)


def test_a_trial_that_was_written_twice_counts_once(client: MlflowClient, experiment: str) -> None:
    once = trial("a", 0, -0.8)
    parent = sweep(client, experiment, [once, dataclasses.replace(once, status="FAILED"), once])
    assert [t.status for t in gather(client, parent).trials] == ["FINISHED"]


def test_more_runs_than_one_page_are_all_there(
    client: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvae.tracking.search._PAGE", 3)
    parent = sweep(client, experiment, [trial("a", seed, -0.8, phase="search") for seed in range(8)])
    assert len(gather(client, parent).trials) == 8


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
    assert said.startswith("- **a (grid), hierarchy -0.80000 with one seed.**")
    for run_id in (parent, own.info.run_id):
        assert {file.path for file in client.list_artifacts(run_id)} == {"report.html", "report.md"}
    assert not Page((tmp_path / "out" / "report.html").read_text()).problems


def test_a_run_that_is_not_there_is_one_sentence(client: MlflowClient) -> None:
    with pytest.raises(TrackingError, match=r"needs a run or an experiment that the store holds; found: .*nosuch"):
        gather(client, "nosuch")
    with pytest.raises(TrackingError, match="needs a run or an experiment that the store holds"):
        gather(client, experiment_id="77")
