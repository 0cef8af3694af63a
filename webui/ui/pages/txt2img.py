"""The txt2img tab: a prompt, Generate, the picture; everything else one fold away."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.executor import Catalog, Executor, QueueFull
from webui.core.library import ModelFile
from webui.core.request import Request, RequestError
from webui.ui import form, stream

NAME = "txt2img"
FIELDS = (
    "prompt",
    "negative",
    "steps",
    "guidance",
    "width",
    "height",
    "seed",
    "count",
    "repeat",
    "sampler",
    "schedule",
    "clip_skip",
    "model",
)
SIZE_SHAPES = {"Square": (1, 1), "Landscape 3:2": (3, 2), "Portrait 2:3": (2, 3), "Wide 2:1": (2, 1)}
EXAMPLES = (
    "a red apple, flat style, on a blue background",
    "a panda, 3d style, on a yellow background",
    "a rocket, cartoon style, on a purple background",
    "a small house, flat style, on a green background",
)
EMPTY = stream.status_html(None, None, "Ready when you are. Ctrl+Enter generates, Esc stops.")
NO_PICTURE = '<div class="preview-empty"><strong>Your picture appears here</strong>Type what you want to see.</div>'
JOB_ID_JS = f"() => [darkroom.jobId('{NAME}')]"

Update = Any


def build(executor: Executor) -> None:
    """Lays the tab out and wires it to the executor."""
    catalog = executor.catalog()
    controls: dict[str, Any] = {}
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=320):
            controls["prompt"] = form.make_control(NAME, "prompt", catalog, info=None, autofocus=True)
            with gr.Row(elem_classes="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id=f"{NAME}-generate", scale=3)
                stop = gr.Button("Stop", variant="stop", elem_id=f"{NAME}-stop", scale=1, min_width=80)
            status = gr.HTML(EMPTY, label="Status", elem_id=f"{NAME}-status")
            gr.Examples([[text] for text in EXAMPLES], controls["prompt"], label="Try one", elem_id=f"{NAME}-examples")
            with gr.Accordion("Settings", open=False, elem_id=f"{NAME}-settings"):
                buttons = _build_settings(controls, catalog)
        with gr.Column(scale=3, min_width=320, elem_classes="picture"):
            preview = gr.HTML(NO_PICTURE, label="Preview", elem_id=f"{NAME}-preview")
            gallery = gr.Gallery(
                label="Pictures",
                elem_id=f"{NAME}-gallery",
                show_label=False,
                interactive=False,
                preview=True,
                columns=4,
                object_fit="contain",
                height="min(70vh, 640px)",
                buttons=["download", "fullscreen"],
            )
            infotext = gr.Textbox(
                label="Settings of this picture",
                elem_id=f"{NAME}-infotext",
                elem_classes="infotext",
                interactive=False,
                lines=3,
                max_lines=8,
                buttons=["copy"],
            )
            reuse = gr.Button("Reuse these settings", size="sm", elem_id=f"{NAME}-reuse")
    inputs = [controls[field] for field in FIELDS]
    _wire_jobs(executor, inputs, generate, stop, [gallery, status, preview, infotext])
    _wire_pictures(executor, inputs, controls, gallery, infotext, reuse, buttons)


def _build_settings(controls: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The fold, ordered by how often people reach for it. Returns the small helpers beside the fields."""
    native_px = _native_px(catalog, Request.model_fields["model"].default)
    helpers: dict[str, Any] = {}

    def add(field: str, **overrides: Any) -> None:
        controls[field] = form.make_control(NAME, field, catalog, **overrides)

    add("negative")
    helpers["size"] = gr.Dropdown(
        list(_size_presets(native_px)),
        value=None,
        label="Size",
        info="Shapes that suit the model",
        elem_id=f"{NAME}-size",
    )
    with gr.Row(elem_classes="with-buttons"):
        add("width", value=native_px, info=None, min_width=110)
        add("height", value=native_px, info=None, min_width=110)
        helpers["swap"] = gr.Button("Swap", size="sm", elem_id=f"{NAME}-swap", min_width=70)
    with gr.Row(elem_classes="with-buttons"):
        add("seed", info="-1 draws a new one", min_width=150, scale=2)
        helpers["random"] = gr.Button("Random", size="sm", elem_id=f"{NAME}-seed-random", min_width=70)
        helpers["last"] = gr.Button("Reuse last", size="sm", elem_id=f"{NAME}-seed-last", min_width=90)
    with gr.Row():
        add("count")
        add("repeat")
    with gr.Row():
        add("steps", info=None)
        add("guidance", info=None)
    with gr.Row():
        add("sampler")
        add("schedule")
    with gr.Row():
        add("model")
        add("clip_skip", info=None)
    return helpers


