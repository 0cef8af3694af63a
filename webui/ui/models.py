"""The model panel of a page, and what choosing a model sets; the panel's life is in ``static/models.js``."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from webui.core.executor import Executor
from webui.ui import form, panel

STATUS = '<p class="models-status" role="status"></p>'
SIZE_SHAPES = {"Square": (1, 1), "Landscape 3:2": (3, 2), "Portrait 2:3": (2, 3), "Wide 2:1": (2, 1)}
SUITED = ("steps", "guidance", "sampler", "schedule", "width", "height")


@dataclass(frozen=True)
class Picker:
    """What the panel is wired with, none of it shown.

    ``chosen`` holds the model that the page's settings were made for, ``pick`` and ``reload`` are what the script of
    the panel presses.
    """

    page: str
    chosen: gr.Textbox
    pick: gr.Button
    reload: gr.Button


def build_panel(page: str, chosen: str) -> Picker:
    """Lays it out in the open page."""
    panel.build_panel(page, "models", "models", above=STATUS, reload="Reload")
    return Picker(
        page,
        gr.Textbox(chosen, label="Chosen model", elem_id=f"{page}-chosen", elem_classes="unseen"),
        gr.Button("Choose the model", elem_id=f"{page}-model-pick", elem_classes="unseen"),
        gr.Button("Reload the models", elem_id=f"{page}-model-reload", elem_classes="unseen"),
    )


def wire(picker: Picker, executor: Executor, controls: dict[str, Any], sizes: gr.Dropdown) -> None:
    """A model that is picked, in its field or as a card, brings the settings that suit it."""
    page, model = picker.page, controls["model"]
    private: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}

    def choose(name: str, chosen: str) -> list[Any]:
        file = executor.catalog().models.get(name)
        if file is None or file.checkpoint is None:
            return [gr.skip()] * (3 + len(SUITED))
        if name == chosen:  # also what a look into the list ends in: the settings are kept
            return [name, *[gr.skip()] * (2 + len(SUITED))]
        suited = asdict(file.defaults) | {"width": file.native_px, "height": file.native_px}
        return [name, name, size_choices(file.native_px), *(suited[field] for field in SUITED)]

    gr.on(
        [model.input, picker.pick.click],
        choose,
        [model, picker.chosen],
        [model, picker.chosen, sizes, *(controls[field] for field in SUITED)],
        js=f"(model, chosen) => [darkroomModels.take('{page}') ?? model, chosen]",
        **private,
    )
    picker.chosen.change(None, None, None, js=f"() => darkroomModels.show('{page}')", **private)


def wire_reload(pickers: Iterable[Picker], executor: Executor, controls: Iterable[dict[str, Any]]) -> None:
    """Reload on any page reads the folders again for the lists of all."""
    places = [(field, page[field]) for page in controls for field in form.FILES]

    def reload() -> list[Any]:
        catalog = executor.catalog(reload=True)
        return [gr.update(choices=form.choices(field, catalog)) for field, _ in places]

    gr.on(
        [picker.reload.click for picker in pickers],
        reload,
        None,
        [control for _, control in places],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )


def size_choices(native_px: int) -> Any:
    """The update that offers these sizes."""
    return gr.update(choices=list(size_presets(native_px)), value=None)


def size_presets(native_px: int) -> dict[str, tuple[int, int]]:
    """Sizes around the model's own: its long side stays, or doubles where the shape would be too thin."""
    presets: dict[str, tuple[int, int]] = {}
    for name, (across, down) in SIZE_SHAPES.items():
        unit_px = native_px / min(across, down) if max(across, down) == 3 else native_px
        width, height = (round(unit_px * side / 8) * 8 for side in (across, down))
        presets[f"{name} · {width} × {height}"] = (width, height)
    return presets
