"""The inpaint tab: a picture, a mask on it, and what should be there instead.

The picture comes from its own upload, never from the editor's canvas: what lies outside the mask has to come back
bit for bit. The editor gives the mask alone; a mask can also be uploaded or typed as rectangles.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image as PilImages
from PIL import ImageChops
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.executor import Catalog
from webui.core.request import Request, RequestError
from webui.ui import form
from webui.ui.workbench import INIT_FIELDS, Controls, Task

NAME = "inpaint"
SIDES = ("left", "top", "right", "bottom")
SHOWN_PX = 1024  # the editor's copy of a larger picture


def _build_inputs(place: str, catalog: Catalog) -> Controls:
    return _build_above() if place == "above" else _build_below(catalog)


def _build_above() -> Controls:
    picture = form.picture_control(NAME, "image", "Picture", height=180)
    editor = gr.ImageEditor(
        label="Paint over what should be drawn anew",
        elem_id=f"{NAME}-mask",
        type="filepath",
        format="png",
        sources=(),
        transforms=(),
        layers=gr.LayerOptions(allow_additional_layers=False),
        brush=gr.Brush(default_size=24, colors=["#ff2d95"], default_color="#ff2d95", color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        height=420,
        buttons=[],
    )
    picture.change(_show_in_editor, picture, editor, api_visibility="private", queue=False, show_progress="hidden")
    return {"image": picture, "mask": editor}


def _build_below(catalog: Catalog) -> Controls:
    controls: Controls = {}

    def add(field: str, **overrides: Any) -> None:
        controls[field] = form.make_control(NAME, field, catalog, **overrides)

    add("strength")
    with gr.Accordion("Mask", open=False, elem_id=f"{NAME}-mask-settings"):
        add("mask_fill")
        add("mask_blur")
        with gr.Row():
            add("invert_mask")
            add("only_masked")
        add("padding")
        controls["mask_picture"] = form.picture_control(NAME, "mask_picture", "Mask picture", height=140)
        controls["rectangles"] = gr.Textbox(
            label="Mask rectangles",
            info="One a line: left, top, width, height in px. For masking without a mouse.",
            placeholder="32, 32, 64, 64",
            lines=2,
            elem_id=f"{NAME}-rectangles",
        )
    with gr.Accordion("Outpaint: add to the sides", open=False, elem_id=f"{NAME}-outpaint"), gr.Row():
        for side in SIDES:
            controls[f"outpaint_{side}"] = gr.Number(
                0,
                label=f"{side.capitalize()} in px",
                precision=0,
                step=8,
                minimum=0,
                elem_id=f"{NAME}-outpaint_{side}",
                min_width=90,
            )
    with gr.Accordion("Size and background of the picture", open=False, elem_id=f"{NAME}-fitting"):
        controls["keep_size"] = gr.Checkbox(
            True,
            label="Keep the picture's size",
            info="Otherwise the size in the settings is used",
            elem_id=f"{NAME}-keep_size",
        )
        add("resize")
        add("background")
    return controls


def _show_in_editor(path: str | None) -> Any:
    """The picture as the editor's background; it is only looked at there, so a large one is shown smaller."""
    if not path:
        return None
    try:
        shown = images.to_rgb(images.open_image(Path(path)))
    except images.ImageError as error:
        raise gr.Error(f"image {Path(path).name[:80]!r} {error}", print_exception=False) from None
    if max(shown.size) > SHOWN_PX:
        shown = images.shrink(shown, SHOWN_PX)
    return {"background": shown, "layers": [], "composite": None}


def _requests(values: Mapping[str, Any]) -> Sequence[Request]:
    if not values["image"]:
        raise RequestError("image is missing: upload, paste or drop a picture", field="image")
    image = images.to_rgb(form.open_picture(values["image"], "image"), _colour(values["background"]))
    outpaint = tuple(values[f"outpaint_{side}"] or 0 for side in SIDES)
    mask = _mask(values, image.size)
    if mask is None and not any(outpaint):
        raise RequestError("mask is missing: paint over a part of the picture, or give a mask picture or rectangles")
    init = {field: values[field] for field in INIT_FIELDS} | {"image": image, "mask": mask, "outpaint": outpaint}
    own = (*INIT_FIELDS, "image", "mask", "mask_picture", "rectangles", "keep_size", *(f"outpaint_{s}" for s in SIDES))
    size: dict[str, Any] = {}
    if values["keep_size"]:
        size = {"width": None, "height": None}
    return [Request.parse({key: value for key, value in values.items() if key not in own} | size | {"init": init})]


def _colour(text: str) -> str:
    return text if isinstance(text, str) and len(text) == 7 and text.startswith("#") else "#ffffff"


def _mask(values: Mapping[str, Any], size: images.Size) -> PilImage | None:
    """All that was painted, uploaded and typed, together; None where there is nothing of it."""
    parts: list[PilImage] = []
    for layer in (values["mask"] or {}).get("layers") or []:
        alpha = form.open_picture(layer, "mask").convert("RGBA").getchannel("A")
        parts.append(alpha if alpha.size == size else alpha.resize(size, PilImages.Resampling.BILINEAR))
    if values["mask_picture"]:
        uploaded = images.to_mask(form.open_picture(values["mask_picture"], "mask"))
        if uploaded.size != size:
            across, down = uploaded.size
            raise RequestError(f"mask is {across} x {down} px, but the image is {size[0]} x {size[1]} px", field="mask")
        parts.append(uploaded)
    if (values["rectangles"] or "").strip():
        try:
            parts.append(images.parse_rectangles(values["rectangles"], size))
        except images.ImageError as error:
            raise RequestError(f"rectangles: {error}", field="rectangles") from None
    parts = [part for part in parts if part.getbbox()] or parts[:1]
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole = ImageChops.lighter(whole, part)
    return whole


TASK = Task(
    NAME,
    "Give a picture, paint over a part of it, and say what should be there.",
    _requests,
    _build_inputs,
    transient=("image", "mask", "mask_picture"),
)
