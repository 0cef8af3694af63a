"""The control `demo-reference`: an IP-Adapter with an image encoder of its own, by which the exported model draws what
a picture looks like.

IP-Adapter: Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models", with
h94's names. Nobody has an image encoder for pictures like these, so a small one of CLIP's form is trained with it.
First both learn to say of a picture what the text encoder says of its whole caption, which needs no UNet and so is
quick; then they learn from the noise that the frozen UNet takes out of pictures.
"""

import json
import random
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.clip import CLIPVisionConfig, CLIPVisionModelWithProjection

from webui.engine.controls.image_encoder import MEAN, STD

from . import data
from .concepts import STYLES
from .edges import FOLDER, noised
from .latents import Row, picture, row_caption
from .lora import frozen_denoiser, open_model
from .optim import Average, half, make_optimisers, set_learning_rate, update
from .progress import Budget, Threads, load_checkpoint, report, save_checkpoint
from .references import choose_rows, full_caption, prepare, small
from .unet import TEXT_WIDTH, Denoiser, signal_levels, tokenize

NAME, ENCODER = "demo-reference", "image_encoder"
WORDS_BATCH = 128
NOISE_BATCH = {"cpu": 32, "cuda": 256}
WORDS_LR, NOISE_LR = 4e-3, 1e-3
AVERAGE_DECAY = 0.99
NAMING = 0.1
WORDS_SHARE = 0.65
"""Share of the time in which it learns what the text encoder says."""
WORDS_PICTURES = 12_000
"""Combinations of thing, style, background and place that it learns the words of."""
EMPTY_SHARE, NOTHING_SHARE = 0.5, 0.1
"""Shares of pictures that are drawn without a caption, so that the reference decides, and without a reference."""
TOKENS, SUMMARY = 8, 256
WHITENING = 0.75
"""1 makes all components equally strong, 0 none stronger than it is."""
SIDE = 32
"""Of the picture that the encoder sees, in one patch: icons are told apart at that size, and few pictures teach it."""
CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "projection_dim": SUMMARY,
    "image_size": SIDE,
    "patch_size": SIDE,
    "hidden_act": "gelu",
}
SAVE_MINUTES = 0.5
SIZE_LIMIT = 4_000_000
"""Bytes that adapter and encoder may have together."""


Pairs = dict[str, tuple[Tensor, Tensor]]
"""Keys and values [n, TOKENS, width] by the numbers of the cross-attentions that they are for."""


class Projection(nn.Module):
    """A summary [n, SUMMARY] as tokens [n, TOKENS, TEXT_WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(SUMMARY, TOKENS * TEXT_WIDTH)
        self.norm = nn.LayerNorm(TEXT_WIDTH)

    def forward(self, summary: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(summary).unflatten(-1, (TOKENS, TEXT_WIDTH)))
        return tokens


class Pair(nn.Module):
    """Keys and values for one cross-attention; they begin as those that it makes of words."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (deepcopy(own).requires_grad_() for own in (layer.to_k, layer.to_v))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens [n, TOKENS, TEXT_WIDTH]: [n, TOKENS, width] each."""
        return self.to_k_ip(tokens), self.to_v_ip(tokens)


class Adapter(nn.Module):
    """What makes tokens of a picture and, of these, keys and values for each of a UNet's cross-attentions."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.image_proj = Projection()
        self.ip_adapter = nn.ModuleDict({number: Pair(layer) for number, layer in attentions(unet)})

    def forward(self, summary: Tensor) -> Pairs:
        """Of summaries [n, SUMMARY], keys and values by the layers' numbers."""
        tokens = self.image_proj(summary)
        return {number: pair(tokens) for number, pair in self.ip_adapter.items()}


class Looker(nn.Module):
    """Encoder and adapter."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**CONFIG))
        self.adapter = Adapter(unet)

    def forward(self, pictures: Tensor) -> Tensor:
        """Summaries [n, SUMMARY] of pictures [n, 3, SIDE, SIDE] in [0, 1]."""
        summary: Tensor = self.encoder(self.normalised(pictures)).image_embeds
        return summary

    @staticmethod
    def normalised(pictures: Tensor) -> Tensor:
        """As CLIP's encoders are shown them."""
        mean, std = (torch.tensor(one, device=pictures.device).view(3, 1, 1) for one in (MEAN, STD))
        return (pictures - mean) / std


