"""The autoencoder: 128x128 pictures to 16x16 latents of four channels and back."""

import math
import random
from collections import deque
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from diffusers.models import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader

from . import data
from .concepts import IMAGE_SIZE
from .optim import channels_last, half, load_states, make_optimisers, set_learning_rate, update
from .pictures import MIXED, Batches, fixed_pictures, full_batch
from .progress import Budget, Threads, load_checkpoint, report, save_checkpoint, workers

SCALING_FACTOR = 0.18215
KL_WEIGHT = 1e-3
LATENT_NOISE = 0.15
"""Largest disturbance of the latents in the decoder's own phase, as a share of their standard deviation."""
LEARNING_RATES = {"main": (1.5e-3, 1e-3), "decoder": (1e-3, 8e-4)}
"""Of Muon and of AdamW."""


def build() -> AutoencoderKL:
    """The untrained network, with a small posterior variance to begin with."""
    levels = 4
    model: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(32, 32, 64, 104),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )
    with torch.no_grad():
        weight, bias, *_ = ends(model)
        weight[4:] *= 0.1
        bias[4:] = -6.0
    return channels_last(model)


def ends(model: AutoencoderKL) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution before the latents, then of the one behind them."""
    found = []
    for convolution in (model.quant_conv, model.post_quant_conv):
        assert convolution is not None and convolution.bias is not None  # `build` leaves neither out
        found += [convolution.weight, convolution.bias]
    before, before_bias, behind, behind_bias = found
    return before, before_bias, behind, behind_bias


@torch.no_grad()
def load_unfolded(folder: Path) -> AutoencoderKL:
    """An exported autoencoder to be trained further, its latents of unit variance without the scaling factor."""
    model: AutoencoderKL = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
    weight, bias, post_weight, _ = ends(model)
    weight[:4] *= SCALING_FACTOR
    bias[:4] *= SCALING_FACTOR
    bias[4:] += 2 * math.log(SCALING_FACTOR)
    post_weight /= SCALING_FACTOR
    return channels_last(model)


def difference(output: Tensor, target: Tensor) -> Tensor:
    """L1 at three scales, L1 of the gradients, and each picture's root mean square."""
    error = output - target
    loss: Tensor = error.abs().mean()
    for factor in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, factor).abs().mean()
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    deviation = (error.square().mean((1, 2, 3)) + 1e-5).sqrt().mean()
    return loss + 0.5 * slopes + deviation


