"""Prompt text: what in it is for the text encoder, and what switches LoRAs."""

import re

from pydantic import ValidationError

from webui.core.request import LoraRef, RequestError, explain

_NOT_IN_TAGS = re.compile(r"[<>:]")
_LORA_TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)


def split_loras(text: str) -> tuple[str, tuple[LoraRef, ...]]:
    """The text without its ``<lora:name:weight>`` tags, and what they ask for, in order; raises RequestError."""
    found = tuple(_read_tag(match[0], match[1]) for match in _LORA_TAG.finditer(text))
    return (_LORA_TAG.sub("", text).strip(), found) if found else (text, found)


def join_loras(text: str, loras: tuple[LoraRef, ...]) -> str:
    """The inverse: the text with one tag for each LoRA behind it. What no tag can hold becomes a space in its name."""
    tags = (lora.model_copy(update={"name": _NOT_IN_TAGS.sub(" ", lora.name)}) for lora in loras)
    return " ".join([*([text] if text else []), *(f"<lora:{lora}>" for lora in tags)])


def _read_tag(tag: str, body: str) -> LoraRef:
    try:
        return LoraRef.model_validate(body)
    except ValidationError as error:
        raise RequestError(f"prompt: {tag[:80]} cannot be read: {explain(error)}", field="prompt") from None
