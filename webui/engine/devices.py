"""Which device and number format to compute with."""

import torch

from webui.core.request import RequestError


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA, else Apple's MPS, else the CPU; RequestError where the asked-for one is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name, False):
        raise RequestError(f"device {name!r} is not available here; use --device auto", field="device")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is float16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """For people: ``cuda (NVIDIA RTX 3060), float16``."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device.type}{name}, {str(dtype).removeprefix('torch.')}"
