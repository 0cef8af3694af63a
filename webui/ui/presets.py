"""The preset bar of a page: choose, fill in variables, apply; save, rename, delete, import, export."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.errors import RequestError
from webui.jobs.protocols import Executor
from webui.ui import form, passing, pictures
from webui.ui.preset_values import (
    INTRODUCTION,
    card_html,
    held_controls,
    note_html,
    of_page,
    of_picture,
    page_errors,
    read_upload,
    read_variables,
    settings_updates,
    tell_applied,
    variable_boxes,
    warnings,
)
from webui.ui.workbench import Workbench
from webui.workspace.preset import INIT_FIELDS, MAX_VARIABLES, Preset, make_preset
from webui.workspace.presets import PresetStore, shipped_names

PAGE, PICTURE = "The settings of this page", "The chosen picture, to get it again"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # queued, or errors are not shown
Update = Any
Presets = Callable[[], PresetStore]  # of whoever asks


@dataclass(frozen=True)
class Bar:
    """The controls of one page's bar; ``variables`` are boxes of which as many show as the chosen preset has."""

    chooser: gr.Dropdown
    card: gr.HTML
    variables: list[gr.Textbox]
    apply: gr.Button
    name: gr.Textbox
    note: gr.Textbox
    defaults: gr.Textbox
    source: gr.Radio
    replace: gr.Checkbox
    save: gr.Button
    new_name: gr.Textbox
    rename: gr.Button
    delete: gr.Button
    question: gr.Row
    confirm: gr.Button
    keep: gr.Button
    upload: gr.UploadButton


def build_bar(page: str) -> Bar:
    """Lays it out in the open tab."""

    def name(what: str) -> str:
        return f"{page}-preset-{what}"

    with gr.Accordion("Presets", open=False, elem_id=name("bar"), elem_classes="preset-bar"):
        with gr.Row(elem_classes="with-buttons"):
            chooser = form.Dropdown(
                shipped_names(),
                value=None,
                label="Preset",
                info="Type to search",
                elem_id=name("chooser"),
                scale=3,
                min_width=180,
            )
            apply = gr.Button("Apply", variant="primary", elem_id=name("apply"), size="sm", min_width=70)
            upload = gr.UploadButton(
                "Import",
                file_types=[".toml", ".csv"],
                elem_id=name("import"),
                size="sm",
                min_width=70,
            )
        card = gr.HTML(INTRODUCTION, elem_id=name("card"))
        with gr.Row():
            variables = [
                gr.Textbox(visible=False, elem_id=name(f"variable-{number}"), min_width=140, interactive=True)
                for number in range(MAX_VARIABLES)
            ]
        with gr.Accordion("Save a preset", open=False, elem_id=name("saving")):
            with gr.Row():
                kept_name = gr.Textbox(label="Name", elem_id=name("name"), min_width=140)
                note = gr.Textbox(label="Note", elem_id=name("note"), min_width=140, placeholder="What it is good for")
            source = gr.Radio([PAGE, PICTURE], value=PAGE, label="What to save", elem_id=name("source"))
            defaults = gr.Textbox(
                label="Variables",
                info="One a line. Where the prompt says {thing}, a line here says what it is at first.",
                placeholder="thing = red apple",
                lines=2,
                elem_id=name("defaults"),
            )
            with gr.Row(elem_classes="with-buttons"):
                replace = gr.Checkbox(False, label="Replace mine of this name", elem_id=name("replace"), min_width=140)
                save = gr.Button("Save", variant="primary", elem_id=name("save"), size="sm", min_width=70)
        words = "Rename or delete the chosen preset"
        with gr.Accordion(words, open=False, elem_id=name("changing")):
            with gr.Row(elem_classes="with-buttons"):
                new_name = gr.Textbox(label="New name", elem_id=name("new-name"), min_width=140, scale=3)
                rename = gr.Button("Rename", elem_id=name("rename"), size="sm", min_width=70)
                delete = gr.Button("Delete", variant="stop", elem_id=name("delete"), size="sm", min_width=70)
            with gr.Row(visible=False, elem_id=name("question")) as question:
                confirm = gr.Button("Yes, delete it", variant="stop", elem_id=name("confirm"), size="sm")
                keep = gr.Button("Keep it", elem_id=name("keep"), size="sm")
    return Bar(
        *(chooser, card, variables, apply, kept_name, note, defaults, source, replace, save),
        *(new_name, rename, delete, question, confirm, keep, upload),
    )


