"""What a legacy file says of its settings, and which `curvature` and `max_radius` count."""

import math
from collections.abc import Mapping

from tvae.checkpoint.pickled import Object, described, fields, number
from tvae.checkpoint.refusal import RefusedError, quote
from tvae.checkpoint.torch_file import TorchFile

__all__ = ["Statements", "disagreements", "for_json", "settled", "statements"]

Statements = Mapping[str, Mapping[str, object]]
"""Name of a setting -> place in the file -> what it states there."""

# Where the scripts of that time put settings: in any of these, at the top or within each other.
_SETTINGS_IN = (
    *("config", "cfg", "args", "hparams", "hyper_parameters", "model_config", "model_args", "model_kwargs"),
    *("settings", "params", "model", "architecture", "projection"),
)
_DEPTH = 3
_NAMES = {
    "curvature": "curvature",
    "max_radius": "max_radius",
    "latent_dim": "latent_dim",
    "hidden_dim": "hidden_dim",
    "projection_layers": "projection_layers",
    "n_projection_layers": "projection_layers",
    "use_controller": "use_controller",
    "dual_projection": "dual_projection",
    "use_dual_projection": "dual_projection",
}
_ADVICE = {
    "max_radius": (
        "Pass max_radius=0.95 (the old programme's default) or max_radius=0.99 (what many of its scripts used), "
        "whichever the script that trained it used: every norm is proportional to it."
    ),
    "curvature": (
        "Pass curvature=1 or curvature=2, whichever its script used; it took no part in the embedding, and says in "
        "which ball the points are read."
    ),
}
# A number that was stored as float32 and one that is typed are the same to this.
_SAME = 1e-6


def statements(file: TorchFile) -> Statements:
    """Return everything that a file states of each setting; None states nothing."""
    stated: dict[str, dict[str, object]] = {name: {} for name in _NAMES.values()}

    def look(value: object, above: str, depth: int) -> None:
        mapping = fields(value)
        if mapping is None:
            return
        for key, name in _NAMES.items():
            if (found := _plain(file, mapping.get(key))) is not None:
                stated[name][f"{above}{key}"] = found
        for key in _SETTINGS_IN if depth else ():
            look(mapping.get(key), f"{above}{key}.", depth - 1)

    look(file.value, "", _DEPTH)
    return stated


def _plain(file: TorchFile, value: object) -> object:
    """Return the number in a numpy scalar, a wrapper or a tensor of one value; else the value itself."""
    tensor = file.tensor("a setting", value) if isinstance(value, Object) else None
    return tensor.item() if tensor is not None and tensor.numel() == 1 else number(value)


def settled(
    stated: Statements, given: Mapping[str, float | None], override: bool, isp_c: float | None
) -> tuple[float, float]:
    """Return the `curvature` and the `max_radius` that count.

    Args:
        stated: what the file states.
        given: what whoever converts it says of the two, None for nothing.
        override: what is given counts, even where the file states something else.
        isp_c: the curvature that the tensors store; it is named, and does not count.

    Raises:
        RefusedError: all that is wrong with either.
    """
    values, problems = [], []
    for name, choice in given.items():
        places = stated[name]
        try:
            values.append(_stated(name, places) if choice is None else _given(name, choice, places, override))
        except RefusedError as problem:
            problems.append(str(problem))
            if name == "curvature" and choice is None and not places and isp_c is not None:
                problems.append(f"The tensor `isp_c` stores {isp_c:.5g}.")
    if problems:
        raise RefusedError(" ".join(problems))
    curvature, max_radius = values
    return curvature, max_radius


def _stated(name: str, places: Mapping[str, object]) -> float:
    if not places:
        raise RefusedError(f"The file does not state `{name}`. {_ADVICE[name]}")
    values = [_positive(value) for value in places.values()]
    if None in values:
        raise RefusedError(
            f"The file's `{name}` must be a positive number, found {_listed(places)}. {_ADVICE[name]} Add "
            "override=true."
        )
    first = values[0]
    assert first is not None
    if not _agree(places, first):
        raise RefusedError(
            f"The file must state one `{name}`, found {_listed(places)}. Pass {name}={first:g}, or the other, with "
            "override=true."
        )
    return first


def _given(name: str, choice: float, places: Mapping[str, object], override: bool) -> float:
    chosen = _positive(choice)
    if chosen is None:
        raise RefusedError(f"`{name}` must be a positive number, got {quote(choice)}.")
    if not override and not _agree(places, chosen):
        raise RefusedError(
            f"`{name}` was given as {choice:g}, and the file states {_listed(places)}. Leave it at auto to take the "
            "file's, or pass override=true to make yours count."
        )
    return chosen


def disagreements(stated: Statements, given: Mapping[str, float | None], read_off: Mapping[str, object]) -> list[str]:
    """Return a sentence for each setting that is not as the file states it.

    Args:
        stated: what the file states.
        given: what counts of `curvature` and `max_radius`, None where the file's does.
        read_off: what the tensors say.
    """
    notes = []
    for name, choice in given.items():
        if choice is not None and not stated[name]:
            notes.append(f"The file does not state `{name}`; {choice:g} was given.")
        elif choice is not None and not _agree(stated[name], choice):
            notes.append(f"The file states `{name}` {_listed(stated[name])}; {choice:g} was given, and was to count.")
    return notes + [
        f"`{place}` is {described(value)} in the file, {read_off[name]} in the tensors; the tensors hold."
        for name, places in stated.items()
        if name in read_off
        for place, value in places.items()
        if type(value) is not type(read_off[name]) or value != read_off[name]
    ]


def for_json(value: object) -> object:
    """Return a value that JSON has: a number of the usual size as it is, anything else in words."""
    finite = isinstance(value, float) and math.isfinite(value)
    return value if finite or (isinstance(value, int) and value.bit_length() < 64) else described(value)


def _listed(places: Mapping[str, object]) -> str:
    return " and ".join(
        f"{f'{value:g}' if isinstance(value, float) else described(value)} (`{place}`)"
        for place, value in places.items()
    )


def _agree(places: Mapping[str, object], value: float) -> bool:
    found = map(_positive, places.values())
    return all(one is not None and math.isclose(one, value, rel_tol=_SAME) for one in found)


def _positive(value: object) -> float | None:
    """Return a positive number as a float, None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if 0 < float(value) < math.inf else None
    except OverflowError:
        return None
