"""Statistics over seeds, against scipy, textbook figures, and simulations of runs where nothing differs."""

import dataclasses
import itertools
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tvae.experiments import statistics
from tvae.experiments.statistics import Comparison, Verdict, compare, correlation, holm, spread

Floats = npt.NDArray[np.float64]

NOISE = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(size=shape),
    "two modes": lambda rng, shape: (rng.random(shape) < 0.5) + 1e-6 * rng.normal(size=shape),
    "two values": lambda rng, shape: (rng.random(shape) < 0.5) * 1.0,
    "count 0 … 3": lambda rng, shape: rng.integers(0, 4, size=shape) * 1.0,
}


def stated_rates() -> dict[tuple[str, int, int], float]:
    """Rates of false alarms in `compare`'s docstring, by noise, seeds, and number of comparisons."""
    rows = [
        re.split(r" {2,}", line.strip()) for line in str(compare.__doc__).splitlines() if line.endswith((" %", "seeds"))
    ]
    (_, *heads), *rows = (row for row in rows if len(row) == 4)
    return {
        (noise, int(head.split()[0]), comparisons): float(percent) / 100
        for noise, *cells in rows
        for head, cell in zip(heads, cells, strict=True)
        for comparisons, percent in zip((1, 4, 10), cell.removesuffix(" %").split(", "), strict=True)
    }


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples make the bootstrap narrower, if anything: what holds with them holds with many."""
    monkeypatch.setattr(statistics, "N_RESAMPLES", 99)


def by_seed(values: npt.ArrayLike) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, float).tolist()))


def pair(first: npt.ArrayLike, second: npt.ArrayLike, smallest_difference: float = 0.0) -> Comparison:
    """The comparison of two cells with the same seeds."""
    cells = {"a": by_seed(first), "b": by_seed(second)}
    (found,) = compare(cells, metric="hierarchy", smallest_difference=smallest_difference)
    return found


def families(values: Floats, *, all_pairs: bool) -> Iterator[list[Comparison]]:
    """What `compare` finds in each of many sweeps of shape `(sweeps, cells, seeds)`, judged in one go."""
    sweeps, cells, n = values.shape
    pairs = list(itertools.combinations(range(cells), 2)) if all_pairs else [(i, 0) for i in range(1, cells)]
    first, second = (values[:, [p[side] for p in pairs]].reshape(-1, n) for side in (0, 1))
    level = 1 - 0.05 / len(pairs)
    judged = np.stack(statistics._judge(first, second, level=level, seed=0)).reshape(3, sweeps, len(pairs))
    mean = (first - second).mean(1).reshape(sweeps, len(pairs))
    for k in range(sweeps):
        adjusted = holm(judged[2, k].tolist())
        yield [
            Comparison(
                cell=str(i),
                against=str(j),
                metric="",
                n=n,
                difference=float(mean[k, m]),
                low=float(judged[0, k, m]),
                high=float(judged[1, k, m]),
                p=float(judged[2, k, m]),
                adjusted_p=adjusted[m],
                n_comparisons=len(pairs),
                confidence=0.95,
                smallest_difference=0.0,
            )
            for m, (i, j) in enumerate(pairs)
        ]


def sweeps_without_difference(noise: str, n: int, *, sweeps: int, cells: int = 5) -> Floats:
    """Cells that do not differ, with an effect of the seed that all share."""
    rng = np.random.default_rng(1)
    values: Floats = NOISE[noise](rng, (sweeps, cells, n)) + rng.integers(-9, 9, size=(sweeps, 1, n))
    return values


def false_alarms(values: Floats, *, all_pairs: bool) -> float:
    """Share of sweeps in which any pair is called distinguishable."""
    return float(
        np.mean([any(c.verdict == "distinguishable" for c in f) for f in families(values, all_pairs=all_pairs)])
    )


def power(n: int, shift: float, *, cells: int) -> float:
    """Share of sweeps that find the one cell that differs, by `shift` standard deviations of the paired differences."""
    values = np.random.default_rng(2).normal(size=(1000, cells, n)) / math.sqrt(2)
    values[:, 1] += shift
    return float(np.mean([f[0].verdict == "distinguishable" for f in families(values, all_pairs=False)]))


def test_import_does_not_wait_for_scipy() -> None:
    script = "import sys; import tvae.experiments.statistics; sys.exit('scipy' in sys.modules)"
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


@pytest.mark.parametrize("n", [3, 4, 10, 50])
def test_correlation_is_pearsons(n: int) -> None:
    x, y = np.random.default_rng(n).normal(size=(2, n))
    found = correlation(x.tolist(), y.tolist())
    assert found is not None
    assert found.r == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert -1 <= found.low <= found.r <= found.high <= 1
    assert found.n == n


@pytest.mark.parametrize(("n", "rho"), [(10, 0.0), (10, 0.95), (100, -0.5)])
def test_interval_of_a_correlation_holds_fishers_and_the_bootstraps(n: int, rho: float) -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, n))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    found = correlation(x.tolist(), y.tolist(), confidence=0.9)
    assert found is not None
    fisher = stats.pearsonr(x, y).confidence_interval(0.9)
    resampled = [stats.pearsonr(x[i], y[i]).statistic for i in rng.integers(n, size=(999, n))]
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


# Holm


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # α of 0.05: 0.005 < 0.05/4 and 0.01 < 0.05/3 are rejected, 0.03 > 0.05/2 is not, and so neither is 0.04.
        ([0.01, 0.04, 0.03, 0.005], (0.03, 0.06, 0.06, 0.02)),
        ([0.5, 0.9], (1.0, 1.0)),
        ([0.02], (0.02,)),
        ([], ()),
    ],
)
def test_holm_of_a_textbook(p: list[float], expected: tuple[float, ...]) -> None:
    assert holm(p) == pytest.approx(expected)


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    for p in np.random.default_rng(0).beta(0.3, 2, size=(200, 7)):
        alive = True
        for place, i in enumerate(np.argsort(p)):
            alive = alive and p[i] < 0.05 / (7 - place)
            assert (holm(p.tolist())[i] < 0.05) == alive


# Comparison


@pytest.mark.parametrize("n", [3, 4, 10, 40])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_p_is_that_of_the_paired_t_test(n: int, size: float) -> None:
    first, second = size * np.random.default_rng(n).normal(size=(2, n))
    assert pair(first, second).p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [5, 20, 60])
@pytest.mark.parametrize("sign", [1, -1])
def test_interval_holds_students_and_the_bootstraps(n: int, sign: int) -> None:
    d = sign * np.random.default_rng(n).lognormal(0, 1.5, size=n)
    found = pair(d, np.zeros(n))
    student = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    bca = stats.bootstrap((d,), np.mean, method="BCa", rng=np.random.default_rng(9)).confidence_interval
    near = 0.05 * (student.high - student.low)
    assert found.low == pytest.approx(min(student.low, bca.low), abs=near)
    assert found.high == pytest.approx(max(student.high, bca.high), abs=near)
    assert found.low <= student.low + 1e-12
    assert found.high >= student.high - 1e-12


def test_intervals_are_widened_for_the_number_of_comparisons() -> None:
    values = np.random.default_rng(0).normal(size=(4, 8))
    cells = {name: by_seed(row) for name, row in zip("abcd", values, strict=True)}
    found = compare(cells, metric="q", smallest_difference=0, against="a")
    for row, comparison in zip(values[1:], found, strict=True):
        student = stats.ttest_rel(row, values[0]).confidence_interval(1 - 0.05 / 3)
        assert (comparison.low, comparison.high) == pytest.approx((student.low, student.high))


def test_adjusted_p_is_holms_over_all_comparisons() -> None:
    values = np.random.default_rng(1).normal(size=(4, 9)) + np.array([[0], [0.5], [1], [3]])
    cells = {name: by_seed(row) for name, row in zip("abcd", values, strict=True)}
    found = compare(cells, metric="q", smallest_difference=0)
    assert [(c.cell, c.against) for c in found] == list(itertools.combinations("abcd", 2))
    assert [c.adjusted_p for c in found] == pytest.approx(holm([c.p for c in found]))
    assert {c.n_comparisons for c in found} == {6}


def test_difference_is_that_of_the_seeds_that_both_have() -> None:
    first = {9: 1.0, 1: 2.0, 2: 4.0, 3: 6.0}
    second = {3: 1.0, 2: 1.0, 1: 1.0, 8: 50.0}
    (found,) = compare({"a": first, "b": second}, metric="q", smallest_difference=0)
    assert found.n == 3
    assert found.difference == pytest.approx(3)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 3, 5], 0).pvalue)


def test_against_compares_every_other_cell_with_one() -> None:
    cells = {name: by_seed([i, i + 1, i]) for i, name in enumerate("abc")}
    found = compare(cells, metric="q", smallest_difference=0, against="b")
    assert [(c.cell, c.against, c.difference) for c in found] == [("a", "b", -1), ("c", "b", 1)]


def test_against_is_one_of_the_cells() -> None:
    with pytest.raises(ValueError, match="`against` must be one of the cells 'a', 'b', got 'z'"):
        compare({"a": {}, "b": {}}, metric="q", smallest_difference=0, against="z")


@pytest.mark.parametrize("smallest", [-1e-9, math.nan, math.inf])
def test_smallest_difference_is_a_size(smallest: float) -> None:
    with pytest.raises(ValueError, match="`smallest_difference` must be finite and at least 0, got"):
        compare({}, metric="q", smallest_difference=smallest)


def test_one_cell_alone_is_compared_with_nothing() -> None:
    assert compare({"a": by_seed([1, 2, 3])}, metric="q", smallest_difference=0) == ()


def test_comparisons_depend_on_the_seed_and_not_on_the_order_of_runs() -> None:
    # Skewed, so that an end of the interval is the bootstrap's.
    values = np.random.default_rng(0).lognormal(0, 1.5, size=(2, 30)) * [[1], [0.01]]
    cells = {name: {run << 40: v for run, v in by_seed(row).items()} for name, row in zip("ab", values, strict=True)}
    backwards = {name: dict(reversed(runs.items())) for name, runs in cells.items()}
    found = compare(cells, metric="q", smallest_difference=0)
    assert compare(backwards, metric="q", smallest_difference=0) == found
    assert compare(cells, metric="q", smallest_difference=0, seed=1) != found


def test_pairs_are_judged_as_they_are_alone_whatever_seeds_the_others_have() -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, size=(6, 12))
    cells = {str(i): by_seed(row[:n]) for i, (row, n) in enumerate(zip(values, (12, 5, 12, 2, 5, 12), strict=True))}
    found = compare(cells, metric="q", smallest_difference=0, against="0")
    assert [c.n for c in found] == [5, 12, 2, 5, 12]
    for c in found:
        # Alone, at the level that five comparisons leave to each.
        two = {name: cells[name] for name in (c.cell, c.against)}
        (alone,) = compare(two, metric="q", smallest_difference=0, against="0", confidence=1 - 0.05 / 5)
        assert (c.difference, c.p) == pytest.approx((alone.difference, alone.p), nan_ok=True)
        # A resample whose mean ties with the sample's but for round-off may move an end by one rank of 9999.
        assert (c.low, c.high) == pytest.approx((alone.low, alone.high), rel=0.005, nan_ok=True)


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


@pytest.mark.parametrize("n", [3, 5])
def test_equal_differences_are_judged_as_ever_smaller_noise(n: int) -> None:
    noise = np.random.default_rng(n).normal(size=n)
    for size in (1e-3, 1e-6, 1e-9):
        found = pair(8 + size * noise, np.full(n, 7))
        assert found.verdict == "distinguishable"
        assert found.p < size**1.5
    assert pair(np.full(n, 8), np.full(n, 7)).adjusted_p == 0


def test_equal_differences_among_others() -> None:
    cells = {"a": by_seed([8, 8, 8]), "b": by_seed([9, 9, 9]), "c": by_seed([8, 9, 8]), "d": by_seed([8, 8, 8])}
    found = compare(cells, metric="ordered_levels", smallest_difference=0, against="a")
    assert [c.adjusted_p for c in found] == pytest.approx([0, 2 * stats.ttest_1samp([0, 1, 0], 0).pvalue, 1])
    noise: Verdict = "not distinguishable from seed noise"
    assert [c.verdict for c in found] == ["distinguishable", noise, noise]


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


def test_small_adjusted_p_alone_does_not_make_a_difference() -> None:
    """The interval is Bonferroni's: where Holm rejects only because it rejected others, it still holds 0."""
    wide, narrow = np.array([0.7, 1.3, 1.0, 0.3, 1.9, 1.0]), np.array([1.0, 1.01, 0.99, 1.0, 1.02, 0.98])
    cells = {"base": by_seed(np.zeros(6)), "b": by_seed(narrow), "c": by_seed(-narrow), "d": by_seed(wide - 0.35)}
    *_, found = compare(cells, metric="q", smallest_difference=0, against="base")
    assert found.adjusted_p < 0.05
    assert found.low < 0
    assert found.verdict == "not distinguishable from seed noise"


