"""What is asked for: a ``Request`` is a frozen value with bounds on every field.

Form controls, command-line flags, HTTP bodies and recipes are all made from these fields: a field added here
appears everywhere. ``title`` is the label people see, ``description`` the help beside it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

MAX_PROMPT_CHARACTERS = 8_000
MAX_SEED = 2**53 - 1  # the largest whole number that JSON and JavaScript carry exactly
DRAWN_SEED_LIMIT = 2**32
SIDE_STEP_PX = 8  # the autoencoder halves the picture three times
MIN_SIDE_PX, MAX_SIDE_PX = 64, 2048


class RequestError(ValueError):
    """Bad input. The message names the input and the reason, in words for people."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class LoraRef(BaseModel):
    """A LoRA by name, with the strength it is applied at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=255)
    weight: float = Field(default=1.0, ge=-10.0, le=10.0, allow_inf_nan=False)


class Request(BaseModel):
    """One job: ``count`` pictures drawn as one batch, ``repeat`` times over."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    prompt: str = Field(
        default="",
        max_length=MAX_PROMPT_CHARACTERS,
        title="Prompt",
        description="What the picture shows, for example: a red apple, flat style, on a blue background",
    )
    negative: str = Field(
        default="",
        max_length=MAX_PROMPT_CHARACTERS,
        title="Negative prompt",
        description="What the picture should not show",
    )
    steps: int = Field(default=20, ge=1, le=150, title="Steps", description="More is finer and slower")
    guidance: float = Field(
        default=5.0,
        ge=0.0,
        le=30.0,
        allow_inf_nan=False,
        title="Guidance",
        description="How strictly to follow the prompt",
    )
    width: int | None = Field(
        default=None,
        title="Width in px",
        description="A multiple of 8; left out, the model's own size",
    )
    height: int | None = Field(
        default=None,
        title="Height in px",
        description="A multiple of 8; left out, the model's own size",
    )
    seed: int = Field(
        default=-1,
        ge=-1,
        le=MAX_SEED,
        title="Seed",
        description="The same seed and settings give the same picture; -1 draws a new one",
    )
    count: int = Field(default=1, ge=1, le=16, title="Count", description="Pictures drawn together")
    repeat: int = Field(default=1, ge=1, le=100, title="Repeat", description="Batches in a row")
    sampler: str = Field(default="DPM++ 2M", max_length=100, title="Sampler", description="How the noise is removed")
    schedule: str = Field(default="Default", max_length=100, title="Schedule", description="How the steps are spaced")
    clip_skip: int = Field(
        default=1,
        ge=1,
        le=12,
        title="Clip skip",
        description="1 reads the last text layer",
    )
    model: str = Field(default="demo", min_length=1, max_length=255, title="Model")
    loras: tuple[LoraRef, ...] = Field(default=(), max_length=32, title="LoRAs")

    @field_validator("seed", "steps", "count", "repeat", "width", "height", "clip_skip", "guidance", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value

    @field_validator("width", "height")
    @classmethod
    def _check_side(cls, side_px: int | None) -> int | None:
        if side_px is None or (MIN_SIDE_PX <= side_px <= MAX_SIDE_PX and side_px % SIDE_STEP_PX == 0):
            return side_px
        near = " and ".join(str(px) for px in near_sides_px(side_px))
        raise ValueError(
            f"must be a multiple of {SIDE_STEP_PX} from {MIN_SIDE_PX} to {MAX_SIDE_PX}; near sizes: {near}"
        )

    @model_validator(mode="after")
    def _check_last_seed(self) -> "Request":
        if self.seed + self.image_count - 1 > MAX_SEED:
            raise ValueError(f"seed: the last picture's seed would be above {MAX_SEED}")
        return self

    @property
    def image_count(self) -> int:
        """How many pictures the job makes in all."""
        return self.count * self.repeat

    @property
    def task(self) -> str:
        """The kind of work, as the output folders name it."""
        return "txt2img"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Request":
        """A request from untrusted values; raises RequestError in words for people."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise RequestError(explain(error), field=str(first["loc"][0]) if first["loc"] else "") from None


def near_sides_px(side_px: int) -> list[int]:
    """The allowed sides just below and above, one of them at the ends of the range."""
    below = max(MIN_SIDE_PX, min(MAX_SIDE_PX, side_px // SIDE_STEP_PX * SIDE_STEP_PX))
    above = max(MIN_SIDE_PX, min(MAX_SIDE_PX, -(-side_px // SIDE_STEP_PX) * SIDE_STEP_PX))
    return sorted({below, above})


def explain(error: ValidationError) -> str:
    """Every problem of a ValidationError in one line: field, what it must be, what it was."""
    return "; ".join(_explain_one(problem) for problem in error.errors(include_url=False))


def _explain_one(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    given, limits = problem.get("input"), problem.get("ctx", {})
    reasons = {
        "greater_than_equal": "must be at least {ge:g}",
        "less_than_equal": "must be at most {le:.16g}",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing_size": "must be a smaller whole number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be text",
        "string_too_long": "must be at most {max_length} characters long",
        "string_too_short": "must not be empty",
        "too_long": "must have at most {max_length} entries",
        "extra_forbidden": "is not a known setting",
        "missing": "is missing",
    }
    if problem["type"] == "value_error":
        reason = str(limits["error"])
    else:
        reason = reasons.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:]).format(**limits)
    if not field:
        return reason
    if problem["type"] == "string_too_long":
        return f"{field} {reason}; it has {len(given):,}"
    if problem["type"] in ("missing", "extra_forbidden", "string_too_short"):
        return f"{field} {reason}"
    return f"{field} {reason}, not {_show(given)}"


def _show(given: Any) -> str:
    try:
        return "nothing" if given is None else repr(given)[:60]
    except ValueError:  # Python refuses to write out whole numbers of more than some thousands of digits
        return "a number that long"
