"""A1111's HTTP API: our pictures and events as its answers, under the keys of A1111's ``modules/api/models.py``."""

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui import __version__
from webui.core.catalog import Catalog
from webui.core.events import Image, Loading, Step
from webui.core.infotext import hires_settings
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.interop.a1111.refusals import flag
from webui.interop.picture_info import PictureInfo


def echo(body: Mapping[str, Any]) -> dict[str, Any]:
    """What ``parameters`` of an answer says: the request, without its pictures unless ``include_init_images``."""
    kept = flag(body.get("include_init_images"))
    return {key: value for key, value in body.items() if kept or key not in ("init_images", "mask")}


def half_drawn(request: Request, first: int, preview: bytes) -> list[Image]:
    """What the pictures of a batch, numbered from ``first``, had come to when their call was stopped.

    ``preview`` is the newest of them: a sheet of the batch, as ``engine.preview`` lays it out. Each is brought to the
    size of the first pass, in its own shape: a hires pass may have another one.
    """
    with PilImages.open(io.BytesIO(preview)) as opened:
        sheet = opened.convert("RGB")
    columns = math.ceil(math.sqrt(request.count))
    rows = -(-request.count // columns)
    width, height = sheet.width // columns, sheet.height // rows
    scale = max((request.width or width) / width, (request.height or height) / height)
    size = round(width * scale), round(height * scale)
    pictures = []
    for k in range(request.count):
        left, top = k % columns * width, k // columns * height
        cell = sheet.crop((left, top, left + width, top + height)).resize(size, Resampling.BICUBIC)
        pictures.append(Image(first + k, cell, Recipe(request.picture(first + k))))
    return pictures


def encode_bare(picture: PilImage) -> bytes:
    """A PNG without a recipe: nobody could draw such a picture again."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def info(request: Request, pictures: Sequence[Image], comments: Sequence[str] = ()) -> str:
    """``info`` of an answer: a JSON text with one entry a picture in each of its lists.

    ``comments`` are lines for people: what was not done as asked, and why.
    """
    seeds = [picture.seed for picture in pictures]
    variations = [varied for picture in pictures if (varied := picture.recipe.request.varied)]
    begun = request.init or request.hires
    second = {name: value for name, value in hires_settings(request).items() if value is not None}
    model_hash = pictures[0].recipe.model_hash[:10] if pictures else ""
    return json.dumps(
        {
            "prompt": request.prompt,
            "all_prompts": [picture.recipe.request.prompt for picture in pictures],
            "negative_prompt": request.negative,
            "all_negative_prompts": [picture.recipe.request.negative for picture in pictures],
            "seed": request.seed,
            "all_seeds": seeds,
            "subseed": request.varied.seed if request.varied else request.seed,
            "all_subseeds": [varied.seed for varied in variations] if request.varied else seeds,
            "subseed_strength": request.varied.strength if request.varied else 0,
            "width": request.width,
            "height": request.height,
            "sampler_name": request.sampler,
            "cfg_scale": request.guidance,
            "steps": request.steps,
            "batch_size": request.count,
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_name": request.model,
            "sd_model_hash": model_hash,
            "sd_vae_name": request.vae or None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "denoising_strength": begun.strength if begun else None,
            "extra_generation_params": {"Schedule type": request.schedule} | second,
            "index_of_first_image": int(bool(pictures) and pictures[0].is_sheet),
            "infotexts": [picture.recipe.infotext() for picture in pictures],
            "styles": [],
            "job_timestamp": timestamp(),
            "clip_skip": request.clip_skip,
            "is_using_inpainting_conditioning": False,
            "version": f"Darkroom {__version__}",
            "comments": list(comments),
        }
    )


def timestamp() -> str:
    return time.strftime("%Y%m%d%H%M%S")


def progress(request: Request | None, event: object, started: str, waiting: int, stopped: bool) -> dict[str, Any]:
    """``GET progress`` without its picture, for the newest event of a call; all zero where there is none.

    ``waiting`` further calls come after it; ``stopped`` says whether it was interrupted.
    """
    step = event if isinstance(event, Step) else Step(0, 0, 0.0)
    batches = request.repeat if request else 0
    batch_steps = step.total // batches if batches else 0
    batch = min(step.index // batch_steps, batches - 1) if batch_steps else 0
    return {
        "progress": step.done,
        "eta_relative": step.left_s,
        "state": {
            "skipped": False,
            "interrupted": stopped,
            "stopping_generation": False,
            "job": request.task if request else "",
            "job_count": batches + waiting,
            "job_timestamp": started,
            "job_no": batch,
            "sampling_step": step.index - batch * batch_steps,
            "sampling_steps": batch_steps,
        },
        "current_image": None,
        "textinfo": event.what if isinstance(event, Loading) else None,
    }


def samplers(catalog: Catalog) -> list[dict[str, Any]]:
    return [{"name": name, "aliases": [], "options": {}} for name in catalog.samplers]


def schedulers(catalog: Catalog) -> list[dict[str, Any]]:
    """Our ``Default`` is what A1111 calls automatic: the schedule that suits the sampler."""
    rest = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    labels = ["Automatic" if name == "Default" else name for name in catalog.schedules]
    return [{"name": label.lower(), "label": label, **rest} for label in labels]


def png_info(found: PictureInfo) -> dict[str, Any]:
    """The answer of ``png-info``: the text in the picture, and its settings under the names that A1111's reader has."""
    named = {
        "prompt": "Prompt",
        "negative": "Negative prompt",
        "steps": "Steps",
        "sampler": "Sampler",
        "schedule": "Schedule type",
        "guidance": "CFG scale",
        "seed": "Seed",
        "width": "Size-1",
        "height": "Size-2",
        "model": "Model",
        "strength": "Denoising strength",
        "clip_skip": "Clip skip",
        "variation.seed": "Variation seed",
        "variation.strength": "Variation seed strength",
    }
    settings = {theirs: found.values[ours] for ours, theirs in named.items() if found.values.get(ours) is not None}
    return {"info": found.raw, "items": {"parameters": found.raw} if found.raw else {}, "parameters": settings}
