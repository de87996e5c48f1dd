"""The file `checkpoint.safetensors`: one model, what it is made of, how it came about, and a digest over all of it.

It is a safetensors file: eight bytes of length, a JSON header, then the tensors' bytes in the order of their names. The
header's `__metadata__` has the one key `tvae` (several would be written in random order), whose text is the canonical
JSON (keys sorted, no spaces) of these fields:

- `format_version`: an integer, `FORMAT_VERSION`. Version 1, which had no `centred`, is read as not centred.
- `architecture`: the fields of `Architecture`.
- `trained`: the components whose weights were learned; those of the others were drawn at random.
- `training`: configuration, seed, start and whatever else the training says of itself.
- `provenance`: versions of tvae, torch, numpy and python; git commit, and whether the tree was dirty.
- `metrics`: name -> number, as the training measured them.
- `digest`: SHA-256, in hexadecimal, over the canonical JSON of all fields above and of every tensor's name, type and
  shape, followed by the tensors' bytes.

The same model and fields give the same bytes. A file is read only if writing what was read would give the file's own
bytes again, so that no bit of it can change unnoticed. The digest guards against damage and mix-ups; it is no
signature.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import torch
from torch import Tensor

from tvae.checkpoint import atomic
from tvae.checkpoint.provenance import provenance
from tvae.checkpoint.refusal import RefusedError, cut, open_regular, os_reason, quote, refusing, require_finite_weights
from tvae.config.architecture import Architecture
from tvae.errors import ArchitectureError, CheckpointError
from tvae.model import COMPONENTS, TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = [
    "FILE_NAME",
    "FORMAT_VERSION",
    "MAX_BYTES",
    "Checkpoint",
    "load",
    "read",
    "require_storable",
    "save",
    "tensor_shapes",
]

FILE_NAME = "checkpoint.safetensors"
FORMAT_VERSION = 2
# The default architecture takes 0.4 MB. The limit keeps what a hostile file can cost below 0.1 s and 100 MB.
MAX_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20

_KEY = "tvae"
_DTYPE = "F32"
_LENGTH_BYTES = 8
_FIELDS = ("architecture", "digest", "format_version", "metrics", "provenance", "trained", "training")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model in a file, and everything the file says of it.

    Attributes:
        path: where it was read from, or written to.
        model: in evaluation mode, on the CPU, where it was read.
        architecture: what the model is made of.
        trained: components whose weights were learned, in the order of `tvae.model.COMPONENTS`; a foundation has the
            encoder and the decoder only.
        training: how it was trained, as the training said.
        provenance: versions of packages, and the commit.
        metrics: as the training measured them; `verify` recomputes them.
        digest: SHA-256 of fields and tensors, 64 hexadecimal digits.
    """

    path: Path
    model: TernaryVAE
    architecture: Architecture
    trained: tuple[str, ...]
    training: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: Mapping[str, float]
    digest: str

    @property
    def holdout(self) -> float:
        """Share of operations that no loss has seen, as the training said; 0 if it said nothing of it."""
        told = self.training.get("configuration")
        share = told.get("holdout", 0) if isinstance(told, Mapping) else 0
        return float(share) if isinstance(share, int | float) and 0 <= share < 1 else 0.0


def save(
    path: str | os.PathLike[str],
    model: TernaryVAE,
    *,
    trained: Iterable[str],
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> Checkpoint:
    """Write a model to a file, atomically: whatever happens, `path` holds the old content or the new.

    Args:
        path: the file, in a folder that exists; its name is `FILE_NAME` wherever tvae chooses it.
        model: one network, not a cohort, with finite float32 weights.
        trained: the components whose weights were learned, a subset of `tvae.model.COMPONENTS`.
        training: JSON values: configuration, seed, start, ….
        metrics: name -> finite number, under the names of `Evaluation.metrics`; `verify` refuses a claim that it cannot
            recompute.

    Returns:
        What was written; its model is the one that was given.

    Raises:
        CheckpointError: if a weight or metric is not finite, something cannot be stored, or the file cannot be written.
    """
    path = Path(os.path.expanduser(path))
    try:
        require_storable(model.architecture)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
        shapes = tensor_shapes(model.architecture)
        _require_one_network(tensors, shapes)
        components = _components(trained, model.architecture)
        fields: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "architecture": model.architecture.to_dict(),
            "trained": list(components),
            "training": _plain(training, "training"),
            "provenance": provenance(),
            "metrics": {name: _finite_number(name, value) for name, value in _mapping(metrics, "metrics").items()},
        }
        digest = _new_digest(fields, shapes)
        for name, tensor in tensors.items():
            require_finite_weights(name, tensor)
            digest.update(_bytes(tensor))
        header = _header(_canonical(fields | {"digest": digest.hexdigest()}), shapes)
        if len(header) > MAX_HEADER_BYTES:
            raise RefusedError(
                f"The header must have at most {MAX_HEADER_BYTES} bytes, got {len(header)}; put less into `training`."
            )
    except RefusedError as refused:
        raise CheckpointError(f"{path} was not written: {refused}") from None
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    try:
        atomic.replace(path, (length, header, *(_bytes(tensor) for tensor in tensors.values())))
    # A path with a NUL in it is a ValueError.
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} was not written: the folder must exist, be writable and have room; "
            f"found: {os_reason(error)}. What stood there before is unchanged."
        ) from error
    return Checkpoint(
        path=path,
        model=model,
        architecture=model.architecture,
        trained=components,
        training=fields["training"],
        provenance=fields["provenance"],
        metrics=fields["metrics"],
        digest=digest.hexdigest(),
    )


