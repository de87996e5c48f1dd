"""A team's server with PostgreSQL: the whole life of a model, from two clients at once, by the page's commands."""

import json
import os
import re
import signal
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from urllib.request import Request, urlopen

import mlflow
import pytest
from desk import ROOT, Desk, free_port
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from patience import until
from registry_store import aliases, versions
from team import (
    PAGE,
    SHUT_OUT,
    Client,
    Team,
    answers,
    block,
    command_lines,
    done,
    ended,
    life,
    team_at_work,
)

import tvae
from tvae.errors import TrackingError
from tvae.registry import FOUNDATION_MODEL, MODEL
from tvae.tracking.process import PROCESS
from tvae.tracking.store import enter, require_answer

pytestmark = pytest.mark.server

QUICK = ("entry_points.train", "--epochs", "1", "--promote", "never")
# Each batch size makes a cohort of its own, so that a sweep can be stopped between cohorts.
GRID = {
    "base": {"n_trits": 4, "epochs": 40},
    "cells": {f"batch={size}": {"batch_size": size} for size in range(8, 14)},
}


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with team_at_work() as team:
        yield team


@pytest.fixture(scope="module")
def ada(team: Team) -> Client:
    return team.client("ada")


@pytest.fixture(scope="module")
def ben(team: Team) -> Client:
    """A client that may not look into the server's folder."""
    return team.client("ben", *SHUT_OUT)


