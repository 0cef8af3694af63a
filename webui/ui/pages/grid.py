"""The grid tab: axes above the prompt, and a table of the pictures that fills cell by cell.

The table is made in the browser, of the pictures themselves (``static/grid.js``): no sheet has to be encoded for each
cell. The sheet comes last, and stands first in the gallery. A click on a cell fills the page with its settings.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from webui.core.axes import FIELDS, LORA, PRESET, Axis, read_axis
from webui.core.catalog import Catalog
from webui.core.grid import PLACES, make_grid
from webui.core.work import Work
from webui.ui import fills
from webui.ui.workbench import Controls, Task, Workbench, filled_fields, read_request, settings_of
from webui.workspace.presets import PresetStore

NAME = "grid"
UNUSED = "Nothing"
EXAMPLES = (("steps", "5, 10, 20"), (UNUSED, ""), (UNUSED, ""))
LABELS = {"x": "across", "y": "down", "z": "several tables"}
HINT = "Type lora:NAME, or prompt:WORD to replace a word"
VALUES = "5, 10, 20 or 1-10 (+2) or 1-10 [5]; a value with a comma in quotes"
SHEET = '<div class="grid-sheet" data-page="grid" aria-live="polite"></div>'
COLLECT_JS = "(_yes, ...rest) => [darkroomGrid.takeYes(), ...rest]"


def make_task(presets: Callable[[], PresetStore]) -> Task:
    """The page's task; ``presets`` are those of whoever asks."""

    def work(values: Mapping[str, Any]) -> Work:
        axes: dict[str, Axis] = {}
        for place in PLACES:
            field, text = (values[place] or "").strip(), values[f"{place}_values"] or ""
            if field and field != UNUSED:
                axes[place] = read_axis(place, field, text)
        own = {"yes", *PLACES, *(f"{place}_values" for place in PLACES)}
        request = read_request({name: value for name, value in values.items() if name not in own})
        return make_grid(request, axes, presets().over, values["yes"] == "yes")

    invitation = "Choose what is to vary, and its values."
    return Task(
        NAME, invitation, work, _build_inputs, transient=("yes",), collect_js=COLLECT_JS, build_more=_build_table
    )


def _build_inputs(place: str, catalog: Catalog) -> Controls:
    if place != "above":
        return {}
    controls: Controls = {
        "yes": gr.Textbox(visible=False)
    }  # filled by the script where more pictures than usual were asked for
    choices = [
        (UNUSED, UNUSED),
        *((Axis(field, ("",)).title, field) for field in FIELDS if not field.startswith("init.")),
    ]
    choices += [("Preset", PRESET), *((f"LoRA: {name}", f"{LORA}:{name}") for name in catalog.loras)]
    for axis, (field, values) in zip(PLACES, EXAMPLES, strict=True):
        with gr.Row(elem_classes="with-buttons"):
            controls[axis] = gr.Dropdown(
                choices,
                value=field,
                label=f"{axis.upper()}: {LABELS[axis]}",
                info=HINT if axis == "x" else None,
                allow_custom_value=True,
                elem_id=f"{NAME}-{axis}",
                min_width=120,
            )
            controls[f"{axis}_values"] = gr.Textbox(
                values,
                label=f"{axis.upper()} values",
                info=VALUES if axis == "x" else None,
                elem_id=f"{NAME}-{axis}-values",
                min_width=120,
            )
    return controls


def _build_table() -> None:
    gr.HTML(SHEET, label="Cells", elem_id=f"{NAME}-sheet")


def add_cells(bench: Workbench) -> None:
    """A click on a cell fills the page with the settings of its picture, its seed too."""
    fields = tuple(filled_fields(bench.controls))

    def take(job: str, index: int) -> dict[str, Any]:
        drawn = bench.executor.job(job)
        found = next((image for image in drawn.images if image.index == index), None) if drawn else None
        if found is None:
            return {}
        values = settings_of(found.recipe)
        return fills.from_picture(values, fields, bench.executor.catalog(), with_seed=True)

    bench.fills.add("cell", take)
