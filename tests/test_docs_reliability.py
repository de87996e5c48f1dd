"""docs/reliability.md names the tests that prove what it promises: each is there, and none of faults is left out."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


def defined(file: Path) -> list[str]:
    return re.findall(r"^ *def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_test_that_the_page_names_is_there() -> None:
    assert len(NAMED) > 20
    assert [f"{file}::{name}" for file, name in NAMED if name not in defined(TESTS / file)] == []


def test_every_test_of_a_fault_is_on_the_page() -> None:
    faults = [(file.name, name) for file in sorted(TESTS.glob("test_faults*.py")) for name in defined(file)]
    assert len(faults) > 10
    assert [fault for fault in faults if fault not in NAMED] == []


def test_every_row_names_its_proof() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("| ") and not row.startswith(("| fault", "| ---"))]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`test_\w+\.py::test_\w+` *\|$", row)] == []
