"""ComfyUI's own sampling without its server, for LoRA weights that change over the steps: weight hooks with keyframes.

As its nodes do it (``comfy_extras/nodes_hooks.py``): a LoRA hook for each file, a keyframe for each weight, on both
prompts. The checkout is the working directory.
"""

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from benchmarks.peers.worker import STEPS, Request, serve
else:  # as a script it finds what lies beside it
    from worker import STEPS, Request, serve


MODULES = ("sample", "hooks", "utils")


class ComfyUi:
    """One model on the processor."""

    packages = ("torch",)
    dtype = "float32"

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        sys.path.insert(0, os.getcwd())
        args = import_module("comfy.cli_args").args
        args.cpu = args.force_fp32 = True  # before the others are imported, which read it
        self._sample, self._hooks_of, self._utils = (import_module(f"comfy.{name}") for name in MODULES)
        self.note = f"ComfyUI {import_module('comfyui_version').__version__}"
        loaded = import_module("comfy.sd").load_checkpoint_guess_config(options.model)
        self._model, self._clip, self._vae, *_ = loaded
        self._loras: dict[str, Any] = {}

    @torch.inference_mode()
    def draw(self, request: Request) -> Image.Image:
        hooks = self._hooks(request)
        prompts = [self._encode(request[name], hooks) for name in ("prompt", "negative")]
        shape = (1, 4, request["height"] // 8, request["width"] // 8)
        latents = self._sample.sample(
            self._model,
            torch.from_numpy(request["latents"]),
            request["steps"],
            request["guidance"],
            "dpmpp_2m",
            "normal",
            *prompts,
            torch.zeros(shape),
            callback=lambda *_: STEPS.end(),
            disable_pbar=True,
            seed=request["seed"],
        )
        pixels = self._vae.decode(latents)[0].clamp(0, 1) * 255
        return Image.fromarray(pixels.round().to(torch.uint8).numpy().astype(np.uint8))

    def _encode(self, text: str, hooks: Any) -> Any:
        found = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text))
        return self._hooks_of.set_hooks_for_conditioning(found, hooks)

    def _hooks(self, request: Request) -> Any:
        """The same LoRAs as the last time are the same hooks, whose merged weights it may have kept."""
        key = repr((request["loras"], request["changes"], request["steps"]))
        if key not in self._loras:
            hooks = None
            frames = self._hooks_of.HookKeyframeGroup()
            for path, weight in request["loras"]:
                tensors = self._utils.load_torch_file(path, safe_load=True)
                hook = self._hooks_of.create_hook_lora(lora=tensors, strength_model=1.0, strength_clip=1.0)
                hooks = hook if hooks is None else hooks.clone_and_combine(hook)
                frames = self._frames([(0, weight), *request["changes"]], request["steps"])
            if hooks is not None:
                hooks.set_keyframes_on_hooks(frames)
            self._loras[key] = hooks
        return self._loras[key]

    def _frames(self, weights: list[tuple[int, float]], steps: int) -> Any:
        """A keyframe begins at a share of the noise's times, a little before its step's."""
        frames = self._hooks_of.HookKeyframeGroup()
        for step, weight in weights:
            share = max(step - 0.25, 0.0) / steps
            frames.add(self._hooks_of.HookKeyframe(weight, share, guarantee_steps=int(step == 0)))
        return frames


if __name__ == "__main__":
    sys.exit(serve(ComfyUi))
