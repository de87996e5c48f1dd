"""Checkpoints taken apart and put together without tvae: the format as its documentation states it."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Edit = Callable[[dict[str, Any], dict[str, Any]], None]


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def split(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return tvae's fields, the table of tensors, and the tensors' bytes."""
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    return json.loads(table.pop("__metadata__")["tvae"]), table, content[8 + length :]


def join(fields: dict[str, Any], table: dict[str, Any], data: bytes) -> bytes:
    """Return the file's bytes for fields, table and data as they are."""
    whole = {"__metadata__": {"tvae": canonical(fields)}} | table
    header = json.dumps(whole, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def forged(content: bytes, edit: Edit) -> bytes:
    """Return the file with edited fields and table, under a digest that is right for them."""
    fields, table, data = split(content)
    edit(fields, table)
    del fields["digest"]
    listed = [[name, entry["dtype"], entry["shape"]] for name, entry in table.items()]
    fields["digest"] = hashlib.sha256(canonical([fields, listed]).encode() + data).hexdigest()
    return join(fields, table, data)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def mutations(content: bytes, other: bytes, pickled: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged, mixed up and edited versions of a file, without end.

    `other` is valid and of the same architecture, `pickled` what torch.save makes of the same weights.
    """
    rng = random.Random(seed)
    makers = (_flip, _flip_in_header, _cut, _append, _swap, _edit, _graft, _pad, _overwrite, _reorder)
    yield "pickle", pickled
    while True:
        maker = rng.choice(makers)
        mutated = maker(content, other, rng)
        if mutated not in (content, other):
            yield maker.__name__.strip("_"), mutated


def _flip(content: bytes, other: bytes, rng: random.Random, stop: int | None = None) -> bytes:
    flipped = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        flipped[rng.randrange(stop or len(content))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _flip_in_header(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return _flip(content, other, rng, 8 + int.from_bytes(content[:8], "little"))


def _cut(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice((rng.randrange(len(content)), rng.randrange(16), len(content) - 1))]


def _append(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content + rng.choice((rng.randbytes(rng.randrange(1, 64)), bytes(8), content))


def _swap(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Two tensors change places, in the data or in the table, of the same size where there are two."""
    fields, table, data = split(content)
    first = rng.choice(list(table))
    alike = [name for name in table if name != first and table[name]["shape"] == table[first]["shape"]]
    second = rng.choice(alike or [name for name in table if name != first])
    if alike and rng.random() < 0.5:
        (a, b), (c, d) = table[first]["data_offsets"], table[second]["data_offsets"]
        swapped = bytearray(data)
        swapped[a:b], swapped[c:d] = data[c:d], data[a:b]
        return join(fields, table, bytes(swapped))
    table[first], table[second] = table[second], table[first]
    return join(fields, table, data)


def _edit(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One value somewhere in fields or table becomes another."""

    fields, table, data = split(content)
    values = (0, 1, -1, 2.5, 10**30, True, False, None, "", "F16", [], {}, [4096] * 16)
    node: Any = rng.choice((fields, fields, table))
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.9:
            node = node[key]
            continue
        if isinstance(node, dict) and rng.random() < 0.2:
            del node[key]
        else:
            node[key] = rng.choice([value for value in values if value != node[key]])
        return join(fields, table, data)


def _graft(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One tensor, all of them, or the header comes from the other file."""
    fields, table, data = split(content)
    other_fields, _, other_data = split(other)
    start, stop = table[rng.choice(list(table))]["data_offsets"]
    if data[start:stop] != other_data[start:stop] and rng.random() < 0.5:
        return join(fields, table, data[:start] + other_data[start:stop] + data[stop:])
    return join(*rng.choice(((fields, table, other_data), (other_fields, table, data))))


def _pad(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The header says the same with more white space."""
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length]
    at = rng.choice([i for i, byte in enumerate(header) if byte in b",:{}"][:200])
    spaces = 8 * rng.randrange(1, 4)
    padded = header[:at] + b" " * spaces + header[at:]
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def _overwrite(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.randrange(1, 4096))
    return content[:start] + rng.choice((bytes(stop - start), rng.randbytes(stop - start))) + content[stop:]


def _reorder(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The table lists its tensors in another order."""
    fields, table, data = split(content)
    names = list(table)
    rng.shuffle(names)
    return join(fields, {name: table[name] for name in names}, data)
