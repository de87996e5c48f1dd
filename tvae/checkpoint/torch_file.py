"""Reading what `torch.save` wrote, without torch's unpickler: the pickle as `tvae.checkpoint.pickled` reads it, and the
tensors, each only when it is asked for.

Two forms are read: the zip archive (torch 1.6 and later) and the stream of pickles before it. No size is believed: a
tensor's bytes must be there before it is made, a compressed entry yields no more than it states, and all entries
together state at most `MAX_BYTES`.
"""

import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import TypeGuard

import torch
from torch import Tensor

from tvae.checkpoint import pickled
from tvae.checkpoint.file import MAX_BYTES
from tvae.checkpoint.pickled import Object, described
from tvae.checkpoint.refusal import RefusedError, quote

__all__ = ["TorchFile", "is_tensor", "open_torch_file"]

# A file of the v5.11 programme has some 160 entries; Python's zipfile takes 500 bytes and 5 µs for each.
MAX_ENTRIES = 20_000
MAX_DIMENSIONS = 8
_ENTRY = b"PK\x01\x02"
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


class TorchFile:
    """What a file of `torch.save` holds.

    Args:
        value: what its pickle says.
        storages: the bytes of each by its key.
    """

    def __init__(self, value: object, storages: Mapping[str, bytearray]) -> None:
        self.value = value
        self._storages = storages

    def tensor(self, name: str, value: object) -> Tensor | None:
        """Return the dense tensor that a value of the pickle stands for, None if it is no such tensor.

        Args:
            name: how to call it.
            value: anything that the pickle holds.

        Returns:
            A view of the file's bytes, which other tensors may share.

        Raises:
            RefusedError: if it states what cannot be or is not there.
        """
        match value:
            case Object(name="torch._utils._rebuild_parameter", arguments=(inner, *_)):
                value = inner
        match value:
            case Object(
                name="torch._utils._rebuild_tensor_v2",
                arguments=(Object(name=pickled.PERSISTENT, arguments=identity), offset, shape, stride, *_),
            ) if storage := _storage(identity):
                key, dtype, count = storage
            case _:
                return None
        raw, stated = self._storages.get(key, bytearray()), count * dtype.itemsize
        if len(raw) != stated:
            raise RefusedError(
                f"The file must hold the {stated} bytes that it states for `{name}`; it has {len(raw)}: it was cut "
                "short or damaged."
            )
        if not (
            _naturals(shape)
            and _naturals(stride)
            and isinstance(offset, int)
            and offset >= 0
            and len(shape) == len(stride) <= MAX_DIMENSIONS
            # Without its zeros too: torch overflows where they hide a product of the other sizes.
            and math.prod(n for n in shape if n) <= max(count, 1)
            and (0 in shape or offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) < count)
        ):
            raise RefusedError(
                f"`{name}` must lie within its storage of {count} values; found the shape {quote(shape)} with the "
                f"strides {quote(stride)} from {quote(offset)} on."
            )
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(raw, dtype=dtype).as_strided(shape, stride, offset)


def is_tensor(value: object) -> bool:
    """Whether a value of the pickle stands for a tensor of any kind, readable or not."""
    return isinstance(value, Object) and value.name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))


def open_torch_file(content: bytes) -> TorchFile:
    """Read the structure of a file; nothing in it is executed.

    Args:
        content: the whole file.

    Raises:
        RefusedError: if it is no file of `torch.save`, is damaged, or states more than it may.
    """
    if content.startswith(b"PK"):
        return _open_archive(content)
    if content.startswith(b"\x80"):
        return _open_stream(content)
    if content[8:9] == b"{":
        raise RefusedError("This is a safetensors file, no legacy one: `verify` and `finetune` read those of tvae.")
    raise RefusedError(
        "A legacy checkpoint must be a file of torch.save; found neither a zip archive nor a pickle at its start."
    )


