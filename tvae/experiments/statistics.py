"""What runs over seeds say, and what they do not: spread, correlation, and comparisons between configurations.

Two runs that differ in a setting differ by chance as well. So settings are compared on the seeds that both have, with
the difference within a seed as the unit, and nothing is called a difference that the choice of seeds explains.

An interval here is the hull of two. The one from normal theory is right at few seeds if the noise is normal, and blind
to skew and outliers. The bootstrap sees those, but cannot reach beyond the values that it was given: of 3 seeds all
lie on one side of the true mean one time in four. How many intervals of 95 % for a mean hold it, by simulation:

    =====================  =======  ========  ====
    noise                  Student  BCa only  hull
    =====================  =======  ========  ====
    normal, 3 seeds            95 %      72 %  95 %
    exponential, 20 seeds      92 %      91 %  94 %
    log-normal, 20 seeds       87 %      88 %  90 %
    =====================  =======  ========  ====

No interval knows of what no seed has shown: where one run in fifty collapses, ten seeds are no evidence about it.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "MIN_PAIRS",
    "Comparison",
    "Correlation",
    "Spread",
    "Verdict",
    "compare",
    "correlation",
    "holm",
    "spread",
]

MIN_PAIRS = 3
"""Fewest paired seeds from which anything is concluded: two differences say next to nothing of their own spread."""

N_RESAMPLES = 9_999
# What a float64 sum over 3^9 operations may lose, relative to its size: differences below it are none.
ROUND_OFF = 3**9 * 2.0**-53

Verdict: TypeAlias = Literal[
    "distinguishable", "not distinguishable from seed noise", "smaller than matters", "nothing can be concluded"
]
Floats: TypeAlias = npt.NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two quantities go together over runs.

    Attributes:
        r: Pearson's correlation, in -1 … 1.
        low: lower end of its confidence interval, in -1 … r.
        high: upper end, in r … 1.
        n: how many pairs.
        confidence: of the interval, in (0, 1).
    """

    r: float
    low: float
    high: float
    n: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What paired seeds say of two configurations.

    Attributes:
        cell: name of the one configuration.
        against: name of the other.
        metric: name of what was measured.
        n: how many seeds both have.
        difference: mean over those seeds of cell less against; NaN where n is 0.
        low: lower end of the difference's confidence interval; NaN below `MIN_PAIRS` seeds, and where the differences
            are all equal and so show no spread.
        high: upper end, or NaN.
        p: two-sided p-value of the paired t-test; where the differences are all equal, 1 if they are 0, else 0; NaN
            below `MIN_PAIRS` seeds.
        adjusted_p: what is judged by: p by Holm's method over all comparisons made together.
        n_comparisons: how many those were, with those of too few seeds.
        confidence: that all intervals hold their differences at once, in (0, 1).
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
    adjusted_p: float
    n_comparisons: int
    confidence: float
    smallest_difference: float

    @property
    def verdict(self) -> Verdict:
        """What may be said of the two; `compare` tells the rules."""
        if self.n < MIN_PAIRS:
            return "nothing can be concluded"
        if self.adjusted_p >= 1 - self.confidence or self.low <= 0 <= self.high:
            return "not distinguishable from seed noise"
        return "smaller than matters" if abs(self.difference) < self.smallest_difference else "distinguishable"

    def sentence(self) -> str:
        """Say in words what was found, with the figures it rests on."""
        names, seeds = f"{self.cell} and {self.against}", f"{self.n} paired seed{'' if self.n == 1 else 's'}"
        if self.n == 0:
            return f"{names} have no seed in common: {self.verdict} about {self.metric}."
        width = self.high - self.low
        if math.isnan(width) and self.p == 1:
            return f"{names} have the same {self.metric} on each of {seeds}: {self.verdict}."
        if self.n < MIN_PAIRS:
            figures = [seeds]
        elif math.isnan(width):
            figures = [f"the same on each of {seeds}"]
        else:
            low, high = _figure(self.low, width), _figure(self.high, width)
            adjusted = "below 0.0001" if self.adjusted_p < 1e-4 else f"{self.adjusted_p:.3g}"
            figures = [f"{100 * self.confidence:g} % interval {low} to {high}", f"adjusted p {adjusted}", seeds]
        if self.n_comparisons > 1:
            figures.append(f"{self.n_comparisons} comparisons")
        verdict: str = self.verdict
        if verdict == "nothing can be concluded":
            figures[-1] += f"; at least {MIN_PAIRS} seeds are needed"
        elif verdict == "distinguishable":
            verdict += " from seed noise"
        elif verdict == "smaller than matters":
            bound = np.format_float_positional(self.smallest_difference, trim="-")
            verdict = f"distinguishable from seed noise, but {verdict} ({bound})"
        difference = f"{names} differ by {_figure(self.difference, width)} in {self.metric}"
        return f"{difference} ({', '.join(figures)}): {verdict}."


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
    return Correlation(r=r, low=float(low), high=float(high), n=len(a), confidence=confidence)


