"""What commands print: links that open, and what to do next in the reader's own way of starting them."""

import importlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tvae.cli.command import command
from tvae.errors import TVAEError
from tvae.tracking.links import address, run_page
from tvae.workflows.messages import next_command


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_PORT", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "shown"),
    [
        ("none", "python -m entry_points.sweep --resume 'a b' --seeds 3"),
        ("MAKELEVEL", """make sweep ARGS='--resume '"'"'a b'"'"' --seeds 3'"""),
        ("MLFLOW_RUN_ID", "mlflow run . -e sweep -P resume='a b' -P seeds=3 --env-manager=local"),
    ],
)
def test_the_next_command_is_typed_as_this_one_was(variable: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert next_command("sweep", resume="a b", seeds=3) == shown


def test_a_link_opens_at_the_port_that_mlflow_ui_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert address(run_page("1", "r")).startswith("http://127.0.0.1:5000/#/experiments/1/")
    monkeypatch.setenv("MLFLOW_PORT", "5050")
    assert address(run_page("1", "r")).startswith("http://127.0.0.1:5050/#/experiments/1/")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TVAEError("It broke."), 1, "Error: It broke.\n"),
        (ValueError("It broke.\nsomewhere"), 1, "Error: ValueError: It broke. (set TVAE_TRACEBACK=1 to see where)\n"),
        (KeyboardInterrupt(), 130, "Stopped by the user: what was logged until then is in its run.\n"),
    ],
)
def test_what_to_do_comes_after_what_happened(error: BaseException, code: int, message: str) -> None:
    error.add_note("Continue with: so")

    @command
    def fails() -> None:
        raise error

    found = CliRunner().invoke(fails)
    assert (found.exit_code, found.output) == (code, f"{message}Continue with: so\n")


def test_what_to_do_is_not_lost_where_another_error_takes_its_place() -> None:
    @command
    def fails() -> None:
        try:
            error = TVAEError("It broke.")
            error.add_note("Continue with: so")
            raise error
        except TVAEError:
            raise TVAEError("It could not be closed.") from None

    assert CliRunner().invoke(fails).output == "Error: It could not be closed.\nContinue with: so\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "not ignored"])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals, ignored: bool) -> None:
    ends = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, signal.SIG_IGN if ignored else ends)

    @command
    def main() -> None:
        os.kill(os.getpid(), number)
        click.echo("went on")

    try:
        found = CliRunner().invoke(main)
    finally:
        signal.signal(number, before)
    assert (found.exit_code, "went on" in found.output) == ((0, True) if ignored else (128 + number, False))


@pytest.mark.parametrize(
    ("asked", "count"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
    ids=["by default", "of the user's own", "waiting of the user's own"],
)
def test_threads_that_wait_spin_a_little_unless_the_user_says_otherwise(asked: dict[str, str], count: str) -> None:
    ours = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    script = "import os, tvae.cli; print(os.environ.get('GOMP_SPINCOUNT'))"
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=ours | path | asked, capture_output=True, text=True)
    assert done.stdout.strip() == count


def test_what_happens_in_training_is_told_at_once_where_output_is_no_terminal() -> None:
    code = (
        "import time; from tvae.workflows.messages import Progress\n"
        "with Progress('train', 3) as progress:\n    progress.event('lost'); time.sleep(600)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        ready, _, _ = select.select([process.stdout], [], [], 300)
        told = os.read(process.stdout.fileno(), 100) if ready else b""
        process.kill()
    assert told == b"lost\n"


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, "checkpoint") for name in ("verify", "promote", "embed", "finetune")),
        *((name, "out") for name in ("verify", "embed", "report", "convert")),
        ("convert", "path"),
        ("sweep", "grid"),
    ],
)
def test_home_is_expanded_in_every_option_that_takes_a_path(
    monkeypatch: pytest.MonkeyPatch, name: str, option: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    main = importlib.import_module(f"entry_points.{name}").main
    assert main.make_context(name, [f"--{option}=~/x"]).params[option] == "/home/me/x"
    defaults = {found.name: found.default for found in main.params}
    assert main.make_context(name, []).params[option] == defaults[option]


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/my project/x", "/tvae #2/x", "/50%/it's/é", "/what?/$HOME/x", '/a"b\\c/$(HOME)'])
@pytest.mark.parametrize("way", ["make", "itself", "mlflow run"])
def test_advice_reaches_the_command_as_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, way: str
) -> None:
    if way == "make":
        monkeypatch.setenv("MAKELEVEL", "1")
    elif way == "mlflow run":
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    (tmp_path / "Makefile").write_text("promote:\n\t@printf '<%s>' $(ARGS)\n")
    for name in ("python", "mlflow"):
        (tmp_path / name).write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": "/home/me"}
    told = next_command("promote", checkpoint=path)
    done = subprocess.run(
        ["bash", "-c", told], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    meant = f"<checkpoint={path}>" if way == "mlflow run" else f"<--checkpoint><{path}>"
    assert meant in done.stdout
