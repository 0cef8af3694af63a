"""What every task's page shares: prompt, Generate and Stop, status, settings, preview, gallery, and their wiring."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.events import Failed
from webui.core.groups import GROUP_FIELDS, group_values
from webui.core.groups.init import Init
from webui.core.request import NOT_ASKED, Request
from webui.core.work import Work
from webui.jobs.protocols import Executor
from webui.ui import (
    approximations,
    browser_state,
    fills,
    form,
    jobs,
    loras,
    models,
    passing,
    pasted,
    pictures,
    prompts,
    rows,
    seed,
    sizes,
    stream,
)
from webui.ui.fills import Fills
from webui.ui.verify import verify

FIELDS = (*(field for field in Request.model_fields if field not in NOT_ASKED), *GROUP_FIELDS)
INIT_FIELDS = tuple(field for field in Init.model_fields if field not in ("image", "mask", "outpaint"))

Update = Any
Controls = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What sets one page apart.

    ``build_inputs`` lays out the page's own controls above and below the prompt (it is called with "above", then
    "below") and returns them by name; ``work`` turns all values by name into what is to be drawn, raising
    RequestError. ``transient`` controls hold files: they are not remembered by the browser.
    ``enlarges`` says that the pictures of the embedded model are enlarged where nobody has said otherwise.
    ``collect_js`` is a function over all values in the browser, for what lives there until Generate is pressed.
    ``build_more`` lays out what a page shows of its pictures besides the gallery.
    """

    name: str
    invitation: str
    work: Callable[[Mapping[str, Any]], Work]
    build_inputs: Callable[[str, Catalog], Controls]
    transient: tuple[str, ...] = ()
    collect_js: str | None = None
    examples: tuple[str, ...] = ()
    build_more: Callable[[], None] | None = None
    enlarges: bool = False


@dataclass(frozen=True)
class Workbench:
    """A built page, and the ways of filling its fields."""

    name: str
    controls: Controls
    picker: models.Picker
    executor: Executor
    fills: Fills


@dataclass(frozen=True)
class Results:
    """What a page shows of its pictures, and of the verdict on the chosen one."""

    preview: gr.HTML
    gallery: gr.Gallery
    infotext: gr.Textbox
    verify: gr.Button
    verdict: gr.HTML


