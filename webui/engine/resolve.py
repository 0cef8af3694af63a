"""What a request leaves open, decided: names as the tables spell them, size, seed. Nothing here imports torch."""

import secrets
from collections.abc import Callable, Mapping

from webui.core.canvas import drawn_size
from webui.core.library import LoraFile, ModelFile, choose
from webui.core.prompt import split_loras
from webui.core.request import DRAWN_SEED_LIMIT, MAX_LORAS, LoraRef, Request, RequestError
from webui.core.tensor_file import BadFile, read_header
from webui.engine import samplers


def resolve(
    request: Request, models: Mapping[str, ModelFile], find_loras: Callable[[], Mapping[str, LoraFile]]
) -> Request:
    """The same request with nothing left open; raises RequestError for what cannot be drawn.

    LoRA tags move from the prompt to ``loras``; ``find_loras`` is asked only where LoRAs are wanted.
    """
    file = models[choose("model", request.model, models)]
    sampler, schedule = samplers.resolve(request.sampler, request.schedule)
    width, height = request.width or file.native_px, request.height or file.native_px
    if request.init is not None:
        width, height = drawn_size(request.init, request.width, request.height, file.native_px)
    seed = request.seed if request.seed >= 0 else secrets.randbelow(DRAWN_SEED_LIMIT)
    names = {"model": file.name, "sampler": sampler, "schedule": schedule}
    return request.model_copy(
        update=names | {"width": width, "height": height, "seed": seed} | _resolve_loras(request, find_loras)
    )


def _resolve_loras(request: Request, find_loras: Callable[[], Mapping[str, LoraFile]]) -> dict[str, object]:
    """The prompt without tags, and all LoRAs by their files' names; those of weight 0 are left out."""
    prompt, tagged = split_loras(request.prompt)
    if split_loras(request.negative)[1]:
        raise RequestError("negative: a LoRA acts on the whole picture; put its tag into the prompt", field="negative")
    wanted = (*request.loras, *tagged)
    if not wanted:
        return {}
    if len(wanted) > MAX_LORAS:
        raise RequestError(f"loras: {len(wanted)} LoRAs are too many; {MAX_LORAS} is the limit", field="loras")
    files = find_loras()
    loras = tuple(_resolve_lora(ref, files) for ref in wanted)
    return {"prompt": prompt, "loras": tuple(ref for ref in loras if any(ref.strengths))}


def _resolve_lora(ref: LoraRef, files: Mapping[str, LoraFile]) -> LoraRef:
    name = choose("LoRA", ref.name.removesuffix(".safetensors"), files, field="loras")
    try:
        read_header(files[name].path)
    except BadFile as error:
        raise RequestError(f"LoRA {name[:80]!r}: {files[name].path.name} {error}", field="loras") from None
    return ref.model_copy(update={"name": name})
