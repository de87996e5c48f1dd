"""The command `tvae`: every command as a subcommand."""

from importlib import import_module

import click

__all__ = ["main"]

COMMANDS = (
    "train", "finetune", "scratch", "stability", "sweep", "report", "verify", "promote", "convert", "embed", "store",
)  # fmt: skip
"""In the order in which `--help` lists them."""


class _Commands(click.Group):
    """Imports a command when it is asked for: `tvae --help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"tvae.cli.{cmd_name}").main
        return found


@click.command(cls=_Commands)
@click.version_option(package_name="tvae")
def main() -> None:
    """Ternary operations in a Poincaré ball: train, verify, promote, embed; MLflow records."""
