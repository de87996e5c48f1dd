"""Files of the v5.11 programme: weights in its layout, and a file whose model is good, filled by hand."""

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LATENT = 16
HIDDEN = 64
CONFIG = {
    "latent_dim": LATENT,
    "hidden_dim": HIDDEN,
    "curvature": 1.0,
    "max_radius": 0.95,
    "use_controller": False,
    "dual_projection": True,
    "projection_layers": 1,
}


def legacy_state(
    n_trits: int,
    latent: int,
    encoder: tuple[int, ...],
    decoder: tuple[int, ...],
    hidden: int,
    *,
    layers: int = 1,
    dual: bool = True,
    controller: bool = False,
    isp_c: float = 1.0,
) -> OrderedDict[str, Tensor]:
    """Return random weights in the v5.11 layout: `hidden` is the width of the direction net, `layers` the hidden layers
    of each net of the projection, `dual` a projection for each branch, `isp_c` the curvature that it stores."""
    rng = np.random.default_rng(5)
    state: OrderedDict[str, Tensor] = OrderedDict()

    def linear(name: str, n_in: int, n_out: int) -> None:
        state[f"{name}.weight"] = torch.from_numpy(rng.normal(0, 0.7, (n_out, n_in)).astype(np.float32))
        state[f"{name}.bias"] = torch.from_numpy(rng.normal(0, 0.7, n_out).astype(np.float32))

    def norm(name: str, n: int) -> None:
        state[f"{name}.weight"] = torch.from_numpy(rng.normal(1, 0.7, n).astype(np.float32))
        state[f"{name}.bias"] = torch.from_numpy(rng.normal(0, 0.7, n).astype(np.float32))

    def stack(name: str, *widths: int, step: int = 2) -> None:
        for i, n_out in enumerate(widths[1:]):
            linear(f"{name}.{step * i}", widths[i], n_out)

    for branch in "AB":
        stack(f"encoder_{branch}.encoder", n_trits, *encoder)
        linear(f"encoder_{branch}.fc_mu", encoder[-1], latent)
        linear(f"encoder_{branch}.fc_logvar", encoder[-1], latent)
    stack("decoder_A.decoder", latent, *decoder, 3 * n_trits)
    for projection in ("projection.proj_A", "projection.proj_B") if dual else ("projection",):
        state[f"{projection}.manifold.isp_c"] = torch.tensor(math.log(math.expm1(isp_c)))
        stack(f"{projection}.direction_net", latent, *[hidden] * layers, latent, step=3)
        for i in range(layers):
            norm(f"{projection}.direction_net.{3 * i + 1}", hidden)
        stack(f"{projection}.radius_net", latent, *[max(32, hidden // 2)] * layers, 1)
    if controller:
        linear("controller.net.0", 8, 32)
        norm("controller.net.1", 32)
        linear("controller.net.3", 32, 32)
        linear("controller.net.5", 32, 6)
    return state


def exact_legacy_file(path: Path, n_trits: int = 9, **config: object) -> Path:
    """Write a file whose branch A has coverage 1 and a hierarchy at its ceiling."""
    torch.save({"model_state_dict": _exact_state(n_trits), "config": CONFIG | config}, path)
    return path


def _exact_state(n: int) -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = legacy_state(n, LATENT, (256, 128, 64), (32, 64), HIDDEN)
    for name, tensor in state.items():
        if not name.endswith("isp_c"):
            tensor.zero_()

    # The trits go through as their positive and negative parts.
    identity = torch.eye(n)
    both_signs = torch.cat([identity, -identity])
    state["encoder_A.encoder.0.weight"][: 2 * n] = both_signs
    for name in ("encoder_A.encoder.2", "encoder_A.encoder.4", "decoder_A.decoder.2"):
        state[f"{name}.weight"][: 2 * n, : 2 * n] = torch.eye(2 * n)
    state["encoder_A.fc_mu.weight"][:n, : 2 * n] = both_signs.T
    state["encoder_A.fc_logvar.bias"].fill_(-8.0)
    state["decoder_A.decoder.0.weight"][: 2 * n, :n] = both_signs
    logits, bias = state["decoder_A.decoder.4.weight"], state["decoder_A.decoder.4.bias"]
    for k in range(n):
        logits[3 * k, n + k] = logits[3 * k + 2, k] = 1.0
        bias[3 * k + 1] = 0.5

    projection = "projection.proj_A."
    state[f"{projection}direction_net.0.weight"].normal_(generator=generator)
    state[f"{projection}direction_net.1.weight"].fill_(1.0)
    state[f"{projection}direction_net.3.weight"].normal_(0, 0.1, generator=generator)
    # SiLU is the identity far from 0, so one unit carries Σ (t_k + 1)·3^-k through, 32 above it.
    weight = state[f"{projection}radius_net.0.weight"]
    weight[0, :n] = 3.0 ** -torch.arange(n)
    state[f"{projection}radius_net.0.bias"][0] = 32.0 + float(weight[0].sum())
    state[f"{projection}radius_net.2.weight"][0, 0] = 2.0
    state[f"{projection}radius_net.2.bias"].fill_(-2.0 * (32.0 + 1.5))
    return state
