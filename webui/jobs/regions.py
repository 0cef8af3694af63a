"""What regions ask for that only the picture shows: masks of its shape, and words that can be told of a part alone."""

from webui.core import images
from webui.core.errors import RequestError
from webui.core.groups.region import fits
from webui.core.images import Size
from webui.core.prompt import split_loras
from webui.core.request import Request


def check_regions(request: Request, size: Size) -> None:
    """Raises RequestError, at its field, for a region of a request whose pass has this (width, height)."""
    whole = request.init.extended_size if request.init and request.init.only_masked else size
    for number, region in enumerate(request.regions, start=1):
        if split_loras(region.prompt)[1]:
            place = f"regions.{number}.prompt"
            raise RequestError(
                f"{place}: a LoRA acts on the whole picture; put its tag into the picture's prompt", place
            )
        if region.mask and not fits(region.mask, whole):
            (across, down), (width, height) = images.decode_text(region.mask).size, whole
            place = f"regions.{number}.mask"
            raise RequestError(
                f"{place} has the shape of {across} x {down} px, and the picture has {width} x {height} px", place
            )
