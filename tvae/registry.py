"""The registry: which checkpoint carries which name."""

import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tvae.architecture import Architecture
from tvae.checkpoint import FILE_NAME, Checkpoint
from tvae.errors import CheckpointError

__all__ = ["CHAMPION", "FOUNDATION", "MODEL", "fetch", "find_foundation", "register_foundation"]

MODEL = "tvae"
FOUNDATION = "tvae-foundation"
CHAMPION = "champion"
_CODEC = ("n_trits", "latent_dim", "encoder_hidden", "decoder_hidden")


def fetch(address: str, folder: Path) -> Path:
    """Bring a checkpoint to this machine.

    Args:
        address: a path of a file or of a folder that holds one checkpoint, or a `models:/` or `runs:/` address.
        folder: where downloads go.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: if there is none, or more than one.
    """
    if ":/" not in address:
        path = Path(address).expanduser()
        if path.is_file():
            return path
        found = sorted(path.rglob(FILE_NAME)) if path.is_dir() else []
    else:
        try:
            inside = tempfile.mkdtemp(dir=folder)
            found = sorted(Path(mlflow.artifacts.download_artifacts(address, dst_path=inside)).rglob(FILE_NAME))
        except (MlflowException, OSError) as error:
            raise CheckpointError(
                f"`checkpoint` must name a checkpoint, got {address}; {str(error).splitlines()[0]}"
            ) from error
    if len(found) != 1:
        what = "nothing is there" if not found else f"{len(found)} are there"
        raise CheckpointError(
            f"`checkpoint` must be auto, a path of a {FILE_NAME}, or a models:/ or runs:/ address of one, "
            f"got {address}: {what}."
        )
    return found[0]


def find_foundation(client: MlflowClient, architecture: Architecture) -> str | None:
    """Return the address of a registered foundation that fits an architecture, None if there is none.

    The champion comes first, then the newest version: a foundation fits if its encoder and decoder have the shapes.
    """
    wanted = _codec_tags(architecture)
    try:
        champion = client.get_model_version_by_alias(FOUNDATION, CHAMPION).version
    except MlflowException:
        champion = None
    found = client.search_model_versions(f"name = '{FOUNDATION}'", max_results=1000)
    versions = sorted(found, key=lambda v: (v.version == champion, int(v.version)), reverse=True)
    fitting = [v for v in versions if wanted.items() <= v.tags.items()]
    return f"models:/{FOUNDATION}/{fitting[0].version}" if fitting else None


def register_foundation(client: MlflowClient, checkpoint: Checkpoint, run_id: str) -> str:
    """Register the verified foundation of a run, and make it the champion.

    Returns:
        Its version.
    """
    try:
        client.create_registered_model(FOUNDATION, description="Encoders and decoders that finetuning starts from.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = _codec_tags(checkpoint.architecture) | {"coverage": f"{checkpoint.metrics['coverage']:.6f}"}
    made = client.create_model_version(FOUNDATION, source=f"runs:/{run_id}/checkpoint", run_id=run_id, tags=tags)
    client.set_registered_model_alias(FOUNDATION, CHAMPION, made.version)
    return str(made.version)


def _codec_tags(architecture: Architecture) -> dict[str, str]:
    values = architecture.to_dict()
    return {name: str(values[name]) for name in _CODEC}
