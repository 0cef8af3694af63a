"""Flags for what is drawn: one for each field of the request, with the field's own words as help."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from webui.core.errors import RequestError
from webui.core.groups import GROUP_FIELDS, LISTS, SWITCHES, nest
from webui.core.groups.init import Init
from webui.core.images import ImageError, open_image, to_rgb
from webui.core.kinds.kind import Defaults
from webui.core.request import NOT_ASKED, Request
from webui.workspace.preset import Preset
from webui.workspace.presets import PresetStore
from webui.workspace.styles import with_styles

PICTURES = ("image", "mask")
OWN_FLAGS = (*NOT_ASKED, *LISTS, "model", "loras", "image", "mask", "outpaint")


def add_request(parser: argparse.ArgumentParser) -> None:
    """The preset and what is laid over it."""
    parser.add_argument(
        "--preset", metavar="NAME", help="start from a preset (`presets` lists them); other flags override it"
    )
    text = "fill in a {variable} of the preset; can be repeated"
    parser.add_argument("--var", action="append", default=[], metavar="NAME=TEXT", dest="variables", help=text)
    text = "add a style to the prompt; can be repeated"
    parser.add_argument("--style", action="append", default=[], metavar="NAME", dest="styles", help=text)
    parser.add_argument("--init", type=Path, metavar="IMG", help="start from this picture (img2img)")
    parser.add_argument("--mask", type=Path, metavar="IMG", help="draw only where this is white (inpaint)")
    text = "apply a LoRA; can be repeated"
    parser.add_argument("--lora", action="append", metavar="NAME:WEIGHT", dest="loras", help=text)
    parser.add_argument("--outpaint", metavar="L,T,R,B", help="px to add on the left, top, right and bottom")
    fields = {**Init.model_fields, **Request.model_fields, **GROUP_FIELDS}
    for name in _switches(Init) + _switches(Request):
        parser.add_argument(_flag(name), dest=name, action="store_true", default=None, help=fields[name].description)
    for group in SWITCHES:
        text = f"{fields[group].description}, with default settings; --no-{group} turns off a preset's"
        parser.add_argument(_flag(group), action=argparse.BooleanOptionalAction, help=text)
    for group, made_of in LISTS.items():
        text = f"{fields[group].description}; of {', '.join(made_of.asked())}; can be repeated"
        flag, shown = _flag(made_of.flag or group), made_of.example
        parser.add_argument(flag, dest=group, action="append", nargs="?", const="{}", metavar=shown, help=text)
        text = f"none of the preset's {str(fields[group].title).lower()}"
        parser.add_argument(f"--no-{group}", dest=group, action="store_const", const=(), help=text)
    suited = {field.name for field in dataclasses.fields(Defaults)}
    grouped = [name for name in GROUP_FIELDS if name not in SWITCHES]
    for name in (*_text_flags(Request), *_text_flags(Init), *grouped):
        field = fields[name]
        if name in suited:
            shown = "what suits the model"
        elif name in GROUP_FIELDS and field.default in (None, (), ""):  # what is left out means, the description says
            shown = "left out"
        else:
            shown = "the model's own" if field.default is None else repr(field.default)
        text = f"{field.description or field.title} (default: {shown})".replace("%", "%%")
        metavar = "TEXT" if isinstance(field.default, str | tuple) else "N"
        parser.add_argument(_flag(name), dest=name, metavar=metavar, help=text)


def read_request(options: argparse.Namespace, presets_dir: Path) -> tuple[Request, Preset | None]:
    """The request of the flags, over the preset if there is one, and that preset; raises RequestError."""
    names = (*_text_flags(Request), *_switches(Request), "model", "loras", *GROUP_FIELDS)
    given = nest(_given(options, names)) | _read_init(options) | _read_lists(options)
    variables = {}
    for text in options.variables:
        name, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--var must be NAME=TEXT, not {text[:60]!r}")
        variables[name] = value
    store = PresetStore(presets_dir)
    styles = store.styles(options.styles)
    if options.preset is None:
        if variables:
            raise RequestError("--var needs --preset, whose variable it fills in")
        if "prompt" not in given:
            raise RequestError("--prompt is required, or a --preset that has one")
        return with_styles(Request.parse(given), styles), None
    preset = store.get(options.preset)
    if "prompt" not in given and "prompt" not in preset.fields:
        raise RequestError(f"--prompt is required: preset {preset.name!r} has none")
    return with_styles(preset.request(variables, given), styles), preset


def _read_lists(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags of groups that are lists say, each flag one entry; raises RequestError."""
    given = _given(options, [*LISTS])
    for group, entries in given.items():
        try:
            read = [entry for text in entries for entry in LISTS[group].read_all(text)]
        except ValueError as error:
            raise RequestError(
                f"{_flag(LISTS[group].flag or group)} {error}, not {', '.join(entries)[:60]!r}", field=group
            ) from None
        given[group] = tuple(_with_pictures(LISTS[group].flag or group, entry) for entry in read)
    return given


def _with_pictures(flag: str, entry: Any) -> Any:
    """One of a list, its pictures read from the files that a flag names."""
    named = {name: entry[name] for name in PICTURES if isinstance(entry, dict) and isinstance(entry.get(name), str)}
    for name, path in named.items():
        try:
            entry = entry | {name: open_image(Path(path))}
        except ImageError as error:
            raise RequestError(f"{_flag(flag)} {name}={path[:200]!r} {error}", field=flag) from None
    return entry


def _read_init(options: argparse.Namespace) -> dict[str, Any]:
    """The start picture and all that goes with it, read from its files; raises RequestError naming the flag."""
    init = _given(options, (*_text_flags(Init), *_switches(Init), "outpaint"))
    if options.init is None:
        extra = [*init, *(["mask"] if options.mask else [])]
        if extra:
            raise RequestError(f"{_flag(extra[0])} needs --init, the picture to start from")
        return {}
    for flag in ("init", "mask"):
        path = getattr(options, flag)
        if path is None:
            continue
        try:
            init["image" if flag == "init" else "mask"] = open_image(path)
        except ImageError as error:
            raise RequestError(f"--{flag} {str(path)!r} {error}") from None
    if "outpaint" in init:
        init["outpaint"] = tuple(init["outpaint"].split(","))
    if "mask" in init:  # a mask belongs to the picture as it is seen, turned by its EXIF orientation
        init["image"] = to_rgb(init["image"], init.get("background", "#ffffff"))
    return {"init": init}


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _text_flags(model: type[Request] | type[Init]) -> list[str]:
    """The fields that are flags taking one value; the rest have flags of their own."""
    return [name for name in model.model_fields if name not in (*OWN_FLAGS, *_switches(model))]


def _switches(model: type[Request] | type[Init]) -> list[str]:
    """The fields that are flags without a value."""
    return [name for name, field in model.model_fields.items() if field.annotation is bool]


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
