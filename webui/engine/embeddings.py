"""Textual inversion: files of vectors that stand in for the tokens of a word, by the text encoder they are for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from webui.core.file_kinds import recognize
from webui.core.names import is_word
from webui.core.tensor_file import BadFile, hash_file, read_header

MAX_ROWS = 75
"""As many as a chunk of the prompt has tokens."""

# The two encoders of SDXL, as A1111 and other programs name them in one file; older diffusers scripts counted them.
_COMPONENTS = {
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",
    "text_encoders_1": "text_encoder_2",
}


@dataclass(frozen=True)
class Embedding:
    """Vectors by diffusers' component name, each (rows, width) in float32."""

    name: str
    rows: int
    vectors: Mapping[str, torch.Tensor]
    content_hash: str


def read_embedding(name: str, path: Path) -> Embedding:
    """A safetensors file of A1111's or diffusers' making; raises BadFile.

    One tensor, (rows, width) or (width,), under any key is for ``text_encoder``; of two under keys that say nothing,
    the wider one is for ``text_encoder_2``.
    """
    shapes = read_header(path).shapes
    if (kind := recognize(shapes)) and kind.role not in ("embedding", "nothing"):
        raise BadFile(kind.reason)
    _name_components(shapes)  # what it is too large for is not read
    try:
        return make_embedding(name, load_file(path), hash_file(path).content)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror or error}") from None
    except (SafetensorError, LookupError):
        raise BadFile("is damaged: its tensors cannot be read") from None


def make_embedding(name: str, tensors: Mapping[str, torch.Tensor], content_hash: str) -> Embedding:
    """From one or two tensors, as in ``read_embedding``; raises BadFile."""
    components = _name_components({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    vectors = {component: _check(tensors[key]) for key, component in components.items()}
    return Embedding(name, len(vectors["text_encoder"]), vectors, content_hash)


def find_bundled(
    text: str, bundled: Mapping[str, Embedding], widths: Mapping[str, int]
) -> tuple[dict[str, Embedding], list[str]]:
    """Of ``bundled``, what LoRAs bring, by words in lower case: those that the text may name and fit; and warnings."""
    named = [embedding for word, embedding in bundled.items() if word in text.casefold()]
    found = {embedding.name: embedding for embedding in named if fits(embedding, widths)}
    left = [embedding.name for embedding in named if embedding.name not in found and is_word(embedding.name, text)]
    warning = "Embedding {} of a LoRA is for another kind of model and was read as plain words."
    return found, [warning.format(name) for name in left]


def fits(embedding: Embedding, widths: Mapping[str, int]) -> bool:
    """Whether it has vectors for all of a model's text encoders, given by name with their widths, and for no other."""
    return {component: tensor.shape[1] for component, tensor in embedding.vectors.items()} == dict(widths)


def _name_components(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Which component each key's tensor is for."""
    if len(shapes) not in (1, 2):
        raise BadFile(f"has {len(shapes):,} tensors; an embedding has one, or two for SDXL")
    for key, shape in shapes.items():
        if len(shape) not in (1, 2) or 0 in shape:
            raise BadFile(f"has a tensor {key[:80]!r} of shape {list(shape)}; an embedding's is rows by width")
        if len(shape) == 2 and shape[0] > MAX_ROWS:
            raise BadFile(f"has {shape[0]:,} rows; {MAX_ROWS} are allowed")
    if len(shapes) == 1:
        return {key: "text_encoder" for key in shapes}
    if len({shape[0] if len(shape) == 2 else 1 for shape in shapes.values()}) > 1:
        raise BadFile("has tensors of unequal numbers of rows")
    named = {key: _COMPONENTS[key] for key in shapes if key in _COMPONENTS}
    if set(named.values()) == set(_COMPONENTS.values()):
        return named
    narrow, wide = sorted(shapes, key=lambda key: shapes[key][-1])
    if shapes[narrow][-1] == shapes[wide][-1]:
        raise BadFile("has two tensors of one width; which text encoder each is for cannot be told")
    return {narrow: "text_encoder", wide: "text_encoder_2"}


def _check(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as (rows, width) in float32."""
    if not tensor.is_floating_point():
        raise BadFile(f"has numbers of type {str(tensor.dtype).removeprefix('torch.')}; an embedding's are floats")
    vectors: torch.Tensor = torch.atleast_2d(tensor).float()
    if not vectors.isfinite().all():
        raise BadFile("has numbers that are not finite")
    return vectors
