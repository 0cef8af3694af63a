"""The kinds of models that can be drawn with: one row each, asked in turn whether a file is of them."""

from webui.core.kinds.anima import ANIMA
from webui.core.kinds.flux1 import FLUX1
from webui.core.kinds.flux2 import FLUX2_KLEIN
from webui.core.kinds.kind import Kind
from webui.core.kinds.krea2 import KREA2
from webui.core.kinds.qwen_image import QWEN_IMAGE
from webui.core.kinds.sd import SD1, SD2, SDXL, SDXL_REFINER
from webui.core.kinds.sd3 import SD3
from webui.core.kinds.z_image import Z_IMAGE

KINDS: tuple[Kind, ...] = (SD1, SD2, SDXL, SDXL_REFINER, ANIMA, FLUX2_KLEIN, KREA2, QWEN_IMAGE, Z_IMAGE, FLUX1, SD3)
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind of this name; raises KeyError."""
    return _BY_NAME[name]


def kinds_with(network: str) -> tuple[str, ...]:
    """The names of the kinds that have a part which is the network of this name."""
    return tuple(
        kind.name for kind in KINDS if any(network in (part.name, part.twin) for part in kind.networks.values())
    )
