"""Figures of the report, drawn as SVG: they follow the page's fonts and its colours, by day and by night.

Every figure is plain data with a method `svg`. Colours are classes, which `STYLE` gives their values; a pointer that
rests on a mark is told what it stands for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tvae.report.markup import Markup, element

__all__ = ["STYLE", "Curves", "Dots", "Drawing", "Interval", "Intervals", "Mark", "Panel", "Point", "Row", "Scatter"]

WIDTH = 880.0
ROW = 26.0
MOST_COLOURS = 8
# Successive multiples of it, modulo 1, fill an interval evenly: jitter that needs no random numbers.
GOLDEN = (math.sqrt(5) - 1) / 2

STYLE = """
figure > svg { display: block; width: 100%; height: auto; min-width: 44rem; }
svg text { font-size: 12px; fill: var(--ink); }
svg .muted { fill: var(--muted); }
svg .right { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .mark { stroke: var(--ink); stroke-width: 1.6; }
svg .thin { stroke: var(--muted); stroke-width: 1.2; }
svg .limit { stroke: var(--limit); stroke-width: 1.4; }
svg .limit-text { fill: var(--limit); }
svg .band { fill: var(--rule); }
svg .hollow { fill: var(--paper); stroke: var(--ink); stroke-width: 1.3; }
svg .curve { fill: none; stroke-width: 1.4; stroke-opacity: 0.75; }
""" + "\n".join(
    f"svg .fill{i} {{ fill: var(--c{i}); }} svg .line{i} {{ stroke: var(--c{i}); }}" for i in range(MOST_COLOURS)
)


class Drawing(Protocol):
    """What can be drawn."""

    def svg(self) -> Markup:
        """Return the figure as an SVG element."""


class Mark(NamedTuple):
    """One value, and what it stands for."""

    value: float
    label: str


class Row(NamedTuple):
    """What one row of `Dots` shows in one panel.

    Attributes:
        marks: a dot each.
        mean: of the marks.
        std: their standard deviation, NaN where there is none.
        reported: what the reference sweep had, if anything.
    """

    marks: tuple[Mark, ...]
    mean: float = math.nan
    std: float = math.nan
    reported: float | None = None


class Panel(NamedTuple):
    """One measure of `Dots`: a row for each name, and the limit that no value passes."""

    title: str
    rows: tuple[Row, ...]
    limit: float


@dataclass(frozen=True, slots=True)
class Dots:
    """Every run of every cell as a dot, a row a cell, a panel a measure.

    Attributes:
        title: of the figure, for those who cannot see it.
        names: of the rows.
        panels: side by side.
    """

    title: str
    names: tuple[str, ...]
    panels: tuple[Panel, ...]

    def svg(self) -> Markup:
        """Return the figure as an SVG element."""
        left, gap, top = 200.0, 52.0, 40.0
        width = (WIDTH - left - gap * len(self.panels)) / len(self.panels)
        bottom = top + ROW * len(self.names)
        parts = [_label(left - 14, top + ROW * (i + 0.5), name, 28) for i, name in enumerate(self.names)]
        parts += [_line(0, WIDTH, top + ROW * i, top + ROW * i, "grid") for i in range(len(self.names) + 1)]
        for place, panel in enumerate(self.panels):
            start = left + place * (width + gap)
            parts += self._panel(panel, start, start + width, top, bottom)
        return _svg(self.title, bottom + 30, parts)

    def _panel(self, panel: Panel, left: float, right: float, top: float, bottom: float) -> list[Markup]:
        values = [mark.value for row in panel.rows for mark in row.marks]
        values += [row.reported for row in panel.rows if row.reported is not None]
        reach = max(values, default=0.0) - min(values, default=0.0)
        near = bool(values) and min(abs(panel.limit - value) for value in values) < max(
            4 * reach, 0.2 * abs(panel.limit)
        )
        scale = _Scale.over([*values, *([panel.limit] if near else [])], left, right)
        parts = [_text(left, 14, panel.title)]
        parts += scale.ticks_below(top, bottom)
        limit = f"limit {_signed(f'{panel.limit:.5f}')}"
        if near:
            x = scale(panel.limit)
            parts += [_line(x, x, top - 6, bottom, "limit")]
            anchor = "" if x < (left + right) / 2 else " right"
            parts += [_text(x, top - 11, limit, f"limit-text{anchor}")]
        else:
            parts += [_text(right, top - 11, f"{limit}, beyond this range", "limit-text right")]
        for i, row in enumerate(panel.rows):
            parts += self._row(row, scale, top + ROW * (i + 0.5))
        return parts

    def _row(self, row: Row, scale: "_Scale", y: float) -> list[Markup]:
        parts = []
        if row.reported is not None:
            x = scale(row.reported)
            title = element("title", f"the reference sweep: {_signed(f'{row.reported:g}')}")
            path = f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"
            parts.append(element("path", title, d=path, class_="hollow"))
        spread = 0.0 if len(row.marks) < 4 else 6.0
        for n, mark in enumerate(row.marks):
            parts.append(_dot(scale(mark.value), y + spread * 2 * (n * GOLDEN % 1 - 0.5), 3.4, mark.label, "fill0"))
        if row.std > 0:
            parts.append(_line(scale(row.mean - row.std), scale(row.mean + row.std), y, y, "thin"))
        if len(row.marks) > 1:
            parts.append(_line(scale(row.mean), scale(row.mean), y - 8, y + 8, "mark"))
        return parts


@dataclass(frozen=True, slots=True)
class Curves:
    """A measure by epoch, a curve for each run, a colour for each cell.

    Attributes:
        title: of the figure.
        cells: for each name the curves of its runs, as epoch and value; `MOST_COLOURS` cells at most.
        limit: what no value passes.
        y_title: of the vertical axis.
    """

    title: str
    cells: tuple[tuple[str, tuple[tuple[tuple[int, float], ...], ...]], ...]
    limit: float
    y_title: str

    def svg(self) -> Markup:
        """Return the figure as an SVG element."""
        left, right, top, bottom = 62.0, 640.0, 30.0, 300.0
        runs = [curve for _, curves in self.cells for curve in curves]
        # What happens near the limit is what matters: the way down from the start would flatten it.
        reach = max(max(curve[-1][1], min(value for _, value in curve)) for curve in runs) - self.limit
        highest = max(value for curve in runs for _, value in curve)
        x = _Scale.over([float(epoch) for curve in runs for epoch, _ in curve], left, right, pad=0.01)
        y = _Scale.over([min(highest, self.limit + max(0.1, 1.5 * reach)), self.limit], bottom, top, pad=0.04)
        parts = [_text(left, 14, self.y_title), _text(right, bottom + 32, "epoch", "muted right")]
        parts += x.ticks_below(top, bottom, whole=True) + y.ticks_beside(left, right)
        parts += [_line(left, right, y(self.limit), y(self.limit), "limit")]
        label = f"limit {_signed(f'{self.limit:.5f}')}"
        parts += [_text(right + 6, y(self.limit) + 4, label, "limit-text")]
        lines = []
        for i, (name, curves) in enumerate(self.cells):
            for curve in curves:
                path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in curve)
                lines.append(element("polyline", element("title", name), points=path, class_=f"curve line{i}"))
            height = top + 10 + 22 * i
            parts += [_line(right + 8, right + 28, height, height, f"curve line{i}")]
            parts += [_label(right + 36, height, name, 27, right=False)]
        # An inner svg shows only what lies within it.
        box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        view = f"{left:g} {top:g} {right - left:g} {bottom - top:g}"
        return _svg(self.title, bottom + 40, [*parts, element("svg", *lines, viewBox=view, **box)])


class Interval(NamedTuple):
    """One difference with its interval, NaN where there is none; `found` if it is told from noise."""

    label: str
    value: float
    low: float
    high: float
    found: bool


@dataclass(frozen=True, slots=True)
class Intervals:
    """Differences and how well they are known, a row each.

    Attributes:
        title: of the figure.
        rows: the differences.
        matters: differences below this do not matter: a band around 0.
        x_title: of the axis.
    """

    title: str
    rows: tuple[Interval, ...]
    matters: float
    x_title: str

    def svg(self) -> Markup:
        """Return the figure as an SVG element."""
        left, right, top = 380.0, WIDTH - 16, 30.0
        bottom = top + ROW * len(self.rows)
        values = [v for row in self.rows for v in (row.value, row.low, row.high) if math.isfinite(v)]
        scale = _Scale.over([*values, -self.matters, self.matters], left, right)
        band = scale(-self.matters), scale(self.matters)
        parts = [
            element("rect", x=band[0], y=top, width=band[1] - band[0], height=bottom - top, class_="band"),
            *scale.ticks_below(top, bottom),
            _line(scale(0), scale(0), top - 6, bottom, "axis"),
            _text(left, 14, self.x_title),
        ]
        for i, row in enumerate(self.rows):
            y = top + ROW * (i + 0.5)
            parts.append(_label(left - 14, y, row.label, 54))
            if math.isfinite(row.low):
                parts.append(_line(scale(row.low), scale(row.high), y, y, "mark" if row.found else "thin"))
                parts += [_line(scale(end), scale(end), y - 4, y + 4, "thin") for end in (row.low, row.high)]
            if math.isfinite(row.value):
                style = "fill0" if row.found else "hollow"
                parts.append(_dot(scale(row.value), y, 4.2, f"{row.label}: {row.value:+.5f}", style))
        return _svg(self.title, bottom + 30, parts)


class Point(NamedTuple):
    """One point of a scatter, and whether it stands out."""

    x: float
    y: float
    label: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points in the plane of two measures; those that stand out are joined by a line.

    Attributes:
        title: of the figure.
        points: in any order.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        x_limit: what no x passes, if it is to be drawn.
        y_limit: what no y passes, if it is to be drawn.
    """

    title: str
    points: tuple[Point, ...]
    x_title: str
    y_title: str
    x_limit: float | None = None
    y_limit: float | None = None

    def svg(self) -> Markup:
        """Return the figure as an SVG element."""
        left, right, top, bottom = 84.0, WIDTH - 110, 34.0, 340.0
        x = _Scale.over([*(p.x for p in self.points), *_known(self.x_limit)], left, right, pad=0.05)
        y = _Scale.over([*(p.y for p in self.points), *_known(self.y_limit)], bottom, top, pad=0.05)
        parts = [_text(left, 14, self.y_title), _text(right, bottom + 34, self.x_title, "right")]
        parts += x.ticks_below(top, bottom) + y.ticks_beside(left, right)
        for limit in _known(self.x_limit):
            label = f"limit {_signed(f'{limit:.5f}')}"
            parts += [
                _line(x(limit), x(limit), top, bottom, "limit"),
                _text(x(limit) + 5, top + 10, label, "limit-text"),
            ]
        for limit in _known(self.y_limit):
            label = f"limit {_signed(f'{limit:.5f}')}"
            parts += [
                _line(left, right, y(limit), y(limit), "limit"),
                _text(right + 6, y(limit) + 4, label, "limit-text"),
            ]
        strong = sorted((p for p in self.points if p.strong), key=lambda p: p.x)
        if len(strong) > 1:
            path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in strong)
            parts.append(element("polyline", points=path, class_="curve line0"))
        for point in sorted(self.points, key=lambda p: p.strong):
            style = "fill0" if point.strong else "hollow"
            parts.append(_dot(x(point.x), y(point.y), 4.2, point.label, style))
        return _svg(self.title, bottom + 42, parts)


