"""Training: cohorts of runs as one batch, learning-rate schedules, selection of the best epoch.

A run is a cohort of one: there is one training loop.
"""

from tvae.training.cohort import train, train_cohort
from tvae.training.member import Member, Observer, Record, Result

__all__ = ["Member", "Observer", "Record", "Result", "train", "train_cohort"]
