"""The worked example of docs/sweeps.md comes to what the page says."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from registry_store import tracking_in

from entry_points import sweep
from tvae.sweeps.executors import RETRIES

PAGE = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
FILE, GRID, OPTIONS, PRINTED = re.findall(
    r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```\n\n```text\n\$ python -m entry_points\.sweep ([^\n]+)\n(.*?)\n\.\.\.\n```",
    PAGE,
    re.DOTALL,
)[0]


def test_a_cohort_is_tried_again_as_often_as_the_page_says() -> None:
    assert RETRIES == 2
    assert "its cohort is tried again by another, at most twice" in PAGE


def facts(text: str) -> list[str]:
    """Return the lines of an answer, with figures to two digits and seconds left out: those depend on the machine."""
    lines = [
        re.sub(r"trained in [\d.]+ s", "trained", line)
        for line in text.splitlines()
        if line.startswith(("- ", "Training"))
    ]
    return [re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"about \d+", "about", line)) for line in lines]


@pytest.mark.long
def test_the_worked_example_comes_to_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(FILE).write_text(GRID, encoding="utf-8")
    with tracking_in(tmp_path):
        done = CliRunner().invoke(sweep.main, OPTIONS.split())
    assert done.exit_code == 0, done.output
    assert len(facts(PRINTED)) == 7
    assert facts(done.output)[:7] == facts(PRINTED)