def load(path: str | os.PathLike[str]) -> TernaryVAE:
    """Return the model that a checkpoint holds, in evaluation mode, on the CPU.

    Args:
        path: a file that `save` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a checkpoint of this format.
    """
    return read(path).model


@torch_defaults()
def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint: the model is built from the file, and exposed only after every check has passed.

    Args:
        path: a file that `save` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a checkpoint of this format.
    """
    path = Path(os.path.expanduser(path))
    with refusing(path), open_regular(path, MAX_BYTES) as stream:
        return _read(path, stream)


def require_storable(architecture: Architecture) -> None:
    """Refuse an architecture whose checkpoint would be larger than `MAX_BYTES`: before a training, not after it.

    Args:
        architecture: what is to be trained.

    Raises:
        CheckpointError: if a checkpoint could not hold it.
    """
    size = _data_bytes(tensor_shapes(architecture))
    if size + MAX_HEADER_BYTES > MAX_BYTES:
        raise CheckpointError(
            f"The weights of a checkpoint must take at most {MAX_BYTES - MAX_HEADER_BYTES} bytes, got {size} for "
            f"{architecture}; choose smaller widths."
        )


def _read(path: Path, stream: io.BufferedReader) -> Checkpoint:
    size = os.fstat(stream.fileno()).st_size
    header = _read_header(stream, size)
    tensor_table, text = _split(header)
    fields = _parse_fields(text)
    architecture = _architecture(fields["architecture"], fields["format_version"])
    trained = _components(fields["trained"], architecture)
    metrics = {name: _finite_number(name, value) for name, value in _mapping(fields["metrics"], "metrics").items()}
    for name in ("training", "provenance"):
        _mapping(fields[name], name)

    with torch.device("meta"):
        model = TernaryVAE(architecture)
    shapes = _shapes_of(model)
    _require_same_tensors(tensor_table, shapes)
    stated = architecture.to_dict()
    if fields["format_version"] == 1:
        del stated["centred"]
    canonical = _canonical(fields | {"architecture": stated, "trained": list(trained), "metrics": metrics})
    if _header(canonical, shapes) != header:
        raise RefusedError(
            "The header must have the exact bytes that tvae writes for its content; found others: it was edited or "
            "damaged."
        )
    expected = _LENGTH_BYTES + len(header) + _data_bytes(shapes)
    if size != expected:
        raise RefusedError(
            f"The file must have {expected} bytes for its header and architecture, found {size}: "
            f"{'it was cut short' if size < expected else 'something was appended'}."
        )

    stated_digest = fields.pop("digest")
    digest = _new_digest(fields, shapes)
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.empty(shape, dtype=torch.float32, device="cpu")
        buffer = _bytes(tensors[name])
        if stream.readinto(buffer) != len(buffer):
            raise RefusedError(
                f"The file must hold {len(buffer)} bytes for `{name}`; it was cut short while being read."
            )
        digest.update(buffer)
    if digest.hexdigest() != stated_digest:
        raise RefusedError(
            f"The digest must be the stated {quote(stated_digest)}, found {digest.hexdigest()}: "
            "weights or header were changed after saving. Take another copy of the file."
        )
    for name, tensor in tensors.items():
        require_finite_weights(name, tensor)
    model.load_state_dict(tensors, strict=True, assign=True)
    return Checkpoint(
        path=path,
        model=model.eval(),
        architecture=architecture,
        trained=trained,
        training=fields["training"],
        provenance=fields["provenance"],
        metrics=metrics,
        digest=stated_digest,
    )


def _read_header(stream: io.BufferedReader, size: int) -> bytes:
    start = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        if start.startswith((b"PK\x03\x04", b"\x80")):
            raise RefusedError(
                "A checkpoint must be a safetensors file; found a pickle or archive as torch.save writes it, which was "
                "not opened. The entry point `convert` brings in legacy files."
            )
        raise RefusedError(
            f"A safetensors header must fit into the file's {size} bytes and into {MAX_HEADER_BYTES}; "
            f"the file states {length}: it is no safetensors file, or was cut short."
        )
    return stream.read(length)


def _split(header: bytes) -> tuple[dict[str, Any], str]:
    """Return the header's table of tensors, and the text of tvae's own fields."""
    table = _parse_object(header, "The safetensors header")
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or list(metadata) != [_KEY] or not isinstance(metadata[_KEY], str):
        found = sorted(metadata) if isinstance(metadata, dict) else metadata
        raise RefusedError(
            f"A checkpoint's `__metadata__` must have the one key `{_KEY}`, a text; found {quote(found)}: "
            "the file was not written by tvae."
        )
    return table, metadata[_KEY]


def _parse_fields(text: str) -> dict[str, Any]:
    fields = _parse_object(text.encode("utf-8", "surrogatepass"), f"The text of `{_KEY}`")
    version = fields.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise RefusedError(
            f"The format version must be in 1 … {FORMAT_VERSION}, found {quote(version)}; "
            "read the file with the version of tvae that wrote it."
        )
    missing, unknown = sorted(set(_FIELDS) - set(fields)), sorted(set(fields) - set(_FIELDS))
    if missing or unknown:
        raise RefusedError(
            f"The header must have the fields {', '.join(_FIELDS)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {quote(unknown) if unknown else 'none'}."
        )
    return fields


def _parse_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode(), parse_constant=_no_constant)
    # The parser of a hostile text can also run out of recursion.
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{what} must be JSON; found: {quote(str(error))}.") from None
    if not isinstance(value, dict):
        raise RefusedError(f"{what} must be a JSON object; found {type(value).__name__}.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"the number {name}, which JSON does not know")


def _architecture(values: object, version: int) -> Architecture:
    found = dict(_mapping(values, "architecture"))
    try:
        if version == 1 and "centred" in found:
            raise ArchitectureError("`centred`, which format version 1 does not have.")
        return Architecture.from_dict({"centred": False} | found if version == 1 else found)
    except (ArchitectureError, OverflowError) as error:
        raise RefusedError(f"The architecture must be one that can be built; found: {cut(str(error))}") from None


def _components(names: object, architecture: Architecture) -> tuple[str, ...]:
    """Return components in the order of `COMPONENTS`."""
    known = [name for name in COMPONENTS if name != "controller" or architecture.use_controller]
    found = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else None
    if found is None or any(name not in known for name in found) or len(set(found)) < len(found):
        raise RefusedError(
            f"`trained` must name components out of {', '.join(known)}, each once; found {quote(names)}."
        )
    return tuple(name for name in known if name in found)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RefusedError(f"`{name}` must be a mapping from names; found {quote(value)}.")
    return value


def _finite_number(name: object, value: object) -> float:
    try:
        number = float(value) if isinstance(name, str) and isinstance(value, SupportsFloat) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        raise RefusedError(f"Metric {quote(name)} must be a finite number, found {quote(value)}.")
    return number


def _plain(value: object, where: str) -> Any:
    """Return a value as plain JSON, so that what is read back equals what was written."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RefusedError(f"`{where}` must have texts as keys, found {quote(key)}.")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise RefusedError(f"`{where}` must be a JSON value with finite numbers, found {quote(value)}.")


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _header(text: str, shapes: Shapes) -> bytes:
    """Return the safetensors header for tensors that follow each other in the order of their names."""
    table: dict[str, Any] = {"__metadata__": {_KEY: text}}
    start = 0
    for name, shape in shapes.items():
        stop = start + 4 * math.prod(shape)
        table[name] = {"dtype": _DTYPE, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    raw = json.dumps(table, separators=(",", ":")).encode()
    return raw + b" " * (-len(raw) % _LENGTH_BYTES)


def tensor_shapes(architecture: Architecture) -> Shapes:
    """Return the shape of every tensor of one network, in the order in which a checkpoint holds them."""
    with torch.device("meta"):
        return _shapes_of(TernaryVAE(architecture))


def _shapes_of(model: TernaryVAE) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in sorted(model.state_dict().items())}


