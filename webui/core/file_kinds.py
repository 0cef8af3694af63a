"""What a file is, whatever folder it lies in: told from its tensors' names and shapes.

Only names are looked at that no other kind of file has; what is not known stays without a name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from webui.core.kinds import KINDS

Role = Literal["checkpoint", "LoRA", "VAE", "embedding", "upscaler", "control", "nothing", "other"]
Shapes = Mapping[str, tuple[int, ...]]

FOLDERS: Mapping[Role, str] = {
    "checkpoint": "the folder for models (models/Stable-diffusion)",
    "LoRA": "the folder for LoRAs (models/Lora)",
    "VAE": "the folder for VAEs (models/VAE)",
    "embedding": "the folder for embeddings (embeddings)",
    "upscaler": "the folder for upscalers (models/ESRGAN)",
    "control": "the folder for controls (models/ControlNet)",
}
*_OTHERS, _LAST = (kind.name for kind in KINDS)
LOADABLE = f"{', '.join(_OTHERS)} and {_LAST}"


@dataclass(frozen=True)
class FileKind:
    """``name`` is what people call it, with its article; ``family`` the model it is or was made for, where its names
    alone say so.
    """

    role: Role
    name: str
    family: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether it is, or was made for, a kind of model that cannot be loaded here."""
        return bool(self.family) and not any(kind.name in self.family for kind in KINDS)

    @property
    def reason(self) -> str:
        """Why it cannot be used where something else is wanted, to be put behind the file's name."""
        if self.role == "nothing":
            return f"holds {self.name}"
        if self.is_foreign:
            return f"is {self.name}; {LOADABLE} can be used here"
        place = FOLDERS.get(self.role)
        return f"is {self.name}; it belongs in {place}" if place else f"is {self.name}, which cannot be used here"


_ZEROS = str.maketrans(dict.fromkeys("123456789", "0"))
# What stands behind a module's name in a file that changes a model, in every dialect.
_CHANGES = re.compile(
    r"[._](lora_(down|up|mid|[AB])|lora\.(down|up)|lora_linear_layer|lora_magnitude_vector)\b|_lora\d?\.(down|up)\b"
    r"|\.(hada_[wt]\d|lokr_[wt]\d|oft_(blocks|diag|[rR])|boft_[Rs]|[ab]\d\.weight|lambda_layer|dora_scale|on_input"
    r"|diff(_b)?|[wb]_norm|set_weight|ia3_l|vera_lambda_\w|hra_u|fourierft_spectrum)(\.|$)"
)
FLUX2 = "FLUX.2 Klein or FLUX.2 dev"
_DEEP = re.compile(r"(^|[._])transformer_blocks[._](3[89]|[45]\d)[._]attn[._]")
"""Blocks that Qwen-Image alone has of those which share attention's names: 60, where SD 3.5 has 38."""
_SHARED = f"FLUX.1, {FLUX2}, Krea 2, Qwen-Image or SD 3.x"
# Names of modules, with 0 for every digit, behind a dot or, as kohya joins them, an underscore: the first row counts.
_FAMILIES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"distilled_guidance_layer", "Chroma"),
        (r"double_stream_blocks|single_stream_blocks", "HiDream"),
        (r"joint_blocks", "SD 3.x"),
        (r"(^|[._])(txtfusion|text_fusion)[._]", "Krea 2"),
        (r"(^|[._])blocks[._]\d+[._](attn[._](w[qkvo]|gate|to_gate)|(mlp|ff)[._](gate|up|down))\b", "Krea 2"),
        (r"(double|single)_stream_modulation|to_qkv_mlp_proj|[._]ff(_context)?[._]linear_(in|out)", FLUX2),
        (r"double_blocks[._]00|(^|[._])(img|txt)_mod[._]lin\b|(^|[._])single_blocks[._]\d+[._]modulation", "FLUX.1"),
        (r"single_transformer_blocks[._]\d+[._](proj_mlp|proj_out|attn[._]to_[qkv]\b)", "FLUX.1"),
        (r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]\d", f"FLUX.1, {FLUX2}"),
        (r"(^|[._])(img_mlp|txt_mlp|img_mod|txt_mod)[._]", "Qwen-Image"),
        (r"(^|[._])((noise|context)_refiner[._]|layers[._]\d+[._](attention|feed_forward)[._])", "Z-Image"),
        (r"(^|\.|_unet_)blocks[._]\d+[._](self|cross)_attn[._][qkvo]\b", "Wan"),
        (r"(^|\.|_unet_)blocks[._]\d+[._](self|cross)_attn[._]\w_proj\b", "Anima or Cosmos"),
        (r"(^|[._])transformer_blocks[._]\d+[._]attn[._]", _SHARED),
        (r"^(lora_)?prior_|lora_prior_|clip_txt_mapper", "Stable Cascade"),
        (r"^(diffusion_model\.|transformer\.)?transformer_blocks\.\d+\.attn\d\.", "Anima, PixArt or LTX-Video"),
    )
)  # fmt: skip
_Row = tuple[re.Pattern[str], Role, str]
# What a LoRA may be part of: looked for among all names.
_WITH_LORAS: tuple[_Row, ...] = (
    (re.compile(r"^lora_controlnet$"), "control", "a Control-LoRA"),
    (
        re.compile(r"^control_model\.|input_hint_block|controlnet_(cond_embedding|down_blocks)"),
        "control",
        "a ControlNet",
    ),
    (re.compile(r"^lllite_"), "other", "a ControlNet-LLLite"),
    (re.compile(r"^image_proj\.|^ip_adapter\.|\.to_k_ip\."), "control", "an IP-Adapter"),
    (re.compile(r"motion_modules[._]"), "other", "a motion module of AnimateDiff"),
)
_WHOLE: tuple[_Row, ...] = (
    (re.compile(r"^(adapter\.)?body\.\d+\.(in_conv|block\d|resnets)\."), "control", "a T2I-Adapter"),
    (re.compile(r"^model\.diffusion_model\."), "checkpoint", "a checkpoint, a whole model"),
    (re.compile(r"^(diffusion_model\.)?input_blocks\.|^(unet\.)?down_blocks\."), "checkpoint", "a UNet"),
    (re.compile(r"^((first_stage_model|vae)\.)?(decoder\.(conv_in|layers\.\d+)|encoder\.conv_in)\."), "VAE", "a VAE"),
    (re.compile(r"^\d\.conv\.\d\."), "VAE", "a VAE"),  # half of TAESD, in its author's names
    (re.compile(r"(^|\.)RDB\d\.|\.rdb\d\.|^conv_first\.|^body\.\d+\.weight$"), "upscaler", "an upscaler"),
    (re.compile(r"(^|\.)text_model\.|^encoder\.(layers\.\d+\.self_attn|block\.\d+)\."), "other", "a text encoder"),
    (re.compile(r"^(\w+\.)?vision_model\.|^visual\."), "other", "an image encoder (CLIP vision)"),
)  # fmt: skip
_EMBEDDING_KEYS = frozenset({"emb_params", "clip_l", "clip_g", "text_encoders_0", "text_encoders_1"})
_EMBEDDING_WIDTHS = (768, 1024, 1280)


