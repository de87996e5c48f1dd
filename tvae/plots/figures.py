"""All figures by name. A figure is a file of its name: its function takes plain data and returns a `Figure`."""

from tvae.plots.distance_by_valuation import distance_by_valuation
from tvae.plots.poincare_disk import poincare_disk
from tvae.plots.radius_by_valuation import radius_by_valuation
from tvae.plots.style import save
from tvae.plots.training_curves import training_curves
from tvae.plots.tree import tree

__all__ = ["distance_by_valuation", "poincare_disk", "radius_by_valuation", "save", "training_curves", "tree"]
