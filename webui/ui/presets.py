"""Presets and styles on the pages: how a preset fills the fields, and the field with the styles in use.

The shelf that people choose from is ``static/presets.js``, over ``/api/presets``.
"""

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from webui.core.errors import RequestError
from webui.ui.errors import page_error
from webui.ui.preset_values import held_controls, settings_updates, tell_applied
from webui.ui.workbench import Workbench
from webui.workspace.preset import INIT_FIELDS, Preset
from webui.workspace.preset_family import brings_model, family_of, fits
from webui.workspace.presets import PresetStore

Update = Any
Presets = Callable[[], PresetStore]  # of whoever asks


def read_styles(text: Any, store: PresetStore) -> tuple[Preset, ...]:
    """The styles of that field, or of one name; raises RequestError."""
    if not isinstance(text, str) or not text.strip().startswith("["):
        return store.styles([text] if text else [])
    try:
        return store.styles(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, RequestError) else RequestError("styles cannot be read", "styles") from None


def wire(benches: Mapping[str, Workbench], store: Presets) -> None:
    """Adds the ways in which presets fill the pages."""
    held = {page: held_controls(bench.controls) for page, bench in benches.items()}
    for bench in benches.values():
        _add_ways(bench, store, held)


def _add_ways(bench: Workbench, store: Presets, held_by: Mapping[str, Sequence[str]]) -> None:
    """``held_by`` are the fields that presets can fill, by page: a link is for all pages, and one tells of it."""
    executor, page = bench.executor, bench.name
    held = held_by[page]

    def apply(name: str, texts: list[str], own_size: bool = False) -> dict[str, Update]:
        catalog = executor.catalog()
        try:
            preset = store().get(name)
            settings = settings_updates(preset, texts, held, catalog, own_size)
            _warn(preset.warnings(catalog))
        except RequestError as error:
            raise page_error(str(error)) from None
        return settings

    def apply_address(name: str, model: str = "") -> dict[str, Update]:
        """What ``?preset=NAME`` asks for, with the variables as they stand in the preset, where it is for this page.

        One that is for another kind of model than the page's leaves the size alone: it would draw mush for long.
        """
        pages, catalog = list(held_by), executor.catalog()
        try:
            file = store().choose(name)
            assert file.preset
            preset, texts = file.preset, tuple(file.preset.variables.values())
            pages = [page for page in pages if _is_for(preset, held_by[page])]
            if page not in pages:
                return {}
            own_size = not (brings_model(preset) or fits(preset, model, catalog.models))
            settings = settings_updates(preset, texts, held, catalog, own_size)
        except RequestError as error:
            if page == next(iter(held_by)):
                _warn([str(error)])
            return {}
        if page == pages[0]:
            tell_applied(file.name, pages)
            family = family_of(preset, catalog.models)
            other = f"“{file.name}” is for {family}, and the model here is {model}. Your size is kept."
            _warn([*([other] if own_size else []), *preset.warnings(catalog)])
        return {"styles": json.dumps([file.name])} if preset.is_style else settings

    bench.fills.add("preset", apply)
    bench.fills.add("address", apply_address)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        gr.Warning(html.escape(line))


def _is_for(preset: Preset, held: Sequence[str]) -> bool:
    """Whether it is for a page with these controls: one with a start picture where it holds settings of one."""
    return bool(preset.init.keys() & set(held)) if preset.init else INIT_FIELDS.isdisjoint(held)
