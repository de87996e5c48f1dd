"""Checkpoints: written, read, taken over and verified so that none can load as what it is not."""

from tvae.checkpoint.file import FILE_NAME, FORMAT_VERSION, Checkpoint, load, read, require_storable, save
from tvae.checkpoint.legacy import Conversion, convert
from tvae.checkpoint.transfer import Transfer, transfer
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
