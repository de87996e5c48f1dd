"""A step in parts: two processes come to the model that one comes to which computes the parts in turn."""

import math
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tvae.config.architecture import Architecture
from tvae.config.training import FOUNDATION, Configuration
from tvae.errors import ConfigurationError
from tvae.training import Result, train
from tvae.training.optimizer import Weights
from tvae.training.parallel import Parts
from tvae.training.sampling import Sampler
from tvae.training.start import from_scratch

SMALL: dict[str, Any] = {
    "n_trits": 5,
    "latent_dim": 5,
    "encoder_hidden": (16,),
    "decoder_hidden": (16,),
    "hidden_dim": 8,
}
SETTINGS = {
    "foundation": FOUNDATION.replace(epochs=1, batch_size=2000),
    "distances": Configuration(epochs=1, batch_size=2048),
    "radii": Configuration(epochs=1, batch_size=2000, distance_weight=0.0, hierarchy_weight=5.0, unfreeze="none"),
}

# A process of the group prints a digest of the weights that it came to in each way.
PROCESS = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from test_parallel import SETTINGS, digest, result
from tvae.training.parallel import Parts
torch.distributed.init_process_group("gloo", init_method=sys.argv[1], rank=int(sys.argv[2]), world_size=2)
print(*(digest(result(which, Parts.of_process())) for which in SETTINGS))
torch.distributed.destroy_process_group()
"""


def result(which: str, parts: Parts) -> Result:
    return train(from_scratch(Architecture(**SMALL), SETTINGS[which]), parts=parts)


def digest(found: Result) -> str:
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in found.model.parameters())
    return sha256(weights + repr(found.history).encode()).hexdigest()


@pytest.mark.long
def test_two_processes_give_the_model_of_one(tmp_path: Path) -> None:
    group, here = f"file://{tmp_path / 'group'}", str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, group, str(rank), here],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    alone = [digest(result(which, Parts.in_turn(2))) for which in SETTINGS]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out.split() for out, _ in outputs] == [alone, alone], outputs[0][1]


@pytest.mark.parametrize("which", ["foundation", "distances"])
def test_a_step_in_parts_is_the_whole_step(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over operations is, whatever the parts hold; the order of distances is where the parts hold the same."""
    settings = SETTINGS[which].replace(batch_size=256)
    member = from_scratch(Architecture(**SMALL), settings)
    with torch.no_grad():
        # Parts have noise of their own: it must be too small to be seen.
        member.model.encoder.log_variance.weight.zero_()
        member.model.encoder.log_variance.bias.fill_(-60.0)
    sample = Sampler(5, settings, member.generator).epoch()
    first, second = sample.population.tensor_split(2)
    population = torch.cat([first, first] if which == "distances" else [first[: len(second)], second])
    monkeypatch.setattr(Sampler, "epoch", lambda _: sample._replace(population=population))
    gradients: list[Tensor] = []
    monkeypatch.setattr(Weights, "step", lambda _, gradient, lr: gradients.append(gradient))
    whole, in_parts = (
        {name: value for name, value in train(member, parts=parts).history[1].items() if name.startswith("term_")}
        for parts in (Parts(), Parts.in_turn(2))
    )
    # Float32 gives a mean of n numbers >= 0 to n·2^-24 of itself, and the network gives the numbers in batches of
    # another size to less than that; two such means are compared. A gradient's numbers are of either sign, and of those
    # of a random net a sum is left of about 1/sqrt(n) of their absolute sum: its error is as much larger.
    n = 8 * 32 * 5  # subtrees, operations, levels or trits
    bound = 4 * n * 2.0**-24
    assert in_parts == pytest.approx(whole, rel=bound)
    assert min(whole.values()) > 0
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < bound * math.sqrt(n)


@pytest.mark.parametrize(
    ("architecture", "parts", "words"),
    [
        ({}, 3, "cut into 3 equal parts; of 2048 a step has 64 binary subtrees"),
        ({"use_controller": True}, 2, "must have whole steps"),
    ],
)
def test_what_cannot_be_cut_is_refused(architecture: dict[str, Any], parts: int, words: str) -> None:
    member = from_scratch(Architecture(**SMALL | architecture), SETTINGS["distances"])
    with pytest.raises(ConfigurationError, match=words):
        train(member, parts=Parts.in_turn(parts))


def test_without_a_group_there_is_no_part() -> None:
    with pytest.raises(ConfigurationError, match="init_process_group first"):
        Parts.of_process()
