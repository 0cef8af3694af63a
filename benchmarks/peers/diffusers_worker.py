"""Stock diffusers: ``fp32``, ``bf16`` or ``fp16``, with LoRAs unfused or (``-fused``) fused; and at its ``-best``.

That is what https://huggingface.co/docs/diffusers/v0.34.0/optimization/fp16 recommends beside a number format: channels
last, fused query, key and value projections, the UNet and the VAE's decoder compiled; on a GPU also with CUDA graphs.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

if TYPE_CHECKING:
    from benchmarks.peers.worker import STEPS, Request, pipeline_arguments, serve
else:  # as a script it finds what lies beside it
    from worker import STEPS, Request, pipeline_arguments, serve

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Diffusers:
    """One model for all tasks."""

    packages = ("diffusers", "torch", "transformers", "peft")

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        kind, _, how = options.variant.partition("-")
        self._best, self._fuse, dtype = how == "best", how == "fused", DTYPES[kind]
        name = json.loads(Path(options.model, "model_index.json").read_text("utf-8"))["_class_name"]
        first, on_cuda = name.removesuffix("Pipeline"), options.device == "cuda"
        pipe: Any = getattr(diffusers, name).from_pretrained(options.model, torch_dtype=dtype, local_files_only=True)
        pipe.to(options.device)
        if on_cuda:
            self.peak_bytes = torch.cuda.max_memory_reserved
            self.clock = _synchronised
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
        if self._best:
            pipe.fuse_qkv_projections()
            for part in (pipe.unet, pipe.vae):
                part.to(memory_format=torch.channels_last)
            how_to: dict[str, Any] = {"fullgraph": True, "mode": "reduce-overhead" if on_cuda else "default"}
            pipe.unet.compile(**how_to)
            pipe.vae.decode = torch.compile(pipe.vae.decode, **how_to)
        self._pipe = pipe
        others = {"img2img": "Img2Img", "inpaint": "Inpaint"}
        checker = {"requires_safety_checker": False} if "safety_checker" in pipe.components else {}
        self._pipes = {
            task: getattr(diffusers, f"{first}{kind}Pipeline")(**pipe.components, **checker)
            for task, kind in others.items()
        }
        for each in (pipe, *self._pipes.values()):
            each.set_progress_bar_config(disable=True)
        self._adapters: dict[str, str] = {}
        self._active: list[tuple[str, float]] = []
        self.dtype, self.note = str(dtype).removeprefix("torch."), "compiled" if self._best else ""

    def draw(self, request: Request) -> Image.Image:
        self._use([(path, weight) for path, weight in request["loras"]])
        given = pipeline_arguments(request) | {"generator": torch.Generator("cpu").manual_seed(request["seed"])}
        if request["latents"] is not None and request["task"] == "txt2img":  # the others draw more than noise
            given["latents"] = torch.from_numpy(request["latents"]).to(self._pipe.unet.dtype)
        given["callback_on_step_end"] = partial(self._after_step, request)
        picture: Image.Image = self._pipes.get(request["task"], self._pipe)(**given).images[0]
        return picture

    def _after_step(
        self, request: Request, _pipe: Any, step: int, _timestep: Any, kept: dict[str, Any]
    ) -> dict[str, Any]:
        """Changes the weights before the next step, where they change."""
        STEPS.end()
        for at, weight in request["changes"]:
            if at == step + 1:
                self._use([(path, weight) for path, _ in request["loras"]])
        return kept

    def _use(self, loras: list[tuple[str, float]]) -> None:
        """Makes the model what these LoRAs make of it; a file is loaded once."""
        if loras == self._active:
            return
        if self._best:
            raise ValueError("a compiled UNet with fused projections takes no LoRA")
        if self._fuse and self._active:
            self._pipe.unfuse_lora()
        for path, _ in loras:
            if path not in self._adapters:
                self._adapters[path] = f"lora{len(self._adapters)}"
                file = Path(path)
                self._pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=self._adapters[path])
        names = [self._adapters[path] for path, _ in loras]
        if names:
            self._pipe.enable_lora()
            self._pipe.set_adapters(names, adapter_weights=[weight for _, weight in loras])
            if self._fuse:
                self._pipe.fuse_lora(adapter_names=names)
        else:
            self._pipe.disable_lora()
        self._active = loras


def _synchronised() -> float:
    """Seconds of the clock, once the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(serve(Diffusers))
