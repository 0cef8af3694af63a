"""A1111's HTTP API as values: its request bodies -> ours, our pictures and events -> its answers.

The keys are those of A1111's ``modules/api/models.py``. What is left out or null has Darkroom's own default, keys that
mean nothing here are ignored, and what would change the picture but cannot be done is refused by name.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui import __version__
from webui.core import images, model_lookup
from webui.core.events import Image, Loading, Step
from webui.core.executor import Catalog
from webui.core.images import ImageError
from webui.core.library import ModelFile
from webui.core.picture_info import PictureInfo
from webui.core.request import Request, RequestError
from webui.core.sampler_names import translate

# Theirs -> ours, where the value is the same.
FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative",
    "seed": "seed",
    "steps": "steps",
    "cfg_scale": "guidance",
    "width": "width",
    "height": "height",
    "batch_size": "count",
    "n_iter": "repeat",
    "refiner_switch_at": "refiner_at",
}
INIT_FIELDS = {
    "denoising_strength": "strength",
    "mask_blur": "mask_blur",
    "inpaint_full_res": "only_masked",
    "inpaint_full_res_padding": "padding",
    "inpainting_mask_invert": "invert_mask",
}
# Theirs -> ours, and the values that their numbers stand for.
NUMBERED = {
    "resize_mode": ("resize", ("just resize", "crop and resize", "resize and fill", "latent resize")),
    "inpainting_fill": ("mask_fill", ("fill", "original", "noise", "nothing")),
}
THEIRS = {ours: theirs for theirs, ours in (FIELDS | INIT_FIELDS).items()} | {"clip_skip": "CLIP_stop_at_last_layers"}
# What changes the picture there and cannot be done here, where it is as the function says.
REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "enable_hr": bool,
    "restore_faces": bool,
    "tiling": bool,
    "script_name": bool,
    "styles": any,
    "subseed_strength": bool,
    "seed_resize_from_w": lambda px: px > 0,
    "seed_resize_from_h": lambda px: px > 0,
}
NO_VAE = ("", "automatic", "none")
TITLE_HASH = re.compile(r"\s*\[([0-9a-fA-F]{8,64})\]\s*$")


class NotFound(RequestError):
    """What A1111 answers with 404."""


@dataclass(frozen=True)
class Options:
    """The settings that outlive a request, as far as they mean something here."""

    model: str = "demo"
    vae: str = ""
    clip_skip: int = 1

    def to_json(self, catalog: Catalog) -> dict[str, Any]:
        """As ``GET options`` has them; ``read_options`` takes all of it back."""
        file = catalog.models.get(self.model)
        return {
            "sd_model_checkpoint": title(file) if file else self.model,
            "sd_vae": self.vae or "Automatic",
            "CLIP_stop_at_last_layers": self.clip_skip,
            "samples_format": "png",
        }


def read_options(values: Any, catalog: Catalog, now: Options) -> Options:
    """``now`` with what a partial object changes; raises RequestError for a model or VAE that is not here."""
    if not isinstance(values, Mapping):
        raise RequestError("the options must be an object", field="options")
    model, vae, clip_skip = (values.get(key) for key in ("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers"))
    if model not in (None, ""):
        now = replace(now, model=find_model("sd_model_checkpoint", model, catalog))
    if vae is not None:
        now = replace(now, vae=_find_vae(vae, catalog))
    if clip_skip is not None:
        try:
            now = replace(now, clip_skip=Request.parse({"clip_skip": clip_skip}).clip_skip)
        except RequestError as error:
            raise in_their_words(error) from None
    return now


def find_model(field: str, name: Any, catalog: Catalog) -> str:
    """Our name of the model that a title, a name, a file's name or the beginning of a hash stands for."""
    if isinstance(name, str):
        usable = {known: file for known, file in catalog.models.items() if file.checkpoint}
        titles = {title(file): known for known, file in usable.items()}
        if found := name if name in usable else titles.get(name):
            return found
        plain, digits = TITLE_HASH.sub("", name), TITLE_HASH.search(name)
        if found := titles.get(plain) or model_lookup.find(plain, digits[1] if digits else name, usable):
            return found
    raise RequestError(f"{field}: the model {str(name)[:80]!r} is not here", field=field)


def _find_vae(name: Any, catalog: Catalog) -> str:
    if isinstance(name, str):
        if name.casefold() in NO_VAE:
            return ""
        for known, file in catalog.vaes.items():
            if name in (known, file.path.name):
                return known
    raise RequestError(f"sd_vae: {str(name)[:80]!r} is not here", field="sd_vae")


def read_request(body: Mapping[str, Any], catalog: Catalog, options: Options, with_picture: bool) -> Request:
    """The request that a body of ``txt2img``, or ``img2img`` where ``with_picture``, asks for.

    ``options`` are those that hold for it. Raises RequestError in the body's own words for its fields; NotFound for a
    sampler or a start picture that is not there.
    """
    given = {key: value for key, value in body.items() if value is not None}
    _refuse(given)
    values = {ours: given[theirs] for theirs, ours in FIELDS.items() if theirs in given}
    values |= {"model": options.model}
    values |= {"vae": options.vae} if options.vae else {}
    values |= {"clip_skip": options.clip_skip} if options.clip_skip > 1 else {}
    if (refiner := given.get("refiner_checkpoint", "")) not in ("", "None"):
        values["refiner"] = find_model("refiner_checkpoint", refiner, catalog)
    if sampler := given.get("sampler_name") or given.get("sampler_index"):
        found, unknown = translate(sampler, given.get("scheduler"), catalog.samplers)
        if "sampler" not in found:
            raise NotFound(f"Sampler not found: {str(sampler)[:80]!r}", field="sampler_name")
        if unknown:
            raise RequestError(unknown[0].replace("schedule:", "scheduler:", 1), field="scheduler")
        values |= found
    if with_picture:
        values["init"] = _read_init(given)
    try:
        return Request.parse(values)
    except RequestError as error:
        raise in_their_words(error) from None


