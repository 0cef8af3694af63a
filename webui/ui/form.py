"""Controls made from ``Request`` fields, and their values made into a ``Request`` again."""

import inspect
from abc import ABCMeta
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import gradio as gr
from gradio.components import Component

from webui.core.executor import Catalog
from webui.core.request import SIDE_STEP_PX, Request

AnyComponent = TypeVar("AnyComponent", bound=Component)

LINES = {"prompt": 3, "negative": 2}
SLIDER_STEPS = {"steps": 1, "guidance": 0.5, "count": 1, "repeat": 1, "clip_skip": 1}


def _as_sent(_self: Component, payload: Any) -> Any:
    return payload


def _trusting(component: type[AnyComponent]) -> type[AnyComponent]:
    """The component, handing on whatever it was sent: Request checks it and words the error, naming the field.

    It is a class of its own because Gradio makes components anew for each visitor, and it goes past Gradio's
    metaclass, which would write a .pyi file beside this one.
    """
    members = {"preprocess": _as_sent, "__module__": __name__}
    return cast(type[AnyComponent], ABCMeta.__new__(type(component), component.__name__, (component,), members))


Dropdown = _trusting(gr.Dropdown)
Number = _trusting(gr.Number)
Slider = _trusting(gr.Slider)


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
        return Dropdown(list(choices[field]), **options)
    if field in LINES:
        return gr.Textbox(lines=LINES[field], max_lines=8, **options)
    if field in SLIDER_STEPS:
        bounds = {
            limit: getattr(entry, limit) for entry in info.metadata for limit in ("ge", "le") if hasattr(entry, limit)
        }
        return Slider(bounds["ge"], bounds["le"], step=SLIDER_STEPS[field], **options)
    step = SIDE_STEP_PX if field in ("width", "height") else 1
    return Number(precision=0, step=step, **options)


def parse(fields: Sequence[str], values: Sequence[Any]) -> Request:
    """The request that the controls describe; raises RequestError. Sliders send whole numbers as floats."""
    return Request.parse(dict(zip(fields, values, strict=True)))


def signature(fields: Sequence[str]) -> inspect.Signature:
    """Parameters named like the fields, all optional, so that API clients can name the ones they set."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(field, kind, default=Request.model_fields[field].default) for field in fields]
    )
