"""Prompts by area: each counts in a part of the picture, and the picture's own prompt in what they leave."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from PIL.Image import Image as PilImage
from PIL.Image import Resampling
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from webui.core import images
from webui.core.errors import NUMBER, RequestError
from webui.core.files import Files
from webui.core.groups.detail import WHOLE_PROMPT
from webui.core.groups.listed import Listed
from webui.core.picture import no_picture
from webui.core.stages import Area, Pass, RegionUse, Shares, Stage
from webui.core.uses import embeddings
from webui.core.values import share_field, text_field

MAX_REGIONS = 8
MAX_FEATHER = 0.5
LONGEST_MASK_PX = 256
"""Of a mask as it is kept: one px for each cell of the latents of the largest picture."""
ROUNDING = 0.02
"""What of its height a mask may be off: sides are drawn in steps of 8 px."""


def _read_box(value: Any) -> Any:
    """``left:top:right:bottom``, or the four in a list."""
    if value is None or value == "":
        return None
    parts = value.split(":") if isinstance(value, str) else value
    try:
        if not isinstance(parts, list | tuple) or any(isinstance(part, bool) for part in parts):
            raise ValueError
        left, top, right, bottom = (float(part) for part in parts)
        if not all(0 <= share <= 1 for share in (left, top, right, bottom)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            "must be left:top:right:bottom, shares of the picture from 0 to 1, such as 0:0:0.5:1"
        ) from None
    if left >= right or top >= bottom:
        raise ValueError("is empty: right must be more than left, and bottom more than top")
    return left, top, right, bottom


def _read_mask(value: Any) -> Any:
    """A mask as it is kept, however large it came: base64 of a small grey PNG."""
    if value is None or value == "":
        return None
    image = images.decode_text(value) if isinstance(value, str) else value
    if not isinstance(image, PilImage):
        raise no_picture(value)
    images.check_size(image.size)
    levels = images.to_mask(images.plain(image))
    if levels.getbbox() is None:
        raise images.ImageError("is black all over: what is white is in the region")
    if (longest := max(levels.size)) > LONGEST_MASK_PX:
        width, height = (max(1, round(side * LONGEST_MASK_PX / longest)) for side in levels.size)
        levels = levels.resize((width, height), Resampling.BOX)
    buffer = io.BytesIO()
    levels.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


_SHARES = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
_AS_TEXT = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
Box = Annotated[Shares | None, BeforeValidator(_read_box), WithJsonSchema(_SHARES)]
Mask = Annotated[str | None, BeforeValidator(_read_mask), WithJsonSchema(_AS_TEXT)]


class Region(Listed):
    """A prompt for a box or a mask. Where regions overlap their weights say which counts how much; what they leave of
    a place is the picture's prompt's (``engine.areas``). A request has a list of them."""

    flag = "region"
    example = "box=0:0:0.5:1,prompt=TEXT"
    by_hand = ("mask",)
    set_by_programs: ClassVar[tuple[str, ...]] = ("template",)

    box: Box = Field(
        default=None,
        title="Box",
        description="left:top:right:bottom as shares of the picture, such as 0:0:0.5:1 for its left half",
    )
    mask: Mask = Field(
        default=None,
        title="Mask",
        description="In place of a box: white is in the region, black is not. It has the picture's shape",
    )
    weight: float = share_field(1.0, "Weight", "How much it counts there; the picture's prompt has the rest")
    feather: float = Field(
        default=0.05,
        ge=0.0,
        le=MAX_FEATHER,
        allow_inf_nan=False,
        title="Soft edge",
        description="How wide the edge is, as a share of the shorter side",
    )
    prompt: str = text_field("Prompt", "What is there. [PROMPT] stands for the picture's prompt")
    template: str = text_field("Template")

    @model_validator(mode="after")
    def _check_whole(self) -> "Region":
        if self.box is None and self.mask is None:
            raise RequestError(f"Region {NUMBER} needs a box or a mask", "box")
        if self.box is not None and self.mask is not None:
            raise RequestError(f"Region {NUMBER} has a box and a mask: it takes one of them", "box")
        if not self.prompt.strip():
            raise RequestError(f"Region {NUMBER} needs a prompt: what is to be there", "prompt")
        return self

    @property
    def said(self) -> dict[str, Any]:
        """What of it is not left out, for JSON."""
        return super().said | ({"box": list(self.box)} if self.box else {})

    @property
    def told(self) -> dict[str, Any]:
        """The same for people, who know a mask by the beginning of its hash."""
        return self.said | ({"mask": hashlib.sha256(self.mask.encode()).hexdigest()[:12]} if self.mask else {})

    def __str__(self) -> str:
        """As flags have it, the prompt last; a mask by the beginning of its hash."""
        told = self.told | ({"box": box_text(self.box)} if self.box else {})
        fields = [name for name in told if name not in (*self.set_by_programs, "prompt")]
        return ",".join(f"{name}={told[name]}" for name in (*fields, "prompt"))

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """All passes have it, in the same part of the picture."""
        first = stages[0]
        assert isinstance(first, Pass)
        return tuple(self._in_pass(stage, first, files) if isinstance(stage, Pass) else stage for stage in stages)

    def _in_pass(self, stage: Pass, first: Pass, files: Files) -> Pass:
        left, top, right, bottom = images.filling_cut(first.size, stage.size)  # one of another shape draws the middle
        width, height = first.size
        seen = (left / width, top / height, right / width, bottom / height)
        area = Area(self.box, self.mask, self.feather, seen)
        own = RegionUse(self.prompt.replace(WHOLE_PROMPT, stage.prompt), self.weight, area)
        stage = replace(stage, regions=(*stage.regions, own))
        return replace(stage, embeddings=embeddings(stage, files))


def box_text(box: Sequence[float]) -> str:
    """``left:top:right:bottom``."""
    return ":".join(f"{share:g}" for share in box)


def fits(mask: str, size: images.Size) -> bool:
    """Whether a mask that is kept has the shape of a picture, but for rounding."""
    (across, down), (width, height) = images.decode_text(mask).size, size
    return abs(across * height / width - down) <= 1 + ROUNDING * down
