"""What runs over seeds say, and what they do not: spread, correlation, and comparisons between configurations.

Two runs that differ in a setting differ by chance as well. So settings are compared on the seeds that both have, the
noise is estimated from the whole layout of configurations by seeds, and nothing is called a difference that chance
explains among all the pairs that one could have picked.

No method knows of what no seed has shown: where one run in fifty collapses, ten seeds are no evidence about it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from tvae.arrays import Bools, Floats, Ints

__all__ = [
    "MIN_PAIRS",
    "MOST_SEEDS",
    "Comparison",
    "Comparisons",
    "Correlation",
    "Spread",
    "Verdict",
    "compare",
    "correlation",
    "figure",
    "seeds_needed",
    "spread",
]

MIN_PAIRS = 3
"""Fewest shared seeds from which anything is concluded: two differences say next to nothing of their own spread."""

MOST_SEEDS = 100_000
"""More seeds than this are not counted: nobody waits for them."""

PRIORITY = 0.8
# By number of seeds: how improbable a cell's larger variance must be to have its pairs judged by their own seeds, and
# how much of its own variance counts. As strict as a power of 0.9 for 4 standard deviations among 7 cells allows.
NOISY, MANY_NOISY = {3: 0.01, 4: 0.04}, 0.1
OWN_SHARE, MANY_OWN_SHARE = {3: 0.8, 4: 1.0}, 1.2
# How improbable, for all cells together, it must be for the noise of the others to be estimated without it.
SET_ASIDE = 1e-4
# The differences of one noisy cell err together, with its mean: this many comparisons are corrected for a cell.
CORRECTED = 3

N_RESAMPLES = 9_999
N_NULL = 200_000
# What a float64 sum over 3^9 operations may lose, relative to its size: differences below it are none.
ROUND_OFF = 3**9 * 2.0**-53

Verdict: TypeAlias = Literal[
    "distinguishable", "not distinguishable from seed noise", "smaller than matters", "nothing can be concluded"
]


@dataclass(frozen=True, slots=True)
class Spread:
    """One metric over several runs.

    Attributes:
        n: how many runs.
        mean: their mean.
        std: sample standard deviation, with n - 1 in the denominator; NaN for one run, which has no spread to show.
        minimum: the smallest value.
        maximum: the largest value.
    """

    n: int
    mean: float
    std: float
    minimum: float
    maximum: float

    def interval(self) -> tuple[float, float] | None:
        """Return Student's 95 % interval of the mean, None of fewer than `MIN_PAIRS` runs."""
        if self.n < MIN_PAIRS:
            return None
        from scipy import special

        half = float(special.stdtrit(self.n - 1, 0.975)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two quantities go together over runs.

    Attributes:
        r: Pearson's correlation, in -1 … 1.
        low: lower end of its confidence interval, in -1 … r.
        high: upper end, in r … 1.
        n: how many pairs.
    """

    r: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What shared seeds say of two configurations.

    Attributes:
        cell: name of the one configuration.
        against: name of the other.
        metric: name of what was measured.
        n: how many seeds both have.
        difference: mean over those seeds of cell less against; NaN where n is 0.
        low: lower end of its simultaneous confidence interval; NaN below `MIN_PAIRS` seeds, and where no two seeds of
            the whole layout differ in anything but a constant, so that there is no noise to be seen.
        high: upper end, or NaN.
        p: adjusted for all pairs of the layout; NaN below `MIN_PAIRS` seeds. Below 1 - confidence exactly where the
            interval leaves out 0.
        own_spread: whether the pair is judged by its own seeds alone, since one of the two is noisier than the rest.
        confidence: that all intervals of the layout hold their differences at once, in (0, 1).
        smallest_difference: what a difference must reach to matter.
    """

    cell: str
    against: str
    metric: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    own_spread: bool
    confidence: float
    smallest_difference: float

    @property
    def verdict(self) -> Verdict:
        """What may be said of the two."""
        if self.n < MIN_PAIRS:
            return "nothing can be concluded"
        if self.p >= 1 - self.confidence:
            return "not distinguishable from seed noise"
        return "smaller than matters" if abs(self.difference) < self.smallest_difference else "distinguishable"

    @property
    def is_open(self) -> bool:
        """Whether a difference that matters may be there, and is not shown."""
        if self.verdict == "not distinguishable from seed noise":
            return max(abs(self.low), abs(self.high)) >= self.smallest_difference
        return self.verdict == "nothing can be concluded"

    def turned(self) -> "Comparison":
        """Return the same comparison the other way round."""
        return replace(
            self, cell=self.against, against=self.cell, difference=-self.difference, low=-self.high, high=-self.low
        )

    def sentence(self) -> str:
        """Say in words what was found, with the figures it rests on."""
        names, seeds = f"{self.cell} and {self.against}", f"{self.n} shared seed{'' if self.n == 1 else 's'}"
        if self.n == 0:
            return f"{names} have no seed in common: {self.verdict} about {self.metric}."
        width = self.high - self.low
        if math.isnan(width) and self.p == 1:
            return f"{names} have the same {self.metric} on each of {seeds}: {self.verdict}."
        if self.n < MIN_PAIRS:
            figures = f"{seeds}; at least {MIN_PAIRS} are needed"
        elif math.isnan(width):
            figures = f"the same on each of {seeds}"
        else:
            low, high = figure(self.low, width), figure(self.high, width)
            p = "below 0.0001" if self.p < 1e-4 else f"{self.p:.3g}"
            figures = f"{100 * self.confidence:g} % interval {low} to {high}, adjusted p {p}, {seeds}"
            figures += ", by their own spread" if self.own_spread else ""
        verdict: str = self.verdict
        if verdict == "distinguishable":
            verdict += " from seed noise"
        elif verdict == "smaller than matters":
            bound = np.format_float_positional(self.smallest_difference, trim="-")
            verdict = f"distinguishable from seed noise, but {verdict} ({bound})"
        return f"{names} differ by {figure(self.difference, width)} in {self.metric} ({figures}): {verdict}."


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What a layout of configurations by seeds says in one metric.

    Attributes:
        metric: name of what was measured.
        cells: names of the configurations compared, the first with priority.
        n: most seeds that two of them share.
        noise: standard deviation of a run from seed to seed, less what the seed does to all cells alike; pooled over
            the cells of like spread. NaN where nothing can be estimated.
        noisy: cells whose spread is larger than that of the rest, and which are judged by their own seeds.
        set_aside: those of them that are left out of `noise`, so that they do not hide the differences of the others.
        smallest_difference: what a difference must reach to matter.
        pairs: the comparisons, in the order of the cells.
    """

    metric: str
    cells: tuple[str, ...]
    n: int
    noise: float
    noisy: tuple[str, ...]
    set_aside: tuple[str, ...]
    smallest_difference: float
    pairs: tuple[Comparison, ...]

    def between(self, cell: str, against: str) -> Comparison | None:
        """Return what was found of cell less against, None if the two were not compared."""
        for found in self.pairs:
            if (found.cell, found.against) == (cell, against):
                return found
            if (found.against, found.cell) == (cell, against):
                return found.turned()
        return None


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of one metric over runs.

    Args:
        values: the metric of each run, at least one.

    Raises:
        ValueError: if there is no value, or one is NaN or infinite.

    Example:
        >>> spread([0.25, 0.75, 0.5])
        Spread(n=3, mean=0.5, std=0.25, minimum=0.25, maximum=0.75)
    """
    v = _finite(values, "values")
    if not len(v):
        raise ValueError("`values` must hold at least one value, got none.")
    std = float(v.std(ddof=1)) if len(v) > 1 else math.nan
    return Spread(len(v), float(v.mean()), std, float(v.min()), float(v.max()))


def correlation(
    x: Sequence[float], y: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Correlation | None:
    """Return Pearson's correlation of two quantities over runs, with a confidence interval.

    The interval is the hull of tanh(artanh r ± z/sqrt(n - 3)) and the percentile bootstrap of the pairs. Of 3 pairs it
    is -1 … 1: any three points lie near some line. A resample that is constant counts as 0, since nothing can be read
    off it; there BCa would be undefined, as nearly always at 5 pairs.

    Args:
        x: one quantity of each run.
        y: the other, in the same order.
        confidence: of the interval, in (0, 1).
        seed: of the bootstrap.

    Returns:
        The correlation; None where it is undefined: of fewer than 3 pairs, or where one side is constant.

    Raises:
        ValueError: if the two are not equally many, a value is NaN or infinite, or `confidence` is out of range.

    Source:
        Fisher, On the "probable error" of a coefficient of correlation (1921); Efron, The jackknife, the bootstrap and
        other resampling plans (1982), chapter 10.
    """
    _check_confidence(confidence)
    a, b = _finite(x, "x"), _finite(y, "y")
    if len(a) != len(b):
        raise ValueError(f"`x` and `y` must be pairs, got {len(a)} and {len(b)} values.")
    if len(a) < 3 or any(np.ptp(v) <= ROUND_OFF * np.abs(v).max() for v in (a, b)):
        return None
    from scipy import special, stats

    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    r = float(_pearson(a, b))
    fisher = np.array([-1.0, 1.0])
    if len(a) > 3:
        inside = min(abs(r), 1 - 2.0**-53)
        fisher = np.tanh(math.copysign(math.atanh(inside), r) + special.ndtri(tails) / math.sqrt(len(a) - 3))
    resampled = stats.bootstrap(
        (a, b), _pearson, paired=True, method="percentile", n_resamples=N_RESAMPLES, rng=np.random.default_rng(seed)
    ).bootstrap_distribution
    percentile = np.quantile(resampled, tails)
    low, high = min(r, fisher[0], percentile[0]), max(r, fisher[1], percentile[1])
    return Correlation(r=r, low=float(low), high=float(high), n=len(a))


def compare(
    cells: Mapping[str, Mapping[int, float]],
    *,
    metric: str,
    smallest_difference: float,
    against: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Comparisons:
    """Compare configurations in one metric over shared seeds: randomised complete blocks, with the seed as the block.

    A value is taken as cell + seed + noise. The noise is estimated from the residuals of the whole layout, which for k
    cells and n seeds leaves (k - 1)(n - 1) degrees of freedom where one pair alone has n - 1. All pairs of the layout
    are judged at once, so that any of them may be picked out afterwards, the best cell among them: with probability
    `confidence`, every interval holds its difference. As in Dunnett's method and Tukey's, critical values are those of
    the largest standardised difference where nothing differs. Differences from the first cell have priority: theirs is
    `PRIORITY` times the critical value of the others, since they are what most layouts are made for.

    Pooling assumes that cells are about equally noisy. That is checked, as strictly as the seeds allow, and the
    interval of a pair is never narrower than these checks demand:

    - each cell's own variance takes the place of the pooled one where it is larger;
    - a pair with a cell that is noisier than the rest, by an F-test, gets at least the interval of the paired t-test,
      corrected for three times the number of such cells; they are in `noisy`, and their pairs have `own_spread`;
    - a cell that is noisier beyond doubt does not count for the noise of the others.

    How many of 100 layouts without any difference have some pair, of all, that is called different, by simulation:

    ======================  =======  =======  =======  ========
    noise of 7 cells        3 seeds  4 seeds  5 seeds  10 seeds
    ======================  =======  =======  =======  ========
    normal                        5        4        3         3
    exponential                   3        2        1         1
    two modes                     3        4        4         4
    spreads from 1 to 3           4        3        3         2
    one spread of 3               8        6        4         4
    one spread of 10              8        6        5         4
    the first of 5               11        6        4         3
    spreads from 0.1 to 10       13        8        5         4
    ======================  =======  =======  =======  ========

    A cell that lies 4 standard deviations of a run from the first of 7 is found by 3 seeds in 9 layouts out of 10. That
    has its price: 3 seeds cannot tell a cell that is 2 to 10 times as noisy as the rest from one that is not, and no
    method that holds 5 % there finds 4 standard deviations as well. From 5 seeds on, spreads are checked well.
    Very unequal spreads of skewed noise (exponential, 0.1 to 10) are beyond this method: one layout in seven is wrong.

    If no noise is to be seen at all, as where all cells reach a limit, p is 1 where values are equal and 0 otherwise.
    A seed whose run failed leaves the pairs of its cell. Where failing and the metric have to do with each other,
    what remains is no fair sample: look at how many seeds each comparison has.

    Args:
        cells: for each configuration's name, the metric by seed.
        metric: its name, for the sentences.
        smallest_difference: what a measured difference must reach to matter, at least 0, in units of the metric.
        against: cells that all others are compared with; None compares all pairs. The first cell is the first of
            `cells`. Whatever is asked for, the level is that of all pairs.
        confidence: in (0, 1).

    Raises:
        ValueError: if a value is NaN or infinite, `against` holds no cell, or a number is out of range.

    Source:
        Dunnett, A multiple comparison procedure for comparing several treatments with a control (1955); Tukey, The
        problem of multiple comparisons (1953); Kramer, Extension of multiple range tests to group means with unequal
        numbers of replications (1956).

    Example:
        >>> cells = {"c=1": {0: 0.80, 1: 0.80, 2: 0.81}, "c=2": {0: 0.81, 1: 0.79, 2: 0.82}}
        >>> (found,) = compare(cells, metric="fidelity", smallest_difference=0.01).pairs
        >>> for part in found.sentence().split(": "):
        ...     print(part)
        c=2 and c=1 differ by +0.0033 in fidelity (95 % interval -0.0256 to +0.0323, adjusted p 0.669, 3 shared seeds)
        not distinguishable from seed noise.
    """
    _check_confidence(confidence)
    if not (math.isfinite(smallest_difference) and smallest_difference >= 0):
        raise ValueError(f"`smallest_difference` must be finite and at least 0, got {smallest_difference}.")
    for name in against or ():
        if name not in cells:
            raise ValueError(f"`against` must hold cells of {', '.join(map(repr, cells))}, got {name!r}.")
    for name, by_seed in cells.items():
        for run, value in by_seed.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"Every value must be finite, got {value} for {metric} in cell {name!r}, seed {run}; "
                    "leave out the runs that have none."
                )
    names = list(cells)
    seeds = sorted(set[int]().union(*cells.values()))
    values = np.array([[cells[name].get(run, math.nan) for run in seeds] for name in names], float)
    values = values.reshape(len(names), len(seeds))
    found = _judge(values[None], confidence)
    rows = [
        Comparison(
            cell=names[i],
            against=names[j],
            metric=metric,
            n=int(found.n[0, i, j]),
            difference=float(found.difference[0, i, j]),
            low=float(found.difference[0, i, j] - found.half[0, i, j]),
            high=float(found.difference[0, i, j] + found.half[0, i, j]),
            p=float(found.p[0, i, j]),
            own_spread=bool(found.noisy[0, i] or found.noisy[0, j]),
            confidence=confidence,
            smallest_difference=smallest_difference,
        )
        for i, j in _asked(names, against)
    ]
    return Comparisons(
        metric=metric,
        cells=tuple(names),
        n=int(found.n[0][~np.eye(len(names), dtype=bool)].max(initial=0)),
        noise=float(found.noise[0]),
        noisy=tuple(name for name, is_noisy in zip(names, found.noisy[0], strict=True) if is_noisy),
        set_aside=tuple(name for name, is_apart in zip(names, found.set_aside[0], strict=True) if is_apart),
        smallest_difference=smallest_difference,
        pairs=tuple(rows),
    )


def seeds_needed(noise: float, difference: float, n_cells: int, *, power: float = 0.8, confidence: float = 0.95) -> int:
    """Return how many seeds find a difference from the first of so many cells with a probability of `power`.

    Noise is no better known than its seeds make it: of 12 degrees of freedom, which are 3 seeds of 7 cells, it is right
    within a fifth two times in three.

    Args:
        noise: standard deviation of a run from seed to seed, less what the seed does to all cells alike, above 0.
        difference: to be found, above 0.
        n_cells: of the layout, at least 2.
        power: in (0, 1).
        confidence: that no pair of the layout is called different that is not, in (0, 1).

    Returns:
        At least `MIN_PAIRS`; no more than `MOST_SEEDS`, which stands for any number beyond it.
    """
    low, high = MIN_PAIRS - 1, MIN_PAIRS
    while high < MOST_SEEDS and _power(noise, difference, n_cells, high, confidence) < power:
        low, high = high, min(2 * high, MOST_SEEDS)
    between = range(low + 1, high)
    return low + 1 + bisect_left(between, power, key=lambda n: _power(noise, difference, n_cells, n, confidence))


def _power(noise: float, difference: float, n_cells: int, n: int, confidence: float) -> float:
    from scipy import stats

    df = (n_cells - 1) * (n - 1)
    critical = _quantile(_largest(n_cells, df), confidence)
    return float(stats.nct.sf(critical, df, difference / noise * math.sqrt(n / 2)))


class _Judged(NamedTuple):
    """Of every pair of cells, in arrays of shape `(layouts, cells, cells)`, and of every cell, `(layouts, cells)`."""

    n: Ints
    difference: Floats
    half: Floats
    p: Floats
    noise: Floats
    noisy: Bools
    set_aside: Bools


def _judge(values: Floats, confidence: float) -> _Judged:
    """Judge all pairs of cells, of many layouts in one go.

    Args:
        values: of shape `(layouts, cells, seeds)`, NaN where a run is missing.
        confidence: that all intervals of a layout hold their differences.
    """
    from scipy import special

    k = values.shape[1]
    noise = _noise(values)
    gaps = values[:, :, None] - values[:, None]
    there = np.isfinite(gaps)
    n = there.sum(3)
    gaps[~there] = 0.0
    priority = np.full((k, k), PRIORITY)
    priority[:1] = priority[:, :1] = 1.0
    share = OWN_SHARE.get(int(n.max(initial=0)), MANY_OWN_SHARE)
    variance = 2 * np.maximum(noise.pooled[:, None, None], share * (noise.own[:, :, None] + noise.own[:, None]) / 2)
    alone = noise.noisy[:, :, None] | noise.noisy[:, None]
    corrected = CORRECTED * np.maximum(1, noise.noisy.sum(1))[:, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = gaps.sum(3) / n
        own = ((gaps - difference[..., None]) ** 2 * there).sum(3) / (n - 1)  # variance of a difference
        variance = np.where(alone, np.fmax(variance, own), variance)
        error, own_error = np.sqrt(variance / n), np.sqrt(own / n)
        half, p = np.full((2, *n.shape), math.nan)
        for df in set(noise.df[noise.df > 0].tolist()):
            these, sample = noise.df == df, _largest(k, df)
            half[these] = _quantile(sample, confidence) / priority * error[these]
            above = np.searchsorted(sample, priority * np.abs(difference[these]) / error[these])
            p[these] = 1 - above / len(sample)
        student = special.stdtrit(n - 1, 1 - (1 - confidence) / 2 / corrected) * own_error
        half = np.where(alone, np.fmax(half, student), half)
        student = np.minimum(1.0, 2 * corrected * special.stdtr(n - 1, -np.abs(difference) / own_error))
        p = np.where(alone, np.fmax(p, student), p)
    # Where no noise is to be seen, what differs at all is judged as it is with ever smaller noise.
    least = ROUND_OFF * np.abs(np.nan_to_num(values)).max((1, 2), initial=0.0)[:, None, None]
    silent = np.sqrt(variance) <= least
    half[silent] = math.nan
    p = np.where(silent, np.abs(difference) <= least, p)
    half[n < MIN_PAIRS] = p[n < MIN_PAIRS] = math.nan
    return _Judged(n, difference, half, p, np.sqrt(noise.pooled), noise.noisy, noise.set_aside)


class _Noise(NamedTuple):
    """The noise of layouts: pooled over the cells that are not set aside, and each cell's own variance."""

    pooled: Floats
    df: Ints
    own: Floats
    noisy: Bools
    set_aside: Bools


def _noise(values: Floats) -> _Noise:
    """Estimate the noise of each layout from what cell and seed, added, do not explain."""
    from scipy import special

    there = np.isfinite(values)
    runs = there.sum(2)
    kept = np.ones(runs.shape, bool)
    strict = NOISY.get(int(runs.max(initial=0)), MANY_NOISY)
    while True:
        squares = _squares(values, there & kept[:, :, None])
        counted, left = there & kept[:, :, None], kept.sum(1, keepdims=True)
        df = np.maximum(0, counted.sum((1, 2)) - left[:, 0] - counted.any(1).sum(1) + 1)
        total = squares.sum(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            # What a cell adds to the squares of the others; for a complete layout this is exact.
            added, own_df = squares * left / (left - 1), runs - 1
            own = np.where(kept & (own_df > 0) & (left > 2), added / own_df, 0.0)
            rest, rest_df = np.maximum(total - added, 0.0), df[:, None] - own_df
            p = special.fdtrc(own_df, rest_df, own / (rest / rest_df))
        p = np.where(own > 0, np.nan_to_num(p, nan=1.0), 1.0)
        p = np.where((own > 0) & (rest == 0) & (rest_df > 0), 0.0, p)
        worst = p.argmin(1, keepdims=True) if p.shape[1] else np.zeros((len(p), 0), int)
        apart = np.take_along_axis(p, worst, 1) * left < SET_ASIDE
        if not apart.any():
            pooled = np.divide(total[:, 0], df, out=np.full(len(df), math.nan), where=df > 0)
            return _Noise(pooled, df, own, (p < strict) | ~kept, ~kept)
        np.put_along_axis(kept, worst, np.take_along_axis(kept, worst, 1) & ~apart, 1)


def _squares(values: Floats, there: Bools) -> Floats:
    """Return for each cell the sum of the squared residuals of cell + seed, over the values that count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = np.where(there, values, 0.0)
        while True:  # alternate between the two means: at once for a complete layout, to the least squares for others
            last = residuals
            residuals = np.where(there, residuals - _mean(residuals, there, 1), 0.0)
            residuals = np.where(there, residuals - _mean(residuals, there, 2), 0.0)
            if np.abs(residuals - last).max(initial=0.0) <= ROUND_OFF * np.abs(np.where(there, values, 0.0)).max(
                initial=0.0
            ):
                break
    size = np.abs(np.where(there, values, 0.0)).max((1, 2), initial=0.0)[:, None]
    squares = (residuals**2).sum(2)
    return np.where(squares <= there.sum(2) * (ROUND_OFF * size) ** 2, 0.0, squares)


def _mean(values: Floats, there: Bools, axis: int) -> Floats:
    means: Floats = values.sum(axis, keepdims=True) / np.maximum(1, there.sum(axis, keepdims=True))
    return means


@lru_cache(maxsize=64)
def _largest(k: int, df: int) -> Floats:
    """Return a sorted sample of the largest standardised difference of k cells where nothing differs.

    Differences from the first cell count whole, the others by `PRIORITY`; the noise is estimated with df degrees of
    freedom. The sample is the same each time.
    """
    rng = np.random.default_rng(0)
    m = max(10_000, min(N_NULL, 2**23 // max(k, 1)))
    means = rng.standard_normal((m, max(k, 1)))
    from_first = np.abs(means[:, 1:] - means[:, :1]).max(1, initial=0.0)
    largest = np.maximum(from_first, PRIORITY * np.ptp(means, axis=1)) / math.sqrt(2)
    return np.sort(largest / np.sqrt(rng.chisquare(df, m) / df))


def _quantile(sample: Floats, share: float) -> float:
    return float(sample[min(math.ceil(share * len(sample)), len(sample) - 1)])


def _asked(names: Sequence[str], against: Sequence[str] | None) -> Iterator[tuple[int, int]]:
    """Yield the pairs to tell of, each once, as cell and what it is compared with."""
    done: set[int] = set()
    for j in map(names.index, dict.fromkeys(names if against is None else against)):
        done.add(j)
        yield from ((i, j) for i in range(len(names)) if i not in done)


def _pearson(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Return the correlation along an axis; 0 where one side is constant."""
    # Each side by its own length: the product of two small ones would lose its digits.
    r: Floats = np.clip((_direction(x, axis) * _direction(y, axis)).sum(axis), -1, 1)
    return r


def _direction(v: Floats, axis: int) -> Floats:
    """Return values less their mean, at length 1; 0 where they are constant but for round-off."""
    centred = v - v.mean(axis, keepdims=True)
    length = np.sqrt((centred * centred).sum(axis, keepdims=True))
    varies = length > ROUND_OFF * np.abs(v).max(axis, keepdims=True)
    direction: Floats = np.divide(centred, length, out=np.zeros_like(centred), where=varies)
    return direction


def _finite(values: Iterable[float], name: str) -> Floats:
    v = np.array([float(value) for value in values])
    if not np.isfinite(v).all():
        worst = int(np.flatnonzero(~np.isfinite(v))[0])
        raise ValueError(f"`{name}` must be finite, got {v[worst]} at position {worst}; leave those runs out.")
    return v


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}; 0.95 is usual.")


def figure(value: float, width: float) -> str:
    """Write a signed number to three digits of its interval's width, and to two of its own at least."""
    if value and width > 0:
        decimals = max(2 - math.floor(math.log10(width)), 1 - math.floor(math.log10(abs(value))), 0)
        return f"{value:+.{decimals}f}"
    return np.format_float_positional(float(f"{value:.6g}"), trim="-", sign=True)
