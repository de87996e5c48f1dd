"""What a model is worth."""

# What it has in public is stated there, once.
from tvae.metrics.evaluation import *  # noqa: F403
