"""Preprocessors: what makes a control's map of a picture. A row each; pictures in, pictures out.

``make_map`` brings a picture to a size and makes its map. What a map does not say is transparent in it: ControlNets for
inpainting are given -1 there. All others are opaque.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.errors import RequestError
from webui.core.files import AnnotatorFile
from webui.core.images import ResizeMode, Size
from webui.core.maps import colours, dense, fitting, lines
from webui.core.maps.canny import canny
from webui.core.maps.networks import (
    DEPTH,
    HED,
    KINDS,
    NORMALS,
    PEOPLE,
    PIDINET,
    POSE,
    TEED,
    Network,
    find_networks,
)
from webui.core.maps.pose import pose
from webui.core.names import fold, unknown
from webui.core.tensor_file import BadFile

Values = Mapping[str, float]
"""A value for each of a map's options."""
Options = Mapping[str, float] | Iterable[tuple[str, float]]
Networks = Sequence[AnnotatorFile]
Make = Callable[[PilImage, Values, Networks], PilImage]
"""A map of an RGB picture with these values for its options, and the files of its networks."""
MASKED = 127
"""The level of a mask above which a pixel is not known."""
MOST_PIXELS = 2048 * 4096
"""Of one map, as it is made."""


@dataclass(frozen=True)
class MapOption:
    """A number that a map is made with; ``step`` 1 is for whole ones."""

    name: str
    title: str
    min: float
    max: float
    default: float
    step: float