def wire(bars: Mapping[str, Bar], benches: Mapping[str, Workbench], store: Presets) -> None:
    """Connects the bars of all pages: what one of them saves, all can choose."""
    choosers = [bar.chooser for bar in bars.values()]
    held = {page: held_controls(bench.controls) for page, bench in benches.items()}
    for page, bar in bars.items():
        _wire_applying(bar, benches[page], store, held)
        choose = partial(_choose, bar, choosers, store, benches[page].executor)
        outputs = [*choosers, bar.card, *bar.variables, bar.new_name, bar.question]
        _wire_saving(bar, benches[page], store, choose, outputs)
        _wire_changing(bar, store, choose, outputs)


def _wire_applying(bar: Bar, bench: Workbench, store: Presets, held_by: Mapping[str, Sequence[str]]) -> None:
    """``held_by`` are the fields that presets can fill, by page: a link is for all pages, and one tells of it."""
    executor, page = bench.executor, bench.name
    held = held_by[page]
    shown = _add_showing(bar, bench, store)

    def apply(name: str | None, texts: list[str]) -> dict[str, Update]:
        if not name:
            raise gr.Error("Choose a preset first", print_exception=False)
        with page_errors():
            return settings_updates(store().get(name), texts, held, executor.catalog())

    def apply_address(name: str) -> dict[str, Update]:
        """What ``?preset=NAME`` asks for, with the variables as they stand in the preset, where it is for this page."""
        pages = list(held_by)
        try:
            file = store().choose(name)
            assert file.preset
            pages = [page for page in pages if _is_for(file.preset, held_by[page])]
            if page not in pages:
                return {}
            settings = settings_updates(file.preset, tuple(file.preset.variables.values()), held, executor.catalog())
        except RequestError as error:
            if page == pages[0]:
                gr.Warning(html.escape(str(error)))
            return {"preset card": note_html(str(error))}
        if page == pages[0]:
            tell_applied(file.name, pages)
            for line in warnings(file.preset, executor.catalog()):
                gr.Warning(html.escape(line))
        choice = gr.update(choices=list(store().files()), value=file.name)
        return {"preset": choice, **shown(file.name, ""), **settings}

    restore = bench.fills.ways["memory"]

    def restore_with_list(text: str) -> dict[str, Update]:
        found, names = {**restore(text)}, list(store().files())
        if names == [
            name for name, _ in bar.chooser.choices
        ]:  # an update of choices is kept for each page that is open
            return found
        return found | {"preset": gr.update(choices=names)}

    bench.fills.add("preset", apply)
    bench.fills.add("address", apply_address)
    bench.fills.add("memory", restore_with_list)
    applied = [bar.apply.click, *(box.submit for box in bar.variables)]
    asked = "{ name, texts: texts.map((text) => text ?? '') }"
    ask = f"(name, ...texts) => darkroomFills.ask('{page}', 'preset', {asked})"
    gr.on(applied, None, [bar.chooser, *bar.variables], None, js=ask, **PRIVATE)


def _add_showing(bar: Bar, bench: Workbench, store: Presets) -> Callable[[str | None, str], dict[str, Update]]:
    """What the bar shows of the preset that is chosen: its card, its variables."""
    boxes = {f"preset variable {number}": box for number, box in enumerate(bar.variables)}
    bench.fills.places.update({"preset": bar.chooser, "preset card": bar.card, "preset name": bar.new_name, **boxes})

    def show(name: str | None, prompt: str) -> dict[str, Update]:
        told: dict[str, Update] = {"preset card": INTRODUCTION}
        variables: dict[str, str] = {}
        try:
            file = store().choose(name) if name else None
        except RequestError as error:
            told = {"preset card": note_html(str(error))}
        else:
            if file and file.preset:
                variables = dict(file.preset.variables)
                told = {"preset card": card_html(file, bench.executor.catalog()), "preset name": file.name}
        if variables.get("prompt") == "":  # a style lays itself around what is asked for
            variables["prompt"] = prompt
        return told | dict(zip(boxes, variable_boxes(variables), strict=True))

    bench.fills.add("show preset", show)
    ask = f"(name, prompt) => darkroomFills.ask('{bench.name}', 'show preset', {{ name, prompt: prompt ?? '' }})"
    bar.chooser.input(None, [bar.chooser, bench.controls["prompt"]], None, js=ask, **PRIVATE)
    return show


