"""Store: make the tracking store ready. For make: under `mlflow run` MLflow opens it before any command starts."""

import click

from tvae.cli.command import command
from tvae.cli.options import CHAMPION_ADDRESS


@command
@click.option("--champion", is_flag=True, help="Also refuse if there is no champion that can be served.")
def main(champion: bool) -> None:
    """Create the tracking store, unless it is there: once, before several `mlflow run` begin in it at the same time.

    MLflow's own creation does not bear two at once. Commands that are started by themselves or by make wait for one
    another and need no such step.
    """
    from tvae.tracking.store import connect

    connect()
    if champion:
        import tempfile
        from pathlib import Path

        from tvae import registry

        with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
            registry.fetch(CHAMPION_ADDRESS, Path(folder))
