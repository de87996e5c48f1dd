"""Verify: is a checkpoint what it claims to be, and good enough."""

import logging
import math
from dataclasses import fields
from typing import Any, get_args

import click

from tvae.cli.command import command
from tvae.cli.options import CHAMPION_ADDRESS, NONE, OrAuto, address, out
from tvae.config.bounds import RELOADS, Bounds
from tvae.workflows.messages import say_where

_logger = logging.getLogger(__name__)

_HELP = {
    "coverage": "Smallest share of operations that come back whole.",
    "hierarchy": "Largest correlation of valuation and radius; negative is right.",
    "ordered_levels": "Smallest number of neighbouring levels with falling mean radius; auto means all.",
    "level_gap": "Smallest gap between levels; auto means 0 where the training promised it, and else reported only.",
    "distinct_points": "Smallest share of distinct points.",
    "ceiling_slack": "How far the hierarchy may pass its ceiling.",
    "metric_tolerance": "Largest difference of a claimed metric from the recomputed one.",
}


def _bounds(decorated: Any) -> Any:
    for bound in reversed(fields(Bounds)):
        number = click.INT if int in get_args(bound.type) else click.FLOAT
        of: Any = OrAuto(number) if bound.default is None else number
        default = "auto" if bound.default is None else bound.default
        option = click.option(f"--{bound.name}", type=of, default=default, help=_HELP[bound.name])
        decorated = option(decorated)
    return decorated


@command
@address(CHAMPION_ADDRESS)
@_bounds
@click.option("--reloads", type=click.INT, default=RELOADS, help="Fresh processes that load it.")
@out("Also write verification.json here.")
def main(checkpoint: str, reloads: int, out: str, **asked: Any) -> None:
    """Check that a checkpoint loads, loads the same each time, is what it claims, and is good enough.

    Prints each check with its value, bound and verdict, and logs verification.json to the run. Exits with 1 if one
    fails.
    """
    if reloads < 1:
        raise click.UsageError(f"--reloads must be at least 1, got {reloads}: a file is loaded afresh to be compared.")

    for name, value in asked.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise click.UsageError(f"--{name} must be a finite number, got {value}.")
    if not 0 <= asked["coverage"] <= 1:
        raise click.UsageError(f"--coverage must be in 0 … 1, got {asked['coverage']}.")

    from dataclasses import replace
    from pathlib import Path

    from tvae import registry
    from tvae.checkpoint import verify
    from tvae.checkpoint.verification import VERDICT_NAME
    from tvae.errors import CheckpointError
    from tvae.tracking.run import open_run
    from tvae.tracking.store import connect

    values: dict[str, Any] = {name: None if value == "auto" else value for name, value in asked.items()}
    bounds = Bounds(**values)
    client = connect()
    with open_run(client, name=f"verify {registry.short(checkpoint)}", tags={"stage": "verify"}) as run:
        run.log_parameters({"checkpoint": checkpoint, "reloads": reloads, "out": out, **asked})
        found = verify(registry.fetch(checkpoint, run.folder), bounds=bounds, reloads=reloads)
        verification = replace(found, path=Path(checkpoint))  # not where it was downloaded to
        _logger.info(verification.table())
        run.log_json(VERDICT_NAME, verification.to_json())
        run.log_metrics(verification.metrics)
        run.set_tags({"verified": str(verification.passed).lower(), "checkpoint": (verification.digest or "none")[:16]})
        run.describe(verification.markdown())
        if out != NONE:
            verification.write(out)
        say_where(run.page(f"artifacts/{VERDICT_NAME}"))
        if not verification.passed:
            raise CheckpointError(f"Verification failed: {verification.failures}.")
