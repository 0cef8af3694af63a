"""What decides most of a picture, in one block: model, sampler, size, steps, guidance, how many, seed, LoRAs.

The fields are Gradio's. What sets them besides (chips, shapes, the seed's buttons) is laid out here and lives in
``static/chips.js``, ``size.js`` and ``seed.js``.
"""

from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.request import Request
from webui.ui import form

LABELS = {"width": "Width", "height": "Height", "count": "Pictures"}
SHAPES = ("1:1", "3:2", "2:3", "16:9", "9:16")
CHIPS = """
<h2 class="visually-hidden">Main settings</h2>
<ul class="chips" data-page="{page}" aria-label="LoRAs and styles in use"></ul>
"""
SIZE = """
<div class="shapes" id="{page}-size" role="group" aria-label="Shape" data-page="{page}"
  data-model="{model}" data-native="{native_px}">
  {shapes}
  <button type="button" class="swap" id="{page}-swap" aria-label="Swap width and height" title="Swap sides"></button>
</div>
"""
SEED = """
<div class="seed-tools" role="group" aria-label="Seed" data-page="{page}">
  <span class="seed-word" aria-hidden="true">Random</span>
  <button type="button" data-act="random" aria-label="Random seed" title="A new seed for each picture"></button>
  <button type="button" data-act="last" aria-label="Reuse last seed" title="The seed of the shown picture"></button>
  <button type="button" data-act="keep" aria-label="Keep this seed" title="Keep this seed"></button>
</div>
"""
SHAPE = '<button type="button" data-shape="{shape}" aria-label="{shape}"><i style="aspect-ratio: {ratio}"></i></button>'


def build(page: str, catalog: Catalog, has_start: bool) -> dict[str, Any]:
    """Lays it out in the open page, in the order in which it is seen; returns its controls by name.

    A page that begins with a picture asks how far to move away from it, and whose size.
    """
    model = Request.model_fields["model"].default
    native_px = _native_px(catalog, model)
    values = {"width": native_px, "height": native_px}
    controls: dict[str, Any] = {}
    shapes = "".join(SHAPE.format(shape=shape, ratio=shape.replace(":", " / ")) for shape in SHAPES)

    def add(*fields: str) -> None:
        for field in fields:
            options: dict[str, Any] = {"info": None}
            options |= {"label": LABELS[field]} if field in LABELS else {}
            options |= {"value": values[field]} if field in values else {}
            controls[field] = form.make_control(page, field, catalog, **options)

    if has_start:
        controls["strength"] = form.make_control(page, "strength", catalog, info="0 keeps the picture, 1 ignores it")
    gr.HTML(CHIPS.format(page=page), label="Main settings", padding=False)
    add("model", "sampler")
    gr.HTML(SIZE.format(page=page, model=model, native_px=native_px, shapes=shapes), label="Shape", padding=False)
    add("width", "height")
    if has_start:
        controls["keep_size"] = gr.Checkbox(True, label="Keep the picture's size", elem_id=f"{page}-keep_size")
    add("steps", "guidance", "count", "seed")
    gr.HTML(SEED.format(page=page), label="Seed", padding=False)
    return controls


def _native_px(catalog: Catalog, model: str) -> int:
    """The side of the model's own pictures, or another's where it is not known."""
    file = catalog.models.get(model) or next(iter(catalog.models.values()), None)
    return file.native_px if file else 512
