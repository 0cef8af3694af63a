"""The text encoders in a single file, whatever their tensors' names begin with.

Programs put them under ``cond_stage_model.transformer.`` and ``.model.`` (LDM), ``conditioner.embedders.0.model.``
(Stability's later ones, SD-Turbo) and other names. What stands behind these is one of two: transformers' names or
OpenCLIP's.
"""

import re
from collections.abc import Mapping, Sequence

Shapes = Mapping[str, tuple[int, ...]]

_NORM = re.compile(
    r"^(?P<prefix>.*?)(?:transformer\.resblocks\.\d+\.ln_1|(?:text_model\.)?encoder\.layers\.\d+\.layer_norm1)\.weight$"
)
_SEES = re.compile(r"(^|\.)(visual|vision_model)\.$")  # the half of CLIP that looks at pictures
_USUAL = ("cond_stage_model.", "conditioner.")


def find_text_encoders(shapes: Shapes, parts: Sequence[str], context_width: int) -> dict[str, str]:
    """What the keys of each of ``parts`` (diffusers' names) begin with, for those that are there.

    One encoder is as wide as the UNet's context. Of two, whose widths add up to it, the wider one comes second.
    """
    widths: dict[str, int] = {}
    for key, shape in shapes.items():
        if (found := _NORM.match(key)) and not _SEES.search(found["prefix"]) and shape:
            widths.setdefault(found["prefix"], shape[0])
    present: dict[str, str] = {}
    for prefix in sorted(widths, key=lambda prefix: (not prefix.startswith(_USUAL), prefix)):
        if len(parts) == 1 and widths[prefix] == context_width:
            present.setdefault(parts[0], prefix)
        elif len(parts) == 2 and widths[prefix] < context_width:
            present.setdefault(parts[2 * widths[prefix] > context_width], prefix)
    return present


def has_open_clip_names(shapes: Shapes, prefix: str) -> bool:
    """Whether the text encoder whose keys begin so has OpenCLIP's names; else it has transformers'."""
    return any(key.startswith(f"{prefix}transformer.resblocks.") for key in shapes)
