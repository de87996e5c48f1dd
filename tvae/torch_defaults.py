"""torch's own defaults, whatever the caller has set: what a model is worth does not depend on who asks.

Notebooks and training scripts change how torch computes for a whole process or block: autocast, the default dtype and
device, inference mode, the precision of products, the number of threads. Under some of them the same model has other
points, and under others a table that is made once and kept would be unusable ever after.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["torch_defaults"]

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def torch_defaults(*, gradients: bool = False, threads: int | None = None) -> Iterator[None]:
    """Compute in float32 on the CPU unless told otherwise, and leave everything as it was found. Also a decorator.

    Args:
        gradients: whether they are recorded.
        threads: how many compute; None leaves their number. Sums are in another order with another number of threads.
    """
    with ExitStack() as restored:
        if torch.is_inference_mode_enabled():
            restored.enter_context(torch.inference_mode(False))
        restored.enter_context(torch.set_grad_enabled(gradients))
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                torch.set_autocast_enabled(device, False)
                restored.callback(torch.set_autocast_enabled, device, True)
        if torch.get_default_device().type != "cpu":
            restored.enter_context(torch.device("cpu"))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            restored.callback(torch.set_default_dtype, dtype)
        if (precision := torch.get_float32_matmul_precision()) != "highest":
            torch.set_float32_matmul_precision("highest")
            restored.callback(torch.set_float32_matmul_precision, precision)
        if threads is not None and (before := torch.get_num_threads()) != threads:
            torch.set_num_threads(threads)
            restored.callback(torch.set_num_threads, before)
        yield
