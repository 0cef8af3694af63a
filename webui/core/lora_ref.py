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
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticKnownError

from webui.core.schedule import MAX_PLACE, Weight, read_points, write_points

MAX_LORAS = 32
MAX_WEIGHT = 10.0
MAX_POINTS = 64
_KEYS = ("te", "unet", "hr", "start", "end")

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
    ``[[0, 1], [0.5, 0.5]]`` (see ``schedule.Points``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=255, title="Name")
    weight: Annotated[Weight, PlainValidator(_read_weight), _AS_IT_IS] = Field(
        default=1.0,
        title="Weight",
        description="How strongly it acts: 0 is not at all, 1 as it was trained",
    )
    text_weight: Annotated[Weight | None, PlainValidator(_read_weight_if_given), _AS_IT_IS] = Field(
        default=None,
        title="Text weight",
        description="How strongly it acts on the text encoder; left out, the same as the weight",
    )
    hires_weight: Annotated[Weight | None, PlainValidator(_read_weight_if_given), _AS_IT_IS] = Field(
        default=None,
        title="Hires weight",
        description="How strongly it acts in the hires pass; left out, as in the first",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        return _read_lora(value) if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What recipes of the first schema do not know is there only where it is given."""
        values: dict[str, Any] = write(self)
        if self.hires_weight is None:
            values.pop("hires_weight", None)
        return values

    def __str__(self) -> str:
        unet, text = (write_points(weight) for weight in self.strengths)
        hires = "" if self.hires_weight is None else f":hr={write_points(self.hires_weight)}"
        return f"{self.name}:{unet}{hires}" if text == unet else f"{self.name}:{text}:{unet}{hires}"

    @property
    def strengths(self) -> tuple[Weight, Weight]:
        """On the UNet, on the text encoder."""
        return self.weight, self.weight if self.text_weight is None else self.text_weight

    @property
    def changes(self) -> bool:
        """Whether any of its weights is told by points."""
        return any(isinstance(weight, tuple) for weight in (*self.strengths, self.hires_weight))

    @property
    def acts(self) -> bool:
        """Whether it does anything at any step."""
        return any(number for weight in self.strengths for number in _numbers(weight))


def _numbers(weight: Weight) -> Iterable[float]:
    return (number for _, number in weight) if isinstance(weight, tuple) else (weight,)


def _read_lora(text: str) -> dict[str, Any]:
    """``NAME[:TEXT[:UNET]]`` as A1111 has it, with ``te=`` and ``unet=`` for either weight; raises ValueError.

    The text's weight is 1 where it is not given, and the UNet's the same as the text's. Points, and ``hr=`` for the
    hires pass, are sd-webui-loractl's; ``start=`` and ``end=`` are the places between which it acts.
    """
    name, *weights = text.split(":")
    given: dict[str, Any] = {}
    for place, weight in zip(("te", "unet"), weights, strict=False):
        if "=" not in weight:
            given[place] = weight
    for weight in weights:
        key, equals, value = weight.partition("=")
        if equals and key.strip() not in _KEYS:
            raise ValueError(f"{key.strip()!r} is not supported in a LoRA's weights; te and unet are")
        if equals:
            given[key.strip()] = value
    if sum("=" not in weight for weight in weights) > 2 or len(weights) > 2 + len(_KEYS):
        raise ValueError(f"must be NAME, NAME:WEIGHT or NAME:TEXT:UNET, not {text[:60]!r}")
    values: dict[str, Any] = {"name": name.strip()}
    span = [_read_place(key, given.pop(key, None)) for key in ("start", "end")]
    if "hr" in given:
        values["hires_weight"] = given.pop("hr")
    if given or span != [None, None]:
        text_weight = given.get("te", 1.0)
        values["weight"] = _between(given.get("unet", text_weight), *span)
        if "unet" in given:
            values["text_weight"] = _between(text_weight, *span)
    return values


def _read_place(key: str, text: str | None) -> float | None:
    try:
        place = None if text is None else float(text)
    except ValueError:
        place = -1.0
    if place is not None and not 0 <= place <= MAX_PLACE:
        raise ValueError(f"{key} must be a share of the steps or a step, not {str(text)[:20]!r}")
    return place


def _between(weight: Any, start: float | None, end: float | None) -> Any:
    """The weight from ``start`` to ``end`` and 0 elsewhere, as points."""
    if start is None and end is None:
        return weight
    if start is not None and end is not None and end < start:
        raise ValueError(f"end={end:g} is before start={start:g}")
    if isinstance(weight, str):
        weight = read_points(weight)
    if isinstance(weight, tuple):
        raise ValueError("start and end do not go with points")
    begin = [(0.0, 0.0), (start, 0.0), (start, weight)] if start else [(0.0, weight)]
    return [*begin, *([] if end is None else [(end, weight), (end, 0.0)])]
