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
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from tvae.checkpoint import pickled
from tvae.checkpoint.file import MAX_BYTES
from tvae.checkpoint.pickled import PERSISTENT, Object, described
from tvae.checkpoint.refusal import RefusedError, quote

__all__ = ["InTheWayError", "StoredTensor", "TorchFile", "number", "open_torch_file"]

# A file of the v5.11 programme has some 160 entries; Python's zipfile takes 500 bytes and 5 µs for each.
MAX_ENTRIES = 20_000
_ENTRY = b"PK\x01\x02"
MAX_DIMENSIONS = 8
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_NAMED_DTYPES = {str(dtype): dtype for dtype in _DTYPES.values()}
_REBUILD = tuple(f"torch._utils.{name}" for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_tensor"))
_WRAPPERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_TYPED = "torch._tensor._rebuild_from_type_v2"
_NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMPY_FORMATS = dict(zip("f2 f4 f8 b1 i1 i2 i4 i8 u1 u2 u4 u8".split(), "efd?bhiqBHIQ", strict=True))  # noqa: SIM905


class InTheWayError(RefusedError):
    """An object without which the file cannot be read: it has to be saved again where the object can be made.

    Attributes:
        weights: the expression that gives the weights, where `file` is what was loaded.
        plain: whether `pickle` has to load it, not torch.
    """

    def __init__(self, message: str, weights: str = "file['model_state_dict']", *, plain: bool = False) -> None:
        super().__init__(message)
        self.weights = weights
        self.plain = plain


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor of a file, not read yet.

    Attributes:
        dtype: of its values.
        shape: as the file states it; it has no more values than its storage.
        stride: in values.
        offset: of its first value in the storage.
        storage: the key of the storage, whose bytes are there.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: str


class TorchFile:
    """What a file of `torch.save` holds.

    Args:
        value: what its pickle says.
        storages: the bytes of each by its key.
        big_endian: whether the values were stored with the highest byte first.
    """

    def __init__(self, value: object, storages: Mapping[str, bytes | memoryview], *, big_endian: bool) -> None:
        self.value = value
        self._storages = storages
        self._big_endian = big_endian

    def tensor(self, name: str, value: object) -> StoredTensor | None:
        """Return the tensor that an object of the pickle is, None if it is none.

        Args:
            name: how to call it.
            value: anything that the pickle holds.

        Raises:
            RefusedError: if it is a tensor that is not dense, or one that states what cannot be or is not there.
        """
        value = _unwrapped(value)
        if not isinstance(value, Object) or not value.name.startswith(("torch._utils._rebuild_", "torch._tensor.")):
            return None
        arguments = value.arguments
        if value.name not in _REBUILD or not isinstance(arguments, tuple) or len(arguments) < 4:
            raise InTheWayError(f"`{name}` must be a dense tensor with values, found {described(value)}.")
        storage, offset, shape, stride = arguments[:4]
        key, dtype, stored = _storage(storage)
        if value.name.endswith("_v3"):
            dtype = _NAMED_DTYPES.get(_name_of(arguments[6])) if len(arguments) > 6 else None
            stored //= dtype.itemsize if dtype else 1
        if key is None or dtype is None:
            raise InTheWayError(f"`{name}` must have values of a type that is read, found {described(storage)}.")
        if (there := len(self._storages.get(key, b""))) != stored * dtype.itemsize:
            raise RefusedError(
                f"The file must hold the {stored * dtype.itemsize} bytes that it states for `{name}`; it has {there}."
            )
        if not (
            _naturals(shape)
            and _naturals(stride)
            and isinstance(offset, int)
            and offset >= 0
            and len(shape) == len(stride) <= MAX_DIMENSIONS
            and math.prod(shape) <= stored
            and (0 in shape or offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) < stored)
        ):
            raise RefusedError(
                f"`{name}` must lie within its storage of {stored} values; found the shape {quote(shape)} with the "
                f"strides {quote(stride)} from {quote(offset)} on."
            )
        return StoredTensor(dtype, shape, stride, offset, key)

    def read(self, stored: StoredTensor) -> Tensor:
        """Return the values of a tensor of this file, in their own type."""
        raw = bytearray(self._storages[stored.storage])
        if not raw:
            return torch.empty(stored.shape, dtype=stored.dtype)
        if self._big_endian != (sys.byteorder == "big"):
            torch.frombuffer(raw, dtype=torch.uint8).view(-1, stored.dtype.itemsize).copy_(
                torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, stored.dtype.itemsize).flip(-1)
            )
        return torch.frombuffer(raw, dtype=stored.dtype).as_strided(stored.shape, stored.stride, stored.offset)


def _unwrapped(value: object) -> object:
    """Return the tensor within a parameter, or within a tensor that has attributes."""
    while isinstance(value, Object):
        match value.name, value.arguments:
            case name, (inner, *_) if name in _WRAPPERS:
                value = inner
            case name, (Object() as kind, _, arguments, *_) if name == _TYPED:
                value = Object(kind.name, arguments)
            case _:
                break
    return value


