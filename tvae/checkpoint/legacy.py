"""Bringing in checkpoints of the v5.11 programme, which were written with `torch.save`.

A legacy file holds one or two branches, A and B, with an encoder each, one decoder, and a projection that the branches
share (single) or have each (dual). One branch becomes one model. What its tensors say of the architecture holds; what
the file's `config` says is compared and reported; its metrics are computed again.

The legacy embedding is direction·max_radius·radius_net(latent) whatever the curvature c: its `max_radius` is a
Euclidean norm. Ours is direction·max_radius·radius_net(latent)/sqrt(c), with `max_radius` a unit norm. So a legacy file
becomes a model with sqrt(c) times its `max_radius`, and every point keeps its coordinates, as long as that stays below
1.
"""

import hashlib
import io
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tvae.architecture import Architecture
from tvae.checkpoint.file import MAX_BYTES, save, tensor_shapes
from tvae.checkpoint.refusal import RefusedError, cut, open_regular, quote, refusing, require_finite
from tvae.errors import ArchitectureError, EvaluationError
from tvae.metrics import evaluate
from tvae.model import COMPONENTS, TernaryVAE

__all__ = ["BRANCHES", "CURVATURE_SOURCES", "Conversion", "convert"]

BRANCHES = ("A", "B")
CURVATURE_SOURCES = ("file", "one")
# What the legacy programme took where nothing was said.
DEFAULT_CURVATURE = 1.0
DEFAULT_MAX_RADIUS = 0.95

_KNOWN = re.compile(
    r"(encoder_[AB]\.(encoder\.\d+|fc_mu|fc_logvar)|decoder_A\.decoder\.\d+|controller\.net\.\d+"
    r"|projection\.(proj_[AB]\.)?(direction_net|radius_net)\.\d+)\.(weight|bias)"
    r"|projection\.(proj_[AB]\.)?manifold\.isp_c"
)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """One branch of a legacy file as a model of ours.

    Attributes:
        model: in evaluation mode.
        trained: the components that the file had; the legacy programme learned all of them.
        training: where the model comes from, for the checkpoint's header.
        metrics: computed from the model.
        notes: what the file said of itself and was not so, and what had to be assumed; one sentence each.
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
    path: str | os.PathLike[str], branch: str, *, curvature_from: Literal["file", "one"] = "file"
) -> Conversion:
    """Read one branch of a legacy file. Nothing is executed and nothing is written.

    Args:
        path: a file of the v5.11 programme.
        branch: `A` or `B`.
        curvature_from: `file` takes the curvature from the file's config (else from its tensor `isp_c`, else 1);
            `one` takes 1 whatever the file says: the same coordinates, read in the ball of radius 1.

    Returns:
        The model, its metrics, and notes on what was found.

    Raises:
        CheckpointError: if the file is not a legacy checkpoint, is damaged, or has points outside its ball.
    """
    path = Path(os.path.expanduser(path))
    with refusing(path):
        if branch not in BRANCHES:
            raise RefusedError(f"`branch` must be A or B, found {quote(branch)}.")
        if curvature_from not in CURVATURE_SOURCES:
            raise RefusedError(f"`curvature_from` must be file or one, found {quote(curvature_from)}.")
        with open_regular(path, MAX_BYTES) as stream:
            content = stream.read(MAX_BYTES)
        payload = _unpickle(content)
        tensors = _tensors(payload)
        config = payload.get("config")
        notes = [] if isinstance(config, dict) else ["The file has no `config`; all settings are read off the tensors."]
        config = config if isinstance(config, dict) else {}

        layout = _Layout(branch, dual=any(name.startswith("projection.proj_") for name in tensors))
        if curvature_from == "one":
            curvature = 1.0
            notes.append(f"Curvature 1 was asked for; the file's `curvature` is {quote(config.get('curvature'))}.")
        else:
            curvature = _curvature(config, tensors, layout, notes)
        max_radius = _max_radius(config, notes)
        architecture = _architecture(tensors, layout, curvature, max_radius)
        notes += _disagreements(config, architecture, layout)
        if branch == "B":
            notes.append("The file has no decoder for branch B; decoder A was taken, as the legacy programme did.")
        if payload.get("metrics"):
            notes.append("The file's own metrics were not used; they were computed anew.")

        with torch.device("meta"):
            model = TernaryVAE(architecture)
        weights = _weights(tensors, layout, architecture)
        model.load_state_dict(weights, strict=True, assign=True)
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
            "legacy_curvature_from": curvature_from,
            "notes": notes,
        },
        metrics=metrics,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where one branch has its tensors in a legacy file."""

    branch: str
    dual: bool

    @property
    def encoder(self) -> str:
        return f"encoder_{self.branch}."

    @property
    def projection(self) -> str:
        return f"projection.proj_{self.branch}." if self.dual else "projection."

    def name(self, ours: str) -> str:
        """Return the legacy name of one of our tensors."""
        for prefix, legacy in (
            ("encoder.hidden.", f"{self.encoder}encoder."),
            ("encoder.mean.", f"{self.encoder}fc_mu."),
            ("encoder.log_variance.", f"{self.encoder}fc_logvar."),
            ("decoder.layers.", "decoder_A.decoder."),
            ("projection.", self.projection),
        ):
            if ours.startswith(prefix):
                return legacy + ours.removeprefix(prefix)
        return ours


