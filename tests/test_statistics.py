"""Statistics over seeds, against scipy, textbook figures, and simulations of runs where nothing differs."""

import doctest
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tvae.sweeps import statistics
from tvae.sweeps.statistics import (
    Comparison,
    Comparisons,
    Verdict,
    _judge,
    compare,
    correlation,
    seeds_needed,
    spread,
)

Floats = npt.NDArray[np.float64]

# What each docstring row is a simulation of: values of shape `(layouts, cells, seeds)` without any difference.
NOISE: dict[str, Callable[[np.random.Generator, tuple[int, int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "two modes": lambda rng, shape: (rng.random(shape) < 0.5) + 1e-6 * rng.normal(size=shape),
    "spreads from 1 to 3": lambda rng, shape: rng.normal(size=shape) * np.linspace(1, 3, shape[1])[:, None],
    "one spread of 3": lambda rng, shape: rng.normal(size=shape) * _one(3, shape[1]),
    "one spread of 10": lambda rng, shape: rng.normal(size=shape) * _one(10, shape[1]),
    "the first of 5": lambda rng, shape: rng.normal(size=shape) * _one(5, shape[1])[::-1],
    "spreads from 0.1 to 10": lambda rng, shape: rng.normal(size=shape) * np.geomspace(0.1, 10, shape[1])[:, None],
}
LAYOUTS = 2000


def _one(spread: float, cells: int) -> Floats:
    return np.array([[1.0]] * (cells - 1) + [[spread]])


def stated_rates() -> dict[tuple[str, int], int]:
    """Percent of false alarms among 7 cells in `compare`'s docstring, by noise and number of seeds."""
    table = str(compare.__doc__).split("    ======")[2]
    rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines() if line[-1:].isdigit()]
    return {(noise, n): int(rate) for noise, *rates in rows for n, rate in zip((3, 4, 5, 10), rates, strict=True)}


def simulated(noise: str, cells: int, n: int, layouts: int = LAYOUTS) -> Floats:
    rng = np.random.default_rng([cells, n])
    return NOISE[noise](rng, (layouts, cells, n)) + rng.integers(-9, 9, size=(layouts, 1, n))


def false_alarms(values: Floats) -> float:
    """Share of layouts in which any pair is called different."""
    return float((_judge(values, 0.95).p < 0.05).any((1, 2)).mean())


def power(cells: int, n: int, shift: float, layouts: int = LAYOUTS) -> float:
    """Share of layouts that find a cell that differs from the first by `shift` standard deviations of a run."""
    values = simulated("normal", cells, n, layouts)
    values[:, 1] += shift
    return float((_judge(values, 0.95).p[:, 1, 0] < 0.05).mean())


def three_errors(share: float, layouts: int = LAYOUTS) -> float:
    """Three standard errors of a share that is estimated from so many layouts."""
    return 3 * math.sqrt(share * (1 - share) / layouts)


def by_seed(values: npt.ArrayLike) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, float).tolist()))


def layout(values: npt.ArrayLike, **more: object) -> Comparisons:
    """Cells a, b, c, … with the same seeds."""
    rows = np.asarray(values)
    cells = {name: by_seed(row) for name, row in zip("abcdefghijkl"[: len(rows)], rows, strict=True)}
    return compare(cells, **{"metric": "q", "smallest_difference": 0.0, **more})  # type: ignore[arg-type]


def pair(first: npt.ArrayLike, second: npt.ArrayLike, smallest_difference: float = 0.0) -> Comparison:
    """The comparison of two cells with the same seeds, the second being the first of the layout."""
    cells = {"b": by_seed(second), "a": by_seed(first)}
    (found,) = compare(cells, metric="hierarchy", smallest_difference=smallest_difference).pairs
    return found


def test_import_does_not_wait_for_scipy() -> None:
    script = "import sys; import tvae.sweeps.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


# Spread


def test_spread_is_that_of_the_sample() -> None:
    values = [0.3, -1.5, 2.0, 0.7]
    found = spread(iter(values))
    assert (found.n, found.minimum, found.maximum) == (4, -1.5, 2.0)
    assert found.mean == pytest.approx(0.375)
    assert found.std == pytest.approx(stats.tstd(values))


