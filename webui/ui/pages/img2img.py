"""The img2img tab: a picture, a prompt, and how far to move away from it; one picture or a batch of files."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.request import Request
from webui.core.work import MAX_BATCH, Work, make_batch
from webui.ui import form
from webui.ui.workbench import Controls, Task, read_request

NAME = "img2img"
INIT_FIELDS = ("strength", "resize", "background")


def _build_inputs(place: str, catalog: Catalog) -> Controls:
    if place == "above":
        return {"image": form.picture_control(NAME, "image", "Picture", height=150)}
    controls: Controls = {}
    with gr.Accordion("Fitting and background", open=False, elem_id=f"{NAME}-fitting"):
        controls["resize"] = form.make_control(NAME, "resize", catalog)
        controls["background"] = form.make_control(NAME, "background", catalog)
    with gr.Accordion("Batch", open=False, elem_id=f"{NAME}-batch"):
        controls["files"] = gr.File(
            label="Several pictures", file_count="multiple", type="filepath", elem_id=f"{NAME}-files", height=140
        )
        controls["folder"] = gr.File(
            label="A folder of pictures", file_count="directory", type="filepath", elem_id=f"{NAME}-folder", height=140
        )
    return controls


def _work(values: Mapping[str, Any]) -> Work:
    batch = [*(values["files"] or []), *(values["folder"] or [])]
    paths = batch or [values["image"]]
    if paths == [None]:
        raise RequestError("Add a picture first: upload, paste or drop one", field="image")
    if len(paths) > MAX_BATCH:
        raise RequestError(
            f"files: {len(paths)} pictures are too many for one batch; the limit is {MAX_BATCH}", "files"
        )
    return make_batch(_request(path, values) for path in paths)


def _request(path: str, values: Mapping[str, Any]) -> Request:
    init = {field: values[field] for field in INIT_FIELDS} | {"image": form.open_picture(path, "image")}
    size = {"width": None, "height": None} if values["keep_size"] else {}
    own = (*INIT_FIELDS, "image", "keep_size", "files", "folder")
    return read_request({key: value for key, value in values.items() if key not in own} | size | {"init": init})


TASK = Task(
    NAME,
    "Add a picture and describe what it should become.",
    _work,
    _build_inputs,
    transient=("image", "files", "folder"),
)
