"""What can be chosen, in the words of A1111's extension sd-webui-controlnet: its lists over HTTP, and what ``detect``
is asked for.

The groups of modules, by which clients narrow their lists, are the tags of the extension's preprocessors.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.errors import RequestError
from webui.core.files import AnnotatorFile
from webui.core.maps import MAPS, RESOLUTION, ROWS, Map, MapOption, make_map
from webui.interop.a1111.pictures import read_picture
from webui.interop.a1111.refusals import check_text
from webui.interop.controlnet import IP_ADAPTER, choose_module, masked_picture, read_options, thresholds

VERSION = 3
"""Of the extension's API."""
UNITS = 8
ALL, NO_MODEL = "All", "None"
USUAL_PX = 512
MOST_PICTURES = 16
"""Of one call of ``detect``."""
TYPES: Mapping[str, tuple[str, ...]] = {
    "Canny": ("canny", "invert"),
    "Depth": ("depth",),
    "Inpaint": ("inpaint",),
    "IP-Adapter": (),
    "Lineart": ("line", "invert"),
    "MLSD": ("invert",),
    "NormalMap": ("normals",),
    "OpenPose": ("pose", "body"),
    "Recolor": ("luminance", "intensity"),
    "Scribble": ("scribble", "invert"),
    "Segmentation": ("segmentation",),
    "Shuffle": ("shuffle",),
    "SoftEdge": ("hed", "pidinet", "teed", "soft edge"),
    "T2I-Adapter": ("colour grid",),
    "Tile": ("tile", "blur"),
}
"""The maps of each group, the usual one first."""
MODEL_WORDS: Mapping[str, tuple[str, ...]] = {
    "NormalMap": ("normal",),
    "T2I-Adapter": ("t2i_adapter", "t2iadapter", "t2ia"),
    "IP-Adapter": ("ip_adapter", "ipadapter"),
    "OpenPose": ("densepose",),
    "Scribble": ("sketch",),
    "Segmentation": ("seg",),
    "Tile": ("blur",),
    "Canny": ("edge",),
}
"""What else than its own name stands in the names of models of a group."""
FOR_SEVERAL = "union"
ITS_TYPES = frozenset(TYPES) - {"IP-Adapter", "Recolor", "Shuffle", "T2I-Adapter"}
"""The groups that a model with this in its name is for."""


def usable_maps(annotators: Mapping[str, AnnotatorFile]) -> tuple[Map, ...]:
    """Those whose networks, where they have any, are among these files."""
    return tuple(row for row in ROWS if not row.lacks(annotators))


def modules(rows: Sequence[Map], alias_names: bool) -> dict[str, Any]:
    """The answer of ``module_list``: each module by its name, or as its lists show it, with its sliders."""
    named = {name: row for row in rows for name in _names(row, alias_names)}
    named |= {name: MAPS["none"] for name in IP_ADAPTER[:1]}
    return {
        "module_list": list(named),
        "module_detail": {name: {"model_free": False, "sliders": _sliders(row)} for name, row in named.items()},
    }


def models(names: Iterable[str]) -> list[str]:
    """The answer of ``model_list``, without hashes: no file is read for it."""
    return [NO_MODEL, *names]


def control_types(rows: Sequence[Map], names: Sequence[str]) -> dict[str, Any]:
    """The answer of ``control_types`` where there are controls of these names."""
    whole = _type(modules(rows, True)["module_list"], names, "none", NO_MODEL)
    return {"control_types": {ALL: whole} | {title: _narrowed(title, rows, names) for title in TYPES}}


def _narrowed(title: str, rows: Sequence[Map], names: Sequence[str]) -> dict[str, Any]:
    words = (title.casefold(), *MODEL_WORDS.get(title, ()), *((FOR_SEVERAL,) if title in ITS_TYPES else ()))
    fitting = [name for name in names if any(word in name.casefold() for word in words)]
    named = {row.name: row for row in rows}
    shown = [name for each in TYPES[title] if each in named for name in _names(named[each], True)]
    shown += IP_ADAPTER[:1] if title == "IP-Adapter" else ()
    return _type(["none", *shown], fitting, (shown or ["none"])[0], (fitting or [NO_MODEL])[0])


