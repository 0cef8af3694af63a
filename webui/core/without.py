"""The same picture without one of its LoRAs, which shows what it does."""

from typing import Any

from webui.core.lora_ref import LoraRef
from webui.core.names import fold
from webui.core.prompt import drop_loras
from webui.core.request import Request


def without_lora(request: Request, name: str) -> Request | None:
    """The request with that LoRA in none of its lists and texts; None where it is in none of them as it is."""
    folded = fold(name)

    def is_meant(other: str) -> bool:
        return fold(other) == folded or fold(other).rpartition("/")[2] == folded

    def rest(refs: tuple[LoraRef, ...]) -> tuple[LoraRef, ...]:
        return tuple(ref for ref in refs if not is_meant(ref.name))

    changes: dict[str, Any] = {"loras": rest(request.loras)}
    changes |= {"detail": tuple(each.model_copy(update={"loras": rest(each.loras)}) for each in request.detail)}
    if request.hires:
        changes |= {"hires": request.hires.model_copy(update={"loras": rest(request.hires.loras)})}
    texts = {place: drop_loras(text, is_meant) for place, text in request.texts.items()}
    changed = request.model_copy(update=changes).with_texts(texts)
    return None if changed == request else changed
