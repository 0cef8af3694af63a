"""Which kind of model a preset is for: what it says, else its model's, else the one that draws pictures of its size."""

import math
from collections.abc import Mapping

from webui.core.files import ModelFile
from webui.core.names import find_file
from webui.core.request import Request
from webui.workspace.preset import Preset

EMBEDDED = str(Request.model_fields["model"].default)
"""The embedded model is a kind of its own: its pictures are small, and it knows few words."""
SIZES_PX = {EMBEDDED: (0, 256), "SD 1.x": (384, 640), "SDXL": (896, math.inf)}
"""From and to which side of a square each draws what it was trained for. Between them it is nobody's."""


def model_family(file: ModelFile) -> str:
    """The kind of a model; empty where its file cannot be used."""
    if file.name == EMBEDDED:
        return EMBEDDED
    return file.checkpoint.family if file.checkpoint else ""


def family_of(preset: Preset, models: Mapping[str, ModelFile]) -> str:
    """The kind that a preset is for; empty where any will do."""
    name, sides = preset.fields.get("model"), [preset.fields.get(side) for side in ("width", "height")]
    if preset.family:
        return preset.family
    if name and (found := find_file(name, models)):
        return model_family(models[found])
    known = [side for side in sides if side]
    side = math.sqrt(known[0] * known[-1]) if known else None
    return next((family for family, (least, most) in SIZES_PX.items() if side and least <= side <= most), "")


def fits(preset: Preset, model: str, models: Mapping[str, ModelFile]) -> bool:
    """Whether it is for this model, or for any. What is not known here is no reason against it."""
    family, file = family_of(preset, models), models.get(model)
    return not family or file is None or model_family(file) in ("", family)


def brings_model(preset: Preset) -> bool:
    """Whether it says which model to draw with."""
    return bool(preset.fields.get("model"))
