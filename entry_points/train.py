"""Train a foundation: encoder and decoder, to full coverage."""

from typing import Any

from entry_points.console import command, defaults_of
from entry_points.options import ARCHITECTURE, options
from tvae.experiments.presets import resolve, resolve_foundation

_TRAINING = ("optimizer", "lr", "epochs", "batch_size", "patience", "scheduler", "beta")


@command
@options(*ARCHITECTURE, *_TRAINING, "seed", "device", "promote")
def main(**asked: Any) -> None:
    """Train a foundation: encoder and decoder, to full coverage of all 19,683 operations.

    The projection is not trained; `finetune` does that. A verified foundation is registered as tvae-foundation.
    """
    architecture, _ = resolve("default", {name: asked[name] for name in ARCHITECTURE})
    configuration = resolve_foundation(architecture, {name: asked[name] for name in (*_TRAINING, "seed")})

    from entry_points.sessions import opened

    name = f"foundation d={architecture.latent_dim} seed={configuration.seed}"
    with opened("train", name, asked, defaults_of(main), architecture, configuration) as session:
        session.train_foundation()


if __name__ == "__main__":
    main()
