"""Convert: bring in a legacy file."""

import logging
from typing import Literal

import click

from tvae.cli.command import command
from tvae.cli.options import NONE, PLACE, OrAuto, out
from tvae.workflows.messages import say_where, show_table

_logger = logging.getLogger(__name__)

Auto = Literal["auto"]


@command
@click.option("--path", type=PLACE, default=NONE, help="A file of the v5.11 programme.")
@click.option(
    "--branch",
    type=click.Choice(["A", "B"]),
    default="A",
    help="Which of its encoders, with its projection; there is one decoder.",
)
@click.option(
    "--curvature",
    type=OrAuto(click.FLOAT),
    default="auto",
    help="Of the ball in which the points are read. auto: what the file states; needed where it states none.",
)
@click.option(
    "--max_radius",
    type=OrAuto(click.FLOAT),
    default="auto",
    help="Largest Euclidean norm of a point. auto: what the file states; needed where it states none. The usual values "
    "are 0.95 and 0.99.",
)
@click.option(
    "--override",
    type=click.BOOL,
    default=False,
    help="The two options above count even where the file states something else.",
)
@out("The checkpoint to write; only when all went well.")
def main(path: str, branch: str, curvature: float | Auto, max_radius: float | Auto, override: bool, out: str) -> None:
    """Bring in one branch of a legacy v5.11 file as a checkpoint that can be finetuned, verified, promoted and served.

    The architecture is read off the tensors, and the metrics are recomputed; what the file does not state is not
    guessed. Nothing in the file is executed.
    """
    if NONE in (path, out):
        raise click.UsageError("Name the legacy file as --path and the checkpoint to write as --out.")

    from pathlib import Path

    from tvae.checkpoint import FILE_NAME, atomic, convert, read
    from tvae.errors import CheckpointError
    from tvae.markdown import escaped
    from tvae.tracking.run import open_run
    from tvae.tracking.store import connect

    source, target = Path(path), Path(out)
    if target.exists() and source.exists() and target.samefile(source):
        raise click.UsageError(f"--out must be another file than --path, got {out}.")
    client = connect()
    with open_run(client, name=f"convert {source.name} {branch}", tags={"stage": "convert"}) as run:
        settings = {"curvature": curvature, "max_radius": max_radius, "override": override}
        run.log_parameters({"path": path, "branch": branch, **settings, "out": out})
        conversion = convert(
            source,
            branch,
            curvature=None if curvature == "auto" else curvature,
            max_radius=None if max_radius == "auto" else max_radius,
            override=override,
        )
        made = run.folder / FILE_NAME
        conversion.save(made)
        digest = read(made).digest
        for note in conversion.notes:
            _logger.info(f"- {note}")
        _logger.info(f"{conversion.model.architecture}")
        show_table([(name, f"{value: .5f}") for name, value in conversion.metrics.items()])
        run.log_metrics(conversion.metrics)
        run.log_file(made, "checkpoint")
        run.set_tags({"checkpoint": digest[:16]})
        said = [f"### {escaped(source.name)}, branch {branch}", "", *(f"- {escaped(n)}" for n in conversion.notes)]
        run.describe("\n".join(said))
        try:
            atomic.replace(target, [made.read_bytes()])
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{out} was not written; found: {error}.") from error
        _logger.info(f"Written to {target.absolute()}; digest {digest[:12]}…")
        say_where(run.page())
