"""The page around the tabs: theme, header, scripts."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import FormComponent

from webui.core.settings import Settings
from webui.jobs.protocols import Executor
from webui.ui import (
    asking,
    browser_state,
    fills,
    history,
    models,
    passing,
    pictures,
    png_info,
    preloads,
    presets,
    rows,
    sessions,
    uploads,
    values,
)
from webui.ui.application import Application
from webui.ui.errors import page_error
from webui.ui.fills import Fills
from webui.ui.mended import mended
from webui.ui.page_files import bundle, files_router
from webui.ui.pages import PAGES, grid, upscale
from webui.ui.workbench import FIELDS, Workbench, build, settings_of
from webui.workspace.workspace import Workspace

STATIC = Path(__file__).resolve().parent / "static"
SCRIPTS = (
    "stream.js",
    *("page.js", "keys.js", "fills.js", "pictures.js", "pick.js", "things.js", "painter.js"),
    *("panel.js", "fields.js", "jobs.js", "tabs.js", "narrow.js"),
    *("progress.js", "queue.js"),
    *("undo.js", "wipe.js", "grid.js", "engine.js", "curve.js", "loras.js", "chips.js", "models.js", "kinds.js"),
    "memory.js",
    "seed.js",
    *("presets.js", "shelf.js"),
    *("size.js", "rows.js", "sketch.js", "controls.js", "boxes.js", "regions.js", "folds.js", "archive.js"),
    *("zoom.js", "stage.js", "light_frame.js"),
    *("light.js", "session.js", "picture.js"),
    *("pasted.js", "prompt.js", "marks.js", "vocabulary.js", "layer.js", "suggest.js", "complete.js", "last.js"),
    *("windowed.js", "history_source.js", "history_boards.js", "history.js", "add_model.js", "drop.js"),
    *("more.js", "forever.js", "live.js", "flip.js", "keysheet.js", "settings.js"),
    *("mends.js", "refusals.js"),
)
Defaults = Mapping[str, Mapping[str, Any]]
STYLES = (
    *("icons.css", "style.css", "history.css", "adding.css", "layout.css", "queue.css", "light.css", "presets.css"),
    "regions.css",
    "forced.css",
)
TITLE = "Darkroom"
HEAD = """
<meta name="theme-color" content="#f6f4f1" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#151312" media="(prefers-color-scheme: dark)">
"""
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
HEADER = """
<header class="darkroom-header">
  <h1>Darkroom</h1>
  <span id="darkroom-engine" class="engine" data-status="loading" role="status">Starting ...</span>
  <a id="darkroom-host" href="host" hidden>Guests</a>
  <button id="darkroom-queue" type="button" aria-haspopup="dialog"
    aria-expanded="false"><span>Queue</span> <b></b></button>
  <button id="darkroom-keys-open" type="button" aria-label="Keys (?)" title="Keys (?)">?</button>
  <button id="darkroom-settings-open" type="button" aria-label="Settings" title="Settings"></button>
  <button id="darkroom-theme" type="button" aria-label="Switch between dark and light">◐</button>
