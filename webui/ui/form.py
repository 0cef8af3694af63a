"""Controls made from the fields of ``Request`` and ``Init``."""

import inspect
from abc import ABCMeta
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import gradio as gr
from gradio.components import Component
from PIL.Image import Image as PilImage
from pydantic.fields import FieldInfo

from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.groups import GROUP_FIELDS, SWITCHES
from webui.core.groups.init import Init
from webui.core.images import SIDE_STEP_PX
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.lora_ref import LoraRef
from webui.core.names import LANCZOS
from webui.core.request import Request

AnyComponent = TypeVar("AnyComponent", bound=Component)
FIELDS: dict[str, FieldInfo] = {**Init.model_fields, **Request.model_fields, **GROUP_FIELDS}
LINES = {"prompt": 3, "negative": 1, "hires.prompt": 2, "hires.negative": 2}
FILES = ("model", "vae", "text_encoder", "refiner", "hires.model", "hires.upscaler", "upscale.upscaler")
"""What may come and go while the page is open."""
CHOSEN = ("sampler", "schedule", "hires.sampler", "hires.schedule")
DROP = "Drop a picture here, or click to choose one"
FRACTION_STEP = 0.05
TYPED = ("steps", "guidance", "count")
"""Numbers with bounds that stand where there is no room for a slider."""
SLIDER_STEPS = {  # of whole numbers with a slider, and of fractions with another step
    "steps": 1,
    "guidance": 0.5,
    "count": 1,
    "repeat": 1,
    "clip_skip": 1,
    "reuse": 1,
    "mask_blur": 1,
    "padding": 8,
    "variation.strength": 0.01,
    "pag.scale": 0.5,
    "pag.adaptive": 0.001,
    "nag.scale": 0.5,
    "nag.tau": 0.1,
    "hires.scale": 0.05,
    "hires.steps": 1,
    "upscale.scale": 0.25,
}


def _as_sent(_self: Component, payload: Any) -> Any:
    return payload


def _path_of(_self: Component, payload: Any) -> str | None:
    return payload.path if payload else None


def _trusting(component: type[AnyComponent], preprocess: Callable[[Any, Any], Any] = _as_sent) -> type[AnyComponent]:
    """The component, handing on what it was sent: our own code checks it and words the error, naming the field.

    It is a class of its own because Gradio makes components anew for each visitor, and it goes past Gradio's
    metaclass, which would write a .pyi file beside this one.
    """
    members = {"preprocess": preprocess, "__module__": __name__}
    return ABCMeta.__new__(type(component), component.__name__, (component,), members)


Dropdown = _trusting(gr.Dropdown)
Number = _trusting(gr.Number)
Slider = _trusting(gr.Slider)
Textbox = _trusting(gr.Textbox)
Image = _trusting(gr.Image, _path_of)  # Gradio's own would decode the picture, without our bounds


def make_control(page: str, field: str, catalog: Catalog, **overrides: Any) -> Any:
    """The control of one field, with the field's label, help, bounds and default. Its id is ``<page>-<field>``, that of
    a group's ``<page>-<group>-<field>``, and that of a group's switch ``<page>-<group>-on``."""
    info = FIELDS[field]
    options: dict[str, Any] = {
        "label": info.title,
        "info": info.description,
        "value": info.default,
        "elem_id": f"{page}-{field.replace('.', '-')}{'-on' if field in SWITCHES else ''}",
        "interactive": True,
    } | overrides
    if field in (*FILES, *CHOSEN):
        known = choices(field, catalog)
        if field.endswith(".upscaler") and options["value"] not in dict(known).values():
            options["value"] = LANCZOS  # guests may not use the usual one
        return Dropdown(known, allow_custom_value=field in FILES, **options)
    if get_origin(info.annotation) is Literal:
        return Dropdown(list(get_args(info.annotation)), **options)
    if info.annotation is bool:
        return gr.Checkbox(**options)
    if field in LINES:
        return gr.Textbox(lines=LINES[field], max_lines=8, **options)
    if field in SLIDER_STEPS or info.annotation is float:
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        if field in TYPED:
            options |= {"precision": 0} if info.annotation is int else {}
            return Number(minimum=bounds["ge"], maximum=bounds["le"], step=SLIDER_STEPS[field], **options)
        return Slider(bounds["ge"], bounds["le"], step=SLIDER_STEPS.get(field, FRACTION_STEP), **options)
    if field == "background":
        return gr.ColorPicker(**options)
    if info.annotation == float | None:
        return Number(step=0.5, **options)
    if info.annotation == tuple[LoraRef, ...]:
        return Textbox(**options | {"value": ""})
    step = SIDE_STEP_PX if field in ("width", "height") else 1
    return Number(precision=0, step=step, **options)


