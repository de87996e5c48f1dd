"""Ternary operations, learned by a variational autoencoder and placed in a Poincaré ball by 3-adic valuation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tvae.errors import (
    ArchitectureError,
    CheckpointError,
    ConfigurationError,
    EvaluationError,
    PointError,
    TrainingError,
    TVAEError,
)

if TYPE_CHECKING:
    from tvae.architecture import Architecture
    from tvae.experiments.scratch import Trained, train
    from tvae.loading import load
    from tvae.metrics import Evaluation, evaluate
    from tvae.model import TernaryVAE
    from tvae.neighbours import (
        Geodesic,
        PoincareDistance,
        adic_ball,
        distance,
        geodesic,
        nearest_operations,
    )
    from tvae.reading import Codebook, Operations, codebook, decode
    from tvae.transformer import TernaryEmbedding

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "ArchitectureError",
    "CheckpointError",
    "Codebook",
    "ConfigurationError",
    "Evaluation",
    "EvaluationError",
    "Geodesic",
    "Operations",
    "PoincareDistance",
    "PointError",
    "TVAEError",
    "TernaryEmbedding",
    "TernaryVAE",
    "Trained",
    "TrainingError",
    "adic_ball",
    "codebook",
    "decode",
    "distance",
    "evaluate",
    "geodesic",
    "load",
    "nearest_operations",
    "train",
]

# Imported on first use: torch takes over a second to import, and `--help` of a command needs none of it.
_HOME = {
    "Architecture": "tvae.architecture",
    "Codebook": "tvae.reading",
    "Evaluation": "tvae.metrics",
    "Geodesic": "tvae.neighbours",
    "Operations": "tvae.reading",
    "PoincareDistance": "tvae.neighbours",
    "TernaryEmbedding": "tvae.transformer",
    "TernaryVAE": "tvae.model",
    "Trained": "tvae.experiments.scratch",
    "adic_ball": "tvae.neighbours",
    "codebook": "tvae.reading",
    "decode": "tvae.reading",
    "distance": "tvae.neighbours",
    "evaluate": "tvae.metrics",
    "geodesic": "tvae.neighbours",
    "load": "tvae.loading",
    "nearest_operations": "tvae.neighbours",
    "train": "tvae.experiments.scratch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tvae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
