"""Building a model partly from a checkpoint and partly from random weights, with every component accounted for.

A component comes from the file if its weights were learned there, and is reinitialised if not. What the components from
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
        loaded: components whose weights come from the file, in the order of `tvae.model.COMPONENTS`.
        reinitialised: components with random weights; with `loaded`, every component of the model.
        source: digest of the checkpoint.
    """

    model: TernaryVAE
    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    source: str

    def describe(self) -> str:
        """Return one line for the terminal and the log."""
        reinitialised = (
            f"reinitialised: {', '.join(self.reinitialised)}" if self.reinitialised else "nothing reinitialised"
        )
        return f"From the checkpoint (digest {self.source[:12]}…): {', '.join(self.loaded)}; {reinitialised}."


@torch_defaults()
def transfer(
    checkpoint: Checkpoint, requested: Architecture, *, new_projection: bool = False, generator: torch.Generator
) -> Transfer:
    """Build a model of the requested architecture from what a checkpoint has learned.

    Args:
        checkpoint: where learned components come from.
        requested: the architecture to build; it must agree with the checkpoint's in every field that a component from
            the file depends on.
        new_projection: reinitialise projection and controller, even if the file has learned ones.
        generator: draws the components that do not come from the file.

    Returns:
        The model, and which of its components were loaded and which reinitialised.

    Raises:
        CheckpointError: names every field that differs, with both values, and the options that would agree.
    """
    loaded = _loaded(checkpoint, new_projection)
    differing = [d for d in differences(requested, checkpoint.architecture) if d.field in _binding(checkpoint, loaded)]
    if differing:
        raise CheckpointError(_refusal(checkpoint, differing, loaded))
    if not loaded:
        raise CheckpointError(
            f"{checkpoint.path}: a checkpoint to start from must have learned components; "
            f"found: {', '.join(checkpoint.trained) or 'none'}. Train a foundation first."
        )

    model = TernaryVAE(requested)
    reinitialised = tuple(name for name in COMPONENTS if getattr(model, name) is not None and name not in loaded)
    model.initialise(generator, reinitialised)
    for name in loaded:
        getattr(model, name).load_state_dict(getattr(checkpoint.model, name).state_dict(), strict=True)
    return Transfer(model=model, loaded=loaded, reinitialised=reinitialised, source=checkpoint.digest)


def _loaded(checkpoint: Checkpoint, new_projection: bool) -> tuple[str, ...]:
    return tuple(name for name in checkpoint.trained if not (new_projection and name in _RENEWABLE))


def _binding(checkpoint: Checkpoint, loaded: tuple[str, ...]) -> set[str]:
    """Return the fields in which the request must agree with the file."""
    fields = {field for name in loaded for field in _CODEC_FIELDS.get(name, ())}
    if "projection" in loaded:
        fields |= _PROJECTION_FIELDS
    # A projection that was learned without a controller would otherwise get a random one without a word.
    if "controller" in loaded or ("projection" in loaded and not checkpoint.architecture.use_controller):
        fields.add("use_controller")
    return fields


_ANEW = "`new_projection` to true, to learn a new projection on this encoder"


def _refusal(checkpoint: Checkpoint, differing: list[Difference], loaded: tuple[str, ...]) -> str:
    listed = "; ".join(f"`{d.field}` is {_shown(d.found)} in the file, {_shown(d.expected)} here" for d in differing)
    keep = _settings(differing)
    codec = {field for name in loaded for field in _CODEC_FIELDS.get(name, ())}
    renewable = any(name in loaded for name in _RENEWABLE)
    if not renewable or codec >= {d.field for d in differing}:
        advice = f"set {keep}"
    elif fixed := [d for d in differing if d.field in codec]:
        advice = f"set {keep}; or {_settings(fixed)} and {_ANEW}"
    else:
        advice = f"set {keep}; or {_ANEW}"
    return (
        f"{checkpoint.path}: the architecture asked for must be the file's in what comes from the file "
        f"({', '.join(loaded)}): {listed}; {advice}."
    )


def _settings(differing: Iterable[Difference]) -> str:
    """Return what to set, in words that fit options, `-P` and Python alike."""
    return " and ".join(f"`{d.field}` to {_shown(d.found)}" for d in differing)


def _shown(value: object) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
