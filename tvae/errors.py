"""Errors that a user can act on. Each message says what must hold, what was found, and what to do."""

import re

__all__ = [
    "ArchitectureError",
    "CheckpointError",
    "ConfigurationError",
    "EvaluationError",
    "OperationError",
    "PointError",
    "RegistryError",
    "TVAEError",
    "TrackingError",
    "TrainingError",
    "without_credentials",
]

# In an address: what stands between // and the last @ before the path; and what a parameter holds that is named so.
_USER = re.compile(r"(?<=://)[^/\s'\"]+@")
_PASSWORD = re.compile(r"(?i)([?&][\w.-]*(?:password|passwd|token|secret)[\w.-]*=)[^&#\s'\"]+")


class TVAEError(Exception):
    """Base of every error that tvae raises on purpose."""


class ArchitectureError(TVAEError, ValueError):
    """An architecture that cannot be built, or two that had to agree and do not."""


class ConfigurationError(TVAEError, ValueError):
    """A training setting that is unknown, of the wrong type or out of range."""


class CheckpointError(TVAEError):
    """A checkpoint that is missing, damaged, or not what it was asked to be."""


class EvaluationError(TVAEError):
    """A model whose metrics cannot be computed, such as one with a radius that is NaN."""


class OperationError(TVAEError, ValueError):
    """An operation, a level of the tree or a number of them that there is not."""


class PointError(TVAEError, ValueError):
    """Points that cannot be read back: outside the ball, not finite, or of the wrong width."""


class RegistryError(TVAEError):
    """A checkpoint that may not be registered, or a registry that does not answer."""


class TrackingError(TVAEError):
    """A tracking store that does not answer or cannot be used."""


class TrainingError(TVAEError):
    """A training that had to stop: NaN or infinity in a loss, a gradient or a radius."""


def without_credentials(text: str) -> str:
    """Return a text with no user, password or token in the addresses that it holds: errors quote them whole.

    Example:
        >>> without_credentials("http://me:pw@host:5000 and db://host/runs?user=me&password=pw")
        'http://host:5000 and db://host/runs?user=me&password=***'
    """
    return _PASSWORD.sub(r"\1***", _USER.sub("", text))