def test_one_run_has_no_standard_deviation() -> None:
    found = spread([0.5])
    assert (found.mean, found.minimum, found.maximum) == (0.5, 0.5, 0.5)
    assert math.isnan(found.std)


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`values` must hold at least one value, got none"):
        spread([])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"`values` must be finite, got {value} at position 1"):
        spread([0.5, value])
    with pytest.raises(ValueError, match=f"`y` must be finite, got {value} at position 2"):
        correlation([1, 2, 3], [1, 2, value])
    cells = {"a": {0: 0.5, 7: value}, "b": {0: 0.5}}
    with pytest.raises(ValueError, match=f"must be finite, got {value} for q in cell 'a', seed 7"):
        compare(cells, metric="q", smallest_difference=0)


# Correlation


@pytest.mark.parametrize("n", [3, 50])
def test_correlation_is_pearsons(n: int) -> None:
    x, y = np.random.default_rng(n).normal(size=(2, n))
    found = correlation(x.tolist(), y.tolist())
    assert found is not None
    assert found.r == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert -1 <= found.low <= found.r <= found.high <= 1
    assert found.n == n


@pytest.mark.parametrize(("n", "rho"), [(10, 0.95), (100, -0.5)])
def test_interval_of_a_correlation_holds_fishers_and_the_bootstraps(n: int, rho: float) -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, n))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    found = correlation(x.tolist(), y.tolist(), confidence=0.9)
    assert found is not None
    fisher = stats.pearsonr(x, y).confidence_interval(0.9)
    resampled = [np.corrcoef(x[i], y[i])[0, 1] for i in rng.integers(n, size=(999, n))]
    percentile = np.quantile(resampled, [0.05, 0.95])
    assert found.low == pytest.approx(min(fisher.low, percentile[0]), abs=0.03)
    assert found.high == pytest.approx(max(fisher.high, percentile[1]), abs=0.03)
    assert found.low <= fisher.low + 1e-12
    assert found.high >= fisher.high - 1e-12


def test_correlation_of_values_that_differ_by_a_millionth_is_that_of_the_differences() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    near, far = correlation((-0.832 + 1e-6 * x).tolist(), (1e-7 * y).tolist()), correlation(x.tolist(), y.tolist())
    assert near is not None
    assert far is not None
    assert (near.r, near.low, near.high) == pytest.approx((far.r, far.low, far.high), abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0, 2.0], [2.0, 1.0]),
        ([0.1] * 6, list(range(6))),
        (list(range(6)), [-0.83205] * 6),
        ([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]),
    ],
)
def test_correlation_is_undefined_for_two_pairs_or_a_constant_side(x: list[float], y: list[float]) -> None:
    assert correlation(x, y) is None


def test_three_pairs_leave_every_correlation_possible() -> None:
    found = correlation([1, 2, 3], [1, 2, 3.1])
    assert found is not None
    assert (found.low, found.high) == (-1, 1)


@pytest.mark.parametrize("rest", [0.0, 0.1, 0.7])
def test_correlation_that_one_run_carries_may_be_none(rest: float) -> None:
    found = correlation([*[rest] * 5, 1], [*[rest] * 5, 1])
    assert found is not None
    assert found.r == pytest.approx(1)
    assert found.low == 0


def test_sides_of_a_correlation_are_pairs() -> None:
    with pytest.raises(ValueError, match="`x` and `y` must be pairs, got 3 and 2 values"):
        correlation([1, 2, 3], [1, 2])


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), got"):
        correlation([1, 2, 3], [1, 2, 3], confidence=confidence)
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), got"):
        compare({}, metric="q", smallest_difference=0, confidence=confidence)


# Comparison


@pytest.mark.parametrize(("n", "size"), [(3, 1.0), (4, 1e-9), (10, 1e6), (40, 1.0)])
def test_two_cells_are_judged_by_the_paired_t_test(n: int, size: float) -> None:
    first, second = size * np.random.default_rng(n).normal(size=(2, n))
    found, expected = pair(first, second), stats.ttest_rel(first, second)
    assert found.p == pytest.approx(expected.pvalue, abs=0.003)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.03)


