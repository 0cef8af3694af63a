"""Controls made from ``Request`` fields, and their values made into a ``Request`` again."""

import inspect
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from webui.core.executor import Catalog
from webui.core.request import SIDE_STEP_PX, Request

LINES = {"prompt": 3, "negative": 2}
SLIDER_STEPS = {"steps": 1, "guidance": 0.5, "count": 1, "repeat": 1, "clip_skip": 1}


def make_control(page: str, field: str, catalog: Catalog, **overrides: Any) -> Component:
    """The control of one field, with the field's label, help, bounds and default. Its id is ``<page>-<field>``."""
    info = Request.model_fields[field]
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
    if field in LINES:
        return gr.Textbox(lines=LINES[field], max_lines=8, **options)
    if field in SLIDER_STEPS:
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        slider = gr.Slider(bounds["ge"], bounds["le"], step=SLIDER_STEPS[field], **options)
        slider.preprocess = _as_sent  # type: ignore[method-assign]  # Request words the bounds, naming the field
        return slider
    step = SIDE_STEP_PX if field in ("width", "height") else 1
    return gr.Number(precision=0, step=step, **options)


def _as_sent(payload: float) -> float:
    return payload


def parse(fields: Sequence[str], values: Sequence[Any]) -> Request:
    """The request that the controls describe; raises RequestError. Sliders send whole numbers as floats."""
    return Request.parse(dict(zip(fields, values, strict=True)))


def signature(fields: Sequence[str]) -> inspect.Signature:
    """Parameters named like the fields, all optional, so that API clients can name the ones they set."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(field, kind, default=Request.model_fields[field].default) for field in fields]
    )
