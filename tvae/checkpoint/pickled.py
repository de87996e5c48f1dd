"""What a pickle says, read without doing any of it.

A pickle is a program: it names functions and calls them. Here nothing that it names is imported or called. Plain values
(numbers, texts, lists, tuples, dicts) become themselves; whatever else the program would build becomes an `Object`, a
note of what was to be called with what. `pickletools` splits the bytes into opcodes; the machine below has a stack and
a memo, and no way to reach anything but what it made itself.
"""

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from tvae.checkpoint.refusal import RefusedError, quote

__all__ = ["PERSISTENT", "Object", "Pickle", "described", "fields", "load", "scalar"]

# torch.save's name for what lies outside the pickle: the arguments of such an object say what.
PERSISTENT = "a persistent id"
# Reading them takes some two seconds. A file of the v5.11 programme has two to seven thousand.
MAX_OPCODES = 500_000
_ITSELF = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LISTS = {"EMPTY_LIST", "EMPTY_SET"}
# Under these names, classes of settings keep what they hold: OmegaConf, pydantic, ml_collections, UserDict.
_HOLDERS = ("_content", "__dict__", "_fields", "data")
_SCALAR_HOLDER = "_val"
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "argparse.Namespace", "types.SimpleNamespace")


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


@dataclass(frozen=True, slots=True, eq=False)
class Pickle:
    """One pickle.

    Attributes:
        value: the plain value or `Object` that it makes.
        persistent: the persistent ids in it, in order.
    """

    value: object
    persistent: list[object]


def load(stream: BinaryIO) -> Pickle:
    """Read one pickle, from where the stream stands to the pickle's end.

    Args:
        stream: in memory, so that no size that the pickle states can pass what is there.

    Raises:
        RefusedError: if this is no pickle, or one that is damaged, cut short or too long.
    """
    try:
        return _run(stream)
    # What damaged bytes lead to: an unknown opcode, an empty stack, a memo without entry, a text that is no text, …
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise RefusedError(f"The pickle in the file is damaged or cut short: {quote(str(error))}.") from None


def _run(stream: BinaryIO) -> Pickle:
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
        name = opcode.name
        if name in _ITSELF:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _TUPLES:
            start = len(stack) - _TUPLES[name]
            if start < 0:
                raise IndexError("the stack is empty")
            stack[start:] = [tuple(stack[start:])]
        elif name in ("TUPLE", "FROZENSET"):
            made = since_mark()
            stack.append(tuple(made))
        elif name in _LISTS:
            stack.append([])
        elif name == "LIST":
            made = since_mark()
            stack.append(made)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "DICT":
            pairs = since_mark()
            stack.append({})
            _store(stack[-1], pairs)
        elif name == "SETITEM":
            item, key = stack.pop(), stack.pop()
            _store(stack[-1], [key, item])
        elif name == "SETITEMS":
            pairs = since_mark()
            _store(stack[-1], pairs)
        elif name == "APPEND":
            item = stack.pop()
            _extend(stack[-1], [item])
        elif name in ("APPENDS", "ADDITEMS"):
            more = since_mark()
            _extend(stack[-1], more)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                last, first = stack.pop(), stack.pop()
                argument = f"{first} {last}" if isinstance(first, str) and isinstance(last, str) else "?"
            stack.append(Object(str(argument).replace(" ", ".", 1)))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(Object(f"extension {argument}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(Object(_name(called), arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, called = stack.pop(), stack.pop(), stack.pop()
            stack.append(Object(_name(called), arguments))
        elif name == "OBJ":
            called, *rest = since_mark()
            stack.append(Object(_name(called), tuple(rest)))
        elif name == "INST":
            rest = since_mark()
            stack.append(Object(str(argument).replace(" ", ".", 1), tuple(rest)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(built := stack[-1], Object):
                built.state = state
        elif name in ("PERSID", "BINPERSID"):
            identity = argument if name == "PERSID" else stack.pop()
            persistent.append(identity)
            stack.append(Object(PERSISTENT, identity))
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                stack = marked.pop()
        elif name == "POP_MARK":
            since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "STOP":
            return Pickle(stack.pop(), persistent)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the opcode {name}")
    raise ValueError("there is no end")


def _name(called: object) -> str:
    """Return how to call what was to be called."""
    if not isinstance(called, Object):
        return f"a call of {described(called)}"
    if called.name == PERSISTENT and isinstance(called.arguments, tuple) and len(called.arguments) > 1:
        return _name(called.arguments[1])  # the class of a module, which torch.save once stored with its source
    return called.name if called.arguments is None else f"{called.name}(…)"


def _store(target: object, pairs: list[object]) -> None:
    items = target.items if isinstance(target, Object) else target
    if not isinstance(items, dict):
        raise TypeError("items for what is no dict")
    for key, item in zip(pairs[::2], pairs[1::2], strict=True):
        # Other keys could take long: nested tuples to hash, or large integers with one hash.
        plain = isinstance(key, str | bytes | float | None) or (isinstance(key, int) and key.bit_length() < 61)
        items[key if plain else Object("a key", key)] = item


def _extend(target: object, more: list[object]) -> None:
    if isinstance(target, list):
        target.extend(more)
    elif not isinstance(target, Object):  # a list or set of some class: nothing that is read here
        raise TypeError("entries for what is no list")


def fields(value: object) -> Mapping[object, object] | None:
    """Return what a dict, or an object with named fields, holds by name; None if it has no names.

    Args:
        value: a dict in any dress: OrderedDict, defaultdict, Namespace, dataclass, OmegaConf, …
    """
    if not isinstance(value, Object):
        return value if isinstance(value, dict) else None
    state = value.state
    # With slots, the state is a pair: what __dict__ holds, and what the slots hold.
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = (state[0] if isinstance(state[0], dict) else {}) | state[1]
    held = value.items or state
    if isinstance(held, dict):
        return next((held[name] for name in _HOLDERS if isinstance(held.get(name), dict)), held)
    return {} if value.name in _DICTS else None


def scalar(value: object) -> object:
    """Return the number in a wrapper for one (OmegaConf's), or the value itself."""
    if isinstance(value, Object) and isinstance(value.state, dict) and _SCALAR_HOLDER in value.state:
        return value.state[_SCALAR_HOLDER]
    return value


def described(value: object) -> str:
    """Return a value in words, short whatever it holds."""
    if isinstance(value, Object):
        return f"an object of {quote(value.name)}"
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__}"
    return quote(value)