def test_cells_with_too_few_seeds_count_among_the_comparisons() -> None:
    cells = {"a": by_seed([0, 0, 0, 0]), "b": by_seed([1, 1.1, 0.9, 1]), "c": by_seed([5, 5])}
    b, c = compare(cells, metric="q", smallest_difference=0, against="a")
    assert (b.n_comparisons, b.verdict) == (2, "distinguishable")
    assert b.adjusted_p == pytest.approx(2 * b.p)
    assert (c.n, c.difference, c.verdict) == (2, 5, "nothing can be concluded")
    assert math.isnan(c.p)
    assert math.isnan(c.adjusted_p)


def test_interval_without_0_alone_does_not_make_a_difference() -> None:
    found = pair([1, 1.1, 0.9], [0, 0, 0])
    assert found.verdict == "distinguishable"
    assert dataclasses.replace(found, adjusted_p=0.06).verdict == "not distinguishable from seed noise"


def test_three_seeds_of_five_cells_tell_a_large_difference_from_noise() -> None:
    rows = {"base": [0.50, 0.52, 0.49], "b": [0.70, 0.73, 0.69], "c": [0.51, 0.51, 0.50], "d": [0.5, 0.51, 0.5]}
    cells = {name: by_seed(row) for name, row in {**rows, "e": [0.1, 0.11, 0.10]}.items()}
    found = compare(cells, metric="q", smallest_difference=0.05, against="base")
    noise: Verdict = "not distinguishable from seed noise"
    assert [c.verdict for c in found] == ["distinguishable", noise, noise, "distinguishable"]


