"""What a recipe says of the place where a picture was made: files by their hashes, device, libraries, sampler."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from webui import __version__
from webui.engine.cpu.install import KERNELS
from webui.engine.devices import describe_device

ATTENTION = "torch scaled_dot_product_attention"


class FileHashes:
    """The hashes of the files that one job reads, computed beside it."""

    def __init__(self, hasher: ThreadPoolExecutor) -> None:
        self._hasher = hasher
        self._wanted: dict[str, dict[str, Future[str]]] = defaultdict(dict)

    def want(self, kind: str, name: str, compute: Callable[[], str]) -> None:
        """Has a file hashed by ``compute``, once."""
        if name not in self._wanted[kind]:
            self._wanted[kind][name] = self._hasher.submit(compute)

    def collect(self) -> tuple[dict[str, dict[str, str]], list[str]]:
        """SHA-256 by kind and name, and a warning for each file that is gone."""
        found: dict[str, dict[str, str]] = {}
        warnings = []
        for kind, futures in self._wanted.items():
            for name, future in futures.items():
                try:
                    found.setdefault(kind, {})[name] = future.result()
                except OSError as error:
                    warnings.append(f"The recipe has no {kind} hash: {name} can no longer be read: {error.strerror}")
        return found, warnings


def describe_environment(
    device: torch.device, dtype: torch.dtype, cpu_kernels: bool = True
) -> dict[str, str | int | bool | None]:
    """What the pixels may depend on besides request and files; None for a library that is not installed.

    What is usual is not said (``core.verdict.IMPLIED``), so that recipes are as they always were: that a CPU draws
    with the first of our kernels, and that float32 is as exact as torch has it of itself.
    """
    return {
        "darkroom": __version__,
        "torch": torch.__version__,
        **versions("diffusers", "transformers"),
        "device": describe_device(device),
        "dtype": str(dtype).removeprefix("torch."),
        "attention": ATTENTION,
        "float32_matmul": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        **_cpu_kernels(device, dtype, cpu_kernels),
        **_float32(device),
    }


def _cpu_kernels(device: torch.device, dtype: torch.dtype, used: bool) -> dict[str, bool | int]:
    """Whether a CPU draws with our kernels, and with which: others round another way."""
    said = KERNELS.get(dtype, 1) if used else False
    return {} if device.type != "cpu" or said == 1 else {"cpu_kernels": said}


def _float32(device: torch.device) -> dict[str, str]:
    """What float32 is computed with in its place, where somebody chose that: by torch's settings, or by oneDNN's."""
    chosen = {}
    if device.type == "cuda":
        convolutions, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    else:
        convolutions, matmul = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        if (mode := os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT").upper()) != "STRICT":
            chosen["oneDNN"] = mode.lower()
    for name, backend in (("convolutions", convolutions), ("matrix products", matmul)):
        usual = "tf32" if device.type == "cuda" and backend is convolutions else "none"
        if (precision := backend.fp32_precision) != usual:
            chosen[name] = precision
    return {"float32": ", ".join(f"{name} {value}" for name, value in chosen.items())} if chosen else {}


@cache
def versions(*names: str) -> Mapping[str, str | None]:
    """Of these packages; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def describe_sampler(scheduler: Any) -> dict[str, Any]:
    """The scheduler's class and its configuration, as JSON holds it: infinities are text."""
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    return {
        "class": type(scheduler).__name__,
        "config": json.loads(json.dumps(config, default=str), parse_constant=str),
    }
