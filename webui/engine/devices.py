"""Which device and number format to compute with, and how much memory is left there."""

import contextlib
import ctypes
import json
import mmap
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
import torch
from torch.nn import functional

from webui.core.disk import replace_file
from webui.core.errors import RequestError

PROBE_GAIN = 1.15
"""bfloat16 is chosen on a CPU where it is so many times as fast as float32."""

PROBE_ROUNDS = 24
ENOUGH_ROUNDS, CLEARLY_SLOWER = 5, 0.5  # so many rounds tell a processor that only imitates bfloat16, at 0.3 s a round
PROBE = 2
"""Which way of measuring it is: what an earlier one came to is not believed."""

PAGE_BYTES = mmap.PAGESIZE
MADV_DONTNEED = 4
"""Linux's word for pages that are not needed any more."""

processor_time = time.perf_counter if sys.platform == "win32" else time.thread_time
"""Seconds that this thread computed, whatever else the machine does; Windows counts them in 1/64 s, too rough."""


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA (AMD's ROCm too), else Intel's XPU, else Apple's MPS, else the CPU.

    RequestError where the asked-for one is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name, False):
        raise RequestError(f"device {name!r} is not available here; use --device auto", field="device")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device, cache_dir: Path | None = None) -> torch.dtype:
    """``auto`` is float16 on CUDA and XPU, bfloat16 on CPUs that are faster with it, and float32 elsewhere.

    What a CPU is faster with is measured once and kept in ``cache_dir``, so that the answer does not change.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type in ("cuda", "xpu"):
        return torch.float16
    if device.type == "cpu" and _bfloat16_pays(cache_dir):
        return torch.bfloat16
    return torch.float32


def _bfloat16_pays(cache_dir: Path | None) -> bool:
    """The kept answer for this CPU and torch, else a measured one."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    place = f"{kind}, {os.cpu_count()} CPUs, torch {torch.__version__}, probe {PROBE}"
    file = cache_dir / "dtype.json" if cache_dir else None
    try:
        known = json.loads(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or not isinstance(known.get(place), float):
        known = {place: measure_bfloat16()}
        if file:
            with contextlib.suppress(OSError):  # it costs the next start another measurement
                replace_file(file, json.dumps(known).encode())
    return float(known[place]) >= PROBE_GAIN


@torch.inference_mode()
def measure_bfloat16() -> float:
    """How many times as fast as float32 a UNet's typical work is in bfloat16 here; 0 where it is not finite.

    The median of the ratios of rounds, in the processor time of one thread: several would wait for each other, and a
    machine that has other work would give another answer. It ends early where bfloat16 is clearly slower.
    """
    generator = torch.Generator().manual_seed(0)
    picture, kernel = torch.randn(2, 128, 16, 16, generator=generator), torch.randn(128, 128, 3, 3, generator=generator)
    rows, weight = torch.randn(512, 256, generator=generator), torch.randn(512, 256, generator=generator)

    def work(dtype: torch.dtype) -> tuple[float, bool]:
        tensors = [tensor.to(dtype) for tensor in (picture, kernel, rows, weight)]
        started = processor_time()
        convolved = functional.conv2d(tensors[0], tensors[1], padding=1)
        multiplied = functional.linear(tensors[2], tensors[3])
        seconds = processor_time() - started
        return seconds, bool(convolved.isfinite().all() and multiplied.isfinite().all())

    ratios: list[float] = []
    with one_thread():
        for k in range(PROBE_ROUNDS + 1):  # the first only warms up
            order = (torch.float32, torch.bfloat16) if k % 2 else (torch.bfloat16, torch.float32)
            taken = {dtype: work(dtype) for dtype in order}
            if not all(finite for _, finite in taken.values()):
                return 0.0
            ratios.append(taken[torch.float32][0] / taken[torch.bfloat16][0])
            if k == ENOUGH_ROUNDS and median(ratios[1:]) < CLEARLY_SLOWER:
                break
    return median(ratios[1:])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Has torch compute with one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def spare_bytes(device: torch.device) -> int:
    """What torch keeps there of freed memory: taken for everybody else, and what ``release_memory`` hands back."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "xpu":
        return torch.xpu.memory_reserved(device) - torch.xpu.memory_allocated(device)
    return 0


def total_bytes(device: torch.device) -> int:
    """All memory of the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def release_memory(device: torch.device) -> None:
    """Hands what nothing uses any more back to the device, and to the system what lay ready for a card to copy."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        if torch.cuda.is_initialized():
            torch._C._host_emptyCache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def release_frames(error: BaseException | None) -> None:
    """Lets go of what the functions held through which an error came, tensors above all; its traceback stays."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def trim_heap() -> None:
    """Hands what the C library keeps of freed memory back to the system, where it is glibc.

    It keeps blocks of up to 32 MB: after the first step of a model of SD 1.5's size, half a GiB.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def give_back(tensor: torch.Tensor) -> None:
    """Hands the memory of a tensor that nobody will read again back to the system, while others still hold it.

    Its numbers are lost. Nothing happens where it is not one piece, or elsewhere than on Linux.
    """
    if sys.platform != "linux" or not (
        tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    ):
        return
    first, behind = -(-tensor.data_ptr() // PAGE_BYTES), (tensor.data_ptr() + tensor.nbytes) // PAGE_BYTES
    if behind > first:
        nbytes = (behind - first) * PAGE_BYTES
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first * PAGE_BYTES), ctypes.c_size_t(nbytes), MADV_DONTNEED)


OUT_OF_MEMORY = (
    "can't allocate memory: you tried",  # torch's allocator on Linux and macOS
    "not enough memory: you tried",  # and on Windows
    "backend out of memory",  # MPS
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""How errors without a type of their own begin to say that memory ended; others speak of allocating memory, too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no more memory, however torch says so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """For people: ``cuda (NVIDIA RTX 3060), float16``."""
    name = _card_name(device)
    return f"{device.type}{name and f' ({name})'}, {str(dtype).removeprefix('torch.')}"


def describe_device(device: torch.device) -> str:
    """What computes, as far as results may depend on it: ``cuda NVIDIA RTX 3060``, ``cpu x86_64 AVX512``."""
    if name := _card_name(device):
        return f"{device.type} {name}"
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _card_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.xpu.get_device_name(device)) if device.type == "xpu" else ""
