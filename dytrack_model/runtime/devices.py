"""Devices of PyTorch: named by the user, and there."""

import torch

from dytrack_model.errors import ConfigurationError


def torch_device(name: str | torch.device) -> torch.device:
    """Return a device that is there.

    Raises:
        ConfigurationError: It is not one, or this machine or this build of PyTorch has it not.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigurationError(
            f"device: must be cpu, cuda, cuda:NUMBER or mps, got {str(name)!r}"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            why = f"PyTorch finds {count} CUDA devices"
            if not torch.version.cuda:
                why = "this PyTorch was built without CUDA"
            raise ConfigurationError(f"device: {why}, got {str(name)!r}; take cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device: PyTorch finds no Metal device here; take cpu")
    return device


def is_cpu(name: str | torch.device) -> bool:
    """Say whether a name is the CPU's, whatever else there is."""
    return str(name).partition(":")[0] == "cpu"
