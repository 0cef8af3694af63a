"""What a preset is made of: a page's values, a picture, or words to lay around other prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.groups import GROUP_FIELDS, LISTS, group_values
from webui.core.request import NOT_ASKED, Request
from webui.workspace.preset import INIT_FIELDS, REQUEST_FIELDS, STYLE_FIELDS, Preset
from webui.workspace.styles import with_styles

SIDES = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")
REFERENCE = "cpu, float32"  # what ``Preset.expected`` is about, in the words of the executor's status


def of_page(values: Mapping[str, Any], styles: Sequence[Preset] = ()) -> dict[str, Any]:
    """What a preset holds of these values of a page's fields, which may have others besides, in these styles.

    It needs no style any more. Raises RequestError.
    """
    unset = ("width", "height") if values.get("keep_size") else ()
    init = {field: value for field, value in values.items() if field in INIT_FIELDS}
    if SIDES[0] in values:
        init["outpaint"] = [values.get(side) or 0 for side in SIDES]
    held = {field: value for field, value in values.items() if field in REQUEST_FIELDS and value is not None}
    held |= {group: without for group in LISTS if (without := _without_pictures(group, held.get(group)))}
    held |= _words(held, styles) if styles else {}
    return {"fields": {field: value for field, value in held.items() if field not in unset}, "init": init}


def _without_pictures(group: str, value: Any) -> list[dict[str, Any]]:
    """A list's entries without pictures, which a preset has none of; RequestError for what is no list."""
    made_of = LISTS[group]
    try:
        entries = made_of.read_all(value) if made_of.pictures else ()
    except ValueError as error:
        raise RequestError(f"{group} {error}", field=group) from None
    if not all(isinstance(entry, Mapping) for entry in entries):
        return []
    return [{name: held for name, held in entry.items() if name not in made_of.pictures} for entry in entries]


def of_words(values: Mapping[str, Any], styles: Sequence[Preset] = ()) -> dict[str, Any]:
    """A style of a page's words and LoRAs. Words without ``{prompt}`` go behind the prompt. Raises RequestError."""
    held = {field: value for field, value in values.items() if field in STYLE_FIELDS and value}
    fields = {field: value for field, value in _words(held, styles).items() if value}
    if not fields:
        raise RequestError("a style needs words or a LoRA, and there are none", field="prompt")
    prompt = fields.get("prompt", "")
    fields["prompt"] = prompt if "{prompt}" in prompt else ", ".join(filter(None, ("{prompt}", prompt)))
    return {"fields": fields, "variables": {"prompt": ""}}


def of_picture(picture: Image, count: int, device: str) -> dict[str, Any]:
    """What a preset holds that makes this very picture again, with the hashes of its files and, where it is the first
    of a batch of one (``count``) on the reference device, of its pixels."""
    request = picture.recipe.request
    init = request.init.model_dump(mode="json", include=set(INIT_FIELDS)) if request.init else {}
    fields = (
        request.with_pictures(dict.fromkeys(request.pictures))
        .in_newest_syntax()
        .model_dump(mode="json", exclude=set(NOT_ASKED), exclude_none=True)
    )
    off = {field: info.default for field, info in GROUP_FIELDS.items()}
    is_reference = device == REFERENCE and count == 1 and request.init is None
    return {
        "fields": fields | off | group_values(request),
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


def _words(fields: Mapping[str, Any], styles: Sequence[Preset]) -> dict[str, Any]:
    """The prompts and LoRAs of these fields in these styles."""
    asked = Request.parse({field: fields[field] for field in STYLE_FIELDS if field in fields})
    return with_styles(asked, styles).model_dump(mode="json", include=set(STYLE_FIELDS))
