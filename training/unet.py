"""The denoising UNet and the text encoder, trained together on the latents."""

import random
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers.models import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from webui.core.prompt import parse_weights
from webui.engine.families.clip import weigh
from webui.engine.tokens import Tokenizer, split_chunks

from . import data
from . import latents as latents_module
from . import tokenizer as tokenizer_module
from .latents import LatentSet, row_caption
from .optim import Average, channels_last, half, load_states, make_optimisers, set_learning_rate, update
from .progress import Budget, Threads, load_checkpoint, report, save_checkpoint, workers

TEXT_WIDTH = 192
BATCH = {"cpu": 64, "cuda": 512}
LARGE_EVERY = 8
"""Of so many steps one is on a quarter as many pictures of twice the side."""
MATRIX_LR, OTHER_LR = 1.5e-3, 1.5e-3
AVERAGE_DECAY = {"cpu": 0.998, "cuda": 0.999}
TEXT_MEAN = 0.25
"""Mean of all numbers that the text encoder says, beside their standard deviation of about 1."""
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

    def forward(self, noisy: Tensor, steps: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        """Predicted velocity [n, 4, h, w] for noisy latents, steps [n], token ids [n, 77] and their weights [n, 77]."""
        states = self.text(tokens).last_hidden_state
        if weights is not None:
            states = weigh(states.float(), weights)
        velocity: Tensor = self.unet(noisy, steps, states).sample
        return velocity

    @torch.no_grad()
    def lift_text(self) -> None:
        """Give what the text encoder says the mean `TEXT_MEAN` and keep it there, without changing any picture.

        Emphasis divides by that mean (`webui.engine.families.clip.weigh`), which would otherwise be nearly zero. A
        constant on every token leaves attention's weights alone and adds the same to every value; the layer behind
        takes it away again.
        """
        norm = next(module for name, module in self.text.named_modules() if name.endswith("final_layer_norm"))
        lift = TEXT_MEAN - norm.bias.mean()
        norm.bias += lift
        norm.bias.requires_grad_(False)
        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):
                module.to_out[0].bias -= module.to_out[0].weight @ module.to_v.weight.sum(1) * lift


def signal_levels() -> Tensor:
    """Cumulative product of alphas [1000] of the scaled-linear schedule."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NOISE_STEPS) ** 2
    return torch.cumprod(1 - betas, 0)


def stratified_steps(count: int, device: torch.device | None = None) -> Tensor:
    """Random noise steps [count] that cover the schedule evenly."""
    places = torch.arange(count, device=device) + torch.rand(count, device=device)
    return (places / count * NOISE_STEPS).long().clamp(max=NOISE_STEPS - 1)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids [n, 77] without the captions' weights, padded as the pipeline pads them."""
    options: dict[str, Any] = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    texts = ["".join(words.text for words in parse_weights(text)) for text in captions]
    ids: Tensor = tokenizer(texts, return_tensors="pt", **options).input_ids
    return ids