def in_their_words(error: RequestError) -> RequestError:
    """The same with the names that A1111 has for the fields, which come first in each reason."""
    reasons = (
        re.sub(r"^(?:init\.)?(\w+)", lambda match: THEIRS.get(match[1], match[1]), reason)
        for reason in str(error).split("; ")
    )
    return RequestError("; ".join(reasons), field=THEIRS.get(error.field, error.field))


def _refuse(given: Mapping[str, Any]) -> None:
    for field, is_asked in REFUSED.items():
        try:
            asked = field in given and is_asked(given[field])
        except TypeError:
            asked = True
        if asked:
            raise RequestError(f"{field} {repr(given[field])[:60]} is not supported here", field=field)
    scripts = given.get("alwayson_scripts") or {}
    for name in scripts if isinstance(scripts, Mapping) else [scripts]:
        raise RequestError(f"alwayson_scripts: there is no script {str(name)[:80]!r} here", field="alwayson_scripts")


def _read_init(given: Mapping[str, Any]) -> dict[str, Any]:
    pictures = given.get("init_images") or []
    if not isinstance(pictures, list) or not all(isinstance(picture, str) for picture in pictures):
        raise RequestError("init_images must be a list of pictures as base64", field="init_images")
    if not any(pictures):
        raise NotFound("Init image not found: init_images is empty", field="init_images")
    if len(pictures) > 1:
        raise RequestError(f"init_images: {len(pictures)} pictures were given; one is taken", field="init_images")
    init = {ours: given[theirs] for theirs, ours in INIT_FIELDS.items() if theirs in given}
    for theirs, (ours, choices) in NUMBERED.items():
        if theirs in given:
            init[ours] = _choose(theirs, given[theirs], choices)
    init["image"] = _decode("init_images", pictures[0])
    if mask := given.get("mask"):
        init["mask"] = _decode("mask", mask)
        if init["mask"].size != init["image"].size:  # there both are brought to one size
            init["mask"] = images.to_mask(init["mask"]).resize(init["image"].size, Resampling.BILINEAR)
    return init


def read_file(field: str, text: Any) -> bytes:
    """The picture file in a field, base64 with or without ``data:...,`` before it; RequestError for anything else."""
    if not isinstance(text, str):
        raise RequestError(f"{field} must be a picture as base64", field=field)
    if re.match(r"\s*https?:", text[:20], re.IGNORECASE):
        raise RequestError(f"{field} must be a picture as base64; addresses are not fetched", field=field)
    with _named(field):
        return images.decode_bytes(text)


def _decode(field: str, text: Any) -> PilImage:
    file = read_file(field, text)
    with _named(field):
        picture = images.open_image(file)
        images.check_size(picture.size)
        return images.plain(picture)


@contextmanager
def _named(field: str) -> Iterator[None]:
    """What is wrong with a picture, as bad input of that field."""
    try:
        yield
    except ImageError as error:
        raise RequestError(f"{field} {error}", field=field) from None


def _choose(field: str, value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, bool) or value not in range(len(choices)):
        said = "; ".join(f"{number} is {choice}" for number, choice in enumerate(choices))
        raise RequestError(f"{field} must be a number ({said}), not {str(value)[:60]!r}", field=field)
    return choices[int(value)]


def title(file: ModelFile) -> str:
    """What A1111's clients know a model by: its name with the file's ending."""
    return file.name + (file.path.suffix if file.path.is_file() else "")


def echo(body: Mapping[str, Any]) -> dict[str, Any]:
    """What ``parameters`` of an answer says: the request, without its pictures unless ``include_init_images``."""
    kept = bool(body.get("include_init_images"))
    return {key: value for key, value in body.items() if kept or key not in ("init_images", "mask")}


def info(request: Request, pictures: Sequence[Image]) -> str:
    """``info`` of an answer: a JSON text with one entry a picture in each of its lists."""
    count = len(pictures)
    seeds = [picture.seed for picture in pictures]
    model_hash = pictures[0].recipe.model_hash[:10] if pictures else ""
    return json.dumps(
        {
            "prompt": request.prompt,
            "all_prompts": [request.prompt] * count,
            "negative_prompt": request.negative,
            "all_negative_prompts": [request.negative] * count,
            "seed": request.seed,
            "all_seeds": seeds,
            "subseed": request.seed,
            "all_subseeds": seeds,
            "subseed_strength": 0,
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
            "denoising_strength": request.init.strength if request.init else None,
            "extra_generation_params": {"Schedule type": request.schedule},
            "index_of_first_image": 0,
            "infotexts": [picture.recipe.infotext() for picture in pictures],
            "styles": [],
            "job_timestamp": timestamp(),
            "clip_skip": request.clip_skip,
            "is_using_inpainting_conditioning": False,
            "version": f"Darkroom {__version__}",
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
        "progress": step.index / step.total if step.total else 0.0,
        "eta_relative": step.seconds / step.index * (step.total - step.index) if step.index else 0.0,
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
    }
    settings = {theirs: found.values[ours] for ours, theirs in named.items() if found.values.get(ours) is not None}
    return {"info": found.raw, "items": {"parameters": found.raw} if found.raw else {}, "parameters": settings}
