"""Stock diffusers: ``fp32``, ``bf16`` or ``fp16``, with LoRAs unfused or (``-fused``) fused; and at its ``-best``.

That is what https://huggingface.co/docs/diffusers/v0.34.0/optimization/fp16 recommends beside a number format: channels
last, fused query, key and value projections, the UNet and the VAE's decoder compiled.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
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
        pipe = StableDiffusionPipeline.from_pretrained(options.model, torch_dtype=dtype, local_files_only=True)
        pipe.to(options.device)
        if options.device == "cuda":
            self.peak_bytes = torch.cuda.max_memory_reserved
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
        if self._best:
            pipe.fuse_qkv_projections()
            for part in (pipe.unet, pipe.vae):
                part.to(memory_format=torch.channels_last)
            pipe.unet.compile(fullgraph=True)
            pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True)
        self._pipe = pipe
        others: dict[str, Any] = {"img2img": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline}
        self._pipes = {task: kind(**pipe.components, requires_safety_checker=False) for task, kind in others.items()}
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


if __name__ == "__main__":
    sys.exit(serve(Diffusers))
