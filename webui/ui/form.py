"""Controls made from the fields of ``Request`` and ``Init``."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from PIL.Image import Image as PilImage
from pydantic.fields import FieldInfo

from webui.core import images
from webui.core.executor import Catalog
from webui.core.request import SIDE_STEP_PX, Init, Request, RequestError

FIELDS: dict[str, FieldInfo] = Init.model_fields | Request.model_fields
LINES = {"prompt": 3, "negative": 2}
SLIDER_STEPS = {
    "steps": 1,
    "guidance": 0.5,
    "count": 1,
    "repeat": 1,
    "clip_skip": 1,
    "strength": 0.05,
    "mask_blur": 1,
    "padding": 8,
}


def make_control(page: str, field: str, catalog: Catalog, **overrides: Any) -> Any:
    """The control of one field, with the field's label, help, bounds and default. Its id is ``<page>-<field>``."""
    info = FIELDS[field]
    options: dict[str, Any] = {
        "label": info.title,
        "info": info.description,
        "value": info.default,
        "elem_id": f"{page}-{field}",
        "interactive": True,
    } | overrides
    choices = {"sampler": catalog.samplers, "schedule": catalog.schedules, "model": catalog.models}
    if field in choices:
        return gr.Dropdown(list(choices[field]), **options)
    if get_origin(info.annotation) is Literal:
        return gr.Dropdown(list(get_args(info.annotation)), **options)
    if info.annotation is bool:
        return gr.Checkbox(**options)
    if field in LINES:
        return gr.Textbox(lines=LINES[field], max_lines=8, **options)
    if field in SLIDER_STEPS:
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        slider = gr.Slider(bounds["ge"], bounds["le"], step=SLIDER_STEPS[field], **options)
        slider.preprocess = _as_sent  # type: ignore[method-assign]  # Request words the bounds, naming the field
        return slider
    if field == "background":
        return gr.ColorPicker(**options)
    step = SIDE_STEP_PX if field in ("width", "height") else 1
    return gr.Number(precision=0, step=step, **options)


def picture_control(page: str, field: str, label: str, **options: Any) -> gr.Image:
    """A picture to upload, paste or drop. Handlers get the path of the very file, which they open themselves."""
    control = gr.Image(
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        label=label,
        elem_id=f"{page}-{field}",
        interactive=True,
        buttons=[],
        **options,
    )
    control.preprocess = _path_of  # type: ignore[method-assign]  # Gradio's own would decode it, without our bounds
    return control


def open_picture(path: str, what: str) -> PilImage:
    """The picture of an uploaded file; raises RequestError naming it."""
    try:
        return images.open_image(Path(path))
    except images.ImageError as error:
        raise RequestError(f"{what} {Path(path).name[:80]!r} {error}", field=what) from None


def _path_of(payload: Any) -> str | None:
    return payload.path if payload else None


def _as_sent(payload: float) -> float:
    return payload


def signature(fields: Sequence[str]) -> inspect.Signature:
    """Parameters named like the fields, all optional, so that API clients can name the ones they set."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = {field: FIELDS[field].default for field in fields if field in FIELDS and not FIELDS[field].is_required()}
    return inspect.Signature([inspect.Parameter(field, kind, default=defaults.get(field)) for field in fields])
