"""A legacy file whose model is good: the widths of the old programme, filled by hand like `exact_model`."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

LATENT = 16
RADIUS = 32
CONFIG = {
    "latent_dim": LATENT,
    "hidden_dim": 64,
    "curvature": 1.0,
    "max_radius": 0.95,
    "use_controller": False,
    "dual_projection": True,
    "projection_layers": 1,
}


def exact_legacy_file(path: Path, n_trits: int = 9, **config: object) -> Path:
    """Write a file whose branch A has coverage 1 and a hierarchy at its ceiling."""
    torch.save({"model_state_dict": _state(n_trits), "config": CONFIG | config}, path)
    return path


def _state(n: int) -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state: OrderedDict[str, Tensor] = OrderedDict()

    def linear(name: str, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.zeros(n_out, n_in), torch.zeros(n_out)
        return state[f"{name}.weight"], state[f"{name}.bias"]

    identity = torch.eye(n)
    both_signs = torch.cat([identity, -identity])

    # The trits go through as their positive and negative parts.
    linear("encoder_A.encoder.0", n, 256)[0][: 2 * n] = both_signs
    linear("encoder_A.encoder.2", 256, 128)[0][: 2 * n, : 2 * n] = torch.eye(2 * n)
    linear("encoder_A.encoder.4", 128, 64)[0][: 2 * n, : 2 * n] = torch.eye(2 * n)
    linear("encoder_A.fc_mu", 64, LATENT)[0][:n, : 2 * n] = both_signs.T
    linear("encoder_A.fc_logvar", 64, LATENT)[1].fill_(-8.0)
    linear("decoder_A.decoder.0", LATENT, 32)[0][: 2 * n, :n] = both_signs
    linear("decoder_A.decoder.2", 32, 64)[0][: 2 * n, : 2 * n] = torch.eye(2 * n)
    logits, bias = linear("decoder_A.decoder.4", 64, 3 * n)
    for k in range(n):
        logits[3 * k, n + k] = logits[3 * k + 2, k] = 1.0
        bias[3 * k + 1] = 0.5

    projection = "projection.proj_A."
    state[f"{projection}manifold.isp_c"] = torch.tensor(0.54132485)
    linear(f"{projection}direction_net.0", LATENT, 64)[0].normal_(generator=generator)
    linear(f"{projection}direction_net.1", 64, 64)
    state[f"{projection}direction_net.1.weight"] = torch.ones(64)
    linear(f"{projection}direction_net.3", 64, LATENT)[0].normal_(0, 0.1, generator=generator)
    # SiLU is the identity far from 0, so one unit carries Σ (t_k + 1)·3^-k through, 32 above it.
    weight, bias = linear(f"{projection}radius_net.0", LATENT, RADIUS)
    weight[0, :n] = 3.0 ** -torch.arange(n)
    bias[0] = 32.0 + float(weight[0].sum())
    weight, bias = linear(f"{projection}radius_net.2", RADIUS, 1)
    weight[0, 0] = 2.0
    bias.fill_(-2.0 * (32.0 + 1.5))
    return state
