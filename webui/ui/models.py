"""The model panel of a page, and what choosing a model sets; the panel's life is in ``static/models.js``."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from webui.core.files import ModelFile
from webui.core.groups import GROUP_FIELDS
from webui.core.request import Request
from webui.jobs.protocols import Executor
from webui.ui import form, panel
from webui.ui.fills import Fills

STATUS = '<p class="models-status" role="status"></p>'
OWN = {
    field: Request.model_fields[field].default
    for field in ("prediction", "form", "clip_skip", "vae", "text_encoder", "refiner")
}
BY_HAND = ("clip_skip", "vae", "refiner", "upscale")  # what stays with another model where a person chose it
EMBEDDED = Request.model_fields["model"].default
ENLARGED = {"upscale": True, "upscale.scale": 4.0}
"""What suits the embedded model, whose pictures are small."""


@dataclass(frozen=True)
class Picker:
    """What the panel is wired with.

    ``chosen`` holds the model that the page's settings were made for, ``form`` its form, which the script shows beside
    the model; both are still to be laid out.
    """

    page: str
    chosen: gr.Textbox
    form: gr.Textbox


def build_panel(page: str, chosen: str) -> Picker:
    """Lays it out in the open page."""
    panel.build_panel(page, "models", "models", above=STATUS, reload="Reload")
    told = form.unseen(page, "form", "Form", Request.model_fields["form"].default)
    return Picker(page, form.unseen(page, "chosen", "Chosen model", chosen), told)


def enlarging(model: str | None) -> dict[str, Any]:
    """Whether a model's pictures are enlarged where nobody has said so, and how far."""
    return ENLARGED if model == EMBEDDED else {field: GROUP_FIELDS[field].default for field in ENLARGED}


def in_known_form(file: ModelFile, form: str) -> ModelFile:
    """The model in the form that the browser remembers of it, where its kind has that."""
    forms = file.checkpoint.row.forms if file.checkpoint else ()
    return file.in_form(form) if form in [known.name for known in forms] else file


def wire(picker: Picker, executor: Executor, controls: dict[str, Any], filled: Fills, enlarges: bool) -> None:
    """A model that is picked, in its field or as a card, brings the settings that suit it.

    What was made for the model before it goes back to the default, except what was chosen by hand. ``enlarges``: the
    model says whether the page's pictures are enlarged.
    """
    page, model = picker.page, controls["model"]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def choose(model: str | None, chosen: str, by_hand: str, form: str) -> dict[str, Any]:
        file = executor.catalog().models.get(model or "")
        if file is None or file.checkpoint is None:
            return {}
        if model == chosen:  # also what a look into the list ends in: the settings are kept
            return {"model": model}
        formed = in_known_form(file, form)
        suited = OWN | asdict(formed.defaults) | {"width": file.native_px, "height": file.native_px}
        if enlarges:
            suited |= enlarging(model) | {"upscale fold": gr.Accordion(open=model == EMBEDDED)}
        for field in set(by_hand.split()).intersection(BY_HAND):
            for kept in (*ENLARGED, "upscale fold") if field == "upscale" else (field,):
                suited.pop(kept, None)
        return suited | {"model": model, "chosen": model} | ({} if formed is file else {"form": form})

    filled.add("model", choose)
    model.input(None, [model], None, js=f"(model) => darkroomModels.choose('{page}', model)", **private)


def wire_reload(button: gr.Button, executor: Executor, controls: Iterable[dict[str, Any]]) -> None:
    """Reload on any page reads the folders again for the lists of all."""
    places = [(field, page[field]) for page in controls for field in form.FILES]

    def reload() -> list[Any]:
        executor.reload()
        catalog = executor.catalog()
        return [gr.update(choices=form.choices(field, catalog)) for field, _ in places]

    button.click(
        reload,
        None,
        [control for _, control in places],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