# Sentences


@pytest.mark.parametrize(
    ("first", "smallest", "sentence"),
    [
        (
            [1e-4, -1e-4, 1e-4],
            1e-3,
            "a and b differ by +0.000033 in hierarchy (95 % interval -0.000254 to +0.000320, adjusted p 0.667, "
            "3 paired seeds): not distinguishable from seed noise.",
        ),
        (
            [0.5, 0.51, 0.49, 0.5],
            0.1,
            "a and b differ by +0.5000 in hierarchy (95 % interval +0.4870 to +0.5130, adjusted p below 0.0001, "
            "4 paired seeds): distinguishable from seed noise.",
        ),
        (
            [-5e-6, -5.1e-6, -4.9e-6, -5e-6],
            1e-5,
            "a and b differ by -0.000005000 in hierarchy (95 % interval -0.000005130 to -0.000004870, "
            "adjusted p below 0.0001, 4 paired seeds): distinguishable from seed noise, "
            "but smaller than matters (0.00001).",
        ),
        (
            [0, 0, 0],
            0.1,
            "a and b have the same hierarchy on each of 3 paired seeds: not distinguishable from seed noise.",
        ),
        (
            [1, -1, 0],
            0.1,
            "a and b differ by +0 in hierarchy (95 % interval -2.48 to +2.48, adjusted p 1, 3 paired seeds): "
            "not distinguishable from seed noise.",
        ),
        (
            [2] * 10,
            0.1,
            "a and b differ by +2 in hierarchy (the same on each of 10 paired seeds): distinguishable from seed noise.",
        ),
        (
            [0.25],
            0.1,
            "a and b differ by +0.25 in hierarchy (1 paired seed; at least 3 seeds are needed): "
            "nothing can be concluded.",
        ),
        ([], 0.1, "a and b have no seed in common: nothing can be concluded about hierarchy."),
    ],
)
def test_sentence(first: list[float], smallest: float, sentence: str) -> None:
    assert pair(first, np.zeros(len(first)), smallest).sentence() == sentence