def both(one: subprocess.Popen[str], other: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what two processes print that run at once, both without an error."""
    said = [ended(process) for process in (one, other)]
    assert [code for code, _, _ in said] == [0, 0], said
    return said[0][1], said[1][1]


# The page


def test_every_block_of_the_page_is_run_here() -> None:
    headings = re.findall(r"^#+ (.*)\n(?:(?!^#).*\n)*?```sh$", PAGE, re.MULTILINE)
    run = ["The database", "The server", "A client", "The first run in a new store", "Backup", "Restore"]
    assert headings == ["Settings", *run]


def test_every_step_of_a_life_on_the_page_is_run_here() -> None:
    _, _, section = PAGE.partition("# A client\n")
    lines = re.findall(r"^(?:python -m|mlflow) .*$", section, re.MULTILINE)
    steps = ["finetune", "stability", "sweep", "report", "promote --checkpoint", "promote --rollback", "verify"]
    run = [*(f"entry_points.{step}" for step in steps), "models serve", "run"]
    assert [life(step) for step in run] == lines


def test_the_settings_of_the_page_are_those_that_the_test_sets_otherwise(team: Team) -> None:
    assert re.findall(r"^export (\w+)=", block("Settings"), re.MULTILINE) == list(team.settings)


# A new store


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_first_runs_in_a_new_store_both_succeed(team: Team, tmp_path: Path, kind: str) -> None:
    desk = Desk(tmp_path, team.database("first") if kind == "postgresql" else None, bare=True)
    both(*(desk.start(*QUICK, PGPASSFILE=f"{team.kept}/pgpass") for _ in range(2)))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_first_runs_through_mlflow_both_succeed_once_the_store_is_made(
    team: Team, ada: Client, tmp_path: Path, kind: str
) -> None:
    uri = team.database("first_through_mlflow") if kind == "postgresql" else f"sqlite:///{tmp_path}/mlflow.db"
    where = {"MLFLOW_TRACKING_URI": uri, "PGPASSFILE": f"{team.kept}/pgpass"}
    made = subprocess.run(block("The first run in a new store"), shell=True, cwd=ROOT, env=ada.environment | where)
    assert made.returncode == 0
    line = "mlflow run . -e report --env-manager=local"
    both(*(ada.shell(line, **where) for _ in range(2)))


def test_setup_makes_the_store() -> None:
    made = subprocess.run(["make", "--dry-run", "setup"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "entry_points.store" in made.stdout


def test_an_address_without_its_driver_names_what_to_install(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "postgresql://somebody:secret@127.0.0.1:9/nothing")
    code, _, err = desk.type("entry_points.report")
    assert code == 1
    assert "The tracking store postgresql://127.0.0.1:9/nothing must have its driver here" in err
    assert "pip install 'tvae[server]'" in err
    assert "secret" not in err


def test_a_database_that_does_not_answer_is_one_message_without_the_password(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "postgresql+psycopg2://somebody:secret@127.0.0.1:9/nothing")
    code, _, err = desk.type("entry_points.report")
    assert code == 1
    assert "The tracking store postgresql+psycopg2://127.0.0.1:9/nothing must be usable" in err
    assert "Connection refused" in err
    assert not {"secret", "Traceback"} & set(re.split(r"\W", err))


def test_runs_that_are_first_in_an_experiment_enter_the_same_data_at_once(ada: Client, team: Team) -> None:
    data = DatasetInput(Dataset("ternary-operations", "a digest", "code", "{}"))
    crowd = 8
    with ThreadPoolExecutor(crowd) as pool:
        for attempt in range(5):
            experiment = ada.client.create_experiment(f"crowd {attempt}")
            runs = [ada.client.create_run(experiment).info.run_id for _ in range(crowd)]
            start = threading.Barrier(crowd)

            def log(run_id: str, start: threading.Barrier = start) -> None:
                start.wait(timeout=60)
                enter(lambda: ada.client.log_inputs(run_id, [data]))

            list(pool.map(log, runs))
            inputs = [ada.client.get_run(run_id).inputs.dataset_inputs for run_id in runs]
            assert [given.dataset.name for (given,) in inputs] == ["ternary-operations"] * crowd


@pytest.mark.parametrize(("code", "attempts"), [("BAD_REQUEST", 2), ("INTERNAL_ERROR", 1)])
def test_only_what_was_refused_is_entered_again_and_once(code: str, attempts: int) -> None:
    refused = []

    def write() -> None:
        refused.append(code)
        raise MlflowException("It is there.", error_code=ErrorCode.Value(code))

    with pytest.raises(MlflowException, match="It is there"):
        enter(write)
    assert len(refused) == attempts


def test_a_certificate_of_the_teams_own_counts_once_mlflow_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"https://localhost:{server.server_port}"
        with pytest.raises(TrackingError, match="certificate verify failed"):
            require_answer(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        require_answer(uri)
        server.shutdown()


# The life of a model. In this order: each begins where the one before ended.


@pytest.fixture(scope="module")
def finetuned(team: Team, ada: Client, ben: Client) -> tuple[str, str]:
    """What the team's first two runs, at once, print."""
    line = f"{block('A client')}{life('entry_points.finetune')}"
    return both(*(client.shell(line, **team.settings, SEED=str(seed)) for seed, client in enumerate((ada, ben))))


def runs(client: Client, stage: str) -> list[Run]:
    return [run for run in client.runs() if run.data.tags.get("stage") == stage]


def checkpoint_of(client: MlflowClient, uri: str, folder: Path) -> Path:
    source = client.get_model_version_by_alias(MODEL, "champion").run_id
    address = f"runs:/{source}/checkpoint/checkpoint.safetensors"
    return Path(mlflow.artifacts.download_artifacts(address, tracking_uri=uri, dst_path=str(folder)))


def test_two_clients_can_begin_at_once(team: Team, ada: Client, finetuned: tuple[str, str]) -> None:
    assert {run.info.status for run in ada.runs()} == {"FINISHED"}
    assert versions(ada.client) == [1, 2]
    assert {"champion"} <= aliases(ada.client).keys() <= {"champion", "previous"}
    for name in (MODEL, FOUNDATION_MODEL):
        assert not [tag for tag in ada.client.get_registered_model(name).tags if tag.startswith("tvae.turn.")]


def test_files_lie_with_the_server_where_one_client_may_not_look(
    team: Team, ben: Client, finetuned: tuple[str, str]
) -> None:
    assert len(list(team.artifacts.rglob("checkpoint/checkpoint.safetensors"))) == 4
    code, _, err = ended(ben.shell(f"ls {team.artifacts}"))
    assert code != 0
    assert "Permission denied" in err


@pytest.mark.parametrize("name", ["ada", "ben"])
def test_a_client_keeps_nothing_of_its_own(team: Team, finetuned: tuple[str, str], name: str) -> None:
    assert not {"mlflow.db", "mlruns", "mlartifacts"} & set(os.listdir(team.folder / name))


def test_addresses_that_are_printed_are_the_servers(team: Team, ada: Client, finetuned: tuple[str, str]) -> None:
    for said in finetuned:
        (run,) = [run for run in runs(ada, "finetune") if run.info.run_id in said]
        page = f"{team.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"
        assert re.findall(r"http\S*", said) == [page]


def test_stability_and_a_stopped_sweep_at_once_and_the_sweep_goes_on(ada: Client, ben: Client) -> None:
    (ben.folder / "mine.yaml").write_text(json.dumps(GRID))
    stability = ada.shell(life("entry_points.stability"))
    sweep = ben.shell(life("entry_points.sweep"))
    until(lambda: any(run.data.tags["phase"] == "grid" for run in runs(ben, "trial")), sweep)
    sweep.send_signal(signal.SIGKILL)
    ended(sweep)
    out = done(stability)
    assert "3 of 3 trials are done" in out

    out = done(ben.shell(life("entry_points.sweep")))
    (parent,) = runs(ben, "sweep")
    assert f"Resuming run {parent.info.run_id}:" in out
    trials = [run for run in runs(ben, "trial") if run.data.tags["phase"] == "grid"]
    assert Counter(run.data.tags["trial"] for run in trials) == Counter({run.data.tags["trial"]: 1 for run in trials})
    assert len(trials) == 3 * len(GRID["cells"])
    # The signal may have come while a trial was written, or between two.
    unfinished = {(run.info.status, run.data.tags["stage"]) for run in ben.runs() if run.info.status != "FINISHED"}
    assert unfinished <= {("FAILED", "repeated trial")}


def test_a_sweep_at_work_on_another_machine_is_left_alone(ben: Client) -> None:
    (parent,) = runs(ben, "sweep")
    ben.client.set_tag(parent.info.run_id, PROCESS, "elsewhere 1 place boot 0")
    ben.client.set_terminated(parent.info.run_id, "RUNNING")
    try:
        out = done(ben.shell(life("entry_points.sweep")))
        assert f"Left alone: run {parent.info.run_id}, RUNNING on elsewhere." in out
        (other,) = [run for run in runs(ben, "sweep") if run.info.run_id != parent.info.run_id]
        assert ben.client.get_run(parent.info.run_id).info.status == "RUNNING"
        assert other.info.status == "FINISHED"
    finally:
        ben.client.set_terminated(parent.info.run_id)


def test_report_tells_of_everybodys_runs(ben: Client) -> None:
    done(ben.shell(life("entry_points.report")))
    (run,) = runs(ben, "report")
    text = ben.artifact(run, "report.md").read_text()
    assert "batch=8" in text
    assert "stability" in text


def test_two_promotions_at_once_happen_one_after_the_other(
    ada: Client, ben: Client, finetuned: tuple[str, str]
) -> None:
    line = life("entry_points.promote --checkpoint")
    both(ada.shell(line, VERSION="1"), ben.shell(line, VERSION="2"))
    assert versions(ada.client) == [1, 2]
    now = aliases(ada.client)
    assert now in ({"champion": "1", "previous": "2"}, {"champion": "2", "previous": "1"})


def test_rollback_takes_the_last_promotion_back(ada: Client, ben: Client, finetuned: tuple[str, str]) -> None:
    before = aliases(ada.client)
    done(ben.shell(life("entry_points.promote --rollback")))
    assert aliases(ada.client) == {"champion": before["previous"], "previous": before["champion"]}


def test_the_champion_is_verified_by_a_client_that_did_not_train_it(ada: Client, finetuned: tuple[str, str]) -> None:
    out = done(ada.shell(life("entry_points.verify")))
    assert "verification passed" in out


def test_the_champion_is_served_by_a_client_that_may_not_look_into_the_folder(
    ada: Client, ben: Client, finetuned: tuple[str, str], tmp_path: Path
) -> None:
    port = str(free_port())
    process = ben.shell(life("models serve"), SERVE_PORT=port)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/ping") == 200, process)
        headers = {"Content-Type": "application/json"}
        question = Request(f"http://127.0.0.1:{port}/invocations", b'{"inputs": [[0], [5]]}', headers)
        with urlopen(question, timeout=60) as response:
            answer = json.load(response)
    finally:
        process.terminate()
        ended(process)
    radii = tvae.evaluate(tvae.load(checkpoint_of(ada.client, ada.uri, tmp_path))).radii
    served = [record["radius"] for record in answer["predictions"]]
    assert served == pytest.approx(radii[[0, 5]], abs=1e-6)


def test_mlflow_run_logs_to_the_server(ben: Client, finetuned: tuple[str, str]) -> None:
    out = done(ben.shell(life("run"), SEED="7"))
    (run,) = ben.runs("Default")
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "7")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert f"Starting from models:/{FOUNDATION_MODEL}/" in out


