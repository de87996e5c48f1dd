"""What a pickle says, read without doing any of it.

A pickle is a program: it names functions and calls them. Here nothing that it names is imported or called. Plain values
(numbers, texts, lists, tuples, dicts) become themselves; whatever else the program would build becomes an `Object`, a
note of what was to be called with what. `pickletools` splits the bytes into opcodes; the machine below has a stack and
a memo, and no way to reach anything but what it made itself. It knows what Python 3 writes in the protocols 2 to 5.
"""

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from tvae.checkpoint.refusal import RefusedError, quote

__all__ = ["PERSISTENT", "Object", "described", "fields", "load", "number"]

# torch.save's name for what lies outside the pickle: the arguments of such an object say what.
PERSISTENT = "a persistent id"
# Reading them takes some two seconds. A file of the v5.11 programme has two to seven thousand.
MAX_OPCODES = 500_000
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMPY_KINDS = {"f2", "f4", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
# Under these names, classes of settings keep what they hold: OmegaConf's and pydantic's.
_HOLDERS = ("_content", "__dict__")


@dataclass(slots=True, eq=False, repr=False)
class Object:
    """Something that the pickle would have built.

    Attributes:
        name: of the class or function, with its module.
        arguments: what it was to be called with; None if it was named only.
        state: what it was to be given afterwards.
        items: what was to be stored in it by key.
    """

    name: str
    arguments: object = None
    state: object = None
    items: dict[object, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"


def load(stream: BinaryIO) -> tuple[object, list[object]]:
    """Read one pickle, from where the stream stands to the pickle's end.

    Args:
        stream: in memory, so that no size that the pickle states can pass what is there.

    Returns:
        The plain value or `Object` that it makes, and the persistent ids in it, in order.

    Raises:
        RefusedError: if this is no pickle, or one that is damaged, cut short or too long.
    """
    try:
        return _run(stream)
    # What damaged bytes lead to: an unknown opcode, an empty stack, a memo without entry, a text that is no text, …
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise RefusedError(f"The pickle in the file is damaged or cut short: {quote(str(error))}.") from None


def _run(stream: BinaryIO) -> tuple[object, list[object]]:
    stack: list[object] = []
    marked: list[list[object]] = []
    memo: dict[object, object] = {}
    persistent: list[object] = []

    def since_mark() -> list[object]:
        nonlocal stack
        above, stack = stack, marked.pop()
        return above

    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == MAX_OPCODES:
            raise RefusedError(f"The pickle in the file must have at most {MAX_OPCODES} opcodes; it has more.")
        match opcode.name:
            case name if name in _VALUES:
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE" as name:
                stack.append(name == "NEWTRUE")
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marked.append(stack)
                stack = []
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                members = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(members)))
            case "TUPLE" | "FROZENSET":
                members = since_mark()
                stack.append(tuple(members))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "APPEND":
                member = stack.pop()
                _extend(stack[-1], [member])
            case "APPENDS" | "ADDITEMS":
                members = since_mark()
                _extend(stack[-1], members)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                _store(stack[-1], [key, item])
            case "SETITEMS":
                pairs = since_mark()
                _store(stack[-1], pairs)
            case "GLOBAL":
                stack.append(Object(str(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                stack.append(Object(f"{module}.{last}" if isinstance(module, str) and isinstance(last, str) else "?"))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(Object(_name(called), arguments))
            case "NEWOBJ_EX":
                _, arguments, called = stack.pop(), stack.pop(), stack.pop()
                stack.append(Object(_name(called), arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(built := stack[-1], Object):
                    built.state = state
            case "BINPERSID":
                persistent.append(stack.pop())
                stack.append(Object(PERSISTENT, persistent[-1]))
            case "POP":
                stack.pop()
            case "POP_MARK":
                since_mark()
            case "STOP":
                return stack.pop(), persistent
            case name if name not in ("PROTO", "FRAME"):
                raise ValueError(f"the opcode {name}")
    raise ValueError("there is no end")


def _name(called: object) -> str:
    """Return how to call what was to be called. The result of a result has no longer name than a result."""
    if not isinstance(called, Object):
        return f"a call of {described(called)}"
    return called.name if called.arguments is None else f"{called.name.removesuffix('(…)')}(…)"


def _store(target: object, pairs: list[object]) -> None:
    items = target.items if isinstance(target, Object) else target
    if not isinstance(items, dict):
        raise TypeError("items for what is no dict")
    for key, item in zip(pairs[::2], pairs[1::2], strict=True):
        # Other keys could take long: nested tuples to hash, or large integers with one hash.
        plain = isinstance(key, str | bytes | float | None) or (isinstance(key, int) and key.bit_length() < 61)
        items[key if plain else Object("a key", key)] = item


def _extend(target: object, members: list[object]) -> None:
    if isinstance(target, list):
        target.extend(members)
    elif not isinstance(target, Object):  # a list or set of some class: nothing that is read here
        raise TypeError("entries for what is no list")


def fields(value: object) -> Mapping[object, object] | None:
    """Return what a dict, or an object with named fields, holds by name; None if it has no names.

    Args:
        value: a dict of any kind: OrderedDict, defaultdict, Namespace, dataclass, OmegaConf, …
    """
    if not isinstance(value, Object):
        return value if isinstance(value, dict) else None
    held = value.items or value.state
    # With slots, the state is a pair: what __dict__ holds, and what the slots hold.
    if isinstance(held, tuple) and len(held) == 2 and isinstance(held[1], dict):
        held = (held[0] if isinstance(held[0], dict) else {}) | held[1]
    if isinstance(held, dict):
        return next((held[name] for name in _HOLDERS if isinstance(held.get(name), dict)), held)
    return None


def number(value: object) -> object:
    """Return the number that a numpy scalar or a wrapper for settings holds; any other value as it is."""
    match value:
        case Object(state={"_val": inner}):  # OmegaConf's
            value = inner
    match value:
        case Object(
            name=name,
            arguments=(Object(arguments=(str(kind), *_), state=(_, ("<" | "|") as order, *_)), raw),
        ) if name in _NUMPY_SCALARS and kind in _NUMPY_KINDS:
            match raw:
                case Object(name="_codecs.encode", arguments=(str(text), *_)):  # as protocol 2 has bytes
                    raw = text.encode("latin-1", "replace")
            if isinstance(raw, bytes) and len(raw) == np.dtype(kind).itemsize:
                return np.frombuffer(raw, f"{order}{kind}").item()
    return value


def described(value: object) -> str:
    """Return a value in words, short whatever it holds."""
    if isinstance(value, Object):
        return f"an object of {quote(value.name)}"
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__}"
    return quote(value)
