"""The registry holds verified models only, and its champion is the best that was promoted."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from registry_store import METRICS, Entry, aliases, log_entry, tracking_in, versions

from tvae.checkpoint import FILE_NAME, read, save
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError, EvaluationError, RegistryError
from tvae.registry import (
    FOUNDATION_MODEL,
    MODEL,
    MODES,
    RANKING,
    ModelComparison,
    Promotion,
    fetch,
    find_foundation,
    find_model,
    lock,
    promote,
    register_foundation,
    rollback,
)
from tvae.registry.comparison import Criterion
from tvae.served import TABLE, read_table

TESTS = Path(__file__).parent


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What tvae logged, without MLflow's own."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("tvae")]


class TestComparison:
    """`METRICS` against the same with some changes."""

    def compare(self, **changes: float) -> ModelComparison:
        return ModelComparison(METRICS, METRICS | changes, "old", "new")

    @pytest.mark.parametrize("criterion", RANKING, ids=lambda criterion: criterion.name)
    def test_a_step_decides_and_less_does_not(self, criterion: Criterion) -> None:
        value, step = METRICS[criterion.name], criterion.sign * criterion.step
        assert self.compare(**{criterion.name: value + step}).better
        worse = self.compare(**{criterion.name: value - step})
        assert not worse.better
        assert worse.decisive == criterion
        for change in (0.9 * step, -0.9 * step):
            near = self.compare(**{criterion.name: value + change})
            assert near.decisive is None
            assert not near.better
            assert f"the largest is {criterion.label} " in near.reason()

    @pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(RANKING)))
    def test_an_earlier_measure_decides_against_a_later_one(self, first: Criterion, second: Criterion) -> None:
        good = {first.name: METRICS[first.name] + 2 * first.sign * first.step}
        bad = {second.name: METRICS[second.name] - 2 * second.sign * second.step}
        comparison = self.compare(**good, **bad)
        assert comparison.decisive == first
        assert comparison.better is not second.guards

    def test_two_seeds_of_one_preset_do_not_move_the_champion(self) -> None:
        comparison = self.compare(q=1.401)
        assert comparison.reason() == "no difference that matters; the largest is Q 1.4010 against 1.4000, below 0.02"

    def test_a_model_that_takes_over_says_what_it_is_worse_in_and_what_it_answers_otherwise(self) -> None:
        old = {"curvature": "2.0", "preset": "rich", "latent_dim": "16"}
        new = {"curvature": "1.0", "preset": "default", "max_radius": "0.9"}
        better = METRICS | {"level_gap": 0.5, "richness": 0.0001}
        comparison = ModelComparison(METRICS, better, "old", "new", old, new)
        assert comparison.better
        assert comparison.reason() == (
            "level gap 0.500 against 0.300; worse in richness 0.00010 against 0.01000; curvature 1.0, was 2.0; "
            "preset default, was rich"
        )
        assert ["curvature", "2.0", "1.0", "other"] in [line.split() for line in comparison.table().splitlines()]

    def test_a_model_of_other_operations_does_not_take_over(self) -> None:
        comparison = ModelComparison(METRICS, METRICS | {"q": 2.0}, "old", "new", {"n_trits": "9"}, {"n_trits": "5"})
        assert not comparison.better
        assert comparison.reason() == "for operations of 5 trits, and the champion for those of 9"

    def test_levels_that_overlap_do_not_take_over(self) -> None:
        assert self.compare(hierarchy=-0.832, level_gap=-0.2).setback.name == "level_gap"

    def test_what_one_side_does_not_know_is_not_compared(self) -> None:
        old = {name: value for name, value in METRICS.items() if name != "level_gap"}
        comparison = ModelComparison(old, METRICS, "old", "new")
        assert comparison.decisive is None
        assert "unknown" in comparison.table()

    def test_a_champion_of_which_nothing_is_known_is_worse_than_any(self) -> None:
        assert ModelComparison({}, METRICS, "old", "new").better
        assert not ModelComparison(METRICS, {}, "old", "new").better

    def test_the_table_says_what_decided_and_what_matters(self) -> None:
        lines = self.compare(q=1.3, richness=0.02).table().splitlines()
        assert [line.split() for line in lines] == [
            ["old", "new", "matters", "verdict"],
            ["coverage", "1.00000", "1.00000", "5e-05", "equal"],
            ["hierarchy", "-0.83000", "-0.83000", "0.00015", "equal"],
            ["level", "gap", "0.300", "0.300", "0.1", "equal"],
            ["tree", "precision", "0.9000", "0.9000", "0.005", "equal"],
            ["Q", "1.4000", "1.3000", "0.02", "worse,", "decides"],
            ["richness", "0.01000", "0.02000", "0.001", "better"],
        ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowClient, list[Entry]]]:
    folder = tmp_path_factory.mktemp("lab")
    with tracking_in(folder) as client:
        yield client, [log_entry(folder, seed) for seed in range(3)]


@pytest.fixture
def client(lab: tuple[MlflowClient, list[Entry]]) -> Iterator[MlflowClient]:
    yield lab[0]
    for model in lab[0].search_registered_models():
        lab[0].delete_registered_model(model.name)


@pytest.fixture
def entries(lab: tuple[MlflowClient, list[Entry]]) -> list[Entry]:
    return lab[1]


def put(client: MlflowClient, entry: Entry, mode: str = "auto", **metrics: float) -> Promotion:
    return promote(client, entry.verdict(**metrics), model_id=entry.model_id, mode=mode)


class TestPromotion:
    def test_the_better_is_champion_the_one_before_previous(self, client: MlflowClient, entries: list[Entry]) -> None:
        assert put(client, entries[0]).sentence() == "Registered as tvae version 1, the first champion."
        assert aliases(client) == {"champion": "1"}
        assert put(client, entries[1], q=1.5).sentence() == (
            "Registered as tvae version 2, champion now, better (Q 1.5000 against 1.4000); version 1 is previous."
        )
        assert aliases(client) == {"champion": "2", "previous": "1"}
        assert client.get_registered_model(MODEL).tags == {}, "a ticket is left"

    def test_what_is_not_better_is_champion_only_by_force(self, client: MlflowClient, entries: list[Entry]) -> None:
        put(client, entries[0])
        stays = "champion stays version 1"
        said = [
            (put(client, entries[1], **changes).sentence(), sentence)
            for changes, sentence in (
                ({"q": 1.3}, f"Registered as tvae version 2. It is not better (Q 1.3000 against 1.4000): {stays}."),
                ({"q": 1.3}, f"It is tvae version 2. It is not better (Q 1.3000 against 1.4000): {stays}."),
                (
                    {"hierarchy": -0.832, "tree_precision": 0.17},
                    "It is tvae version 2. It is better in hierarchy -0.83200 against -0.83000, worse in tree "
                    f"precision 0.1700 against 0.9000: {stays}; `promote --mode force` would move it.",
                ),
                (
                    {},
                    "It is tvae version 2. It is not better (equal in coverage, hierarchy, level gap, tree precision, "
                    f"Q, richness): {stays}.",
                ),
            )
        ]
        assert [found for found, _ in said] == [expected for _, expected in said]
        assert put(client, entries[0]).sentence() == "It is tvae version 1 already, the champion."
        assert aliases(client) == {"champion": "1"}
        forced = put(client, entries[1], "force", q=1.3).sentence()
        assert "champion now, by force (Q 1.3000 against 1.4000)" in forced
        assert aliases(client) == {"champion": "2", "previous": "1"}
        put(client, entries[2], q=1.35)
        assert aliases(client) == {"champion": "3", "previous": "2"}
        assert versions(client) == [1, 2, 3]

    def test_a_version_says_its_measures_and_where_it_is_from(self, client: MlflowClient, entries: list[Entry]) -> None:
        checkpoint = entries[1].checkpoint
        put(client, entries[0])
        put(client, entries[1], q=1.5)
        version = client.get_model_version(MODEL, "2")
        assert version.tags == {
            "verified": "true",
            "digest": checkpoint.digest,
            "n_trits": "3",
            "latent_dim": str(checkpoint.architecture.latent_dim),
            "curvature": "2.0",
            "max_radius": str(checkpoint.architecture.max_radius),
            "coverage": "1",
            "hierarchy": "-0.83",
            "level_gap": "0.3",
            "tree_precision": "0.9",
            "q": "1.5",
            "richness": "0.01",
        }
        assert version.run_id == entries[1].run_id
        tag = client.get_logged_model(entries[1].model_id).tags["mlflow.modelVersions"]
        assert json.loads(tag)[-1] == {"name": "tvae", "version": "2"}
        text = version.description
        assert text.startswith(
            "Verified: hierarchy -0.83000, coverage 1.00000, level gap 0.300, tree precision 0.9000, Q 1.5000"
        )
        assert re.search(rf"\(#/experiments/\d+/runs/{entries[1].run_id}\?workflowType=machine_learning\)", text)
        rows = [line.split() for line in text.splitlines()]
        assert ["q", "1.5"] in rows
        assert ["coverage", "1", ">=", "1", "passed"] in rows
        assert ["Q", "1.4000", "1.5000", "0.02", "better,", "decides"] in rows

    def test_a_champion_that_was_moved_by_hand_counts(self, client: MlflowClient, entries: list[Entry]) -> None:
        put(client, entries[0], q=1.5)
        put(client, entries[1], q=1.2)
        client.set_registered_model_alias(MODEL, "champion", "2")
        put(client, entries[2], q=1.3)
        assert aliases(client) == {"champion": "3", "previous": "2"}

    def test_a_champion_that_was_never_verified_is_replaced(self, client: MlflowClient, entries: list[Entry]) -> None:
        client.create_registered_model(MODEL)
        client.create_model_version(MODEL, f"models:/{entries[0].model_id}", tags={"coverage": "9", "q": "9"})
        client.set_registered_model_alias(MODEL, "champion", "1")
        assert "champion now, better (coverage 1.00000 against unknown)" in put(client, entries[1]).sentence()


class TestRefusal:
    def test_an_unverified_one_is_refused_with_its_verdict(self, client: MlflowClient, entries: list[Entry]) -> None:
        put(client, entries[0])
        before = client.get_registered_model(MODEL)
        verdict = entries[1].verdict(passed=False, q=9.0)
        for mode in MODES:
            with pytest.raises(RegistryError, match="Only a verified checkpoint can be registered") as refused:
                promote(client, verdict, model_id=entries[1].model_id, mode=mode)
            assert verdict.table() in str(refused.value)
        assert dict(client.get_registered_model(MODEL)) == dict(before)
        assert versions(client) == [1]

    def test_a_model_whose_table_is_not_its_networks_is_refused(self, client: MlflowClient, tmp_path: Path) -> None:
        entry = log_entry(tmp_path, 0)
        path = Path(client.get_logged_model(entry.model_id).artifact_location) / "data" / "served" / TABLE
        table, digest = read_table(path)
        replace(table, radius=table.radius * 1.0000001).write(path, digest)
        with pytest.raises(EvaluationError, match="bit for bit"):
            promote(client, entry.verdict(), model_id=entry.model_id)
        assert client.search_registered_models() == []

    def test_a_model_of_another_checkpoint_is_refused(self, client: MlflowClient, entries: list[Entry]) -> None:
        with pytest.raises(RegistryError, match="must serve the verified checkpoint"):
            promote(client, entries[0].verdict(), model_id=entries[1].model_id)
        assert client.search_registered_models() == []

    def test_a_foundation_is_refused(self, client: MlflowClient, entries: list[Entry], tmp_path: Path) -> None:
        path = tmp_path / "f.safetensors"
        saved = save(path, entries[0].checkpoint.model, trained=("encoder", "decoder"), training={}, metrics={})
        foundation = entries[0]._replace(checkpoint=saved)
        with pytest.raises(RegistryError, match="this is a foundation, of which only encoder, decoder was learned"):
            put(client, foundation)

    def test_an_unknown_mode_is_refused(self, client: MlflowClient, entries: list[Entry]) -> None:
        with pytest.raises(RegistryError, match="`mode` must be one of auto, force, got never"):
            put(client, entries[0], "never")


class TestRollback:
    def test_the_next_is_compared_with_what_came_back(self, client: MlflowClient, entries: list[Entry]) -> None:
        put(client, entries[0])
        put(client, entries[1], q=1.6)
        assert rollback(client) == ("1", "2")
        assert aliases(client) == {"champion": "1", "previous": "2"}
        assert rollback(client) == ("2", "1")
        assert aliases(client) == {"champion": "2", "previous": "1"}
        rollback(client)
        put(client, entries[2], q=1.5)
        assert aliases(client) == {"champion": "3", "previous": "1"}

    def test_an_empty_registry_has_nothing_to_roll_back(self, client: MlflowClient) -> None:
        with pytest.raises(RegistryError, match="tvae has no versions yet"):
            rollback(client)
        assert client.search_registered_models() == []

    def test_without_a_verified_previous_nothing_moves(self, client: MlflowClient, entries: list[Entry]) -> None:
        put(client, entries[0])
        with pytest.raises(RegistryError, match="found champion 1, previous nowhere"):
            rollback(client)
        assert aliases(client) == {"champion": "1"}
        client.create_model_version(MODEL, f"models:/{entries[1].model_id}")
        client.set_registered_model_alias(MODEL, "previous", "2")
        with pytest.raises(RegistryError, match="version 2 has no tag verified=true"):
            rollback(client)
        assert aliases(client) == {"champion": "1", "previous": "2"}


class TestAddresses:
    def test_every_name_leads_to_it(self, client: MlflowClient, entries: list[Entry], tmp_path: Path) -> None:
        entry = entries[0]
        put(client, entry)
        client.log_artifact(entry.run_id, str(entry.checkpoint.path), "elsewhere")
        for address in (f"models:/{entry.model_id}", "models:/tvae/1", "models:/tvae@champion"):
            found = fetch(address, tmp_path)
            assert read(found).digest == entry.checkpoint.digest
            assert find_model(client, address, entry.checkpoint.digest) == entry.model_id

    def test_a_run_leads_to_its_model_and_a_path_to_none(self, client: MlflowClient, entries: list[Entry]) -> None:
        digest = entries[2].checkpoint.digest
        assert find_model(client, str(entries[2].checkpoint.path), digest) is None
        for address in (entries[2].run_id, f"runs:/{entries[2].run_id}/checkpoint"):
            assert find_model(client, address, digest) == entries[2].model_id
            assert find_model(client, address, entries[1].checkpoint.digest) is None

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("models:/tvae@champion", "Registered Model with name=tvae not found"),
            ("0" * 32, "Run with id=0{32} not found"),
            ("nowhere", "nothing is there"),
            ("runs:/1", "Not a proper runs:/ URI"),
        ],
    )
    def test_what_leads_nowhere_is_refused(self, client: MlflowClient, tmp_path: Path, address: str, text: str) -> None:
        with pytest.raises(CheckpointError, match=text):
            fetch(address, tmp_path)


class TestTurn:
    def test_a_ticket_that_its_owner_left_behind_is_removed_and_a_long_wait_is_logged(
        self, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(lock, "ABANDONED_SECONDS", 0.3)
        monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.1)
        client.create_registered_model(MODEL)
        client.set_registered_model_tag(MODEL, "tvae.turn.dead", "1.0")
        client.set_registered_model_tag(MODEL, "tvae.turn.dying", "0.0")
        with caplog.at_level("INFO", "tvae"), lock.locked(client, MODEL):
            (mine,) = client.get_registered_model(MODEL).tags.values()
        assert mine.startswith("2.0 ")
        assert client.get_registered_model(MODEL).tags == {}
        assert said(caplog) == ["Another process is changing tvae: waiting for it, at most 0.3 s if it died."]

    def test_an_error_under_the_lock_releases_it(self, client: MlflowClient) -> None:
        client.create_registered_model(MODEL)
        with pytest.raises(ZeroDivisionError), lock.locked(client, MODEL):
            raise ZeroDivisionError
        assert client.get_registered_model(MODEL).tags == {}


class TestFoundation:
    def test_the_newest_is_champion_and_is_found(
        self, client: MlflowClient, entries: list[Entry], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "tvae")
        path = tmp_path / "f.safetensors"
        save(path, entries[0].checkpoint.model, trained=("encoder",), training={}, metrics={"coverage": 1.0})
        foundation = read(path)
        verified = Entry(foundation, "", "").verdict()
        search = partial(find_foundation, client, folder=tmp_path)
        assert search(foundation.architecture) is None
        for number, entry in enumerate(entries[:2], start=1):
            assert register_foundation(client, verified, entry.run_id, entry.model_id) == str(number)
        with pytest.raises(RegistryError, match="Only a verified foundation can be registered"):
            register_foundation(client, Entry(foundation, "", "").verdict(passed=False), "", entries[0].model_id)
        version = client.get_model_version("tvae-foundation", "2")
        assert version.description.startswith("Verified: coverage 1, ")
        assert {"verified": "true", "digest": foundation.digest, "coverage": "1"}.items() <= version.tags.items()
        assert said(caplog) == []
        assert search(foundation.architecture) is None  # neither run holds a checkpoint
        (text,) = said(caplog)
        assert text.startswith("The registered foundation models:/tvae-foundation/2 is gone, or cannot be read: ")
        assert "its files are gone: nothing is at" in text
        assert text.endswith("So are 1 others.")
        client.log_artifact(entries[0].run_id, str(path.rename(tmp_path / FILE_NAME)), "checkpoint")
        found_there = search(foundation.architecture)
        assert found_there is not None
        assert (found_there[0], found_there[1].digest) == ("models:/tvae-foundation/1", foundation.digest)
        assert search(Architecture()) is None
        found = client.get_registered_model(FOUNDATION_MODEL)
        assert (found.tags, {k: str(v) for k, v in found.aliases.items()}) == ({}, {"champion": "2"})


# Waits for the word `go`, then promotes checkpoints one after the other: a process among several.
PROMOTER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mlflow
from mlflow import MlflowClient
from registry_store import Entry
from tvae.checkpoint import read
from tvae.registry import promote
mlflow.set_tracking_uri(sys.argv[2])
jobs = [(Entry(read(path), run, model), mode, q) for path, run, model, mode, q in json.loads(sys.argv[3])]
client = MlflowClient()
client.search_experiments()
print("ready", flush=True)
sys.stdin.readline()
for entry, mode, q in jobs:
    promote(client, entry.verdict(q=q), model_id=entry.model_id, mode=mode)
"""


