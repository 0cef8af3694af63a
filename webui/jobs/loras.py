"""The LoRAs of a request: tags out of its prompt, names made those of files, what is none for the model refused."""

from collections.abc import Callable, Mapping, Sequence

from webui.core.block_weights import FAMILIES, outside
from webui.core.errors import Mend, RequestError, show, show_some
from webui.core.files import LoraFile, ModelFile
from webui.core.lora_files import check_family
from webui.core.names import choose_lora
from webui.core.prompt import draw_loras, split_constant_loras, split_loras
from webui.core.request import MAX_LORAS, LoraRef, Request
from webui.core.tensor_file import BadFile, read_header


def resolve_loras(
    prompt: str,
    refs: tuple[LoraRef, ...],
    request: Request,
    model: ModelFile,
    find_loras: Callable[[], Mapping[str, LoraFile]],
    keep: bool = False,
) -> dict[str, object]:
    """The prompt without tags, and all LoRAs by their files' names; those of weight 0 are left out unless they are to
    be kept, because none at all would mean others.

    Weights by block that are to be drawn at random are, by the seed; those in tags that stay, in the prompt.
    """
    text, seed = draw_loras(prompt, request.seed), request.seed
    if request.syntax > 1:
        prompt, tagged, moving = split_constant_loras(text)
    else:
        (prompt, tagged), moving = split_loras(text), ()
    wanted = (*refs, *tagged, *moving)
    if not wanted:
        return {}
    if len(wanted) > MAX_LORAS:
        raise RequestError(f"loras: {len(wanted)} LoRAs are too many; {MAX_LORAS} is the limit", field="loras")
    files = find_loras()
    loras = [_resolve_lora(ref.drawn(seed), model, files) for ref in wanted]
    lasting = [k for k in range(len(wanted) - len(moving)) if keep or loras[k].acts]
    _check_names([loras[k] for k in lasting], [wanted[k].name for k in lasting])
    return {"prompt": prompt, "loras": tuple(loras[k] for k in lasting)}


def _check_names(refs: Sequence[LoraRef], asked: Sequence[str]) -> None:
    """Raises RequestError for a LoRA that is named twice. In brackets that change over the steps one may be.

    ``asked`` is how each was named: the one that could go is known by that.
    """
    names = [ref.name for ref in refs]
    for k, name in enumerate(names):
        if name in names[:k]:
            both = show_some([str(ref) for ref in refs if ref.name == name])
            reason = f"LoRA “{show(name)}” is named more than once: {both}. Give it one weight."
            raise RequestError(reason, "loras", Mend("keep", asked[k]))


def _resolve_lora(ref: LoraRef, model: ModelFile, files: Mapping[str, LoraFile]) -> LoraRef:
    name, remove = choose_lora(ref.name, files), Mend("remove", ref.name)
    try:
        header = read_header(files[name].path)
    except BadFile as error:
        raise RequestError(f"LoRA {name[:80]!r}: {files[name].path.name} {error}", "loras", remove) from None
    if model.checkpoint and (reason := check_family(header, model.checkpoint)):
        raise RequestError(f"LoRA {name[:80]!r} {reason}", "loras", remove)
    if ref.blocks:
        family = model.checkpoint.family if model.checkpoint else ""
        if family not in FAMILIES:
            raise RequestError(
                f"LoRA {name[:80]!r}: lbw and lbwe name the blocks of {show_some(FAMILIES)}; model {model.name!r} is"
                f" {family}, which has others",
                "loras",
                remove,
            )
        if key := outside(header.shapes):
            raise RequestError(
                f"LoRA {name[:80]!r}: lbw and lbwe have no block for {key[:120]}, which it changes",
                "loras",
                remove,
            )
    return ref.model_copy(update={"name": name})
