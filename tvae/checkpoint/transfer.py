"""Building a model partly from a checkpoint and partly anew, with every component accounted for.

A component comes from the file if its weights were learned there, and is drawn anew if not. What the components from
the file are made of cannot be asked for differently: another curvature would give the same weights another meaning.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from tvae.checkpoint.file import Checkpoint
from tvae.config.architecture import Architecture, Difference, differences
from tvae.errors import CheckpointError
from tvae.model import COMPONENTS, TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["Transfer", "transfer"]

_CODEC_FIELDS = {
    "encoder": {"n_trits", "latent_dim", "encoder_hidden"},
    "decoder": {"n_trits", "latent_dim", "decoder_hidden"},
}
_PROJECTION_FIELDS = {"latent_dim", "hidden_dim", "n_projection_layers", "curvature", "max_radius", "centred"}
_RENEWABLE = ("projection", "controller")


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """A model, and where each of its components comes from.

    Attributes:
        model: of the requested architecture, in training mode, on the CPU.
        taken: components whose weights come from the file, in the order of `tvae.model.COMPONENTS`.
        drawn: components whose weights were drawn at random; with `taken`, every component of the model.
        source: digest of the checkpoint.
    """

    model: TernaryVAE
    taken: tuple[str, ...]
    drawn: tuple[str, ...]
    source: str

    def describe(self) -> str:
        """Return one line for the terminal and the log."""
        drawn = f"drawn anew: {', '.join(self.drawn)}" if self.drawn else "nothing drawn anew"
        return f"From the checkpoint (digest {self.source[:12]}…): {', '.join(self.taken)}; {drawn}."


@torch_defaults()
def transfer(
    checkpoint: Checkpoint, requested: Architecture, *, new_projection: bool = False, generator: torch.Generator
) -> Transfer:
    """Build a model of the requested architecture from what a checkpoint has learned.

    Args:
        checkpoint: where learned components come from.
        requested: the architecture to build; it must agree with the checkpoint's in every field that a component from
            the file depends on.
        new_projection: draw projection and controller anew, even if the file has learned ones.
        generator: draws the components that do not come from the file.

    Returns:
        The model, and which of its components were taken and which drawn.

    Raises:
        CheckpointError: names every field that differs, with both values, and the options that would agree.
    """
    taken = _taken(checkpoint, new_projection)
    differing = [d for d in differences(requested, checkpoint.architecture) if d.field in _binding(checkpoint, taken)]
    if differing:
        raise CheckpointError(_refusal(checkpoint, differing, taken))
    if not taken:
        raise CheckpointError(
            f"{checkpoint.path}: a checkpoint to start from must have learned components; "
            f"found: {', '.join(checkpoint.trained) or 'none'}. Train a foundation first."
        )

    model = TernaryVAE(requested)
    drawn = tuple(name for name in COMPONENTS if getattr(model, name) is not None and name not in taken)
    model.initialise(generator, drawn)
    for name in taken:
        getattr(model, name).load_state_dict(getattr(checkpoint.model, name).state_dict(), strict=True)
    return Transfer(model=model, taken=taken, drawn=drawn, source=checkpoint.digest)


def _taken(checkpoint: Checkpoint, new_projection: bool) -> tuple[str, ...]:
    return tuple(name for name in checkpoint.trained if not (new_projection and name in _RENEWABLE))


def _binding(checkpoint: Checkpoint, taken: tuple[str, ...]) -> set[str]:
    """Return the fields in which the request must agree with the file."""
    fields = {field for name in taken for field in _CODEC_FIELDS.get(name, ())}
    if "projection" in taken:
        fields |= _PROJECTION_FIELDS
    # A projection that was learned without a controller would otherwise get a random one without a word.
    if "controller" in taken or ("projection" in taken and not checkpoint.architecture.use_controller):
        fields.add("use_controller")
    return fields


_ANEW = "`new_projection` to true, to learn a new projection on this encoder"


def _refusal(checkpoint: Checkpoint, differing: list[Difference], taken: tuple[str, ...]) -> str:
    listed = "; ".join(f"`{d.field}` is {_shown(d.found)} in the file, {_shown(d.expected)} here" for d in differing)
    keep = _settings(differing)
    codec = {field for name in taken for field in _CODEC_FIELDS.get(name, ())}
    renewable = any(name in taken for name in _RENEWABLE)
    if not renewable or codec >= {d.field for d in differing}:
        advice = f"set {keep}"
    elif fixed := [d for d in differing if d.field in codec]:
        advice = f"set {keep}; or {_settings(fixed)} and {_ANEW}"
    else:
        advice = f"set {keep}; or {_ANEW}"
    return (
        f"{checkpoint.path}: the architecture asked for must be the file's in what comes from the file "
        f"({', '.join(taken)}): {listed}; {advice}."
    )


def _settings(differing: Iterable[Difference]) -> str:
    """Return what to set, in words that fit options, `-P` and Python alike."""
    return " and ".join(f"`{d.field}` to {_shown(d.found)}" for d in differing)


def _shown(value: object) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
