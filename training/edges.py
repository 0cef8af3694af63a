"""The control `demo-edges`: a T2I-Adapter that makes the exported model follow outlines.

T2I-Adapter: Mou et al., "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability for Text-to-Image
Diffusion Models", 2023. Its features are computed once a picture, so it costs nothing per step. The layout is the one
for models whose first stage has no attention (diffusers' `full_adapter_xl`), for so it is in the demo model.
"""

import json
import random
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models import T2IAdapter
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import data
from .lora import frozen_denoiser, open_model
from .optim import Average, channels_last, half, load_states, make_optimisers, set_learning_rate, update
from .outlines import Label, by_hand, draw, draw_caption
from .progress import Budget, Threads, load_checkpoint, report, save_checkpoint
from .unet import NOISE_STEPS, SNR_LIMIT, Denoiser, signal_levels, tokenize

FOLDER, NAME = "controls", "demo-edges"
SHARD, SHARDS = 2000, 4
"""Pictures of one file in the work folder, and how many files there are."""
BATCH = {"cpu": 32, "cuda": 256}
MATRIX_LR, OTHER_LR = 2e-3, 2e-3
AVERAGE_DECAY = 0.995
NEAR_WEIGHT = 2.0
"""How much more an error counts where a line is or beside it."""
CONFIG: dict[str, Any] = {
    "in_channels": 1,
    "channels": [64, 160, 224],
    "num_res_blocks": 2,
    "downscale_factor": 16,
    "adapter_type": "full_adapter_xl",
}
STRENGTH = 2.0
"""Features are so many times as strong in the file as they were trained: outlines are followed more closely then."""
SIZE_LIMIT = 4_000_000


@dataclass
class Outlined:
    """Pictures as latents, float [n, 4, 16, 16], with two outlines each, bool [n, 2, 128, 128] packed into bits."""

    latents: Tensor
    bits: np.ndarray
    labels: list[Label]

    def lines(self, place: int, rng: random.Random) -> np.ndarray:
        """One of a picture's two outlines as a hand might draw it: float32 [128, 128]."""
        return by_hand(np.unpackbits(self.bits[place, rng.randrange(2)], axis=-1).astype(bool), rng)


