"""A preset's settings as updates of a page's controls."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.files import File
from webui.core.groups import LISTS, SWITCHES, group_values
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.names import choose, choose_file, choose_finder, choose_lora, choose_upscaler
from webui.interop import sampler_names
from webui.ui import fills, loras, rows
from webui.ui.workbench import FIELDS, Controls
from webui.workspace.preset import INIT_FIELDS, Preset
from webui.workspace.preset_making import SIDES

Update = Any


def held_controls(controls: Controls) -> list[str]:
    """The controls of a page that a preset can set."""
    return [field for field in controls if field in (*FIELDS, *INIT_FIELDS, *SIDES, "keep_size", "styles")]


def settings_updates(
    preset: Preset, texts: Sequence[str], fields: Sequence[str], catalog: Catalog, own_size: bool = False
) -> dict[str, Update]:
    """Updates of those of the page's ``fields`` that the preset holds, and of what belongs to its model.

    ``texts`` are its variables in order. ``own_size``: the page's size stays. One that brings a whole prompt takes the
    page's styles off, which were for another. Raises RequestError, for a file that is missing too.
    """
    request = preset.request(dict(zip(preset.variables, texts, strict=False)))
    told = vars(request) | dict.fromkeys(SWITCHES, False) | group_values(request)
    values = {field: told[field] for field in preset.fields} | preset.init
    if "sampler" in values:
        values |= _translate_sampler(values, catalog)
    for field, names in {"sampler": catalog.samplers, "schedule": catalog.schedules}.items():
        if values.get(field):
            values[field] = choose(field, values[field], names)
    for group, filters in {"upscale": (), "hires": LATENT_FILTERS}.items():
        if name := values.get(f"{group}.upscaler"):
            values[f"{group}.upscaler"] = choose_upscaler(name, catalog.upscalers, group, filters)
    models = dict.fromkeys(("model", "refiner", "hires.model"), catalog.models)
    files: Mapping[str, Mapping[str, File]] = {**models, "vae": catalog.vaes, "text_encoder": catalog.text_encoders}
    titles = {"vae": "VAE", "text_encoder": "text encoder"}
    for field, known in files.items():
        if values.get(field):
            values[field] = choose_file(titles.get(field, "model"), values[field], known, field)
    for field in fills.LORAS:
        if field in values:
            refs = [(ref, choose_lora(ref.name, catalog.loras)) for ref in values[field]]
            values[field] = loras.to_text([ref.model_copy(update={"name": name}) for ref, name in refs])
    for detail in request.detail if "detail" in values else ():
        choose_finder(detail.finder, catalog.finders, "detail")
    values |= {group: rows.to_text(values[group]) for group in LISTS if group in values}
    if "model" in values:
        values |= fills.of_the_file(values, catalog)
    if "prompt" in values and "prompt" not in preset.variables:
        values["styles"] = ""
    if own_size:
        values = {field: value for field, value in values.items() if field not in ("width", "height")}
    if "width" in values or "height" in values:
        values["keep_size"] = False
    values |= dict(zip(SIDES, values.get("outpaint", ()), strict=False))
    return {field: values[field] for field in fields if field in values} | fills.settle_model(values.get("model"))


def _translate_sampler(values: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Sampler and schedule from names as other programs write them too, such as "DPM++ 2M Karras" in one."""
    found, _ = sampler_names.translate(values["sampler"], values.get("schedule"), catalog.samplers)
    if "schedule" not in values and found.get("schedule") == "Default":  # it was not named
        del found["schedule"]
    return found


def tell_applied(name: str, pages: Sequence[str]) -> None:
    """Says that the preset of a link is on these pages now."""
    gr.Info(html.escape(f"Preset “{name}” is applied on {' and '.join(pages)}."))
