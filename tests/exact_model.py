"""A model built by hand that is perfect: coverage 1, hierarchy at its ceiling, all levels in order.

v(i) >= k means that the first k trits are -1. So Σ (t_k + 1)·3^-k, the index with its digits reversed, falls from level
to level, and differs for any two operations; a radius that rises with it is what the metrics ask for.
"""

import torch

from tvae.config.architecture import Architecture
from tvae.model import TernaryVAE


def architecture(n_trits: int = 3, **changes: object) -> Architecture:
    """Return the smallest architecture that `exact_model` can fill."""
    values: dict = {
        "n_trits": n_trits,
        "latent_dim": n_trits,
        "encoder_hidden": (2 * n_trits,),
        "decoder_hidden": (2 * n_trits,),
        "hidden_dim": 4,
        "n_projection_layers": 1,
        "max_radius": 0.95,
        "centred": False,
        "use_controller": True,
    }
    return Architecture(**(values | changes))


def random_model(architecture: Architecture, seed: int = 0) -> TernaryVAE:
    """Return a model with every weight drawn."""
    model = TernaryVAE(architecture)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


@torch.no_grad()
def exact_model(n_trits: int = 3, *, steepness: float = 2.0, middle: float = 1.5, **changes: object) -> TernaryVAE:
    """Return the perfect model, whose unit norm is max_radius·sigmoid(steepness·(Σ - middle)) with Σ from 0 to 3.

    A steepness of 0 collapses its radii; steepness 30 and middle 0.4 saturate them at valuation 0.
    """
    model = random_model(architecture(n_trits, **changes))
    identity = torch.eye(n_trits)
    positive_and_negative = torch.cat([identity, -identity])
    model.encoder.hidden[0].weight.copy_(positive_and_negative)
    model.encoder.hidden[0].bias.zero_()
    model.encoder.mean.weight.copy_(positive_and_negative.T)
    model.encoder.mean.bias.zero_()

    model.decoder.layers[0].weight.copy_(positive_and_negative)
    model.decoder.layers[0].bias.zero_()
    logits, bias = model.decoder.layers[2].weight.zero_(), model.decoder.layers[2].bias.zero_()
    for k in range(n_trits):
        logits[3 * k, n_trits + k] = logits[3 * k + 2, k] = 1.0
        bias[3 * k + 1] = 0.5

    # SiLU is the identity far from 0, so one unit carries the sum through, 32 above it.
    into, out = model.projection.radius_net[0], model.projection.radius_net[2]
    into.weight.zero_()[0] = 3.0 ** -torch.arange(n_trits)
    into.bias.zero_()[0] = 32.0 + float(into.weight[0].sum())
    out.weight.zero_()[0, 0] = steepness
    out.bias.fill_(-steepness * (32.0 + middle))
    return model


@torch.no_grad()
def tree_model(n_trits: int = 9, *, ratio: float = 0.45) -> TernaryVAE:
    """Return the perfect model with trit k of its latent scaled by ratio^k: what shares its first trits is near."""
    model, scale = exact_model(n_trits), ratio ** torch.arange(n_trits)
    model.encoder.mean.weight *= scale[:, None]
    model.decoder.layers[0].weight /= scale
    model.projection.radius_net[0].weight /= scale
    return model
