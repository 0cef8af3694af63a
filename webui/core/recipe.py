"""How a picture was made, and the text about it that travels inside the file.

The text follows A1111's infotext, which civitai, sd-parsers and most image viewers of the field read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from webui import __version__
from webui.core.prompt import join_loras
from webui.core.request import Init, Request


@dataclass(frozen=True)
class Recipe:
    """Everything that made one picture. ``request`` has the picture's own seed, its size, and a count of 1.

    ``lora_hashes`` are SHA-256 of the tensors in each LoRA's file, by name.
    """

    request: Request
    model_hash: str
    lora_hashes: Mapping[str, str] = field(default_factory=dict)

    def infotext(self) -> str:
        """The ``parameters`` text: prompt, negative prompt, one line of settings."""
        request = self.request
        settings = {
            "Steps": request.steps,
            "Sampler": request.sampler,
            "Schedule type": request.schedule,
            "CFG scale": f"{request.guidance:g}",
            "Seed": request.seed,
            "Size": f"{request.width}x{request.height}",
            "Model hash": self.model_hash[:10],
            "Model": re.sub(r"[,:\n]", " ", request.model),
            **_start_settings(request.init),
            "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
            "VAE": re.sub(r"[,:\n]", " ", request.vae) or None,
            **_refiner_settings(request),
            **_approximations(request),
            "Lora hashes": self._hashes_text() if self.lora_hashes else None,
            "Version": f"Darkroom {__version__}",
        }
        lines = [_neutralise(join_loras(request.prompt, request.loras))]
        if request.negative:
            lines.append(f"Negative prompt: {_neutralise(request.negative)}")
        lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
        return "\n".join(lines)

    def _hashes_text(self) -> str:
        """A1111's form: one quoted value of ``name: first 12 digits`` pairs."""
        pairs = (f"{re.sub(r'[,:]', ' ', name)}: {digest[:12]}" for name, digest in self.lora_hashes.items())
        return json.dumps(", ".join(pairs), ensure_ascii=False)


def _refiner_settings(request: Request) -> dict[str, object]:
    """A1111's words for a second stage."""
    if not request.refiner:
        return {}
    return {"Refiner": re.sub(r"[,:\n]", " ", request.refiner), "Refiner switch at": f"{request.refiner_at:g}"}


def _approximations(request: Request) -> dict[str, object]:
    """A1111's word for merged tokens; it has none for the others."""
    return {
        "Guidance until": f"{request.guidance_until:g}" if request.guidance_until < 1 < request.guidance else None,
        "Deep features every": request.reuse if request.reuse > 1 else None,
        "Token merging ratio": f"{request.token_merging:g}" if request.token_merging else None,
    }


def _start_settings(init: Init | None) -> dict[str, object]:
    """A1111's words for a start picture and its mask."""
    if init is None:
        return {}
    settings: dict[str, object] = {"Denoising strength": f"{init.strength:g}"}
    if init.masked:
        settings |= {"Mask blur": init.mask_blur, "Masked content": init.mask_fill}
    if init.masked and init.only_masked:
        settings |= {"Inpaint area": "Only masked", "Masked area padding": init.padding}
    return settings


def _neutralise(text: str) -> str:
    """The text with what readers take for settings made harmless: they look for these words by position."""
    text = re.sub(r"(?i)negative prompt:", "negative prompt -", text.replace("\0", "").replace("\r", ""))
    return re.sub(r"(?im)^(\s*steps):", r"\1 -", text)
