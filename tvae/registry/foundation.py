"""Foundations: the encoders and decoders that finetuning starts from."""

from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tvae.architecture import Architecture
from tvae.checkpoint import Checkpoint, read
from tvae.errors import CheckpointError
from tvae.registry.address import fetch
from tvae.registry.store import CHAMPION, answering, ensure_model
from tvae.registry.turn import turn

__all__ = ["FOUNDATION", "codec_tags", "find_foundation", "register_foundation"]

FOUNDATION = "tvae-foundation"
_DESCRIPTION = "Encoders and decoders that finetuning starts from."
_CODEC = ("n_trits", "latent_dim", "encoder_hidden", "decoder_hidden")


def find_foundation(
    client: MlflowClient, architecture: Architecture, folder: Path, *, tell: Callable[[str], None]
) -> tuple[str, Checkpoint] | None:
    """Return a registered foundation that fits an architecture and its address, None if there is none.

    The champion comes first, then the newest version: a foundation fits if its encoder and decoder have the shapes. One
    whose files are gone, or cannot be read, is passed over.

    Args:
        client: of the registry.
        architecture: what it has to fit.
        folder: where downloads go.
        tell: takes a sentence about foundations that are passed over.
    """
    wanted = codec_tags(architecture)
    try:
        champion = client.get_model_version_by_alias(FOUNDATION, CHAMPION).version
    except MlflowException:
        champion = None
    found = client.search_model_versions(f"name = '{FOUNDATION}'", max_results=1000)
    versions = sorted(found, key=lambda v: (v.version == champion, int(v.version)), reverse=True)
    fitting = [v for v in versions if wanted.items() <= v.tags.items()]
    lost: dict[str, str] = {}
    try:
        for address in (f"models:/{FOUNDATION}/{version.version}" for version in fitting):
            try:
                return address, read(fetch(address, folder))
            except CheckpointError as error:
                lost[address] = str(error)
        return None
    finally:
        if lost:
            address, why = next(iter(lost.items()))
            further = f" So are {len(lost) - 1} others." if len(lost) > 1 else ""
            tell(f"The registered foundation {address} is gone, or cannot be read: {why}{further}")


def register_foundation(client: MlflowClient, checkpoint: Checkpoint, run_id: str) -> str:
    """Register the verified foundation of a run, and make it the champion.

    Returns:
        Its version.

    Raises:
        RegistryError: if the registry does not answer.
    """
    tags = codec_tags(checkpoint.architecture) | {"coverage": f"{checkpoint.metrics['coverage']:.6f}"}
    with answering(FOUNDATION):
        ensure_model(client, FOUNDATION, _DESCRIPTION)
        with turn(client, FOUNDATION):
            made = client.create_model_version(
                FOUNDATION, source=f"runs:/{run_id}/checkpoint", run_id=run_id, tags=tags
            )
            client.set_registered_model_alias(FOUNDATION, CHAMPION, made.version)
    return str(made.version)


def codec_tags(architecture: Architecture) -> dict[str, str]:
    """Return what a foundation must have in common with an architecture, as tags."""
    values = architecture.to_dict()
    return {name: str(values[name]) for name in _CODEC}