def unseen(page: str, field: str, label: str, value: str = "") -> gr.Textbox:
    """A field for scripts, which show what it holds in their own way. It is not laid out yet: several that stand
    together share one of Gradio's boxes."""
    options: dict[str, Any] = {"elem_classes": "unseen", "interactive": True, "render": False}
    return Textbox(value, label=label, elem_id=f"{page}-{field}", **options)


def build_groups(
    page: str,
    catalog: Catalog,
    build_prompt: Callable[..., Any],
    opened: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, gr.Accordion]]:
    """A fold for each group that is made from its fields alone, in the open page; gives controls and folds by name.

    ``build_prompt`` is as ``make_control``, for prompts. The folds of groups in ``opened`` are open; those
    ``elsewhere`` are not made here.
    """
    controls: dict[str, Any] = {}
    folds: dict[str, gr.Accordion] = {}
    for group, names in groupby(GROUP_FIELDS, lambda name: name.partition(".")[0]):
        if group in elsewhere:
            continue
        title = Request.model_fields[group].title
        with gr.Accordion(title, open=group in opened, elem_id=f"{page}-{group}") as folds[group]:
            for name in names:
                controls[name] = (build_prompt if name in LINES else make_control)(page, name, catalog)
    return controls, folds


def choices(field: str, catalog: Catalog) -> list[tuple[str, str]]:
    """(label, value) pairs to choose from; of models those that can be used."""
    usable = [name for name, file in catalog.models.items() if file.checkpoint]
    upscalers = (*catalog.upscalers, LANCZOS)
    names = {"sampler": catalog.samplers, "schedule": catalog.schedules, "vae": catalog.vaes}
    names |= {"text_encoder": [name for name, file in catalog.text_encoders.items() if file.checkpoint]}
    names |= {"upscale.upscaler": upscalers, "hires.upscaler": (*upscalers, *LATENT_FILTERS)}
    names |= {"hires.sampler": catalog.samplers, "hires.schedule": catalog.schedules}
    nothing = {"vae": [("Model's own", "")], "text_encoder": [("What fits", "")], "refiner": [("None", "")]}
    nothing |= dict.fromkeys(("hires.model", "hires.sampler", "hires.schedule"), [("As in the first pass", "")])
    tiny = [name for name, file in catalog.vaes.items() if file.is_tiny] if field == "vae" else []
    labels = {name: f"{name} (tiny, approximate)" for name in tiny}
    return nothing.get(field, []) + [(labels.get(name, name), name) for name in names.get(field, usable)]


def picture_control(page: str, field: str, label: str, **options: Any) -> gr.Image:
    """A picture to upload, paste or drop. Handlers get the path of the very file, which they open themselves."""
    return Image(
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        label=label,
        placeholder=DROP,
        elem_id=f"{page}-{field}",
        interactive=True,
        buttons=[],
        **options,
    )


def open_picture(path: str, what: str, field: str = "") -> PilImage:
    """The picture of an uploaded file; raises RequestError naming it, and its field where that is called otherwise."""
    try:
        return images.open_image(Path(path))
    except images.ImageError as error:
        raise RequestError(f"{what} {Path(path).name[:80]!r} {error}", field=field or what) from None


def signature(fields: Sequence[str]) -> inspect.Signature:
    """Parameters named like the fields, those of groups ``group_field``, all optional, so that API clients can name the
    ones they set."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = {field: FIELDS[field].default for field in fields if field in FIELDS and not FIELDS[field].is_required()}
    names = {field: field.replace(".", "_") for field in fields}
    return inspect.Signature([inspect.Parameter(names[field], kind, default=defaults.get(field)) for field in fields])
