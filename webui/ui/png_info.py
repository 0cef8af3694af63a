"""The PNG info tab: what an uploaded picture says of how it was made; its settings go to the other pages."""

import asyncio
import html
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL.Image import Image as PilImage

from webui.core.images import ImageError, open_image
from webui.core.recipe import Recipe, RecipeError, read_picture
from webui.interop.picture_info import NO_SETTINGS, PictureInfo, as_text, read_info, read_text
from webui.interop.texts import MAX_JSON_CHARACTERS
from webui.jobs.protocols import Executor
from webui.ui import fills, form
from webui.ui.errors import page_error
from webui.ui.uploads import check_upload
from webui.ui.verify import verify
from webui.ui.workbench import Workbench, filled_fields

INVITATION = (
    '<p class="panel-note">Drop a picture here, from Darkroom, A1111, Forge, ComfyUI, InvokeAI, NovelAI and others, or'
    " paste its settings as text: they are shown and can be sent to a page. The upload is deleted after a day.</p>"
)
FindStart = Callable[[str], PilImage | None]

RAW: dict[str, Any] = {"show_label": False, "lines": 6, "max_lines": 20}


def build_tab(executor: Executor, benches: Iterable[Workbench], find_start: FindStart) -> None:
    """Lays it out in the open tab. ``find_start`` knows the start pictures that Verify may use, by their hashes."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(min_width=320):
            picture = form.picture_control("png-info", "image", "Picture")
            text = gr.Textbox(
                label="Or paste settings here",
                placeholder="a red apple\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 12",
                lines=4,
                max_lines=12,
                max_length=MAX_JSON_CHARACTERS,
                elem_id="png-info-text",
            )
        with gr.Column(min_width=320):
            shown = gr.HTML(INVITATION, elem_id="png-info-settings")
            with gr.Row():
                senders = [
                    (
                        bench,
                        gr.Button(f"Send to {bench.name}", elem_id=f"png-info-send-{bench.name}", interactive=False),
                    )
                    for bench in benches
                ]
                with_seed = gr.Checkbox(False, label="With seed", elem_id="png-info-with-seed", min_width=120)
                check = gr.Button("Verify", elem_id="png-info-verify", interactive=False)
            verdict = gr.HTML(elem_id="png-info-verdict")
            with gr.Accordion("Raw settings text, as in the file", open=False):
                raw = gr.Textbox(label="Raw settings text", interactive=False, elem_id="png-info-raw", **RAW)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def show(path: str | None, text: str) -> list[Any]:
        if not path and not text.strip():
            return [INVITATION, "", "", *[gr.update(interactive=False)] * (len(senders) + 1)]
        try:
            info = _read(path, text, executor)
        except ImageError as error:
            info = PictureInfo(unmapped=(f"This file {error}.",))
        ours = path is not None and info.program == "Darkroom"
        buttons = [gr.update(interactive=bool(info.values))] * len(senders)
        return [info_html(info), info.raw, "", *buttons, gr.update(interactive=ours)]

    async def check_picture(path: str | None) -> AsyncIterator[str]:
        async for status in _verify(path, executor, find_start):
            yield status

    told = [shown, raw, verdict, *(button for _, button in senders), check]
    gr.on(
        [picture.change, text.change], show, [picture, text], told, queue=False, trigger_mode="always_last", **private
    )
    make_way = "(text) => (text.trim() ? null : { __type__: 'update' })"  # the last one given counts
    text.change(None, text, picture, js=make_way, **private)
    check.click(check_picture, picture, verdict, concurrency_limit=None, **private)
    for bench, button in senders:
        _wire_sending(bench, button, executor, [picture, text, with_seed])


async def _verify(path: str | None, executor: Executor, find_start: FindStart) -> AsyncIterator[str]:
    """Status and verdict on the picture, as HTML; raises what the page shows as an error."""
    try:
        recipe, opened = await asyncio.to_thread(_open_with_recipe, path)
    except RecipeError as error:
        raise page_error(f"This picture cannot be verified: {error}") from None
    except ImageError as error:
        raise page_error(f"This picture {error}") from None
    async for status in verify(executor, opened, recipe, find_start):
        yield status


def _open_with_recipe(path: str | None) -> tuple[Recipe, PilImage]:
    recipe = read_picture(Path(path)) if path else None
    if path is None or recipe is None:
        raise RecipeError("it has no recipe of Darkroom inside")
    return recipe, open_image(Path(path))


def _wire_sending(bench: Workbench, button: gr.Button, executor: Executor, asked: list[Any]) -> None:
    """The page gets the settings of the picture or the text, and the picture where it begins with one, and comes
    forward."""
    has_start = "image" in bench.controls
    fields = (*filled_fields(bench.controls), *(("keep_size",) if has_start else ()))

    def send(path: str | None, text: str, with_seed: bool) -> dict[str, Any]:
        if path:
            check_upload(path, Path(asked[0].GRADIO_CACHE), asked[0].label)
        try:
            values = _read(path, text, executor).values
        except ImageError as error:
            raise page_error(f"This picture {error}") from None
        sent: dict[str, Any] = {"with_seed": with_seed, "keep_texts": True, "as_start": has_start}
        settings = fills.from_picture(values, fields, executor.catalog(), **sent)
        return {"tabs": gr.Tabs(selected=bench.name), **settings, **({"image": path} if path else {})}

    bench.fills.add("png info", send)
    values = "{ path: picture?.path ?? null, text: text ?? '', with_seed }"
    ask = f"(picture, text, with_seed) => darkroomFills.ask('{bench.name}', 'png info', {values})"
    button.click(None, asked, None, js=ask, api_visibility="private", show_progress="hidden")


def _read(path: str | None, text: str, executor: Executor) -> PictureInfo:
    """What the picture says, or where there is none the text; raises ImageError."""
    return read_info(Path(path), executor.catalog()) if path else read_text(text, executor.catalog())


def info_html(info: PictureInfo) -> str:
    """What was found, for people, every text escaped."""
    parts = []
    if info.program:
        parts.append(f"<p>Made with <b>{html.escape(info.program)}</b>.</p>")
    rows = [(name, text) for name, value in info.values.items() if (text := _to_text(value))]
    if rows:
        cells = (f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd>" for name, text in rows)
        parts.append(f'<dl class="facts">{"".join(cells)}</dl>')
    if info.unmapped:
        title = "Not taken over:" if rows else ""
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in info.unmapped)
        parts.append(f'<div class="unmapped">{title}<ul>{lines}</ul></div>')
    return f'<div class="panel">{"".join(parts) or html.escape(NO_SETTINGS)}</div>'


def _to_text(value: Any) -> str:
    return "" if value is None else as_text(value)
