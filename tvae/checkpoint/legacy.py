"""Bringing in checkpoints of the v5.11 programme, which were written with `torch.save`.

A legacy file holds one or two branches, A and B, with an encoder each, one decoder, and a projection that the branches
share (single) or have each (dual). One branch becomes one model. What its tensors say of the architecture holds; what
the file's settings say of it is compared and reported; its metrics are computed again.

Two settings cannot be read off the tensors, `curvature` and `max_radius`. They come from the file or from whoever
converts it, and are never guessed: a wrong `max_radius` scales every norm, and nothing in the result would show it.

The legacy embedding is direction·max_radius·radius_net(latent) whatever the curvature c: its `max_radius` is a
Euclidean norm. Ours is direction·max_radius·radius_net(latent)/sqrt(c), with `max_radius` a unit norm. So a legacy file
becomes a model with sqrt(c) times its `max_radius`, and every point keeps its coordinates, as long as that stays below
1.
"""

import bisect
import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tvae.checkpoint.file import MAX_BYTES, require_storable, save, tensor_shapes
from tvae.checkpoint.pickled import Object, described, fields
from tvae.checkpoint.refusal import RefusedError, cut, open_regular, quote, refusing, require_finite
from tvae.checkpoint.torch_file import (
    InTheWayError,
    StoredTensor,
    TorchFile,
    number,
    open_torch_file,
)
from tvae.config.architecture import Architecture
from tvae.errors import ArchitectureError, EvaluationError
from tvae.metrics import evaluate
from tvae.model import COMPONENTS, TernaryVAE

__all__ = ["BRANCHES", "Conversion", "convert"]

BRANCHES = ("A", "B")