</header>
<p id="darkroom-message" role="status" hidden></p>
<div id="darkroom-announcer" class="visually-hidden" aria-live="polite"></div>
"""


def theme() -> gr.themes.Base:
    """Built-in fonts and colours only: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="orange",
        neutral_hue="stone",
        radius_size="lg",
        font=FONTS,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_background_fill="#f6f4f1",
        body_background_fill_dark="#151312",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1d1a18",
        background_fill_secondary="#efebe6",
        background_fill_secondary_dark="#2a2623",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1d1a18",
        body_text_color="#231f1c",
        body_text_color_dark="#f3efea",
        body_text_color_subdued="#645b53",
        body_text_color_subdued_dark="#b8aea4",
        border_color_primary="#ddd7cf",
        border_color_primary_dark="#393430",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1d1a18",
        input_border_color="#91887d",
        input_border_color_dark="#7f766c",
        input_border_color_focus="#b23a08",
        input_border_color_focus_dark="#fb9a5c",
        input_border_width="1px",
        checkbox_border_color="#91887d",
        checkbox_border_color_dark="#7f766c",
        # white on the theme's own orange is too faint to read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def build_page(executor: Executor, here: Callable[[], Workspace], defaults: Callable[[], Defaults] = dict) -> gr.Blocks:
    """The whole page over one executor and the workspace ``here`` of whoever asks.

    ``defaults`` are fields that pages begin with in a new browser, as the owner has chosen them, by page.
    """
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True)
    with blocks:
        # First what many events begin with or tell: Gradio's search for each ends at once.
        quiet = passing.box()
        reload = gr.Button("Reload the models", elem_id="darkroom-model-reload", elem_classes="unseen")
        presses = {page: fills.build_press(page) for page in (*(task.name for task in PAGES), grid.NAME, upscale.NAME)}
        gr.HTML(HEADER, elem_id="darkroom-top", padding=False)
        benches: dict[str, Workbench] = {}
        targets = [*(task.name for task in PAGES if "image" in task.transient), upscale.NAME]
        with gr.Tabs(elem_id="darkroom-tabs", overflow_behavior="wrap") as tabs:
            for task in (*PAGES, grid.make_task(lambda: here().presets)):
                with gr.Tab(task.name, id=task.name, elem_id=f"tab-{task.name}"):
                    benches[task.name] = build(task, executor, targets, partial(_complete, here))
            with gr.Tab(upscale.NAME, id=upscale.NAME, elem_id=f"tab-{upscale.NAME}"):
                enlarging = upscale.build(executor)
            with gr.Tab("PNG info", id="png-info", elem_id="tab-png-info"):
                png_info.build_tab(executor, benches.values(), lambda sha256: here().start_pictures.find(sha256))
            with gr.Tab("History", id="history", elem_id="tab-history"):
                history.build_tab(here, benches.values(), enlarging)
        filled = {**{name: bench.fills for name, bench in benches.items()}, upscale.NAME: enlarging}
        for bench in benches.values():
            _add_sending(bench)
        enlarging.add("sent", partial(_enlarge, executor, Path(enlarging.places["image"].GRADIO_CACHE)))
        grid.add_cells(benches[grid.NAME])
        models.wire_reload(reload, executor, [bench.controls for bench in benches.values()])
        presets.wire(benches, lambda: here().presets)
        for page, fields in filled.items():
            fields.add("default", partial(_begin_anew, page, fields, defaults))
            fields.add("set", partial(_set, executor, fields))
            fields.places["tabs"] = tabs
            fields.wire(presses[page])
        _wire_opening(blocks, filled, defaults)
    values.pass_values(blocks)
    uploads.take_only_uploads(blocks)
    asking.pass_on(blocks)
    # Each event's progress is told, even unseen, to all that any event has changed: tens of milliseconds a time. And
    # for what follows another event, or is for programs alone, which no component begins, the page looks through all of
    # them when it opens.
    for block in blocks.blocks.values():
        if isinstance(block, gr.HTML):
            block.js_on_load = None  # else each compiles a script that tells of its clicks
    for event in blocks.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [quiet]
        event.targets = [(component, name) for component, name in event.targets if component not in (None, quiet._id)]
    return blocks


def _complete(here: Callable[[], Workspace], values: Mapping[str, Any]) -> dict[str, Any]:
    """What those of a page's values are that name things of the visitor's; raises RequestError."""
    mine = here()
    styles = presets.read_styles(values["styles"], mine.presets)
    return {"styles": styles, **rows.with_pictures(values, mine.start_pictures.find)}


def launch(blocks: gr.Blocks, app: Application, settings: Settings, port: int) -> tuple[str, str | None]:
    """Serves the page and all that ``app`` has beside it; the address here, and the public one of ``--share``."""
    sessions.bound(blocks)
    _set_head(app, blocks)
    _, url, share_url = blocks.launch(
        server_name=f"[{settings.host}]" if ":" in settings.host else settings.host,
        server_port=port,
        share=settings.share,
        auth=[*settings.accounts] or None,
        inbrowser=False,
        prevent_thread_lock=True,
        max_threads=sessions.EVENTS_AT_ONCE,
        state_session_capacity=sessions.MOST_SESSIONS,
        theme=theme(),
        footer_links=[],
        enable_monitoring=False,
        run_history=False,  # Gradio would keep every prompt and picture in the browser
        show_error=False,
        ssr_mode=False,
        quiet=True,
        max_file_size="20mb",
        root_path=settings.root_path or None,
        ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        ssl_verify=False,  # when Gradio asks itself
        _app=app,
    )
    return url, share_url


