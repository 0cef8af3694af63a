"""Which program wrote the texts of a picture: told by what is in them rather than by where they stand."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from webui.interop.comfyui import is_comfyui, read_comfyui
from webui.interop.flat import FIELDS as FLAT_NAMES
from webui.interop.flat import is_flat, key_of, read_flat, split_lines
from webui.interop.fooocus import is_fooocus, read_fooocus
from webui.interop.found import Found, Unreadable, read_object
from webui.interop.infotext import NEGATIVE, read_infotext
from webui.interop.invokeai import is_invokeai, read_dream, read_invokeai
from webui.interop.novelai import is_novelai, read_novelai
from webui.interop.swarmui import is_swarmui, read_swarmui

# What is read first where there are several; the others follow as they stand in the file.
FIRST = ("parameters", "UserComment", "invokeai_metadata", "sd-metadata", "Dream", "prompt", "Comment", "comment")
LAST = ("invokeai_graph", "invokeai_workflow", "XMP UserComment", "XMP description", "workflow")
# Names of texts that may be a prompt alone; anywhere else a text without settings may be about anything.
PROMPTS = ("parameters", "text")
# Texts that say nothing of settings, and need no line.
BESIDE = {"Software", "Title", "Source", "Author", "Copyright", "Creation Time", "XMP CreatorTool"}
BESIDE |= {"fooocus_scheme", "Generation time", "Disclaimer", "Warning"}
BESIDE |= {"date:create", "date:modify", "date:timestamp"}
_IN_BRACKETS = re.compile(r"\{{1,9}\s{0,9}[^\s{}\[\"']")
# How people head the two prompts in what they copy and write by hand.
_HEADING = re.compile(r"\A\**(?:positive[ _])?prompt[ \t]{0,9}[:：]\**\s{0,3}", re.I)
_NEGATIVE_HEADING = re.compile(r"^[ \t]{0,9}\**negative[ _]prompt[ \t]{0,9}[:：]\**", re.I | re.M)


def parse(texts: Mapping[str, str]) -> Found:
    """What the texts say; where they cannot be read, the program if it names itself, and lines that say why."""
    some, program = None, ""
    reasons: list[str] = []
    for name, attempt in _attempts(texts):
        try:
            found = attempt()
        except Unreadable as error:
            program = program or error.program
            reasons.append(str(error) if name in PROMPTS or name in str(error) else f"{name}: {error}")
            continue
        if found.is_complete:
            found.unmapped += reasons
            return found
        found.program = "" if name == "text" else found.program  # somebody's own words
        some = some or found
    if some is None:
        return Found((program or _named_program(texts)) if reasons else "", unmapped=reasons)
    some.unmapped += reasons
    return some


def _attempts(texts: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Found]]]:
    """What can be tried of the texts, best first, with their names."""
    flat = is_flat(texts)
    names = [*(name for name in FIRST if name in texts), *(name for name in texts if name not in (*FIRST, *LAST))]
    for name in (*names, *(name for name in LAST if name in texts)):
        text = texts[name].strip()
        if name == "text":
            if lines := split_lines(text):
                yield name, partial(read_flat, lines)
                continue
            text = _HEADING.sub("", text)
            text = _NEGATIVE_HEADING.sub(NEGATIVE, text, count=1)
        if name == "Dream":
            yield name, partial(read_dream, text)
        elif text.startswith("{"):
            yield name, partial(_read_object, text, name, texts)
        elif flat and key_of(name) == "prompt":
            yield name, partial(read_flat, texts, _named_program(texts))
        elif name not in BESIDE and not (flat and key_of(name) in FLAT_NAMES):
            yield name, partial(read_infotext, text, may_be_prompt=name in PROMPTS)


def _read_object(text: str, name: str, texts: Mapping[str, str]) -> Found:
    """A JSON object, by the keys that only one program has; raises Unreadable."""
    try:
        body = read_object(text, name)
    except Unreadable:
        if found := _read_in_brackets(text, name):
            return found
        raise
    if isinstance(task := body.get("reqBody"), dict):  # a task of Easy Diffusion's page
        body = task
    if is_swarmui(body):
        return read_swarmui(body)
    if is_comfyui(body) or name == "prompt" and all(isinstance(node, dict) for node in body.values()):
        return read_comfyui(body, texts)
    if name in ("invokeai_graph", "invokeai_workflow"):
        raise Unreadable("InvokeAI's graph has no settings beside it", "InvokeAI")
    if is_invokeai(body):
        return read_invokeai(body)
    if is_novelai(body):
        return read_novelai(body, texts)
    if is_fooocus(body):
        return read_fooocus(body)
    if is_flat(body):
        return read_flat(body, _named_program(texts))
    raise Unreadable(f"{name} is JSON that no program known here writes")


def _read_in_brackets(text: str, name: str) -> Found | None:
    """What is no JSON, though it begins like that: a prompt whose first words are in brackets, {so} or {{so}}."""
    try:
        return read_infotext(text, may_be_prompt=name in PROMPTS and _IN_BRACKETS.match(text) is not None)
    except Unreadable:
        return None


def _named_program(texts: Mapping[str, str]) -> str:
    """What the file says that it was made with."""
    named = texts.get("XMP CreatorTool") or texts.get("Software") or ""
    return "" if named == "Darkroom" else named[:60]
