"""What a LoRA's file brings besides its weights."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from webui.core.checkpoint import Checkpoint
from webui.core.file_kinds import recognize
from webui.core.tensor_file import Header, read_header

MAX_TEXT = 2_000
MAX_SIDECAR_BYTES = 2**20
UNET_BLOCK = re.compile(r"(^|[._])(down|up|mid|input|output|middle)_blocks?[._]")
ARCHITECTURES = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL refiner", 2048: "SDXL"}
"""By the width of the text that a UNet attends to."""
_READS = re.compile(r"\.(?:lora_down|lora_A|(?:lora\.|lora_linear_layer\.)?down|q_layer)\.weight$|\.hada_w1_b$")
ALL_LEVELS = 1000
_RANGE = re.compile(r"[\[(]?\s*(\d{1,6})\s*,\s*(\d{1,6})\s*[\])]?", re.ASCII)
_BUNDLED = re.compile(
    r"bundle_emb\.(?P<name>[^.]{1,200})\.(?P<vectors>clip_[lg]|emb_params|text_encoders_[01]|string_to_param\..+)"
)


def made_for(metadata: Mapping[str, str]) -> str:
    """The architecture that a file says it was made for; empty where it does not."""
    said = (metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", ""))
    return next((short_text(text, 80) for text in said if text.strip()), "")


def noise_levels(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """From which to which level of noise, of 1000, a LoRA was trained, as modelspec says it; None for all of them.

    The first steps are those of the highest levels.
    """
    if not (found := _RANGE.fullmatch(metadata.get("modelspec.timestep_range", "").strip())):
        return None
    least, most = (int(level) for level in found.groups())
    most = ALL_LEVELS if most >= ALL_LEVELS - 1 else most  # some count them from 0
    return (least, most) if least < most and most - least < ALL_LEVELS else None


def text_widths(shapes: Mapping[str, tuple[int, ...]]) -> set[int]:
    """How wide the texts are that the UNet of a LoRA's model attends to; none where the LoRA does not change that."""
    asking = (key for key in shapes if "attn2" in key and "to_k" in key and UNET_BLOCK.search(key))
    return {shapes[key][1] for key in asking if len(shapes[key]) >= 2 and _READS.search(key)}


def name_width(width: int) -> str:
    """A model with a UNet by the width of its texts, as people call it."""
    return ARCHITECTURES.get(width, f"a model with texts {width} wide")


def name_widest(widths: Iterable[int], metadata: Mapping[str, str]) -> str:
    """What a LoRA with these ``text_widths`` was made for: by its UNet, else as the file says."""
    width = max(widths)
    return ARCHITECTURES.get(width) or made_for(metadata) or name_width(width)


def check_family(header: Header, checkpoint: Checkpoint) -> str:
    """Why a LoRA is not for a model, where its names and shapes alone tell; else nothing."""
    widths, has_unet = text_widths(header.shapes), checkpoint.family in ARCHITECTURES.values()
    model = name_width(checkpoint.context_width) if has_unet else checkpoint.family
    if widths and not (has_unet and checkpoint.context_width in widths):
        return f"is made for {name_widest(widths, header.metadata)}, but this model is {model}"
    kind = recognize(header.shapes)
    if has_unet and kind and kind.role == "LoRA" and kind.family:
        return f"is made for {kind.family}, but this model is {model}"
    return ""


def bundled_embeddings(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """The keys of the embeddings' vectors in a LoRA's file, ``bundle_emb.NAME.VECTORS``, by name and by vectors."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        if bundled := _BUNDLED.fullmatch(key):
            found.setdefault(bundled["name"], {})[bundled["vectors"]] = key
    return found


def bundled_rows(path: Path) -> dict[str, int]:
    """How many tokens each embedding in a LoRA's file stands for, by name; raises BadFile."""
    shapes = read_header(path).shapes
    vectors = {name: shapes[next(iter(keys.values()))] for name, keys in bundled_embeddings(shapes).items()}
    return {name: shape[0] if len(shape) > 1 else len(shape) for name, shape in vectors.items()}


def find_adapter_config(path: Path) -> Path | None:
    """PEFT's ``adapter_config.json`` for this file: beside the only file in a folder, or beside PEFT's own name."""
    found = path.with_name("adapter_config.json")
    if not found.is_file():
        return None
    alone = path.stem == "adapter_model" or all(other == path for other in path.parent.glob("*.safetensors"))
    return found if alone else None


def short_text(text: str, limit: int = MAX_TEXT) -> str:
    """The text's beginning, in characters that can be sent: no NUL, no half of a pair."""
    return text[:limit].replace("\0", "").encode("utf-8", "replace").decode().strip()
