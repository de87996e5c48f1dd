"""What a person at the terminal sees: progress, a short table, one clear message when something is wrong."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import click
from tqdm import tqdm

from entry_points.streams import make_writable
from tvae.errors import ArchitectureError, ConfigurationError, TVAEError, without_credentials

__all__ = [
    "Progress",
    "command",
    "command_line",
    "defaults_of",
    "next_command",
    "run_name",
    "say",
    "say_where",
    "show_table",
]


def say(text: str) -> None:
    """Print a line, at once."""
    click.echo(text)
    sys.stdout.flush()


def say_where(page: str) -> None:
    """Print where a page of the UI is: the last thing that a command says, so that nobody has to search for its run."""
    from tvae.tracking import links  # imports mlflow, for which `--help` does not wait

    say("\nLook at it: " + ("`make ui` (or `mlflow ui`), then open" if links.needs_ui() else "open"))
    say(f"  {links.address(page)}")


def show_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {name.ljust(width)}  {value}")


class Progress:
    """A progress bar over epochs, quiet where nobody watches."""

    def __init__(self, what: str, epochs: int) -> None:
        self._bar = tqdm(total=epochs, desc=what, unit="epoch", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def epoch(self, record: dict[str, float]) -> None:
        """Advance to an epoch."""
        self._bar.update(int(record["epoch"]) - self._bar.n)
        shown = {name: record[name] for name in ("hierarchy", "coverage", "loss") if name in record}
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()})

    def event(self, text: str) -> None:
        """Print one sentence above the bar."""
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()  # where it is not a terminal, what happened would be read only at the end


def command(main: Callable[..., None]) -> click.Command:
    """Make a command: errors become one line and an exit code, 2 for usage and 1 for the rest; no traceback."""

    @wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    signal.signal(number, _stop)
        try:
            main(*args, **kwargs)
        except (ArchitectureError, ConfigurationError) as error:
            raise click.UsageError(without_credentials(_with_notes(str(error), error))) from error
        except TVAEError as error:
            raise click.ClickException(without_credentials(_with_notes(str(error), error))) from error
        except click.ClickException:
            raise
        except KeyboardInterrupt as stop:
            text = f"Stopped {str(stop) or 'by the user'}: what was logged until then is in its run."
            click.echo(_with_notes(text, stop), err=True)
            raise SystemExit(128 + getattr(stop, "number", signal.SIGINT)) from stop
        except Exception as error:
            if os.environ.get("TVAE_TRACEBACK"):
                raise
            lines = without_credentials(str(error)).strip().splitlines()
            what = f"{type(error).__name__}: {lines[0] if lines else 'no further word'}"
            text = _with_notes(f"{what} (set TVAE_TRACEBACK=1 to see where)", error)
            raise click.ClickException(text) from error

    return _Command.of(guarded)


def _with_notes(text: str, error: BaseException) -> str:
    """Return a message, and under it what was noted on its way up: how to go on.

    An error may have taken the place of the one that the note was for, as where a run cannot be closed either.
    """
    lines = [text]
    origin: BaseException | None = error
    while origin is not None:
        lines += getattr(origin, "__notes__", [])
        origin = origin.__cause__ or origin.__context__
    return "\n".join(lines)


def _stop(number: int, _: object) -> None:
    """Make a signal an interrupt: the run then ends as KILLED, with the signal's name, rather than RUNNING for ever."""
    raise _Stopped(number)


class _Stopped(KeyboardInterrupt):
    """An interrupt by a signal other than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"by {signal.Signals(number).name}")
        self.number = number


class _Command(click.Command):
    """A click command that leaves the reason of a usage error in the run that `mlflow run` has made for it."""

    @classmethod
    def of(cls, callback: Callable[..., None]) -> "_Command":
        return click.command(cls=cls)(callback)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        make_writable()
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            _note_in_run(error.format_message())
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _note_in_run(error.format_message())
            raise


def _note_in_run(text: str) -> None:
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is not None:
        from tvae.tracking.failure import note_failure
        from tvae.tracking.store import connect

        note_failure(connect(), run_id, text)


def defaults_of(made: click.Command) -> dict[str, Any]:
    """Return the defaults of a command's options."""
    return {str(option.name): option.default for option in made.params}


def command_line(name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the `mlflow run` command that repeats a run: what differs from the defaults is named."""
    named = [f"-P {key}={shlex.quote(str(value))}" for key, value in values.items() if value != defaults.get(key)]
    return " ".join(["mlflow run .", f"-e {name}", *named, "--env-manager=local"])


def next_command(name: str, **options: object) -> str:
    """Return a command that a user may want next, in the way that this one was started: `mlflow run`, make, or itself.

    Args:
        name: of the entry point, which is also the target of make.
        options: other than the defaults.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        return command_line(name, options, {})
    arguments = " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in options.items())
    if "MAKELEVEL" in os.environ:
        return f"make {name} ARGS={shlex.quote(arguments.replace('$', '$$'))}"  # make expands $ once more
    return f"python -m entry_points.{name} {arguments}"


def run_name(kind: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return what a run is called: its kind, curvature and seed, which a narrow table shows, then what else was asked.

    Args:
        kind: the command's name.
        values: every option as it was given.
        defaults: of the options.
    """
    of_the_desk = ("curvature", "seed", "checkpoint", "device", "promote")
    asked = [(k, v) for k, v in values.items() if k not in of_the_desk and v != defaults.get(k)]
    further = [str(value) if name in ("preset", "objective") else f"{name}={value}" for name, value in asked]
    return " ".join([kind, f"c={values['curvature']:g}", f"seed={values['seed']}", *further])
