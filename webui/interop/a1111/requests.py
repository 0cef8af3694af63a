"""A1111's HTTP API: its request bodies and options as ours, under the keys of A1111's ``modules/api/models.py``.

What is left out, null or empty has Darkroom's own default, numbers and truth values may be text, keys that mean nothing
here are ignored, and what would change the picture but cannot be done is refused by name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Resampling

from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import RequestError, show
from webui.core.files import ModelFile
from webui.core.groups import nest
from webui.core.groups.init import Init
from webui.core.names import LANCZOS
from webui.core.prompt import split_loras
from webui.core.request import Request
from webui.interop.a1111.modules import find_modules
from webui.interop.a1111.pictures import read_picture
from webui.interop.a1111.refusals import (
    REFUSED,
    REFUSED_OPTIONS,
    check_text,
    flag,
    is_other_than,
    refuse,
)
from webui.interop.a1111.scripts import read_scripts
from webui.interop.picture_info import read_text
from webui.interop.sampler_names import translate
from webui.library import model_lookup

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
    "subseed": "variation.seed",
    "subseed_strength": "variation.strength",
}
HIRES_FIELDS = {
    "hr_scale": "hires.scale",
    "hr_resize_x": "hires.width",
    "hr_resize_y": "hires.height",
    "hr_second_pass_steps": "hires.steps",
    "hr_cfg": "hires.guidance",
    "hr_prompt": "hires.prompt",
    "hr_negative_prompt": "hires.negative",
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
THEIRS = {ours: theirs for theirs, ours in (FIELDS | INIT_FIELDS | HIRES_FIELDS).items()}
THEIRS |= {"clip_skip": "CLIP_stop_at_last_layers", "hires.upscaler": "hr_upscaler"}
THEIRS |= {"hires.strength": "denoising_strength"}
# The samplers whose noise A1111 multiplies by ``eta``, and the value that is as here.
ETA = dict.fromkeys(("Euler a", "DPM2 a", "DPM++ SDE", "DPM++ 2M SDE"), 1.0) | {"DDIM": 0.0}
CLIENTS_ETA = 1.0  # what webuiapi sends with every sampler
TEXTS = ("prompt", "negative_prompt")
NO_FILE = ("", "automatic", "none", "use same checkpoint", "use same sampler", "use same scheduler")
TITLE_HASH = re.compile(r"\s*\[([0-9a-fA-F]{8,64})\]\s*$")


class NotFound(RequestError):
    """What A1111 answers with 404."""


@dataclass(frozen=True)
class Options:
    """The settings that outlive a request, as far as they mean something here."""

    model: str = "demo"
    vae: str = ""
    clip_skip: int = 1
    text_encoder: str = ""
    detected_maps: bool = True

    def to_json(self, catalog: Catalog) -> dict[str, Any]:
        """As ``GET options`` has them; ``read_options`` takes all of it back."""
        file = catalog.models.get(self.model)
        return {
            "sd_model_checkpoint": title(file) if file else self.model,
            "sd_vae": self.vae or "Automatic",
            "forge_additional_modules": [self.text_encoder] if self.text_encoder else [],
            "CLIP_stop_at_last_layers": self.clip_skip,
            "samples_format": "png",
            "control_net_no_detectmap": not self.detected_maps,
        }


def read_options(values: Any, catalog: Catalog, now: Options) -> Options:
    """``now`` with what a partial object changes; raises RequestError for a model or VAE that is not here."""
    if values in (None, "", []):
        return now
    if not isinstance(values, Mapping):
        raise RequestError("the options must be an object", field="options")
    refuse(values, REFUSED_OPTIONS)
    model, vae, clip_skip = (values.get(key) for key in ("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers"))
    if model not in (None, ""):
        now = replace(now, model=find_model("sd_model_checkpoint", model, catalog))
    if vae is not None:
        now = replace(now, vae=find_vae(vae, catalog))
    if (modules := values.get("forge_additional_modules")) is not None:
        found = find_modules(modules, catalog)
        now = replace(now, vae=found.get("vae", now.vae), text_encoder=found["text_encoder"])
    if (no_maps := values.get("control_net_no_detectmap")) is not None:
        now = replace(now, detected_maps=not flag(no_maps))
    if clip_skip not in (None, ""):
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
        if known := model_lookup.find_name(plain, catalog.models):  # one that cannot be used
            file = catalog.models[known]
            raise RequestError(f"{field}: {known[:80]!r}: {file.path.name} {file.problem}", field=field)
    raise RequestError(f"{field}: the model “{show(str(name))}” is not here", field=field)


def find_vae(name: Any, catalog: Catalog) -> str:
    """The same for a VAE; empty for none."""
    if isinstance(name, str):
        if name.casefold() in NO_FILE:
            return ""
        for known, file in catalog.vaes.items():
            if name in (known, file.path.name):
                return known
    raise RequestError(f"sd_vae: “{show(str(name))}” is not here", field="sd_vae")


@dataclass(frozen=True)
class Asked:
    """What a body asks for, lines for people about what of it is not done as it says, and of each control
    that acts whether its maps are ``shown`` behind the pictures."""

    request: Request
    comments: tuple[str, ...] = ()
    shown: tuple[bool, ...] = ()


def read_request(
    body: Mapping[str, Any], catalog: Catalog, options: Options, with_picture: bool, script: str | None = None
) -> Asked:
    """What a body of ``txt2img``, or ``img2img`` where ``with_picture``, asks for.

    ``options`` are those that hold for it; a ``script`` that it names is read elsewhere. Raises RequestError in the
    body's own words for its fields; NotFound for a sampler or a start picture that is not there.
    """
    check_text(body)
    body = body if script is None else {key: value for key, value in body.items() if key != "script_name"}
    given = {key: value for key, value in body.items() if value is not None and (value != "" or key in TEXTS)}
    refuse(given, REFUSED)
    values: dict[str, Any] = {"model": options.model}
    values |= {"vae": options.vae} if options.vae else {}
    values |= {"text_encoder": options.text_encoder} if options.text_encoder else {}
    values |= {"clip_skip": options.clip_skip} if options.clip_skip > 1 else {}
    told, comments = _read_infotext(given, catalog)
    values |= told
    values |= {ours: given[theirs] for theirs, ours in FIELDS.items() if theirs in given}
    if not is_other_than(0)(values.get("variation.strength", 0)):  # it is off, whatever its seed
        values = {name: value for name, value in values.items() if not name.startswith("variation.")}
    refiner = given.get("refiner_checkpoint", "")
    if str(refiner).casefold() not in NO_FILE:
        values["refiner"] = find_model("refiner_checkpoint", refiner, catalog)
    values |= _read_sampler(given, catalog, values)
    values |= _read_hires(given, catalog, values, with_picture)
    comments += _check_eta(given, values, catalog)
    scripts = read_scripts(given, with_picture, catalog, enlarged=bool(values.get("hires")))
    values |= scripts.values
    if with_picture:
        values["init"] = {**_read_init(given, told), **scripts.start}
    try:
        known = {name: value for name, value in nest(values).items() if name in Request.model_fields}
        request = Request.parse(known)
    except RequestError as error:
        raise in_their_words(error) from None
    if flag(given.get("disable_extra_networks")) and split_loras(request.prompt)[1]:
        raise RequestError(
            "disable_extra_networks is not supported here with a LoRA's tag in the prompt; leave the tag out",
            field="disable_extra_networks",
        )
    return Asked(request, comments + scripts.comments, scripts.shown)


def read_styles(body: Mapping[str, Any]) -> list[str]:
    """The names of the styles that it asks for, in whatever form."""
    given = body.get("styles")
    names = [str(name).strip() for name in (given if isinstance(given, list) else [given]) if name is not None]
    return [name for name in names if name.casefold() not in ("", "none")]


def style(name: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """One of ours as their list has it."""
    return {"name": name, "prompt": fields.get("prompt", ""), "negative_prompt": fields.get("negative", "")}


def _read_hires(
    given: Mapping[str, Any], catalog: Catalog, values: Mapping[str, Any], with_picture: bool
) -> dict[str, Any]:
    """The second pass, where it is on. Its strength is that of the start picture in a body that has one."""
    if "enable_hr" not in given:
        return {}
    if not flag(given["enable_hr"]):
        return {"hires": False} if "hires" in values else {}
    found: dict[str, Any] = {"hires": True}
    found |= {ours: given[theirs] for theirs, ours in HIRES_FIELDS.items() if theirs in given}
    if not with_picture and "denoising_strength" in given:
        found["hires.strength"] = given["denoising_strength"]
    if (upscaler := given.get("hr_upscaler")) is not None:
        found["hires.upscaler"] = LANCZOS if str(upscaler).casefold() == "none" else upscaler
    if (model := given.get("hr_checkpoint_name")) is not None and str(model).casefold() not in NO_FILE:
        found["hires.model"] = find_model("hr_checkpoint_name", model, catalog)
    sampler, schedule = (given.get(key) for key in ("hr_sampler_name", "hr_scheduler"))
    sampler, schedule = (None if str(name).casefold() in NO_FILE else name for name in (sampler, schedule))
    if sampler or schedule:
        own = {"sampler_name": sampler or values.get("sampler"), "scheduler": schedule}
        try:
            read = _read_sampler({key: name for key, name in own.items() if name}, catalog, values)
        except NotFound:
            text = f"hr_sampler_name: “{show(str(sampler))}” is not known here"
            raise RequestError(text, field="hr_sampler_name") from None
        except RequestError as error:
            raise RequestError(f"hr_{error}", field="hr_scheduler") from None
        if not sampler:
            del read["sampler"]
        elif not schedule and read["schedule"] == "Default":  # none was named
            del read["schedule"]
        found |= {f"hires.{name}": value for name, value in read.items()}
    return found


def _read_infotext(given: Mapping[str, Any], catalog: Catalog) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that the text of a picture says, which all other keys go before, and what it says in vain."""
    if "infotext" not in given:
        return {}, ()
    if not isinstance(given["infotext"], str):
        raise RequestError("infotext must be text", field="infotext")
    found = read_text(given["infotext"], catalog)
    if not found.values:
        reason = f": {found.unmapped[0]}" if found.unmapped else ""
        raise RequestError(f"infotext has no settings that can be read{reason}", field="infotext")
    return dict(found.values), tuple(f"infotext: {line}" for line in found.unmapped)