@dataclass(frozen=True)
class Map:
    """A preprocessor. ``a1111`` are its names in sd-webui-controlnet, the one that its lists have first.

    ``make`` gets a picture in RGB; where it ``needs_mask``, in RGBA with the masked part transparent. ``networks`` are
    those that it is made with.
    """

    name: str
    title: str
    a1111: tuple[str, ...]
    make: Make
    options: tuple[MapOption, ...] = ()
    needs_mask: bool = False
    networks: tuple[Network, ...] = ()

    def working_size(self, size: Size, options: Options = ()) -> Size:
        """At which (width, height) its map is made for a picture of ``size``: that, or with the option resolution for
        the shorter side. RequestError for what is too large."""
        resolution = int(dict(options).get(RESOLUTION.name, 0))
        scale = max(resolution, images.LATENT_STEP_PX) / min(size) if resolution else 1
        width, height = (max(1, round(side * scale)) for side in size)
        if width * height > MOST_PIXELS:
            reason = f"the map would be {width} x {height} px; the limit is {MOST_PIXELS // 10**6} megapixels"
            raise RequestError(reason, "options")
        return width, height

    def find_networks(self, files: Mapping[str, AnnotatorFile]) -> tuple[AnnotatorFile, ...]:
        """The files of its networks; RequestError says what to get, and where it goes."""
        if lack := self.lacks(files):
            raise RequestError(f"the preprocessor {self.name} {lack}", "preprocessor")
        return find_networks(self.networks, files)

    def lacks(self, files: Mapping[str, AnnotatorFile]) -> str:
        """What it needs that is not among these files, to be put behind its name; empty where it can be used."""
        try:
            find_networks(self.networks, files)
        except BadFile as error:
            return str(error)
        return ""

    def read(self, options: Options) -> Values:
        """All values, the defaults where none is given; RequestError for an option that is not here or is out of its
        bounds."""
        given = dict(options)
        known = {option.name: option for option in self.options}
        for name in given.keys() - known.keys():
            raise unknown(f"option of the preprocessor {self.name}", name, known, field="options")
        for name, value in given.items():
            option = known[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise RequestError(f"{name} must be a number, not {str(value)[:60]!r}", field="options")
            if not option.min <= value <= option.max:
                raise RequestError(f"{name} must be {option.min:g} to {option.max:g}, not {value:g}", field="options")
        return {name: given.get(name, option.default) for name, option in known.items()}


def _of_levels(make: Callable[..., lines.Bytes], *names: str) -> Make:
    """A map of greys from a function of levels and of these options."""

    def made(picture: PilImage, values: Values, _files: Networks) -> PilImage:
        levels = make(np.asarray(picture), *(values[name] for name in names))
        return PilImages.fromarray(levels).convert("RGB")

    return made


def _of_picture(make: Callable[..., PilImage], *names: str) -> Make:
    """The same from a function of pictures."""
    return lambda picture, values, _: make(picture, *(values[name] for name in names))


def _of_network(make: Callable[[PilImage, Networks], PilImage]) -> Make:
    """A map that is asked of networks alone."""
    return lambda picture, _, files: make(picture, files)


def _known_part(picture: PilImage, _values: Values, _files: Networks) -> PilImage:
    """Each pixel known or not: nothing between."""
    known = picture.getchannel("A").point(lambda level: 255 if level >= 255 - MASKED else 0)
    picture = picture.copy()
    picture.putalpha(known)
    return picture


RESOLUTION = MapOption("resolution", "Resolution", 0, 2048, 0, 8)
"""Of the shorter side, in px, at which the map is made; 0 is that of the picture that is drawn."""
GAMMA = MapOption("gamma", "Gamma", 0.1, 2, 1, 0.001)

ROWS = (
    Map("none", "None", ("none",), lambda picture, _values, _files: picture),
    Map(
        "canny",
        "Canny",
        ("canny",),
        _of_levels(canny, "low", "high"),
        (
            MapOption("low", "Low threshold", 1, 255, 100, 1),
            MapOption("high", "High threshold", 1, 255, 200, 1),
            RESOLUTION,
        ),
    ),
    Map(
        "line",
        "Line",
        ("lineart_standard (from white bg & black line)", "lineart_standard"),
        _of_levels(lines.line),
        (RESOLUTION,),
    ),
    Map(
        "scribble",
        "Scribble",
        ("scribble_xdog",),
        _of_levels(lines.scribble, "threshold"),
        (MapOption("threshold", "Threshold", 1, 64, 32, 1), RESOLUTION),
    ),
    Map(
        "soft edge",
        "Soft edge",
        (),
        _of_levels(lines.soft_edge, "blur"),
        (MapOption("blur", "Blur", 0.5, 8, 1.5, 0.1), RESOLUTION),
    ),
    Map(
        "invert",
        "Invert",
        ("invert (from white bg & black line)", "invert"),
        _of_picture(colours.invert),
    ),
    Map(
        "threshold",
        "Threshold",
        ("threshold",),
        _of_levels(lines.threshold, "level"),
        (MapOption("level", "Level", 0, 255, 127, 1), RESOLUTION),
    ),
    Map(
        "tile",
        "Tile",
        ("tile_resample",),
        _of_picture(colours.coarsened, "rate"),
        (MapOption("rate", "Coarser by", 1, 8, 1, 0.01),),
    ),
    Map(
        "blur",
        "Blur",
        ("blur_gaussian",),
        _of_picture(colours.blur, "sigma"),
        (MapOption("sigma", "Width", 0.01, 64, 9, 0.01), RESOLUTION),
    ),
    Map("inpaint", "Inpaint", ("inpaint_only", "inpaint_global_harmonious", "inpaint"), _known_part, needs_mask=True),
    Map("colour grid", "Colour grid", ("t2ia_color_grid", "color"), _of_picture(colours.colour_grid), (RESOLUTION,)),
    Map(
        "shuffle",
        "Shuffle",
        ("shuffle",),
        _of_picture(colours.shuffle, "seed"),
        (MapOption("seed", "Seed", 0, 2**31 - 1, 0, 1),),
    ),
    Map(
        "depth",
        "Depth",
        ("depth_midas", "depth_anything", "depth_anything_v2", "depth"),
        _of_network(dense.depth),
        (RESOLUTION,),
        networks=(DEPTH,),
    ),
    Map("hed", "HED", ("softedge_hed", "hed"), _of_network(dense.soft_edges), (RESOLUTION,), networks=(HED,)),
    Map(
        "pidinet",
        "PiDiNet",
        ("softedge_pidinet", "pidinet"),
        _of_network(dense.soft_edges),
        (RESOLUTION,),
        networks=(PIDINET,),
    ),
    Map("teed", "TEED", ("softedge_teed",), _of_network(dense.soft_edges), (RESOLUTION,), networks=(TEED,)),
    Map("normals", "Normals", ("normal_bae",), _of_network(dense.normals), (RESOLUTION,), networks=(NORMALS,)),
    Map(
        "segmentation",
        "Segmentation",
        ("seg_ofade20k", "seg_ufade20k"),
        _of_network(dense.segmentation),
        (RESOLUTION,),
        networks=(KINDS,),
    ),
    Map(
        "pose",
        "Pose",
        ("dw_openpose_full", "openpose_full"),
        lambda picture, _, files: pose(picture, files, hands=True, face=True),
        (RESOLUTION,),
        networks=(PEOPLE, POSE),
    ),
    Map(
        "body",
        "Pose of the body",
        ("openpose",),
        lambda picture, _, files: pose(picture, files, hands=False, face=False),
        (RESOLUTION,),
        networks=(PEOPLE, POSE),
    ),
    Map("luminance", "Luminance", ("recolor_luminance",), _of_picture(colours.luminance, "gamma"), (GAMMA,)),
    Map("intensity", "Intensity", ("recolor_intensity",), _of_picture(colours.intensity, "gamma"), (GAMMA,)),
)
MAPS: Mapping[str, Map] = {row.name: row for row in ROWS}


def choose_map(name: str, field: str = "preprocessor") -> Map:
    """The preprocessor that a name of ours or of sd-webui-controlnet's means; RequestError with near names."""
    wanted = fold(name.strip())
    for row in ROWS:
        if wanted in map(fold, (row.name, *row.a1111)):
            return row
    raise unknown("preprocessor", name, MAPS, field=field)


def make_map(
    name: str,
    picture: PilImage,
    size: Size,
    resize: ResizeMode = "crop and resize",
    options: Options = (),
    mask: PilImage | None = None,
    networks: Networks = (),
) -> PilImage:
    """The map of a picture, at exactly ``size`` (width, height in px): RGB, or RGBA where a part is not known.

    White of ``mask`` is such a part, for the preprocessor that takes one; without it what is transparent in the
    picture. ``networks`` are the files that ``Map.find_networks`` finds. RequestError for a name or option that is not
    here, or where there is nothing masked.
    """
    row = choose_map(name)
    values = row.read(options)
    if len(networks) != len(row.networks):
        row.find_networks({})
    if row.needs_mask:
        return row.make(_with_mask(picture, mask, size, resize), values, networks)
    picture = images.to_rgb(picture)
    if row.name == "none":
        return fitting.fit_map(picture, size, resize)
    working = row.working_size(size, values)
    inner, place = fitting.fit(picture, working, resize)
    return fitting.scale_map(fitting.lay(row.make(inner, values, networks), working, place), size)


def _with_mask(picture: PilImage, mask: PilImage | None, size: Size, resize: ResizeMode) -> PilImage:
    """RGBA at ``size``, transparent where the picture is masked or where it does not reach."""
    if mask is None:
        if not images.is_see_through(picture):
            raise RequestError(
                "the preprocessor inpaint needs a mask, or a picture with transparent parts", "preprocessor"
            )
        mask = images.plain(picture).convert("RGBA").getchannel("A").point(lambda level: 255 - level)
    else:
        mask = images.mask_levels(mask)
    inner, place = fitting.fit(images.to_rgb(picture), size, resize)
    masked, _ = fitting.fit(mask, size, resize)
    if masked.size != inner.size:  # a mask of another shape than its picture
        masked = masked.resize(inner.size, images.FILTER)
    known = PilImages.new("L", size, 0)
    known.paste(masked.point(lambda level: 255 - level), place)
    sheet = PilImages.new("RGB", size)
    sheet.paste(inner, place)
    sheet.putalpha(known)
    return sheet