def attentions(unet: nn.Module) -> list[tuple[str, Any]]:
    """The cross-attentions, by the numbers that files give them: odd ones on the way down, up, and in the middle."""
    layers = dict(unet.named_modules())
    names = [
        name for way in ("down_", "up_", "mid_") for name in layers if name.startswith(way) and name.endswith(".attn2")
    ]
    return [(str(2 * place + 1), layers[name]) for place, name in enumerate(names)]


class Beside:
    """A cross-attention that looks at the words and, beside them, at what `pairs` has for it."""

    def __init__(self, number: str, pairs: Pairs):
        self.number, self.pairs = number, pairs

    def __call__(self, layer: Any, states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Of tokens [n, length, width], the layer's output."""
        words = layer.to_k(encoder_hidden_states), layer.to_v(encoder_hidden_states)
        query = heads(layer.to_q(states), layer)
        found = torch.zeros_like(query)
        for pair in (words, self.pairs.get(self.number)):
            if pair:
                keys, values = (heads(one.to(query.dtype), layer) for one in pair)
                found = found + F.scaled_dot_product_attention(query, keys, values)
        output: Tensor = layer.to_out[0](found.transpose(1, 2).flatten(2))
        return output


def heads(tokens: Tensor, layer: Any) -> Tensor:
    """[n, length, width] as [n, heads, length, channels]."""
    output: Tensor = tokens.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    return output


def listen(unet: nn.Module) -> Pairs:
    """Have the UNet look beside the words at whatever is in the answer when it is called."""
    pairs: Pairs = {}
    for number, layer in attentions(unet):
        layer.set_processor(Beside(number, pairs))
    return pairs


class Words:
    """What the text encoder says at TOKENS places of whole captions: the thing's first and last word, the comma behind
    it, the style's two, colour, background and end."""

    def __init__(self, model: Denoiser, tokenizer: Any, icons: data.Icons):
        self.model, self.tokenizer, self.icons = model, tokenizer, icons
        self.comma, self.style = (tokenizer.convert_tokens_to_ids(word) for word in (",</w>", "style</w>"))
        self.known: dict[tuple[int, int], Tensor] = {}

    def of(self, rows: list[Row]) -> Tensor:
        """Of each row [n, TOKENS, TEXT_WIDTH]."""
        if new := [row for row in rows if (row.icon, row.colour) not in self.known]:
            for row, states in zip(new, self._say(new), strict=True):
                self.known[row.icon, row.colour] = states
        return torch.stack([self.known[row.icon, row.colour] for row in rows])

    @torch.no_grad()
    def _say(self, rows: list[Row]) -> Tensor:
        ids = tokenize(self.tokenizer, [full_caption(self.icons, row) for row in rows])
        longest = int((ids != self.tokenizer.pad_token_id).sum(1).max()) + 1  # what follows says nothing before it
        ids = ids[:, :longest].to(next(self.model.text.parameters()).device)
        states: Tensor = self.model.text(ids).last_hidden_state
        places = torch.tensor([self._places(row, one) for row, one in zip(rows, ids.tolist(), strict=True)])
        return states.gather(1, places.to(states.device)[..., None].expand(-1, -1, states.shape[-1]))

    def _places(self, row: Row, ids: list[int]) -> list[int]:
        end, comma, style = (ids.index(one) for one in (self.tokenizer.eos_token_id, self.comma, self.style))
        first = 2 if self.icons.thing(row.icon).article else 1
        return [min(first, comma - 1), comma - 1, comma, style - 1, style, end - 2, end - 1, end]


def seen(icons: data.Icons, rows: list[Row], rng: random.Random) -> Tensor:
    """Pictures [n, 3, SIDE, SIDE] of rows, drawn anew, as the encoder is shown them."""
    drawn = torch.stack([picture(icons, row, rng, 2 * SIDE) for row in rows])
    return F.interpolate(drawn, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)


@torch.no_grad()
def begin(looker: Looker, pictures: Tensor, said: Tensor) -> None:
    """Start near what can be had without training: an encoder that sees the principal components of pictures
    [n, 3, SIDE, SIDE], rare ones nearly as strong as common ones, and tokens that say the mean of `said`."""
    flat = looker.normalised(pictures).flatten(1)
    mean, layer = flat.mean(0), looker.encoder.vision_model.embeddings
    _, strengths, parts = torch.pca_lowrank(flat, CONFIG["hidden_size"], center=True)
    weight = parts.T * (len(flat) ** 0.5 / strengths).pow(WHITENING)[:, None]
    layer.patch_embedding.weight.copy_(weight.view_as(layer.patch_embedding.weight))
    layer.position_embedding.weight[1] -= weight @ mean
    looker.adapter.image_proj.proj.weight.mul_(0.2)
    looker.adapter.image_proj.proj.bias.copy_(said.mean(0).flatten())
    looker.adapter.image_proj.norm.bias.fill_(said.mean())


def words_loss(looker: Looker, naming: nn.Linear, pictures: Tensor, said: Tensor, things: Tensor) -> Tensor:
    """How far what pictures [n, 3, SIDE, SIDE] say is from what their captions say, [n, TOKENS, TEXT_WIDTH], and how
    badly `naming` tells by their summaries which of all `things` [n] they show, which teaches the encoder sooner."""
    with half(pictures.device):
        summary = looker(pictures)
        tokens, names = looker.adapter.image_proj(summary), naming(summary)
    loss: Tensor = (tokens.float() - said).square().mean() + NAMING * F.cross_entropy(names.float(), things)
    return loss


def noise_loss(
    model: Denoiser,
    pairs: Pairs,
    looker: Looker,
    clean: Tensor,
    pictures: Tensor,
    tokens: Tensor,
    levels: Tensor,
) -> Tensor:
    """Weighted squared error of the velocity for clean latents [n, 4, 16, 16] with references [n, 3, SIDE, SIDE]."""
    device = clean.device
    steps, noisy, velocity, weight = noised(clean, levels)
    with half(device), sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        summary = looker(pictures)
        summary = summary * (torch.rand(len(summary), 1, device=device) >= NOTHING_SHARE)
        pairs.update(looker.adapter(summary))
        with torch.no_grad():
            states = model.text(tokens).last_hidden_state
        output = model.unet(noisy, steps, states).sample
    pairs.clear()
    loss: Tensor = (weight * (output.float() - velocity).square().mean((1, 2, 3))).mean()
    return loss


def learn(
    looker: Looker,
    further: list[nn.Module],
    stage: str,
    loss_of_batch: Callable[[], Tensor],
    lr: float,
    minutes: float,
    work: Path,
) -> None:
    """Train with what is needed `further` for that long, or take what was learned from `work/reference-STAGE.pt`.

    Then the looker is its average over the steps.
    """
    file = work / f"reference-{stage}.pt"
    if (state := load_checkpoint(file)) and state["done"] >= 1:
        looker.load_state_dict(state["average"])
        return
    device = next(looker.parameters()).device
    optimisers, average = make_optimisers([looker, *further], lr, lr / 2), Average(looker, AVERAGE_DECAY)
    budget, threads, step, saved = Budget(10**6, minutes, device=device), Threads(), 0, 0.0
    losses: deque[float] = deque(maxlen=50)
    while (done := budget.progress(step)) < 1:
        set_learning_rate(optimisers, done, 0.3, step, warmup=30)
        loss = loss_of_batch()
        loss.backward()
        update(optimisers, (one for part in (looker, *further) for one in part.parameters()))
        step += 1
        average.update(looker, step)
        threads.step()
        losses.append(float(loss.detach()))
        if step % 25 == 0:
            text = f"step {step}, {done:.1%}, loss {fmean(losses):.4f}, {threads.now} threads"
            report(work, f"reference: {stage}: {text}, {budget.spent / 60:.1f} min")
        if budget.spent - saved > 60 * SAVE_MINUTES:
            save_checkpoint(file, {"average": average.values, "done": done})
            saved = budget.spent
    save_checkpoint(file, {"average": average.values, "done": 1.0})
    looker.load_state_dict(average.values)


def train(pipeline: StableDiffusionPipeline, work: Path, minutes: float) -> Looker:
    """Train encoder and adapter in both stages."""
    torch.manual_seed(31)
    device, rng = pipeline.device, random.Random(33)
    whole = data.prepare(work)
    shown, icons = prepare(work, whole, pipeline.vae), small(whole)
    model, levels = frozen_denoiser(pipeline), signal_levels().to(device)
    looker = Looker(model.unet).to(device)
    all_rows, said = choose_rows(icons, WORDS_PICTURES), Words(model, pipeline.tokenizer, icons)

    first = rng.sample(all_rows, 8 * WORDS_BATCH)
    begin(looker, seen(icons, first, rng).to(device), said.of(first))

    def of_words() -> Tensor:
        rows = rng.sample(all_rows, WORDS_BATCH)
        things = torch.tensor([row.icon // len(STYLES) for row in rows], device=device)
        return words_loss(looker, naming, seen(icons, rows, rng).to(device), said.of(rows), things)

    naming = nn.Linear(SUMMARY, len(icons.names) // len(STYLES)).to(device)
    learn(looker, [naming], "words", of_words, WORDS_LR, WORDS_SHARE * minutes, work)
    pairs = listen(model.unet)

    def of_noise() -> Tensor:
        places = rng.sample(range(len(shown.rows)), NOISE_BATCH[device.type])
        rows = [shown.rows[place] for place in places]
        captions = ["" if rng.random() < EMPTY_SHARE else row_caption(icons, row, rng) for row in rows]
        tokens, clean = tokenize(pipeline.tokenizer, captions).to(device), shown.latents[places].to(device)
        return noise_loss(model, pairs, looker, clean, seen(icons, rows, rng).to(device), tokens, levels)

    learn(looker, [], "noise", of_noise, NOISE_LR, (1 - WORDS_SHARE) * minutes, work)
    return looker.eval()


def description() -> dict[str, str]:
    """The adapter's metadata; the encoder says the same of `darkroom.image_encoder`, and so is found for it alone."""
    return {
        "format": "pt",
        "modelspec.architecture": "darkroom-demo/ip-adapter",
        "modelspec.title": "Reference",
        "modelspec.description": "Draws what a picture looks like: its thing, style and background.",
        "modelspec.author": "Darkroom",
        "modelspec.license": "Apache-2.0 AND MIT",
        "darkroom.image_encoder": NAME,
    }


def write(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    """Put a file of half precision in its place at once; return its size in bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    half_tensors = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    temporary.write_bytes(to_bytes(half_tensors, metadata))
    temporary.replace(file)
    return file.stat().st_size


def save(looker: Looker, folder: Path) -> int:
    """Write adapter and encoder as h94 has them, the encoder in a folder beside; return the bytes of both."""
    tensors = {name: one for name, one in looker.encoder.state_dict().items() if not name.endswith("position_ids")}
    size = write(folder / f"{NAME}.safetensors", looker.adapter.state_dict(), description())
    size += write(folder / ENCODER / "model.safetensors", tensors, {"format": "pt", "darkroom.image_encoder": NAME})
    config = {"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model", **CONFIG}
    (folder / ENCODER / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if size > SIZE_LIMIT:
        raise SystemExit(f"Adapter and encoder have {size:,} bytes; {SIZE_LIMIT:,} are allowed.")
    return size


def make(model: Path, work: Path, minutes: float, device: torch.device | None = None) -> None:
    """Train the control and its encoder into `model/controls` if it is not there yet."""
    folder = model / FOLDER
    if not (folder / f"{NAME}.safetensors").exists():
        looker = train(open_model(model, device), work, minutes)
        print(f"{save(looker, folder):,} bytes in {folder}")
