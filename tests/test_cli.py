"""The command `tvae`, and what holds for the options of every command."""

from click.testing import CliRunner

from tvae.cli.finetune import main as finetune
from tvae.cli.main import COMMANDS, main


def test_help_lists_every_command() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.output


def test_a_command_is_a_subcommand() -> None:
    done = CliRunner().invoke(main, ["finetune", "--help"])
    assert done.exit_code == 0
    assert "--curvature" in done.output
    assert CliRunner().invoke(main, ["fly"]).exit_code == 2


def test_a_dash_is_as_good_as_an_underscore() -> None:
    for name in ("--max-radius", "--max_radius"):
        done = CliRunner().invoke(finetune, [name, "2"])
        assert done.exit_code == 2
        assert "`max_radius` must be a number in (0, 1)" in done.output
