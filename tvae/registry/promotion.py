"""Promotion: a verified checkpoint becomes a version of the registered model, and the champion if it is better."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tvae.checkpoint import Checkpoint, Verification, read
from tvae.errors import CheckpointError, RegistryError
from tvae.registry.address import fetch, model_named, run_named
from tvae.registry.comparison import OPERATIONS, RANKING, SERVED, ModelComparison
from tvae.registry.lock import locked
from tvae.registry.store import CHAMPION, PREVIOUS, answering, ensure_model, note_version, versions_of
from tvae.tracking.description import model_settings, preformatted
from tvae.tracking.links import run_page

__all__ = ["MODEL", "MODES", "Promotion", "find_model", "promote", "require_promotable", "rollback"]

_logger = logging.getLogger(__name__)

MODEL = "tvae"
MODES = ("auto", "force")

_order = ", ".join(f"{c.label} ({c.step:g})" for c in RANKING)
_guards = ", ".join(c.label for c in RANKING if c.guards)
_DESCRIPTION = f"""\
Ternary operations in a Poincaré ball. Every version has passed verification; its tags say how it measured.

The alias `{CHAMPION}` moves to a version that is better, by the first of these that differs by as much as matters: \
{_order}; and that is not worse in one of {_guards}. The champion before keeps `{PREVIOUS}`; `promote --rollback` \
swaps the two.
"""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a checkpoint in the registry.

    Attributes:
        version: that holds the checkpoint.
        registered: whether that version is new.
        moved: whether it became champion.
        champion: the version that is champion now.
        previous: the version that has the alias `previous` now, if any.
        comparison: with the champion before; None if there was none, or if this version was it.
    """

    version: str
    registered: bool
    moved: bool
    champion: str
    previous: str | None
    comparison: ModelComparison | None

    def sentence(self) -> str:
        """Return one line that says what happened, and by what measure."""
        where = f"{'Registered as' if self.registered else 'It is'} {MODEL} version {self.version}"
        if self.comparison is None:
            return f"{where}, the first {CHAMPION}." if self.moved else f"{where} already, the {CHAMPION}."
        reason = self.comparison.reason()
        if not self.moved:
            stays = f"{CHAMPION} stays version {self.champion}"
            if self.comparison.setback is not None or OPERATIONS in self.comparison.changed:
                return f"{where}. It is {reason}: {stays}; `promote --mode force` would move it."
            return f"{where}. It is not better ({reason}): {stays}."
        how = "better" if self.comparison.better else "by force"
        return f"{where}, {CHAMPION} now, {how} ({reason}); version {self.previous} is {PREVIOUS}."


def promote(
    client: MlflowClient,
    verification: Verification,
    *,
    model_id: str,
    mode: str = "auto",
) -> Promotion:
    """Register a verified checkpoint, and make it the champion if it is better.

    A checkpoint has one version: one that is registered already keeps it.

    Args:
        client: of the registry.
        verification: of what to promote, whose projection was learned. One that failed is refused in every mode.
        model_id: the logged model that serves the checkpoint.
        mode: `auto` moves the champion to the better; `force` moves it here, better or not.

    Raises:
        RegistryError: if the checkpoint may not be registered, with the whole verdict, or if the registry does not
            answer. Nothing is registered then.
    """
    if mode not in MODES:
        raise RegistryError(f"`mode` must be one of {', '.join(MODES)}, got {mode}.")
    checkpoint = require_promotable(verification)
    with answering(MODEL):
        known = _holder(versions_of(client, MODEL), checkpoint.digest)
        _require_same(f"models:/{MODEL}/{known.version}" if known else f"models:/{model_id}", checkpoint.digest)
        ensure_model(client, MODEL, _DESCRIPTION)
        with locked(client, MODEL):
            versions = versions_of(client, MODEL)
            holder = _holder(versions, checkpoint.digest)
            champion, previous = _aliases(client)
            comparison = None
            if champion is not None and (holder is None or str(holder.version) != champion):
                old = _numbered(versions, champion)
                comparison = ModelComparison(
                    _metrics(old),
                    verification.metrics,
                    f"{CHAMPION}, version {champion}",
                    "this one",
                    {name: old.tags[name] for name in SERVED if name in old.tags},
                    _served(checkpoint),
                )
            number = (
                str(holder.version) if holder else _register(client, checkpoint, verification, model_id, comparison)
            )
            moves = champion is None or (comparison is not None and (comparison.better or mode == "force"))
            if moves:
                if champion is not None:
                    client.set_registered_model_alias(MODEL, PREVIOUS, champion)
                    previous = champion
                client.set_registered_model_alias(MODEL, CHAMPION, number)
        if not moves and champion != number and (lost := _lost(f"models:/{MODEL}/{champion}")):
            _logger.info("The %s cannot be served: %s Promote with mode=force to replace it.", CHAMPION, lost)
    return Promotion(
        version=number,
        registered=holder is None,
        moved=moves,
        champion=number if moves or champion is None else champion,
        previous=previous,
        comparison=comparison,
    )


