"""Checkpoints: written, read, taken over and verified so that none can load as what it is not."""

from tvae.checkpoint.file import FILE_NAME, FORMAT_VERSION, Checkpoint, load, read, require_storable, save

__all__ = ["FILE_NAME", "FORMAT_VERSION", "Checkpoint", "load", "read", "require_storable", "save"]