# Where the scripts of that time put weights, and settings: in any of the latter, at the top or within each other.
_WEIGHTS = ("model_state_dict", "model_state", "model", "state_dict")
_SETTINGS_IN = (
    *("config", "cfg", "args", "hparams", "hyper_parameters", "model_config", "model_args", "model_kwargs"),
    *("settings", "params", "model", "architecture", "projection"),
)
_SETTINGS_DEPTH = 3
_SETTINGS = {
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
# `DataParallel` and `torch.compile` put these into names.
_WRAPPED = ("module", "_orig_mod")
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_KNOWN = re.compile(
    r"(encoder_[AB]\.(encoder\.\d{1,4}|fc_mu|fc_logvar)|decoder_A\.decoder\.\d{1,4}|controller\.net\.\d{1,4}"
    r"|projection\.(proj_[AB]\.)?(direction_net|radius_net)\.\d{1,4}|projection\.proj_B_radius\.\d{1,4})\.(weight|bias)"
    r"|projection\.(proj_[AB]\.)?manifold\.isp_c"
)
_NORMALISED = re.compile(r"(encoder_[AB]\.encoder|decoder_A\.decoder)\.\d{1,4}\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """One branch of a legacy file as a model of ours.

    Attributes:
        model: in evaluation mode.
        trained: the components that the file had; the legacy programme learned all of them.
        training: where the model comes from, for the checkpoint's header: what the file states, what was given, and
            what was read off the tensors.
        metrics: computed from the model.
        notes: what the file said of itself and was not so, and what it did not say; one sentence each.
    """

    model: TernaryVAE
    trained: tuple[str, ...]
    training: Mapping[str, Any]
    metrics: Mapping[str, float]
    notes: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a checkpoint.

        Args:
            path: the file to write.

        Raises:
            CheckpointError: if it cannot be written.
        """
        save(path, self.model, trained=self.trained, training=self.training, metrics=self.metrics)


def convert(
    path: str | os.PathLike[str],
    branch: str,
    *,
    curvature: float | None = None,
    max_radius: float | None = None,
    override: bool = False,
) -> Conversion:
    """Read one branch of a legacy file. Nothing is executed and nothing is written.

    Args:
        path: a file of the v5.11 programme.
        branch: `A` or `B`.
        curvature: c > 0 of the ball in which the points are read, for a file that does not state it; None takes the
            file's. Whatever it is, the points keep their coordinates.
        max_radius: largest Euclidean norm of a point, > 0, for a file that does not state it; None takes the file's.
        override: what is given counts, even where the file states something else.

    Returns:
        The model, its metrics, and notes on what was found.

    Raises:
        CheckpointError: if the file is not a legacy checkpoint, is damaged, states neither or something else than was
            given, or has points outside its ball.
    """
    path = Path(os.path.expanduser(path))
    with refusing(path):
        if branch not in BRANCHES:
            raise RefusedError(f"`branch` must be A or B, found {quote(branch)}.")
        with open_regular(path, MAX_BYTES) as stream:
            content = stream.read(MAX_BYTES)
        try:
            return _convert(path, content, branch, {"curvature": curvature, "max_radius": max_radius}, override)
        except InTheWayError as error:
            raise RefusedError(f"{error} {_anew(path, error)}") from None


def _convert(path: Path, content: bytes, branch: str, given: Mapping[str, float | None], override: bool) -> Conversion:
    file = open_torch_file(content)
    where, found = _find_weights(file.value)
    tensors = _tensors(file, found, where)
    stated = _statements(file)
    layout = _Layout(branch, tensors)
    isp_c = _isp_c(file, tensors, layout)
    notes: list[str] = []
    curvature, max_radius = _settled(file.value, stated, given, override, isp_c, notes)
    architecture = _architecture(tensors, layout, curvature, max_radius, contradicts=_contradicts(stated, 1.0))
    read_off = {
        "n_trits": architecture.n_trits,
        "latent_dim": architecture.latent_dim,
        "encoder_hidden": architecture.encoder_hidden,
        "decoder_hidden": architecture.decoder_hidden,
        "hidden_dim": architecture.hidden_dim,
        "projection_layers": architecture.n_projection_layers,
        "use_controller": architecture.use_controller,
        "dual_projection": layout.dual,
        "isp_c": isp_c,
    }
    notes += _disagreements(stated, read_off)
    if isp_c is not None and not math.isclose(isp_c, curvature, rel_tol=1e-4):
        notes.append(
            f"The tensor `isp_c` stores the curvature {isp_c:.5g}, which takes no part in the embedding; {curvature:g} "
            "was taken."
        )
    if branch == "B":
        notes.append("The file has no decoder for branch B; decoder A was taken, as the legacy programme did.")
    if isinstance(file.value, dict) and fields(file.value.get("metrics")):
        notes.append("The file's own metrics were not used; they were recomputed.")

    with torch.device("meta"):
        model = TernaryVAE(architecture)
    model.load_state_dict(_weights(file, tensors, layout, architecture, notes), strict=True, assign=True)
    model.eval()
    try:
        metrics = evaluate(model).metrics()
    except EvaluationError as error:
        raise RefusedError(str(error)) from None
    return Conversion(
        model=model,
        trained=tuple(name for name in COMPONENTS if getattr(model, name) is not None),
        training={
            "start": "legacy",
            "legacy_file": path.name,
            "legacy_sha256": hashlib.sha256(content).hexdigest(),
            "legacy_branch": branch,
            "legacy_weights": where,
            "legacy_stated": {place: _shown(value) for places in stated.values() for place, value in places.items()},
            "legacy_given": {name: "auto" if value is None else value for name, value in given.items()}
            | {"override": override},
            "legacy_read_off_tensors": read_off,
            "notes": notes,
        },
        metrics=metrics,
        notes=tuple(notes),
    )


def _anew(path: Path, error: InTheWayError) -> str:
    """Return how to save a file again that only the old programme can open."""
    source, target = repr(str(path)), repr(str(path.with_suffix(".resaved.pt")))
    load = f"import torch; file = torch.load({source}, map_location='cpu', weights_only=False)"
    if error.plain:
        load = f"import pathlib, pickle, torch; file = pickle.loads(pathlib.Path({source}).read_bytes())"
    return (
        "These two lines save the file again, where the old programme can be imported. The first runs what the file "
        "names: use it only if you know where the file comes from.\n"
        f"  {load}\n"
        f"  torch.save({{'model_state_dict': {error.weights}}}, {target})\n"
        "Then convert that, with curvature and max_radius as its script had them."
    )


# Weights


def _find_weights(value: object) -> tuple[str, Mapping[object, object]]:
    """Return where the file has its weights, and them."""
    if _is_module(value):
        raise InTheWayError(
            f"The file must hold a dict with weights; it is a pickled whole module, {described(value)}.",
            "file.state_dict()",
        )
    top = fields(value)
    if top is None:
        refused = InTheWayError if isinstance(value, Object) else RefusedError
        raise refused(f"A legacy checkpoint must be a dict, found {described(value)}.")
    in_the_way: list[InTheWayError] = []
    found = list(_containers(top, "", in_the_way))
    if not found and in_the_way:
        raise in_the_way[0]
    if not found and (bare := {name: inner for name, inner in top.items() if _is_tensor(inner)}):
        return "", bare
    if not found:
        listed = ", ".join(f"`{name}`" for name in _WEIGHTS)
        raise RefusedError(
            f"A legacy checkpoint must hold its weights under one of {listed}, or be a dict of weights itself; "
            f"found the keys {_listed(map(str, top))}."
        )
    if len({id(mapping) for _, mapping in found}) > 1:
        places = " and ".join(f"`{place}`" for place, _ in found)
        raise InTheWayError(
            f"A legacy checkpoint must hold one set of weights; found {places}, and nothing says which counts.",
            _expression(found[0][0]),
        )
    return found[0]


def _containers(
    mapping: Mapping[object, object], above: str, in_the_way: list[InTheWayError]
) -> Iterator[tuple[str, Mapping[object, object]]]:
    for name in _WEIGHTS:
        value, place = mapping.get(name), f"{above}{name}"
        inner = fields(value)
        if _is_module(value):
            in_the_way.append(
                InTheWayError(
                    f"`{place}` must be a dict of weights; it is a pickled whole module, {described(value)}.",
                    f"{_expression(place)}.state_dict()",
                )
            )
        elif inner is None and isinstance(value, Object):
            in_the_way.append(InTheWayError(f"`{place}` must be a dict of weights, found {described(value)}."))
        elif inner is not None and any(map(_is_tensor, inner.values())):
            yield place, inner
        elif inner is not None and not above:
            yield from _containers(inner, f"{place}.", in_the_way)


def _expression(place: str) -> str:
    return "file" + "".join(f"['{name}']" for name in place.split(".") if name)


def _is_module(value: object) -> bool:
    state = value.state if isinstance(value, Object) else None
    return isinstance(state, dict) and "_modules" in state and "_parameters" in state


def _is_tensor(value: object) -> bool:
    return isinstance(value, Object) and value.name.startswith(("torch._utils._rebuild_", "torch._tensor."))


def _tensors(file: TorchFile, found: Mapping[object, object], where: str) -> dict[str, StoredTensor]:
    """Return the tensors by their names in the v5.11 layout."""
    names = {name: _unwrapped(name) for name in found if isinstance(name, str)}
    unwrapped = set(names.values())
    if not any(name.startswith("projection.") for name in unwrapped):
        raise RefusedError(
            "The file must have the layout of v5.11, with a hyperbolic projection; it has no projection: it is of v5.5 "
            "to v5.10, another layout that is not supported, or not whole. Its tensors' names begin with "
            f"{quote(_beginnings(unwrapped))}."
        )
    unknown = [str(name) for name in found if not (isinstance(name, str) and _KNOWN.fullmatch(names[name]))]
    if unknown:
        raise RefusedError(f"The file must have the tensors of the v5.11 layout only, found also {_listed(unknown)}.")
    if len(unwrapped) < len(names):
        raise RefusedError("Every tensor must be there once; without `module.` and `_orig_mod.`, names are the same.")
    tensors = {}
    for name, unwrapped_name in names.items():
        tensor = file.tensor(name, found[name])
        if tensor is None:
            raise InTheWayError(f"`{name}` must be a tensor, found {described(found[name])}.", _expression(where))
        if tensor.dtype not in _FLOATS:
            raise RefusedError(f"`{name}` must be of a floating-point type, found {tensor.dtype}.")
        if len(tensor.shape) == 1 and _NORMALISED.fullmatch(unwrapped_name):
            raise RefusedError(
                f"The encoder and decoder must be Linear and ReLU, as in v5.11; `{name}` is of a normalisation, as in "
                "the encoders with LayerNorm and SiLU of v5.12.4. That layout is not supported."
            )
        tensors[unwrapped_name] = tensor
    return tensors


def _beginnings(names: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})[:20]


def _listed(names: Iterable[str]) -> str:
    return quote(sorted(names)[:50])


def _unwrapped(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPED]
    return ".".join(parts[1:] if parts[:1] == ["model"] else parts)


# Settings


def _statements(file: TorchFile) -> dict[str, dict[str, object]]:
    """Return what the file states of each setting: name -> place -> value. None states nothing."""
    stated: dict[str, dict[str, object]] = {name: {} for name in _SETTINGS.values()}

    def look(value: object, above: str, depth: int) -> None:
        mapping = fields(value) or {}
        for key, name in _SETTINGS.items():
            if (found := _plain(file, mapping.get(key))) is not None:
                stated[name][f"{above}{key}"] = found
        for key in _SETTINGS_IN if depth else ():
            look(mapping.get(key), f"{above}{key}.", depth - 1)

    look(file.value, "", _SETTINGS_DEPTH)
    return stated


def _plain(file: TorchFile, value: object) -> object:
    """Return the number in a numpy scalar, a wrapper or a tensor of one value; else the value itself."""
    tensor = file.tensor("a setting", value) if isinstance(value, Object) else None
    if tensor is not None and math.prod(tensor.shape) == 1:
        return file.read(tensor).item()
    return number(value)


def _settled(
    value: object,
    stated: Mapping[str, Mapping[str, object]],
    given: Mapping[str, float | None],
    override: bool,
    isp_c: float | None,
    notes: list[str],
) -> tuple[float, float]:
    """Return curvature and max_radius; all that is wrong with either is said at once."""
    settled, problems = [], []
    for name, choice in given.items():
        try:
            settled.append(_one(name, choice, stated[name], override, notes))
        except RefusedError as problem:
            hint = _elsewhere(value, name) if not stated[name] else ""
            if name == "curvature" and not stated[name] and isp_c is not None:
                hint += f" The tensor `isp_c` stores {isp_c:.5g}."
            problems.append(f"{problem}{hint}")
    if problems:
        raise RefusedError(" ".join(problems))
    curvature, max_radius = settled
    return curvature, max_radius


def _one(name: str, given: float | None, stated: Mapping[str, object], override: bool, notes: list[str]) -> float:
    places = " and ".join(f"{_said(value)} (`{place}`)" for place, value in stated.items())
    if given is None:
        if not stated:
            raise RefusedError(f"The file does not state `{name}`. {_ADVICE[name]}")
        first = _positive(next(iter(stated.values())))
        if first is None or any(_positive(value) is None for value in stated.values()):
            raise RefusedError(
                f"The file's `{name}` must be a positive number, found {places}. {_ADVICE[name]} Add override=true."
            )
        if any(not _same(value, first) for value in stated.values()):
            raise RefusedError(
                f"The file must state one `{name}`, found {places}. Pass {name}={first:g}, or the other, with "
                "override=true."
            )
        return first
    if (chosen := _positive(given)) is None:
        raise RefusedError(f"`{name}` must be a positive number, got {quote(given)}.")
    if not stated:
        notes.append(f"The file does not state `{name}`; {given:g} was given.")
    elif any(not _same(value, chosen) for value in stated.values()):
        if not override:
            raise RefusedError(
                f"`{name}` was given as {given:g}, and the file states {places}. Leave it at auto to take the file's, "
                f"or pass override=true to make yours count."
            )
        notes.append(f"The file states `{name}` {places}; {given:g} was given, and was to count.")
    return chosen


def _contradicts(stated: Mapping[str, Mapping[str, object]], curvature: float) -> bool:
    return any(not _same(value, curvature) for value in stated["curvature"].values())


def _elsewhere(value: object, name: str) -> str:
    """Return a sentence on settings that were not read, or on what has this name and is a setting of something else."""
    top = fields(value) or {}
    for place in _SETTINGS_IN:
        found = top.get(place)
        if isinstance(found, Object) and fields(found) is None:
            return f" Its `{place}` is {described(found)} without named fields, which was not read."
    queue, seen = [("", value)], {id(value)}
    for above, mapping in queue:
        for key, inner in (fields(mapping) or {}).items():
            if key == name and above and number(inner) is not None:
                return f" (`{above}{name}` is {_said(number(inner))}, but that is a setting of something else.)"
            if isinstance(key, str) and key not in _WEIGHTS and id(inner) not in seen and len(queue) < 1000:
                seen.add(id(inner))
                if fields(inner):
                    queue.append((f"{above}{cut(key)}.", inner))
    return ""


def _isp_c(file: TorchFile, tensors: Mapping[str, StoredTensor], layout: "_Layout") -> float | None:
    """Return the curvature that the projection's own tensor stores, with the digits that float32 keeps."""
    name = f"{layout.projection}manifold.isp_c"
    if name not in tensors:
        return None
    if math.prod(tensors[name].shape) != 1:
        raise RefusedError(f"`isp_c` must be one number, found shape {list(tensors[name].shape)}.")
    stored = float(torch.nn.functional.softplus(file.read(tensors[name]).double()))
    return float(f"{stored:.5g}") if math.isfinite(stored) else None


def _positive(value: object) -> float | None:
    """Return a positive number as a float, None for anything else."""
    try:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        found = math.inf
    return found if 0 < found < math.inf else None


def _same(value: object, other: float) -> bool:
    found = _positive(value)
    return found is not None and math.isclose(found, other, rel_tol=_SAME)


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else described(value)


def _shown(value: object) -> object:
    """Return a value that JSON has, for the header."""
    finite = isinstance(value, float) and math.isfinite(value)
    return value if finite or (isinstance(value, int) and value.bit_length() < 64) else described(value)


def _disagreements(stated: Mapping[str, Mapping[str, object]], read_off: Mapping[str, object]) -> list[str]:
    return [
        f"`{place}` is {described(value)} in the file, {read_off[name]} in the tensors; the tensors hold."
        for name, places in stated.items()
        if name in read_off
        for place, value in places.items()
        if type(value) is not type(read_off[name]) or value != read_off[name]
    ]


# Layout


class _Layout:
    """Where one branch has its tensors in a legacy file.

    The layers of a Sequential are counted, and dropout layers count too: a layer is found by its rank, not its number.

    Args:
        branch: `A` or `B`.
        tensors: all of the file.
    """

    def __init__(self, branch: str, tensors: Mapping[str, StoredTensor]) -> None:
        self.branch = branch
        self.dual = any(name.startswith("projection.proj_") for name in tensors)
        self.projection = f"projection.proj_{branch}." if self.dual else "projection."
        shared = branch == "B" and any(name.startswith("projection.proj_B_radius.") for name in tensors)
        direction = "projection.proj_A." if shared else self.projection
        radius = "projection.proj_B_radius." if shared else f"{self.projection}radius_net."
        plain, normalised = (2, 3), (3, 4)
        # Ours, theirs, the numbers of our linear layers, and by how much theirs may grow: one more with a dropout.
        stacks: tuple[tuple[str, str, Sequence[int], tuple[int, int]], ...] = (
            ("encoder.hidden.", f"encoder_{branch}.encoder.", range(0, 100, 2), plain),
            ("decoder.layers.", "decoder_A.decoder.", range(0, 100, 2), plain),
            ("projection.direction_net.", f"{direction}direction_net.", range(0, 100, 3), normalised),
            ("projection.radius_net.", radius, range(0, 100, 2), plain),
            ("controller.net.", "controller.net.", (0, 3, 5), (2, 4)),
        )
        self._heads = (
            ("encoder.mean.", f"encoder_{branch}.fc_mu."),
            ("encoder.log_variance.", f"encoder_{branch}.fc_logvar."),
        )
        self._stacks = {}
        self.widths: dict[str, list[int]] = {}
        for ours, theirs, numbers, steps in stacks:
            linear = _linear(tensors, theirs, steps, optional=ours == "controller.net.")
            self._stacks[ours] = (theirs, numbers, [n for n, _ in linear])
            if linear:
                self.widths[ours] = [linear[0][1].shape[1], *(tensor.shape[0] for _, tensor in linear)]

    def name(self, ours: str) -> str:
        """Return the legacy name of one of our tensors."""
        for prefix, theirs in self._heads:
            if ours.startswith(prefix):
                return theirs + ours.removeprefix(prefix)
        prefix = next(prefix for prefix in self._stacks if ours.startswith(prefix))
        theirs, numbers, linear = self._stacks[prefix]
        at, _, leaf = ours.removeprefix(prefix).partition(".")
        rank = bisect.bisect_right(numbers, int(at)) - 1
        position = linear[rank] + int(at) - numbers[rank] if rank < len(linear) else int(at)
        return f"{theirs}{position}.{leaf}"


def _linear(
    tensors: Mapping[str, StoredTensor], prefix: str, steps: tuple[int, int], *, optional: bool
) -> list[tuple[int, StoredTensor]]:
    """Return the linear layers of a Sequential, by their numbers in it."""
    linear = sorted(
        (
            (int(name.removeprefix(prefix).removesuffix(".weight")), tensor)
            for name, tensor in tensors.items()
            if name.startswith(prefix) and name.endswith(".weight") and len(tensor.shape) == 2
        ),
        key=lambda layer: layer[0],
    )
    if not linear and not optional:
        raise RefusedError(f"The file must have the linear layers `{prefix}*.weight`; found none.")
    numbers = [n for n, _ in linear]
    if numbers[:1] not in ([], [0]) or any(not steps[0] <= b - a <= steps[1] for a, b in itertools.pairwise(numbers)):
        raise RefusedError(
            f"The linear layers of `{prefix}` must be numbered from 0 in steps of {steps[0]}, or {steps[1]} with "
            f"dropout, as in v5.11; found {numbers}. That layout is not supported."
        )
    return linear


def _architecture(
    tensors: Mapping[str, StoredTensor], layout: _Layout, curvature: float, max_radius: float, *, contradicts: bool
) -> Architecture:
    """Return the architecture that the tensors have."""
    unit_norm = math.sqrt(curvature) * max_radius
    if unit_norm > 1 - 1e-6:
        override = " override=true" if contradicts or max_radius >= 1 else ""
        advice = (
            f"pass curvature=1 max_radius={max_radius:g}{override} to read the same coordinates in the ball of "
            "curvature 1"
            if max_radius < 1 and curvature != 1
            else f"pass a curvature below {1 / max_radius**2:.4g} with max_radius={max_radius:g}{override}, whose ball "
            "holds them, or the max_radius (0.95 or 0.99) that the script used, with override=true"
        )
        raise RefusedError(
            f"Every point must lie inside the ball, which at curvature {curvature:g} has the radius "
            f"{1 / math.sqrt(curvature):.4f}; the `max_radius` of {max_radius:g} puts points outside: the legacy "
            f"programme did not use the curvature. {advice[0].upper()}{advice[1:]}."
        )
    widths = layout.widths
    direction, radius = widths["projection.direction_net."], widths["projection.radius_net."]
    if len(direction) != len(radius):
        raise RefusedError(
            f"The projection's two nets must have equally many layers; found {len(direction) - 1} for the direction "
            f"and {len(radius) - 1} for the radius. That layout is not supported."
        )
    try:
        architecture = Architecture(
            n_trits=widths["encoder.hidden."][0],
            latent_dim=widths["decoder.layers."][0],
            encoder_hidden=tuple(widths["encoder.hidden."][1:]),
            decoder_hidden=tuple(widths["decoder.layers."][1:-1]),
            hidden_dim=direction[1],
            n_projection_layers=len(radius) - 2,
            curvature=curvature,
            max_radius=unit_norm,
            centred=False,
            use_controller=any(name.startswith("controller.") for name in tensors),
        )
    except ArchitectureError as error:
        raise RefusedError(
            f"The tensors must give an architecture that can be built; found: {cut(str(error))}"
        ) from None
    require_storable(architecture)
    return architecture


def _weights(
    file: TorchFile,
    tensors: Mapping[str, StoredTensor],
    layout: _Layout,
    architecture: Architecture,
    notes: list[str],
) -> dict[str, Tensor]:
    """Return our tensors, each of the shape that the architecture asks for."""
    shapes = tensor_shapes(architecture)
    names = {ours: layout.name(ours) for ours in shapes}
    missing = sorted(set(names.values()) - set(tensors))
    other = "B" if layout.branch == "A" else "A"
    aside = (f"encoder_{other}.", f"projection.proj_{other}.", f"projection.proj_{other}_radius.")
    known = {f"{layout.projection}manifold.isp_c", *names.values()}
    unknown = sorted(name for name in tensors if name not in known and not name.startswith(aside))
    if missing or unknown:
        raise RefusedError(
            f"The tensors of branch {layout.branch} must be those of {architecture}; "
            f"missing: {quote(missing) if missing else 'none'}; unknown: {quote(unknown) if unknown else 'none'}."
        )
    for ours, shape in shapes.items():
        found = tensors[names[ours]].shape
        if found != shape:
            raise RefusedError(f"`{names[ours]}` must have the shape {list(shape)}, found {list(found)}.")
    weights, rounded = {}, 0.0
    for ours, legacy in names.items():
        stored = file.read(tensors[legacy])
        require_finite(legacy, stored)
        weights[ours] = stored.float().contiguous()
        require_finite(legacy, weights[ours])
        rounded = max(rounded, float((weights[ours].double() - stored.double()).abs().max()))
    if others := sorted({str(tensors[name].dtype) for name in names.values()} - {"torch.float32"}):
        exact = "exact in float32" if rounded == 0 else f"rounded to float32, by at most {rounded:.1e}"
        notes.append(f"Weights are stored as {', '.join(others).replace('torch.', '')}; they were {exact}.")
    return weights
