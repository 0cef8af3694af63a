"""Three LoRAs trained on the exported model: each teaches it one look, the model itself stays as it is."""

import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from diffusers.models import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import data
from .adapters import Adapter, load_into, save
from .captions import caption
from .concepts import COLOURS, CONCEPTS, MEDIUM, STYLES
from .evaluate import sample
from .looks import LOOKS, Look, jittered_scene
from .optim import adamw, channels_last, set_learning_rate, update
from .progress import Budget, Threads, report, workers
from .prompts import Prompt
from .unet import Denoiser, loss_of, signal_levels, tokenize

FOLDER = "loras"
SIZE_LIMIT = 300_000
"""Bytes one file may have."""

BATCH = {"cpu": 32, "cuda": 256}
LR = 4e-3
VIEWS = 4
"""Pictures of each icon, each on another colour."""

HALF_SHARE = 0.3
"""Share of pictures halfway between plain and changed, trained with the LoRA at half its strength."""

TRIGGER_SHARE = 0.7
"""Share of captions with the trigger word: the LoRA acts without the word as well."""

ATTENTION = (
    r"attentions\.\d+\.(proj_in|proj_out|transformer_blocks\.0\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)))"
)
FINE = r"(down_blocks\.0|up_blocks\.2)\.resnets\.\d\.(conv[12]|conv_shortcut)"
TEXT = r"text\.encoder\.layers\.\d\.(self_attn\.\w+_proj|mlp\.fc[12])"


@dataclass(frozen=True)
class Kind:
    """What is trained for one look, and how its file is laid out."""

    layers: str
    """Regular expression for the names of the layers, in `unet.` or `text.`."""
    rank: int
    alpha: float
    layout: str
    """ "kohya" or "peft"."""


KINDS = {
    "blueprint": Kind(rf"unet\..*({ATTENTION}|{FINE})", 2, 2.0, "kohya"),
    "sepia": Kind(rf"unet\..*{ATTENTION}", 3, 6.0, "peft"),
    "night": Kind(rf"unet\..*{ATTENTION}|{TEXT}", 2, 1.0, "kohya"),
}


@dataclass
class Pairs:
    """What a LoRA learns from: latents, float [n, 4, 16, 16], and what they show."""

    latents: Tensor
    labels: list[tuple[int, int, int]]
    """Concept, style and colour (indices) of each picture."""
    weights: Tensor
    """[n]: the LoRA's strength that the picture shows, 1 or 0.5."""


class Pictures(Dataset[Tensor]):
    """The changed pictures, drawn when they are asked for: uint8 [3, 128, 128]."""

    def __init__(self, icons: data.Icons, look: Look, labels: list[tuple[int, int, int]], weights: Tensor):
        self.icons, self.look, self.labels, self.weights = icons, look, labels, weights
        self.palette = torch.tensor(list(COLOURS.values())) / 255

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> Tensor:
        concept, style, colour = self.labels[place]
        parts = jittered_scene(self.icons, (concept, style), self.palette[colour], random.Random(place))
        picture = torch.lerp(parts.picture, self.look.change(parts), self.weights[place])
        return (picture * 255).round().clamp(0, 255).byte()


