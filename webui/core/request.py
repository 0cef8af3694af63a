"""What is asked for: a ``Request`` is a frozen value with bounds on every field.

Form controls, command-line flags, HTTP bodies and recipes are all made from these fields: a field added here
appears everywhere. ``title`` is the label people see, ``description`` the help beside it.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from PIL.Image import Image as PilImage
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from webui.core import dynamic, schedule
from webui.core.errors import Mend, RequestError, refusal
from webui.core.groups import GROUPS, LISTS, groups_of
from webui.core.groups.control import MAX_CONTROLS, Control
from webui.core.groups.detail import MAX_DETAILS, Detail
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.groups.nag import Nag
from webui.core.groups.pag import Pag
from webui.core.groups.region import MAX_REGIONS, Region
from webui.core.groups.upscale import Upscale
from webui.core.groups.variation import Variation
from webui.core.images import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX
from webui.core.lora_ref import MAX_LORAS as MAX_LORAS
from webui.core.lora_ref import LoraRef as LoraRef
from webui.core.lora_text import read_refs
from webui.core.values import MAX_PROMPT_CHARACTERS as MAX_PROMPT_CHARACTERS
from webui.core.values import MAX_SEED as MAX_SEED
from webui.core.values import MAX_STEPS as MAX_STEPS
from webui.core.values import Value, share_field, text_field

T = TypeVar("T")
DRAWN_SEED_LIMIT = 2**32
PROMPTS = ("prompt", "negative")
TEMPLATES = {"prompt": "template", "negative": "negative_template"}
"""By the field that was drawn from it; the hires pass has the same."""
NOT_ASKED = (*(group for group in GROUPS if group not in LISTS), "syntax", *TEMPLATES.values())
"""What no control, flag or preset holds as it is: the groups, and what a recipe says."""


def template_of(place: str) -> str:
    """Where the template of a text is kept; places as in ``Request.texts``."""
    group, dot, field = place.rpartition(".")
    return f"{group}{dot}{TEMPLATES[field]}"


LATER = ("form", "text_encoder", "guidance_rescale", "int8")
LATER_SINCE = 3
"""The first schema of recipes that can say these fields."""
FEW_STEP_SAMPLERS = ("LCM", "TCD")  # with a LoRA that teaches a model to need few


class Request(Value):
    """One job: ``count`` pictures drawn as one batch, ``repeat`` times over."""

    prompt: str = text_field(
        "Prompt", "What the picture shows, for example: a red apple, flat style, on a blue background"
    )
    negative: str = text_field("Negative prompt", "What the picture should not show")
    steps: int = Field(default=20, ge=1, le=MAX_STEPS, title="Steps", description="More steps are finer and slower")
    guidance: float = Field(
        default=5.0,
        ge=0.0,
        le=30.0,
        allow_inf_nan=False,
        title="Guidance",
        description="How closely to follow the prompt. At 1 the negative prompt has no effect",
    )
    width: int | None = Field(
        default=None,
        title="Width in px",
        description="A multiple of 8. Left out: the model's own size",
    )
    height: int | None = Field(
        default=None,
        title="Height in px",
        description="A multiple of 8. Left out: the model's own size",
    )
    seed: int = Field(
        default=-1,
        ge=-1,
        le=MAX_SEED,
        title="Seed",
        description="The same seed and settings give the same picture. -1: a random one",
    )
    count: int = Field(default=1, ge=1, le=16, title="Batch size", description="Pictures drawn at once, as one batch")
    repeat: int = Field(default=1, ge=1, le=100, title="Batches", description="Batches, one after another")
    strict: bool = Field(
        default=False,
        title="Reproducible batches",
        description="Draw pictures one by one, so that each is exactly what its seed gives alone (slower)",
    )
    sampler: str = Field(default="DPM++ 2M", max_length=100, title="Sampler", description="How the noise is removed")
    schedule: str = Field(default="Default", max_length=100, title="Schedule", description="How the steps are spaced")
    clip_skip: int = Field(
        default=1,
        ge=1,
        le=12,
        title="Clip skip",
        description="1: off. 2 skips the last layer of the text encoder",
    )
    model: str = Field(default="demo", min_length=1, max_length=255, title="Model")
    vae: str = Field(
        default="",
        max_length=255,
        title="VAE",
        description="Turns latents into pixels: colours and fine detail. Left out: the model's own",
    )
    text_encoder: str = Field(
        default="",
        max_length=255,
        title="Text encoder",
        description="A file that reads the words; left out, the model's own or the first that fits",
    )
    prediction: Literal["auto", "epsilon", "v", "v zero-SNR"] = Field(
        default="auto",
        title="Prediction type",
        description="What the model was trained to predict; auto reads it from the model's file",
    )
    form: str = Field(
        default="auto",
        min_length=1,
        max_length=100,
        title="Form",
        description="Which form of the model its file is, such as Turbo or Base; auto takes what the file says",
    )
    refiner: str = Field(
        default="",
        max_length=255,
        title="Refiner",
        description="A second model that finishes the picture",
    )
    refiner_at: float = share_field(
        0.8, "Switch to refiner at", "The share of the steps after which the refiner takes over"
    )
    loras: tuple[LoraRef, ...] = Field(
        default=(),
        max_length=MAX_LORAS,
        title="LoRAs",
        description="Small files that change the model, each with a weight",
    )
    guidance_rescale: float = share_field(
        0.0, "Guidance rescale", "Takes back the glare of high guidance: 0.7 is usual, 1 is all of it. 0: off"
    )
    guidance_until: float = share_field(
        1.0,
        "Stop guidance after",
        "After this share of the steps the negative prompt is skipped: up to twice as fast. 1: off",
    )
    reuse: int = Field(
        default=1,
        ge=1,
        le=10,
        title="Step caching",
        description="Runs the whole network only every so many steps (DeepCache). 1: off",
    )
    token_merging: float = Field(
        default=0.0,
        ge=0.0,
        le=0.75,
        allow_inf_nan=False,
        title="Token merging",
        description="Merges similar parts of the picture to save time; helps most above 512 px. 0: off",
    )
    int8: bool = Field(default=False, title="Int8", description="Numbers of 8 bits: faster on CPUs with VNNI or AMX")
    syntax: Literal[1, 2, 3] = Field(
        default=3,
        title="Syntax",
        description="How prompts are read: 3 draws what is left to chance; 2 takes that for plain words, as is right"
        " for what was drawn already; 1 takes what changes over the steps, and AND, for plain words too",
    )
    template: str = text_field(
        "Template", "The prompt before its wildcards and choices were drawn; empty if it had none"
    )
    negative_template: str = text_field("Negative template", "The same for the negative prompt")
    init: Init | None = Field(default=None, title="Start picture")
    variation: Variation | None = Field(default=None, title="Variation")
    controls: tuple[Control, ...] = Field(
        default=(),
        max_length=MAX_CONTROLS,
        title="Controls",
        description="Pictures that say where things are, such as outlines, a pose or a depth map",
    )
    pag: Pag | None = Field(default=None, title="Perturbed attention (PAG)")
    nag: Nag | None = Field(default=None, title="Negative prompt in attention (NAG)")
    hires: Hires | None = Field(default=None, title="Hires fix")
    regions: tuple[Region, ...] = Field(
        default=(),
        max_length=MAX_REGIONS,
        title="Regions",
        description="Prompts for parts of the picture; what no region covers has the picture's prompt",
    )
    detail: tuple[Detail, ...] = Field(
        default=(),
        max_length=MAX_DETAILS,
        title="Details",
        description="Finds parts of the finished picture, such as a face or a hand, and draws them again, enlarged",
    )
    upscale: Upscale | None = Field(default=None, title="Upscale")

    _read_loras = field_validator("loras", mode="before")(read_refs)

    @field_validator(*LISTS, mode="before")
    @classmethod
    def _read_lists(cls, value: Any, info: ValidationInfo) -> Any:
        return LISTS[str(info.field_name)].read_all(value)

    @field_validator("width", "height")
    @classmethod
    def _check_side(cls, side_px: int | None) -> int | None:
        if side_px is None or (MIN_SIDE_PX <= side_px <= MAX_SIDE_PX and side_px % SIDE_STEP_PX == 0):
            return side_px
        near = near_sides_px(side_px)
        raise RequestError(
            f"must be a multiple of {SIDE_STEP_PX} from {MIN_SIDE_PX} to {MAX_SIDE_PX}, such as"
            f" {' or '.join(map(str, near))}",
            mend=Mend("use", min(near, key=lambda px: abs(px - side_px))),
        )

    @model_validator(mode="after")
    def _check_last_seed(self) -> "Request":
        name, seed = ("variation.seed", self.varied.seed) if self.varied else ("seed", self.seed)
        if seed + self.image_count - 1 > MAX_SEED:
            most = Mend("use", MAX_SEED - self.image_count + 1)
            raise RequestError(f"{name}: the last picture's seed would be above {MAX_SEED}", name, most)
        return self

    @property
    def texts(self) -> Mapping[str, str]:
        """All its prompts by their places, those of groups as ``hires.prompt`` and ``detail.1.prompt``."""
        held: dict[str, Any] = {"": self, "hires.": self.hires, **self._entries}
        return {
            f"{place}{field}": getattr(holder, field)
            for place, holder in held.items()
            for field in PROMPTS
            if hasattr(holder, field)
        }

    @property
    def templates(self) -> Mapping[str, str]:
        """What its prompts were drawn from, by their own places: ``template``, ``hires.template``."""
        held: list[tuple[str, Any]] = [("", self), *([("hires.", self.hires)] if self.hires else [])]
        found = {before + name: getattr(values, name) for before, values in held for name in TEMPLATES.values()}
        return {place: text for place, text in found.items() if text}

    @property
    def pictures(self) -> Mapping[str, PilImage]:
        """Those of its lists by their places, as ``controls.1.image``."""
        entries = self._entries.items()
        held = {f"{place}{field}": getattr(entry, field) for place, entry in entries for field in entry.pictures}
        return {place: picture for place, picture in held.items() if picture is not None}

    def with_pictures(self, pictures: Mapping[str, PilImage | None]) -> "Request":
        """The same with these, by their places as in ``pictures``."""
        return self.model_copy(update=self._lists_with(pictures))

    def with_texts(self, texts: Mapping[str, str]) -> "Request":
        """The same with other texts, by their places as in ``texts``, or templates."""
        own = {place: text for place, text in texts.items() if "." not in place}
        hires = _below("hires.", texts)
        second = {"hires": self.hires.model_copy(update=hires)} if self.hires and hires else {}
        return self.model_copy(update=own | second | self._lists_with(texts))

    @property
    def _entries(self) -> Mapping[str, Any]:
        """Those of its lists, by what their fields' places begin with."""
        return {f"{group}.{k}.": entry for group in LISTS for k, entry in enumerate(getattr(self, group), start=1)}

    def _lists_with(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """Its lists, each entry with the values of its place."""
        return {
            group: tuple(
                entry.model_copy(update=_below(f"{group}.{number}.", values))
                for number, entry in enumerate(getattr(self, group), start=1)
            )
            for group in LISTS
        }

    @property
    def requests(self) -> "tuple[Request, ...]":
        """Itself: one request is a ``Work``, too."""
        return (self,)

    @property
    def only_enlarges(self) -> bool:
        """Whether nothing is drawn: the start picture is enlarged."""
        return self.upscale is not None and self.upscale.only

    @property
    def image_count(self) -> int:
        """How many pictures the job makes in all."""
        return self.count * self.repeat

    @property
    def varied(self) -> Variation | None:
        """The variation, where it does anything."""
        return self.variation if self.variation and self.variation.strength > 0 else None

    def picture(self, k: int) -> "Request":
        """What to ask for to draw picture ``k`` of the job alone: with a seed of its own, or a variation seed."""
        own = {"variation": self.varied.picture(k)} if self.varied else {"seed": self.seed + k}
        return self.model_copy(update={"count": 1, "repeat": 1} | own)

    @property
    def approximations(self) -> tuple[str, ...]:
        """What was given up for speed, in words for people; empty where the picture is the exact one."""
        words = {
            f"guidance stops after {self.guidance_until:.0%} of the steps": self.stops_guiding,
            f"step caching every {self.reuse} steps": self.reuse > 1,
            f"token merging {self.token_merging:g}": self.token_merging > 0,
            "int8": self.int8,
            f"few steps with {self.sampler}": self.sampler in FEW_STEP_SAMPLERS and bool(self.loras),
        }
        return tuple(word for word, taken in words.items() if taken)

    @property
    def stops_guiding(self) -> bool:
        """Whether the prompt goes on alone before the last step, where it does not from the first."""
        return self.guidance_until < 1 and (self.guidance != 1 or self.steers)

    @property
    def steers(self) -> bool:
        """Whether attention is steered, which guides without a second half, too."""
        return (self.pag is not None and self.pag.acts) or (self.nag is not None and self.nag.acts)

    @property
    def has_marks(self) -> bool:
        """Whether its prompts are read otherwise in the first syntax."""
        return any(
            schedule.changes(text) if place.endswith("negative") else schedule.has_marks(text)
            for place, text in self.texts.items()
        )

    @property
    def recipe_schema(self) -> int:
        """The first schema of recipes that can say it."""
        plain = all(ref.is_plain for ref in self.loras) and not any(
            getattr(self, field) for field in TEMPLATES.values()
        )
        fields = 1 if plain and not (self.has_marks and self.syntax > 1) else 2
        fields = LATER_SINCE if self.says_later or (self.init and self.init.softness) else fields
        return max([fields, *(group.since for group in groups_of(self))])

    @property
    def says_later(self) -> frozenset[str]:
        """Those of ``LATER`` that say something."""
        return frozenset(field for field in LATER if getattr(self, field) != type(self).model_fields[field].default)

    @property
    def syntax_of_drawn(self) -> Literal[1, 2, 3]:
        """The newest syntax in which its prompts, with nothing left to chance any more, say what they do."""
        if self.syntax == 1:
            return 1
        return 2 if any(map(dynamic.may_be_dynamic, self.texts.values())) else 3

    def in_newest_syntax(self) -> "Request":
        """The same request, its prompts written so that today's syntax reads in them what its own does."""
        return self.in_syntax(3)

    def in_syntax(self, syntax: Literal[2, 3]) -> "Request":
        """The same for another syntax, if it is newer. The engine knows none above 2: the rest is drawn before."""
        if self.syntax >= syntax:
            return self
        words = self.texts
        if self.syntax == 1:
            words = {field: schedule.as_words(text) for field, text in words.items()}
        if syntax == 3:
            words = {field: dynamic.as_words(text) for field, text in words.items()}
        return self.with_texts(words).model_copy(update={"syntax": syntax})

    @property
    def task(self) -> str:
        """The kind of work, as the output folders name it."""
        if self.only_enlarges:
            return "upscale"
        if self.init is None:
            return "txt2img"
        return "inpaint" if self.init.masked else "img2img"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Request":
        """A request from untrusted values; raises RequestError in words for people."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise refusal(error) from None


def _below(place: str, values: Mapping[str, T]) -> dict[str, T]:
    """The texts or pictures of a group, by field."""
    return {name.removeprefix(place): value for name, value in values.items() if name.startswith(place)}


def near_sides_px(side_px: int) -> list[int]:
    """The allowed sides just below and above, one of them at the ends of the range."""
    below = max(MIN_SIDE_PX, min(MAX_SIDE_PX, side_px // SIDE_STEP_PX * SIDE_STEP_PX))
    above = max(MIN_SIDE_PX, min(MAX_SIDE_PX, -(-side_px // SIDE_STEP_PX) * SIDE_STEP_PX))
    return sorted({below, above})
