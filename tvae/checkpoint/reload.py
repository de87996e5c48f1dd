"""Load a checkpoint in this process and print what it embeds, as a digest: `python -m tvae.checkpoint.reload < PATH`.

`verify` runs this several times in fresh processes. Loading that leaves anything to chance gives other digests. The
path comes on standard input, so that the process can be started, and have imported torch, before there is a file.
"""

import hashlib
import json
import os
import sys

import torch

from tvae import poincare
from tvae.checkpoint.file import read
from tvae.metrics import posterior_mean


def main(path: str) -> None:
    """Print SHA-256 of the posterior means and of the radii of all operations, and the file's own, as a line of JSON.

    Args:
        path: a checkpoint.
    """
    # Processes run side by side; with one thread each they share the cores, and sum in one order.
    torch.set_num_threads(1)
    checkpoint = read(path)
    model = checkpoint.model
    with torch.no_grad():
        latent = posterior_mean(model)
        radius = poincare.radius(model.project(latent).unit_norm, curvature=model.architecture.curvature)
    digests = {
        name: hashlib.sha256(x.numpy().tobytes()).hexdigest() for name, x in (("mean", latent), ("radii", radius))
    }
    print(json.dumps(digests | {"file": checkpoint.digest}))


if __name__ == "__main__":
    # Nothing comes if whoever started it has ended.
    if asked := sys.stdin.buffer.read():
        main(os.fsdecode(asked))
