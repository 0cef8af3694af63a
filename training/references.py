"""Pictures with what they show, as references for `reference`: latents to be drawn, pictures to be seen."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from . import data
from .concepts import COLOURS, STYLES, indefinite_article
from .latents import Row, picture, plan
from .optim import half
from .progress import report, save_checkpoint

PICTURES = 6000
"""Pictures whose latents are kept."""
KNOWN_SHARE = 0.8
"""Of these, pictures of the concepts; the rest show further things."""
BATCH = 16


@dataclass
class Shown:
    """Latents, float [n, 4, 16, 16], and what each of them shows."""

    latents: Tensor
    rows: list[Row]


def choose_rows(icons: data.Icons, count: int = PICTURES) -> list[Row]:
    """What the pictures show: one thing each, in no combination that is held out."""
    rng = random.Random(31)
    rows = [row for row in plan(icons, rng) if row.other < 0 and row.amount == 100]
    known = [row for row in rows if icons.concept[row.icon] >= 0]
    further = [row for row in rows if icons.concept[row.icon] < 0]
    of_known = min(round(KNOWN_SHARE * count), len(known))
    chosen = rng.sample(known, of_known) + rng.sample(further, min(count - of_known, len(further)))
    rng.shuffle(chosen)
    return chosen


def small(icons: data.Icons) -> data.Icons:
    """The same at half their side: drawn sooner where pictures are small."""
    parts = torch.from_numpy(icons.pixels).split(256)
    halves = [F.avg_pool2d(part.permute(0, 3, 1, 2).float(), 2).round().byte().permute(0, 2, 3, 1) for part in parts]
    return replace(icons, pixels=torch.cat(halves).contiguous().numpy())


@torch.no_grad()
def prepare(work: Path, icons: data.Icons, vae: AutoencoderKL) -> Shown:
    """Draw and encode the pictures; they are kept in `work/references.pt`."""
    file = work / "references.pt"
    if not file.exists():
        rng, rows, latents = random.Random(32), choose_rows(icons), []
        for start in range(0, len(rows), BATCH):
            drawn = torch.stack([picture(icons, row, rng) for row in rows[start : start + BATCH]]).to(vae.device)
            with half(vae.device):
                mode = vae.encode((drawn * 2 - 1).contiguous(memory_format=torch.channels_last)).latent_dist.mode()
            latents.append((mode.float() * vae.config["scaling_factor"]).contiguous().cpu())
            if start % (BATCH * 50) == 0:
                report(work, f"reference: {start} of {len(rows)} pictures encoded")
        save_checkpoint(file, {"latents": torch.cat(latents), "rows": torch.tensor(rows)})
    kept = torch.load(file, weights_only=True)
    return Shown(kept["latents"], [Row(*row) for row in kept["rows"].tolist()])


def full_caption(icons: data.Icons, row: Row) -> str:
    """All that a caption could say of it, but size and place."""
    style, colour = STYLES[icons.style[row.icon]].name, list(COLOURS)[row.colour]
    return f"{icons.thing(row.icon).phrase}, {style} style, on {indefinite_article(colour)} {colour} background"
