"""``--compile``: the UNet as machine code, made by a process of its own while the plain one serves.

torch.export and AOTInductor make one file a size of picture, which is kept: a later start only loads it. Nothing is
frozen into it. The weights are its inputs, so that a LoRA switch remains a swap of pointers.
(https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html)
"""

import hashlib
import logging
import os
import pickle
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from webui.engine.cpu.conv import PackedConv2d, define_packed_conv
from webui.engine.cpu.install import install
from webui.engine.devices import describe_device
from webui.engine.nets.encoder import Added, Prepared
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.weights import build_empty

logger = logging.getLogger(__name__)

VERSION = 6
"""Of what files hold; to be raised with each change of the UNet's code."""

MAX_SIZES = 16
"""So many sizes, batches and prompt lengths are compiled for; any further one is drawn by the plain UNet."""

NICENESS = 10


@dataclass(frozen=True)
class Like:
    """What a tensor is apart from its numbers."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Like":
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def make(self, device: torch.device) -> torch.Tensor:
        """Such a tensor, of zeros."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device).zero_()


@dataclass(frozen=True)
class CompileTarget:
    """What is to be compiled: a UNet, with the CPU's ways in it or without, for one size of inputs.

    ``inputs`` are latents, timestep and what is told, each tensor as a ``Like``. ``channels_last`` is how the kernels
    of its convolutions lie: code reads them as they lay when it was made, and does not look. ``computes`` is what it
    runs on, as ``describe_device`` names it: one card's code is of no use to another.
    """

    config: Mapping[str, Any]
    dtype: torch.dtype
    device: str
    threads: int
    cpu_kernels: bool
    channels_last: bool
    computes: str
    inputs: Any
    version: int = VERSION
    torch_version: str = torch.__version__
    machine: str = platform.machine()
    capability: str = torch.backends.cpu.get_cpu_capability()

    @property
    def name(self) -> str:
        """Of the code's file: the same for the same target alone."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]


class CompiledUNet:
    """Runs code where there is some for what it is given, else the plain UNet, and has code made for the next time.

    One process compiles at a time, at low priority. Where it fails (no C++ compiler), the log says so once.
    """

    def __init__(self, unet: UNet, cache_dir: Path) -> None:
        from torch._inductor import aoti_load_package  # takes torch's compiler with it

        define_packed_conv()
        self._load = aoti_load_package
        self._unet, self._folder = unet, cache_dir / "compiled"
        self._weights = dict(unet.named_parameters())
        self._convolutions = [module for module in unet.modules() if isinstance(module, PackedConv2d)]
        self._code: dict[Any, Any] = {}
        self._wanted: dict[Any, Any] = {}
        self._more = threading.Semaphore(0)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = self._failed = False
        self._ran: set[bool] = set()
        threading.Thread(target=self._make_all, name="compiler", daemon=True).start()

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        shortcuts: Shortcuts | None = None,
        added: Added | None = None,
    ) -> torch.Tensor:
        """As ``UNet.forward``, within rounding; the plain one where there are shortcuts to take, or controls."""
        code = None
        if shortcuts is None and added is None:
            key = shape_key(latents, timestep, prepared)
            if (code := self._code.get(key)) is None:
                self._want(key, (latents, timestep, prepared))
        self._ran.add(code is not None)
        if code is None:
            return self._unet(latents, timestep, prepared, shortcuts, added)
        for convolution in self._convolutions:
            if convolution.packs:
                convolution.hold()
        output: torch.Tensor = code(self._weights, latents, timestep, pytree.tree_leaves(prepared))
        return output

    @property
    def is_compiled(self) -> bool:
        """Whether there is code for all that was asked for."""
        return bool(self._code) and len(self._code) == len(self._wanted)

    def take_ran(self) -> set[bool]:
        """What ran since the last time that this was asked: code (True), the plain UNet (False), or both."""
        ran, self._ran = self._ran, set()
        return ran

    def close(self) -> None:
        """Makes no more code."""
        self._closed = True
        if self._process:
            self._process.terminate()
        self._more.release()

    def _want(self, key: Any, inputs: Any) -> None:
        if key not in self._wanted and len(self._wanted) < MAX_SIZES and not self._failed:
            self._wanted[key] = pytree.tree_map_only(torch.Tensor, Like.of, inputs)
            self._more.release()

    def _make_all(self) -> None:
        done = 0
        while True:
            self._more.acquire()
            if self._closed:
                return
            key, shapes = list(self._wanted.items())[done]
            done += 1
            try:
                self._code[key] = self._make(shapes)
            except Exception as error:
                if not self._closed:
                    logger.warning("The UNet is not compiled and runs as it is: %s", error)
                self._failed = True
                return

    def _make(self, inputs: Any) -> Any:
        """Loads the code, after having it made where it is not kept from before."""
        unet = self._unet
        threads, kernels = torch.get_num_threads(), bool(self._convolutions)
        lies, computes = not kernels and _is_channels_last(unet), describe_device(unet.device)
        target = CompileTarget(unet.config, unet.dtype, unet.device.type, threads, kernels, lies, computes, inputs)
        file = self._folder / f"{target.name}.pt2"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import work; work()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            _, said = self._process.communicate(pickle.dumps((target, file)))
            if self._process.returncode:
                lines = said.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
                raise RuntimeError(lines[-1][:300])
        return self._load(str(file))


class _Bare(nn.Module):
    """The UNet as a function of its weights and of tensors alone; ``structure`` is that of what it is told."""

    def __init__(self, unet: UNet, structure: pytree.TreeSpec) -> None:
        super().__init__()
        self._unet = [unet]  # not a child: its weights are inputs
        self._structure = structure

    def forward(
        self,
        weights: Mapping[str, torch.Tensor],
        latents: torch.Tensor,
        timestep: torch.Tensor,
        leaves: Sequence[torch.Tensor | None],
    ) -> torch.Tensor:
        prepared = pytree.tree_unflatten(leaves, self._structure)
        output: torch.Tensor = torch.func.functional_call(self._unet[0], dict(weights), (latents, timestep, prepared))
        return output


def _is_channels_last(unet: UNet) -> bool:
    """Whether the kernels of its convolutions lie so, which all of them do or none."""
    kernel = unet.conv_in.weight
    return kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()


def make(target: CompileTarget, file: Path) -> None:
    """Writes the code for one UNet and one size of inputs to the file."""
    from torch._inductor import aoti_compile_and_package

    define_packed_conv()
    torch.set_num_threads(target.threads)
    device = torch.device(target.device)
    unet = build_empty(lambda: UNet(target.config)).to(target.dtype).to_empty(device=device)  # whatever numbers
    if target.channels_last:
        nn.Module.to(unet, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if target.cpu_kernels:
        install(unet)
    latents, timestep, prepared = pytree.tree_map_only(Like, lambda like: like.make(device), target.inputs)
    leaves, structure = pytree.tree_flatten(prepared)
    with torch.no_grad():
        inputs = (dict(unet.named_parameters()), latents, timestep, leaves)
        program = torch.export.export(_Bare(unet, structure), inputs, strict=False)
        part = file.with_name(f"part-{os.getpid()}.pt2")
        aoti_compile_and_package(program, package_path=str(part))
    part.replace(file)


def shape_key(latents: torch.Tensor, timestep: torch.Tensor, prepared: Any) -> Any:
    """What is one size: the shapes of all that a forward is given, and which of it is there."""
    leaves, structure = pytree.tree_flatten(prepared)
    shapes = tuple(leaf.shape if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
    return latents.shape, latents.stride(), timestep.dtype, timestep.shape, shapes, structure


def work() -> None:
    """In a process of its own: makes what it is told through its input."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    make(*pickle.load(sys.stdin.buffer))