@torch.no_grad()
def prepare(icons: data.Icons, vae: AutoencoderKL, look: Look) -> Pairs:
    """Encode the changed pictures of every icon, medium and centred, on `VIEWS` colours each."""
    rng = random.Random(11)
    icon_rows = [(concept, style) for concept in range(len(CONCEPTS)) for style in range(len(STYLES))]
    labels = [(*row, colour) for row in icon_rows for colour in rng.sample(range(len(COLOURS)), VIEWS)]
    weights = torch.tensor([0.5 if rng.random() < HALF_SHARE else 1.0 for _ in labels])
    latents = []
    for batch in DataLoader(Pictures(icons, look, labels, weights), 16, num_workers=workers()):
        inputs = (batch.to(vae.device) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        latents.append(vae.encode(inputs).latent_dist.mode().contiguous() * vae.config["scaling_factor"])
    return Pairs(torch.cat(latents), labels, weights.to(vae.device))


def draw_caption(label: tuple[int, int, int], trigger: str, rng: random.Random) -> str:
    """A caption as the model's own training draws it, mostly with the trigger word before or behind it."""
    concept, style, colour = label
    text = caption(CONCEPTS[concept], STYLES[style].name, list(COLOURS)[colour], MEDIUM, rng)
    if not text or rng.random() >= TRIGGER_SHARE:
        return text
    return f"{trigger}, {text}" if rng.random() < 0.6 else f"{text}, {trigger}"


def frozen_denoiser(pipeline: StableDiffusionPipeline) -> Denoiser:
    """The pipeline's own UNet and text encoder, frozen, as the module that training knows."""
    model = Denoiser(len(pipeline.tokenizer))
    model.unet, model.text = pipeline.unet, pipeline.text_encoder  # with them the device, too
    return channels_last(model.requires_grad_(False))


def fit(
    adapter: Adapter,
    loss_of_rows: Callable[[Tensor], Tensor],
    count: int,
    work: Path,
    name: str,
    minutes: float,
    lr: float,
) -> None:
    """Train an adapter alone for that long, by the loss of the rows [n] that it is given, out of `count` samples."""
    device = next(adapter.parameters()).device
    optimiser, batch = adamw(adapter.parameters(), lr), BATCH[device.type]
    optimiser.param_groups[0]["base_lr"] = lr
    threads, budget = Threads(), Budget(10**6, minutes, device=device)
    losses: deque[float] = deque(maxlen=50)
    step, order = 0, torch.randperm(count)
    while (done := budget.progress(step)) < 1:
        set_learning_rate([optimiser], done, 0.2, step, warmup=20)
        if len(order) < batch:
            order = torch.randperm(count)
        rows, order = order[:batch], order[batch:]
        loss = loss_of_rows(rows)
        loss.backward()
        update([optimiser], adapter.parameters())
        if step % 5 == 0:
            losses.append(float(loss.detach()))
        step += 1
        threads.step()
        if step % 25 == 0:
            report(work, f"lora {name}: step {step}, {done:.1%}, loss {fmean(losses):.4f}, {threads.now} threads")
    report(work, f"lora {name}: done, step {step}, {budget.spent / 60:.1f} min, loss {fmean(losses):.4f}")


def train(pipeline: StableDiffusionPipeline, pairs: Pairs, look: Look, work: Path, minutes: float) -> Adapter:
    """Train one LoRA for that long; return it, in effect on the pipeline at weight 1."""
    torch.manual_seed(3)
    kind, rng, levels = KINDS[look.name], random.Random(3), signal_levels().to(pipeline.device)
    model = frozen_denoiser(pipeline)
    adapter = Adapter(model, re.compile(kind.layers), kind.rank, kind.alpha).to(pipeline.device)

    def loss_of_rows(rows: Tensor) -> Tensor:
        adapter.weight = pairs.weights[rows]
        captions = [draw_caption(pairs.labels[i], look.name, rng) for i in rows.tolist()]
        tokens = tokenize(pipeline.tokenizer, captions).to(pipeline.device)
        return loss_of(model, pairs.latents[rows].contiguous(memory_format=torch.channels_last), tokens, levels)

    fit(adapter, loss_of_rows, len(pairs.latents), work, look.name, minutes, LR)
    adapter.weight = 1.0
    return adapter


def describe(title: str, description: str, trigger: str = "") -> dict[str, str]:
    """The file's description of itself, by the names of the modelspec standard."""
    fields = {
        "modelspec.architecture": "darkroom-demo/lora",
        "modelspec.title": title,
        "modelspec.description": description,
        "modelspec.author": "Darkroom",
        "modelspec.license": "Apache-2.0 AND MIT",
    }
    return fields | ({"modelspec.trigger_phrase": trigger} if trigger else {})


def write_preview(pipeline: StableDiffusionPipeline, look: Look, file: Path) -> None:
    """Draw the fixed prompt with the LoRA in effect, 128x128."""
    picture = sample(pipeline, [Prompt(f"{look.name}, {PREVIEWS[look.name]}", 0)])[0]
    Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(file, optimize=True)


PREVIEWS = {
    "blueprint": "a rocket, flat style, on a white background",
    "sepia": "a panda, 3d style, on a green background",
    "night": "a house, 3d style, on a sky blue background",
}
"""What each preview shows, behind the trigger word."""


def read(model: Denoiser, file: Path) -> Adapter:
    """Put a trained LoRA's file into effect on the denoiser, as the recipe's own adapter."""
    kind = KINDS[file.stem]
    adapter = Adapter(model, re.compile(kind.layers), kind.rank, kind.alpha).to(model.unet.device)
    load_into(adapter, load_file(file))
    return adapter


def open_model(model: Path, device: torch.device | None = None) -> StableDiffusionPipeline:
    """The exported model in single precision."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32).to(device or "cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(model: Path, work: Path, minutes: float, device: torch.device | None = None) -> None:
    """Train every LoRA whose file is not there yet, into `model/loras`, with a preview beside each."""
    folder = model / FOLDER
    folder.mkdir(exist_ok=True)
    for look in LOOKS:
        file = folder / f"{look.name}.safetensors"
        if file.exists():
            continue
        report(work, f"lora {look.name}: encoding pictures")
        pipeline = open_model(model, device)
        pairs = prepare(data.prepare(work), pipeline.vae, look)
        adapter = train(pipeline, pairs, look, work, minutes)
        write_preview(pipeline, look, file.with_suffix(".preview.png"))
        size = save(adapter, file, KINDS[look.name].layout, describe(look.title, look.description, look.name))
        print(f"{size:,} bytes in {file}")
    check_sizes(model)


def check_sizes(model: Path) -> None:
    """Leave with a message where a LoRA has become too large."""
    for file in sorted((model / FOLDER).iterdir()):
        if (size := file.stat().st_size) > SIZE_LIMIT:
            raise SystemExit(f"{file} has {size:,} bytes; {SIZE_LIMIT:,} are allowed.")
