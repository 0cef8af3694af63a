"""What every task's page shares: prompt, Generate and Stop, status, settings, preview, gallery, and their wiring."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.events import Failed
from webui.core.groups import GROUP_FIELDS, LISTS, group_values, naming_pictures
from webui.core.groups.init import Init
from webui.core.recipe import Recipe, hash_pictures
from webui.core.request import NOT_ASKED, Request
from webui.core.work import Work
from webui.jobs.protocols import Executor
from webui.ui import (
    approximations,
    basics,
    browser_state,
    fills,
    form,
    guiding,
    jobs,
    loras,
    models,
    passing,
    pasted,
    picture_bar,
    pictures,
    prompts,
    rows,
    stream,
)
from webui.ui.fills import Fills
from webui.ui.verify import verify
from webui.workspace.styles import with_styles

FIELDS = (*(field for field in Request.model_fields if field not in NOT_ASKED), *GROUP_FIELDS)
INIT_FIELDS = tuple(field for field in Init.model_fields if field not in ("image", "mask", "outpaint"))

Update = Any
Controls = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What sets one page apart.

    ``build_inputs`` lays out the page's own controls above the prompt and in folds below Generate (it is called with
    "above", then "below") and returns them by name; ``work`` turns all values by name into what is to be drawn, with
    ``read_request``, raising RequestError. ``transient`` controls hold files: they are not remembered by the browser.
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


def build(
    task: Task,
    executor: Executor,
    targets: Sequence[str],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Workbench:
    """Lays a page out in the open tab and wires it; ``targets`` are the pages its pictures can be sent to.

    ``complete`` says what those of a page's values are that name things of the visitor's. The left column scrolls but
    for the prompt above and Generate below: what decides most of a picture, then the folds. The rest is the picture's.
    """
    catalog, name, is_first = executor.catalog(), task.name, task.name == "txt2img"
    empty = f'<div class="preview-empty"><strong>Your picture appears here</strong>{task.invitation}</div>'
    controls: Controls = {}
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=320, elem_classes="asking"):
            with gr.Column(elem_classes="asking-head"):
                controls |= task.build_inputs("above", catalog)
                controls["prompt"] = prompts.build_prompt(name, "prompt", catalog, info=None, autofocus=is_first)
            with gr.Column(elem_classes="asking-head"):  # on a phone the picture is between the two
                controls["negative"] = prompts.build_prompt(name, "negative", catalog, info=None)
                controls |= basics.build(name, catalog, has_start="image" in controls)
                approximate = approximations.build_note(name)
            with gr.Column(elem_classes="folds"):
                controls |= task.build_inputs("below", catalog)
                picker = models.build_panel(name, Request.model_fields["model"].default)
                controls["form"] = picker.form
                controls["loras"] = loras.build_panel(name)
                opened = ["upscale"] if task.enlarges else []
                grouped, folds = form.build_groups(name, catalog, prompts.build_prompt, opened, guiding.GROUPS)
                controls |= grouped | rows.build_lists(name)
                controls |= guiding.build_fold(name, catalog) | approximations.build_fold(name, catalog)
                with gr.Accordion("Settings", open=False, elem_id=f"{name}-settings"):
                    _build_settings(name, controls, catalog)
                controls["styles"] = form.unseen(name, "styles", "Styles")  # ``static/chips.js`` shows them
                for field in (picker.chosen, *(controls[name] for name in ("form", "loras", *LISTS, "styles"))):
                    field.render()
        with gr.Row(elem_classes="actions"):
            generate = gr.Button("Generate", variant="primary", elem_id=f"{name}-generate", scale=3)
            stop = gr.Button("Stop", variant="stop", elem_id=f"{name}-stop", scale=1, min_width=80)
            status = gr.HTML(jobs.IDLE, label="Status", elem_id=f"{name}-status")
        with gr.Column(scale=3, min_width=320, elem_classes="picture"):
            results = _build_results(task, empty, targets)
            if task.examples:
                prompts.build_examples(name, task.examples, controls["prompt"])
    places = {**controls, "chosen": picker.chosen} | {f"{group} fold": fold for group, fold in folds.items()}
    filled = Fills(name, places)
    shown = jobs.Shown(results.gallery, status, results.preview, results.infotext)
    cache_dir = Path(results.gallery.GRADIO_CACHE)
    handlers = jobs.Handlers(executor, partial(_work, task, complete), tuple(controls), cache_dir, empty)
    jobs.wire(name, handlers, list(controls.values()), (generate, stop), shown, task.collect_js)
    remember = _wire_memory(executor, controls, task, filled)
    _wire_pictures(executor, results, controls, filled)
    given = {field: controls[field] for field in task.transient if isinstance(controls[field], gr.Image)}
    browser_state.wire_pictures(name, given)
    wire_verify(name, executor, results.verify, results.verdict)
    models.wire(picker, executor, controls, filled, task.enlarges)
    filled.add("pasted", partial(pasted.apply_text, executor, tuple(filled_fields(controls))))
    approximations.wire(name, remember, approximate, controls, executor)
    return Workbench(name, controls, picker, executor, filled)


def read_request(values: Mapping[str, Any]) -> Request:
    """A page's values as a request, in the styles that are among them; raises RequestError."""
    asked = dict(values)
    styles = asked.pop("styles", ())
    return with_styles(Request.parse(asked), styles)


