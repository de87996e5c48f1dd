"""The registry: which checkpoint carries which name, and why.

Two registered models: `tvae`, whose versions have all passed verification and can be served, and `tvae-foundation`, the
encoders and decoders that finetuning starts from. The alias `champion` is on the version in use; `previous`, of `tvae`
only, is on the champion before it.
"""

from tvae.registry.address import fetch, run_of, short
from tvae.registry.comparison import RANKING, Criterion, ModelComparison
from tvae.registry.foundation import FOUNDATION_MODEL, find_foundation, register_foundation
from tvae.registry.promotion import MODEL, MODES, Promotion, find_model, promote, require_promotable, rollback
from tvae.registry.store import CHAMPION, PREVIOUS

__all__ = [
    "CHAMPION",
    "FOUNDATION_MODEL",
    "MODEL",
    "MODES",
    "PREVIOUS",
    "RANKING",
    "Criterion",
    "ModelComparison",
    "Promotion",
    "fetch",
    "find_foundation",
    "find_model",
    "promote",
    "register_foundation",
    "require_promotable",
    "rollback",
    "run_of",
    "short",
]
