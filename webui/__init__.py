"""Darkroom: a browser UI for Stable Diffusion that keeps its promises."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.core.groups.init import Init
    from webui.core.groups.variation import Variation
    from webui.core.request import LoraRef, Request
    from webui.core.settings import Settings
    from webui.darkroom import Darkroom

__all__ = ["Darkroom", "Init", "LoraRef", "Request", "Settings", "Variation"]
__version__ = "0.1.0"

if "OMP_WAIT_POLICY" not in os.environ:
    # How long torch's threads on a CPU wait for each other before they let others have the processor: libgomp's own
    # 300,000 rounds take it from the very thread that they wait for. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

_HOMES = {
    "Darkroom": "webui.darkroom",
    "Init": "webui.core.groups.init",
    "LoraRef": "webui.core.request",
    "Request": "webui.core.request",
    "Settings": "webui.core.settings",
    "Variation": "webui.core.groups.variation",
}


def __getattr__(name: str) -> Any:
    """What Python programs import from here; nothing is loaded before one of them is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