def test_sentence_of_several_comparisons_says_how_many() -> None:
    cells: Mapping[str, Mapping[int, float]] = {
        "c=1": by_seed([0, 0, 0]),
        "c=2": by_seed([1, 1.01, 0.99]),
        "c=3": by_seed([0.1, -0.1, 0.1]),
        "c=4": by_seed([2, 2, 2]),
        "c=5": by_seed([2, 3]),
    }
    found = compare(cells, metric="q", smallest_difference=0, against="c=1")
    assert [c.sentence() for c in found] == [
        "c=2 and c=1 differ by +1.000 in q (95 % interval +0.949 to +1.051, adjusted p below 0.0001, 3 paired seeds, "
        "4 comparisons): distinguishable from seed noise.",
        "c=3 and c=1 differ by +0.033 in q (95 % interval -0.56 to +0.62, adjusted p 1, 3 paired seeds, "
        "4 comparisons): not distinguishable from seed noise.",
        "c=4 and c=1 differ by +2 in q (the same on each of 3 paired seeds, 4 comparisons): "
        "distinguishable from seed noise.",
        "c=5 and c=1 differ by +2.5 in q (2 paired seeds, 4 comparisons; at least 3 seeds are needed): "
        "nothing can be concluded.",
    ]


# Calibration


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("noise", ["normal", "exponential", "log-normal"])
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("all_pairs", [False, True], ids=["against one", "all pairs"])
def test_no_more_than_5_percent_of_sweeps_without_difference_claim_one(noise: str, n: int, all_pairs: bool) -> None:
    sweeps = 1000
    rate = false_alarms(sweeps_without_difference(noise, n, sweeps=sweeps), all_pairs=all_pairs)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps)