class _Scale(NamedTuple):
    """From values to pixels, and where its ticks are."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, pad: float = 0.03) -> "_Scale":
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = max(high - low, 1e-4 * max(abs(low), abs(high)), 1e-9) * pad
        if high == low:
            room = max(1e-4, abs(low) * 0.05)
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, apart: float, *, whole: bool = False) -> list[tuple[float, str]]:
        rough = (self.high - self.low) / (abs(self.end - self.start) / apart)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        step = max(1.0, step) if whole else step
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(k * step, _signed(f"{k * step:.{decimals}f}")) for k in range(first, last + 1)]

    def ticks_below(self, top: float, bottom: float, *, whole: bool = False) -> list[Markup]:
        parts = []
        for value, text in self.ticks(75, whole=whole):
            x = self(value)
            parts += [_line(x, x, top, bottom, "grid"), _text(x, bottom + 16, text, "muted middle")]
        return [*parts, _line(self.start, self.end, bottom, bottom, "axis")]

    def ticks_beside(self, left: float, right: float) -> list[Markup]:
        parts = []
        for value, text in self.ticks(45):
            y = self(value)
            parts += [_line(left, right, y, y, "grid"), _text(left - 8, y + 4, text, "muted right")]
        return [*parts, _line(left, left, self.start, self.end, "axis")]


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    box = f"0 0 {WIDTH:g} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=title)


def _line(x1: float, x2: float, y1: float, y2: float, style: str) -> Markup:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=style)


def _text(x: float, y: float, text: str, style: str = "") -> Markup:
    return element("text", text, x=x, y=y, class_=style)


def _label(x: float, y: float, name: str, most: int, *, right: bool = True) -> Markup:
    """Write a name beside a row; the whole of a long one is told to a pointer that rests on it."""
    short = name if len(name) <= most else f"{name[: most - 1]}…"
    return element("text", short, element("title", name), x=x, y=y + 4, class_="right" if right else "")


def _dot(x: float, y: float, r: float, label: str, style: str) -> Markup:
    return element("circle", element("title", label), cx=x, cy=y, r=r, class_=style)


def _signed(text: str) -> str:
    return text.replace("-", "−")  # the minus sign is as wide as a digit


def _known(limit: float | None) -> list[float]:
    return [] if limit is None else [limit]
