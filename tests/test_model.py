"""The network: its layout, its arithmetic against torch's own functions, and cohorts against single networks."""

import dataclasses
import math
from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tvae.config.architecture import Architecture
from tvae.metrics import trit_table
from tvae.model import COMPONENTS, TernaryVAE

DEFAULT = Architecture(use_controller=True)
DEEP = Architecture(
    n_trits=5,
    latent_dim=6,
    encoder_hidden=(20,),
    decoder_hidden=(12, 24),
    hidden_dim=80,
    n_projection_layers=3,
    curvature=0.5,
    use_controller=True,
)
SMALL = Architecture(n_trits=3, latent_dim=4, encoder_hidden=(20,), hidden_dim=24, n_projection_layers=1)

each_architecture = pytest.mark.parametrize("architecture", [DEFAULT, SMALL, DEEP], ids=["default", "small", "deep"])


def with_biases(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the layout that checkpoints are written in: Linear weights are (out, in)."""
    kinds = {"weight": slice(None), "bias": slice(1)}
    return {f"{name}.{kind}": shape[cut] for name, shape in weights.items() for kind, cut in kinds.items()}


CONTROLLER = {
    "controller.net.0": (32, 8),
    "controller.net.1": (32,),
    "controller.net.3": (32, 32),
    "controller.net.5": (6, 32),
}
DEFAULT_LAYOUT = {
    "encoder.hidden.0": (256, 9),
    "encoder.hidden.2": (128, 256),
    "encoder.hidden.4": (64, 128),
    "encoder.mean": (16, 64),
    "encoder.log_variance": (16, 64),
    "decoder.layers.0": (32, 16),
    "decoder.layers.2": (64, 32),
    "decoder.layers.4": (27, 64),
    "projection.direction_net.0": (128, 16),
    "projection.direction_net.1": (128,),
    "projection.direction_net.3": (128, 128),
    "projection.direction_net.4": (128,),
    "projection.direction_net.6": (16, 128),
    "projection.radius_net.0": (64, 16),
    "projection.radius_net.2": (64, 64),
    "projection.radius_net.4": (1, 64),
}
DEEP_LAYOUT = {
    "encoder.hidden.0": (20, 5),
    "encoder.mean": (6, 20),
    "encoder.log_variance": (6, 20),
    "decoder.layers.0": (12, 6),
    "decoder.layers.2": (24, 12),
    "decoder.layers.4": (15, 24),
    "projection.direction_net.0": (80, 6),
    "projection.direction_net.1": (80,),
    "projection.direction_net.3": (80, 80),
    "projection.direction_net.4": (80,),
    "projection.direction_net.6": (80, 80),
    "projection.direction_net.7": (80,),
    "projection.direction_net.9": (6, 80),
    "projection.radius_net.0": (40, 6),
    "projection.radius_net.2": (40, 40),
    "projection.radius_net.4": (40, 40),
    "projection.radius_net.6": (1, 40),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(architecture: Architecture, seed: int = 0, dtype: torch.dtype = torch.float32) -> TernaryVAE:
    """A network with every parameter drawn, those too that `initialise` sets to a constant."""
    model = TernaryVAE(architecture)
    model.initialise(generator(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(seed))
    return model.to(dtype)


def cohort(members: list[TernaryVAE]) -> TernaryVAE:
    """One model with the members' weights stacked."""
    states = [member.state_dict() for member in members]
    together = TernaryVAE(members[0].architecture, members=len(members))
    together.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
    return together


def batch(architecture: Architecture, n: int = 512, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-1, 2, (n, architecture.n_trits)).to(dtype)


def everything(model: TernaryVAE, trits: Tensor, statistics: Tensor) -> dict[str, Tensor]:
    """What every method of a model returns; of directions those before the move to the centre: there all are near."""
    mean, log_variance = model.encode(trits)
    unit_norm, direction = model.projection(mean)
    outputs = {
        "mean": mean,
        "log_variance": log_variance,
        "logits": model.decode(mean),
        "unit_norm": unit_norm,
        "direction": direction,
        "norm_about_0": model.project(mean).unit_norm,
        "point": model(trits),
    }
    if model.controller is not None:
        outputs["weights"] = model.controller(statistics)
    return outputs


def layout(model: TernaryVAE) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("architecture", "expected"), [(DEFAULT, DEFAULT_LAYOUT), (DEEP, DEEP_LAYOUT)])
def test_layout_is_that_of_the_checkpoints(architecture: Architecture, expected: dict[str, tuple[int, ...]]) -> None:
    assert layout(TernaryVAE(architecture)) == with_biases(expected | CONTROLLER)