@torch.no_grad()
def psnr(model: AutoencoderKL, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio of the reconstructions in dB."""
    values = []
    for part in pictures.split(8):
        output = model.decode(model.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((output - part) / 2).square().mean((1, 2, 3))
        values.append(-10 * error.log10())
    return float(torch.cat(values).mean())


def main_loss(model: AutoencoderKL, pictures: Tensor, step: int) -> Tensor:
    """Reconstruction of crops plus the KL term, which starts at step 300."""
    with half(pictures.device):
        posterior = model.encode(pictures).latent_dist
        output = model.decode(posterior.sample()).sample
    weight = KL_WEIGHT * min(max((step - 300) / 600, 0.0), 1.0)
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    loss: Tensor = difference(output.float(), pictures) + weight * kl.float()
    return loss


def decoder_loss(model: AutoencoderKL, pictures: Tensor, latent_std: float) -> Tensor:
    """Reconstruction of whole pictures from latents a little disturbed, as a UNet's are; encoder fixed."""
    with torch.no_grad(), half(pictures.device):
        latents = model.encode(pictures).latent_dist.mode()
        amount = torch.rand(len(latents), 1, 1, 1, device=latents.device).square() * LATENT_NOISE * latent_std
        latents = latents + torch.randn_like(latents) * amount
    with half(pictures.device):
        output = model.decode(latents).sample
    return difference(output.float(), pictures)


class Phase:
    """One of the two phases: "main" trains everything on crops, "decoder" the decoder on whole pictures.

    Its checkpoint is `work/autoencoder-NAME.pt`; where there is one, the phase goes on from it.
    """

    def __init__(self, name: str, work: Path, model: AutoencoderKL, icons: data.Icons, minutes: float):
        self.name, self.work, self.model = name, work, model
        self.file = work / f"autoencoder-{name}.pt"
        if name == "decoder":
            model.encoder.requires_grad_(False)
            for tensor in ends(model)[:2]:
                tensor.requires_grad_(False)
        self.optimisers = make_optimisers([model], *LEARNING_RATES[name])
        self.step, spent = 0, 0.0
        if state := load_checkpoint(self.file):
            model.load_state_dict(state["model"])
            load_states(self.optimisers, state["optimisers"])
            self.step, spent = state["step"], state["spent"]
        batches = Batches(icons, name, model.device.type, self.step)
        self.batches = iter(DataLoader(batches, batch_size=None, num_workers=workers()))
        self.budget = Budget(10**6, minutes, spent, model.device)
        self.seen, self.unseen = (fixed_pictures(icons, held_out).to(model.device) for held_out in (False, True))
        with torch.no_grad():
            self.latent_std = float(model.encode(self.seen).latent_dist.mode().std())

    def loss(self) -> Tensor:
        """The phase's loss of a new batch."""
        pictures = next(self.batches).to(self.model.device, memory_format=torch.channels_last)
        if self.name == "main":
            return main_loss(self.model, pictures, self.step)
        return decoder_loss(self.model, pictures, self.latent_std)

    def run(self) -> None:
        """Train until the budget is spent."""
        losses: deque[float] = deque(maxlen=50)
        threads = Threads()
        while (done := self.budget.progress(self.step)) < 1:
            set_learning_rate(self.optimisers, done, 0.25, self.step)
            loss = self.loss()
            loss.backward()
            update(self.optimisers, self.model.parameters())
            self.step += 1
            threads.step()
            if self.step % 10 == 0:
                losses.append(float(loss.detach()))
            if self.step % 50 == 0:
                text = f"step {self.step}, {done:.1%}, loss {fmean(losses):.4f}"
                report(self.work, f"autoencoder {self.name}: {text}")
            if self.step % 250 == 0:
                self.save()
        self.save()

    def save(self) -> None:
        """Keep everything the phase needs to go on, and report how good it is."""
        states = [optimiser.state_dict() for optimiser in self.optimisers]
        content = {"model": self.model.state_dict(), "optimisers": states}
        save_checkpoint(self.file, {**content, "step": self.step, "spent": self.budget.spent})
        quality = f"{psnr(self.model, self.seen):.2f} dB concepts, {psnr(self.model, self.unseen):.2f} dB unseen"
        minutes = self.budget.spent / 60
        report(self.work, f"autoencoder {self.name}: saved step {self.step}, {minutes:.1f} min, {quality}")


@torch.no_grad()
def fold_normalisation(model: AutoencoderKL, pictures: Tensor) -> None:
    """Give each scaled latent channel zero mean and unit variance, by way of the 1x1 convolutions."""
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in pictures.split(8)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    scale = 1 / (std * SCALING_FACTOR)
    weight, bias, post_weight, post_bias = ends(model)
    weight[:4] *= scale.view(4, 1, 1, 1)
    bias[:4] = (bias[:4] - mean) * scale
    bias[4:] += 2 * scale.log()
    post_bias += post_weight[:, :, 0, 0] @ mean
    post_weight /= scale.view(1, 4, 1, 1)


def train(
    work: Path, minutes: float, decoder_minutes: float, start: Path | None = None, device: torch.device | None = None
) -> None:
    """Both phases, from random weights or from those of the model in `start`; the folded result is `work/vae`."""
    torch.manual_seed(0)
    icons = data.prepare(work)
    model = load_unfolded(start / "vae") if start else build()
    channels_last(model, device or torch.device("cpu"))
    report(work, f"autoencoder: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    Phase("main", work, model, icons, minutes).run()
    Phase("decoder", work, model, icons, decoder_minutes).run()
    rng = random.Random(3)
    fold_normalisation(model.cpu(), full_batch(icons, MIXED, rng, 480))
    model.save_pretrained(work / "vae")
    report(work, "autoencoder: saved")
