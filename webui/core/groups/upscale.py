"""Pictures enlarged when they are drawn, or instead of drawing."""

from typing import Any, ClassVar

from pydantic import Field, field_validator

from webui.core.errors import Mend, RequestError
from webui.core.files import Files, UpscalerFile
from webui.core.groups.base import Group
from webui.core.groups.init import Init
from webui.core.images import MAX_UPSCALED_SIDE_PX, MIN_READ_PX, Size
from webui.core.names import LANCZOS
from webui.core.stages import Stage
from webui.core.stages import Upscale as Enlarging

DEFAULT_UPSCALER = "realesr-animevideov3"


def read_left_out(value: Any) -> Any:
    """0 is none, and so is an empty field, which the page sends as 0."""
    return None if value in ("", "0") or type(value) in (int, float) and value == 0 else value


def scale_field() -> Any:
    """How much larger, where no size is given."""
    return Field(
        default=2.0,
        ge=1.0,
        le=16.0,
        allow_inf_nan=False,
        title="Scale",
        description="How many times as wide and high the picture becomes, unless a size is given",
    )


def side_field(side: str, least_px: int, most_px: int) -> Any:
    """The width or the height of a size that is asked for instead of a scale."""
    means = {"width": "0: it follows the height", "height": "with both, the picture is cut to their shape"}
    return Field(
        default=None,
        ge=least_px,
        le=most_px,
        title=f"{side.capitalize()} in px",
        description=f"Instead of the scale; {means[side]}",
    )


class Upscale(Group):
    """A1111's extras. Pixels alone are changed, after all passes; with ``only`` nothing is drawn at all."""

    since: ClassVar[int] = 2
    switch: ClassVar[str] = "Enlarge the finished pictures"
    set_by_programs: ClassVar[tuple[str, ...]] = ("only",)

    scale: float = scale_field()
    width: int | None = side_field("width", MIN_READ_PX, MAX_UPSCALED_SIDE_PX)
    height: int | None = side_field("height", MIN_READ_PX, MAX_UPSCALED_SIDE_PX)
    upscaler: str = Field(
        default=DEFAULT_UPSCALER,
        min_length=1,
        max_length=255,
        title="Upscaler",
        description="A network, or Lanczos (a filter)",
    )
    only: bool = Field(default=False, title="Only upscale", description="Draw nothing, only enlarge the start picture")

    _read_left_out = field_validator("width", "height", mode="before")(read_left_out)

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """One more, behind all others."""
        return (*stages, Enlarging(self._file(files), self.enlarged(stages[-1].result_size)))

    def alone(self, init: Init, files: Files) -> Enlarging:
        """The only stage where nothing is drawn."""
        return Enlarging(self._file(files), self.enlarged(init.image.size), init)

    def enlarged(self, size: Size) -> Size:
        """What a picture of this size becomes; RequestError where that is too large."""
        return enlarged(size, self.scale, self.width, self.height, "upscale")

    def _file(self, files: Files) -> UpscalerFile | None:
        return None if self.upscaler == LANCZOS else files.upscalers[self.upscaler]


def enlarged(
    size: Size, scale: float, width: int | None, height: int | None, group: str, most_px: int = MAX_UPSCALED_SIDE_PX
) -> Size:
    """The size that a group's fields ask for, of one side the other by the picture's shape.

    RequestError says by how much it is too large, and which scale would not be.
    """
    across, down = size
    if width and height:
        wanted = width, height
    elif width:
        wanted = width, max(1, round(down * width / across))
    elif height:
        wanted = max(1, round(across * height / down)), height
    else:
        wanted = round(across * scale), round(down * scale)
    if max(wanted) > most_px:
        most = int(most_px / max(size) * 100) / 100
        raise RequestError(
            f"{group}: {across} x {down} px would become {wanted[0]} x {wanted[1]} px, and sides of up to"
            f" {most_px} px can be made; the largest scale for this picture is {most:g}",
            *at_size(group, width, height, most),
        )
    return wanted


def at_size(group: str, width: int | None, height: int | None, most_scale: float) -> tuple[str, Mend | None]:
    """Which of a group's fields asks for too large a picture, and the scale that does not."""
    if width or height:
        return f"{group}.{'width' if width else 'height'}", None
    return f"{group}.scale", Mend("use", most_scale) if most_scale >= 1 else None
