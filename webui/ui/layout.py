"""The page around the tabs: theme, header, script."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.settings import Settings
from webui.jobs.protocols import Executor
from webui.ui import asking, fills, history, models, passing, pictures, png_info, presets, sessions, uploads, values
from webui.ui.application import Application
from webui.ui.pages import PAGES, grid, upscale
from webui.ui.workbench import FIELDS, Workbench, build, job_id_js, settings_of
from webui.workspace.workspace import Workspace

STATIC = Path(__file__).resolve().parent / "static"
SCRIPTS = (
    *("page.js", "keys.js", "fills.js", "pictures.js", "painter.js", "panel.js", "jobs.js", "tabs.js", "seed.js"),
    *("wipe.js", "grid.js", "engine.js", "curve.js", "loras.js", "models.js", "rows.js", "pasted.js", "prompt.js"),
    *("suggest.js", "complete.js", "history.js"),
)
TITLE = "Darkroom"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
HEADER = """
<header class="darkroom-header">
  <h1>Darkroom</h1>
  <span id="darkroom-engine" class="engine" data-status="loading" role="status">Starting ...</span>
  <a id="darkroom-host" href="host" hidden>Guests</a>
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
    ).set(  # white on the theme's own orange is too faint to read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def build_page(executor: Executor, here: Callable[[], Workspace]) -> gr.Blocks:
    """The whole page over one executor and the workspace ``here`` of whoever asks."""
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True)
    with blocks:
        quiet = passing.box()  # first, where Gradio's search for it ends at once
        gr.HTML(HEADER)
        benches: dict[str, Workbench] = {}
        bars: dict[str, presets.Bar] = {}
        targets = [*(task.name for task in PAGES if "image" in task.transient), upscale.NAME]
        with gr.Tabs(elem_id="darkroom-tabs") as tabs:
            for task in (*PAGES, grid.make_task(lambda: here().presets)):
                with gr.Tab(task.name, id=task.name, elem_id=f"tab-{task.name}"):
                    bars[task.name] = presets.build_bar(task.name)
                    benches[task.name] = build(task, executor, targets)
            with gr.Tab(upscale.NAME, id=upscale.NAME, elem_id=f"tab-{upscale.NAME}"):
                enlarging = upscale.build(executor)
            with gr.Tab("PNG info", id="png-info", elem_id="tab-png-info"):
                png_info.build_tab(executor, benches.values(), tabs, lambda sha256: here().start_pictures.find(sha256))
            with gr.Tab("History", id="history", elem_id="tab-history"):
                history.build_tab(here, benches.values(), enlarging.image, tabs)
        for bench in benches.values():
            _wire_sending(bench, benches, tabs)
            _wire_enlarging(bench.name, bench.executor, bench.selected, bench.senders[upscale.NAME], enlarging, tabs)
        grid.wire_cells(benches[grid.NAME])
        _wire_enlarging(upscale.NAME, executor, enlarging.selected, enlarging.again, enlarging, tabs)
        pickers, controls = zip(*((bench.picker, bench.controls) for bench in benches.values()), strict=True)
        models.wire_reload(pickers, executor, controls)
        presets.wire(bars, benches, lambda: here().presets, blocks)
    values.pass_values(blocks)
    uploads.take_only_uploads(blocks)
    asking.pass_on(blocks)
    # Each event's progress is told, even unseen, to all that any event has changed: tens of milliseconds a time. And
    # for what follows another event, which no component begins, the page looks through all of them when it opens.
    for event in blocks.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [quiet]
        event.targets = [(component, name) for component, name in event.targets if component is not None]
    return blocks


def launch(blocks: gr.Blocks, app: Application, settings: Settings, port: int) -> tuple[str, str | None]:
    """Serves the page and all that ``app`` has beside it; the address here, and the public one of ``--share``."""
    sessions.bound(blocks)
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
        head=head(),
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


def _wire_sending(bench: Workbench, benches: dict[str, Workbench], tabs: gr.Tabs) -> None:
    """The chosen picture of a gallery becomes another page's start picture, with its settings, and that page comes to
    the front."""
    job_id = passing.box()
    fields = [field for field in bench.controls if field in FIELDS] + ["keep_size"]

    def send(job_id: str, index: int, target: Workbench) -> list[Any]:
        path = pictures.find_file(bench.executor, job_id, index, Path(target.controls["image"].GRADIO_CACHE))
        found = pictures.find(bench.executor, job_id, index)
        if path is None or found is None:
            return [gr.skip()] * (len(fields) + 4)
        values, catalog = settings_of(found[1].recipe.request), bench.executor.catalog()
        settings = fills.from_picture(values, fields, catalog, with_seed=False, keep_texts=True, as_start=True)
        return [path, gr.Tabs(selected=target.name), *settings]

    for name, target in benches.items():
        if (button := bench.senders.get(name)) is None:
            continue
        fills.wire(
            name,
            f"sent from {bench.name}",
            button.click,
            partial(send, target=target),
            [job_id, bench.selected],
            [
                *(target.controls["image"], tabs),
                *(target.controls[field] for field in fields),
                *(target.picker.chosen, target.sizes),
            ],
            js=job_id_js(bench.name),
            all_fields=True,
        )


def _wire_enlarging(
    name: str, executor: Executor, selected: gr.Number, button: gr.Button, page: upscale.Page, tabs: gr.Tabs
) -> None:
    """The chosen picture of the page ``name`` becomes the one to enlarge."""
    job_id = passing.box()

    def send(job_id: str, index: int) -> list[Any]:
        path = pictures.find_file(executor, job_id, index, Path(page.image.GRADIO_CACHE))
        return [path, gr.Tabs(selected=upscale.NAME)] if path else [gr.skip()] * 2

    inputs, outputs = [job_id, selected], [page.image, tabs]
    fills.wire(upscale.NAME, f"sent from {name}", button.click, send, inputs, outputs, js=job_id_js(name))


def scripts() -> list[str]:
    """Those of the document's head, as they stand there: a browser runs them by their hashes."""
    return [(STATIC / name).read_text("utf-8") for name in SCRIPTS]


def head() -> str:
    """Scripts and style for the document's head: keys, memory of fields, painter, panels, prompt help, our look."""
    style = (STATIC / "style.css").read_text("utf-8")
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{''.join(f'<script>{script}</script>' for script in scripts())}<style>{style}</style>"
    )