def number(value: object) -> object:
    """Return the number that a numpy scalar or a wrapper for settings holds; any other value as it is."""
    value = pickled.scalar(value)
    if not isinstance(value, Object) or value.name not in _NUMPY_SCALARS:
        return value
    if not isinstance(value.arguments, tuple) or len(value.arguments) != 2:
        return value
    kind, raw = value.arguments
    if isinstance(raw, Object) and raw.name == "_codecs.encode" and isinstance(raw.arguments, tuple):
        text = raw.arguments[0] if raw.arguments else None
        raw = text.encode("latin-1", "replace") if isinstance(text, str) and len(text) <= 8 else None
    code = kind.arguments[0] if isinstance(kind, Object) and isinstance(kind.arguments, tuple) and kind.arguments else 0
    order = kind.state[1] if isinstance(kind, Object) and isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    layout = f"{'>' if order == '>' else '<'}{_NUMPY_FORMATS.get(code) if isinstance(code, str) else None}"
    if not isinstance(raw, bytes) or "None" in layout or struct.calcsize(layout) != len(raw):
        return value
    return struct.unpack(layout, raw)[0]


def open_torch_file(content: bytes) -> TorchFile:
    """Read the structure of a file; nothing in it is executed.

    Args:
        content: the whole file.

    Raises:
        RefusedError: if it is no file of `torch.save`, is damaged, or states more than it may.
    """
    if content.startswith(b"PK"):
        return _open_archive(content)
    if content[257:262] == b"ustar":
        raise InTheWayError("The file is a tar, as torch wrote it before version 0.2; it was not opened.")
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
    if any(name.endswith("/constants.pkl") for name in entries):
        raise InTheWayError(
            "The file is a TorchScript archive, a whole program; it was not opened.", "file.state_dict()"
        )
    if len(folders) != 1:
        raise RefusedError(
            f"An archive of torch.save must have one data.pkl; found {len(folders)} among the entries "
            f"{quote(list(entries)[:10])}."
        )
    folder = folders[0]
    value = pickled.load(io.BytesIO(entries[f"{folder}/data.pkl"])).value
    storages = {name.removeprefix(f"{folder}/data/"): raw for name, raw in entries.items()}
    return TorchFile(value, storages, big_endian=entries.get(f"{folder}/byteorder") == b"big")


def _entries(content: bytes) -> dict[str, bytes]:
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


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as stream:
        return stream.read(entry.file_size)  # without the number, all that it inflates to


def _open_stream(content: bytes) -> TorchFile:
    stream = io.BytesIO(content)
    first = pickled.load(stream).value
    if first != _MAGIC:
        raise InTheWayError(
            f"A legacy checkpoint must be a file of torch.save; found a plain pickle that holds {described(first)}. It "
            "was read past, and not executed.",
            plain=True,
        )
    pickled.load(stream)  # the version of the protocol, 1001
    system = pickled.load(stream).value
    pickle = pickled.load(stream)
    keys = pickled.load(stream).value
    kinds = {key: dtype for key, dtype, _ in map(_stored_as, pickle.persistent) if key is not None}
    spans = {}
    view, start = memoryview(content), stream.tell()
    for key in keys if isinstance(keys, list) else []:
        dtype = kinds.get(key) if isinstance(key, str) else None
        if dtype is None:
            raise RefusedError(f"The file's storage {quote(key)} must be one of a type that is read; it is not.")
        length = int.from_bytes(view[start : start + 8], "little", signed=True) * dtype.itemsize
        span = view[start + 8 : start + 8 + length] if length >= 0 else view[:0]
        if length < 0 or len(span) != length:
            raise RefusedError(
                f"The file must hold the {length} bytes that it states for the storage {quote(key)}; it has "
                f"{len(content) - start - 8}: it was cut short or damaged."
            )
        spans[key] = span
        start += 8 + length
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    return TorchFile(pickle.value, spans, big_endian=not little)


def _storage(value: object) -> tuple[str | None, torch.dtype | None, int]:
    """Return key, type and number of values of what stands for a storage; no key if it is none."""
    if not isinstance(value, Object) or value.name != PERSISTENT:
        return None, None, 0
    return _stored_as(value.arguments)


def _stored_as(identity: object) -> tuple[str | None, torch.dtype | None, int]:
    # ("storage", type, key, device, number of values); before torch 1.6 a view on another storage could follow.
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        return None, None, 0
    _, kind, key, _, stored = identity[:5]
    module, _, name = _name_of(kind).rpartition(".")
    dtype = _DTYPES.get(name.removesuffix("Storage")) if module in ("torch", "torch.cuda") else None
    if name == "UntypedStorage":
        dtype = torch.uint8
    if not isinstance(key, str) or not _naturals((stored,)) or identity[5:] not in ((), (None,)):
        return None, None, 0
    return key, dtype, stored


def _name_of(value: object) -> str:
    return value.name if isinstance(value, Object) else ""


def _naturals(values: object) -> TypeGuard[tuple[int, ...]]:
    """Whether a value is a tuple of integers that a size, stride or offset can be."""
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 2**48 for value in values)