def recognize(shapes: Shapes) -> FileKind | None:
    """The kind of a safetensors file by its tensors' shapes; None where they say nothing."""
    if not any(0 not in shape and not key.endswith(".alpha") for key, shape in shapes.items()):
        return FileKind("nothing", "no weights")
    keys = set("\n".join(shapes).translate(_ZEROS).split("\n"))  # blocks are alike but for their numbers
    if found := _find(_WITH_LORAS, keys):
        return FileKind(*found)
    family = _family(keys, shapes)
    if any(map(_CHANGES.search, keys)):
        return FileKind("LoRA", f"a LoRA for {family}" if family else "a LoRA", family)
    if family:
        return FileKind("checkpoint", f"{'an' if family.startswith('SD') else 'a'} {family} model", family)
    if found := _find(_WHOLE, keys):
        return FileKind(*found)
    return FileKind("embedding", "an embedding") if _is_embedding(shapes) else None


def family_of(shapes: Shapes) -> str:
    """The newer family of models whose names its tensors go by; empty where they say none."""
    return _family(set("\n".join(shapes).translate(_ZEROS).split("\n")), shapes)


def _family(keys: Iterable[str], shapes: Shapes) -> str:
    """By the keys' names without numbers, and where several families share them by the deepest block."""
    found = next((name for pattern, name in _FAMILIES if any(map(pattern.search, keys))), "")
    return "Qwen-Image" if found == _SHARED and any(map(_DEEP.search, shapes)) else found


def _find(rows: Iterable[_Row], keys: Iterable[str]) -> tuple[Role, str] | None:
    """The first row that one of the keys matches."""
    return next(((role, name) for pattern, role, name in rows if any(map(pattern.search, keys))), None)


def _is_embedding(shapes: Shapes) -> bool:
    """Vectors as wide as a text encoder's, under a key that says so or under any."""
    if len(shapes) > len(_EMBEDDING_KEYS) or any(len(shape) not in (1, 2) for shape in shapes.values()):
        return False
    if all(key in _EMBEDDING_KEYS or key.startswith("string_to_param.") for key in shapes):
        return True
    return len(shapes) == 1 and all("." not in key and shape[-1] in _EMBEDDING_WIDTHS for key, shape in shapes.items())