@pytest.mark.fault
def test_processes_that_promote_at_once_leave_what_one_after_the_other_would(tmp_path: Path) -> None:
    """Versions are numbered in the order of the locks; replaying them in that order gives the aliases."""
    n_processes, rounds = 4, 3
    with tracking_in(tmp_path) as client:
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        made = [log_entry(tmp_path, seed) for seed in range(n_processes * rounds)]
        qualities = [1.0 + (7 * i % len(made)) / 10 for i in range(len(made))]
        modes = ["force" if i == 5 else "auto" for i in range(len(made))]
        jobs = [
            (str(e.checkpoint.path), e.run_id, e.model_id, mode, q)
            for e, mode, q in zip(made, modes, qualities, strict=True)
        ]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROMOTER, str(TESTS), uri, json.dumps(jobs[k::n_processes])],
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for k in range(n_processes)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=120)[1] for process in processes] == [""] * n_processes
        assert [process.returncode for process in processes] == [0] * n_processes

        assert versions(client) == list(range(1, len(made) + 1))
        forced = {made[i].checkpoint.digest for i, mode in enumerate(modes) if mode == "force"}
        champion, previous, best = None, None, 0.0
        for number in versions(client):
            tags = client.get_model_version(MODEL, str(number)).tags
            if champion is None or float(tags["q"]) > best or tags["digest"] in forced:
                champion, previous, best = str(number), champion, float(tags["q"])
        assert aliases(client) == {"champion": champion, "previous": previous}
        assert client.get_registered_model(MODEL).tags == {}


