"""stable-diffusion.cpp: ``f32``, ``f16`` or ``q8_0`` weights, with ``-flash`` attention, ``-direct`` convolutions."""

import argparse
import contextlib
import io
import sys
from typing import TYPE_CHECKING

from PIL import Image
from stable_diffusion_cpp import StableDiffusion

if TYPE_CHECKING:
    from benchmarks.peers.worker import Request, serve
else:  # as a script it finds what lies beside it
    from worker import Request, serve


class StableDiffusionCpp:
    """A single file in LDM's names; its noise is torch's for the same seed."""

    packages = ("stable-diffusion-cpp-python",)

    def __init__(self, options: argparse.Namespace) -> None:
        self.dtype, *how = options.variant.split("-")
        self.note = "the same noise by the same seed, other time steps"
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self._model = StableDiffusion(
                model_path=options.model,
                wtype=self.dtype,
                n_threads=options.threads,
                rng_type="cpu",
                sampler_rng_type="cpu",
                diffusion_flash_attn="flash" in how,
                diffusion_conv_direct="direct" in how,
                vae_conv_direct="direct" in how,
            )
        if not self._model.model:  # a null pointer, which the package lets pass
            raise ValueError(next((line for line in said.getvalue().splitlines() if "failed" in line), "not loaded"))

    def draw(self, request: Request) -> Image.Image:
        given = {"init_image": request["image"]} if request["image"] else {}
        if request["mask"]:
            given["mask_image"] = request["mask"]
        picture: Image.Image = self._model.generate_image(
            prompt=request["prompt"],
            negative_prompt=request["negative"],
            width=request["width"],
            height=request["height"],
            cfg_scale=request["guidance"],
            sample_method="dpm++2m",
            scheduler="discrete",
            sample_steps=request["steps"],
            strength=request["strength"],
            seed=request["seed"],
            **given,
        )[0]
        return picture


if __name__ == "__main__":
    sys.exit(serve(StableDiffusionCpp))
