"""The models that peers are measured with, each as a diffusers folder and as a single file in LDM's names."""

import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

UNET = {"sample_size": 64, "cross_attention_dim": 768}
VAE = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
TEXT: Mapping[str, Any]
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
NONE = [None, None]
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": NONE,
    "feature_extractor": NONE,
    "image_encoder": NONE,
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


def sd15(root: Path = CACHE) -> Models:
    """A model of SD 1.5's size: 1.07 billion random weights in float16, 2.1 GB in each form."""
    models = Models(cache_folder(root) / "sd15", root / "sd15.safetensors")
    if not models.file.is_file():
        part = models.file.with_suffix(".part")
        write_random(part, "sd15")
        part.rename(models.file)
    if not models.folder.is_dir():
        with tempfile.TemporaryDirectory(dir=root) as folder:
            write_configs(Path(folder, "configs"))
            pipe = StableDiffusionPipeline.from_single_file(
                str(models.file),
                config=str(Path(folder, "configs")),
                torch_dtype=torch.float16,
                local_files_only=True,
                safety_checker=None,
            )
            pipe.save_pretrained(Path(folder, "sd15"))
            shutil.move(Path(folder, "sd15"), models.folder)
    return models


def of_size(size: str) -> Models:
    """The model for ``--size``: ``demo`` or ``sd15``."""
    return demo() if size == "demo" else sd15()


def offer(size: str, data_dir: Path) -> str:
    """Has a data folder offer the model of that size; its name there."""
    if size != "demo":  # which is offered everywhere
        folder = data_dir / "models/checkpoints"
        folder.mkdir(parents=True)
        (folder / size).symlink_to(of_size(size).folder.resolve())
    return size


def write_configs(folder: Path) -> None:
    """What diffusers wants to find beside a single file: a folder like the published one, without weights."""
    with torch.device("meta"):
        UNet2DConditionModel(**UNET).save_config(folder / "unet")
        AutoencoderKL(**VAE).save_config(folder / "vae")
    CLIPTextConfig(vocab_size=49408, **TEXT).save_pretrained(folder / "text_encoder")
    merges = gzip.decompress(Path(tokens.__file__).with_name("clip_vocabulary").joinpath("merges.txt.gz").read_bytes())
    pairs: Any = [tuple(line.split()) for line in merges.decode("utf-8").splitlines()]  # annotated as words there
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs), tokens.START, tokens.END]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77).save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(BETAS), "utf-8")
    (folder / "model_index.json").write_text(json.dumps(INDEX), "utf-8")