def _wire_jobs(
    executor: Executor,
    inputs: list[Any],
    generate: gr.Button,
    stop: gr.Button,
    outputs: list[Any],
) -> None:
    cache_dir = Path(outputs[0].GRADIO_CACHE)

    async def run(*values: Any) -> AsyncIterator[tuple[Update, ...]]:
        try:
            job = executor.submit(form.parse(FIELDS, values))
        except (RequestError, QueueFull) as error:
            refused = stream.Failed(str(error))
            yield gr.skip(), stream.status_html(refused, None), gr.skip(), gr.skip()
            raise gr.Error(str(error), print_exception=False) from None
        async for view in stream.watch(job, cache_dir):
            yield _updates(view)
            if view.error:
                raise gr.Error(view.error, print_exception=False)

    async def attach(job_id: str) -> AsyncIterator[tuple[Update, ...]]:
        job = executor.job(job_id)
        if job is None:  # a first visit, or the server has restarted since
            yield _updates(stream.View(EMPTY, NO_PICTURE, gallery=[]))
            return
        async for view in stream.watch(job, cache_dir):
            yield _updates(view)

    def cancel(job_id: str) -> None:
        if job := executor.job(job_id):
            job.cancel()

    def restore(memory: str) -> list[Update]:
        return _remembered(memory, executor.catalog())

    run.__signature__ = form.signature(FIELDS)  # type: ignore[attr-defined]
    quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    gallery = outputs[0]
    drawn = generate.click(run, inputs, outputs, api_name=NAME, trigger_mode="multiple", **quiet)
    drawn.success(_open_first, None, gallery, queue=False, **private)
    job_id = gr.Textbox(visible=False)
    memory = gr.Textbox(visible=False)
    stop.click(cancel, [job_id], None, js=JOB_ID_JS, queue=False, **private)
    blocks = gr.context.Context.root_block
    assert blocks is not None
    restored = blocks.load(restore, [memory], inputs, js=f"() => [darkroom.recall('{NAME}')]", queue=False, **private)
    attached = restored.then(
        attach,
        [job_id],
        outputs,
        js=f"() => [darkroom.recallJob('{NAME}')]",
        concurrency_limit=None,
        **private,
    )
    attached.success(_open_first, None, gallery, queue=False, **private)
    gr.on(
        [control.change for control in inputs],
        None,
        inputs,
        None,
        js=f"(...values) => darkroom.remember('{NAME}', {json.dumps(FIELDS)}, values)",
        **private,
    )


def _wire_pictures(
    executor: Executor,
    inputs: list[Any],
    controls: dict[str, Any],
    gallery: gr.Gallery,
    infotext: gr.Textbox,
    reuse: gr.Button,
    helpers: dict[str, Any],
) -> None:
    job_id = gr.Textbox(visible=False)
    selected = gr.Number(0, precision=0, visible=False)
    private: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}

    def picture_request(job_id: str, index: int) -> Request | None:
        job = executor.job(job_id)
        images = job.images if job else ()
        return images[index].recipe.request if 0 <= index < len(images) else None

    def select(job_id: str, event: gr.SelectData) -> tuple[Update, Update]:
        index = event.index if isinstance(event.index, int) else 0
        job = executor.job(job_id)
        images = job.images if job else ()
        return index, images[index].recipe.infotext() if 0 <= index < len(images) else gr.skip()

    def reuse_settings(job_id: str, index: int) -> list[Update]:
        request = picture_request(job_id, index)
        return [getattr(request, field) if request else gr.skip() for field in FIELDS]

    def reuse_seed(job_id: str, index: int) -> Update:
        request = picture_request(job_id, index)
        return request.seed if request else gr.skip()

    def apply_size(label: str | None, model: str) -> tuple[Update, Update]:
        sizes = _size_presets(_native_px(executor.catalog(), model))
        return sizes.get(label or "", (gr.skip(), gr.skip()))

    width, height = controls["width"], controls["height"]
    picture = f"(_, index) => [darkroom.jobId('{NAME}'), index]"
    gallery.select(select, [job_id], [selected, infotext], js=JOB_ID_JS, **private)
    reuse.click(reuse_settings, [job_id, selected], inputs, js=picture, **private)
    helpers["last"].click(reuse_seed, [job_id, selected], controls["seed"], js=picture, **private)
    helpers["random"].click(None, None, controls["seed"], js="() => -1", **private)
    helpers["swap"].click(None, [width, height], [width, height], js="(w, h) => [h, w]", **private)
    helpers["size"].input(apply_size, [helpers["size"], controls["model"]], [width, height], **private)


def _open_first() -> Update:
    """Shows the first picture large. Apart from the pictures, so that API clients get a plain list of them."""
    return gr.update(selected_index=0)


def _updates(view: stream.View) -> tuple[Update, ...]:
    """Values for gallery, status, preview and infotext; what the view leaves out stays as it is."""
    return (
        gr.skip() if view.gallery is None else view.gallery,
        view.status,
        gr.skip() if view.preview is None else view.preview,
        gr.skip() if view.infotext is None else view.infotext,
    )


def _native_px(catalog: Catalog, model: str) -> int:
    file: ModelFile | None = catalog.models.get(model) or next(iter(catalog.models.values()), None)
    return file.native_px if file else 512


def _size_presets(native_px: int) -> dict[str, tuple[int, int]]:
    """Sizes around the model's own: its long side stays, or doubles where the shape would be too thin."""
    presets: dict[str, tuple[int, int]] = {}
    for name, (across, down) in SIZE_SHAPES.items():
        unit_px = native_px / min(across, down) if max(across, down) == 3 else native_px
        width, height = (round(unit_px * side / 8) * 8 for side in (across, down))
        presets[f"{name} · {width} × {height}"] = (width, height)
    return presets


def _remembered(memory: str, catalog: Catalog) -> list[Update]:
    """Updates for all fields from what the browser kept; what does not parse is left as it is."""
    try:
        kept = json.loads(memory or "{}")
    except ValueError:
        kept = {}
    if not isinstance(kept, dict):
        kept = {}
    choices = {"sampler": catalog.samplers, "schedule": catalog.schedules, "model": catalog.models}
    updates: list[Update] = []
    for field in FIELDS:
        value = kept.get(field)
        usable = isinstance(value, str | int | float) and (field not in choices or value in choices[field])
        is_text = Request.model_fields[field].annotation is str
        updates.append(value if usable and isinstance(value, str) == is_text else gr.skip())
    return updates
