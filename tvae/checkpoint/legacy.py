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

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tvae.checkpoint.file import MAX_BYTES, require_storable, save
from tvae.checkpoint.legacy_settings import disagreements, for_json, settled, statements
from tvae.checkpoint.legacy_tensors import Branch, WholeModuleError, find_weights
from tvae.checkpoint.pickled import fields
from tvae.checkpoint.refusal import RefusedError, open_regular, quote, refusing
from tvae.checkpoint.torch_file import open_torch_file
from tvae.errors import EvaluationError
from tvae.metrics import evaluate
from tvae.model import COMPONENTS, TernaryVAE

__all__ = ["BRANCHES", "Conversion", "convert"]

BRANCHES = ("A", "B")


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
        except WholeModuleError as error:
            raise RefusedError(f"{error} {_anew(path, error.place)}") from None


def _convert(path: Path, content: bytes, name: str, given: Mapping[str, float | None], override: bool) -> Conversion:
    file = open_torch_file(content)
    where, weights = find_weights(file.value)
    branch = Branch(file, weights, name)
    stated = statements(file)
    curvature, max_radius = settled(stated, given, override, branch.isp_c)

    architecture = branch.architecture(curvature, max_radius)
    require_storable(architecture)
    read_off = {
        "n_trits": architecture.n_trits,
        "latent_dim": architecture.latent_dim,
        "encoder_hidden": architecture.encoder_hidden,
        "decoder_hidden": architecture.decoder_hidden,
        "hidden_dim": architecture.hidden_dim,
        "projection_layers": architecture.n_projection_layers,
        "use_controller": architecture.use_controller,
        "dual_projection": branch.dual,
        "isp_c": branch.isp_c,
    }
    notes = disagreements(stated, given, read_off)
    if branch.isp_c is not None and not math.isclose(branch.isp_c, curvature, rel_tol=1e-4):
        notes.append(
            f"The tensor `isp_c` stores the curvature {branch.isp_c:.5g}, which takes no part in the embedding; "
            f"{curvature:g} was taken."
        )
    if name == "B":
        notes.append("The file has no decoder for branch B; decoder A was taken, as the legacy programme did.")
    if isinstance(file.value, dict) and fields(file.value.get("metrics")):
        notes.append("The file's own metrics were not used; they were recomputed.")

    with torch.device("meta"):
        model = TernaryVAE(architecture)
    notes += branch.fill(model)
    model.eval()
    try:
        metrics = evaluate(model).metrics()
    except EvaluationError as error:
        raise RefusedError(str(error)) from None
    return Conversion(
        model=model,
        trained=tuple(component for component in COMPONENTS if getattr(model, component) is not None),
        training={
            "start": "legacy",
            "legacy_file": path.name,
            "legacy_sha256": hashlib.sha256(content).hexdigest(),
            "legacy_branch": name,
            "legacy_weights": where,
            "legacy_stated": {place: for_json(value) for places in stated.values() for place, value in places.items()},
            "legacy_given": {key: "auto" if value is None else value for key, value in given.items()}
            | {"override": override},
            "legacy_read_off_tensors": read_off,
            "notes": notes,
        },
        metrics=metrics,
        notes=tuple(notes),
    )


def _anew(path: Path, place: str) -> str:
    """Return how to save the weights of a whole module, which only the old programme can make."""
    load = f"import torch; file = torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    save = f"torch.save({{'model_state_dict': {place}.state_dict()}}, {str(path.with_suffix('.resaved.pt'))!r})"
    return (
        "These two lines save its weights, where the old programme can be imported. The first runs what the file "
        f"names: use it only if you know where the file comes from.\n  {load}\n  {save}\n"
        "Then convert that, with curvature and max_radius as its script had them."
    )