def test_docstring_states_rates_of_noise_with_one_mode_and_with_two() -> None:
    of = stated_rates()
    assert {noise for noise, _, _ in of} == {"normal", "two modes", "count 0 … 3"}
    assert {of["normal", n, m] for n in (3, 4, 10) for m in (1, 4, 10)} == {0.05}
    assert len(of) == 27


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(("noise", "n", "comparisons"), stated_rates())
def test_false_alarms_are_as_rare_as_the_docstring_states(noise: str, n: int, comparisons: int) -> None:
    sweeps, stated = 4000, stated_rates()[noise, n, comparisons]
    values = sweeps_without_difference(noise, n, sweeps=sweeps, cells=2 if comparisons == 1 else 5)
    rate = false_alarms(values, all_pairs=comparisons == 10)
    error = 3 * math.sqrt(stated * (1 - stated) / sweeps)
    # Stated are whole percents, rounded up.
    assert stated - 0.01 - error <= rate <= stated + error


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("noise", ["two modes", "count 0 … 3"])
@pytest.mark.parametrize("n", range(5, 10))
def test_five_to_nine_seeds_hold_two_modes_at_8_percent(noise: str, n: int) -> None:
    for all_pairs in (False, True):
        rate = false_alarms(sweeps_without_difference(noise, n, sweeps=1000), all_pairs=all_pairs)
        assert rate <= 0.08 + 3 * math.sqrt(0.08 * 0.92 / 1000)


