"""Image encoders (CLIP vision), told from their files' headers. Nothing here imports torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from webui.core.file_kinds import recognize
from webui.core.tensor_file import BadFile, read_header
from webui.core.weight_files import weight_files

TOWER = "vision_model."
"""What the keys of the tower begin with in transformers' files."""
CONFIG = "config.json"
HEADS: Mapping[int, tuple[int, str]] = {
    768: (12, "quick_gelu"),  # OpenAI's ViT-B
    1024: (16, "quick_gelu"),  # OpenAI's ViT-L
    1280: (16, "gelu"),  # OpenCLIP's ViT-H
    1664: (16, "gelu"),  # OpenCLIP's ViT-bigG
}
"""By width what shapes do not tell: how many heads there are, and the activation."""
MAX_SIDE_PX = 1024
SERVES = "darkroom.image_encoder"
"""In a header of an IP-Adapter and of its own encoder, the same word where nothing else fits either."""


@dataclass(frozen=True)
class ClipVisionShape:
    """What an encoder is built from: ``width`` of its tokens, ``inner`` that within its layers, ``projected`` that of
    the summary; ``side_px`` of the picture that it takes, in patches of ``patch_px``. ``prefix`` is what the keys of
    its tower begin with. ``serves`` names the adapters that it is for, where it says so."""

    width: int
    inner: int
    layers: int
    heads: int
    projected: int
    patch_px: int
    side_px: int
    activation: str
    prefix: str = TOWER
    serves: str = ""

    @property
    def config(self) -> Mapping[str, int | str]:
        """The same in the fields of transformers' CLIPVisionConfig."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "projection_dim": self.projected,
            "patch_size": self.patch_px,
            "image_size": self.side_px,
            "hidden_act": self.activation,
        }


def weights_of(path: Path) -> tuple[Path, ...]:
    """The files of weights of an encoder, which is one or a folder of transformers'."""
    return tuple(file for files in weight_files(path).values() for file in files)


def read_clip_vision(path: Path) -> ClipVisionShape:
    """What an encoder in a file or a folder is built from; raises BadFile with the reason where it is none."""
    if not (weights := weights_of(path)):
        raise BadFile("has no weights as safetensors")
    headers = [read_header(file) for file in weights]
    shapes = {key: shape for header in headers for key, shape in header.shapes.items()}
    prefix = next((prefix for prefix in (TOWER, "") if f"{prefix}embeddings.patch_embedding.weight" in shapes), None)
    if prefix is None:
        kind = recognize(shapes)
        is_other = kind is not None and "CLIP vision" not in kind.name
        raise BadFile(kind.reason if kind and is_other else "is not an image encoder in transformers' names")
    try:
        width, colours, patch, _ = shapes[f"{prefix}embeddings.patch_embedding.weight"]
        positions = shapes[f"{prefix}embeddings.position_embedding.weight"][0]
        inner = shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0]
        projected = shapes["visual_projection.weight"][0]
    except (KeyError, ValueError, IndexError):
        raise BadFile("lacks parts of an image encoder") from None
    layers = len({key for key in shapes if key.startswith(f"{prefix}encoder.") and key.endswith(".mlp.fc1.weight")})
    heads, activation = _told(weights[0].with_name(CONFIG)) or HEADS.get(width, (0, ""))
    across = isqrt(max(positions - 1, 0))
    whole = across * across == positions - 1 and 0 < across * patch <= MAX_SIDE_PX and colours == 3
    if not whole or heads < 1 or width % heads or activation not in ("gelu", "quick_gelu"):
        raise BadFile(f"is an image encoder of a size that is not known here ({width} wide)")
    serves = headers[0].metadata.get(SERVES, "")
    return ClipVisionShape(width, inner, layers, heads, projected, patch, across * patch, activation, prefix, serves)


def _told(config: Path) -> tuple[int, str] | None:
    """Heads and activation, where a configuration lies beside the weights."""
    try:
        said = json.loads(config.read_text("utf-8"))
        said = said.get("vision_config") or said
        return int(said["num_attention_heads"]), str(said.get("hidden_act", "quick_gelu"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
