"""Where to compute."""

import torch

from tvae.errors import ConfigurationError

__all__ = ["resolve_device"]


def resolve_device(name: str) -> str:
    """Return a torch device that is there: `auto` means a GPU if there is one, and the CPU otherwise.

    Raises:
        ConfigurationError: if the device is unknown or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    here = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    if device is None or not any(device.type == d.type and device.index in (None, d.index) for d in here):
        raise ConfigurationError(f"`device` must be auto or one of {', '.join(map(str, here))}, got {name!r}.")
    return name
