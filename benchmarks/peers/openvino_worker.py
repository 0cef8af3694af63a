"""OpenVINO through optimum-intel, compiled for the size that is drawn: ``default`` (its own precision) or ``fp32``.

As https://huggingface.co/docs/diffusers/optimization/open_vino has it: exported, reshaped to a fixed size, compiled.
The first picture of a task and size does all that, so it is the later ones that tell.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DPMSolverMultistepScheduler
from optimum.intel import OVStableDiffusionImg2ImgPipeline, OVStableDiffusionInpaintPipeline, OVStableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from benchmarks.peers.worker import Request, pipeline_arguments, serve
else:  # as a script it finds what lies beside it
    from worker import Request, pipeline_arguments, serve

KINDS = {
    "txt2img": OVStableDiffusionPipeline,
    "img2img": OVStableDiffusionImg2ImgPipeline,
    "inpaint": OVStableDiffusionInpaintPipeline,
}


class OpenVino:
    """A pipeline for each task that is asked for, of one size at a time."""

    packages = ("openvino", "optimum-intel", "diffusers", "transformers")

    def __init__(self, options: argparse.Namespace) -> None:
        precision = {"INFERENCE_PRECISION_HINT": "f32"} if options.variant == "fp32" else {}
        self._config = {"INFERENCE_NUM_THREADS": str(options.threads)} | precision
        self._model = options.model
        self._pipes: dict[str, tuple[Any, tuple[int, int]]] = {}
        pipe = self._pipe("txt2img", (64, 64))
        hint = pipe.unet.request.get_property("INFERENCE_PRECISION_HINT")  # "<Type: 'bfloat16'>"
        self.dtype, self.note = str(hint).split("'")[1], "static shape"

    def draw(self, request: Request) -> Image.Image:
        task, size = request["task"], (request["width"], request["height"])
        given = pipeline_arguments(request) | {"generator": torch.Generator("cpu").manual_seed(request["seed"])}
        if request["latents"] is not None and task != "img2img":  # which takes none
            given["latents"] = torch.from_numpy(request["latents"])
        picture: Image.Image = self._pipe(task, size)(**given).images[0]
        return picture

    def _pipe(self, task: str, size: tuple[int, int]) -> Any:
        pipe, known = self._pipes.get(task, (None, None))
        if pipe is None:
            with tempfile.TemporaryDirectory() as folder:
                pipe = KINDS[task].from_pretrained(
                    _with_published_names(Path(self._model), Path(folder, "model")),
                    export=True,
                    compile=False,
                    load_in_8bit=False,
                    local_files_only=True,
                    ov_config=dict(self._config),
                )
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
        if known != size:
            pipe.reshape(batch_size=1, height=size[1], width=size[0], num_images_per_prompt=1)
            pipe.compile()
            self._pipes[task] = pipe, size
        return pipe


def _with_published_names(model: Path, folder: Path) -> Path:
    """The model, in ``folder``, with the names of its text encoder's weights as they were published.

    Newer transformers write them without their prefix; the one here would draw random weights in their place.
    """
    shutil.copytree(model.resolve(), folder, copy_function=os.symlink)
    file = folder / "text_encoder/model.safetensors"
    weights = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(file).items()}
    file.unlink()
    save_file(weights, file, {"format": "pt"})
    return folder


if __name__ == "__main__":
    sys.exit(serve(OpenVino))
