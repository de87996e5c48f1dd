"""Which of two verified models is better: one measure after the other, each at a stated number of decimals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tvae.metrics import hierarchy_ceiling
from tvae.tracking.description import preformatted

__all__ = ["RANKING", "Comparison", "Criterion"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One measure that decides if all before it are equal.

    Attributes:
        name: of the metric.
        label: as a table shows it.
        decimals: what it is rounded to before it is compared. Rounding keeps "better" an order: with a tolerance, three
            models could each be better than the next, all round.
        sign: 1 if more is better, -1 if less is.
        limit: what the value cannot pass, None if nothing; steps are then counted from there, so that values at the
            limit are equal on whichever side of a rounding edge it lies.
    """

    name: str
    label: str
    decimals: int
    sign: int
    limit: float | None = None

    def shown(self, metrics: Mapping[str, float]) -> str:
        """Return the value as a table shows it, with a digit more where it is not rounded to be compared."""
        value, digits = metrics.get(self.name, math.nan), self.decimals + (self.limit is not None)
        return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Return a number that is larger for the better; the unknown is worst."""
        value = metrics.get(self.name, math.nan)
        if not math.isfinite(value):
            return -math.inf
        if self.limit is None:
            return self.sign * float(f"{value:.{self.decimals}f}")
        return -float(math.floor(max(0.0, self.sign * (self.limit - value)) * 10**self.decimals))


RANKING = (
    Criterion("coverage", "coverage", 5, 1),
    Criterion("hierarchy", "hierarchy", 4, -1, limit=hierarchy_ceiling()),
    Criterion("q", "Q", 3, 1),
    Criterion("richness", "richness", 4, 1),
)
"""What decides, in this order. One operation more is 0.00005 of coverage."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A champion and a candidate.

    Attributes:
        old: the champion's metrics; empty if nothing is known of it, and so worse than any.
        new: the candidate's metrics.
        old_name: what to call the champion in a table.
        new_name: what to call the candidate.
    """

    old: Mapping[str, float]
    new: Mapping[str, float]
    old_name: str
    new_name: str

    @property
    def decisive(self) -> Criterion | None:
        """The first measure that differs, None if none does."""
        return next((c for c in RANKING if c.rank(self.old) != c.rank(self.new)), None)

    @property
    def better(self) -> bool:
        """Whether the candidate is better than the champion."""
        decisive = self.decisive
        return decisive is not None and decisive.rank(self.new) > decisive.rank(self.old)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return measure, old, new and verdict, the header first."""
        rows = [("", self.old_name, self.new_name, "verdict")]
        for criterion in RANKING:
            old, new = criterion.rank(self.old), criterion.rank(self.new)
            verdict = "equal" if old == new else "better" if new > old else "worse"
            if criterion == self.decisive:
                verdict += ", decides"
            rows.append((criterion.label, criterion.shown(self.old), criterion.shown(self.new), verdict))
        return rows

    def markdown(self) -> str:
        """Return the comparison in Markdown that the UI keeps aligned."""
        return preformatted(self.rows())

    def table(self) -> str:
        """Return the comparison as aligned plain text."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"  {name.ljust(widths[0])}  {old.rjust(widths[1])}  {new.rjust(widths[2])}  {verdict}"
            for name, old, new, verdict in rows
        )
