"""The upscale tab: pictures enlarged without drawing; one, several or a folder, and before and after side by side."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.request import Request
from webui.core.work import MAX_BATCH, Work, make_batch
from webui.jobs.protocols import Executor
from webui.ui import browser_state, form, jobs, passing, picture_bar, pictures
from webui.ui.fills import Fills
from webui.ui.workbench import wire_verify

NAME = "upscale"
FIELDS = ("upscale.upscaler", "upscale.scale", "upscale.width", "upscale.height")
EMPTY = (
    '<div class="preview-empty"><strong>Your picture appears here</strong>Add a picture and choose how large it'
    " should be.</div>"
)
WIPE = """
<figure class="wipe" hidden>
  <div class="wipe-stage"><img alt="Before"><img alt="After"></div>
  <label>Before and after <input type="range" min="0" max="100" value="50"></label>
</figure>
"""


def build(executor: Executor) -> Fills:
    """Lays the page out in the open tab and wires it; returns the ways of filling it."""
    catalog = executor.catalog()
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=320, elem_classes="asking"):
            controls = _build_inputs(catalog)
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Upscale", variant="primary", elem_id=f"{NAME}-generate", scale=3)
            stop = gr.Button("Stop", variant="stop", elem_id=f"{NAME}-stop", scale=1, min_width=80)
            status = gr.HTML(jobs.IDLE, label="Status", elem_id=f"{NAME}-status")
        with gr.Column(scale=3, min_width=320, elem_classes="picture"):
            preview = gr.HTML(EMPTY, label="Preview", elem_id=f"{NAME}-preview")
            gallery = picture_bar.build_gallery(NAME)
            gr.HTML(WIPE, label="Before and after", elem_id=f"{NAME}-wipe")
            infotext = picture_bar.build_infotext(NAME)
            with gr.Row(elem_classes="sending"):
                verify = picture_bar.build_tools(NAME, {f"send-{NAME}": "Further"})
            verdict = gr.HTML("", label="Verdict", elem_id=f"{NAME}-verdict")
    shown = jobs.Shown(gallery, status, preview, infotext)
    cache_dir = Path(gallery.GRADIO_CACHE)
    handlers = jobs.Handlers(executor, _work, tuple(controls), cache_dir, EMPTY)
    jobs.wire(NAME, handlers, list(controls.values()), (start, stop), shown, None)
    filled = Fills(NAME, {field: controls[field] for field in (*FIELDS, "image")})
    _wire_memory(executor, controls, filled)
    _wire_gallery(executor, shown, cache_dir)
    wire_verify(NAME, executor, verify, verdict)
    return filled


def _build_inputs(catalog: Catalog) -> dict[str, Any]:
    with gr.Column(elem_classes="asking-head"):
        controls: dict[str, Any] = {"image": form.picture_control(NAME, "image", "Picture", height=150)}
        controls |= {field: form.make_control(NAME, field, catalog) for field in FIELDS}
    with gr.Column(elem_classes="folds"), gr.Accordion("Batch", open=False, elem_id=f"{NAME}-batch"):
        controls["files"] = gr.File(
            label="Several pictures", file_count="multiple", type="filepath", elem_id=f"{NAME}-files", height=140
        )
        controls["folder"] = gr.File(
            label="A folder of pictures", file_count="directory", type="filepath", elem_id=f"{NAME}-folder", height=140
        )
    return controls


def _work(values: Mapping[str, Any]) -> Work:
    paths = [*(values["files"] or []), *(values["folder"] or [])] or [values["image"]]
    if paths == [None]:
        raise RequestError("Add a picture first: upload, paste or drop one", field="image")
    if len(paths) > MAX_BATCH:
        raise RequestError(
            f"files: {len(paths)} pictures are too many for one batch; the limit is {MAX_BATCH}", "files"
        )
    return make_batch(_requests(paths, values["upscale"]))


def _requests(paths: list[str], asked: Mapping[str, Any]) -> Iterator[Request]:
    for path in paths:
        init = {"image": form.open_picture(path, "image")}
        yield Request.parse({"init": init, "upscale": {**asked, "only": True}})


def _wire_memory(executor: Executor, controls: Mapping[str, Any], filled: Fills) -> None:
    """The browser remembers the fields and the picture."""

    def restore(text: str) -> dict[str, Any]:
        return browser_state.recall(text, FIELDS, controls, executor.catalog())

    filled.add("memory", restore)
    browser_state.wire_fields(NAME, {field: controls[field] for field in FIELDS})
    browser_state.wire_pictures(NAME, {"image": controls["image"]})


def _wire_gallery(executor: Executor, shown: jobs.Shown, cache_dir: Path) -> None:
    """The chosen picture's settings, and it beside the one that it was made from."""
    private: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
    both = gr.Textbox(visible=False)

    def select(job_id: str, event: gr.SelectData) -> tuple[Any, str]:
        chosen = f"{job_id}/{event.index}"
        found = pictures.find(executor, chosen)
        return found[1].recipe.infotext() if found else gr.skip(), compare(chosen)

    def compare(chosen: str) -> str:
        found, after = pictures.find(executor, chosen), pictures.find_file(executor, chosen, cache_dir)
        if found is None or after is None or (init := found[1].recipe.request.init) is None:
            return "{}"
        before = Path(after).parent / f"before-{Path(after).name}"
        try:
            if not before.exists():
                init.image.save(before, "PNG", compress_level=1)
        except OSError:
            return "{}"
        return json.dumps({"before": str(before), "after": after})

    of_job = f"(...values) => [darkroom.jobId('{NAME}'), ...values.slice(1)]"
    chosen = shown.gallery.select(select, [passing.box()], [shown.infotext, both], js=of_job, **private)
    of_first = f"(...values) => [`${{darkroom.jobId('{NAME}')}}/0`, ...values.slice(1)]"
    changed = shown.gallery.change(compare, [passing.box()], [both], js=of_first, **private)
    for event in (chosen, changed):
        event.then(None, [both], None, js=f"(both) => darkroomWipe.show('{NAME}', both)", **private)
