"""Where runs are kept: the tracking store, and the experiment that a command logs to."""

import http.client
import logging
import os
import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from traceback import walk_tb

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from tvae.errors import TrackingError, without_credentials
from tvae.locks import lock
from tvae.tracking import links
from tvae.tracking.environment import drop_blank
from tvae.tracking.failure import NOTE, close_ended
from tvae.tracking.view import VIEW

__all__ = [
    "EXPERIMENT",
    "STORE_ERRORS",
    "adopted_run_id",
    "connect",
    "deleted_run",
    "enter",
    "local_folder",
    "reason",
    "require_answer",
    "using_store",
    "without_patience",
]

EXPERIMENT = "tvae"
# The UI shows a line break where there is one: a paragraph is one line.
_DESCRIPTION = "\n".join(
    [
        "Ternary operations in a Poincaré ball: a variational autoencoder learns all 19,683 of them, and a projection "
        "places them so that hyperbolic distance from the origin follows 3-adic valuation.",
        "",
        "- **train** makes a foundation: encoder and decoder, to full coverage.",
        "- **finetune** learns the projection. Its `hierarchy` (Spearman, negative is right) cannot pass **-0.83205**.",
        "- **scratch** does both in one run.",
        "",
        "All metrics are measured on all operations at the posterior mean. `best_hierarchy` is that of the run's "
        "model; `hierarchy` is how training got there, and a table shows its last epoch.",
    ]
)
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What comes out of MLflow when a store does not do what it should."""

# What is raised of a server that sends no answer, or half of one.
_UNANSWERED = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.RetryError,
    http.client.HTTPException,
)

LOCK_SECONDS = 5
# A server may be slow; one that is down refuses at once.
ANSWER_SECONDS = 20
# A call that a server does not answer ends after 1 minute if it is down, after 4 if it hangs, instead of 4 and 20.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# What MLflow says of a run in its trash, and of one that `mlflow gc` has taken from there.
_DELETED = re.compile(r"run (\w+) must be in the 'active' state|Run with id=(\w+) not found", re.IGNORECASE)
# Any number that no other program takes for a lock of the same database: the letters of tvae.
_LOCK = int.from_bytes(b"tvae")


def connect() -> MlflowClient:
    """Make the tracking store ready, and choose the experiment unless `mlflow run` has chosen one.

    Runs whose process ended without a word are marked as FAILED on the way: see `tvae.tracking.failure`.

    Returns:
        A client of the store.

    Raises:
        TrackingError: if the store does not answer or cannot be written.
    """
    # MLflow announces every table, experiment and download, and each line looks like trouble.
    for talkative in ("alembic", "mlflow"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # It prints a traceback of every error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    drop_blank()
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Its links end in another view of a run than tvae's own, at every trial too, and hold the password of an address.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    file = _choose_file()
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        require_answer(uri)
    elif file is not None:
        _require_database(uri, file)
    with using_store():
        with _first_use(uri, file):
            client = MlflowClient()
            _require_adopted(client, uri)
            close_ended(client)
        if adopted_run_id() is None:
            _choose_experiment(client)
    return client


def _choose_experiment(client: MlflowClient) -> None:
    """Choose the experiment that the environment names, or tvae's own."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    chosen = os.environ.get("MLFLOW_EXPERIMENT_ID")
    try:
        # Of two that make it at once MLflow gives it to the later one without choosing it: hence by its id.
        experiment = mlflow.set_experiment(experiment_id=chosen or mlflow.set_experiment(name).experiment_id)
    except MlflowException as error:
        if "deleted experiment" in str(error):
            named = f"ID {chosen}" if chosen else repr(name)
            raise TrackingError(
                f"The experiment {named} must be there; it was deleted. Bring it back: "
                "mlflow experiments search --view deleted_only, then mlflow experiments restore --experiment-id ID. "
                "Or set MLFLOW_EXPERIMENT_NAME to another."
            ) from error
        if chosen and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(
                f"MLFLOW_EXPERIMENT_ID must name an experiment of {without_credentials(mlflow.get_tracking_uri())}, "
                f"got {chosen}; unset it, or set MLFLOW_EXPERIMENT_NAME."
            ) from error
        raise
    files = local_folder(experiment.artifact_location)
    if files is not None and not files.parents[1].exists():
        logging.getLogger(__name__).warning(
            "The experiment %s keeps its files in %s, which is gone: was the project moved? Those of new runs go there "
            "too. Set MLFLOW_EXPERIMENT_NAME to a new name to keep them here.",
            experiment.name,
            files,
        )
    if not chosen and name == EXPERIMENT and NOTE not in experiment.tags:
        # First, for the UI hides what comes later.
        look = f"[Compare the runs]({links.runs_page(experiment.experiment_id, VIEW)})"
        note = NOTE, f"{look}\n\n{_DESCRIPTION}"
        enter(lambda: client.set_experiment_tag(experiment.experiment_id, *note))


