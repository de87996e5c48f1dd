"""Every tensor of a training step lies on the device asked for: tried on `meta`, which computes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tvae import metrics
from tvae.config.architecture import Architecture
from tvae.config.presets import PRESETS, resolve, resolve_foundation
from tvae.config.training import Configuration
from tvae.model import TernaryVAE
from tvae.objectives import TERMS
from tvae.training.optimizer import Weights
from tvae.training.sampling import Sample, Sampler
from tvae.training.step import Step

META = torch.device("meta")
# On any other device the weights are copied there.
pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")


class OneDevice(TorchDispatchMode):
    """Refuses what is computed from tensors on several devices, as a GPU does; numbers and copies may cross."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim() > 0]
        devices = {tensor.device.type for tensor in tensors}
        assert len(devices) < 2 or func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy), func
        return func(*args, **(kwargs or {}))


def step_once(architecture: Architecture, configuration: Configuration) -> list[Tensor]:
    """Take one step of two members on `meta`; return what it came to, the weights included."""
    step = Step(architecture, configuration, META)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    learning = dict.fromkeys(("encoder.", "decoder.", "projection."), 1.0)
    weights = Weights([TernaryVAE(architecture) for _ in generators], learning, configuration.optimizer, META)
    latents = metrics.posterior_mean(weights.model)
    covered = metrics.reproduced(weights.model, latents)
    levels = architecture.n_trits + 1
    step.set_members([1.0, 2.0], [0.04, 0.04], [generators], latents, [0, 1], torch.ones(2, levels))
    drawn = [Sampler(architecture.n_trits, configuration, generator).epoch() for generator in generators]
    sample = Sample(*(torch.stack(parts).to(META) for parts in zip(*drawn, strict=True)))
    terms, statistics = step(weights.model, sample, 0)
    assert terms.shape == (2, len(TERMS))
    loss = terms.sum() + 0 * sum(parameter.sum() for parameter in weights.model.parameters())
    gradient = weights.gradient(loss)
    weights.step(gradient, torch.tensor([0.1, 0.2], device=META))
    return [terms, statistics, gradient, latents, covered, *weights.model.parameters()]


CASES: list[tuple[str, dict[str, Any]]] = [
    *((preset, {}) for preset in PRESETS),
    ("radii", {"unfreeze": "all", "objective": "level_mean", "use_controller": True}),
    ("rich", {"n_trits": 5, "use_controller": True, "unfreeze": "all"}),
    ("radii", {"n_trits": 27}),
]
ARCHITECTURES = {f"{p} {' '.join(s)}".strip(): resolve(p, s) for p, s in CASES}
ARCHITECTURES["a foundation"] = Architecture(), resolve_foundation(Architecture(), {})


@pytest.mark.parametrize(
    "asked",
    [
        *(pytest.param(asked, id=name) for name, asked in ARCHITECTURES.items()),
        pytest.param(resolve("default", {"n_trits": 27}), id="default n_trits", marks=pytest.mark.long),
    ],
)
def test_a_step_stays_on_its_device(asked: tuple[Architecture, Configuration]) -> None:
    with OneDevice():
        found = step_once(*asked)
    assert {tensor.device for tensor in found} == {META}


def test_a_tensor_that_was_left_behind_is_found() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="index_select"):
        torch.empty(4, 3, device=META).index_select(0, torch.tensor([0, 1]))
