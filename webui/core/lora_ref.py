"""A LoRA as people ask for it: by name, with weights that may change over the steps."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticKnownError

from webui.core import block_weights
from webui.core.block_weights import BlockWeights, read_block_weights
from webui.core.lora_text import read_lora
from webui.core.schedule import MAX_PLACE, Weight, read_points, write_points

MAX_LORAS = 32
MAX_WEIGHT = 10.0
MAX_POINTS = 64

_AS_IT_IS = PlainSerializer(lambda weight: weight, return_type=Any)
_NUMBER: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)])


def _read_weight(value: Any) -> Weight:
    """A number, or points, as text or as a list of (place, weight)."""
    if isinstance(value, str) and any(sign in value for sign in "@,;"):
        value = read_points(value)
    if not isinstance(value, list | tuple):
        try:
            return _NUMBER.validate_python(value)
        except ValidationError as error:
            (problem,) = error.errors(include_url=False)
            raise PydanticKnownError(problem["type"], problem.get("ctx")) from None  # type: ignore[arg-type]
    try:
        points = tuple((float(place), float(weight)) for place, weight in value)
    except (TypeError, ValueError):
        raise ValueError("must be a number, or a list of points (place, weight)") from None
    if not 1 <= len(points) <= MAX_POINTS:
        raise ValueError(f"must have 1 to {MAX_POINTS} points")
    if not all(0 <= place <= MAX_PLACE for place, _ in points):
        raise ValueError(f"must have points from 0 to {MAX_PLACE}")
    if not all(abs(weight) <= MAX_WEIGHT for _, weight in points):
        raise ValueError(f"must have weights from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    return tuple(sorted(points, key=lambda point: point[0]))


def _read_weight_if_given(value: Any) -> Weight | None:
    return None if value is None else _read_weight(value)


class LoraRef(BaseModel):
    """A LoRA by name, with the strength it is applied at; as text ``NAME``, ``NAME:WEIGHT`` or ``NAME:TEXT:UNET``.

    A weight is a number, or points between which it changes over the steps: ``NAME:1@0;0.5@0.5``, or as a list
    ``[[0, 1], [0.5, 0.5]]`` (see ``schedule.Points``). The weights by block are a preset's name, ``NAME:1:lbw=OUTALL``,
    or values, also as a list (see ``core.block_weights``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=255, title="Name")
    weight: Annotated[Weight, PlainValidator(_read_weight), _AS_IT_IS] = Field(
        default=1.0,
        title="Weight",
        description="How strongly it acts: 0 is off, 1 is as trained",
    )
    text_weight: Annotated[Weight | None, PlainValidator(_read_weight_if_given), _AS_IT_IS] = Field(
        default=None,
        title="Text weight",
        description="How strongly it acts on the text encoder. Left out: the same as the weight",
    )
    hires_weight: Annotated[Weight | None, PlainValidator(_read_weight_if_given), _AS_IT_IS] = Field(
        default=None,
        title="Hires weight",
        description="How strongly it acts in the hires pass. Left out: as in the first",
    )

    block_weights: str = Field(
        default="",
        title="Block weights",
        description="How strongly it acts in each block: a preset such as OUTALL,"
        " or 12, 17, 20 or 26 values between commas",
    )
    block_elements: str = Field(
        default="",
        title="Block elements",
        description="Which parts of blocks it leaves alone: ATTNDEEPON, ATTNDEEPOFF or PROJDEEPOFF",
    )

    @field_validator("block_weights", mode="before")
    @classmethod
    def _check_block_weights(cls, value: Any) -> str:
        return "" if value is None else block_weights.check_text(value)

    @field_validator("block_elements", mode="before")
    @classmethod
    def _check_block_elements(cls, value: Any) -> str:
        return "" if value is None else block_weights.check_elements(value)

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        return read_lora(value) if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What recipes of the first schema do not know is there only where it is given."""
        values: dict[str, Any] = write(self)
        given = {"hires_weight": self.hires_weight is not None}
        given |= {name: bool(getattr(self, name)) for name in ("block_weights", "block_elements")}
        return {name: value for name, value in values.items() if given.get(name, True)}

    def __str__(self) -> str:
        unet, text = (write_points(weight) for weight in self.strengths)
        more = "" if self.hires_weight is None else f":hr={write_points(self.hires_weight)}"
        more += f":lbw={self.block_weights}" if self.block_weights else ""
        more += f":lbwe={self.block_elements}" if self.block_elements else ""
        return f"{self.name}:{unet}{more}" if text == unet else f"{self.name}:{text}:{unet}{more}"

    @property
    def strengths(self) -> tuple[Weight, Weight]:
        """On the UNet, on the text encoder."""
        return self.weight, self.weight if self.text_weight is None else self.text_weight

    def in_pass(self, hires: bool) -> "LoraRef":
        """What it is in the first pass, or in the hires pass, and in no other."""
        if not hires or self.hires_weight is None:
            return self.model_copy(update={"hires_weight": None})
        return self.model_copy(update={"weight": self.hires_weight, "text_weight": None, "hires_weight": None})

    @property
    def changes(self) -> bool:
        """Whether any of its weights is told by points."""
        return any(isinstance(weight, tuple) for weight in (*self.strengths, self.hires_weight))

    @property
    def blocks(self) -> BlockWeights | None:
        """Its weights by block; None where they change nothing. Nothing may be left to be drawn."""
        return read_block_weights(self.block_weights, self.block_elements)

    @property
    def is_plain(self) -> bool:
        """Whether recipes of the first schema can say it."""
        return not (self.changes or self.hires_weight is not None or self.block_weights or self.block_elements)

    @property
    def acts(self) -> bool:
        """Whether it does anything at any step."""
        blocks, weights = self.blocks, (*self.strengths, self.hires_weight or 0.0)
        return any(number for weight in weights for number in _numbers(weight)) and (not blocks or blocks.acts)

    def drawn(self, seed: int) -> "LoraRef":
        """The same with numbers where its weights by block are to be drawn at random, by a picture's seed."""
        if not block_weights.has_letters(self.block_weights):
            return self
        return self.model_copy(update={"block_weights": block_weights.draw(self.block_weights, seed, self.name)})


def _numbers(weight: Weight) -> Iterable[float]:
    return (number for _, number in weight) if isinstance(weight, tuple) else (weight,)


def once_each(refs: Iterable[LoraRef]) -> tuple[LoraRef, ...]:
    """Those that are named several times as one, with the sum of their weights: so they were drawn when they could be.

    Only plain ones were.
    """
    found: dict[object, LoraRef] = {}
    for ref in refs:
        key = ref.name if ref.is_plain else (ref.name, len(found))
        if (first := found.get(key)) is not None:
            unet, text = (one + other for one, other in zip(first.strengths, ref.strengths, strict=True))  # type: ignore[operator]
            ref = ref.model_copy(update={"weight": unet, "text_weight": text})
        found[key] = ref
    return tuple(found.values())