# The server


def test_only_names_that_are_listed_may_call_the_server(team: Team) -> None:
    address = f"{team.uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert [answers(address, Host=name) for name in ("tvae.example.org", "evil.example.org")] == [200, 403]


def test_a_page_of_another_origin_may_not_write(team: Team) -> None:
    address = f"{team.uri}/ajax-api/2.0/mlflow/experiments/search"
    said = [
        answers(address, b'{"max_results": 1}', Origin=origin)
        for origin in ("http://localhost:80", "https://tvae.example.org")
    ]
    assert said == [200, 403]


def test_no_command_line_shows_the_databases_password(team: Team) -> None:
    password = (team.kept / "pgpass").read_text().strip().rpartition(":")[2]
    assert len(password) == 48
    lines = command_lines()
    assert any("--backend-store-uri" in line for line in lines)
    assert not any(password in line for line in lines)


def test_a_backup_restored_elsewhere_holds_the_champion(
    team: Team, ada: Client, finetuned: tuple[str, str], tmp_path: Path
) -> None:
    team.shell(block("Backup"))
    team.shell(block("Restore"))
    dump = team.shell("pg_dump --host=127.0.0.1 --username=mlflow restored", PGPASSFILE=f"{team.kept}/pgpass")
    assert "mlflow-artifacts:" in dump
    assert str(team.kept) not in dump
    port = free_port()
    with team.serving(DATABASE="restored", ARTIFACTS=f"{team.kept}/restored", PORT=str(port)):
        uri = f"http://127.0.0.1:{port}"
        restored = MlflowClient(uri)
        assert aliases(restored) == aliases(ada.client)
        assert len(Desk(tmp_path, uri).runs()) == len(ada.runs())
        (tmp_path / "one").mkdir()
        (tmp_path / "other").mkdir()
        one, other = (
            checkpoint_of(ada.client, ada.uri, tmp_path / "one"),
            checkpoint_of(restored, uri, tmp_path / "other"),
        )
        assert one.read_bytes() == other.read_bytes()
