"""What every test starts from."""

import gc
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tvae.fresh import FreshProcess

if TYPE_CHECKING:
    from desk import Desk

# The tensors of a test are small. On a busy machine threads that wait for one another made them ten times slower.
torch.set_num_threads(1)
# `make test &` in a script starts with Ctrl-C ignored, and the commands that the tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Imports make a million objects that stay. To look for garbage among them took a tenth of the tests' time. The process
# that only hands tests to others collects none, and goes without.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def forked_processes() -> Iterator[None]:
    """Let fresh processes be forks, from the first that a test asks for. MLflow is imported then: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:

        def start(process: FreshProcess, *arguments: Any) -> Any:
            from desk import fork_fresh_processes

            fork_fresh_processes(patch)
            return FreshProcess._start(process, *arguments)

        patch.setattr(FreshProcess, "_start", start)
        yield


@pytest.fixture
def desk(tmp_path: Path) -> "Iterator[Desk]":
    """A desk at which nothing is left at work, however a test ends."""
    from desk import Desk

    desk = Desk(tmp_path)
    yield desk
    desk.leave()