def test_layout_without_a_controller_leaves_only_the_controller_out() -> None:
    assert layout(TernaryVAE(Architecture())) == with_biases(DEFAULT_LAYOUT)


def test_layout_of_a_cohort_has_the_member_axis_first() -> None:
    expected = with_biases(DEFAULT_LAYOUT | CONTROLLER)
    assert layout(TernaryVAE(DEFAULT, members=7)) == {name: (7, *shape) for name, shape in expected.items()}


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def forward_by_hand(state: dict[str, Tensor], trits: Tensor, statistics: Tensor) -> dict[str, Tensor]:
    """The default architecture, written out in torch's own functions."""
    h = trits
    for n in (0, 2, 4):
        h = torch.relu(linear(h, state, f"encoder.hidden.{n}"))
    mean, log_variance = linear(h, state, "encoder.mean"), linear(h, state, "encoder.log_variance")
    h = torch.relu(linear(mean, state, "decoder.layers.0"))
    h = torch.relu(linear(h, state, "decoder.layers.2"))
    logits = linear(h, state, "decoder.layers.4").reshape(-1, 9, 3)
    h = mean
    for n in (0, 3):
        norm = f"projection.direction_net.{n + 1}"
        h = linear(h, state, f"projection.direction_net.{n}")
        h = functional.silu(functional.layer_norm(h, (128,), state[f"{norm}.weight"], state[f"{norm}.bias"]))
    direction = functional.normalize(mean + linear(h, state, "projection.direction_net.6"), dim=-1)
    h = mean
    for n in (0, 2):
        h = functional.silu(linear(h, state, f"projection.radius_net.{n}"))
    farthest = math.tanh(math.atanh(0.9995) / 2)
    unit_norm = farthest * torch.sigmoid(linear(h, state, "projection.radius_net.4"))[:, 0]
    ball = geoopt.PoincareBall(c=torch.tensor(1.0, dtype=torch.float64))
    moved = direction * unit_norm[:, None]
    moved = ball.mobius_add(-moved[-1:], moved)[:-1]  # the last row is operation 0
    h = linear(statistics, state, "controller.net.0")
    h = functional.layer_norm(h, (32,), state["controller.net.1.weight"], state["controller.net.1.bias"])
    h = functional.silu(linear(functional.silu(h), state, "controller.net.3"))
    return {
        "mean": mean[:-1],
        "log_variance": log_variance[:-1],
        "logits": logits[:-1],
        "unit_norm": unit_norm[:-1],
        "direction": direction[:-1],
        "norm_about_0": moved.norm(dim=1),
        "point": moved / math.sqrt(2.0),
        "weights": 6 * torch.softmax(linear(h, state, "controller.net.5"), -1),
    }


def test_forward_pass_is_that_written_out_by_hand() -> None:
    model = network(DEFAULT, dtype=torch.float64)
    trits, statistics = batch(DEFAULT, 100, torch.float64), torch.randn(8, dtype=torch.float64)
    operation_0 = torch.full((1, 9), -1.0, dtype=torch.float64)
    expected = forward_by_hand(model.state_dict(), torch.cat([trits, operation_0]), statistics)
    torch.testing.assert_close(everything(model, trits, statistics), expected, rtol=1e-12, atol=1e-12)


@each_architecture
def test_every_parameter_gets_a_gradient(architecture: Architecture) -> None:
    model = network(architecture)
    outputs = everything(model, batch(architecture), torch.randn(8))
    sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    flat = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
    assert (without, flat) == ([], [])


@pytest.mark.parametrize("curvature", [1e-5, 3.0, 1e5])
@pytest.mark.parametrize("max_radius", [0.5, 1 - 1e-6])
def test_points_of_a_saturated_radius_net_lie_inside_the_ball(curvature: float, max_radius: float) -> None:
    model = network(Architecture(curvature=curvature, max_radius=max_radius))
    with torch.no_grad():
        model.projection.radius_net[-2].bias.fill_(100.0)
        z = model(batch(model.architecture, 5000)).double()
    assert (math.sqrt(curvature) * z.norm(dim=-1)).max() < 1


# The move to the centre


@pytest.mark.parametrize("scale", [0.1, 30.0])
@pytest.mark.parametrize("architecture", [SMALL, DEEP], ids=["small", "deep"])
def test_operation_0_lies_at_the_centre_whatever_the_weights(architecture: Architecture, scale: float) -> None:
    model = network(architecture, dtype=torch.float64)
    trits = trit_table(architecture.n_trits)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
        norm = model.project(model.encode(trits.double())[0]).unit_norm
        assert norm.max() <= architecture.max_radius
        # To rounding: a batch of another size may sum in another order.
        assert norm[0] <= 1e-12
        assert not model.float()(trits[:1]).any()


