"""The inpaint tab: a picture, a mask on it, and what should be there instead.

The painter in the browser gives the mask alone, and only when Generate is pressed; a mask can also be uploaded or
typed as rectangles, and all of them count together.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from PIL import Image as PilImages
from PIL import ImageChops
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.work import Work
from webui.ui import form
from webui.ui.painting import painter
from webui.ui.workbench import INIT_FIELDS, Controls, Task, read_request

NAME = "inpaint"
COLLECT_JS = f"(image, _painted, ...rest) => [image, darkroomPainter.mask('{NAME}'), ...rest]"
SIDES = ("left", "top", "right", "bottom")


def _build_inputs(place: str, catalog: Catalog) -> Controls:
    return _build_above() if place == "above" else _build_below(catalog)


def _build_above() -> Controls:
    start = form.picture_control(NAME, "image", "Picture", height=150)
    painted = gr.Textbox(visible=False)  # filled by the painter when Generate is pressed
    show = f"(file) => darkroomPainter.show('{NAME}', file?.url)"
    start.change(None, start, None, js=show, api_visibility="private", show_progress="hidden")
    return {"image": start, "painted": painted}


def _build_painter() -> None:
    gr.HTML(painter(NAME), label="Mask", elem_id=f"{NAME}-mask", elem_classes="painting")


def _build_below(catalog: Catalog) -> Controls:
    controls: Controls = {}

    def add(field: str, **overrides: Any) -> None:
        controls[field] = form.make_control(NAME, field, catalog, **overrides)

    with gr.Accordion("Mask", open=False, elem_id=f"{NAME}-mask-settings"):
        add("mask_fill")
        add("mask_blur")
        add("softness")
        add("invert_mask")
        add("only_masked")
        add("padding")
        controls["mask"] = form.picture_control(NAME, "mask_picture", "Mask picture", height=140)
        controls["rectangles"] = gr.Textbox(
            label="Mask rectangles",
            info="One per line: left, top, width, height in px. For masking without a mouse.",
            placeholder="32, 32, 64, 64",
            lines=2,
            elem_id=f"{NAME}-rectangles",
        )
    with gr.Accordion("Outpaint: extend the picture", open=False, elem_id=f"{NAME}-outpaint"):
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
    with gr.Accordion("Fitting and background", open=False, elem_id=f"{NAME}-fitting"):
        add("resize")
        add("background")
    return controls


def _work(values: Mapping[str, Any]) -> Work:
    if not values["image"]:
        raise RequestError("Add a picture first: upload, paste or drop one", field="image")
    image = images.to_rgb(form.open_picture(values["image"], "image"), _colour(values["background"]))
    outpaint = tuple(values[f"outpaint_{side}"] or 0 for side in SIDES)
    mask = _mask(values, image.size)
    if mask is None and not any(outpaint):
        reason = "Nothing is masked yet: paint over the part to replace, or add a mask picture or rectangles"
        raise RequestError(reason, field="mask")
    init = {field: values[field] for field in INIT_FIELDS} | {"image": image, "mask": mask, "outpaint": outpaint}
    own = (*INIT_FIELDS, "image", "mask", "painted", "rectangles", "keep_size", *(f"outpaint_{s}" for s in SIDES))
    size: dict[str, Any] = {}
    if values["keep_size"]:
        size = {"width": None, "height": None}
    return read_request({key: value for key, value in values.items() if key not in own} | size | {"init": init})


def _colour(text: str) -> str:
    return text if isinstance(text, str) and len(text) == 7 and text.startswith("#") else "#ffffff"


def _mask(values: Mapping[str, Any], size: images.Size) -> PilImage | None:
    """All that was painted, uploaded and typed, together; None where there is nothing of it."""
    parts: list[PilImage] = []
    if values["painted"]:
        opacity = _painted(values["painted"]).convert("RGBA").getchannel("A")
        parts.append(opacity if opacity.size == size else opacity.resize(size, PilImages.Resampling.BILINEAR))
    if values["mask"]:
        uploaded = images.to_mask(form.open_picture(values["mask"], "mask", "mask_picture"))
        if uploaded.size != size:
            across, down = uploaded.size
            reason = f"the mask is {across} x {down} px, but the picture is {size[0]} x {size[1]} px"
            raise RequestError(reason, field="mask_picture")
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


def _painted(data_url: str) -> PilImage:
    try:
        return images.decode_text(data_url)
    except images.ImageError as error:
        raise RequestError(f"painted {error}", field="mask") from None


TASK = Task(
    NAME,
    "Add a picture, paint over the part to replace, and describe what should be there.",
    _work,
    _build_inputs,
    transient=("image", "painted", "mask"),
    collect_js=COLLECT_JS,
    build_more=_build_painter,
)
