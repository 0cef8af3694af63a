"""The History tab: its frame here, its life in ``static/history.js``, and reusing a picture's settings."""

from typing import Any

import gradio as gr

from webui.core.history import History, HistoryError
from webui.core.images import ImageError
from webui.core.recipe import RecipeError, read_picture
from webui.ui import form, loras
from webui.ui.workbench import FIELDS, Workbench, settle_model

FRAME = """
<div class="history panel">
  <div class="history-tools" role="search">
    <input type="search" data-field="query" placeholder="Search prompts" aria-label="Search prompts and file names">
    <select data-field="model" aria-label="Model"></select>
    <select data-field="lora" aria-label="LoRA"></select>
    <label>From <input type="date" data-field="from"></label>
    <label>to <input type="date" data-field="to"></label>
    <button type="button" data-act="favourites" aria-pressed="false">★ Favourites</button>
  </div>
  <p class="panel-note history-note" role="status">Looking for pictures ...</p>
  <p class="history-undo" role="status" hidden><span></span> <button type="button">Undo</button></p>
  <ul class="history-found" aria-label="Pictures, newest first"></ul>
  <button type="button" class="history-more" data-act="more" hidden>More</button>
  <dialog class="history-view" aria-label="Picture">
    <div class="history-actions">
      <button type="button" data-act="previous" aria-label="Newer picture">←</button>
      <button type="button" data-act="next" aria-label="Older picture">→</button>
      <button type="button" data-act="favourite" aria-pressed="false" title="F">★ Favourite</button>
      <button type="button" data-act="compare">Compare</button>
      <button type="button" data-act="reuse">Reuse in {target}</button>
      <a data-act="download">Download</a>
      <button type="button" data-act="delete" title="Delete">Delete</button>
      <button type="button" data-act="close" aria-label="Close">✕</button>
    </div>
    <img alt="">
    <p class="history-facts"></p>
    <pre class="history-infotext" tabindex="0" aria-label="Settings of this picture"></pre>
  </dialog>
  <dialog class="history-compare" aria-label="Two pictures">
    <div class="history-actions">
      <label>Wipe <input type="range" min="0" max="100" value="50"></label>
      <button type="button" data-act="close" aria-label="Close">✕</button>
    </div>
    <div class="history-stage"><img alt=""><img alt=""></div>
    <p class="history-facts"></p>
  </dialog>
</div>
"""


def build_tab(history: History, bench: Workbench, tabs: gr.Tabs) -> None:
    """Lays it out in the open tab; the settings of a picture can be reused in ``bench``."""
    gr.HTML(FRAME.format(target=bench.name))
    picture_id = gr.Textbox(visible=False)
    reuse = gr.Button("Reuse", elem_id="history-reuse", elem_classes="unseen")
    reused = {field: control for field, control in bench.controls.items() if field in FIELDS}

    def reuse_settings(picture_id: str) -> list[Any]:
        try:
            picture = history.find(picture_id)
            recipe = read_picture(picture.path) if picture else None
        except (HistoryError, RecipeError, ImageError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        if recipe is None:
            raise gr.Error("This picture has no settings of ours.", print_exception=False)
        request, catalog = recipe.request, bench.runs.executor.catalog()
        values = {field: getattr(request, field) for field in reused} | {"loras": loras.to_text(request.loras)}
        for field in form.FILES:  # what is not here any more leaves its field as it is
            if values[field] not in [choice for _, choice in form.choices(field, catalog)]:
                gr.Warning(f"The {field} of this picture is not here any more.")
                values[field] = gr.skip()
        model = request.model if request.model in catalog.models else None
        return [gr.Tabs(selected=bench.name), *values.values(), *settle_model(catalog, model)]

    reuse.click(
        reuse_settings,
        [picture_id],
        [tabs, *reused.values(), bench.picker.chosen, bench.sizes],
        js="() => [darkroomHistory.chosen()]",
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
