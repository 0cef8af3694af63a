"""What a pass uses beside its model, by names in a request: LoRAs, embeddings, and models that lend a part."""

from collections.abc import Iterable, Iterator

from webui.core.files import Files, ModelFile
from webui.core.lora_ref import LoraRef
from webui.core.names import choose_lora
from webui.core.prompt import split_constant_loras, tags_in
from webui.core.spans import spans
from webui.core.stages import EmbeddingUse, LoraSchedule, LoraUse, Pass


def lenders(model: ModelFile, files: Files) -> tuple[ModelFile, ...]:
    """Models that have what this one lacks; none for a whole one."""
    missing = set(model.checkpoint.missing_parts) if model.checkpoint else set()
    others = (file for file in files.models.values() if file.checkpoint and missing & set(file.checkpoint.parts))
    return tuple(others) if missing else ()


def constant_loras(refs: Iterable[LoraRef], files: Files) -> tuple[LoraUse, ...]:
    """Those of them whose weight is the same in all steps."""
    strengths = ((files.loras[ref.name], *ref.strengths, ref.blocks) for ref in refs if ref.acts)
    return tuple(
        LoraUse(file, unet, text, blocks)
        for file, unet, text, blocks in strengths
        if not isinstance(unet, tuple) and not isinstance(text, tuple)
    )


def moving_loras(refs: Iterable[LoraRef], prompt: str, files: Files, hires: bool = False) -> tuple[LoraSchedule, ...]:
    """The others of them, and what tags of the prompt ask for that stand in brackets which change over the steps."""
    found = [
        LoraSchedule(files.loras[ref.name], *ref.strengths, blocks=ref.blocks)
        for ref in refs
        if ref.acts and any(isinstance(weight, tuple) for weight in ref.strengths)
    ]
    return (*found, *_tagged_loras(prompt, files, hires))


def _tagged_loras(prompt: str, files: Files, hires: bool) -> Iterator[LoraSchedule]:
    """Each tag once."""
    prompt, _, refs = split_constant_loras(prompt)
    for tag, ref in dict(zip(tags_in(prompt), refs, strict=True)).items():
        ref = ref.in_pass(hires)
        yield LoraSchedule(files.loras[choose_lora(ref.name, files.loras)], *ref.strengths, tag, ref.blocks)


def embeddings(stage: Pass, files: Files) -> tuple[EmbeddingUse, ...]:
    """What the texts of a pass may name, in the order of the files."""
    told = spans(stage)
    prompts = (term.text for span in told for term in span.terms)
    texts = dict.fromkeys((*prompts, *(span.negative for span in told)))
    forms = files.embeddings_in("\0".join(texts))  # which no name has in it
    return tuple(EmbeddingUse(file, tuple(forms[name])) for name, file in files.embeddings.items() if name in forms)