def _begin_anew(page: str, fields: Fills, defaults: Callable[[], Defaults]) -> Mapping[str, Any]:
    """A page's fields as they are in a new browser."""
    values = {name: control.value for name, control in fields.places.items() if hasattr(control, "value")}
    plain = {name: value for name, value in values.items() if isinstance(value, str | bool | int | float)}
    return fields.ways["memory"](json.dumps(plain | dict(defaults().get(page, {}))))


def _set(executor: Executor, fields: Fills, values: dict[str, Any]) -> Mapping[str, Any]:
    """Fields that a script cannot set by itself: those chosen from a list, and those in a fold that is shut."""
    known = [field for field in values if isinstance(fields.places.get(field), FormComponent)]
    return browser_state.recall(json.dumps(values), known, fields.places, executor.catalog())


def _wire_opening(blocks: gr.Blocks, filled: Mapping[str, Fills], defaults: Callable[[], Defaults]) -> None:
    """What the browser remembers of all pages comes back when they are opened, with one question for all."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def restore(text: str) -> list[Any]:
        try:
            memory = dict(json.loads(text or "{}"))
        except (ValueError, TypeError, RecursionError):
            raise page_error(values.UNFIT) from None
        updates: list[Any] = []
        begins = defaults()
        for page, fields in filled.items():
            own = begins.get(page)
            kept = memory.get(page) or (json.dumps(own) if own else "")
            updates += fields.updates(fields.ways["memory"](kept if isinstance(kept, str) else ""))
        return updates

    places = [control for fields in filled.values() for control in fields.places.values()]
    opened = blocks.load(restore, [passing.box()], places, js="() => darkroomFills.open()", queue=False, **quiet)
    starts = {
        (page, name): control
        for page, fields in filled.items()
        for name, control in fields.places.items()
        if isinstance(control, gr.Image)
    }
    for after in (opened.then, opened.failure):
        after(None, None, [*starts.values()], js=f"() => darkroomFills.opened({json.dumps([*starts])})", **quiet)


def _add_sending(target: Workbench) -> None:
    """The chosen picture of a gallery becomes the page's start picture, with its settings, and the page comes to the
    front."""
    if (start := target.controls.get("image")) is None:
        return
    fields = [field for field in target.controls if field in (*FIELDS, "keep_size", "styles")]
    executor = target.executor

    def send(picture: str) -> dict[str, Any]:
        path = pictures.find_file(executor, picture, Path(start.GRADIO_CACHE))
        found = pictures.find(executor, picture)
        if path is None or found is None:
            return {}
        values = settings_of(found[1].recipe)
        sent = {"with_seed": False, "keep_texts": True, "as_start": True}
        settings = fills.from_picture(values, fields, executor.catalog(), **sent)
        return {"image": path, "tabs": gr.Tabs(selected=target.name), **settings}

    target.fills.add("sent", send)


def _enlarge(executor: Executor, cache_dir: Path, picture: str) -> dict[str, Any]:
    """The chosen picture of a gallery becomes the one to enlarge."""
    path = pictures.find_file(executor, picture, cache_dir)
    return {"image": path, "tabs": gr.Tabs(selected=upscale.NAME)} if path else {}


def _set_head(app: Application, blocks: gr.Blocks) -> None:
    """Puts into the document's head what the page needs besides Gradio: ours, and at once what Gradio asks for late.

    Scripts that are deferred run in their order, and so ours before Gradio's.
    """
    script, style = (bundle(STATIC / name for name in names) for names in (SCRIPTS, STYLES))
    app.include_router(files_router((script, style), mended(preloads.FRONTEND / "assets")))
    needed = preloads.tags(block.get_block_name() for block in blocks.blocks.values())
    app.first = f'{HEAD}<script defer src="assets/{script[0]}"></script>{needed}'
    app.last = f'{preloads.styles()}<link rel="stylesheet" href="assets/{style[0]}">'
