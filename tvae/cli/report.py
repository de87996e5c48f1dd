"""Report: what MLflow holds of a sweep or an experiment, and what follows from it."""

import logging

import click

from tvae.cli.command import command
from tvae.cli.options import NONE, out
from tvae.workflows.messages import say_where

_logger = logging.getLogger(__name__)


@command
@click.option("--run", default=NONE, help="Id of a run: a sweep or a stability run with its trials.")
@click.option(
    "--experiment",
    default=NONE,
    help="Name or id of an experiment, all of whose runs are reported; none, and no run: the one this command logs to.",
)
@out("Also write both files into this folder.")
def main(run: str, experiment: str, out: str) -> None:
    """Write report.md and report.html, from what MLflow holds and nothing else.

    Both are artifacts of this command's run, and of the run that was named. The page needs no network.
    """
    if run != NONE and experiment != NONE:
        raise click.UsageError("--run and --experiment exclude each other: pass one.")

    from pathlib import Path

    from tvae.checkpoint import atomic
    from tvae.errors import TrackingError
    from tvae.report import gather, headline, to_markdown, to_page
    from tvae.tracking.run import open_run
    from tvae.tracking.store import connect

    client = connect()
    what = run if run != NONE else experiment if experiment != NONE else "experiment"
    with open_run(client, name=f"report {what}", tags={"stage": "report"}) as own:
        own.log_parameters({"run": run, "experiment": experiment, "out": out})
        if run != NONE:
            found = gather(client, run)
        elif experiment != NONE:
            named = client.get_experiment_by_name(experiment)
            found = gather(client, experiment_id=named.experiment_id if named else experiment)
        else:
            found = gather(client, experiment_id=own.experiment_id)
        for name, text in (("report.md", to_markdown(found)), ("report.html", to_page(found))):
            path = own.folder / name
            path.write_text(text, encoding="utf-8")
            own.log_file(path)
            if run != NONE:
                client.log_artifact(run, str(path))
            if out != NONE:
                try:
                    Path(out).mkdir(parents=True, exist_ok=True)
                    atomic.replace(Path(out) / name, [text.encode()])
                except (OSError, ValueError) as error:
                    raise TrackingError(f"{Path(out) / name} was not written; found: {error}.") from error
        own.describe(f"[report]({own.page('artifacts/report.html')})\n\n{headline(found)}")
        _logger.info(headline(found, markdown=False))
        if out != NONE:
            _logger.info(f"\nreport.html and report.md are in {Path(out).absolute()} too.")
        say_where(own.page("artifacts/report.html"))