def compare(
    cells: Mapping[str, Mapping[int, float]],
    *,
    metric: str,
    smallest_difference: float,
    against: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare configurations in one metric, on the seeds that they share.

    A pair of configurations is called different only if both hold:

    - Holm's adjusted p of the paired t-test is below 1 - confidence. Over all comparisons made here, and whatever their
      dependence, a difference is then found where there is none with that probability at most.
    - The interval of the mean difference does not hold 0. It is the hull of Student's interval and the BCa bootstrap,
      each at the level 1 - (1 - confidence)/(number of comparisons), so that by Bonferroni's inequality all intervals
      hold their differences at once: a table of them can be searched for the largest without being fooled. That is
      stricter than Holm's method; adjusted p may be small while the interval holds 0, and no difference is claimed.

    This assumes noise that has one mode and is roughly normal; for normal noise it holds at any number of seeds. Noise
    with two modes, of runs that collapse or do not, breaks it at few seeds: three that agree look like no noise at all,
    and n differences agree by luck on one that is not there with a probability of up to 2·4^-n: 1 in 32 for 3 seeds, 1
    in 128 for 4. Where nothing differs, so many sets of 1, 4 and 10 comparisons hold a false "distinguishable" at a
    confidence of 95 %, by simulation:

        ===========  ===========  =========  =========
        noise        3 seeds      4 seeds    10 seeds
        ===========  ===========  =========  =========
        normal       5, 5, 5 %    5, 5, 5 %  5, 5, 5 %
        two modes    4, 11, 22 %  2, 4, 7 %  6, 4, 3 %
        count 0 … 3  5, 7, 16 %   4, 4, 5 %  5, 5, 6 %
        ===========  ===========  =========  =========

    The two modes are equally likely and far apart against their own width, which is the worst case at 3 seeds; more
    comparisons make it worse. From 5 to 9 seeds no rate was above 8 %. Where runs may collapse, confirm on more seeds
    what 3 have found. Skewed noise that all configurations share stays below 5 %; with exponential noise of widths from
    0.1 to 10, equal means are called different in up to one set out of six.

    More seeds also find more. Of differences of 5 standard deviations of the paired differences, 3 seeds find 97 % if
    nothing else is compared, but 61 % among 4 comparisons, where 4 seeds find 97 %. Of those of 10 standard deviations,
    3 seeds find 97 % among 4 comparisons.

    Differences that are all equal show no noise at all. If they are 0, the two are not distinguishable. If not, they
    are judged as the t-test judges ever smaller noise: p is 0, the two are distinguishable, and there is no interval.
    In a metric that counts, such as ordered levels, noise below its unit is hidden; the last row of the table tells
    what that costs.

    A seed whose run failed in one configuration leaves the pair. Where failing and the metric have to do with each
    other, what remains is no fair sample: look at how many seeds each comparison has.

    Args:
        cells: for each configuration's name, the metric by seed.
        metric: its name, for the sentences.
        smallest_difference: what a measured difference must reach to matter, at least 0, in units of the metric.
        against: the configuration that all others are compared with; None compares all pairs, in the order of `cells`.
        confidence: in (0, 1).
        seed: of the bootstrap.

    Returns:
        A comparison for each pair; fewer seeds in common than `MIN_PAIRS` make one from which nothing can be concluded.

    Raises:
        ValueError: if a value is NaN or infinite, `against` is not a cell, or a number is out of range.

    Source:
        Holm, A simple sequentially rejective multiple test procedure (1979); Efron, Better bootstrap confidence
        intervals (1987).

    Example:
        >>> cells = {"c=2": {0: 0.81, 1: 0.79, 2: 0.82}, "c=1": {0: 0.80, 1: 0.80, 2: 0.81}}
        >>> (found,) = compare(cells, metric="fidelity", smallest_difference=0.01)
        >>> for part in found.sentence().split(": "):
        ...     print(part)
        c=2 and c=1 differ by +0.0033 in fidelity (95 % interval -0.0254 to +0.0320, adjusted p 0.667, 3 paired seeds)
        not distinguishable from seed noise.
    """
    _check_confidence(confidence)
    if not (math.isfinite(smallest_difference) and smallest_difference >= 0):
        raise ValueError(f"`smallest_difference` must be finite and at least 0, got {smallest_difference}.")
    if against is not None and against not in cells:
        raise ValueError(f"`against` must be one of the cells {', '.join(map(repr, cells))}, got {against!r}.")
    for name, by_seed in cells.items():
        for run, value in by_seed.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"Every value must be finite, got {value} for {metric} in cell {name!r}, seed {run}; "
                    "leave out the runs that have none."
                )
    if against is None:
        pairs = list(itertools.combinations(cells, 2))
    else:
        pairs = [(name, against) for name in cells if name != against]
    paired = [_pair(cells[first], cells[second]) for first, second in pairs]
    level = 1 - (1 - confidence) / max(1, len(pairs))
    # Pairs of as many seeds are judged together, on the same resamples: that is several times as fast.
    judged = [(math.nan, math.nan, math.nan)] * len(pairs)
    for n in {len(a) for a, _ in paired}:
        alike = [i for i, (a, _) in enumerate(paired) if len(a) == n]
        first_values, second_values = (np.stack([paired[i][side] for i in alike]) for side in (0, 1))
        for i, *row in zip(alike, *_judge(first_values, second_values, level=level, seed=seed), strict=True):
            judged[i] = (float(row[0]), float(row[1]), float(row[2]))
    # What cannot be judged was asked for as well, and counts among the comparisons.
    adjusted = holm([1.0 if math.isnan(p) else p for _, _, p in judged])
    return tuple(
        Comparison(
            cell=first,
            against=second,
            metric=metric,
            n=len(a),
            difference=float((a - b).mean()) if len(a) else math.nan,
            low=low,
            high=high,
            p=p,
            adjusted_p=math.nan if math.isnan(p) else adjusted_p,
            n_comparisons=len(pairs),
            confidence=confidence,
            smallest_difference=smallest_difference,
        )
        for (first, second), (a, b), (low, high, p), adjusted_p in zip(pairs, paired, judged, adjusted, strict=True)
    )


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for their number, in the order given.

    The i-th smallest of m is multiplied by m - i + 1, and raised to the one before it where that is larger.
    To reject what is below α then errs anywhere with probability α at most, whatever the dependence.

    Args:
        p: p-values in 0 … 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure (1979).

    Example:
        >>> holm([0.0625, 0.125, 0.0078125])
        (0.125, 0.125, 0.0234375)
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = largest
    return tuple(adjusted)


def _judge(first: Floats, second: Floats, *, level: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Judge the mean difference of each row.

    Args:
        first: values of shape `(rows, n)`, paired with those of `second`.
        second: as `first`.
        level: of the intervals.
        seed: of the bootstrap; the same resamples serve every row.

    Returns:
        Lower and upper end of the interval, and p, each of shape `(rows,)`; NaN as in `Comparison`.
    """
    low, high, p = np.full((3, len(first)), math.nan)
    if first.shape[1] < MIN_PAIRS:
        return low, high, p
    from scipy import special, stats

    d = first - second
    n = d.shape[1]
    round_off = ROUND_OFF * np.maximum(np.abs(first), np.abs(second)).max(1)
    spread_out = np.ptp(d, axis=1) > round_off
    p = np.where(np.abs(d).max(1) <= round_off, 1.0, 0.0)
    if spread_out.any():
        d = d[spread_out]
        mean, error = d.mean(1), d.std(1, ddof=1) / math.sqrt(n)
        p[spread_out] = 2 * special.stdtr(n - 1, -np.abs(mean) / error)
        half = special.stdtrit(n - 1, (1 + level) / 2) * error
        bca = stats.bootstrap(
            (d,),
            np.mean,
            axis=1,
            confidence_level=level,
            method="BCa",
            n_resamples=N_RESAMPLES,
            batch=max(1, 2**22 // d.size),
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low[spread_out] = np.fmin(mean - half, bca.low)
        high[spread_out] = np.fmax(mean + half, bca.high)
    return low, high, p


def _pair(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[Floats, Floats]:
    """Return the values of the seeds that both have, in the seeds' order."""
    shared = sorted(first.keys() & second.keys())
    return np.array([first[run] for run in shared], float), np.array([second[run] for run in shared], float)


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


def _figure(value: float, width: float) -> str:
    """Write a signed number to three digits of its interval's width, and to two of its own at least."""
    if value and width > 0:
        decimals = max(2 - math.floor(math.log10(width)), 1 - math.floor(math.log10(abs(value))), 0)
        return f"{value:+.{decimals}f}"
    return np.format_float_positional(float(f"{value:.6g}"), trim="-", sign=True)
