"""Which of two verified models is better: one measure after the other, each with the smallest difference that matters.

A smaller difference decides nothing, so that the champion is not moved by what another seed would have given as well.
For the same reason "better" is no order: of three models each can be within a step of the next, and the first not of
the last. The champion is compared with one candidate at a time, and every table shows all values.

What is better may still answer otherwise: with radii of another curvature, or from another kind of training. That is
said of every model that takes over; and a model of other operations never does so by itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tvae.tracking.description import preformatted

__all__ = ["OPERATIONS", "RANKING", "SERVED", "Criterion", "ModelComparison"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One measure that decides if in all before it nothing differs.

    Attributes:
        name: of the metric.
        label: as a table shows it.
        step: the smallest difference that matters.
        digits: decimals that a table shows.
        sign: 1 if more is better, -1 if less is.
        guards: whether a model that is worse in it stays behind, whatever it is better in.
    """

    name: str
    label: str
    step: float
    digits: int
    sign: int
    guards: bool = False

    def shown(self, metrics: Mapping[str, float]) -> str:
        """Return the value as a table shows it."""
        value = metrics.get(self.name, math.nan)
        return f"{value:.{self.digits}f}" if math.isfinite(value) else "unknown"

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Return the value in whole steps, larger for the better, to put many in order; the unknown is worst."""
        value = metrics.get(self.name, math.nan)
        return float(round(self.sign * value / self.step)) if math.isfinite(value) else -math.inf


# Steps are the largest standard deviation of any preset over 6 to 8 seeds and curvatures 0.5 to 5, rounded up; one
# operation more is 0.00005 of coverage, and hierarchies are as near as where the best epoch is chosen.
RANKING = (
    Criterion("coverage", "coverage", 5e-5, 5, 1, guards=True),
    Criterion("hierarchy", "hierarchy", 1.5e-4, 5, -1),
    Criterion("level_gap", "level gap", 0.1, 3, 1, guards=True),
    Criterion("tree_precision", "tree precision", 5e-3, 4, 1, guards=True),
    Criterion("q", "Q", 0.02, 4, 1),
    Criterion("richness", "richness", 1e-3, 5, 1),
)
"""What decides, in this order."""

OPERATIONS = "n_trits"
SERVED = (OPERATIONS, "latent_dim", "curvature", "max_radius", "preset")
"""Settings that whoever asks a served model will notice, whatever it is worth."""


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """A champion and a candidate.

    Attributes:
        old: the champion's metrics; empty if nothing is known of it, and so worse than any.
        new: the candidate's metrics.
        old_name: what to call the champion in a table.
        new_name: what to call the candidate.
        old_settings: the champion's, of those in `SERVED` as far as they are known.
        new_settings: the candidate's.
    """

    old: Mapping[str, float]
    new: Mapping[str, float]
    old_name: str
    new_name: str
    old_settings: Mapping[str, str] = field(default_factory=dict)
    new_settings: Mapping[str, str] = field(default_factory=dict)

    def steps(self, criterion: Criterion) -> float:
        """Return by how many steps the candidate is better, below 0 if it is worse; 0 if one side is not known."""
        if not self.old:
            return math.inf
        gain = criterion.sign * (self.new.get(criterion.name, math.nan) - self.old.get(criterion.name, math.nan))
        # Differences of decimals such as 0.0002 come out a last bit short.
        return round(gain / criterion.step, 6) if math.isfinite(gain) else 0.0

    @property
    def decisive(self) -> Criterion | None:
        """The first measure that differs by a step, None if none does."""
        return next((c for c in RANKING if abs(self.steps(c)) >= 1), None)

    @property
    def setback(self) -> Criterion | None:
        """The first guarding measure in which the candidate is worse although another decides for it, if any."""
        if self.decisive is None or self.steps(self.decisive) < 0:
            return None
        return next((c for c in RANKING if c.guards and self.steps(c) <= -1), None)

    @property
    def changed(self) -> tuple[str, ...]:
        """The names in `SERVED` of which both values are known and differ."""
        old, new = self.old_settings, self.new_settings
        return tuple(name for name in SERVED if name in old and name in new and old[name] != new[name])

    @property
    def better(self) -> bool:
        """Whether the candidate is better than the champion, and answers for the same operations."""
        ahead = self.decisive is not None and self.steps(self.decisive) > 0 and self.setback is None
        return ahead and OPERATIONS not in self.changed

    def reason(self) -> str:
        """Return what decided, or which measure came nearest to deciding, with both values; and what comes with it."""
        if OPERATIONS in self.changed:
            old, new = self.old_settings[OPERATIONS], self.new_settings[OPERATIONS]
            return f"for operations of {new} trits, and the champion for those of {old}"
        if self.setback is not None and self.decisive is not None:
            return f"better in {self._values(self.decisive)}, worse in {self._values(self.setback)}"
        if self.decisive is not None:
            if not self.better:
                return self._values(self.decisive)
            worse = [f"worse in {self._values(c)}" for c in RANKING if self.steps(c) <= -1]
            other = [f"{name} {self.new_settings[name]}, was {self.old_settings[name]}" for name in self.changed]
            return "; ".join([self._values(self.decisive), *worse, *other])
        nearest = max(RANKING, key=lambda c: abs(self.steps(c)))
        if not self.steps(nearest):
            return f"equal in {', '.join(c.label for c in RANKING)}"
        return f"no difference that matters; the largest is {self._values(nearest)}, below {nearest.step:g}"

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return measure, old, new, smallest difference that matters, and verdict, the header first."""
        rows = [("", self.old_name, self.new_name, "matters", "verdict")]
        for criterion in RANKING:
            steps = self.steps(criterion)
            verdict = "equal" if abs(steps) < 1 else "better" if steps > 0 else "worse"
            if criterion == (self.setback or self.decisive):
                verdict += ", decides"
            shown = (criterion.shown(self.old), criterion.shown(self.new), f"{criterion.step:g}")
            rows.append((criterion.label, *shown, verdict))
        rows += [(name, self.old_settings[name], self.new_settings[name], "", "other") for name in self.changed]
        return rows

    def markdown(self) -> str:
        """Return the comparison in Markdown that the UI keeps aligned."""
        return preformatted(self.rows())

    def table(self) -> str:
        """Return the comparison as aligned plain text."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]])
            for row in rows
        )

    def _values(self, criterion: Criterion) -> str:
        return f"{criterion.label} {criterion.shown(self.new)} against {criterion.shown(self.old)}"