def _read_sampler(given: Mapping[str, Any], catalog: Catalog, values: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule without a sampler is that of the sampler which the infotext, or else the model, has."""
    sampler, schedule = given.get("sampler_name") or given.get("sampler_index"), given.get("scheduler")
    if sampler is None and schedule is None:
        return {}
    if sampler is None:
        sampler = values.get("sampler", catalog.models[values["model"]].defaults.sampler)
    found, unknown = translate(sampler, schedule, catalog.samplers)
    if "sampler" not in found:
        raise NotFound(f"Sampler not found: {str(sampler)[:80]!r}", field="sampler_name")
    if unknown:
        raise RequestError(unknown[0].replace("schedule:", "scheduler:", 1), field="scheduler")
    return found


def _check_eta(given: Mapping[str, Any], values: Mapping[str, Any], catalog: Catalog) -> tuple[str, ...]:
    """Refuses an ``eta`` that another picture would be drawn with; the one that clients send unasked is only told."""
    sampler = values.get("sampler", catalog.models[values["model"]].defaults.sampler)
    if "eta" not in given or sampler not in ETA or not is_other_than(ETA[sampler])(given["eta"]):
        return ()
    if is_other_than(CLIENTS_ETA)(given["eta"]):
        raise RequestError(
            f"eta {repr(given['eta'])[:60]} is not supported here with {sampler}; {ETA[sampler]:g} is", field="eta"
        )
    return (f"eta: {sampler} is drawn here with {ETA[sampler]:g}",)


def in_their_words(error: RequestError) -> RequestError:
    """The same with the names that A1111 has for the fields, which come first in each reason."""
    reasons = (
        re.sub(r"^(?:init\.)?(\w+(?:\.\w+)*)", lambda match: THEIRS.get(match[1], match[1]), reason)
        for reason in str(error).split("; ")
    )
    return RequestError("; ".join(reasons), field=THEIRS.get(own := error.field.removeprefix("init."), own))


def _read_init(given: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The start picture with its settings; ``told`` is what an infotext says of them."""
    pictures = given.get("init_images") or []
    if not isinstance(pictures, list) or not all(isinstance(picture, str) for picture in pictures):
        raise RequestError("init_images must be a list of pictures as base64", field="init_images")
    if not any(pictures):
        raise NotFound("Init image not found: init_images is empty", field="init_images")
    if len(pictures) > 1:
        raise RequestError(f"init_images: {len(pictures)} pictures were given; one is taken", field="init_images")
    init = {name: value for name, value in told.items() if name in Init.model_fields}
    init |= {ours: given[theirs] for theirs, ours in INIT_FIELDS.items() if theirs in given}
    if "mask_blur" not in given:
        init |= _read_mask_blur(given)
    for theirs, (ours, choices) in NUMBERED.items():
        if theirs in given:
            init[ours] = _choose(theirs, given[theirs], choices)
    init["image"] = read_picture("init_images", pictures[0])
    if mask := given.get("mask"):
        init["mask"] = read_picture("mask", mask)
        if init["mask"].size != init["image"].size:  # there both are brought to one size
            init["mask"] = images.to_mask(init["mask"]).resize(init["image"].size, Resampling.BILINEAR)
    return init


def _read_mask_blur(given: Mapping[str, Any]) -> dict[str, Any]:
    """A1111's blur of each direction, where they are one; it is 4 there where only one is said."""
    sides = {side: given[side] for side in ("mask_blur_x", "mask_blur_y") if side in given}
    if not sides:
        return {}
    if len({str(sides.get(side, 4)) for side in ("mask_blur_x", "mask_blur_y")}) > 1:
        raise RequestError("mask_blur_x and mask_blur_y must be equal here", field=next(iter(sides)))
    return {"mask_blur": next(iter(sides.values()))}


def _choose(field: str, value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or value not in range(len(choices)):
        said = "; ".join(f"{number} is {choice}" for number, choice in enumerate(choices))
        raise RequestError(f"{field} must be a number ({said}), not {str(value)[:60]!r}", field=field)
    return choices[int(value)]


def title(file: ModelFile) -> str:
    """What A1111's clients know a model by: its name with the file's ending."""
    return file.name + (file.path.suffix if file.path.is_file() else "")
