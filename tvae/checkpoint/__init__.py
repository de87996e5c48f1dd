"""Checkpoints: written, read, taken over and verified so that none can load as what it is not."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tvae.checkpoint.file import FILE_NAME, FORMAT_VERSION, Checkpoint, load, read, require_storable, save
from tvae.checkpoint.transfer import Transfer, transfer

if TYPE_CHECKING:
    from tvae.checkpoint.legacy import Conversion, convert
    from tvae.checkpoint.verification import Bounds, Check, Verification, verify

__all__ = [
    "FILE_NAME",
    "FORMAT_VERSION",
    "Bounds",
    "Check",
    "Checkpoint",
    "Conversion",
    "Transfer",
    "Verification",
    "convert",
    "load",
    "read",
    "require_storable",
    "save",
    "transfer",
    "verify",
]

# Imported on first use: what measures a model needs scipy, which takes a second to import; what loads one does not.
_HOME = {
    "Bounds": "verification",
    "Check": "verification",
    "Conversion": "legacy",
    "Verification": "verification",
    "convert": "legacy",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tvae.checkpoint' has no attribute {name!r}")
    return getattr(import_module(f"tvae.checkpoint.{_HOME[name]}"), name)