def test_critical_values_lie_between_those_of_dunnett_and_tukey() -> None:
    """The first cell has priority, and the others pay for it: Dunnett's method compares with nothing but it."""
    largest = statistics._largest(5, 20)
    first = float(np.quantile(largest, 0.95))
    # Two-sided, 4 comparisons with a control, 20 degrees of freedom (Dunnett 1964, table II).
    dunnett, tukey = 2.65, stats.studentized_range.isf(0.05, 5, 20) / math.sqrt(2)
    assert dunnett < first < tukey < first / statistics.PRIORITY


def test_pairs_hold_their_level_with_tukeys_method_where_no_cell_has_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PRIORITY", 1.0)
    largest = statistics._largest.__wrapped__(6, 15)
    expected = stats.studentized_range.isf([0.5, 0.1, 0.05, 0.01], 6, 15) / math.sqrt(2)
    assert np.quantile(largest, [0.5, 0.9, 0.95, 0.99]) == pytest.approx(expected, rel=0.02)


def test_a_run_that_is_missing_leaves_least_squares_over_the_others() -> None:
    values = np.random.default_rng(1).normal(size=(4, 5)) + np.arange(5) * 10
    there = [(i, j) for i in range(4) for j in range(5) if (i, j) not in {(1, 2), (3, 0)}]
    design = np.array([[float(i == c) for c in range(4)] + [float(j == s) for s in range(5)] for i, j in there])
    y = np.array([values[place] for place in there])
    squares = ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum()
    cells = {str(i): {j: float(values[i, j]) for k, j in there if k == i} for i in range(4)}
    found = compare(cells, metric="q", smallest_difference=0)
    assert found.noise == pytest.approx(math.sqrt(squares / (len(there) - 8)))
    one = found.between("3", "1")
    assert one is not None
    assert one.n == 3
    assert one.difference == pytest.approx((values[3] - values[1])[[1, 3, 4]].mean())


def test_what_a_seed_does_to_all_cells_is_no_noise() -> None:
    values = np.random.default_rng(2).normal(size=(3, 4))
    found, shifted = layout(values), layout(values + np.array([0, 100, -50, 7]))
    assert [c.p for c in found.pairs] == pytest.approx([c.p for c in shifted.pairs], abs=1e-4)


def test_every_pair_is_compared_or_those_that_are_asked_for() -> None:
    values = np.random.default_rng(1).normal(size=(4, 9))
    every = layout(values)
    assert [(c.cell, c.against) for c in every.pairs] == [
        ("b", "a"), ("c", "a"), ("d", "a"), ("c", "b"), ("d", "b"), ("d", "c")
    ]  # fmt: skip
    some = layout(values, against=["a", "c"])
    assert [(c.cell, c.against) for c in some.pairs] == [("b", "a"), ("c", "a"), ("d", "a"), ("b", "c"), ("d", "c")]
    for found in some.pairs:
        assert found == every.between(found.cell, found.against)
    assert every.between("a", "z") is None


def test_against_holds_cells() -> None:
    with pytest.raises(ValueError, match="`against` must hold cells of 'a', 'b', got 'z'"):
        compare({"a": {}, "b": {}}, metric="q", smallest_difference=0, against=["z"])


@pytest.mark.parametrize("smallest", [-1e-9, math.nan, math.inf])
def test_smallest_difference_is_a_size(smallest: float) -> None:
    with pytest.raises(ValueError, match="`smallest_difference` must be finite and at least 0, got"):
        compare({}, metric="q", smallest_difference=smallest)


@pytest.mark.parametrize("cells", [{}, {"a": {0: 1.0, 1: 2.0, 2: 4.0}}])
def test_one_cell_alone_is_compared_with_nothing(cells: dict[str, dict[int, float]]) -> None:
    found = compare(cells, metric="q", smallest_difference=0)
    assert (found.pairs, found.n) == ((), 0)


def test_the_order_of_runs_does_not_count() -> None:
    values = np.random.default_rng(0).normal(size=(3, 6))
    cells = {name: {run << 40: v for run, v in by_seed(row).items()} for name, row in zip("abc", values, strict=True)}
    backwards = {name: dict(reversed(runs.items())) for name, runs in cells.items()}
    assert compare(backwards, metric="q", smallest_difference=0) == compare(cells, metric="q", smallest_difference=0)


# Unequal spreads


