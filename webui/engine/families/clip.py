"""CLIP's text encoders: chunks of tokens to the context that a UNet attends to, with A1111's weights on it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.tensor_file import BadFile
from webui.core.text_encoders import has_open_clip_names
from webui.engine.embeddings import Embedding
from webui.engine.families.configs import Shapes, text_config
from webui.engine.families.family import Part, Spelling
from webui.engine.families.ldm import text_keys
from webui.engine.nets.clip import ClipText
from webui.engine.tokens import Chunk, Tokenizer

PADS_WITH_ZERO = ("SD 2.x", "SDXL refiner")
CLIP_WORDS = 49_408
ATTENTION_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_CLIPS = {"text_encoder": ("clip_l", "clip_h"), "text_encoder_2": ("clip_g",)}  # as ComfyUI, OneTrainer, OMI name them
_OTHERS = {
    "text_encoder": ("text_encoder_1_", "text_encoder_", "text_model_", "lycoris_text_model_"),
    "text_encoder_2": ("text_encoder_2_",),
}
_NUMBERS = {"text_encoder": ("te1", "te"), "text_encoder_2": ("te2",)}


def text_encoder(role: str) -> Part:
    """A CLIP text encoder as a part: ``text_encoder``, or with a projection ``text_encoder_2``."""
    return Part(
        role=role,
        title="text encoder" if role == "text_encoder" else "second text encoder",
        make=lambda config: ClipText(config, projects=role == "text_encoder_2"),
        config=partial(text_config, role),
        keys=text_keys,
        names=_names,
        lora_prefixes=(
            *_OTHERS[role],
            *(
                f"{start}{encoder}_{inner}"
                for start in ("text_encoders_", "lora_", "")
                for encoder in _CLIPS[role]
                for inner in ("transformer_", "")
            ),
            *(f"{program}_{name}_" for program in ("lora", "lycoris", "oft") for name in _NUMBERS[role]),
        ),
        spellings=_spellings,
        tokenizer=partial(_tokenizer, role),
    )


def _names(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> str:
    """OpenCLIP's where they are in a file with the original names, else transformers'."""
    return checkpoint.names if has_open_clip_names(shapes, prefix) else "diffusers"


def _spellings(path: str, _root: nn.Module) -> Iterator[Spelling]:
    """With ``text_model``, which transformers 5 has no more, and without; and old names of the attention's layers."""
    inner = path.removeprefix("text_model.")
    if not inner.startswith(("encoder.", "embeddings.", "final_layer_norm")):
        yield Spelling(path)
        return
    for name in (inner, f"text_model.{inner}"):
        yield Spelling(name)
        for old, new in ATTENTION_NAMES.items():
            if name.endswith(f"self_attn.{new}"):
                yield Spelling(name.removesuffix(new) + old)


def _tokenizer(role: str, folder: Path | None, checkpoint: Checkpoint, config: Mapping[str, Any]) -> Tokenizer:
    if folder:
        return Tokenizer.from_folder(folder / role.replace("text_encoder", "tokenizer"))
    if config["vocab_size"] != CLIP_WORDS:
        raise BadFile(f"has a text encoder of {config['vocab_size']} words, where CLIP's has {CLIP_WORDS}")
    zero = checkpoint.family in PADS_WITH_ZERO or role == "text_encoder_2"
    return Tokenizer.clip(pad=0 if zero else None)


def check_skip(clip_skip: int, layers: int) -> None:
    """Raises RequestError where the text encoder does not have so many layers to leave out."""
    if clip_skip > layers:
        raise RequestError(f"clip_skip {clip_skip} is more than this model's {layers} text layers", "clip_skip")


def encode(
    encoder: ClipText,
    component: str,
    chunks: Sequence[Chunk],
    layer: int,
    normalise: bool,
    embeddings: Mapping[str, Embedding],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The context, (1, chunks * length, width), and the first chunk's projection, (1, width), if there is one; float32.

    ``layer`` counts the encoder's hidden states from their end: -1 is the last one, -2 the one before. ``component`` is
    the encoder's name in each embedding's vectors. ``device`` is where it computes; None is where its weights are.
    """
    ids = torch.tensor([chunk.ids for chunk in chunks], device=device or encoder.device)

    def place(embedded: torch.Tensor) -> None:
        for number, chunk in enumerate(chunks):
            for position, name, row in chunk.vectors:
                embedded[number, position] = embeddings[name].vectors[component][row]

    context, pooled = encoder(ids, layer, normalise, place)
    weights = torch.tensor([chunk.weights for chunk in chunks], device=context.device)
    return weigh(context.float(), weights).flatten(0, 1)[None], None if pooled is None else pooled[:1].float()


def weigh(context: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiplies each token by its weight and each chunk back to the mean it had: A1111's "Original" emphasis.

    ``context`` is (chunks, length, width), ``weights`` (chunks, length). A chunk whose weights are all 1 stays exactly
    as it is; one whose mean is lost is not multiplied back.
    """
    weighted = context * weights[..., None]
    scale = context.mean(dim=(1, 2), keepdim=True) / weighted.mean(dim=(1, 2), keepdim=True)
    scale = torch.where(scale.isfinite(), scale, 1.0)
    plain = (weights == 1).all(dim=1)[:, None, None]
    return torch.where(plain, context, weighted * scale)
