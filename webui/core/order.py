"""An ``Order``: a request with nothing open, as stages. It is what a worker gets, plain data that pickles."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from webui.core.files import File, Files, FinderFile
from webui.core.groups import groups_of
from webui.core.groups.hires import NAME as HIRES
from webui.core.notices import approximations, notices, of_files
from webui.core.request import Request
from webui.core.stages import Detail, Pass, Stage, Upscale, likely_cost, steps_of
from webui.core.uses import constant_loras, embeddings, lenders, moving_loras, with_text_encoder


@dataclass(frozen=True)
class Order:
    """``request`` is the resolved one, which the recipes of its pictures keep; its stages are drawn for each batch.

    ``warnings`` are lines for people: what changes nothing, is not done as it says, or could have been meant otherwise.
    So many of its pictures as ``finished`` says, whole batches, are there already; those from ``until`` on, where that
    is not None, are for others to draw.
    """

    request: Request
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()
    finished: int = 0
    until: int | None = None

    @property
    def batches(self) -> int:
        """How many batches are to be drawn."""
        end = self.request.image_count if self.until is None else self.until
        return -(-(end - self.finished) // self.request.count)

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

    def share(self, index: int) -> float:
        """How much of its work is done after so many of its steps, 0..1: they do not all cost the same."""
        costs = [likely_cost(stage) for stage in self.stages]
        batches, left = divmod(index, max(sum(map(steps_of, self.stages)), 1))
        done = sum(costs) * batches
        for stage, cost in zip(self.stages, costs, strict=True):
            taken = min(left, steps_of(stage))
            left -= taken
            done += cost * taken / steps_of(stage) if taken else 0.0
        return min(done / (sum(costs) * self.request.repeat), 1.0) if any(costs) else 0.0

    @property
    def cost(self) -> float:
        """What drawing it comes to, in megapixel-evaluations: it is the same on every device."""
        end = self.request.image_count if self.until is None else self.until
        return sum(stage.cost for stage in self.stages) * (end - self.finished)


def plan(request: Request, files: Files) -> Order:
    """The stages of a request that is resolved already, so that all its names are those of ``files``.

    Raises RequestError for pictures larger than can be made.
    """
    if request.only_enlarges:
        return _plan_enlarging(request, files)
    stages: tuple[Stage, ...] = _passes(request, files)
    told = request.in_syntax(2)
    for group in groups_of(told):
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
    model = with_text_encoder(request.text_encoder, files.models[request.model].in_form(request.form), files)
    refs = [ref.in_pass(hires=False) for ref in request.loras]
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
        lenders=lenders(model, files, request.text_encoder),
        prediction="auto" if own else request.prediction,
        clip_skip=request.clip_skip,
        guidance_until=request.guidance_until,
        guidance_rescale=request.guidance_rescale,
        refs=request.loras,
        loras=constant_loras(refs, files),
        lora_schedules=moving_loras(refs, request.prompt, files),
        reuse=request.reuse,
        token_merging=request.token_merging,
        int8=request.int8,
    )
    first = replace(first, embeddings=embeddings(first, files))
    if not request.refiner:
        return (first,)
    first = replace(first, handover_at=request.refiner_at)
    second, refiner = replace(first, begin="handover", name="refiner"), files.models[request.refiner]
    if refiner.name != model.name:
        second = replace(
            second, model=refiner, lenders=lenders(refiner, files), prediction="auto", loras=(), lora_schedules=()
        )
    return first, second


def _warnings(request: Request, files: Files, stages: tuple[Stage, ...]) -> Iterable[str]:
    details = [stage for stage in stages if isinstance(stage, Detail)]
    passes = [stage for stage in stages if isinstance(stage, Pass)] + [stage.each for stage in details]
    first = passes[0]
    others = [stage.file for stage in stages if isinstance(stage, Upscale)]
    named: Iterable[File | None] = (
        *(stage.model for stage in passes),
        *(file for stage in passes for file in (stage.vae, *stage.lora_files)),
        *others,
        *(stage.finder for stage in details if isinstance(stage.finder, FinderFile)),
    )
    yield from (file.ambiguity for file in named if file and file.ambiguity)
    if words := approximations(request, files.vaes if request.vae else {}):
        yield f"Approximate: {', '.join(words)}."
    assert first.model.checkpoint, "a resolved request names a model that can be used"
    yield from notices(request, first.model.checkpoint)
    if request.hires:
        second = next(stage for stage in passes if stage.name == HIRES)
        yield from request.hires.notices(first, second)