def test_a_noisy_cell_is_named_and_judged_by_its_own_seeds_and_does_not_hide_the_others() -> None:
    values = np.random.default_rng(5).normal(size=(6, 5)) + np.array([[0], [5], [0], [0], [0], [0]])
    values[5] *= 50
    found = layout(values)
    assert (found.noisy, found.set_aside) == (("f",), ("f",))
    b, f = found.between("b", "a"), found.between("f", "a")
    assert b is not None
    assert f is not None
    assert (b.verdict, b.own_spread) == ("distinguishable", False)
    assert f.own_spread
    assert f.p >= min(1, 3 * stats.ttest_rel(values[5], values[0]).pvalue) - 1e-9
    assert "by their own spread" in f.sentence()


def test_a_noisy_cell_beside_cells_without_noise_is_not_found_by_chance() -> None:
    found = layout([[8, 8, 8], [8, 8, 8], [8.3, 7.9, 8.2]])
    assert found.noisy == ("c",)
    assert [c.verdict for c in found.pairs] == ["not distinguishable from seed noise"] * 3
    assert found.pairs[1].high > 0 > found.pairs[1].low


def test_cells_of_like_spread_are_not_called_noisy() -> None:
    assert _judge(simulated("normal", 7, 3), 0.95).noisy.any(1).mean() < 0.15


# Differences without spread


@pytest.mark.parametrize(
    ("difference", "n", "p", "verdict"),
    [
        (0.0, 3, 1.0, "not distinguishable from seed noise"),
        (0.0, 50, 1.0, "not distinguishable from seed noise"),
        (1.0, 2, math.nan, "nothing can be concluded"),
        (1.0, 3, 0.0, "distinguishable"),
        (-1.0, 3, 0.0, "distinguishable"),
    ],
)
def test_equal_differences_have_p_of_0_or_1_and_no_interval(
    difference: float, n: int, p: float, verdict: Verdict
) -> None:
    # Sums that round differently: the differences are equal but for the last bits.
    second = np.linspace(0.1, 0.7, n)
    with warnings.catch_warnings(action="error"):
        found = pair(second + difference, second)
    assert found.p == pytest.approx(p, nan_ok=True)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.verdict == verdict


def test_equal_differences_are_judged_by_the_noise_of_the_others() -> None:
    found = layout([[8, 8, 8], [9, 9, 9], [8, 9, 8], [8, 8, 8], [7, 8, 8.5]])
    b = found.between("b", "a")
    assert b is not None
    assert math.isfinite(b.low)


# Verdicts


@pytest.mark.parametrize(
    ("first", "smallest", "verdict"),
    [
        ([1.0, 1.1, 0.9, 1.0], 0.5, "distinguishable"),
        ([-1.0, -1.1, -0.9, -1.0], 0.5, "distinguishable"),
        ([1.0, 1.1, 0.9, 1.0], 1.5, "smaller than matters"),
        ([-1.0, -1.1, -0.9, -1.0], 1.5, "smaller than matters"),
        ([1.0, -1.1, 0.9, 1.0], 0.5, "not distinguishable from seed noise"),
        ([1.0, 1.1], 0.5, "nothing can be concluded"),
        ([1.0], 0.5, "nothing can be concluded"),
        ([], 0.5, "nothing can be concluded"),
    ],
)
def test_verdict(first: list[float], smallest: float, verdict: Verdict) -> None:
    assert pair(first, np.zeros(len(first)), smallest).verdict == verdict


def test_a_difference_is_found_just_where_its_interval_leaves_out_0() -> None:
    for values in np.random.default_rng(0).normal(size=(60, 4, 4)) + np.array([[0], [1], [2], [3]]):
        for found in layout(values).pairs:
            assert (found.verdict == "distinguishable") == (not found.low <= 0 <= found.high)


def test_what_is_open_may_hold_a_difference_that_matters() -> None:
    noise = [0.1, -0.1, 0.0, 0.05]
    assert pair(noise, np.zeros(4), 0.1).is_open
    assert not pair(noise, np.zeros(4), 1.0).is_open
    assert pair([1.0], [0.0], 1.0).is_open


# Sentences