def _is_for(preset: Preset, held: Sequence[str]) -> bool:
    """Whether it is for a page with these controls: one with a start picture where it holds settings of one."""
    return bool(preset.init.keys() & set(held)) if preset.init else INIT_FIELDS.isdisjoint(held)


def _choose(
    bar: Bar, choosers: Sequence[gr.Dropdown], store: Presets, executor: Executor, name: str | None, said: str = ""
) -> list[Update]:
    """After a change: new lists on all pages, and in this bar ``name`` is the one that is chosen."""
    files = store().files()
    lists = [gr.update(choices=list(files)) for _ in choosers]
    lists[choosers.index(bar.chooser)] = gr.update(choices=list(files), value=name)
    preset = files[name].preset if name else None
    card = card_html(files[name], executor.catalog()) if name else INTRODUCTION
    if said:
        gr.Info(html.escape(said), duration=4)
    return [*lists, card, *variable_boxes(preset.variables if preset else {}), name or "", gr.update(visible=False)]


def _wire_saving(
    bar: Bar, bench: Workbench, store: Presets, choose: Callable[..., list[Update]], outputs: list[Any]
) -> None:
    """``choose`` gives the updates of ``outputs`` after a change: for the chosen preset, and what is said of it."""
    executor, fields = bench.executor, held_controls(bench.controls)

    def save(
        chosen: str, name: str, note: str, defaults: str, source: str, replace: bool, *values: Any
    ) -> list[Update]:
        with page_errors():
            found = pictures.find(executor, chosen)
            if source == PICTURE and found is None:
                raise RequestError("there is no picture yet: draw one first, or save the settings of this page")
            if source == PICTURE and found:
                kept = of_picture(*found, str(executor.status().get("device")))
            else:
                kept = of_page(dict(zip(fields, values, strict=True))) | {"variables": read_variables(defaults)}
            preset = make_preset(name=name, note=note, **kept)
            store().save(preset, found[1].image if found else None, replace)
            return choose(preset.name, f"Saved {preset.name}")

    asked = [bar.name, bar.note, bar.defaults, bar.source, bar.replace]
    bar.save.click(
        save,
        [passing.box(), *asked, *(bench.controls[field] for field in fields)],
        outputs,
        js=pictures.chosen_js(bench.name),
        **PRIVATE,
    )


def _wire_changing(bar: Bar, store: Presets, choose: Callable[..., list[Update]], outputs: list[Any]) -> None:
    """Renaming, deleting and importing; ``choose`` as in ``_wire_saving``."""

    def rename(name: str | None, new_name: str) -> list[Update]:
        with page_errors():
            if not name:
                raise RequestError("choose the preset to rename first")
            return choose(store().rename(name, new_name))

    def ask(name: str | None) -> tuple[Update, Update]:
        return gr.update(visible=bool(name)), gr.update(value=f"Yes, delete {name}")

    def keep() -> Update:
        return gr.update(visible=False)

    def delete(name: str | None) -> list[Update]:
        with page_errors():
            store().delete(str(name or ""))
            return choose(None, f"Deleted {name}")

    def take_in(path: str | None) -> list[Update]:
        with page_errors():
            if not path:
                raise RequestError("there is no file to import")
            names, notices = store().add(Path(path).name, read_upload(Path(path)))
            for notice in notices:
                gr.Warning(html.escape(notice))
            return choose(names[0] if names else None, f"Imported {', '.join(names[:5])}")

    bar.rename.click(rename, [bar.chooser, bar.new_name], outputs, **PRIVATE)
    bar.delete.click(ask, [bar.chooser], [bar.question, bar.confirm], **PRIVATE)
    bar.keep.click(keep, None, [bar.question], **PRIVATE)
    bar.confirm.click(delete, [bar.chooser], outputs, **PRIVATE)
    bar.upload.upload(take_in, [bar.upload], outputs, **PRIVATE)
