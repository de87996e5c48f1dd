"""Promote: put a verified checkpoint into the registry."""

import logging

import click

from tvae.cli.command import command
from tvae.cli.options import NONE, address
from tvae.workflows.messages import say_where

_logger = logging.getLogger(__name__)


@command
@address(NONE)
@click.option(
    "--mode",
    type=click.Choice(["auto", "force"]),
    default="auto",
    help="auto makes it champion if it is better; force, whatever the comparison says. Both verify it first.",
)
@click.option(
    "--rollback",
    type=click.BOOL,
    is_flag=False,
    flag_value="True",
    default=False,
    help="Swap champion and previous instead.",
)
def main(checkpoint: str, mode: str, rollback: bool) -> None:
    """Verify a checkpoint, register it as a version of tvae, and make it the champion if it is better.

    What decides is the first of these that differs by as much as matters: coverage, hierarchy, level gap, tree
    precision, Q, richness. The champion before keeps the alias `previous`.
    """
    if rollback == (checkpoint != NONE):
        raise click.UsageError("Pass one of the two: --checkpoint to promote it, or --rollback to swap back.")

    from dataclasses import replace
    from pathlib import Path

    from tvae import registry
    from tvae.checkpoint import verify
    from tvae.checkpoint.verification import VERDICT_NAME
    from tvae.tracking.links import model_page
    from tvae.tracking.model import log_model, log_with_file
    from tvae.tracking.run import open_run
    from tvae.tracking.store import connect

    client = connect()
    name = "rollback" if rollback else f"promote {registry.short(checkpoint)}"
    with open_run(client, name=name, tags={"stage": "rollback" if rollback else "promote"}) as run:
        run.log_parameters({"checkpoint": checkpoint, "mode": mode, "rollback": rollback})
        if rollback:
            champion, previous = registry.rollback(client)
            text = f"{registry.MODEL} version {champion} is {registry.CHAMPION} again; version {previous} is previous."
            run.describe(text)
            _logger.info(text)
            say_where(model_page(registry.MODEL, champion))
            return
        found = verify(registry.fetch(checkpoint, run.folder))
        verification = replace(found, path=Path(checkpoint))  # not where it was downloaded to
        run.log_json(VERDICT_NAME, verification.to_json())
        run.set_tags({"verified": str(verification.passed).lower(), "checkpoint": (verification.digest or "none")[:16]})
        verified = registry.require_promotable(verification)
        _logger.info(f"Verification passed: {len(verification.checks)} checks.")
        model_id = registry.find_model(client, checkpoint, verified.digest)
        if model_id is None and (trained := registry.run_of(client, checkpoint)):
            epoch = int(trained.data.metrics.get("best_epoch", 0))
            model_id = log_model(client, trained.info.run_id, verification, step=epoch)
        model_id = model_id or log_with_file(client, run, verification)
        promotion = registry.promote(client, verification, model_id=model_id, mode=mode)
        if promotion.comparison is not None:
            _logger.info(f"\n{promotion.comparison.table()}\n")
        _logger.info(promotion.sentence())
        run.set_tags({"registered": f"{registry.MODEL} version {promotion.version}"})
        page = model_page(registry.MODEL, promotion.version)
        compared = f"{promotion.comparison.markdown()}\n\n" if promotion.comparison else ""
        run.describe(f"{promotion.sentence()} [Its page]({page})\n\n{compared}{verification.markdown()}")
        say_where(page)
