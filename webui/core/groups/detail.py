"""Parts of the finished picture found, and each drawn again, enlarged, and put back."""

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from webui.core.files import Files
from webui.core.groups.init import MAX_PADDING_PX
from webui.core.groups.listed import Listed
from webui.core.lora_ref import MAX_LORAS, LoraRef
from webui.core.names import FINDERS, SUBJECT
from webui.core.prompt import join_loras
from webui.core.stages import Detail as Detailing
from webui.core.stages import Pass, Stage
from webui.core.uses import constant_loras, embeddings, moving_loras
from webui.core.values import share_field, text_field

MAX_DETAILS, MOST_PARTS = 8, 16
MAX_DILATE_PX = 128
WHOLE_PROMPT = "[PROMPT]"
"""Stands for the picture's in a prompt of a detail, as in ADetailer."""


class Detail(Listed):
    """ADetailer's: what inpaint makes of each found part, with only masked, by the picture's seed.

    What is left out or empty is the picture's. A request has a list of them, one after another.
    """

    example = "finder=NAME,prompt=TEXT"
    set_by_programs: ClassVar[tuple[str, ...]] = ("loras", "template", "negative_template")

    finder: str = Field(
        default=SUBJECT,
        min_length=1,
        max_length=255,
        title="Finder",
        description="What finds the parts: demo-subject, a file's name, painted-mask (what is masked in the start"
        " picture) or previous-mask (what the detail before found)",
    )
    prompt: str = text_field("Prompt", "What the parts show. Left out: the picture's prompt, for which [PROMPT] stands")
    negative: str = text_field("Negative prompt", "Left out: the picture's")
    strength: float = share_field(0.4, "Strength", "How much the parts may change")
    padding: int = Field(
        default=32, ge=0, le=MAX_PADDING_PX, title="Context", description="How much around each part to include, in px"
    )
    dilate: int = Field(
        default=0,
        ge=-MAX_DILATE_PX,
        le=MAX_DILATE_PX,
        title="Dilate",
        description="Grows each part by so many px; below 0 shrinks it",
    )
    threshold: float = share_field(0.3, "Threshold", "How sure the finder must be")
    at_most: int = Field(
        default=4, ge=1, le=MOST_PARTS, title="At most", description="The number of parts, the surest first"
    )
    loras: tuple[LoraRef, ...] = Field(
        default=(), max_length=MAX_LORAS, title="LoRAs", description="Left out: the picture's"
    )
    template: str = text_field("Template")
    negative_template: str = text_field("Negative template")

    @property
    def said(self) -> dict[str, Any]:
        """What of it is not left out, for JSON; its finder always."""
        return {"finder": self.finder} | super().said

    def __str__(self) -> str:
        """As flags have it, LoRAs as tags in the prompt."""
        told = self.said | {"prompt": join_loras(self.prompt, self.loras)}
        fields = [field for field in told if field not in (*self.set_by_programs, "prompt")]
        return ",".join(f"{field}={told[field]}" for field in (*fields, *(["prompt"] if told["prompt"] else [])))

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """One more, behind the passes and the details before it."""
        first = stages[0]
        assert isinstance(first, Pass)
        finder = self.finder if self.finder in FINDERS else files.finders[self.finder]
        each = self._each(first, files)
        size = stages[-1].result_size
        return (*stages, Detailing(finder, self.threshold, self.padding, self.dilate, self.at_most, each, size))

    def _each(self, first: Pass, files: Files) -> Pass:
        """The pass that draws a part, at the model's own size."""
        prompt = self.prompt.replace(WHOLE_PROMPT, first.prompt) or first.prompt
        refs = [ref.in_pass(hires=False) for ref in self.loras or first.refs]
        native = first.model.native_px
        each = replace(
            first,
            begin="drawn",
            name="detail",
            init=None,
            controls=(),
            regions=(),
            references=(),
            size=(native, native),
            prompt=prompt,
            negative=self.negative.replace(WHOLE_PROMPT, first.negative) or first.negative,
            strength=self.strength,
            handover_at=None,
            loras=constant_loras(refs, files),
            lora_schedules=moving_loras(refs, prompt, files),
        )
        return replace(each, embeddings=embeddings(each, files))