def _unpickle(content: bytes) -> dict[str, Any]:
    try:
        unpacked = _unpacked_size(content)
        payload = (
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if unpacked <= MAX_BYTES else None
        )
    # What the unpickler raises on damaged or hostile bytes is not limited to any kind of error.
    except Exception as error:
        # torch's own advice is to load the file unsafely: what it says after the first sentence is not passed on.
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise RefusedError(
            f"A legacy checkpoint must be a file of torch.save that holds tensors and plain values only; "
            f"found: {cut(first_line)}"
        ) from None
    if unpacked > MAX_BYTES:
        raise RefusedError(f"The archive must unpack to at most {MAX_BYTES} bytes; it states {unpacked}.")
    if not isinstance(payload, dict):
        raise RefusedError(f"A legacy checkpoint must be a dict, found {type(payload).__name__}.")
    return payload


def _unpacked_size(content: bytes) -> int:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return len(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _tensors(payload: Mapping[str, Any]) -> dict[str, Tensor]:
    state = payload.get("model_state_dict", payload.get("model"))
    if not isinstance(state, Mapping):
        raise RefusedError(
            "A legacy checkpoint must hold its weights under `model_state_dict` or `model`; "
            f"found the keys {quote(sorted(map(str, payload)))}."
        )
    if unknown := sorted(str(name) for name in state if not (isinstance(name, str) and _KNOWN.fullmatch(name))):
        raise RefusedError(f"The file must have the tensors of the v5.11 layout only, found also {quote(unknown)}.")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise RefusedError(f"`{name}` must be a tensor, found {type(tensor).__name__}.")
        if (tensor.dtype, tensor.layout, tensor.device.type) != (torch.float32, torch.strided, "cpu"):
            raise RefusedError(
                f"`{name}` must be a dense float32 tensor with values, found {tensor.layout} of {tensor.dtype} on "
                f"{tensor.device.type}."
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _curvature(config: Mapping[str, Any], tensors: Mapping[str, Tensor], layout: _Layout, notes: list[str]) -> float:
    """Return the curvature that the file states, and note where it does so twice or not at all."""
    inverse_softplus = tensors.get(f"{layout.projection}manifold.isp_c")
    stored = None
    if inverse_softplus is not None:
        if inverse_softplus.numel() != 1:
            raise RefusedError(f"`isp_c` must be one number, found shape {list(inverse_softplus.shape)}.")
        stored = float(torch.nn.functional.softplus(inverse_softplus.double()))
    if "curvature" not in config:
        if stored is None:
            notes.append(
                f"The file states no curvature; {DEFAULT_CURVATURE} was taken, the legacy programme's default."
            )
            return DEFAULT_CURVATURE
        # Five digits are what a float32 keeps through a softplus and back.
        notes.append(f"`config` states no curvature; {stored:.5g} was taken from the tensor `isp_c`.")
        return _positive("isp_c", float(f"{stored:.5g}"))
    stated = _positive("curvature", config["curvature"])
    if stored is not None and not math.isclose(stated, stored, rel_tol=1e-4):
        notes.append(
            f"`curvature` is {stated} in `config`, {stored:.5g} in the tensor `isp_c`, which takes no part in the "
            f"embedding; {stated} was taken."
        )
    return stated


def _max_radius(config: Mapping[str, Any], notes: list[str]) -> float:
    if "max_radius" in config:
        return _positive("max_radius", config["max_radius"])
    notes.append(f"`config` states no `max_radius`; {DEFAULT_MAX_RADIUS} was taken, the legacy programme's default.")
    return DEFAULT_MAX_RADIUS


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise RefusedError(f"The file's `{name}` must be a positive number, found {quote(value)}.")
    return float(value)


def _architecture(tensors: Mapping[str, Tensor], layout: _Layout, curvature: float, max_radius: float) -> Architecture:
    """Return the architecture that the tensors have."""
    unit_norm = math.sqrt(curvature) * max_radius
    if unit_norm >= 1:
        advice = (
            "pass curvature_from=one to read the same coordinates in the ball of curvature 1"
            if max_radius < 1
            else "no curvature that the file states puts them inside"
        )
        raise RefusedError(
            f"Every point must lie inside the ball, which at curvature {curvature} has the radius "
            f"{1 / math.sqrt(curvature):.4f}; the file's `max_radius` of {max_radius} puts points outside: the legacy "
            f"programme did not use the curvature. {advice[0].upper()}{advice[1:]}."
        )
    encoder = _widths(tensors, f"{layout.encoder}encoder.")
    decoder = _widths(tensors, "decoder_A.decoder.")
    direction = _widths(tensors, f"{layout.projection}direction_net.")
    radius = _widths(tensors, f"{layout.projection}radius_net.")
    try:
        return Architecture(
            n_trits=encoder[0],
            latent_dim=decoder[0],
            encoder_hidden=tuple(encoder[1:]),
            decoder_hidden=tuple(decoder[1:-1]),
            hidden_dim=direction[1],
            n_projection_layers=len(radius) - 2,
            curvature=curvature,
            max_radius=unit_norm,
            use_controller=any(name.startswith("controller.") for name in tensors),
        )
    except ArchitectureError as error:
        raise RefusedError(
            f"The tensors must give an architecture that can be built; found: {cut(str(error))}"
        ) from None


def _widths(tensors: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the width of the input and of every linear layer of a stack."""
    linear = sorted(
        (int(name.removeprefix(prefix).removesuffix(".weight")), tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix) and name.endswith(".weight") and tensor.dim() == 2
    )
    if not linear:
        raise RefusedError(f"The file must have the linear layers `{prefix}*.weight`; found none.")
    return [linear[0][1].shape[1], *(weight.shape[0] for _, weight in linear)]


def _weights(tensors: Mapping[str, Tensor], layout: _Layout, architecture: Architecture) -> dict[str, Tensor]:
    """Return our tensors, each of the shape that the architecture asks for."""
    shapes = tensor_shapes(architecture)
    names = {ours: layout.name(ours) for ours in shapes}
    missing = sorted(set(names.values()) - set(tensors))
    other = "B" if layout.branch == "A" else "A"
    aside = (f"encoder_{other}.", f"projection.proj_{other}.")
    known = {f"{layout.projection}manifold.isp_c", *names.values()}
    unknown = sorted(name for name in tensors if name not in known and not name.startswith(aside))
    if missing or unknown:
        raise RefusedError(
            f"The tensors of branch {layout.branch} must be those of {architecture}; "
            f"missing: {quote(missing) if missing else 'none'}; unknown: {quote(unknown) if unknown else 'none'}."
        )
    for ours, shape in shapes.items():
        found = tensors[names[ours]]
        if tuple(found.shape) != shape:
            raise RefusedError(f"`{names[ours]}` must have the shape {list(shape)}, found {list(found.shape)}.")
        require_finite(names[ours], found)
    return {ours: tensors[legacy].contiguous() for ours, legacy in names.items()}


def _disagreements(config: Mapping[str, Any], architecture: Architecture, layout: _Layout) -> list[str]:
    read_off = {
        "latent_dim": architecture.latent_dim,
        "hidden_dim": architecture.hidden_dim,
        "projection_layers": architecture.n_projection_layers,
        "use_controller": architecture.use_controller,
        "dual_projection": layout.dual,
    }
    return [
        f"`{name}` is {quote(config[name])} in `config`, {value} in the tensors; the tensors hold."
        for name, value in read_off.items()
        if name in config and (type(config[name]) is not type(value) or config[name] != value)
    ]
