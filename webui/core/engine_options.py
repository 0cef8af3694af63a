"""How an engine runs: all that it is told beside its orders."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EngineOptions:
    """``device``, ``dtype`` and ``memory`` are names as the flags have them, or auto.

    ``lora_cache_bytes`` bounds what is kept of merged LoRAs; None is a quarter of what is free.
    ``model_cache_bytes`` bounds what is kept of models that are not drawn with; None is what leaves a quarter of the
    memory free. What is in ``cache_dir`` may be deleted at any time.
    """

    cache_dir: Path
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    lora_cache_bytes: int | None = None
    model_cache_bytes: int | None = None
    compile: bool = False
    cuda_graphs: bool = False
    cpu_kernels: bool = True