def _work(task: Task, complete: Callable[[Mapping[str, Any]], Mapping[str, Any]], values: Mapping[str, Any]) -> Work:
    return task.work({**values, **complete(values)})


def _build_results(task: Task, empty: str, targets: Sequence[str]) -> Results:
    """Lays it out in the open column; ``empty`` is the preview where there is no job."""
    name = task.name
    if task.build_more:
        task.build_more()
    preview = gr.HTML(empty, label="Preview", elem_id=f"{name}-preview")
    gallery = picture_bar.build_gallery(name)
    infotext = picture_bar.build_infotext(name)
    with gr.Row(elem_classes="sending"):
        sending = {f"send-{target}": target for target in targets}
        check = picture_bar.build_tools(name, picture_bar.REUSE | sending)
    verdict = gr.HTML("", label="Verdict", elem_id=f"{name}-verdict")
    return Results(preview, gallery, infotext, check, verdict)


def filled_fields(controls: Controls) -> Controls:
    """The controls that a picture's settings can fill."""
    return {field: control for field, control in controls.items() if field in (*FIELDS, *INIT_FIELDS, "styles")}


def settings_of(recipe: Recipe) -> Controls:
    """What a picture's recipe says for the fields of a page, those of its start picture among them. In lists pictures
    are named by their hashes."""
    request = recipe.request
    today = request.in_newest_syntax()
    values = {field: getattr(today, field) for field in FIELDS if field not in GROUP_FIELDS} | group_values(today)
    values |= today.templates
    values |= naming_pictures(today, recipe.pictures or hash_pictures(request))
    return values | ({field: getattr(request.init, field) for field in INIT_FIELDS} if request.init else {})


def _build_settings(page: str, controls: Controls, catalog: Catalog) -> None:
    """The fold with what stands nowhere else, ordered by how often people reach for it."""
    infos = {
        "vae": "Turns latents into pixels",
        "text_encoder": "Reads the words",
        "refiner": "Finishes the picture",
        "refiner_at": "Share of the steps",
        "prediction": "Leave it on auto, unless the pictures are noise",
    }
    first = ("repeat", "schedule", "vae", "text_encoder", "refiner", "refiner_at", "prediction", "clip_skip")
    for field in (*first, *FIELDS):  # and whatever the request has learned since
        if field not in controls:
            overrides = {"info": infos[field]} if field in infos else {}
            controls[field] = form.make_control(page, field, catalog, **overrides)


def _wire_memory(executor: Executor, controls: Controls, task: Task, filled: Fills) -> gr.Button:
    """The browser remembers the fields, and fills them when the page is opened; gives what is pressed for it."""
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
        return updates | fills.settle_model(model)

    filled.add("memory", restore)
    return browser_state.wire_fields(page, {field: controls[field] for field in kept})


def _wire_pictures(executor: Executor, results: Results, controls: Controls, filled: Fills) -> None:
    """What the chosen picture says, and the ways that it fills the page's fields."""
    fields = tuple(filled_fields(controls))

    def select(job_id: str, event: gr.SelectData) -> Update:
        found = pictures.find(executor, f"{job_id}/{event.index}")
        return found[1].recipe.infotext() if found else gr.skip()

    def reuse(picture: str, with_seed: bool) -> dict[str, Update]:
        found = pictures.find(executor, picture)
        values = settings_of(found[1].recipe) if found else {}
        return fills.from_picture(values, fields, executor.catalog(), with_seed=with_seed) if found else {}

    def vary(picture: str) -> dict[str, Update]:
        found = pictures.find(executor, picture)
        if found is None:
            return {}
        values = fills.near(settings_of(found[1].recipe))
        filled = fills.from_picture(values, fields, executor.catalog(), with_seed=True)
        return filled | {"variation fold": gr.Accordion(open=True)}

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