def _require_adopted(client: MlflowClient, uri: str) -> None:
    """Refuse a run of `mlflow run` that is not in the store, before anything is written there."""
    run_id = adopted_run_id()
    if run_id is None:
        return
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        if _is_relative(uri):
            raise _not_there("MLFLOW_TRACKING_URI", uri) from error
        raise TrackingError(
            f"The run of MLFLOW_RUN_ID must be in the tracking store {without_credentials(uri)}, got {run_id}: it is "
            "not there. Unset MLFLOW_RUN_ID, which `mlflow run` sets by itself, or MLFLOW_TRACKING_URI to its store."
        ) from error


def _not_there(name: str, uri: str) -> TrackingError:
    return TrackingError(
        f"Under `mlflow run`, {name} must name the same file from every folder, got {uri}. A relative path counts from "
        "the folder in which a program runs: for `mlflow run` that is where it was typed, for this command "
        f"{Path.cwd()}, where the run is not; and MLflow does not expand `~`. Write the whole path, with four slashes: "
        f"{name}=sqlite:////home/me/runs.db."
    )


@contextmanager
def using_store() -> Iterator[None]:
    """Turn what goes wrong in the tracking store into one sentence; errors from elsewhere pass as they are.

    Raises:
        TrackingError: for an error of MLflow, of its store, or of the store's disk; or if the driver of a database is
            missing.
    """
    try:
        yield
    except STORE_ERRORS as error:
        if not _from_mlflow(error):
            raise
        if run_id := deleted_run(error):
            raise TrackingError(
                f"Run {run_id} must be there to be written; somebody deleted it. Until `mlflow gc` removes it, "
                f"`mlflow runs restore --run-id {run_id}` brings it back."
            ) from error
        raise TrackingError(
            f"The tracking store {without_credentials(mlflow.get_tracking_uri())} must be usable; "
            f"found: {reason(error)}. Mend it, or set MLFLOW_TRACKING_URI to another."
        ) from error
    except ModuleNotFoundError as error:
        if not _from_mlflow(error):
            raise
        raise TrackingError(
            f"The tracking store {without_credentials(mlflow.get_tracking_uri())} must have its driver here; "
            f"found: {error}. For PostgreSQL run `pip install 'tvae[server]'` and begin the address with postgresql+psycopg2://."
        ) from error


def _from_mlflow(error: BaseException) -> bool:
    """Whether an error came out of a call to MLflow: a command has files and streams of its own that may fail."""
    if isinstance(error, MlflowException | SQLAlchemyError):
        return True
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__))
    return any(module.partition(".")[0] in ("mlflow", "sqlalchemy") for module in modules)


def deleted_run(error: BaseException) -> str | None:
    """Return the run that could not be written because somebody deleted it, None if an error says something else."""
    found = _DELETED.search(str(error)) if isinstance(error, MlflowException) else None
    return found and (found[1] or found[2])