class Batches(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless batches of places in a set of pictures [n] with a caption's token ids and weights for each, [n, 77].

    Captions are drawn anew each time; their weights are read, and they are cut into tokens, as the product does it.
    """

    def __init__(self, samples: LatentSet, icons: data.Icons, tokenizer: Path, batch: int, seed: int):
        self.samples, self.icons, self.tokenizer = samples, icons, Tokenizer.from_folder(tokenizer)
        self.batch, self.seed = batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        worker = get_worker_info()
        rng = random.Random(1000 * self.seed + (worker.id if worker else 0))
        order: list[int] = []
        while True:
            if len(order) < self.batch:
                order = list(range(len(self.samples.rows)))
                rng.shuffle(order)
            rows, order = order[: self.batch], order[self.batch :]
            captions = [row_caption(self.icons, self.samples.row(row), rng) for row in rows]
            chunks = [split_chunks(text, self.tokenizer)[0] for text in captions]
            tokens, weights = (torch.tensor([getattr(c, name) for c in chunks]) for name in ("ids", "weights"))
            yield torch.tensor(rows), tokens, weights


def loss_of(model: Denoiser, clean: Tensor, tokens: Tensor, levels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted squared error of the velocity for clean latents [n, 4, h, w]."""
    device = clean.device
    steps = stratified_steps(len(clean), device)
    level = levels[steps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
    # on a CPU, for so few tokens, plain products are several times faster than flash attention's backward
    with half(device), sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        output: Tensor = model(noisy, steps, tokens, weights)
    error = (output.float() - velocity).square().mean((1, 2, 3))
    weight = (SNR_LIMIT * (1 - level) / level).clamp(max=1).flatten()
    return (weight * error).mean()


class Stepper:
    """Training steps on pictures of one side. On CUDA a step is recorded once, as a graph, and then replayed."""

    WARM_UP = 3

    def __init__(self, model: Denoiser, optimisers: list[torch.optim.Optimizer], samples: LatentSet, levels: Tensor):
        self.model, self.optimisers, self.levels = model, optimisers, levels
        self.device = levels.device
        self.latents = samples.latents.to(self.device)
        self.count = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rows: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """One update with the pictures at `rows` [n]; return the loss, which on CUDA the next step overwrites."""
        inputs = [part.to(self.device, non_blocking=True) for part in (rows, tokens, weights)]
        self.count += 1
        if self.device.type == "cpu":
            return self.update(*inputs)
        if self.count <= self.WARM_UP:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                loss = self.update(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            return loss
        if self.graph is None:
            self.inputs, self.graph = inputs, torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # others pin memory meanwhile
                self.loss = self.update(*inputs)
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.loss

    def update(self, rows: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """Forward, backward and the optimisers' step."""
        clean = self.latents[rows].contiguous(memory_format=torch.channels_last)
        loss = loss_of(self.model, clean, tokens, self.levels, weights)
        loss.backward()
        update(self.optimisers, self.model.parameters())
        return loss.detach()


def load_weights(model: Denoiser, tokenizer: CLIPTokenizer, start: Path) -> None:
    """Take over the weights of the model in `start`; a token it knew keeps its embedding, a new one stays random."""
    old = StableDiffusionPipeline.from_pretrained(start, dtype=torch.float32)
    model.unet.load_state_dict(old.unet.state_dict())
    states, table = old.text_encoder.state_dict(), model.text.get_input_embeddings().get_parameter("weight")
    name = next(name for name in states if name.endswith("token_embedding.weight"))
    rows, known = states.pop(name), old.tokenizer.get_vocab()
    model.text.load_state_dict(states, strict=False)
    with torch.no_grad():
        for token, index in tokenizer.get_vocab().items():
            if token in known:
                table[index] = rows[known[token]]


def train(
    work: Path,
    minutes: float,
    start: Path | None = None,
    steps: int = 10**6,
    save_minutes: float = 3.0,
    device: torch.device | None = None,
) -> None:
    """Train from random weights or those in `start`, or go on from `work/unet.pt`, which also holds their average."""
    torch.manual_seed(2)
    device = device or torch.device("cpu")
    icons = data.prepare(work)
    sets = [latents_module.prepare(work, side, device) for side in latents_module.SIDES]
    tokenizer = tokenizer_module.prepare(work / "tokenizer")
    model = Denoiser(len(tokenizer))
    if start:
        load_weights(model, tokenizer, start)
    model.lift_text()
    channels_last(model, device)
    optimisers = make_optimisers([model], MATRIX_LR, OTHER_LR)
    average = Average(model, AVERAGE_DECAY[device.type])
    file = work / "unet.pt"
    step, spent = 0, 0.0
    if state := load_checkpoint(file):
        model.load_state_dict(state["model"])
        average.values = {name: value.to(device) for name, value in state["average"].items()}
        load_states(optimisers, state["optimisers"])
        step, spent = state["step"], state["spent"]
        torch.manual_seed(step)
    batch = BATCH[device.type]
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers(), "pin_memory": device.type == "cuda"}
    loaders = []
    for samples, size in zip(sets, (batch, batch // 4), strict=True):
        loaders.append(iter(DataLoader(Batches(samples, icons, work / "tokenizer", size, step), **options)))
    levels, threads = signal_levels().to(device), Threads()
    steppers = [Stepper(model, optimisers, samples, levels) for samples in sets]
    budget, saved = Budget(steps, minutes, spent, device), spent
    losses: deque[float] = deque(maxlen=20)
    while (done := budget.progress(step)) < 1:
        set_learning_rate(optimisers, done, 0.3, step)
        kind = step % LARGE_EVERY == LARGE_EVERY - 1
        loss = steppers[kind](*next(loaders[kind]))
        step += 1
        average.update(model, step)
        threads.step()
        if step % 10 == 0 and not kind:
            losses.append(float(loss))
        if step % 100 == 0:
            left = minutes * (1 - done)
            text = f"step {step}, {done:.1%}, loss {fmean(losses):.4f}, {threads.now} threads"
            report(work, f"unet: {text}, about {left:.0f} min left")
        if budget.spent - saved > 60 * save_minutes:
            save(file, model, average, optimisers, step, budget.spent)
            saved = budget.spent
    save(file, model, average, optimisers, step, budget.spent)
    report(work, f"unet: done, step {step}, {budget.spent / 60:.1f} min, loss {fmean(losses or [0.0]):.4f}")


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
