"""What a model is worth."""

# What they have in public is stated there, once.
from tvae.metrics.evaluation import *  # noqa: F403
from tvae.metrics.measurement import *  # noqa: F403
from tvae.metrics.population import *  # noqa: F403
from tvae.metrics.tree import *  # noqa: F403
