"""What every test starts from."""

import random
import signal

import numpy as np
import pytest
import torch

# The tensors of a test are small. On a busy machine threads that wait for one another made them ten times slower.
torch.set_num_threads(1)
# `make test &` in a script starts with Ctrl-C ignored, and the commands that the tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
