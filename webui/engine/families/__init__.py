"""Model families, tried in order."""

from webui.engine.families.base import Family
from webui.engine.families.sd import StableDiffusion

FAMILIES: tuple[Family, ...] = (StableDiffusion(),)
