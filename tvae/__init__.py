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
    from tvae.config.architecture import Architecture
    from tvae.embedding.codebook import Codebook, Operations, codebook, decode
    from tvae.embedding.loading import load
    from tvae.embedding.queries import (
        Geodesic,
        PoincareDistance,
        adic_ball,
        distance,
        geodesic,
        nearest_operations,
    )
    from tvae.embedding.transformer import TernaryEmbedding
    from tvae.metrics import Evaluation, evaluate
    from tvae.model import TernaryVAE
    from tvae.training.scratch import Trained, train

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
    "Architecture": "tvae.config.architecture",
    "Codebook": "tvae.embedding.codebook",
    "Evaluation": "tvae.metrics",
    "Geodesic": "tvae.embedding.queries",
    "Operations": "tvae.embedding.codebook",
    "PoincareDistance": "tvae.embedding.queries",
    "TernaryEmbedding": "tvae.embedding.transformer",
    "TernaryVAE": "tvae.model",
    "Trained": "tvae.training.scratch",
    "adic_ball": "tvae.embedding.queries",
    "codebook": "tvae.embedding.codebook",
    "decode": "tvae.embedding.codebook",
    "distance": "tvae.embedding.queries",
    "evaluate": "tvae.metrics",
    "geodesic": "tvae.embedding.queries",
    "load": "tvae.embedding.loading",
    "nearest_operations": "tvae.embedding.queries",
    "train": "tvae.training.scratch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tvae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
