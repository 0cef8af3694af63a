"""What a request and its groups are made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

MAX_SEED = 2**53 - 1  # the largest whole number that JSON and JavaScript carry exactly
MAX_PROMPT_CHARACTERS = 8_000
MAX_STEPS = 150
NUMBERS = (int, float, int | None, float | None)


class Value(BaseModel):
    """A frozen value with bounds on every field. True and false are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in NUMBERS:
            raise ValueError("must be a number")
        return value


def text_field(title: str, description: str = "") -> Any:
    """A prompt, empty where it is left out."""
    return Field(default="", max_length=MAX_PROMPT_CHARACTERS, title=title, description=description or None)


def share_field(default: float, title: str, description: str) -> Any:
    """A number of 0..1."""
    return Field(default=default, ge=0.0, le=1.0, allow_inf_nan=False, title=title, description=description)