def _data_bytes(shapes: Shapes) -> int:
    return 4 * sum(map(math.prod, shapes.values()))


def _new_digest(fields: Mapping[str, Any], shapes: Shapes) -> "hashlib._Hash":
    """Start the digest with all fields and the tensors' names, types and shapes; their bytes are to follow."""
    table = [[name, _DTYPE, list(shape)] for name, shape in shapes.items()]
    return hashlib.sha256(_canonical([dict(fields), table]).encode())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.numpy().data.cast("B")


def _require_one_network(tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    for name, shape in shapes.items():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != shape or found.dtype != torch.float32:
            raise RefusedError(
                f"`{name}` must be float32 of shape {shape}, found {_described(found)}; "
                "a checkpoint holds one network in float32, not a cohort."
            )
    if unknown := sorted(set(tensors) - set(shapes)):
        raise RefusedError(f"The model must have the tensors of its architecture only, found also {quote(unknown)}.")


def _described(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _require_same_tensors(table: Mapping[str, Any], shapes: Shapes) -> None:
    missing, unknown = sorted(set(shapes) - set(table)), sorted(set(table) - set(shapes))
    if missing or unknown:
        raise RefusedError(
            "The tensors must be those of the architecture; "
            f"missing: {quote(missing) if missing else 'none'}; unknown: {quote(unknown) if unknown else 'none'}."
        )
    for name, shape in shapes.items():
        entry = table[name] if isinstance(table[name], dict) else {}
        if entry.get("dtype") != _DTYPE or entry.get("shape") != list(shape):
            raise RefusedError(
                f"`{name}` must be {_DTYPE} of shape {list(shape)} for the architecture, found "
                f"{quote(entry.get('dtype'))} of shape {quote(entry.get('shape'))}."
            )
