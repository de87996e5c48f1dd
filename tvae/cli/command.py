"""How a command runs: what it says goes to the terminal, and what is wrong becomes one clear message.

Threads and variables that torch and MLflow read as they are imported are set in `tvae.cli`.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from tvae.cli.streams import make_writable
from tvae.errors import ArchitectureError, ConfigurationError, TVAEError, without_credentials

__all__ = ["command", "defaults_of"]


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
        settings = {
            "show_default": True,
            # `--max-radius` is `--max_radius`.
            "token_normalize_func": lambda name: name.replace("-", "_"),
        }
        return click.command(cls=cls, context_settings=settings)(callback)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        make_writable()
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            _note_in_run(error.format_message())
            raise

    def invoke(self, ctx: click.Context) -> Any:
        _show_messages()
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _note_in_run(error.format_message())
            raise


def _show_messages() -> None:
    """Have what tvae logs shown on the terminal."""
    logger = logging.getLogger("tvae")
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal(logging.INFO))
        logger.setLevel(logging.INFO)


class _Terminal(logging.Handler):
    """Messages as they are, at once: warnings on standard error, all else on standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=record.levelno >= logging.WARNING)
        sys.stdout.flush()


def _note_in_run(text: str) -> None:
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is not None:
        from tvae.tracking.failure import note_failure
        from tvae.tracking.store import connect

        note_failure(connect(), run_id, text)


def defaults_of(made: click.Command) -> dict[str, Any]:
    """Return the defaults of a command's options."""
    return {str(option.name): option.default for option in made.params}