def rollback(client: MlflowClient) -> tuple[str, str]:
    """Swap `champion` and `previous`. Done twice, it changes nothing.

    Args:
        client: of the registry.

    Returns:
        The versions that are champion and previous now.

    Raises:
        RegistryError: if there is no verified version to go back to.
    """
    with answering(MODEL):
        names = [found.name for found in client.search_registered_models(f"name = '{MODEL}'")]
        if not names:
            raise RegistryError(f"A {CHAMPION} must be there to be rolled back; {MODEL} has no versions yet.")
        with locked(client, MODEL):
            champion, previous = _aliases(client)
            if champion is None or previous is None or champion == previous:
                raise RegistryError(
                    f"A rollback needs a {PREVIOUS} version beside the {CHAMPION}; found {CHAMPION} "
                    f"{champion or 'nowhere'}, {PREVIOUS} {previous or 'nowhere'}. Promote another with mode=force."
                )
            if not _is_verified(_numbered(versions_of(client, MODEL), previous)):
                raise RegistryError(
                    f"Only a verified version can be {CHAMPION}; version {previous} has no tag verified=true. "
                    "Promote it, which verifies it."
                )
            if lost := _lost(f"models:/{MODEL}/{previous}"):
                raise RegistryError(f"Version {previous} must have its files to be {CHAMPION} again: {lost}")
            client.set_registered_model_alias(MODEL, CHAMPION, previous)
            client.set_registered_model_alias(MODEL, PREVIOUS, champion)
    return previous, champion


def _lost(address: str) -> str | None:
    """Return why a checkpoint cannot be read any more, None if it can."""
    try:
        with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
            read(fetch(address, Path(folder)))
    except CheckpointError as error:
        return str(error)
    return None


def find_model(client: MlflowClient, address: str, digest: str) -> str | None:
    """Return the logged model that serves a checkpoint, None if there is none.

    Args:
        client: of the store.
        address: where the checkpoint was found.
        digest: of the checkpoint.
    """
    with answering(MODEL):
        if holder := _holder(versions_of(client, MODEL), digest):
            return _model_of(holder)
        if named := model_named(address):
            return named
        run_id = run_named(address)
        if run_id is None:
            return None
        outputs = client.get_run(run_id).outputs
        models = [client.get_logged_model(output.model_id) for output in outputs.model_outputs] if outputs else []
        # Those of earlier versions have no such tag, and metrics that are not the file's: they are logged again.
        held = [str(model.model_id) for model in models if model.tags.get("checkpoint") == digest[:16]]
        return held[-1] if held else None


def require_promotable(verification: Verification) -> Checkpoint:
    """Return the checkpoint that was verified, if it may be registered.

    Raises:
        RegistryError: if it may not, with the whole verdict.
    """
    checkpoint = verification.checkpoint
    if not verification.passed or checkpoint is None:
        raise RegistryError(
            f"Only a verified checkpoint can be registered, whatever the mode; this one failed:\n{verification.table()}"
        )
    if "projection" not in checkpoint.trained:
        raise RegistryError(
            f"A version of {MODEL} must have a learned projection; this is a foundation, of which only "
            f"{', '.join(checkpoint.trained) or 'nothing'} was learned. Finetune it, and promote that."
        )
    return checkpoint