@torch.no_grad()
def encode(icons: data.Icons, vae: AutoencoderKL, number: int) -> dict[str, Tensor]:
    """Draw and encode the pictures of one shard."""
    rng, latents, bits, labels = random.Random(100 + number), [], [], []
    for _ in range(SHARD // 16):
        drawn = [draw(icons, rng) for _ in range(16)]
        inputs = torch.stack([one.picture for one in drawn]).to(vae.device) * 2 - 1
        with half(vae.device):
            mode = vae.encode(inputs.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
        latents.append((mode.float() * vae.config["scaling_factor"]).contiguous().cpu())
        bits += [np.packbits(one.outlines, axis=-1) for one in drawn]
        labels += [one.label for one in drawn]
    return {"latents": torch.cat(latents), "bits": torch.from_numpy(np.stack(bits)), "labels": torch.tensor(labels)}


def prepare(work: Path, vae: AutoencoderKL, shards: int = SHARDS) -> Outlined:
    """The training pictures; each shard is kept in `work/outlines-NUMBER.pt`."""
    parts = []
    for number in range(shards):
        file = work / f"outlines-{number}.pt"
        if not file.exists():
            report(work, f"edges: drawing and encoding {SHARD} pictures, part {number + 1} of {shards}")
            save_checkpoint(file, encode(data.prepare(work), vae, number))
        parts.append(torch.load(file, weights_only=True))
    labels = [Label(*row) for part in parts for row in part["labels"].tolist()]
    bits = torch.cat([part["bits"] for part in parts]).numpy()
    return Outlined(torch.cat([part["latents"] for part in parts]), bits, labels)


def new_adapter() -> T2IAdapter:
    """An untrained adapter for the demo model; it starts small, so that it changes little at first."""
    adapter: T2IAdapter = T2IAdapter(**CONFIG)
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if name.endswith(("adapter.conv_in.weight", "block2.weight")):
                weight.mul_(0.3)
    return adapter


def random_steps(count: int, device: torch.device) -> Tensor:
    """Noise steps [count], the noisy ones more often: there the outline is decided."""
    places = ((torch.arange(count, device=device) + torch.rand(count, device=device)) / count).sqrt()
    return (places * NOISE_STEPS).long().clamp(max=NOISE_STEPS - 1)


def noised(clean: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For clean latents [n, 4, 16, 16]: noise steps [n], noisy latents, the velocity to be told and its weight [n]."""
    steps = random_steps(len(clean), clean.device)
    level = levels[steps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
    return steps, noisy, velocity, (SNR_LIMIT * (1 - level) / level).clamp(max=1).flatten()


def loss_of(
    model: Denoiser, adapter: T2IAdapter, clean: Tensor, tokens: Tensor, lines: Tensor, levels: Tensor
) -> Tensor:
    """Weighted squared error of the velocity for clean latents [n, 4, 16, 16] with outlines [n, 1, 128, 128]."""
    device = clean.device
    steps, noisy, velocity, weight = noised(clean, levels)
    with half(device), sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        with torch.no_grad():
            states = model.text(tokens).last_hidden_state
        features = adapter(lines)
        output = model.unet(noisy, steps, states, down_intrablock_additional_residuals=list(features)).sample
    near = F.max_pool2d(F.max_pool2d(lines, 8), 3, 1, 1)  # by latents: whether a line is there or beside it
    error = ((output.float() - velocity).square() * (1 + NEAR_WEIGHT * near)).mean((1, 2, 3))
    error = error / (1 + NEAR_WEIGHT * near).mean((1, 2, 3))
    loss: Tensor = (weight * error).mean()
    return loss


def train(pipeline: StableDiffusionPipeline, work: Path, minutes: float, save_minutes: float = 2.0) -> T2IAdapter:
    """Train the adapter, or go on from `work/edges.pt`; return its average over the steps."""
    torch.manual_seed(31)
    device = pipeline.device
    icons, samples = data.prepare(work), prepare(work, pipeline.vae)
    model, levels = frozen_denoiser(pipeline), signal_levels().to(device)
    adapter = channels_last(new_adapter(), device)
    optimisers = make_optimisers([adapter], MATRIX_LR, OTHER_LR)
    average = Average(adapter, AVERAGE_DECAY)
    file, step, spent = work / "edges.pt", 0, 0.0
    if state := load_checkpoint(file):
        adapter.load_state_dict(state["model"])
        average.values = {name: value.to(device) for name, value in state["average"].items()}
        load_states(optimisers, state["optimisers"])
        step, spent = state["step"], state["spent"]
        torch.manual_seed(step)
    rng, threads, batch = random.Random(step), Threads(), BATCH[device.type]
    budget, saved = Budget(10**6, minutes, spent, device), spent
    losses: deque[float] = deque(maxlen=100)
    order: list[int] = []

    def keep() -> None:
        content = {"model": adapter.state_dict(), "average": average.values, "step": step, "spent": budget.spent}
        save_checkpoint(file, content | {"optimisers": [one.state_dict() for one in optimisers]})

    while (done := budget.progress(step)) < 1:
        set_learning_rate(optimisers, done, 0.3, step)
        if len(order) < batch:
            order = rng.sample(range(len(samples.labels)), len(samples.labels))
        rows, order = order[:batch], order[batch:]
        tokens = tokenize(pipeline.tokenizer, [draw_caption(icons, samples.labels[row], rng) for row in rows])
        lines = torch.from_numpy(np.stack([samples.lines(row, rng) for row in rows])[:, None])
        loss = loss_of(model, adapter, samples.latents[rows].to(device), tokens.to(device), lines.to(device), levels)
        loss.backward()
        update(optimisers, adapter.parameters())
        step += 1
        average.update(adapter, step)
        threads.step()
        losses.append(float(loss.detach()))
        if step % 25 == 0:
            text = f"step {step}, {done:.1%}, loss {fmean(losses):.4f}, {threads.now} threads"
            report(work, f"edges: {text}, {budget.spent / 60:.1f} min")
        if budget.spent - saved > 60 * save_minutes:
            keep()
            saved = budget.spent
    keep()
    adapter.load_state_dict(average.values)
    return adapter.eval()


def description() -> dict[str, str]:
    """The file's metadata: what it is, and the adapter's configuration as diffusers would write it beside the file."""
    return {
        "format": "pt",
        "config": json.dumps({"_class_name": "T2IAdapter", **CONFIG}),
        "modelspec.architecture": "darkroom-demo/t2i-adapter",
        "modelspec.title": "Edges",
        "modelspec.description": "Draws what an outline shows: white lines on black.",
        "modelspec.author": "Darkroom",
        "modelspec.license": "Apache-2.0 AND MIT",
        "darkroom.mode": "control",  # where no other is asked for
    }


@torch.no_grad()
def strengthen(adapter: T2IAdapter, times: float) -> None:
    """Make all features so many times as strong: but for ReLU, which keeps scales, all between them is linear."""
    for name, weight in adapter.named_parameters():
        if name.endswith("bias") or name == "adapter.conv_in.weight":
            weight.mul_(times)


def save(adapter: T2IAdapter, file: Path) -> int:
    """Write the adapter in half precision with its description; return the file's size in bytes."""
    tensors = {name: value.detach().half().contiguous() for name, value in adapter.state_dict().items()}
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(to_bytes(tensors, description()))
    temporary.replace(file)
    if (size := file.stat().st_size) > SIZE_LIMIT:
        raise SystemExit(f"{file} has {size:,} bytes; {SIZE_LIMIT:,} are allowed.")
    return size


def make(model: Path, work: Path, minutes: float, device: torch.device | None = None) -> None:
    """Train the control into `model/controls` if it is not there yet."""
    file = model / FOLDER / f"{NAME}.safetensors"
    if not file.exists():
        adapter = train(open_model(model, device), work, minutes)
        strengthen(adapter, STRENGTH)
        print(f"{save(adapter, file):,} bytes in {file}")
