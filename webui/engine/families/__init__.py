"""Model families."""

from webui.engine.families.sd import StableDiffusion
from webui.engine.families.sdxl import StableDiffusionXL

FAMILIES = (StableDiffusion(), StableDiffusionXL())
