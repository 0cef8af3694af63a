"""Model families: one row each."""

from webui.engine.families.anima import ANIMA
from webui.engine.families.family import Family
from webui.engine.families.flux1 import FLUX1
from webui.engine.families.flux2 import FLUX2_KLEIN
from webui.engine.families.krea2 import KREA2
from webui.engine.families.qwen_image import QWEN_IMAGE
from webui.engine.families.sd import STABLE_DIFFUSION
from webui.engine.families.sd3 import STABLE_DIFFUSION_3
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.families.z_image import Z_IMAGE

FAMILIES = (
    *(STABLE_DIFFUSION, STABLE_DIFFUSION_XL, ANIMA, FLUX2_KLEIN, KREA2, QWEN_IMAGE, Z_IMAGE, FLUX1),
    STABLE_DIFFUSION_3,
)


def family_of(kind: str) -> Family:
    """The family of a kind of models; raises StopIteration."""
    return next(family for family in FAMILIES if kind in family.kinds)
