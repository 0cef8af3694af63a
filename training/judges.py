"""Small classifiers that say what a picture shows, trained on augmented training pictures."""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from . import data
from .concepts import COLOURS, CONCEPTS, IMAGE_SIZE, PLACEMENTS, STYLES, pair_held_out
from .latents import picture
from .measures import PALETTE
from .optim import set_learning_rate
from .progress import load_checkpoint, report, save_checkpoint
from .prompts import full_prompts, unseen_pair_prompts

SIDE = 64
"""Pictures are judged at this size, so that sharpness matters little and shape much."""
BATCH = 64
STEPS = {"concept": 2500, "style": 4000}
CLASSES = {"concept": len(CONCEPTS), "style": len(STYLES)}


class Judge(nn.Sequential):
    """Classifies pictures [n, 3, 64, 64] in [0, 1]; returns scores [n, classes]."""

    def __init__(self, classes: int):
        layers: list[nn.Module] = []
        widths = (3, 24, 48, 96, 160)
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        size = (SIDE >> (len(widths) - 1)) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1] * size, classes))


def augmented(rasters: Tensor, generator: torch.Generator) -> Tensor:
    """Icons [n, 4, 64, 64], premultiplied, as pictures [n, 3, 64, 64]: placed, coloured, softened, with noise."""
    count = len(rasters)
    uniform = torch.rand(8, count, generator=generator)
    placements = torch.tensor([place[:3] for place in PLACEMENTS], dtype=torch.float32)
    chosen = torch.where(uniform[0] < 0.6, 0, (uniform[1] * len(PLACEMENTS)).long())
    size, x, y = placements[chosen].T
    size = size * (0.93 + 0.14 * uniform[2]) / IMAGE_SIZE
    x, y = x + 10 * uniform[3] - 5, y + 10 * uniform[4] - 5
    zero = torch.zeros(count)
    shift_x, shift_y = ((1 - 2 * middle / IMAGE_SIZE) / size for middle in (x, y))
    affine = torch.stack([1 / size, zero, shift_x, zero, 1 / size, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [count, 4, SIDE, SIDE], align_corners=False)
    placed = F.grid_sample(rasters, grid, align_corners=False)
    palette = torch.tensor(list(COLOURS.values())) / 255
    colours = palette[(uniform[5] * len(palette)).long()] + 0.05 * torch.randn(count, 3, generator=generator)
    pictures = placed[:, :3] + colours.view(-1, 3, 1, 1).clamp(0, 1) * (1 - placed[:, 3:])
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(pictures, soft, uniform[6].view(-1, 1, 1, 1))
    noise = torch.randn(pictures.shape, generator=generator) * 0.06 * uniform[7].view(-1, 1, 1, 1)
    return (pictures + noise).clamp(0, 1)


def train_judge(rasters: Tensor, labels: Tensor, kind: str) -> Judge:
    """A new classifier for icons [n, 4, 64, 64] with labels [n]."""
    torch.manual_seed(11)
    generator = torch.Generator().manual_seed(11)
    judge = Judge(CLASSES[kind]).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    optimiser.param_groups[0]["base_lr"] = 2e-3
    for step in range(STEPS[kind]):
        set_learning_rate([optimiser], step / STEPS[kind], 0.2, step)
        rows = torch.randint(len(rasters), (BATCH,), generator=generator)
        scores = judge(augmented(rasters[rows], generator).contiguous(memory_format=torch.channels_last))
        F.cross_entropy(scores, labels[rows], label_smoothing=0.05).backward()
        optimiser.step()
        optimiser.zero_grad()
    return judge.eval()


def prepare(work: Path, icons: data.Icons) -> dict[str, Judge]:
    """The two classifiers by kind, trained on all but the held-out pairs; they are kept in `work/judges.pt`."""
    file = work / "judges.pt"
    if state := load_checkpoint(file):
        judges = {kind: Judge(CLASSES[kind]) for kind in STEPS}
        for kind, judge in judges.items():
            judge.load_state_dict(state[kind])
        return {kind: judge.eval() for kind, judge in judges.items()}
    pairs = zip(icons.concept.tolist(), icons.style.tolist(), strict=True)
    used = np.array([concept >= 0 and not pair_held_out(concept, style) for concept, style in pairs])
    rasters = torch.from_numpy(icons.pixels[used]).permute(0, 3, 1, 2).float() / 255
    rasters = F.interpolate(rasters, (SIDE, SIDE), mode="bilinear", antialias=True)
    labels = {"concept": torch.from_numpy(icons.concept[used]), "style": torch.from_numpy(icons.style[used])}
    judges = {}
    for kind in STEPS:
        judges[kind] = train_judge(rasters, labels[kind], kind)
        report(work, f"judges: {kind} trained on {len(rasters)} icons")
    save_checkpoint(file, {kind: judge.state_dict() for kind, judge in judges.items()})
    return judges


@torch.no_grad()
def verdicts(judge: Judge, pictures: Tensor) -> Tensor:
    """The likeliest class [n] of each picture [n, 3, 128, 128] in [0, 1]."""
    return judge(F.avg_pool2d(pictures, IMAGE_SIZE // SIDE)).argmax(1)


@torch.no_grad()
def accuracy(judges: dict[str, Judge], work: Path) -> dict[str, float]:
    """How often the classifiers are right about real pictures that went through the autoencoder.

    "concept" and "style" by the evaluation's complete prompts, as pictures drawn anew; "unseen_pair_..." by the icons
    that neither the classifiers nor the UNet were trained on.
    """
    vae = AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last)
    icons, rng = data.prepare(work), random.Random(17)
    numbers = {}
    for prefix, rows in (("", full_prompts()), ("unseen_pair_", unseen_pair_prompts())):
        labels = [(row.concept, row.style or 0, row.colour or 0, row.placement) for row in rows]
        pictures = torch.stack([picture(icons, label, PALETTE, rng) for label in labels])
        back = torch.cat([vae(part * 2 - 1).sample for part in pictures.split(16)])
        pictures = (back / 2 + 0.5).clamp(0, 1)
        for column, kind in enumerate(STEPS):
            asked = torch.tensor([label[column] for label in labels])
            numbers[prefix + kind] = round(float((verdicts(judges[kind], pictures) == asked).float().mean()), 4)
    return numbers