@pytest.mark.usefixtures("few_resamples")
def test_equal_differences_raise_no_more_false_alarms_than_nearly_equal_ones() -> None:
    for n, stated in ((3, stated_rates()["two modes", 3, 4]), (10, stated_rates()["two modes", 10, 4])):
        values = sweeps_without_difference("two values", n, sweeps=2000)
        assert false_alarms(values, all_pairs=False) <= stated + 3 * math.sqrt(stated * (1 - stated) / 2000)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("n", [3, 10])
def test_single_comparison_claims_no_difference_too_often(noise: str, n: int) -> None:
    rate = false_alarms(sweeps_without_difference(noise, n, sweeps=2000, cells=2), all_pairs=True)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.usefixtures("few_resamples")
def test_noise_that_is_wider_in_some_cells_raises_no_false_alarms() -> None:
    values = sweeps_without_difference("normal", 5, sweeps=1000) * 0
    values += np.random.default_rng(3).normal(size=values.shape) * np.array([[0.1], [0.3], [1], [3], [10]])
    assert false_alarms(values, all_pairs=True) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.usefixtures("few_resamples")
def test_noise_that_is_skewed_unequally_raises_the_false_alarms_that_the_docstring_states() -> None:
    values = np.random.default_rng(3).exponential(size=(1000, 5, 5)) - 1
    assert 0.1 < false_alarms(values * np.array([[1], [0.1], [10], [3], [0.3]]), all_pairs=False) < 0.2


@pytest.mark.usefixtures("few_resamples")
def test_simulated_sweeps_are_judged_as_compare_judges() -> None:
    values = sweeps_without_difference("normal", 4, sweeps=12) + np.arange(5)[:, None] ** 2
    for sweep, simulated in zip(values, families(values, all_pairs=False), strict=True):
        cells = {str(i): by_seed(row) for i, row in enumerate(sweep)}
        found = compare(cells, metric="", smallest_difference=0, against="0")
        assert [c.verdict for c in found] == [c.verdict for c in simulated]
        for name in ("difference", "low", "high", "p", "adjusted_p"):
            assert [getattr(c, name) for c in found] == pytest.approx([getattr(c, name) for c in simulated])


def test_intervals_hold_the_mean_as_often_as_the_docstring_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "N_RESAMPLES", 499)
    rng = np.random.default_rng(4)

    def coverage(d: Floats) -> tuple[float, float]:
        low, high, p = statistics._judge(d, np.zeros_like(d), level=0.95, seed=0)
        return float(np.mean((low <= 0) & (high >= 0))), float(np.mean(p >= 0.05))

    assert coverage(rng.normal(size=(4000, 3))) == pytest.approx((0.95, 0.95), abs=0.011)
    assert coverage(rng.exponential(size=(1500, 20)) - 1) == pytest.approx((0.94, 0.92), abs=0.02)
    assert coverage(rng.lognormal(size=(1500, 20)) - math.exp(0.5)) == pytest.approx((0.90, 0.87), abs=0.025)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(
    ("n", "shift", "cells", "found"),
    [(3, 5, 2, 0.97), (3, 5, 5, 0.61), (4, 5, 5, 0.97), (3, 10, 5, 0.97), (3, 20, 5, 1)],
)
def test_true_difference_is_found_as_often_as_the_docstring_states(
    n: int, shift: float, cells: int, found: float
) -> None:
    # Whole percents; three standard errors of 1000 sweeps.
    assert power(n, shift, cells=cells) == pytest.approx(found, abs=0.01 + 3 * math.sqrt(found * (1 - found) / 1000))


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(("n", "shift", "cells", "least"), [(5, 5, 5, 0.99), (20, 1, 2, 0.97), (20, 1, 5, 0.9)])
def test_true_difference_is_found(n: int, shift: float, cells: int, least: float) -> None:
    assert power(n, shift, cells=cells) >= least
