"""A second look: the finished pictures, or their latents, enlarged and drawn again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, field_validator

from webui.core.errors import Mend, RequestError
from webui.core.files import Files, ModelFile
from webui.core.groups.base import Group
from webui.core.groups.control import alike
from webui.core.groups.upscale import DEFAULT_UPSCALER, at_size, enlarged, read_left_out, scale_field, side_field
from webui.core.images import MAX_SIDE_PX, MAX_UPSCALED_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX, Size
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.lora_ref import MAX_LORAS, LoraRef
from webui.core.lora_text import read_refs
from webui.core.names import LANCZOS
from webui.core.stages import Pass, Stage, Upscale
from webui.core.uses import constant_loras, embeddings, lenders, moving_loras
from webui.core.values import MAX_STEPS, share_field, text_field

ANY_PX = 2**31
NAME = "hires"
"""What its stages are told under."""


class Hires(Group):
    """A1111's hires fix: what img2img makes of the enlarged picture, each with its own seed again.

    What is left out or empty is as in the first pass.
    """

    switch: ClassVar[str] = "Enlarge the picture and draw it again"
    set_by_programs: ClassVar[tuple[str, ...]] = ("template", "negative_template")

    scale: float = scale_field()
    width: int | None = side_field("width", MIN_SIDE_PX, MAX_SIDE_PX)
    height: int | None = side_field("height", MIN_SIDE_PX, MAX_SIDE_PX)
    upscaler: str = Field(
        default=DEFAULT_UPSCALER,
        min_length=1,
        max_length=255,
        title="Upscaler",
        description="A network, Lanczos (a filter), or Latent (enlarges before decoding)",
    )
    steps: int = Field(default=0, ge=0, le=MAX_STEPS, title="Steps", description="0: as many as the first pass")
    strength: float = share_field(0.5, "Strength", "0 only enlarges, 1 ignores the first pass")
    model: str = Field(
        default="",
        max_length=255,
        title="Model",
        description="The model of the second pass. Left out: as in the first pass",
    )
    loras: tuple[LoraRef, ...] = Field(
        default=(),
        max_length=MAX_LORAS,
        title="LoRAs",
        description="As name:weight, name:weight. Left out: as in the first pass",
    )
    sampler: str = Field(default="", max_length=100, title="Sampler", description="Left out: as in the first pass")
    schedule: str = Field(default="", max_length=100, title="Schedule", description="Left out: as in the first pass")
    guidance: float | None = Field(
        default=None,
        ge=0.0,
        le=30.0,
        allow_inf_nan=False,
        title="Guidance",
        description="0: as in the first pass",
    )
    prompt: str = text_field("Hires prompt", "Left out: as in the first pass")
    negative: str = text_field("Hires negative prompt", "Left out: as in the first pass")
    template: str = text_field("Template")
    negative_template: str = text_field("Negative template")

    _read_left_out = field_validator("width", "height", "guidance", mode="before")(read_left_out)
    _read_loras = field_validator("loras", mode="before")(read_refs)

    @property
    def is_latent(self) -> bool:
        """Whether latents are enlarged, and no pictures."""
        return self.upscaler in LATENT_FILTERS

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """Pictures are enlarged by a stage of its own, latents by the pass that begins from them."""
        first = stages[0]
        assert isinstance(first, Pass)
        if self.is_latent:
            if first.init and first.init.masked and first.init.only_masked:
                raise RequestError(
                    f"hires: {self.upscaler} enlarges all that was drawn, and “Zoom into the mask” draws only a"
                    " part of it; choose another upscaler",
                    "hires.upscaler",
                    Mend("use", LANCZOS),
                )
            return (*stages, replace(self._second(first, files), begin="latents", enlarged_by=self.upscaler))
        file = None if self.upscaler == LANCZOS else files.upscalers[self.upscaler]
        return (*stages, Upscale(file, self.sizes(first)[1], name=NAME), self._second(first, files))

    def sizes(self, first: Pass) -> tuple[Size, Size]:
        """What is drawn, and the whole picture, larger where only a masked part is; RequestError for too much."""
        asked, whole = self._asked(first), first.result_size
        if whole == first.size:
            size = _in_steps(asked)
            self._check(first.size, size)
            return size, size
        drawn = _in_steps((first.size[0] * asked[0] // whole[0], first.size[1] * asked[1] // whole[1]))
        self._check(first.size, drawn)
        return drawn, asked

    def _check(self, own: Size, size: Size) -> None:
        if max(size) > MAX_SIDE_PX or min(size) < MIN_SIDE_PX:
            most = int(MAX_SIDE_PX / max(own) * 100) / 100
            raise RequestError(
                f"hires: {own[0]} x {own[1]} px would become {size[0]} x {size[1]} px, and sides are drawn at"
                f" {MIN_SIDE_PX} to {MAX_SIDE_PX} px; the largest scale for this picture is {most:g}, and upscale goes"
                " further",
                *at_size(NAME, self.width, self.height, most),
            )

    def notices(self, first: Pass, second: Pass) -> Iterator[str]:
        """Lines for people about what is not drawn as it was asked for, or is asked for in vain."""
        if first.refs and not self.loras and not are_alike(first.model, second.model):
            yield f"The LoRAs of the first pass are left out of the second: {second.model.name} is of another kind."
        if (first.pag or first.nag) and not (second.pag or second.nag):
            yield f"Attention is steered in the first pass alone: {second.model.name} is of a kind that cannot."
        if (first.controls or first.references) and not (second.controls or second.references):
            yield f"The controls of the first pass are left out of the second: {second.model.name} is of another kind."
        asked, (drawn, _) = self._asked(first), self.sizes(first)
        if first.result_size == first.size and asked != drawn:
            yield (
                f"Hires: {asked[0]} x {asked[1]} px was asked for; sides are drawn in steps of {SIDE_STEP_PX} px, so it"
                f" is {drawn[0]} x {drawn[1]} px."
            )
        if self.strength == 0:
            yield "At hires strength 0 the picture is only enlarged, not drawn again."

    def _asked(self, first: Pass) -> Size:
        whole = first.result_size
        most_px = ANY_PX if whole == first.size else MAX_UPSCALED_SIDE_PX  # all of it is drawn: see _check
        return enlarged(whole, self.scale, self.width, self.height, "hires", most_px)

    def _second(self, first: Pass, files: Files) -> Pass:
        """The pass that draws again."""
        model = files.models[self.model] if self.model else first.model
        model = first.model if model.name == first.model.name else model  # in the form that was asked for
        prompt = self.prompt or first.prompt
        second = replace(
            first,
            begin="drawn",
            name=NAME,
            size=self.sizes(first)[0],
            steps=self.steps or first.steps,
            strength=self.strength,
            sampler=self.sampler or first.sampler,
            schedule=self.schedule or first.schedule,
            guidance=first.guidance if self.guidance is None else self.guidance,
            prompt=prompt,
            negative=self.negative or first.negative,
            handover_at=None,
            done=first.steps_taken,
        )
        if model.name != first.model.name:
            second = replace(second, model=model, lenders=lenders(model, files), prediction="auto")
            if not alike(first.model, second.model):
                second = replace(second, controls=(), references=())
        refs = [ref.in_pass(hires=True) for ref in self.loras or first.refs]
        if model.checkpoint and {"pag", "nag"} <= model.checkpoint.row.lacks:
            second = replace(second, pag=None, nag=None)
        if not are_alike(model, first.model):
            second = replace(second, vae=None)
            refs = refs if self.loras else []
        second = replace(
            second,
            loras=constant_loras(refs, files),
            lora_schedules=moving_loras(refs, prompt, files, hires=True),
        )
        return replace(second, embeddings=embeddings(second, files))


def are_alike(one: ModelFile, other: ModelFile) -> bool:
    """Whether two models have latents and LoRAs of one kind."""
    latents = [file.checkpoint.row.latents if file.checkpoint else "SD" for file in (one, other)]
    return latents[0] == latents[1]


def _in_steps(size: Size) -> Size:
    """The largest size within that can be drawn, as A1111 has it."""
    width, height = (side // SIDE_STEP_PX * SIDE_STEP_PX for side in size)
    return width, height
