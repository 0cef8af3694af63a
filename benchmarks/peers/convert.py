"""The models that peers are measured with, each as a diffusers folder and as a single file in LDM's names."""

import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import save_file
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.clip import CLIPTextConfig, CLIPTokenizer

from benchmarks.peers import Models
from benchmarks.peers.environments import CACHE, cache_folder
from tests.checkpoints import BETAS, to_ldm, write_random
from webui.engine import tokens
from webui.library.library import DEMO_MODEL

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
CLIP: Mapping[str, Any]
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
NONE = [None, None]
INDEX = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


@dataclass(frozen=True)
class Configs:
    """What diffusers is told of a kind of model: of its UNet, of its VAE besides ``VAE``, and of its text encoders."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    texts: Sequence[Mapping[str, Any]]
    index: Mapping[str, Any]


def _xl(width: int, depths: Sequence[int], *texts: tuple[int, int]) -> Configs:
    """SDXL's build: a UNet whose first level is so wide, with heads of 64; text encoders' widths and layers."""
    clip, open_clip = ({"hidden_size": wide, "num_hidden_layers": layers} for wide, layers in texts)
    both = [
        {**one, "intermediate_size": 4 * one["hidden_size"], "num_attention_heads": one["hidden_size"] // 64}
        for one in (clip, open_clip)
    ]
    summary = open_clip["hidden_size"]
    unet = {
        "sample_size": 128,
        "block_out_channels": (width, 2 * width, 4 * width),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, *depths),
        "attention_head_dim": (width // 64, width // 32, width // 16),
        "cross_attention_dim": clip["hidden_size"] + summary,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": summary + 6 * 256,
    }
    index = INDEX | {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    vae = {"sample_size": 1024, "scaling_factor": 0.13025}
    return Configs(unet, vae, [both[0], both[1] | {"projection_dim": summary, "hidden_act": "gelu"}], index)


CONFIGS = {
    "sd15": Configs(
        {"sample_size": 64, "cross_attention_dim": 768},
        {"sample_size": 512},
        [CLIP],
        INDEX | {"_class_name": "StableDiffusionPipeline", "safety_checker": NONE, "feature_extractor": NONE},
    ),
    "sdxl": _xl(320, (2, 10), (768, 12), (1280, 32)),
    "sdxl-small": _xl(64, (1, 2), (64, 2), (128, 3)),
}


def demo(root: Path = CACHE) -> Models:
    """The demo model."""
    file = cache_folder(root) / "demo.safetensors"
    if not file.is_file():
        pipe = StableDiffusionPipeline.from_pretrained(DEMO_MODEL, torch_dtype=torch.float16, local_files_only=True)
        part = file.with_suffix(".part")
        save_file(to_ldm(pipe.unet, pipe.vae, pipe.text_encoder), part)
        part.rename(file)
    return Models(DEMO_MODEL, file)


def random(kind: str, root: Path = CACHE) -> Models:
    """A model of a kind in ``CONFIGS``, of random weights in float16, once: 2.1 GB in each form of SD 1.5's size (1.07
    billion), 6.9 GB of SDXL's (3.47 billion)."""
    models = Models(cache_folder(root) / kind, root / f"{kind}.safetensors")
    if not models.file.is_file():
        part = models.file.with_suffix(".part")
        write_random(part, kind)
        part.rename(models.file)
    if not models.folder.is_dir():
        with tempfile.TemporaryDirectory(dir=root) as folder:
            write_configs(Path(folder, "configs"), kind)
            pipe = getattr(diffusers, CONFIGS[kind].index["_class_name"]).from_single_file(
                str(models.file),
                config=str(Path(folder, "configs")),
                torch_dtype=torch.float16,
                local_files_only=True,
                **({"safety_checker": None} if kind == "sd15" else {}),
            )
            pipe.save_pretrained(Path(folder, kind))
            shutil.move(Path(folder, kind), models.folder)
    return models


def of_size(size: str) -> Models:
    """The model for ``--size``: ``demo``, or a kind in ``CONFIGS``."""
    return demo() if size == "demo" else random(size)


def offer(size: str, data_dir: Path) -> str:
    """Has a data folder offer the model of that size; its name there."""
    if size != "demo":  # which is offered everywhere
        folder = data_dir / "models/checkpoints"
        folder.mkdir(parents=True)
        (folder / size).symlink_to(of_size(size).folder.resolve())
    return size


def write_configs(folder: Path, kind: str = "sd15") -> None:
    """What diffusers wants to find beside a single file: a folder like the published one, without weights."""
    configs = CONFIGS[kind]
    with torch.device("meta"):
        UNet2DConditionModel(**configs.unet).save_config(folder / "unet")
        AutoencoderKL(**VAE, **configs.vae).save_config(folder / "vae")
    merges = gzip.decompress(Path(tokens.__file__).with_name("clip_vocabulary").joinpath("merges.txt.gz").read_bytes())
    pairs: Any = [tuple(line.split()) for line in merges.decode("utf-8").splitlines()]  # annotated as words there
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs), tokens.START, tokens.END]
    vocabulary = {word: number for number, word in enumerate(words)}
    for text, ending, filler in zip(configs.texts, ("", "_2"), (tokens.END, "!"), strict=False):
        CLIPTextConfig(vocab_size=49408, **text).save_pretrained(folder / f"text_encoder{ending}")
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77, pad_token=filler)
        tokenizer.save_pretrained(folder / f"tokenizer{ending}")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(BETAS), "utf-8")
    (folder / "model_index.json").write_text(json.dumps(configs.index), "utf-8")
