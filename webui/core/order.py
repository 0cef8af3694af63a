"""An ``Order``: a request with nothing open, as stages. It is what a worker gets, plain data that pickles."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from webui.core.files import File, Files, ModelFile
from webui.core.groups import GROUPS
from webui.core.lora_ref import LoraRef
from webui.core.names import choose_lora
from webui.core.notices import approximations, notices, of_files
from webui.core.prompt import split_constant_loras, tags_in
from webui.core.request import Request
from webui.core.spans import spans
from webui.core.stages import EmbeddingUse, LoraSchedule, LoraUse, Pass, Stage, Upscale, steps_of


@dataclass(frozen=True)
class Order:
    """``request`` is the resolved one, which the recipes of its pictures keep; its stages are drawn for each batch.

    ``warnings`` are lines for people: what changes nothing, is not done as it says, or could have been meant otherwise.
    So many of its pictures as ``finished`` says, whole batches, are there already.
    """

    request: Request
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()
    finished: int = 0

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Those of its stages that draw; none where a picture is only enlarged."""
        return tuple(stage for stage in self.stages if isinstance(stage, Pass))

    @property
    def files(self) -> tuple[File, ...]:
        """All that its stages read, each once."""
        return tuple(dict.fromkeys(file for stage in self.stages for file in stage.files))

    @property
    def steps(self) -> int:
        """Those of all its batches, finished ones too."""
        return sum(map(steps_of, self.stages)) * self.request.repeat

    @property
    def cost(self) -> float:
        """What drawing it comes to, in megapixel-evaluations: it is the same on every device."""
        return sum(stage.cost for stage in self.stages) * (self.request.image_count - self.finished)


def plan(request: Request, files: Files) -> Order:
    """The stages of a request that is resolved already, so that all its names are those of ``files``.

    Raises RequestError for pictures larger than can be made.
    """
    if request.only_enlarges:
        return _plan_enlarging(request, files)
    stages: tuple[Stage, ...] = _passes(request, files)
    for name in GROUPS:
        if (group := getattr(request, name)) is not None:
            stages = group.stages(stages, files)
    return Order(request, stages, tuple(dict.fromkeys(_warnings(request, files, stages))))


def _plan_enlarging(request: Request, files: Files) -> Order:
    """Of a request that draws nothing."""
    assert request.upscale and request.init
    stage = request.upscale.alone(request.init, files)
    ambiguities = (file.ambiguity for file in stage.files if file.ambiguity)
    return Order(request, (stage,), (*ambiguities, *of_files(request.init)))


def _passes(request: Request, files: Files) -> tuple[Pass, ...]:
    """The pass that every request has, and the refiner's behind it where one is named."""
    request = request.in_syntax(2)
    assert request.width and request.height, "a resolved request has a size"
    model = files.models[request.model]
    own = model.checkpoint is None or request.prediction == model.checkpoint.prediction_name
    first = Pass(
        model=model,
        size=(request.width, request.height),
        steps=request.steps,
        sampler=request.sampler,
        schedule=request.schedule,
        prompt=request.prompt,
        negative=request.negative,
        guidance=request.guidance,
        vae=files.vaes[request.vae] if request.vae else None,
        lenders=_lenders(model, files),
        prediction="auto" if own else request.prediction,
        clip_skip=request.clip_skip,
        guidance_until=request.guidance_until,
        loras=_constant_loras(request.loras, files),
        lora_schedules=(*_moving_loras(request.loras, files), *_tagged_loras(request.prompt, files)),
        reuse=request.reuse,
        token_merging=request.token_merging,
    )
    first = replace(first, embeddings=_embeddings(_texts(first), files))
    if not request.refiner:
        return (first,)
    first = replace(first, handover_at=request.refiner_at)
    second, refiner = replace(first, begin="handover", name="refiner"), files.models[request.refiner]
    if refiner != model:
        second = replace(
            second, model=refiner, lenders=_lenders(refiner, files), prediction="auto", loras=(), lora_schedules=()
        )
    return first, second


def _lenders(model: ModelFile, files: Files) -> tuple[ModelFile, ...]:
    """Models that have what this one lacks; none for a whole one."""
    missing = set(model.checkpoint.missing_parts) if model.checkpoint else set()
    others = (file for file in files.models.values() if file.checkpoint and missing & set(file.checkpoint.parts))
    return tuple(others) if missing else ()


def _constant_loras(refs: Iterable[LoraRef], files: Files) -> tuple[LoraUse, ...]:
    strengths = ((files.loras[ref.name], *ref.strengths, ref.blocks) for ref in refs)
    return tuple(
        LoraUse(file, unet, text, blocks)
        for file, unet, text, blocks in strengths
        if not isinstance(unet, tuple) and not isinstance(text, tuple)
    )


def _moving_loras(refs: Iterable[LoraRef], files: Files) -> Iterable[LoraSchedule]:
    for ref in refs:
        if any(isinstance(weight, tuple) for weight in ref.strengths):
            yield LoraSchedule(files.loras[ref.name], *ref.strengths, blocks=ref.blocks)


def _tagged_loras(prompt: str, files: Files) -> Iterable[LoraSchedule]:
    """What the tags ask for that stand in brackets which change over the steps, each tag once."""
    prompt, _, refs = split_constant_loras(prompt)
    for tag, ref in dict(zip(tags_in(prompt), refs, strict=True)).items():
        yield LoraSchedule(files.loras[choose_lora(ref.name, files.loras)], *ref.strengths, tag, ref.blocks)


def _texts(stage: Pass) -> Iterable[str]:
    """All that it is ever told."""
    told = spans(stage)
    prompts = (term.text for span in told for term in span.terms)
    return dict.fromkeys((*prompts, *(span.negative for span in told)))


def _embeddings(texts: Iterable[str], files: Files) -> tuple[EmbeddingUse, ...]:
    """What the texts may name, in the order of the files."""
    forms = files.embeddings_in("\0".join(texts))  # which no name has in it
    return tuple(EmbeddingUse(file, tuple(forms[name])) for name, file in files.embeddings.items() if name in forms)


def _warnings(request: Request, files: Files, stages: tuple[Stage, ...]) -> Iterable[str]:
    passes = [stage for stage in stages if isinstance(stage, Pass)]
    first = passes[0]
    others = [stage for stage in stages if isinstance(stage, Upscale)]
    named: Iterable[File | None] = (
        *(stage.model for stage in passes),
        *(first.vae, *first.lora_files),
        *(stage.file for stage in others),
    )
    yield from (file.ambiguity for file in named if file and file.ambiguity)
    if words := approximations(request, files.vaes if request.vae else {}):
        yield f"Approximate: {', '.join(words)}."
    assert first.model.checkpoint, "a resolved request names a model that can be used"
    yield from notices(request, first.model.checkpoint)
