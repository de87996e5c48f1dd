"""What hostile values, names, addresses and files cannot do; `docs/security.md` names these tests."""

import importlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import mlflow
import pytest
import torch
import yaml
from checkpoint_bytes import forged
from click.testing import CliRunner
from desk import Desk, free_port
from exact_model import exact_model, random_model
from mlflow import MlflowClient
from mlflow.projects.utils import load_project
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from registry_store import log_entry, tracking_in
from test_contract import ENTRY_POINTS, command_of, declared
from test_report import Page
from test_sweep_command import SMALL

from entry_points import embed
from tvae import registry
from tvae.checkpoint import read, save, verify
from tvae.checkpoint.provenance import commit
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError, RegistryError, without_credentials
from tvae.markdown import escaped
from tvae.metrics import evaluate
from tvae.model import COMPONENTS
from tvae.report import gather, to_markdown, to_page
from tvae.tracking.links import address, run_page
from tvae.tracking.run import NOTE, note_failure
from tvae.tracking.store import connect

ROOT = Path(__file__).parent.parent
PROJECT = load_project(str(ROOT))
PARAMETERS = [(point, name) for point in ENTRY_POINTS for name in declared(point)]
# `--rollback` may stand alone, so click takes a word that begins with - after it for the next option.
MAY_STAND_ALONE = ("promote", "rollback")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
SECRET = "hunter2"
GIT = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"} | {
    "GIT_COMMITTER_EMAIL": "a@b"
}


def hostile(trace: str) -> str:
    """Everything that a shell reads as more than a text; whatever of it is run leaves a trace."""
    run = f"touch {trace}"
    quoted = f"$({run})`{run}`\"$({run})\"'$({run})'"
    return f"a;{run};{quoted}|{run}&{run}&&{run}\n{run}\n>{trace} <({run}) $HOME ~ * {{lr}} \\"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with tracking_in(tmp_path_factory.mktemp("store")) as client:
        yield client


@pytest.fixture
def tracking_at(store: MlflowClient) -> Iterator[Callable[[str], None]]:
    """Choose another store."""
    uri = mlflow.get_tracking_uri()
    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(uri)


# Shell


@pytest.fixture(scope="module")
def shell_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which `python` prints the words that it was given."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (folder / "python").chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def command_line(entry_point: str, values: dict[str, str]) -> str:
    return str(PROJECT.get_entry_point(entry_point).compute_command(values, None))


def words_of(entry_point: str, values: dict[str, str], path: str, folder: Path) -> list[str]:
    """Return the words that a command gets: MLflow builds it, and a real shell reads it, as in `mlflow run`."""
    words = ["bash", "-c", command_line(entry_point, values)]
    environment = {"PATH": path, "HOME": "/"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(("entry_point", "name"), PARAMETERS)
def test_no_value_of_a_parameter_is_read_by_the_shell(
    shell_path: str, tmp_path: Path, entry_point: str, name: str
) -> None:
    value = hostile("trace")
    words = words_of(entry_point, {name: value}, shell_path, tmp_path)
    assert words[words.index(f"--{name}") + 1] == value
    assert len(words) <= 2 + 2 * len(declared(entry_point))
    assert os.listdir(tmp_path) == []


def test_no_name_of_an_undeclared_parameter_is_read_by_the_shell(shell_path: str, tmp_path: Path) -> None:
    assert words_of("embed", {hostile("trace"): "1"}, shell_path, tmp_path)[-1] == "1"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("entry_point", "name"), [known for known in PARAMETERS if known != MAY_STAND_ALONE])
def test_a_value_that_looks_like_an_option_is_a_value(entry_point: str, name: str) -> None:
    command, value = command_of(entry_point), "--help"
    words = shlex.split(command_line(entry_point, {name: value}))[3:]
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
    defaults = {key: str(spec["default"]) for key, spec in declared(entry_point).items()}
    assert given == defaults | {name: value}
    assert rest == []


def test_a_word_after_rollback_can_be_an_option_of_promote_and_nothing_else() -> None:
    entry_point, name = MAY_STAND_ALONE
    words = shlex.split(command_line(entry_point, {name: "--mode=force; touch x"}))
    assert words[:3] == ["python", "-m", "entry_points.promote"]
    assert words[-2:] == [f"--{name}", "--mode=force; touch x"]
    command = command_of(entry_point)
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(words[3:])
    assert (given["mode"], rest) == ("force; touch x", [])


# Paths and addresses


