"""Embed: write the embeddings of all operations."""

import logging

from tvae.cli.command import command
from tvae.cli.options import CHAMPION_ADDRESS, NONE, address, out
from tvae.workflows.messages import say_where

_logger = logging.getLogger(__name__)


@command
@address(CHAMPION_ADDRESS)
@out("Also write the files into this folder.")
def main(checkpoint: str, out: str) -> None:
    """Write all 19,683 embeddings, as .npz, as Parquet and as a page to look at, to the run.

    Both tables hold index, trits, valuation, radius, norm and the point in the ball: the array z in the .npz, the
    columns z0, z1, … in the Parquet file. disk.html shows the operations in the Poincaré disk, in any browser.
    """
    from pathlib import Path

    from tvae import registry
    from tvae.checkpoint import atomic, read
    from tvae.embedding.export import NPZ, PARQUET, embeddings, to_npz, to_parquet
    from tvae.errors import CheckpointError
    from tvae.plots import disk
    from tvae.tracking.run import open_run
    from tvae.tracking.store import connect

    client = connect()
    with open_run(client, name=f"embed {registry.short(checkpoint)}", tags={"stage": "embed"}) as run:
        run.log_parameters({"checkpoint": checkpoint, "out": out})
        source = read(registry.fetch(checkpoint, run.folder))
        run.set_tags({"checkpoint": source.digest[:16]})
        table = embeddings(source.model)
        files = {NPZ: to_npz(table), PARQUET: to_parquet(table)}
        if source.architecture.n_trits <= disk.MOST_TRITS:
            files[disk.PAGE_NAME] = disk.page(table["z"], curvature=source.architecture.curvature).encode()
        for name, content in files.items():
            (run.folder / name).write_bytes(content)
            run.log_file(run.folder / name, "embeddings")
            if out != NONE:
                try:
                    Path(out).mkdir(parents=True, exist_ok=True)
                    atomic.replace(Path(out) / name, [content])
                except (OSError, ValueError) as error:
                    raise CheckpointError(f"{Path(out) / name} was not written; found: {error}.") from error
        _logger.info(f"{len(table['index'])} embeddings of {checkpoint} (digest {source.digest[:12]}…)")
        _logger.info(f"  {', '.join(files)}: in the run{'' if out == NONE else f' and in {Path(out).absolute()}'}")
        say_where(run.page("artifacts/embeddings"))