def _type(shown: Sequence[str], names: Iterable[str], option: str, model: str) -> dict[str, Any]:
    return {"module_list": shown, "model_list": models(names), "default_option": option, "default_model": model}


def _names(row: Map, alias_names: bool) -> tuple[str, ...]:
    """A map's modules there: the longer names are those that lists show. One that is ours alone has our name."""
    if row.needs_mask:
        return row.a1111[:2] if alias_names else (row.a1111[0], row.a1111[-1])
    return (row.a1111[0 if alias_names else -1],) if row.a1111 else (row.name,)


def _sliders(row: Map) -> list[dict[str, Any]]:
    """The resolution first, which some clients take for granted; none where there is nothing to set."""
    own = [_slider(option.title, option) for option in thresholds(row)]
    if not own and RESOLUTION not in row.options:
        return []
    resolution = {"name": "Preprocessor Resolution", "value": USUAL_PX, "min": 64, "max": 2048, "step": 8}
    return [resolution, *own]


def _slider(name: str, option: MapOption) -> dict[str, Any]:
    return {"name": name, "value": option.default, "min": option.min, "max": option.max, "step": option.step}


@dataclass(frozen=True)
class Detection:
    """What a call of ``detect`` asks for: maps of pictures as base64 with these ``options``, each with its mask where
    the map takes one."""

    row: Map
    texts: tuple[Any, ...]
    masks: tuple[Any, ...]
    options: Mapping[str, float]
    networks: tuple[AnnotatorFile, ...] = ()

    def maps(self) -> Iterator[PilImage]:
        """One of each picture: as large as the resolution says, or as the picture where it is not brought to one.

        Pictures are read one after the other, so that too many are never decoded together; RequestError as for bodies.
        """
        side = int(self.options.get(RESOLUTION.name, USUAL_PX if RESOLUTION in self.row.options else 0))
        own = {name: value for name, value in self.options.items() if name != RESOLUTION.name}
        for picture in self._pictures():
            scale = side / min(picture.size) if side else 1.0
            width, height = (max(1, round(length * scale)) for length in picture.size)
            try:
                self.row.working_size((width, height))
            except RequestError as error:
                raise RequestError(str(error), "controlnet_processor_res") from None
            yield make_map(self.row.name, picture, (width, height), "just resize", own, networks=self.networks)

    def _pictures(self) -> Iterator[PilImage]:
        for number, text in enumerate(self.texts):
            picture = read_picture("controlnet_input_images", text)
            if self.row.needs_mask:
                mask = read_picture("controlnet_masks", self.masks[number])
                picture = masked_picture(picture, images.to_mask(mask))
            yield picture


def read_detection(body: Mapping[str, Any], annotators: Mapping[str, AnnotatorFile]) -> Detection:
    """What a body of ``detect`` asks for; raises RequestError naming the body's field."""
    held = ("controlnet_input_images", "controlnet_images", "controlnet_masks")
    check_text({key: value for key, value in body.items() if key not in held})
    row = choose_module(body.get("controlnet_module") or "none", "controlnet_module")
    networks = row.find_networks(annotators)
    texts = _texts(body, *held[:2])
    masks = _texts(body, held[2])
    if not texts:
        raise RequestError("controlnet_input_images: no picture was given", field="controlnet_input_images")
    if len(texts) > MOST_PICTURES:
        reason = f"controlnet_input_images: {len(texts)} pictures were given; {MOST_PICTURES} is the limit"
        raise RequestError(reason, field="controlnet_input_images")
    if row.needs_mask and len(masks) != len(texts):
        reason = f"controlnet_masks: {row.a1111[0]} needs a mask for each picture"
        raise RequestError(reason, field="controlnet_masks")
    given = {key.removeprefix("controlnet_"): value for key, value in body.items() if value is not None}
    try:
        options, _ = read_options(row, given)
    except RequestError as error:
        raise RequestError(f"controlnet_{error}", field=f"controlnet_{error.field}") from None
    return Detection(row, tuple(texts), tuple(masks), options, networks)


def _texts(body: Mapping[str, Any], *names: str) -> list[Any]:
    """The first of these lists that is not empty; a text alone is a list of one."""
    for name in names:
        if found := body.get(name):
            if not isinstance(found, str | list):
                raise RequestError(f"{name} must be a list of pictures as base64", field=name)
            return [found] if isinstance(found, str) else found
    return []