@contextmanager
def without_patience() -> Iterator[None]:
    """Ask a server once only: it is known not to answer, or somebody wants to leave."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def local_folder(location: str) -> Path | None:
    """Return the folder of an artifact location, None if it is not on this machine."""
    if not is_local_uri(location):  # type: ignore[no-untyped-call]
        return None
    return Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]


def adopted_run_id() -> str | None:
    """Return the run that `mlflow run` has made for this process, None outside `mlflow run`."""
    return os.environ.get("MLFLOW_RUN_ID", "").strip() or None


def enter(write: Callable[[], None]) -> None:
    """Write what every first run of an experiment writes, maybe at the same moment as another.

    MLflow looks whether a row is there before it inserts one. Of two that do so at once the later is refused, and finds
    the row when it looks again.
    """
    try:
        write()
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        write()


def reason(error: BaseException) -> str:
    """Return the first line of what an error says; of a server that did not answer, what came instead of an answer."""
    chain: list[BaseException] = [error]
    while before := chain[-1].__cause__ or chain[-1].__context__ or next(_wrapped_by(chain[-1]), None):
        if before in chain:
            break
        chain.append(before)
    # What MLflow says of a server that does not answer is mostly addresses; the innermost error says what happened.
    unanswered = any(isinstance(link, _UNANSWERED) for link in chain)
    said = chain[-1] if unanswered else getattr(error, "orig", None) or error
    line = next(iter(str(said).strip().splitlines()), type(said).__name__)
    return f"no answer, {line}" if unanswered else line


def _wrapped_by(error: BaseException) -> Iterator[BaseException]:
    """Yield the error that is wrapped in another, as urllib3 does it: as its last argument."""
    return (argument for argument in error.args[-1:] if isinstance(argument, BaseException))


def require_answer(uri: str) -> None:
    """Refuse a server that is not there: MLflow's own client waits for minutes before it gives up.

    Raises:
        TrackingError: if the server does not answer within some seconds, or its certificate does not count.
    """
    try:
        bare = without_credentials(uri).rstrip("/")
        with urllib.request.urlopen(f"{bare}/health", timeout=ANSWER_SECONDS, context=_certificates()):
            return
    except urllib.error.HTTPError:
        return  # a server that refuses is there: MLflow will say what it wants
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TrackingError(
            f"The tracking server {without_credentials(uri)} must answer within {ANSWER_SECONDS} s; "
            f"found: {reason(error)}. Start it, or set MLFLOW_TRACKING_URI to another."
        ) from error


def _certificates() -> ssl.SSLContext:
    """Return which certificates count, as MLflow's own client is told."""
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _choose_file() -> Path | None:
    """Choose an address of the store that MLflow and SQLAlchemy understand alike; return its file, None if it has none.

    MLflow quotes the path of its default store, SQLAlchemy unquotes it, and MLflow makes the folders of what is quoted:
    an empty `my%20project` beside `my project`, where the store is.
    """
    given = mlflow.get_tracking_uri()
    file = _file_of(given)
    if file is None:
        return None
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI") if adopted_run_id() else ():
        uri = os.environ.get(name, "")
        if _is_relative(uri) and not Path(str(_file_of(uri))).exists():
            raise _not_there(name, uri)
    path, mark, further = given.removeprefix("sqlite:///").partition("?")
    if given.startswith("sqlite:///") and path != str(file):
        plain = (f"sqlite:///{way}" for way in (file.absolute(), os.path.relpath(file)))
        chosen = next((uri for uri in plain if make_url(uri).database == uri.removeprefix("sqlite:///")), None)
        if chosen is not None:
            mlflow.set_tracking_uri(f"{chosen}{mark}{further}")
        if Path(path).parent != file.parent:
            with suppress(OSError):
                os.removedirs(Path(path).parent)  # if it is empty
    return file


def _require_database(uri: str, file: Path) -> None:
    """MLflow tries for two minutes to open a file that is no database."""
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if "locked" in str(error):
            return  # somebody is at work in it: MLflow waits longer than this
        raise TrackingError(
            f"The tracking store {uri} must be a database that can be written; found: {reason(error)} "
            f"({file.absolute()}). Set MLFLOW_TRACKING_URI to another, or mend this one."
        ) from error


def _file_of(uri: str) -> Path | None:
    """Return the file of a sqlite address as SQLAlchemy reads it, in a user's home if it begins with `~`.

    Raises:
        TrackingError: for a path that SQLAlchemy would cut at a question mark.
    """
    if not uri.startswith("sqlite"):
        return None
    address = make_url(uri)
    if "?" in uri and not address.query:
        raise TrackingError(f"A `?` in the path of {uri} must be written as %3F: what follows it are options.")
    if not address.database or address.database == ":memory:" or "uri" in address.query:
        return None
    return Path(os.path.expanduser(address.database))


def _is_relative(uri: str) -> bool:
    """Whether a sqlite address means another file in every folder; MLflow takes `~` for the name of a folder."""
    return _file_of(uri) is not None and not str(make_url(uri).database).startswith("/")


@contextmanager
def _first_use(uri: str, file: Path | None) -> Iterator[None]:
    """Held while a store may be creating its tables: MLflow's migration does not bear two at once.

    What is locked is the store's own, so that every way to write its address and every user of it meet at one lock. A
    server has created its tables before it answers. Where the file system has no locks, `make store` before several
    commands that begin at once does the same.
    """
    if file is not None:
        with ExitStack() as opened:
            with suppress(PermissionError):  # a folder may be writable and not readable
                folder = os.open(file.parent, os.O_RDONLY)
                opened.callback(os.close, folder)
                lock(folder, wait=True)
            yield
    elif uri.startswith("postgresql"):
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield
    else:
        yield
