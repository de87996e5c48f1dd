"""Where a run starts: random weights, a foundation that was just trained, a checkpoint, or half of one."""

import torch

from tvae.checkpoint import Checkpoint, Transfer, transfer
from tvae.config.architecture import Architecture
from tvae.config.training import Configuration
from tvae.errors import CheckpointError
from tvae.model import COMPONENTS, TernaryVAE
from tvae.torch_defaults import torch_defaults
from tvae.training import Member, Result

__all__ = ["from_checkpoint", "from_foundation", "from_mismatched", "from_scratch"]


@torch_defaults()
def from_scratch(architecture: Architecture, configuration: Configuration) -> Member:
    """Start from random weights, drawn from the configuration's seed."""
    generator = torch.Generator().manual_seed(configuration.seed)
    model = TernaryVAE(architecture)
    model.initialise(generator)
    return Member(configuration, model, reinitialised=COMPONENTS, generator=generator)


@torch_defaults()
def from_foundation(foundation: Result, configuration: Configuration) -> Member:
    """Start from a foundation that was trained in this process; its projection was never learned."""
    generator = torch.Generator().manual_seed(configuration.seed)
    model = TernaryVAE(foundation.model.architecture)
    model.load_state_dict(foundation.model.state_dict())
    new = ("projection", "controller")
    model.initialise(generator, new)
    return Member(configuration, model, reinitialised=new, generator=generator)


def from_checkpoint(
    checkpoint: Checkpoint, architecture: Architecture, configuration: Configuration, *, new_projection: bool = False
) -> tuple[Member, Transfer]:
    """Start from what a checkpoint has learned; what it has not is reinitialised from the configuration's seed.

    Returns:
        The run to train, and the statement of what was loaded and what was reinitialised.

    Raises:
        CheckpointError: if the architecture differs from the checkpoint's in what is loaded from it, or the checkpoint
            has seen what is to be held out.
    """
    of_file, held_out = checkpoint.holdout, configuration.holdout
    if held_out not in (0, of_file):
        raise CheckpointError(
            f"{checkpoint.path}: what is held out must have been held out of the checkpoint too: `holdout` is "
            f"{of_file:g} in the file, {held_out:g} here; set it to {of_file:g}, or start from random weights."
        )
    generator = torch.Generator().manual_seed(configuration.seed)
    start = transfer(checkpoint, architecture, new_projection=new_projection, generator=generator)
    return Member(configuration, start.model, reinitialised=start.reinitialised, generator=generator), start


@torch_defaults()
def from_mismatched(
    checkpoint: Checkpoint, architecture: Architecture, configuration: Configuration
) -> tuple[Member, tuple[str, ...]]:
    """Demonstrate a silent partial load: what the reference sweep did to its checkpoints, and nobody was told.

    Its projections had other names in files with a controller, and it loaded with `strict=False`, which leaves what is
    not found as it was drawn. Nothing else in tvae loads like this.

    Returns:
        The run, and the names of the tensors that stayed random.
    """
    generator = torch.Generator().manual_seed(configuration.seed)
    model = TernaryVAE(architecture)
    model.initialise(generator)
    state = {
        name.replace("projection.", "projection.proj_A."): value
        for name, value in checkpoint.model.state_dict().items()
    }
    drawn = model.state_dict()
    missing = tuple(name for name in drawn if name not in state)
    model.load_state_dict({name: state.get(name, value) for name, value in drawn.items()})
    random = tuple(name for name in COMPONENTS if any(key.startswith(f"{name}.") for key in missing))
    return Member(configuration, model, reinitialised=random, generator=generator), missing
