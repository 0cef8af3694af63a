"""The picture to start from."""

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from PIL.Image import Image as PilImage
from pydantic import ConfigDict, Field, model_validator

from webui.core import images
from webui.core.files import Files
from webui.core.groups.base import Group
from webui.core.images import SIDE_STEP_PX
from webui.core.picture import Picture
from webui.core.soft_mask import soften
from webui.core.stages import Pass, Stage
from webui.core.values import share_field

MAX_BLUR_PX = 64
MAX_PADDING_PX = 512
Side = Annotated[int, Field(ge=0, le=1024, multiple_of=SIDE_STEP_PX)]


class Init(Group):
    """The picture to start from, and where ``mask`` is given, the part of it to draw anew."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    since: ClassVar[int] = 1

    image: Picture = Field(title="Picture", description="The picture to start from")
    strength: float = share_field(0.75, "Strength", "0 keeps the picture, 1 ignores it")
    resize: images.ResizeMode = Field(
        default="just resize", title="Resize", description="How the picture is fitted to the size"
    )
    background: str = Field(
        default="#ffffff",
        pattern=r"^#[0-9a-fA-F]{6}$",
        title="Background",
        description="The colour behind transparent parts, as #rrggbb",
    )
    mask: Picture | None = Field(
        default=None, title="Mask", description="White is replaced, black is kept, grey changes partly"
    )
    mask_blur: int = Field(
        default=4, ge=0, le=MAX_BLUR_PX, title="Soft edge", description="How soft the edge of the mask is, in px"
    )
    softness: float = share_field(
        0.0,
        "Soft inpainting",
        "How far into the masked part changes grow from its edge: 1 is up to its middle. 0: off",
    )
    mask_fill: Literal["fill", "original", "noise", "nothing"] = Field(
        default="original",
        title="Fill masked area with",
        description="What to start from there: surrounding colours, the picture, noise, or nothing",
    )
    invert_mask: bool = Field(default=False, title="Invert mask", description="Replace what is not masked")
    only_masked: bool = Field(
        default=False,
        title="Zoom into the mask",
        description="Draw only the masked part, enlarged, and put it back: more detail",
    )
    padding: int = Field(
        default=32,
        ge=0,
        le=MAX_PADDING_PX,
        title="Context",
        description="How much around the mask to include, in px",
    )
    outpaint: tuple[Side, Side, Side, Side] = Field(
        default=(0, 0, 0, 0), title="Outpaint", description="How many px to add on the left, top, right and bottom"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> "Init":
        if self.mask is not None and self.mask.size != self.image.size:
            (across, down), (width, height) = self.mask.size, self.image.size
            raise ValueError(f"the mask is {across} x {down} px, but the picture is {width} x {height} px")
        return self

    def __eq__(self, other: object) -> bool:
        """By what is drawn: the same picture is the same, whichever file it came from."""
        return isinstance(other, Init) and (self.strength, self.fingerprint) == (other.strength, other.fingerprint)

    def __hash__(self) -> int:
        return hash((self.strength, self.fingerprint))

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """The first pass begins from the picture, and all of them know what to keep of it."""
        passes = [stage for stage in stages if isinstance(stage, Pass)]
        first, *others = (replace(stage, init=self, strength=self.strength) for stage in passes)
        return replace(first, begin="picture"), *others

    @property
    def masked(self) -> bool:
        """Whether only a part is drawn anew."""
        return self.mask is not None or any(self.outpaint)

    @property
    def shown(self) -> PilImage:
        """All of it in RGB, with what is added to its sides."""
        image = images.to_rgb(self.image, self.background)
        return images.extend(image, self.outpaint) if any(self.outpaint) else image

    @property
    def whole_mask(self) -> PilImage | None:
        """The mask in levels, for all of ``shown``; None where nothing is masked."""
        mask = self.mask and soften(images.mask_levels(self.mask, self.invert_mask), self.softness)
        if any(self.outpaint):
            mask = images.extension_mask(mask, self.image.size, self.outpaint, overlap_px=self.mask_blur)
        return mask

    def part_drawn(self, image: PilImage, size: images.Size, resize: images.ResizeMode) -> PilImage:
        """Of another picture, which is brought to the size of ``shown``, what lies over the part that is drawn at
        ``size``; the very picture where all is drawn."""
        mask = self.whole_mask if self.only_masked else None
        box = mask and images.masked_region(mask, self.padding, size)
        return images.resize(image, self.extended_size, resize).crop(box) if box else image

    @property
    def extended_size(self) -> images.Size:
        """(width, height) of the picture with what is added to its sides, in px."""
        left, top, right, bottom = self.outpaint
        return self.image.width + left + right, self.image.height + top + bottom

    @property
    def nothing_masked(self) -> bool:
        """Whether there is a mask that leaves nothing to draw."""
        if self.mask is None or any(self.outpaint):
            return False
        return images.mask_levels(self.mask, self.invert_mask).getbbox() is None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what the model is shown: everything but the strength."""
        shown = images.to_rgb(self.image, self.background), self.mask and images.to_mask(self.mask)
        parts = [images.pixels_sha256(part) if part else "no mask" for part in shown]
        rest = self.model_dump(exclude={"image", "mask", "strength"})
        return hashlib.sha256(repr((parts, sorted(rest.items()))).encode()).hexdigest()