def _open_archive(content: bytes) -> TorchFile:
    entries = _entries(content)
    folders = [
        name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(folders) != 1:
        raise RefusedError(
            f"An archive of torch.save must have one data.pkl; found {len(folders)} among the entries "
            f"{quote(list(entries)[:10])}."
        )
    folder = folders[0]
    _require_byte_order("big" if bytes(entries.get(f"{folder}/byteorder", b"")) == b"big" else "little")
    value, _ = pickled.load(io.BytesIO(entries[f"{folder}/data.pkl"]))
    return TorchFile(value, {name.removeprefix(f"{folder}/data/"): raw for name, raw in entries.items()})


def _entries(content: bytes) -> dict[str, bytearray]:
    """Return every entry of a zip archive, each checked against its checksum."""
    if content.count(_ENTRY) > MAX_ENTRIES:
        raise RefusedError(f"An archive of torch.save must have at most {MAX_ENTRIES} entries; it has more.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = archive.infolist()
            if (size := sum(entry.file_size for entry in listed)) > MAX_BYTES:
                raise RefusedError(f"The archive must unpack to at most {MAX_BYTES} bytes; it states {size}.")
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in listed):
                raise RefusedError("The archive's entries must be stored or deflated, as torch and zip write them.")
            return {entry.filename: _content(archive, entry) for entry in listed}
    # A bad checksum, another entry's header, a password, bytes that do not inflate, an end before the end, …
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError) as error:
        raise RefusedError(f"The archive is damaged or cut short: {quote(str(error))}.") from None


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    with archive.open(entry) as stream:
        return bytearray(stream.read(entry.file_size))  # without the number, all that it inflates to


def _open_stream(content: bytes) -> TorchFile:
    stream = io.BytesIO(content)
    magic, _ = pickled.load(stream)
    if magic != _MAGIC:
        raise RefusedError(
            f"A legacy checkpoint must be a file of torch.save; found a plain pickle that holds {described(magic)}. It "
            "was read past, and not executed; save what it holds with torch.save."
        )
    pickled.load(stream)  # the version of the protocol, 1001
    system, _ = pickled.load(stream)
    _require_byte_order("little" if not isinstance(system, dict) or system.get("little_endian", True) else "big")
    value, persistent = pickled.load(stream)
    keys, _ = pickled.load(stream)
    dtypes = {key: dtype for key, dtype, _ in filter(None, map(_storage, persistent))}
    storages = {}
    for key in keys if isinstance(keys, list) else []:
        dtype = dtypes.get(key) if isinstance(key, str) else None
        if dtype is None:
            raise RefusedError(f"The file's storage {quote(key)} must be one of a type that is read; it is not.")
        length = int.from_bytes(stream.read(8), "little", signed=True) * dtype.itemsize
        storages[key] = bytearray(stream.read(max(0, min(length, len(content)))))
        if len(storages[key]) != length:
            raise RefusedError(
                f"The file must hold the {length} bytes that it states for the storage {quote(key)}; it has "
                f"{len(storages[key])}: it was cut short or damaged."
            )
    return TorchFile(value, storages)


def _require_byte_order(stored: str) -> None:
    if stored != sys.byteorder:
        raise RefusedError(
            f"The values must be stored in this machine's byte order, {sys.byteorder}-endian; found {stored}-endian. "
            "Save the file again with torch on this machine."
        )


def _storage(identity: object) -> tuple[str, torch.dtype, int] | None:
    """Return key, type and number of values of the storage that a persistent id stands for, None if it is none."""
    match identity:
        # Before torch 1.6 a view on another storage could follow, None in all files but the oldest.
        case ("storage", Object(name=kind), str(key), _, int(count), *view) if view in ([], [None]):
            dtype = _DTYPES.get(kind.replace("torch.cuda.", "torch."))
            return (key, dtype, count) if dtype and count >= 0 else None
    return None


def _naturals(values: object) -> TypeGuard[tuple[int, ...]]:
    """Whether a value is a tuple of integers that a size, stride or offset can be."""
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 2**48 for value in values)
