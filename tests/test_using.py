"""The page docs/using.md says what its code says."""

import doctest
from pathlib import Path

import pytest
from exact_model import tree_model

from tvae.checkpoint import save
from tvae.model import COMPONENTS

PAGE = Path(__file__).parents[1] / "docs" / "using.md"


def test_every_output_on_the_page_is_what_the_code_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "checkpoint.safetensors", tree_model(), trained=COMPONENTS, training={}, metrics={})
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(PAGE.read_text(encoding="utf-8"), {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert result.attempted > 25
    assert result.failed == 0, "".join(said)
