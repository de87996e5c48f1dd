"""What a model is worth does not depend on what its caller has set in torch, nor does what a training comes to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_model import architecture, random_model, tree_model

import tvae
from tvae import metrics
from tvae.checkpoint import read, save
from tvae.checkpoint.verification import judge_foundation, judge_model
from tvae.config.bounds import Bounds
from tvae.config.training import Configuration
from tvae.embedding.export import embeddings
from tvae.metrics.nearest import nearest
from tvae.model import TernaryVAE
from tvae.served import ServedModel
from tvae.serving import answers
from tvae.torch_defaults import torch_defaults
from tvae.training import Member, train
from tvae.training.start import from_checkpoint, from_foundation, from_scratch

N_TRITS = 6  # fewer operations than these are searched another way
CONFIGURATION = Configuration(epochs=1, batch_size=243, distance_weight=1.0, unfreeze="all")
TABLES = (metrics.trit_table, metrics.targets, metrics.sample_pairs, metrics.sample_partners)


@contextmanager
def setting(change: Callable[[Any], None], value: object, before: object) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(before)


CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast bf16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "inference mode": torch.inference_mode,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "autocast fp16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "default dtype bfloat16": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "device context": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "three threads": lambda: setting(torch.set_num_threads, 3, 1),
    "numpy raises": lambda: np.errstate(all="raise"),
    "products of less precision": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
}
# No two settings of one caller are of the same thing.
TOGETHER = (list(CALLERS)[:5], list(CALLERS)[5:])


def plain(value: Any) -> Any:
    """Return a value such that two of them can be compared bit for bit."""
    if isinstance(value, torch.Tensor):
        assert not value.is_inference(), "whoever trains on it would be refused"
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__") or hasattr(value, "__slots__"):
        return {name: plain(getattr(value, name)) for name in value.__slots__}
    return value


def weights(model: TernaryVAE) -> Any:
    return plain(dict(model.state_dict()))


def everything_of(path: Path) -> dict[str, Any]:
    """Everything that is computed of a checkpoint, and of trainings from scratch, from a foundation and from it."""
    for table in TABLES:
        table.cache_clear()
    checkpoint = read(path)
    model = checkpoint.model
    book = tvae.codebook(model)
    points = np.full((3, N_TRITS), 0.01) * np.arange(1, 4)[:, None]
    served = ServedModel(answers(model))
    foundation = train(from_scratch(architecture(N_TRITS), Configuration(objective="elbo", epochs=1, batch_size=243)))
    start = from_checkpoint(checkpoint, architecture(N_TRITS), CONFIGURATION)[0]
    return {
        "read": weights(model),
        "codebook": plain(book),
        "evaluate": plain(tvae.evaluate(model)),
        "nearest": plain(nearest(book.points[:40], book.points, curvature=book.curvature, count=3)),
        "decode": plain([tvae.decode(points, source) for source in (book, model)]),
        "nearest operations": plain(tvae.nearest_operations(5, book)),
        "ball": plain(tvae.adic_ball(5, 2, model)),
        "geodesic": plain(tvae.geodesic(1, 2, model)),
        "transformer": plain(tvae.TernaryEmbedding(model).fit(np.zeros((1, N_TRITS))).transform(np.ones((1, N_TRITS)))),
        "export": plain(embeddings(model)),
        "served": served.predict(np.array([[0], [1]]), {"embedding": True}),
        "judged": [judge(checkpoint, Bounds())[:2] for judge in (judge_model, judge_foundation)],
        "foundation": weights(foundation.model),
        "finetuned": weights(train(from_foundation(foundation, CONFIGURATION)).model),
        "finetuned from the file": weights(train(start).model),
        "history": foundation.history,
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "c"
    save(path, tree_model(N_TRITS), trained=("encoder", "decoder", "projection", "controller"), training={}, metrics={})
    return path


@pytest.fixture(scope="module")
def expected(path: Path) -> dict[str, Any]:
    return everything_of(path)


@pytest.mark.parametrize("names", TOGETHER, ids=" and ".join)
def test_results_do_not_depend_on_what_the_caller_has_set(
    names: list[str], path: Path, expected: dict[str, Any]
) -> None:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(CALLERS[name]())
        found = everything_of(path)
    assert [key for key in expected if found[key] != expected[key]] == []
    # Tables that were made under the caller's settings are used by the next.
    assert plain(tvae.evaluate(read(path).model)) == expected["evaluate"]


@pytest.mark.parametrize("name", ["autocast bf16", "default dtype float64", "inference mode", "no gradients"])
def test_a_model_that_was_made_under_other_settings_can_be_trained(name: str) -> None:
    expected = train(Member(CONFIGURATION, random_model(architecture(4)), (), torch.Generator().manual_seed(0)))
    with CALLERS[name]():
        model = random_model(architecture(4))
        found = train(Member(CONFIGURATION, model, (), torch.Generator().manual_seed(0)))
    assert weights(found.model) == weights(expected.model)
    assert all(parameter.requires_grad for parameter in found.model.parameters())


@pytest.mark.parametrize("name", CALLERS)
def test_the_settings_of_the_caller_are_left_as_they_were(name: str) -> None:
    def settings() -> list[Any]:
        return [
            torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
        ]

    with CALLERS[name]():
        before = settings()
        with suppress(ZeroDivisionError), torch_defaults(gradients=True, threads=2):
            assert settings() == [False, torch.float32, torch.device("cpu"), False, True, 2, "highest"]
            raise ZeroDivisionError
        assert settings() == before