def test_an_architecture_that_is_not_centred_leaves_operation_0_where_it_is() -> None:
    model = network(dataclasses.replace(SMALL, centred=False))
    mean = model.encode(trit_table(3))[0]
    found, before = model.project(mean), model.projection(mean)
    assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))
    assert found.unit_norm[0] > 0.1


@each_architecture
def test_unit_norms_lie_below_max_radius_and_directions_have_norm_1(architecture: Architecture) -> None:
    unit_norm, direction = network(architecture).project(torch.randn(1000, architecture.latent_dim) * 10)
    assert (unit_norm >= 0).all()
    assert (unit_norm <= architecture.max_radius).all()
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(1000, dtype=torch.float64))


def test_a_point_depends_on_its_operation_alone() -> None:
    model, trits = network(DEFAULT), batch(DEFAULT)
    order = torch.randperm(len(trits))
    torch.testing.assert_close(model(trits[order])[:100], model(trits)[order][:100])


def test_initialise_draws_every_member_apart_and_the_same_from_the_same_seed() -> None:
    one, again, other = (TernaryVAE(DEFAULT, members=2) for _ in range(3))
    for model, seed in ((one, 5), (again, 5), (other, 6)):
        model.initialise(generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    first, second = one.encoder.mean.weight
    assert not torch.equal(first, second)
    assert not torch.equal(first, other.encoder.mean.weight[0])


@pytest.mark.parametrize("component", COMPONENTS)
def test_initialise_touches_the_named_component_alone(component: str) -> None:
    model = network(DEFAULT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise(generator(1), (component,))
    touched = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert touched == {component}


@pytest.mark.parametrize("name", ["encoder.hidden.2", "encoder.mean", "decoder.layers.4", "projection.radius_net.2"])
def test_initialise_draws_evenly_up_to_the_inverse_root_of_the_inputs(name: str) -> None:
    model = TernaryVAE(DEFAULT, members=20)
    model.initialise(generator(0))
    weight = model.get_parameter(f"{name}.weight")
    drawn = torch.cat([weight.flatten(), model.get_parameter(f"{name}.bias").flatten()])
    bound = weight.shape[-1] ** -0.5
    assert drawn.abs().max() <= bound
    assert float(drawn.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_initialise_starts_layer_norms_at_the_identity() -> None:
    model = network(DEFAULT)
    model.initialise(generator(0))
    norm = model.projection.direction_net[1]
    assert torch.equal(norm.weight, torch.ones(128))
    assert not norm.bias.any()


@pytest.mark.parametrize(("members", "rows"), [(1, 227), (7, 1), (7, 512)])
@each_architecture
def test_a_member_of_a_cohort_computes_what_its_network_computes(
    architecture: Architecture, members: int, rows: int
) -> None:
    singles = [network(architecture, seed) for seed in range(members)]
    trits, statistics = batch(architecture, rows), torch.randn(members, 8)
    together = everything(cohort(singles), trits, statistics)
    for m, single in enumerate(singles):
        alone = everything(single, trits, statistics[m])
        torch.testing.assert_close({name: together[name][m] for name in alone}, alone, rtol=1e-6, atol=1e-6)


def test_a_member_of_a_cohort_has_the_gradient_of_its_network() -> None:
    singles = [network(SMALL, seed) for seed in range(3)]
    together, trits = cohort(singles), batch(SMALL)
    together(trits).square().sum().backward()
    singles[1](trits).square().sum().backward()
    for name, parameter in singles[1].projection.named_parameters():
        gradient = together.projection.get_parameter(name).grad[1]
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)


def test_each_member_can_have_a_batch_of_its_own() -> None:
    singles = [network(SMALL, seed) for seed in range(3)]
    trits = torch.stack([batch(SMALL, 64) for _ in singles])
    expected = torch.stack([single(rows) for single, rows in zip(singles, trits, strict=True)])
    torch.testing.assert_close(cohort(singles)(trits), expected, rtol=1e-6, atol=1e-6)


def test_a_broken_member_leaves_the_others_alone() -> None:
    singles = [network(SMALL, seed) for seed in range(3)]
    together, trits = cohort(singles), batch(SMALL)
    before = together(trits)
    with torch.no_grad():
        for parameter in together.parameters():
            parameter[1] = math.nan
    after = together(trits)
    assert after[1].isnan().all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("build", [lambda: network(DEFAULT), lambda: cohort([network(DEFAULT, s) for s in range(3)])])
def test_controller_weights_are_not_negative_and_average_1(build: Callable[[], TernaryVAE], scale: float) -> None:
    model = build()
    assert model.controller is not None
    weights = model.controller(scale * torch.randn(3, 8))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.mean(-1), torch.ones(weights.shape[:-1]))
