"""What every test starts from."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from desk import Desk, fork_fresh_processes

# The tensors of a test are small. On a busy machine threads that wait for one another made them ten times slower.
torch.set_num_threads(1)
# `make test &` in a script starts with Ctrl-C ignored, and the commands that the tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def forked_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        fork_fresh_processes(patch)
        yield


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk at which nothing is left at work, however a test ends."""
    desk = Desk(tmp_path)
    yield desk
    desk.leave()
