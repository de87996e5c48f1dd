"""Train a foundation: encoder and decoder, to full coverage."""

from typing import Any

from tvae.cli.command import command, defaults_of
from tvae.cli.options import ARCHITECTURE, options
from tvae.config.presets import resolve, resolve_foundation

_TRAINING = ("optimizer", "lr", "epochs", "batch_size", "patience", "scheduler", "beta", "holdout")


@command
@options(*ARCHITECTURE, *_TRAINING, "seed", "device", "promote")
def main(**asked: Any) -> None:
    """Train a foundation: encoder and decoder, to full coverage of all operations.

    The projection is not trained; `finetune` does that. A verified foundation is registered as tvae-foundation.
    """
    architecture, _ = resolve("default", {name: asked[name] for name in ARCHITECTURE})
    configuration = resolve_foundation(architecture, {name: asked[name] for name in (*_TRAINING, "seed")})

    from tvae.workflows.session import open_session

    name = f"foundation d={architecture.latent_dim} seed={configuration.seed}"
    with open_session("train", name, asked, defaults_of(main), architecture, configuration) as session:
        session.train_foundation()
