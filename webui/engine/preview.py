"""Latents -> a small JPEG while the picture is being made, within a share of the sampling time."""

import io
import math
import time

import torch
from PIL import Image as PilImages

from webui.engine.denoise import Denoised
from webui.engine.families.base import PreviewMap
from webui.engine.lead import wait_for
from webui.engine.noise import Noise

BUDGET = 0.02  # of the sampling time
FIRST_COST_S = 0.001  # assumed until measured
JPEG_QUALITY = 85
EMPTY = 0.5  # grey, which glares on no page


class Previewer:
    """Makes previews as often as ``BUDGET`` allows; measures its own cost and skips while it is over."""

    def __init__(self, preview_map: PreviewMap, noise: Noise) -> None:
        self._map, self._noise = preview_map, noise
        self._cost_s = FIRST_COST_S
        self.spent_s = 0.0

    def preview(self, step: Denoised, sampling_s: float) -> bytes | None:
        """A JPEG one latent cell a pixel, several pictures side by side; None when ``sampling_s`` allows no more."""
        if self.spent_s + self._cost_s > BUDGET * sampling_s:
            return None
        wait_for(step.latents.device)  # which is the step's time
        started = time.perf_counter()
        jpeg = to_jpeg(self._noise.original(step.seen, step.output, step.index - 1), self._map)
        self._cost_s = time.perf_counter() - started
        self.spent_s += self._cost_s
        return jpeg


def to_jpeg(latents: torch.Tensor, preview_map: PreviewMap) -> bytes:
    """Latents (n, c, h, w) through the linear map, as one JPEG contact sheet with about as many rows as columns."""
    n, _, height, width = latents.shape
    rgb = torch.einsum("nchw,kc->nhwk", latents.float(), preview_map.weight) + preview_map.bias
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    sheet = rgb.new_full((rows * columns, height, width, 3), EMPTY)
    sheet[:n] = rgb
    sheet = sheet.unflatten(0, (rows, columns)).transpose(1, 2).reshape(rows * height, columns * width, 3)
    levels = sheet.clamp(0, 1).mul(255).to(torch.uint8).cpu().numpy()
    buffer = io.BytesIO()
    PilImages.fromarray(levels, "RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