@pytest.mark.parametrize(
    "address",
    [
        "runs:/{run}/../../../secret",
        "runs:/{run}/checkpoint/../../../../secret",
        "runs:/{run}/%2e%2e/%2e%2e/%2e%2e/secret",
        "runs:/{run}/..?x",
        "runs://profile/{run}/checkpoint",
        "models:/tvae/../../secret",
        "models:/tvae@champion/../../secret",
        "file:///secret",
        "http://127.0.0.1:9/checkpoint.safetensors",
        "mlflow-artifacts:/../secret",
    ],
)
def test_an_address_leads_nowhere_but_into_the_artifacts_that_it_names(tmp_path: Path, address: str) -> None:
    with pytest.raises(CheckpointError, match=r"models:/ or runs:/ address without `\.\.` and `%`"):
        registry.fetch(address.format(run="0" * 32), tmp_path)


# Names and texts of others


def test_names_tags_and_failures_in_mlflow_are_text_in_the_report(store: MlflowClient) -> None:
    experiment = store.create_experiment(EVIL)
    parent = store.create_run(experiment, run_name=EVIL, tags={"stage": "sweep", EVIL: EVIL}).info.run_id
    for status in ("FAILED", "FINISHED"):
        tags = {"stage": "trial", "mlflow.parentRunId": parent, "phase": EVIL, "cell": EVIL + status}
        run = store.create_run(experiment, run_name=EVIL, tags={**tags, "failure": EVIL, "trial": status})
        store.log_param(run.info.run_id, "objective", EVIL)
        store.log_metric(run.info.run_id, "best_hierarchy", -0.8)
        store.set_terminated(run.info.run_id, status)
    campaign = gather(store, parent)
    page = Page(to_page(campaign))
    assert not page.problems
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert any(EVIL in text for text in page.texts)
    assert "<script" not in to_markdown(campaign)
    assert "&lt;script" in to_markdown(campaign)


def test_the_reason_of_a_failure_is_text_in_a_description(store: MlflowClient) -> None:
    run = store.create_run("0").info.run_id
    note_failure(store, run, f"{EVIL} ![a](http://b)\n`code` of http://me:{SECRET}@host/x")
    tags = store.get_run(run).data.tags
    assert tags[NOTE].splitlines() == [
        f"**Failed**: {escaped(EVIL)} !\\[a\\](http://b)",
        "`code` of http://host/x",
    ]
    assert SECRET not in tags["failure"]


# Secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"at http://me:{SECRET}@host:5000/a.", "at http://host:5000/a."),
        (f"'https://{SECRET}@host'", "'https://host'"),
        (f"postgresql+psycopg2://me:p@{SECRET}@host/db is", "postgresql+psycopg2://host/db is"),
        (f"mysql://host/db?user=me&password={SECRET}", "mysql://host/db?user=me&password=***"),
        ("models:/tvae@champion and me@host", "models:/tvae@champion and me@host"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_credentials_are_taken_out_of_addresses(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_links_have_no_credentials(tracking_at: Callable[[str], None]) -> None:
    tracking_at(f"http://me:{SECRET}@host:5000")
    assert address(run_page("1", "r")) == "http://host:5000/#/experiments/1/runs/r?workflowType=machine_learning"


def test_mlflow_does_not_print_the_address_of_its_server(
    store: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create_run("0")
    monkeypatch.setattr(RestStore, "get_run", lambda *_: run)
    server = TrackingServiceClient(f"http://me:{SECRET}@host")
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    server._log_url(run.info.run_id)
    assert SECRET in capsys.readouterr().out
    connect()
    server._log_url(run.info.run_id)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("address", ["http://me:{}@127.0.0.1:9", "nosuch://me:{}@host/db"])
def test_a_store_that_cannot_be_used_is_named_without_its_credentials(
    tracking_at: Callable[[str], None], address: str
) -> None:
    tracking_at(address.format(SECRET))
    said = CliRunner().invoke(embed.main, [])
    assert said.exit_code == 1
    assert address.partition(":")[0] in said.stderr
    assert SECRET not in said.output


def test_provenance_holds_nothing_of_a_repository_but_its_commit(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    _make_repository(tmp_path)
    head, dirty = commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", str(head))
    assert dirty is False


def _make_repository(folder: Path) -> None:
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-qm", "all"),
        ("remote", "add", "origin", f"https://me:{SECRET}@example.org/tvae.git"),
    ):
        subprocess.run(["git", *words], cwd=folder, env=GIT, check=True)


# Checkpoints


def test_no_field_of_a_checkpoint_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    claims = evaluate(exact_model(4)).metrics()
    model = random_model(Architecture(n_trits=4))
    save(path, model, trained=COMPONENTS[:3], training={"start": "champion"}, metrics=claims)

    def lie(fields: dict[str, Any], table: dict[str, Any]) -> None:
        fields["training"] |= {"verified": True, "passed": True, "metrics": claims}
        fields["provenance"] |= {"git_dirty": False, "verified": True}

    path.write_bytes(forged(path.read_bytes(), lie))
    assert read(path).training["verified"] is True
    verification = verify(path)
    failed = {check.name for check in verification.checks if not check.passed}
    assert {"claimed metrics", "coverage", "hierarchy"} <= failed
    assert verification.metrics == evaluate(read(path).model).metrics()
    with pytest.raises(RegistryError, match="Only a verified checkpoint can be registered"):
        registry.require_promotable(verification)


def test_a_model_that_calls_itself_a_foundation_is_not_promoted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model = exact_model(3)
    model.initialise(torch.Generator().manual_seed(0), ("projection",))
    save(path, model, trained=("encoder", "decoder"), training={}, metrics={"coverage": 1.0})
    verification = verify(path)
    assert verification.passed
    with pytest.raises(RegistryError, match="must have a learned projection; this is a foundation"):
        registry.require_promotable(verification)


# What the sources do not do


def test_nothing_evaluates_text_starts_a_shell_or_unpickles_what_came_from_a_file() -> None:
    """Pickles go between a process and those that it started; legacy files are read without being unpickled."""
    feared = re.compile(
        r"(?<![\w.])(pickle\.loads?|torch\.load|joblib\.load|np\.load|yaml\.\w*load\w*|eval|exec|os\.system|os\.popen)\("
        r"|shell=True"
    )
    sources = [path for room in ("tvae", "entry_points") for path in (ROOT / room).rglob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), line.strip())
        for path in sources
        for line in path.read_text().splitlines()
        if feared.search(line)
    }
    assert sources
    assert {path for path, _ in found} == {
        "tvae/checkpoint/legacy.py",
        "tvae/served.py",
        "tvae/sweeps/executors.py",
        "tvae/sweeps/grid.py",
    }
    # What a message advises, for files whose origin the reader knows.
    assert {line.partition("import")[0] for path, line in found if path.endswith("legacy.py")} == {'load = f"'}
    (table,) = [line for path, line in found if path.endswith("served.py")]
    assert "allow_pickle=False" in table
    (reading,) = [line for path, line in found if path.endswith("grid.py")]
    assert "_Loader" in reading


# With real processes


class Swept(NamedTuple):
    """A sweep by `mlflow run`, of a project in a repository whose remote has a token."""

    desk: Desk
    project: Path
    said: str


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    project, folder = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("at") / "desk"
    for name in ("MLproject", "conda.yaml"):
        (project / name).write_bytes((ROOT / name).read_bytes())
    for name in ("tvae", "entry_points"):
        (project / name).symlink_to(ROOT / name)
    _make_repository(project)
    folder.mkdir()
    grid = folder / hostile("trace").replace("/", "")
    names = ("../../../outside", f"x {EVIL}", "$(touch outside)")
    cells = {name: {"lr": 0.01 * (1 + i)} for i, name in enumerate(names)}
    grid.write_text(yaml.safe_dump({"base": SMALL, "cells": cells}))
    desk = Desk(folder)
    planted = {"MLFLOW_TRACKING_TOKEN": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET, "MLFLOW_TRACKING_USERNAME": "me"}
    planted["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ("-e", "sweep", "--env-manager=local", "-P", f"grid={grid}", "-P", "seeds=1", "-P", "workers=1")
    code, out, err = desk.type("mlflow", "run", str(project), *words, **planted)
    assert code == 0, err
    return Swept(desk, project, out + err)


@pytest.mark.long
def test_mlflow_run_passes_hostile_values_on_as_they_are(swept: Swept) -> None:
    assert "3 of 3 trials are done" in swept.said
    assert not [*swept.desk.folder.rglob("trace"), *swept.project.rglob("trace")]


@pytest.mark.long
def test_hostile_names_in_a_grid_write_nothing_outside_the_store(swept: Swept) -> None:
    folder = swept.desk.folder
    assert os.listdir(folder.parent) == [folder.name]
    assert {"mlflow.db", "mlruns"} == {name for name in os.listdir(folder) if not name.startswith("a;touch")}
    assert not [*folder.rglob("*outside*"), *swept.project.rglob("*outside*")]


@pytest.mark.long
def test_hostile_names_in_a_grid_are_text_in_report_and_descriptions(swept: Swept) -> None:
    runs = swept.desk.runs("Default")
    assert len(runs) > 3
    assert not [run for run in runs if "<script" in run.data.tags.get(NOTE, "")]
    (parent,) = [run for run in runs if run.data.tags["stage"] == "sweep"]
    report = swept.desk.artifact(parent, "report.html").read_text()
    assert "&lt;script" in report
    assert "<script" not in report


@pytest.mark.long
def test_planted_secrets_are_neither_printed_nor_stored(swept: Swept) -> None:
    files = [path for path in swept.desk.folder.rglob("*") if path.is_file()]
    assert {"checkpoint.safetensors", "mlflow.db", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in swept.said


# A process that opens pickles says so, in a file that the environment names.
TELLTALE = """
import os, sys
def tell(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["OPENED"], "a") as file:
            print(*arguments, file=file)
sys.addaudithook(tell)
"""


@contextmanager
def make(target: str, port: int, folder: Path, **environment: str) -> Iterator[str]:
    """Start a target of the Makefile that serves, wait until it answers, and give a mark that its processes have."""
    mark, here = f"mark-{target}-{port}", Path(sys.executable).parent
    known = Desk(folder).environment | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "MARK": mark}
    words = ["-f", str(ROOT / "Makefile"), "-o", ".venv/ready", f"BIN={here}", f"PORT={port}", f"SERVE_PORT={port}"]
    made = subprocess.Popen(
        ["make", *words, target],
        cwd=folder,
        env=known | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while True:
            assert made.poll() is None, f"make {target} ended with {made.returncode}"
            assert time.monotonic() < deadline
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.1)
        yield mark
    finally:
        for process in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        made.wait()


def marked(mark: str) -> list[int]:
    """Processes that have a mark in their environment, which children inherit, whatever session they are in."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def listening(processes: list[int]) -> set[str]:
    """The local addresses at which processes take TCP connections or datagrams, from the kernel's own tables."""
    inodes = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table, states in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] in states and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add(f"{_dotted(address)}:{int(port, 16)}")
    return found


def _dotted(address: str) -> str:
    packed = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def test_listening_sees_every_address() -> None:
    with socket.create_server(("0.0.0.0", 0)) as all_of_them, socket.create_server(("127.0.0.1", 0)) as one:
        ports = all_of_them.getsockname()[1], one.getsockname()[1]
        assert {f"0.0.0.0:{ports[0]}", f"127.0.0.1:{ports[1]}"} <= listening([os.getpid()])


@pytest.mark.long
def test_make_serve_verify_and_load_open_no_pickle_and_listen_on_127_0_0_1_only(tmp_path: Path) -> None:
    telltale, opened = tmp_path / "hook", tmp_path / "opened"
    telltale.mkdir()
    (telltale / "sitecustomize.py").write_text(TELLTALE)
    told = {"PYTHONPATH": f"{telltale}{os.pathsep}{ROOT}", "OPENED": str(opened)}
    with tracking_in(tmp_path) as client:
        entry = log_entry(tmp_path, 0, n_trits=3)
        client.create_registered_model(registry.MODEL)
        version = client.create_model_version(registry.MODEL, f"models:/{entry.model_id}", model_id=entry.model_id)
        client.set_registered_model_alias(registry.MODEL, registry.CHAMPION, version.version)
    port = free_port()
    with make("serve", port, tmp_path, **told) as mark:
        body = b'{"inputs": [[5]], "params": {"embedding": true}}'
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as response:
            assert b"radius" in response.read()
        assert listening(marked(mark)) == {f"127.0.0.1:{port}"}
    code, out, _ = Desk(tmp_path).type("entry_points.verify", "--reloads", "2", **told)
    assert "reloads" in out, code
    assert not opened.exists()
    # The hook is live.
    script = "import pickle; pickle.loads(pickle.dumps(print))"
    subprocess.run([sys.executable, "-c", script], env=os.environ | told, check=True)
    assert opened.read_text() == "builtins print\n"


@pytest.mark.long
def test_make_ui_listens_on_127_0_0_1_only(tmp_path: Path) -> None:
    port = free_port()
    with make("ui", port, tmp_path) as mark:
        assert listening(marked(mark)) == {f"127.0.0.1:{port}"}


# The page


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 10
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    assert not named - {name for source in sources for name in re.findall(r"^ *def (test_\w+)\(", source, re.MULTILINE)}


def test_every_test_here_is_named_on_the_page() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    here = importlib.import_module(__name__)
    assert not [name for name in vars(here) if name.startswith("test_") and f"`{name}`" not in page]
