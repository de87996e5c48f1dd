"""Figures of the report as numbers that a template draws: every seed a point, the mean with its interval, the limit."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tvae.report.layout import HIERARCHY, RICHNESS, Cell, Measure, Phase
from tvae.sweeps.statistics import spread

__all__ = ["Panel", "Scatter", "front", "panels", "scatter"]

WIDTH, EDGE, ROW = 420.0, 14.0, 40.0
MOST_CELLS = 40
# Successive multiples of it, modulo 1, fill an interval evenly: jitter that needs no random numbers.
GOLDEN = (math.sqrt(5) - 1) / 2


class Mark(NamedTuple):
    """A point of a figure, and what it stands for."""

    x: float
    y: float
    title: str
    strong: bool = True


class Tick(NamedTuple):
    """A line of a scale."""

    at: float
    text: str


class Row(NamedTuple):
    """One cell of a panel: its points, its mean, and the ends of the mean's interval."""

    name: str
    y: float
    marks: list[Mark]
    mean: float | None
    ends: tuple[float, float] | None


class Panel(NamedTuple):
    """One measure of a phase; `limit` is what no value passes, None if it is far off or there is none."""

    title: str
    height: float
    rows: list[Row]
    ticks: list[Tick]
    limit: Tick | None


class Scatter(NamedTuple):
    """Hierarchy and richness of the trials of a search; `line` joins those that no other beats."""

    marks: list[Mark]
    line: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_limit: Tick | None


def panels(phase: Phase) -> list[Panel]:
    """Return a panel for each measure of a phase but coverage, `MOST_CELLS` cells at most."""
    return [_panel(phase, measure) for measure in phase.measures if measure.label != "coverage"]


def _panel(phase: Phase, measure: Measure) -> Panel:
    cells = [cell for cell in phase.cells if cell.by_seed(measure.metric)][:MOST_CELLS]
    half = _half_widths(phase, measure)
    values = [value for cell in cells for value in cell.by_seed(measure.metric).values()]
    limits = {limit for cell in cells if (limit := cell.limit(measure)) is not None}
    limit = min(limits, key=abs) if limits else None
    if limit is not None and abs(limit - values[0]) > max(4 * (max(values) - min(values)), 0.2 * abs(limit)):
        limit = None
    scale = _Scale.over([*values, limit], EDGE, WIDTH - EDGE)
    rows = []
    for i, cell in enumerate(cells):
        y, by_seed = ROW * i + 52, sorted(cell.by_seed(measure.metric).items())
        jitter = 0.0 if len(by_seed) < 4 else 10.0
        marks = [
            Mark(scale(value), y + jitter * (n * GOLDEN % 1 - 0.5), f"{cell.name}, seed {seed}: {value:.5f}")
            for n, (seed, value) in enumerate(by_seed)
        ]
        found = spread(value for _, value in by_seed)
        own = half.get(cell.name, math.nan)
        ends = found.interval() if not half else (found.mean - own, found.mean + own) if own >= 0 else None
        clipped = None if ends is None else (scale.clipped(ends[0]), scale.clipped(ends[1]))
        rows.append(Row(cell.name, y, marks, scale(found.mean) if found.n > 1 else None, clipped))
    side = "right" if measure.sign > 0 else "left"
    title = f"{measure.label} ({side} is better)"
    return Panel(title, ROW * len(cells) + 62, rows, scale.ticks(4), _limit(scale, limit))


def _half_widths(phase: Phase, measure: Measure) -> dict[str, float]:
    """Return half widths by cell: a cell is told from the first just where their intervals do not overlap."""
    found = {cell.name: phase.against_first(cell, measure) for cell in phase.cells}
    widths = {name: (f.high - f.low) / 2 for name, f in found.items() if f is not None and f.high > f.low}
    if not widths or phase.first is None:
        return {}
    own = min(widths.values()) / 2
    return {phase.first.name: own} | {name: width - own for name, width in widths.items()}


def scatter(cells: Sequence[Cell], best: Sequence[Cell]) -> Scatter | None:
    """Return hierarchy and richness of the trials of a search, None if none has both."""
    known = _both(cells)
    if not known:
        return None
    limit = known[0][2].limit(HIERARCHY)
    x = _Scale.over([*(h for h, _, _ in known), limit], 64, WIDTH - EDGE)
    y = _Scale.over([r for _, r, _ in known], 260, 24)
    marks = [
        Mark(x(h), y(r), f"{cell.name}: hierarchy {h:.5f}, richness {r:.5f}", cell in best) for h, r, cell in known
    ]
    line = " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in sorted(marks) if mark.strong)
    return Scatter(sorted(marks, key=lambda mark: mark.strong), line, x.ticks(4), y.ticks(5), _limit(x, limit))


def front(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that no other beats in both hierarchy and richness, the best hierarchy first."""
    kept, richest = [], -math.inf
    for _, richness, cell in sorted(_both(cells), key=lambda item: (item[0], -item[1])):
        if richness > richest:
            kept.append(cell)
            richest = richness
    return kept


def _both(cells: Sequence[Cell]) -> list[tuple[float, float, Cell]]:
    """Return hierarchy and richness of the cells that have both."""
    return [
        (h.mean, r.mean, cell)
        for cell in cells
        if (h := cell.spread(HIERARCHY.metric)) and (r := cell.spread(RICHNESS.metric))
    ]


def _limit(scale: "_Scale", limit: float | None) -> Tick | None:
    return None if limit is None else Tick(scale(limit), f"limit {_signed(f'{limit:.5f}')}")


class _Scale(NamedTuple):
    """From values to pixels, and where its ticks are."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float | None], start: float, end: float) -> "_Scale":
        known = [value for value in values if value is not None]
        low, high = min(known), max(known)
        room = 0.05 * (high - low) or max(1e-4, 0.05 * abs(low))
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int) -> list[Tick]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [Tick(self(k * step), _signed(f"{k * step + 0.0:.{decimals}f}")) for k in range(first, last + 1)]


def _signed(text: str) -> str:
    return text.replace("-", "−")  # the minus sign is as wide as a digit
