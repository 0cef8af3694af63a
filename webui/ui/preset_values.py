"""Between a preset and a page: its settings as updates of controls, a page or a picture as settings, its card."""

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.files import File
from webui.core.groups import LISTS, SWITCHES, group_values
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.names import choose, choose_file, choose_finder, choose_lora, choose_upscaler
from webui.core.request import NOT_ASKED
from webui.interop import sampler_names
from webui.jobs.protocols import Job
from webui.ui import fills, loras, rows
from webui.ui.errors import page_error
from webui.ui.workbench import FIELDS, Controls
from webui.workspace.preset import INIT_FIELDS, MAX_VARIABLES, Preset, compare_pins
from webui.workspace.presets import MAX_STYLES_BYTES, PresetFile, read_thumbnail

SIDES = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")
INTRODUCTION = '<p class="preset-card">A preset is settings under a name. Choose one, or save your own below.</p>'
REFERENCE = "cpu, float32"  # what ``Preset.expected`` is about, in the words of the executor's status

Update = Any


def held_controls(controls: Controls) -> list[str]:
    """The controls of a page that a preset can set."""
    return [field for field in controls if field in (*FIELDS, *INIT_FIELDS, *SIDES, "keep_size")]


def settings_updates(
    preset: Preset, texts: Sequence[str], fields: Sequence[str], catalog: Catalog
) -> dict[str, Update]:
    """Updates of those of the page's ``fields`` that the preset holds, and of what belongs to its model.

    ``texts`` are its variables in order. Raises RequestError, for a file that is missing too.
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
    files: Mapping[str, Mapping[str, File]] = {**models, "vae": catalog.vaes}
    for field, known in files.items():
        if values.get(field):
            values[field] = choose_file("VAE" if field == "vae" else "model", values[field], known, field)
    for field in fills.LORAS:
        if field in values:
            refs = [(ref, choose_lora(ref.name, catalog.loras)) for ref in values[field]]
            values[field] = loras.to_text([ref.model_copy(update={"name": name}) for ref, name in refs])
    for detail in request.detail if "detail" in values else ():
        choose_finder(detail.finder, catalog.finders, "detail")
    values |= {group: rows.to_text(values[group]) for group in LISTS if group in values}
    if "model" in values:
        values |= fills.own_prediction(values, catalog)
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


def of_page(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset holds of these values of a page's controls."""
    unset = ("width", "height") if values.get("keep_size") else ()
    init = {field: values[field] for field in INIT_FIELDS if field in values}
    if SIDES[0] in values:
        init["outpaint"] = [values[side] or 0 for side in SIDES]
    fields = {field: values[field] for field in FIELDS if field not in unset and values.get(field) is not None}
    return {"fields": fields, "init": init}


def of_picture(job: Job, picture: Image, device: str) -> dict[str, Any]:
    """What a preset holds that makes this very picture again, with the hashes of its files and, where it is the first
    of a batch of one on the reference device, of its pixels."""
    request = picture.recipe.request
    init = request.init.model_dump(mode="json", include=set(INIT_FIELDS)) if request.init else {}
    fields = request.in_newest_syntax().model_dump(mode="json", exclude=set(NOT_ASKED), exclude_none=True)
    is_reference = device == REFERENCE and job.request.count == 1 and request.init is None
    return {
        "fields": fields | fills.OFF | group_values(request),
        "init": init,
        "pins": {"model": picture.recipe.model_hash or None, "loras": dict(picture.recipe.lora_hashes)},
        "expected": picture.pixels_sha256 if is_reference else None,
    }


def read_variables(text: str) -> dict[str, str]:
    """``name = value`` lines; raises RequestError."""
    variables = {}
    for line in filter(str.strip, text.splitlines()):
        name, equals, value = line.partition("=")
        if not equals:
            raise RequestError(f"variables: {line.strip()[:60]!r} must look like name = value", field="variables")
        variables[name.strip()] = value.strip()
    return variables


def read_upload(path: Path) -> bytes:
    """The uploaded file; RequestError where it is far larger than what it can be."""
    if path.stat().st_size > MAX_STYLES_BYTES:
        raise RequestError(f"{path.name[:80]!r} is larger than {MAX_STYLES_BYTES // 2**20} MiB", field="preset")
    return path.read_bytes()


def variable_boxes(variables: Mapping[str, str]) -> list[Update]:
    """Updates that show one box for each variable."""
    shown = [gr.update(visible=True, label=name, value=text) for name, text in variables.items()]
    return shown + [gr.update(visible=False, value="")] * (MAX_VARIABLES - len(shown))


def warnings(preset: Preset, catalog: Catalog) -> tuple[str, ...]:
    """What people should know before they use it."""
    return preset.notices + compare_pins(preset.pins, preset.request(), catalog.models, catalog.loras)


def note_html(text: str) -> str:
    """A line of trouble in the card's place."""
    return f'<p class="preset-card preset-warning" role="alert">{html.escape(text)}</p>'


def card_html(file: PresetFile, catalog: Catalog) -> str:
    """The chosen preset: picture, note, warnings, a link to its file. Every text is escaped."""
    preset = file.preset
    assert preset
    query = html.escape(urlencode({"name": file.name}))
    picture = f'<img src="./api/presets/preview?{query}" alt="">' if read_thumbnail(file) else ""
    lines = [f'<p class="preset-warning" role="alert">{html.escape(line)}</p>' for line in warnings(preset, catalog)]
    origin = "Ships with Darkroom" if file.shipped else "From the host" if file.lent else "Yours"
    return (
        f'<div class="preset-card">{picture}<div><strong>{html.escape(file.name)}</strong> <small>{origin}</small>'
        f"<p>{html.escape(preset.note)}</p>{''.join(lines)}"
        f'<a href="./api/presets/file?{query}" download>Export as TOML</a></div></div>'
    )


def tell_applied(name: str, pages: Sequence[str]) -> None:
    """Says that the preset of a link is on these pages now."""
    gr.Info(html.escape(f"Preset “{name}” is applied on {' and '.join(pages)}."))


@contextmanager
def page_errors() -> Iterator[None]:
    """Bad input becomes the page's error message."""
    try:
        yield
    except RequestError as error:
        raise page_error(str(error)) from None
