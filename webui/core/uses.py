"""What a pass uses beside its model, by names in a request: LoRAs, embeddings, and models that lend a part."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from webui.core.checkpoint import Checkpoint
from webui.core.errors import Mend, RequestError, show, show_some
from webui.core.files import Files, ModelFile, VaeFile
from webui.core.lora_ref import LoraRef
from webui.core.names import choose_file, choose_lora
from webui.core.prompt import split_constant_loras, tags_in
from webui.core.spans import spans
from webui.core.stages import EmbeddingUse, LoraSchedule, LoraUse, Pass

TITLES = {
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
    "text_encoder_3": "third text encoder",
    "text_conditioner": "text adapter",
    "vae": "VAE",
}


def choose_text_encoder(name: str, model: ModelFile, files: Files) -> str:
    """The name here of a text encoder that is to read the words; RequestError, with those that fit, for one that
    cannot."""
    field, own = "text_encoder", model.checkpoint
    if not name or own is None:
        return ""
    there = files.text_encoders
    chosen = choose_file("text encoder", name, there, field)
    if _roles(there[chosen], own):
        return chosen
    fitting = [known for known, file in there.items() if _roles(file, own)]
    if (about := there[chosen].checkpoint) is None:
        file = there[chosen]
        raise RequestError(f"{field} {show(chosen)!r}: {file.path.name} {file.problem}", field, Mend("use", ""))
    needs = " or ".join(_title(own, role) for role in own.networks if role.startswith("text"))
    here = f"those that fit are {show_some(fitting)}" if fitting else "none that fits is here"
    raise RequestError(
        f"{field} {show(chosen)!r} is {_title(about, about.parts[0])}; {model.name} reads words with {needs}; {here}",
        field,
        Mend("use", ""),
    )


def _title(about: Checkpoint, role: str) -> str:
    """What a text encoder is that a file has or needs: its name and width."""
    width = about.width_of(role)
    return about.networks[role].name + (f", {width:,} wide" if width else "")


def _roles(file: ModelFile, model: Checkpoint) -> tuple[str, ...]:
    """What of the model's parts that read words the file can stand for."""
    return tuple(role for role in model.row.parts if role.startswith("text") and lends(file, role, model))


def with_text_encoder(name: str, model: ModelFile, files: Files) -> ModelFile:
    """The model whose words are read by the text encoder of this name, whatever its own files have for that."""
    own = model.checkpoint
    if not name or own is None:
        return model
    return replace(model, checkpoint=replace(own, exchanged=_roles(files.parts[name], own)))


def lenders(model: ModelFile, files: Files, chosen: str = "") -> tuple[ModelFile, ...]:
    """Files that have what this model lacks; none for a whole one.

    The first that has a part lends it: the one that was ``chosen`` by its name, those called as this file, other parts
    in files of their own, models, and last what may be another network that looks alike.
    """
    missing = set(model.checkpoint.missing_parts) if model.checkpoint else set()
    if not missing:
        return ()
    own = model.checkpoint
    every = (*files.parts.values(), *files.models.values())
    fitting = (file for file in every if own and any(lends(file, part, own) for part in missing))
    first = files.parts.get(chosen)
    twins = {network.twin for network in own.networks.values()} if own else set()

    def order(file: ModelFile) -> tuple[bool, bool, bool]:
        unsure = file.checkpoint is not None and file.checkpoint.family in twins
        return file != first, file.path.stem != model.path.stem, unsure

    return tuple(sorted(fitting, key=order))


def lender_of(part: str, model: ModelFile, others: Iterable[ModelFile]) -> ModelFile | None:
    """The first of the others that lends the model this part."""
    own = model.checkpoint
    return next((file for file in others if own and lends(file, part, own)), None)


def stand_ins(model: ModelFile, lenders: Iterable[ModelFile]) -> tuple[ModelFile, ...]:
    """Those of the lenders that stand in for what the model's file lacks."""
    missing, there = model.checkpoint.missing_parts if model.checkpoint else (), tuple(lenders)
    return tuple(lender for part in missing if (lender := lender_of(part, model, there)))


def lends(file: ModelFile, part: str, model: Checkpoint) -> bool:
    """Whether the model can use the file's part."""
    return file.checkpoint is not None and file.checkpoint.lends(part, model)


def check_parts(model: ModelFile, files: Files, field: str = "model") -> None:
    """RequestError where a part that the model lacks is nowhere, with what there is and why that does not fit."""
    own, every = model.checkpoint, (*files.parts.values(), *files.models.values())
    for part in own.missing_parts if own else ():
        if own is None or part in own.row.optional or any(lends(file, part, own) for file in every):
            continue
        network, width = own.networks.get(part), own.width_of(part)
        lacks = f"; it needs {network.wanted(width)}" if network else ""
        lacks = lacks or f", and no other {own.family} model is here to lend one"
        misfits = [
            f"{file.name} is {file.checkpoint.width_of(role):,} wide, and {width:,} are needed"
            for file in every
            if file.checkpoint and (role := file.checkpoint.role_of(part, own))
        ]
        if part.startswith("text"):
            misfits += [f"{file.path.name} {file.problem}" for file in files.text_encoders.values() if file.problem]
        there = f". There is {show_some(misfits)}" if misfits else ""
        title = TITLES.get(part, part)
        raise RequestError(f"{field} {show(model.name)!r}: {model.path.name} has no {title}{lacks}{there}", field=field)


def check_vae(vae: VaeFile, model: ModelFile, files: Files) -> None:
    """RequestError for a VAE that is known to be that of other kinds of models."""
    own = model.checkpoint
    part = next((file.checkpoint for file in files.parts.values() if file.path == vae.path), None)
    if own and part and part.role_of("vae", own) is None:
        raise RequestError(
            f"vae: {show(vae.name)!r} is {part.family}, which {own.family}, as {show(model.name)!r} is, cannot use",
            "vae",
            Mend("use", ""),
        )


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
