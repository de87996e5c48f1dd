"""Foundations: the encoders and decoders that finetuning starts from."""

import logging
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tvae.checkpoint import Checkpoint, Verification, read
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError, RegistryError
from tvae.registry.address import fetch
from tvae.registry.lock import locked
from tvae.registry.store import CHAMPION, answering, ensure_model, note_version
from tvae.tracking.description import describe_model
from tvae.tracking.links import run_page

__all__ = ["FOUNDATION_MODEL", "codec_tags", "find_foundation", "register_foundation"]

_logger = logging.getLogger(__name__)

FOUNDATION_MODEL = "tvae-foundation"
_DESCRIPTION = "Encoders and decoders that finetuning starts from."
_CODEC = ("n_trits", "latent_dim", "encoder_hidden", "decoder_hidden")
_HOLDOUT = "holdout"


def find_foundation(
    client: MlflowClient, architecture: Architecture, folder: Path, holdout: float = 0.0
) -> tuple[str, Checkpoint] | None:
    """Return a registered foundation that fits an architecture and its address, None if there is none.

    The champion comes first, then the newest version: a foundation fits if its encoder and decoder have the shapes, and
    the same operations were held out of it. One whose files are gone, or cannot be read, is passed over.

    Args:
        client: of the registry.
        architecture: what it has to fit.
        folder: where downloads go.
        holdout: the share of operations that it must not have seen.
    """
    wanted = codec_tags(architecture, holdout)
    try:
        champion = client.get_model_version_by_alias(FOUNDATION_MODEL, CHAMPION).version
    except MlflowException:
        champion = None
    found = client.search_model_versions(f"name = '{FOUNDATION_MODEL}'", max_results=1000)
    versions = sorted(found, key=lambda v: (v.version == champion, int(v.version)), reverse=True)
    # Those of earlier versions say nothing of a holdout: there was none.
    fitting = [v for v in versions if wanted.items() <= {_HOLDOUT: "0.0", **v.tags}.items()]
    lost: dict[str, str] = {}
    try:
        for address in (f"models:/{FOUNDATION_MODEL}/{version.version}" for version in fitting):
            try:
                return address, read(fetch(address, folder))
            except CheckpointError as error:
                lost[address] = str(error)
        return None
    finally:
        if lost:
            address, why = next(iter(lost.items()))
            further = f" So are {len(lost) - 1} others." if len(lost) > 1 else ""
            _logger.info("The registered foundation %s is gone, or cannot be read: %s%s", address, why, further)


def register_foundation(client: MlflowClient, verification: Verification, run_id: str, model_id: str) -> str:
    """Register the verified foundation of a run, and make it the champion.

    Args:
        client: of the registry.
        verification: of the foundation.
        run_id: of the run that has its checkpoint.
        model_id: the logged model that has its metrics.

    Returns:
        Its version.

    Raises:
        RegistryError: if the registry does not answer.
    """
    checkpoint = verification.checkpoint
    if not verification.passed or checkpoint is None:
        raise RegistryError(f"Only a verified foundation can be registered; this one failed:\n{verification.table()}")
    metrics = {name: f"{value:.9g}" for name, value in verification.metrics.items()}
    tags = {
        "verified": "true",
        "digest": checkpoint.digest,
        **codec_tags(checkpoint.architecture, checkpoint.holdout),
        **metrics,
    }
    page = run_page(client.get_logged_model(model_id).experiment_id, run_id)
    description = f"{describe_model(verification, page=page)}\n\n{verification.markdown()}"
    with answering(FOUNDATION_MODEL):
        ensure_model(client, FOUNDATION_MODEL, _DESCRIPTION)
        with locked(client, FOUNDATION_MODEL):
            # A server refuses a model's id beside a source that is not in the model.
            made = client.create_model_version(
                FOUNDATION_MODEL,
                source=f"runs:/{run_id}/checkpoint",
                run_id=run_id,
                tags=tags,
                description=description,
            )
            note_version(client, model_id, FOUNDATION_MODEL, str(made.version))
            client.set_registered_model_alias(FOUNDATION_MODEL, CHAMPION, made.version)
    return str(made.version)


def codec_tags(architecture: Architecture, holdout: float) -> dict[str, str]:
    """Return what a foundation must have in common with what starts from it, as tags."""
    values = architecture.to_dict()
    tags = {name: str(values[name]) for name in _CODEC}
    return {**tags, _HOLDOUT: str(float(holdout))}
