"""``Family``: what torch makes of a kind of model, as a row with functions. A family is one file with such a row."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.files import VaeFile
from webui.core.images import Size
from webui.engine.embeddings import Embedding
from webui.engine.families.base import Autoencoder, Backbone, Conditioning
from webui.engine.weights import Files, Key, WeightLoader

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Spelling:
    """What a program calls a module; of a tensor that holds several, ``rows`` are its own: (first, behind last), and
    so on where they lie in several pieces.
    """

    name: str
    rows: tuple[int, ...] | None = None


def own_path(path: str, _root: nn.Module) -> Iterator[Spelling]:
    """For parts that every program calls as diffusers does."""
    yield Spelling(path)


def own_keys(parameter: str, _root: nn.Module, _names: str, prefix: str) -> Iterator[Key]:
    """For parts whose files have diffusers' or transformers' names alone."""
    yield Key(prefix + parameter)


def names_of_file(checkpoint: Checkpoint, _shapes: Shapes, _prefix: str) -> str:
    """For parts that are always named as the rest of their file is."""
    return checkpoint.names


def wanted_dtype(_config: Config, dtype: torch.dtype) -> torch.dtype:
    """For parts that compute in any format."""
    return dtype


def without_float16(_config: Config, dtype: torch.dtype) -> torch.dtype:
    """For parts that were trained in bfloat16, and whose states leave float16's range."""
    return torch.bfloat16 if dtype == torch.float16 else dtype


@dataclass(frozen=True)
class Part:
    """One network of a family.

    ``role`` is what it is called in all of Darkroom: ``backbone``, ``vae``, what reads words begins with ``text``;
    ``title`` is for people. ``make`` builds it from its configuration, without weights; ``config`` says that for a
    single file (what the file is, all its shapes, what the part's keys begin with), a folder has a config.json.
    ``keys`` are where a parameter may be found, likeliest first (its path, the network, whose names, what keys begin
    with), ``names`` whose names the part has. ``spellings`` are what LoRA files call a module of it, and
    ``lora_prefixes`` what they put before that, with underscores for dots. ``tokenizer`` makes what turns text into
    its numbers (the model's folder, or None; what it is; the part's configuration).
    """

    role: str
    title: str
    make: Callable[[Config], nn.Module]
    config: Callable[[Checkpoint, Shapes, str], Config]
    keys: Callable[[str, nn.Module, str, str], Iterator[Key]] = own_keys
    names: Callable[[Checkpoint, Shapes, str], str] = names_of_file
    lora_prefixes: tuple[str, ...] = ()
    spellings: Callable[[str, nn.Module], Iterator[Spelling]] = own_path
    dtype: Callable[[Config, torch.dtype], torch.dtype] = wanted_dtype
    tokenizer: Callable[[Path | None, Checkpoint, Config], Any] | None = None
    changeable: bool = True
    """Whether LoRAs change it."""


def shift_of(config: Config, tokens: int, _steps: int) -> float:
    """By how much flow's schedule is shifted, as diffusers' configurations say it: fixed, or by a picture's tokens.

    Where it goes by them, the logarithm is on a line through two points (Esser et al. 2024, section 5.3.2), or, where
    its type is linear, the shift itself.
    """
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    first, last = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = float(least + (most - least) * (tokens - first) / (last - first))
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def flow_config(checkpoint: Checkpoint, config: Config | None, usual: Config | None = None) -> Config:
    """The configuration of flow's noise: the folder's; of a single file, or where a form was chosen, the form's.

    ``usual`` is what a single file of a kind without forms has.
    """
    form = checkpoint.formed
    own = form.scheduler if form and (config is None or checkpoint.form_chosen) else {}
    return {**(usual or {} if config is None else config), **own, "prediction_type": "flow_prediction"}


@dataclass(frozen=True)
class LatentFormat:
    """``channels`` of the latents, of which ``patch`` x ``patch`` are one of a transformer's tokens.

    ``rgb`` and ``rgb_offset`` are the linear map from them to RGB in -1..1 that previews are made with, (channels, 3)
    and (3,). ``packs_noise`` says that noise is drawn for patches, each with all numbers of its latents as channels,
    as the family's own programs draw it: a seed means the same picture there.
    """

    channels: int
    rgb: tuple[tuple[float, ...], ...]
    rgb_offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    patch: int = 1
    packs_noise: bool = False


@dataclass(frozen=True)
class EncodeOptions:
    """How a prompt is read: ``clip_skip`` as A1111 counts it, embeddings by name, whether it is the negative one."""

    clip_skip: int = 1
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    negative: bool = False


@dataclass
class Parts:
    """The loaded networks of a model by role, and what goes with them. They compute on ``device``."""

    checkpoint: Checkpoint
    modules: dict[str, Any]
    device: torch.device
    tokenizers: Mapping[str, Any] = field(default_factory=dict)
    pipeline_config: Config = field(default_factory=dict)

    def __getitem__(self, role: str) -> Any:
        return self.modules[role]


def as_encoded(_parts: Parts, prompt: Conditioning, _size: Size, _guidance: float, _negative: bool) -> Conditioning:
    """For backbones that are told nothing but the words."""
    return prompt


@dataclass(frozen=True)
class Family:
    """How models of some ``kinds`` are loaded and asked. Of ``parts`` those are loaded that the kind has.

    ``scheduler`` is the noise it was trained on, as diffusers configures it (what it is; what its folder says, or
    None for a single file). ``encode`` makes of a text what the backbone is told, one row, and raises RequestError for
    options that do not go; ``condition`` adds what it is told of a picture of this (width, height) at this guidance.
    ``backbone`` and ``autoencoder`` put the networks behind their signatures. ``lone_vae`` finds an autoencoder in a
    file of its own, for this format; it raises BadFile. ``shift`` is that of flow's schedule (its noise, a
    picture's tokens, steps). ``is_unet`` says that the backbone is our UNet, which
    can be compiled and recorded.
    """

    kinds: tuple[str, ...]
    parts: tuple[Part, ...]
    latents: LatentFormat
    scheduler: Callable[[Checkpoint, Config | None], Config]
    encode: Callable[[Parts, str, EncodeOptions], Conditioning]
    backbone: Callable[[Parts], Backbone]
    autoencoder: Callable[[Parts], Autoencoder]
    lone_vae: Callable[[VaeFile, Files, Checkpoint, torch.dtype], tuple[WeightLoader, torch.dtype]]
    condition: Callable[[Parts, Conditioning, Size, float, bool], Conditioning] = as_encoded
    shift: Callable[[Config, int, int], float] = shift_of
    is_unet: bool = False