def build(task: Task, executor: Executor, targets: Sequence[str]) -> Workbench:
    """Lays a page out in the open tab and wires it; ``targets`` are the pages its pictures can be sent to."""
    catalog, name = executor.catalog(), task.name
    empty = f'<div class="preview-empty"><strong>Your picture appears here</strong>{task.invitation}</div>'
    controls: Controls = {}
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=320):
            controls |= task.build_inputs("above", catalog)
            controls["prompt"] = prompts.build_prompt(name, "prompt", catalog, info=None, autofocus=name == "txt2img")
            with gr.Row(elem_classes="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id=f"{name}-generate", scale=3)
                stop = gr.Button("Stop", variant="stop", elem_id=f"{name}-stop", scale=1, min_width=80)
            status = gr.HTML(jobs.IDLE, label="Status", elem_id=f"{name}-status")
            jobs.build_queue(name)
            new_seed = seed.build_note(name)
            approximate = approximations.build_note(name)
            if task.examples:
                prompts.build_examples(name, task.examples, controls["prompt"])
            controls |= task.build_inputs("below", catalog)
            picker = models.build_panel(name, Request.model_fields["model"].default)
            controls["loras"] = loras.build_panel(name)
            opened = ["upscale"] if task.enlarges else []
            grouped, folds = form.build_groups(name, catalog, prompts.build_prompt, opened)
            controls |= grouped | rows.build_lists(name)
            controls |= approximations.build_fold(name, catalog)
            with gr.Accordion("Settings", open=False, elem_id=f"{name}-settings"):
                helpers = _build_settings(name, controls, catalog)
        with gr.Column(scale=3, min_width=320, elem_classes="picture"):
            results = _build_results(task, empty, targets)
    places = {**controls, "chosen": picker.chosen, "size": helpers["size"]}
    places |= {f"{group} fold": fold for group, fold in folds.items()}
    filled = Fills(name, places)
    shown = jobs.Shown(results.gallery, status, results.preview, results.infotext)
    handlers = jobs.Handlers(executor, task.work, tuple(controls), Path(results.gallery.GRADIO_CACHE), empty)
    jobs.wire(name, handlers, list(controls.values()), (generate, stop), shown, task.collect_js)
    _wire_memory(executor, controls, task, filled)
    _wire_pictures(executor, results, controls, filled)
    seed.wire(new_seed, helpers["random"], controls["seed"])
    given = {field: controls[field] for field in task.transient if isinstance(controls[field], gr.Image)}
    browser_state.wire_pictures(name, given)
    _wire_size(executor, controls, filled, helpers["swap"])
    wire_verify(name, executor, results.verify, results.verdict)
    models.wire(picker, executor, controls, filled, task.enlarges)
    prompts.wire(name, controls, picker.chosen)
    filled.add("pasted", partial(pasted.apply_text, executor, tuple(filled_fields(controls))))
    approximations.wire(approximate, controls, executor)
    return Workbench(name, controls, picker, executor, filled)


def _build_results(task: Task, empty: str, targets: Sequence[str]) -> Results:
    """Lays it out in the open column; ``empty`` is the preview where there is no job."""
    name = task.name
    if task.build_more:
        task.build_more()
    preview = gr.HTML(empty, label="Preview", elem_id=f"{name}-preview")
    gallery = gr.Gallery(
        label="Pictures",
        elem_id=f"{name}-gallery",
        show_label=False,
        interactive=False,
        preview=True,
        columns=4,
        object_fit="contain",
        height="min(70vh, 640px)",
        buttons=["download", "fullscreen"],
    )
    jobs.build_finished(name)
    infotext = gr.Textbox(
        label="Settings of this picture",
        elem_id=f"{name}-infotext",
        elem_classes="infotext",
        interactive=False,
        lines=3,
        max_lines=8,
        buttons=["copy"],
    )
    with gr.Row(elem_classes="sending"):
        gr.Button("Reuse these settings", size="sm", elem_id=f"{name}-reuse", min_width=124)
        gr.Button("Reuse with seed", size="sm", elem_id=f"{name}-reuse-seed", min_width=124)
        gr.Button("Vary", size="sm", elem_id=f"{name}-vary", min_width=60)
        check = gr.Button("Verify", size="sm", elem_id=f"{name}-verify", min_width=60)
        for target in targets:
            gr.Button(f"Send to {target}", size="sm", elem_id=f"{name}-send-{target}", min_width=100)
    verdict = gr.HTML("", label="Verdict", elem_id=f"{name}-verdict")
    return Results(preview, gallery, infotext, check, verdict)


def filled_fields(controls: Controls) -> Controls:
    """The controls that a picture's settings can fill."""
    return {field: control for field, control in controls.items() if field in (*FIELDS, *INIT_FIELDS)}


def settings_of(request: Request) -> Controls:
    """What a picture's request says for the fields of a page, those of its start picture among them."""
    today = request.in_newest_syntax()
    values = {field: getattr(today, field) for field in FIELDS if field not in GROUP_FIELDS} | group_values(today)
    values |= today.templates
    return values | ({field: getattr(request.init, field) for field in INIT_FIELDS} if request.init else {})


def _build_settings(page: str, controls: Controls, catalog: Catalog) -> Controls:
    """The fold, ordered by how often people reach for it. Returns the small helpers beside the fields."""
    native_px = sizes.native_px(catalog, Request.model_fields["model"].default)
    helpers: Controls = {}

    def add(field: str, **overrides: Any) -> None:
        controls[field] = form.make_control(page, field, catalog, **overrides)

    controls["negative"] = prompts.build_prompt(page, "negative", catalog)
    helpers["size"] = gr.Dropdown(
        list(sizes.sizes_px(native_px)),
        value=None,
        label="Size",
        info="Shapes that suit the model",
        elem_id=f"{page}-size",
    )
    with gr.Row(elem_classes="with-buttons"):
        add("width", value=native_px, info=None, min_width=110)
        add("height", value=native_px, info=None, min_width=110)
        helpers["swap"] = gr.Button("Swap", size="sm", elem_id=f"{page}-swap", min_width=70)
    with gr.Row(elem_classes="with-buttons"):
        add("seed", info="-1 draws a new one", min_width=150, scale=2)
        helpers["random"] = gr.Button("Random", size="sm", elem_id=f"{page}-seed-random", min_width=70)
        helpers["last"] = gr.Button("Reuse last", size="sm", elem_id=f"{page}-seed-last", min_width=90)
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
        add("model", info="Cards are under Models")
        add("vae", info="Turns latents into pixels")
    with gr.Row():
        add("refiner", info="Finishes the picture")
        add("refiner_at", info="Share of the way")
    with gr.Row():
        add("prediction", info="What the model predicts")
        add("clip_skip")
    for field in FIELDS:  # whatever the request has learned since
        if field not in controls:
            add(field)
    return helpers


def _wire_memory(executor: Executor, controls: Controls, task: Task, filled: Fills) -> None:
    """The browser remembers the fields, and fills them when the page is opened."""
    page = task.name
    kept = [field for field in controls if field not in task.transient]

    def restore(text: str) -> dict[str, Update]:
        catalog = executor.catalog()
        updates = browser_state.recall(text, kept, controls, catalog)
        model = updates["model"].get("value")
        if task.enlarges:
            for field, value in models.enlarging(model or controls["model"].value).items():
                updates[field].setdefault("value", value)
            updates["upscale fold"] = gr.Accordion(open=updates["upscale"]["value"])
        return updates | fills.settle_model(catalog, model)

    filled.add("memory", restore)
    remembered = [controls[field] for field in kept]
    gr.on(
        [control.change for control in remembered],
        None,
        remembered,
        None,
        js=f"(...values) => darkroom.remember('{page}', {json.dumps(kept)}, values)",
        api_visibility="private",
        show_progress="hidden",
    )


def _wire_pictures(executor: Executor, results: Results, controls: Controls, filled: Fills) -> None:
    """What the chosen picture says, and the ways that it fills the page's fields."""
    fields = tuple(filled_fields(controls))

    def select(job_id: str, event: gr.SelectData) -> Update:
        found = pictures.find(executor, f"{job_id}/{event.index}")
        return found[1].recipe.infotext() if found else gr.skip()

    def reuse(picture: str, with_seed: bool) -> dict[str, Update]:
        found = pictures.find(executor, picture)
        values = settings_of(found[1].recipe.request) if found else {}
        return fills.from_picture(values, fields, executor.catalog(), with_seed=with_seed) if found else {}

    def vary(picture: str) -> dict[str, Update]:
        found = pictures.find(executor, picture)
        if found is None:
            return {}
        values = fills.near(settings_of(found[1].recipe.request))
        filled = fills.from_picture(values, fields, executor.catalog(), with_seed=True)
        return filled | {"variation fold": gr.Accordion(open=True)}

    def reuse_seed(picture: str) -> dict[str, Update]:
        found = pictures.find(executor, picture)
        return {"seed": found[1].seed} if found else {}

    results.gallery.select(
        select,
        [passing.box()],
        [results.infotext],
        js=f"(...values) => [darkroom.jobId('{filled.page}'), ...values.slice(1)]",
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    filled.add("reuse", reuse)
    filled.add("vary", vary)
    filled.add("last seed", reuse_seed)


def _wire_size(executor: Executor, controls: Controls, filled: Fills, swap: gr.Button) -> None:
    page, size, sides = filled.page, filled.places["size"], [controls["width"], controls["height"]]

    def apply(size: str | None, model: str) -> dict[str, Update]:
        offered = sizes.sizes_px(sizes.native_px(executor.catalog(), model))
        return dict(zip(("width", "height"), offered.get(size or "", ()), strict=False))

    filled.add("size", apply)
    js = f"(size, model) => darkroomFills.ask('{page}', 'size', {{ size, model }})"
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    size.input(None, [size, controls["model"]], None, js=js, **quiet)
    swap.click(None, sides, sides, js="(w, h) => [h, w]", **quiet)


def wire_verify(page: str, executor: Executor, button: gr.Button, verdict: gr.HTML) -> None:
    """The chosen picture of the page's gallery is made again, and the verdict on it shown."""

    async def check_picture(chosen: str) -> AsyncIterator[str]:
        found = await asyncio.to_thread(pictures.find, executor, chosen)
        if found is None:
            yield stream.status_html(Failed("There is no picture yet to verify."), None)
            return
        picture = found[1]
        recipe = await asyncio.to_thread(lambda: replace(picture.recipe, pixels_sha256=picture.pixels_sha256))
        async for status in verify(executor, picture.image, recipe, lambda _: None):
            yield status

    button.click(
        check_picture,
        [passing.box()],
        verdict,
        js=pictures.chosen_js(page),
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=None,
    )