@pytest.mark.parametrize(
    ("first", "smallest", "sentence"),
    [
        (
            [0, 0, 0],
            0.1,
            "a and b have the same hierarchy on each of 3 shared seeds: not distinguishable from seed noise.",
        ),
        (
            [2] * 10,
            0.1,
            "a and b differ by +2 in hierarchy (the same on each of 10 shared seeds): distinguishable from seed noise.",
        ),
        (
            [0.25],
            0.1,
            "a and b differ by +0.25 in hierarchy (1 shared seed; at least 3 are needed): nothing can be concluded.",
        ),
        ([], 0.1, "a and b have no seed in common: nothing can be concluded about hierarchy."),
    ],
)
def test_sentence(first: list[float], smallest: float, sentence: str) -> None:
    assert pair(first, np.zeros(len(first)), smallest).sentence() == sentence


def test_sentence_gives_the_figures_that_it_rests_on() -> None:
    said = pair([0.5, 0.51, 0.49, 0.5], np.zeros(4), 0.6).sentence()
    assert re.fullmatch(
        r"a and b differ by \+0\.5000 in hierarchy \(95 % interval \+0\.48\d\d to \+0\.51\d\d, "
        r"adjusted p below 0\.0001, 4 shared seeds\): "
        r"distinguishable from seed noise, but smaller than matters \(0\.6\)\.",
        said,
    )


# Calibration, by simulation


def test_from_five_seeds_on_no_more_than_5_percent_of_layouts_without_difference_claim_one() -> None:
    """Of three seeds where spreads are equal. Seven cells are in the docstring's table."""
    unequal = [noise for noise in NOISE if "spread" in noise or "first" in noise]
    asked = [(noise, cells, n) for noise in ("normal", "exponential") for cells in (2, 12) for n in (3, 10)]
    asked += [(noise, cells, 5) for noise in unequal for cells in (3, 12)]
    wrong = {}
    for noise, cells, n in asked:
        layouts = LAYOUTS * 6 // cells
        share = false_alarms(simulated(noise, cells, n, layouts))
        if share > 0.05 + three_errors(0.05, layouts):
            wrong[noise, cells, n] = share
    assert wrong == {}


def test_false_alarms_are_as_rare_as_the_docstring_states() -> None:
    stated = stated_rates()
    assert {noise for noise, _ in stated} == set(NOISE)
    wrong = {}
    for (noise, n), percent in stated.items():
        found, share = false_alarms(simulated(noise, 7, n)), percent / 100
        # Stated are whole percents.
        if abs(found - share) > 0.005 + three_errors(max(share, 0.01)):
            wrong[noise, n] = found
    assert wrong == {}


@pytest.mark.parametrize(("cells", "n", "least"), [(7, 3, 0.9), (12, 3, 0.9), (7, 10, 0.99)])
def test_four_standard_deviations_are_found(cells: int, n: int, least: float) -> None:
    assert power(cells, n, 4, layouts=4000) >= least - 0.01


@pytest.mark.parametrize("n", [4, 10])
def test_four_standard_deviations_are_found_beside_a_noisy_cell(n: int) -> None:
    values = simulated("normal", 7, n)
    values[:, 1] += 4
    values[:, 6] *= 20
    assert (_judge(values, 0.95).p[:, 1, 0] < 0.05).mean() >= 0.88


@pytest.mark.parametrize(("cells", "difference"), [(2, 0.7), (7, 1.5), (12, 3.0)])
def test_the_number_of_seeds_that_is_advised_is_right_within_a_quarter(cells: int, difference: float) -> None:
    advised = seeds_needed(1.0, difference, cells)
    assert power(cells, max(3, math.ceil(advised / 0.75)), difference) >= 0.8 - three_errors(0.8)
    if advised > 4:
        assert power(cells, math.floor(advised / 1.25), difference) <= 0.8 + three_errors(0.8)


def test_seeds_needed_are_the_least_that_do() -> None:
    assert seeds_needed(1e-9, 1.0, 2) == 3
    assert seeds_needed(1.0, 1e-9, 2) == 100_000
    assert seeds_needed(1.0, 1.5, 2) > seeds_needed(1.0, 3.0, 2)


def test_the_worked_example_of_the_documentation_says_what_it_says() -> None:
    page = Path(__file__).parent.parent / "docs" / "sweeps.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 5
    assert not found.failed
