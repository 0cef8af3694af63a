"""``--compile``: the UNet as machine code, made by a process of its own while the plain one serves.

torch.export and AOTInductor make one file a size of picture, which is kept: a later start only loads it. Nothing is
frozen into it. The weights are its inputs, so that a LoRA switch remains a swap of pointers.
(https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html)
"""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.engine.nets.layers import Conv2d, define_packed_conv, first_parameter
from webui.engine.nets.shortcuts import Shortcuts
from webui.engine.nets.unet import Told, UNet

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what files hold; to be raised with each change of the UNet's code."""

MAX_SIZES = 16
"""So many sizes, batches and prompt lengths are compiled for; any further one is drawn by the plain UNet."""

NICENESS = 10

Inputs = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor | None, torch.Tensor | None]
"""Latents, timestep, the prompts' keys and values, and what else is told: embedding, guidance."""


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
        self._convolutions = [module for module in unet.modules() if isinstance(module, Conv2d)]
        self._code: dict[Any, Any] = {}
        self._wanted: dict[Any, list[Any]] = {}
        self._more = threading.Semaphore(0)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = self._failed = False
        threading.Thread(target=self._make_all, name="compiler", daemon=True).start()

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, told: Told, shortcuts: Shortcuts | None = None
    ) -> torch.Tensor:
        """As ``UNet.forward``, within rounding; the plain one where there are shortcuts to take."""
        if shortcuts is not None:
            return self._unet(latents, timestep, told, shortcuts)
        inputs = flatten(latents, timestep, told)
        key = shape_key(inputs)
        if (code := self._code.get(key)) is None:
            self._want(key, inputs)
            return self._unet(latents, timestep, told)
        for convolution in self._convolutions:
            if convolution.packs:
                convolution.hold()
        return code(self._weights, *inputs)

    @property
    def is_compiled(self) -> bool:
        """Whether there is code for all that was asked for."""
        return bool(self._code) and len(self._code) == len(self._wanted)

    def close(self) -> None:
        """Makes no more code."""
        self._closed = True
        if self._process:
            self._process.terminate()
        self._more.release()

    def _want(self, key: Any, inputs: Inputs) -> None:
        if key not in self._wanted and len(self._wanted) < MAX_SIZES and not self._failed:
            self._wanted[key] = _describe(inputs)
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

    def _make(self, shapes: list[Any]) -> Any:
        """Loads the code, after having it made where it is not kept from before."""
        dtype = str(self._unet.dtype).removeprefix("torch.")
        job = {"config": self._unet.config, "dtype": dtype, "inputs": shapes, "threads": torch.get_num_threads()}
        machine = [VERSION, torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability()]
        name = hashlib.sha256(json.dumps([job, machine, _device(self._unet)], sort_keys=True).encode()).hexdigest()
        file = self._folder / f"{name[:32]}.pt2"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            order = json.dumps({**job, "device": _device(self._unet), "file": str(file)}).encode()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "webui.engine.compiled"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            _, said = self._process.communicate(order)
            if self._process.returncode:
                lines = said.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
                raise RuntimeError(lines[-1][:300])
        return self._load(str(file))


class _Bare(nn.Module):
    """The UNet as a function of its weights and of tensors alone."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self._unet = [unet]  # not a child: its weights are inputs

    def forward(
        self,
        weights: Mapping[str, torch.Tensor],
        latents: torch.Tensor,
        timestep: torch.Tensor,
        attended: Sequence[torch.Tensor],
        embedding: torch.Tensor | None,
        guidance: torch.Tensor | None,
    ) -> torch.Tensor:
        pairs = list(zip(attended[::2], attended[1::2], strict=True))
        told = Told(pairs, embedding, guidance)
        return torch.func.functional_call(self._unet[0], dict(weights), (latents, timestep, told))


def make(order: Mapping[str, Any]) -> None:
    """Writes the code for one UNet and one size of inputs to the file that the order names."""
    from torch._inductor import aoti_compile_and_package

    define_packed_conv()
    torch.set_num_threads(order["threads"])
    file, device = Path(order["file"]), torch.device(order["device"])
    with device:
        unet = UNet(order["config"]).to(getattr(torch, order["dtype"])).eval().requires_grad_(False)
    inputs = [_tensors(entry, device) for entry in order["inputs"]]
    with torch.no_grad():
        program = torch.export.export(_Bare(unet), (dict(unet.named_parameters()), *inputs), strict=False)
        part = file.with_name(f"part-{os.getpid()}.pt2")
        aoti_compile_and_package(program, package_path=str(part))
    part.replace(file)


def flatten(latents: torch.Tensor, timestep: torch.Tensor, told: Told) -> Inputs:
    """All that a forward is given, as tensors."""
    return latents, timestep, [tensor for pair in told.attended for tensor in pair], told.embedding, told.guidance


def shape_key(inputs: Inputs) -> Any:
    """What is one size. Prompts of the same length have keys and values of the same shapes: the first ones say all."""
    latents, timestep, attended, embedding, guidance = inputs
    return (
        (latents.shape, latents.stride(), timestep.dtype, timestep.shape, attended[0].shape),
        embedding is not None,
        guidance is not None,
    )


def _describe(inputs: Inputs) -> list[Any]:
    """As JSON: shape, strides and format of each tensor."""

    def describe(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {"shape": list(value.shape), "stride": list(value.stride()), "dtype": str(value.dtype)[6:]}
        return [describe(one) for one in value] if isinstance(value, list) else None

    return [describe(value) for value in inputs]


def _tensors(entry: Any, device: torch.device) -> Any:
    if isinstance(entry, list):
        return [_tensors(one, device) for one in entry]
    if entry is None:
        return None
    dtype = getattr(torch, entry["dtype"])
    return torch.empty_strided(entry["shape"], entry["stride"], dtype=dtype, device=device).zero_()


def _device(unet: UNet) -> str:
    return first_parameter(unet).device.type


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    make(json.load(sys.stdin))