class TestFilesThatAreGone:
    """A name of the registry outlives its files, which `mlflow gc` takes, or which stayed where the project was."""

    @pytest.fixture
    def two(self, client: MlflowClient, entries: list[Entry]) -> Iterator[list[Path]]:
        """Version 1 is previous, version 2 champion; where their files are, which are put back afterwards."""
        put(client, entries[0])
        put(client, entries[1], "force")
        folders = [Path(client.get_logged_model(e.model_id).artifact_location.removeprefix("file://")) for e in entries]
        yield folders
        for folder in folders:
            if (aside := folder.with_suffix(".aside")).exists():
                aside.rename(folder)

    def test_the_message_names_the_version_and_where_it_was(self, two: list[Path], tmp_path: Path) -> None:
        two[1].rename(two[1].with_suffix(".aside"))
        with pytest.raises(CheckpointError, match="tvae version 2 is registered, but its files are gone") as raised:
            fetch(f"models:/{MODEL}@champion", tmp_path)
        assert f"nothing is at {two[1]}" in str(raised.value)
        assert "becomes it" not in str(raised.value)

    def test_a_rollback_to_it_is_refused_and_moves_nothing(self, client: MlflowClient, two: list[Path]) -> None:
        two[0].rename(two[0].with_suffix(".aside"))
        with pytest.raises(
            RegistryError, match=r"Version 1 must have its files to be champion again: .*files are gone"
        ):
            rollback(client)
        assert aliases(client) == {"champion": "2", "previous": "1"}

    def test_a_promotion_that_is_not_better_says_that_the_champion_is_gone(
        self, client: MlflowClient, entries: list[Entry], two: list[Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "tvae")
        two[1].rename(two[1].with_suffix(".aside"))
        put(client, entries[2])
        (text,) = said(caplog)
        assert text.startswith("The champion cannot be served: ")
        assert text.endswith("Promote with mode=force to replace it.")

    def test_a_checkpoint_whose_version_is_gone_is_registered_again(
        self, client: MlflowClient, entries: list[Entry], two: list[Path], tmp_path: Path
    ) -> None:
        again = log_entry(tmp_path, 0)
        assert again.checkpoint.digest == entries[0].checkpoint.digest
        two[0].rename(two[0].with_suffix(".aside"))
        assert find_model(client, str(again.checkpoint.path), again.checkpoint.digest) is None
        made = put(client, again, "force")
        assert (made.registered, made.version) == (True, "3")
