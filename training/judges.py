"""Small classifiers that say what a picture shows, trained on training pictures that went through the autoencoder."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models import AutoencoderKL
from torch import Tensor, nn

from . import data
from . import latents as latents_module
from .autoencoder import SCALING_FACTOR
from .concepts import CONCEPTS, IMAGE_SIZE, STYLES
from .latents import Row, picture
from .optim import channels_last, half, set_learning_rate
from .progress import load_checkpoint, report, save_checkpoint
from .prompts import full_prompts, unseen_pair_prompts

SIDE = 64
"""Pictures are judged at this size, so that sharpness matters little and shape much."""
PICTURES = 24_000
"""So many of the training pictures are decoded."""
BATCH = 128
STEPS = {"concept": 3000, "style": 5000}
CLASSES = {"concept": len(CONCEPTS), "style": len(STYLES)}


class Judge(nn.Sequential):
    """Classifies pictures [n, 3, 64, 64] in [0, 1]; returns scores [n, classes]."""

    def __init__(self, classes: int):
        layers: list[nn.Module] = []
        widths = (3, 32, 64, 128, 192)
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        size = (SIDE >> (len(widths) - 1)) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1] * size, classes))


def augmented(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, 64, 64] in [0, 1], moved by up to three pixels, softened, and with noise."""
    count, device = len(pictures), pictures.device
    shifts = torch.randint(-3, 4, (count, 2), device=device)
    places = torch.arange(SIDE, device=device)
    rows, columns = ((places + shifts[:, axis, None]).clamp(0, SIDE - 1) for axis in (0, 1))
    moved = pictures[torch.arange(count, device=device)[:, None, None], :, rows[:, :, None], columns[:, None]]
    moved = moved.permute(0, 3, 1, 2)
    soft = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, 1)
    moved = torch.lerp(moved, soft, torch.rand(count, 1, 1, 1, device=device))
    noise = torch.randn_like(moved) * 0.06 * torch.rand(count, 1, 1, 1, device=device)
    return (moved + noise).clamp(0, 1)


def train_judge(pictures: Tensor, labels: Tensor, kind: str) -> Judge:
    """A new classifier for pictures [n, 3, 64, 64] in [0, 1] or uint8 with labels [n]."""
    torch.manual_seed(11)
    device = pictures.device
    judge = channels_last(Judge(CLASSES[kind]), device)
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    optimiser.param_groups[0]["base_lr"] = 2e-3
    for step in range(STEPS[kind]):
        set_learning_rate([optimiser], step / STEPS[kind], 0.2, step)
        rows = torch.randint(len(pictures), (BATCH,), device=device)
        batch = pictures[rows].float() / (255 if pictures.dtype == torch.uint8 else 1)
        scores = judge(augmented(batch).contiguous(memory_format=torch.channels_last))
        F.cross_entropy(scores, labels[rows], label_smoothing=0.05).backward()
        optimiser.step()
        optimiser.zero_grad()
    return judge.eval().cpu()


@torch.no_grad()
def decoded(work: Path, device: torch.device) -> tuple[Tensor, list[Row]]:
    """Training pictures of one thing each, back from their latents: uint8 [n, 3, 64, 64], and what they show."""
    samples = latents_module.prepare(work)
    rows = [Row(*row) for row in samples.rows.tolist()]
    chosen = [place for place, row in enumerate(rows) if row.other < 0 and row.amount == 100]
    chosen = sorted(random.Random(11).sample(chosen, min(PICTURES, len(chosen))))
    vae = channels_last(AutoencoderKL.from_pretrained(work / "vae"), device)
    parts = []
    for places in torch.tensor(chosen).split(16 if device.type == "cpu" else 256):
        with half(device):
            pictures = vae.decode(samples.latents[places].to(device) / SCALING_FACTOR).sample
        small = F.avg_pool2d((pictures.float() / 2 + 0.5).clamp(0, 1), IMAGE_SIZE // SIDE)
        parts.append((small * 255).round().byte())
    return torch.cat(parts), [rows[place] for place in chosen]


def prepare(work: Path, device: torch.device | None = None) -> dict[str, Judge]:
    """The two classifiers by kind; they are kept in `work/judges.pt`.

    No picture they are trained on shows a held-out combination. The one for styles learns from the further icons too.
    """
    file = work / "judges.pt"
    if state := load_checkpoint(file):
        judges = {kind: Judge(CLASSES[kind]) for kind in STEPS}
        for kind, judge in judges.items():
            judge.load_state_dict(state[kind])
        return {kind: judge.eval() for kind, judge in judges.items()}
    device, icons = device or torch.device("cpu"), data.prepare(work)
    pictures, rows = decoded(work, device)
    labels = {
        "concept": torch.tensor([int(icons.concept[row.icon]) for row in rows], device=device),
        "style": torch.tensor([int(icons.style[row.icon]) for row in rows], device=device),
    }
    judges = {}
    for kind in STEPS:
        used = labels[kind] >= 0
        judges[kind] = train_judge(pictures[used], labels[kind][used], kind)
        report(work, f"judges: {kind} trained on {int(used.sum())} pictures")
    save_checkpoint(file, {kind: judge.state_dict() for kind, judge in judges.items()})
    return judges


@torch.no_grad()
def verdicts(judge: Judge, pictures: Tensor) -> Tensor:
    """The likeliest class [n] of each picture [n, 3, 128, 128] in [0, 1]."""
    scores: Tensor = judge(F.avg_pool2d(pictures, IMAGE_SIZE // SIDE))
    return scores.argmax(1)


@torch.no_grad()
def accuracy(judges: dict[str, Judge], work: Path) -> dict[str, float]:
    """How often the classifiers are right about real pictures that went through the autoencoder.

    "concept" and "style" by the evaluation's complete prompts, as pictures drawn anew; "unseen_pair_..." by the icons
    that neither the classifiers nor the UNet were trained on.
    """
    vae = channels_last(AutoencoderKL.from_pretrained(work / "vae"))
    icons, rng = data.prepare(work), random.Random(17)
    numbers = {}
    for prefix, rows in (("", full_prompts()), ("unseen_pair_", unseen_pair_prompts())):
        labels = [(row.concept, row.style or 0) for row in rows]
        shown = [Row(icons.find(*label), row.colour or 0) for label, row in zip(labels, rows, strict=True)]
        pictures = torch.stack([picture(icons, row, rng) for row in shown])
        back = torch.cat([vae(part * 2 - 1).sample for part in pictures.split(16)])
        pictures = (back / 2 + 0.5).clamp(0, 1)
        for column, kind in enumerate(STEPS):
            asked = torch.tensor([label[column] for label in labels])
            numbers[prefix + kind] = round(float((verdicts(judges[kind], pictures) == asked).float().mean()), 4)
    return numbers
