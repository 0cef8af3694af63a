"""The denoising UNet and the text encoder, trained together on the latents."""

import random
from collections import deque
from pathlib import Path
from statistics import fmean

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import latents as latents_module
from . import tokenizer as tokenizer_module
from .captions import caption
from .concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES
from .optim import Average, half, load_states, make_optimisers, set_learning_rate, update
from .progress import Budget, Threads, load_checkpoint, report, save_checkpoint

TEXT_WIDTH = 192
BATCH = 64
MATRIX_LR, OTHER_LR = 1.5e-3, 1.5e-3
AVERAGE_DECAY = 0.998
SNR_LIMIT = 5.0
"""Loss weight min(1, limit / SNR): full where noise dominates, for there text decides the shape."""

NOISE_STEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that one average and one checkpoint hold both."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 160, 224),
            layers_per_block=1,
            norm_num_groups=16,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=(2, 5, 7),
        )
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=6,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
        self.text = CLIPTextModel(config)

    def forward(self, noisy: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity [n, 4, 16, 16] for noisy latents, steps [n] and token ids [n, 77]."""
        states = self.text(tokens).last_hidden_state
        return self.unet(noisy, steps, states).sample


def signal_levels() -> Tensor:
    """Cumulative product of alphas [1000] of the scaled-linear schedule."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NOISE_STEPS) ** 2
    return torch.cumprod(1 - betas, 0)


def stratified_steps(count: int) -> Tensor:
    """Random noise steps [count] that cover the schedule evenly."""
    return ((torch.arange(count) + torch.rand(count)) / count * NOISE_STEPS).long().clamp(max=NOISE_STEPS - 1)


def batch_captions(labels: Tensor, rng: random.Random) -> list[str]:
    """A caption drawn anew for each row of labels [n, 4]."""
    colours = list(COLOURS)
    return [caption(CONCEPTS[c], STYLES[s].name, colours[k], PLACEMENTS[p], rng) for c, s, k, p in labels.tolist()]


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids [n, 77], padded as the pipeline pads them."""
    options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    return tokenizer(captions, return_tensors="pt", **options).input_ids


def loss_of(model: Denoiser, clean: Tensor, tokens: Tensor, levels: Tensor) -> Tensor:
    """Weighted squared error of the velocity for clean latents [n, 4, 16, 16]."""
    steps = stratified_steps(len(clean))
    level = levels[steps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
    with half(), sdpa_kernel(SDPBackend.MATH):  # for so few tokens several times faster than flash attention's backward
        output = model(noisy, steps, tokens)
    error = (output.float() - velocity).square().mean((1, 2, 3))
    weight = (SNR_LIMIT * (1 - level) / level).clamp(max=1).flatten()
    return (weight * error).mean()


def train_step(
    model: Denoiser, optimisers: list[torch.optim.Optimizer], clean: Tensor, tokens: Tensor, levels: Tensor
) -> float:
    """One update; return the loss."""
    loss = loss_of(model, clean, tokens, levels)
    loss.backward()
    update(optimisers, model.parameters())
    return float(loss.detach())


def load_weights(model: Denoiser, tokenizer: CLIPTokenizer, start: Path) -> None:
    """Take over the weights of the model in `start`; a token it knew keeps its embedding, a new one stays random."""
    old = StableDiffusionPipeline.from_pretrained(start, dtype=torch.float32)
    model.unet.load_state_dict(old.unet.state_dict())
    states, table = old.text_encoder.state_dict(), model.text.get_input_embeddings().weight
    name = next(name for name in states if name.endswith("token_embedding.weight"))
    rows, known = states.pop(name), old.tokenizer.get_vocab()
    model.text.load_state_dict(states, strict=False)
    with torch.no_grad():
        for token, index in tokenizer.get_vocab().items():
            if token in known:
                table[index] = rows[known[token]]


def train(work: Path, minutes: float, start: Path | None = None, steps: int = 10**6, save_minutes: float = 3.0) -> None:
    """Train from random weights or those in `start`, or go on from `work/unet.pt`, which also holds their average."""
    torch.manual_seed(2)
    samples = latents_module.prepare(work)
    tokenizer = tokenizer_module.prepare(work / "tokenizer")
    model = Denoiser(len(tokenizer)).to(memory_format=torch.channels_last)
    if start:
        load_weights(model, tokenizer, start)
    optimisers = make_optimisers([model], MATRIX_LR, OTHER_LR)
    average = Average(model, AVERAGE_DECAY)
    file = work / "unet.pt"
    step, spent = 0, 0.0
    if state := load_checkpoint(file):
        model.load_state_dict(state["model"])
        average.values = state["average"]
        load_states(optimisers, state["optimisers"])
        step, spent = state["step"], state["spent"]
        torch.manual_seed(step)
    rng = random.Random(step)
    levels, threads = signal_levels(), Threads()
    budget, saved, losses = Budget(steps, minutes, spent), spent, deque(maxlen=100)
    order = torch.randperm(len(samples.latents))
    while (done := budget.progress(step)) < 1:
        set_learning_rate(optimisers, done, 0.3, step)
        if len(order) < BATCH:
            order = torch.randperm(len(samples.latents))
        rows, order = order[:BATCH], order[BATCH:]
        tokens = tokenize(tokenizer, batch_captions(samples.labels[rows], rng))
        clean = samples.latents[rows].contiguous(memory_format=torch.channels_last)
        losses.append(train_step(model, optimisers, clean, tokens, levels))
        step += 1
        average.update(model, step)
        threads.step()
        if step % 25 == 0:
            left = minutes * (1 - done)
            text = f"step {step}, {done:.1%}, loss {fmean(losses):.4f}, {threads.now} threads"
            report(work, f"unet: {text}, about {left:.0f} min left")
        if budget.spent - saved > 60 * save_minutes:
            save(file, model, average, optimisers, step, budget.spent)
            saved = budget.spent
    save(file, model, average, optimisers, step, budget.spent)
    report(work, f"unet: done, step {step}, {budget.spent / 60:.1f} min, loss {fmean(losses):.4f}")


def save(
    file: Path,
    model: Denoiser,
    average: Average,
    optimisers: list[torch.optim.Optimizer],
    step: int,
    spent: float,
) -> None:
    """Keep everything the training needs to go on, and what the export takes."""
    content = {"model": model.state_dict(), "average": average.values, "step": step, "spent": spent}
    content["optimisers"] = [optimiser.state_dict() for optimiser in optimisers]
    save_checkpoint(file, content)
