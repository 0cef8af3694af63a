"""What a recipe says of the place where a picture was made: files by their hashes, device, libraries, sampler."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from webui import __version__
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
                    warnings.append(f"The recipe has no {kind} hash: {name} cannot be read any more: {error.strerror}")
        return found, warnings


def describe_environment(
    device: torch.device, dtype: torch.dtype, cpu_kernels: bool = True
) -> dict[str, str | int | bool | None]:
    """What the pixels may depend on besides request and files; None for a library that is not installed.

    That a CPU draws without its kernels is said only then, so that recipes with them are as they always were.
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
        **({} if cpu_kernels or device.type != "cpu" else {"cpu_kernels": False}),
    }


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