def _require_same(address: str, digest: str) -> None:
    """Refuse a model that holds another checkpoint than the verified one, or other answers than its network's."""
    from tvae.serving import require_same_answers  # imports pandas

    with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
        path = fetch(address, Path(folder))
        found = read(path).digest
        if found != digest:
            raise RegistryError(f"{address} must serve the verified checkpoint, {digest}; it serves {found}.")
        require_same_answers(path.parent)


def _register(
    client: MlflowClient,
    checkpoint: Checkpoint,
    verification: Verification,
    model_id: str,
    comparison: ModelComparison | None,
) -> str:
    model = client.get_logged_model(model_id)
    metrics = {name: f"{value:.9g}" for name, value in verification.metrics.items()}
    tags = {"verified": "true", "digest": checkpoint.digest, **_served(checkpoint), **metrics}
    page = run_page(model.experiment_id, model.source_run_id) if model.source_run_id else None
    # In one call, so that there is never a version without its verdict.
    made = client.create_model_version(
        MODEL,
        source=f"models:/{model_id}",
        run_id=model.source_run_id,
        tags=tags,
        description=_describe(checkpoint, verification, metrics, comparison, page),
        model_id=model_id,
    )
    note_version(client, model_id, MODEL, str(made.version))
    return str(made.version)


def _describe(
    checkpoint: Checkpoint,
    verification: Verification,
    metrics: Mapping[str, str],
    comparison: ModelComparison | None,
    page: str | None,
) -> str:
    architecture = checkpoint.architecture
    # The table of versions shows the first 32 characters, and shows them as they are.
    first = sorted(RANKING, key=lambda criterion: criterion.name != "hierarchy")
    summary = ", ".join(f"{c.label} {c.shown(verification.metrics)}" for c in first)
    logged = f" [The run that logged it]({page})." if page else ""
    lines = [
        f"Verified: {summary}. Curvature {architecture.curvature:g}, largest unit norm "
        f"{architecture.max_radius:g}, digest `{checkpoint.digest[:16]}…`.{logged}",
        "",
        verification.markdown(),
    ]
    if comparison is not None:
        lines += ["When it was registered:", "", comparison.markdown(), ""]
    lines += ["What was measured:", "", preformatted([("metric", "value"), *metrics.items()])]
    return "\n".join(lines)


def _served(checkpoint: Checkpoint) -> dict[str, str]:
    settings = model_settings(checkpoint)
    return {name: settings[name] for name in SERVED if name in settings}


def _holder(versions: Sequence[ModelVersion], digest: str) -> ModelVersion | None:
    """Return the version of a checkpoint, None if there is none or the files of all are gone."""
    held = [v for v in versions if v.tags.get("digest") == digest and _is_verified(v)]
    return next((v for v in held if _lost(f"models:/{MODEL}/{v.version}") is None), None)


def _numbered(versions: Sequence[ModelVersion], number: str) -> ModelVersion:
    # The version of a version is a text or an integer, by where it comes from.
    return next(v for v in versions if str(v.version) == number)


def _is_verified(version: ModelVersion) -> bool:
    return bool(version.tags.get("verified") == "true")


def _metrics(version: ModelVersion) -> dict[str, float]:
    """Return what a version's tags say of it; nothing if it was not verified."""
    values = {}
    for criterion in RANKING if _is_verified(version) else ():
        try:
            values[criterion.name] = float(version.tags.get(criterion.name, "nan"))
        except ValueError:
            continue
    return values


def _aliases(client: MlflowClient) -> tuple[str | None, str | None]:
    aliases = client.get_registered_model(MODEL).aliases
    champion, previous = (str(aliases[name]) if name in aliases else None for name in (CHAMPION, PREVIOUS))
    return champion, previous


def _model_of(version: ModelVersion) -> str | None:
    return model_named(version.source or "") or version.model_id
