"""Gates: what is known of their numbers, and that the page docs/gates.md says what is so."""

import doctest
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

import tvae
from tvae import gates, ternary

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
TRITS = ternary.operations()


@pytest.mark.parametrize(
    ("has", "count"),
    [
        (gates.commutative, 3**6),
        (gates.monotone, 175),  # plane partitions in a box of 3 x 3 x 2, MacMahon's product
        (gates.associative, 113),  # OEIS A023814
    ],
)
def test_there_are_as_many_as_is_known(has: object, count: int) -> None:
    assert has(TRITS).sum() == count  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "commutative", "monotone", "associative"),
    [
        ("min (and)", True, True, True),
        ("max (or)", True, True, True),
        ("consensus (carry)", True, True, True),
        ("any", True, True, False),
        ("sum modulo 3", True, False, True),
        ("product (equivalence)", True, False, True),
        ("x", False, True, True),
        ("nand", True, False, False),
        ("implication (Kleene)", False, False, False),
    ],
)
def test_a_named_gate_has_its_properties(name: str, commutative: bool, monotone: bool, associative: bool) -> None:
    (index,) = [i for i, found in gates.NAMES.items() if found == name]
    found = [bool(has(TRITS[[index]])[0]) for has in (gates.commutative, gates.monotone, gates.associative)]
    assert found == [commutative, monotone, associative]


def test_a_line_of_the_table_is_an_x_and_a_column_a_y() -> None:
    assert ternary.to_trits(gates.index(lambda x, y: x)).tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1]
    assert ternary.to_trits(gates.index(lambda x, y: y)).tolist() == [-1, 0, 1, -1, 0, 1, -1, 0, 1]


def test_no_two_names_are_one_gate() -> None:
    assert len(gates.NAMES) == len(gates._GATES) == len(set(gates.NAMES.values()))


def test_tables_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 9\), the tables of two-input gates, got \(2, 4\)"):
        gates.commutative(np.zeros((2, 4)))


def test_the_page_has_every_name() -> None:
    table = dict(re.findall(r"^\| ([^|]+?) \| `([-0+ ]{11})` \|", PAGE, re.MULTILINE))
    written = {name: " ".join("".join("-0+"[t + 1] for t in row) for row in TRITS[i].reshape(3, 3)) for i, name in
               gates.NAMES.items()}  # fmt: skip
    assert table == written


def test_every_output_on_the_page_is_what_the_code_gives() -> None:
    examples = doctest.DocTestParser().get_doctest(PAGE, {}, "gates.md", "gates.md", 0)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert result.attempted > 5
    assert result.failed == 0, "".join(said)


@pytest.fixture(scope="module")
def book() -> tvae.Codebook:
    """Of a model of the default preset, as the page has it."""
    return tvae.codebook(tvae.train().model)


@pytest.mark.long
def test_the_probes_come_to_what_the_page_says(book: tvae.Codebook) -> None:
    """Other machines train other last digits, and so another model: one of 12 epochs was off by 0.08 at most."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "gates.py"))
    lines: list[str] = []
    benchmark["table"](book, lines.append)
    printed = [line for line in PAGE.splitlines() if line == lines[0] or re.match(r"\| .* \(\d+\) \|", line)]
    assert printed[0] == lines[0]
    figure = re.compile(r"(\d\.\d\d) ± (\d\.\d\d)")
    assert [figure.sub("", line) for line in printed[1:]] == [figure.sub("", line) for line in lines[2:]]
    for said, found in zip(printed[1:], lines[2:], strict=True):
        for (a, _), (b, _) in zip(figure.findall(said), figure.findall(found), strict=True):
            assert float(a) == pytest.approx(float(b), abs=0.1), found


@pytest.mark.long
def test_what_the_page_reads_off_distances_is_so(book: tvae.Codebook) -> None:
    everyone = np.arange(len(TRITS))
    two = TRITS[tvae.nearest_operations(everyone, book, count=2).index]
    assert (two[:, :, :8] == TRITS[:, None, :8]).all()
    matrix = tvae.distance(everyone[:729], everyone[:729], book, matrix=True)
    clusters = AgglomerativeClustering(3, metric="precomputed", linkage="average").fit_predict(matrix)
    assert len(set(zip(clusters, TRITS[:729, 0], strict=True))) == 3
