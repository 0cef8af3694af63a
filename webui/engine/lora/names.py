"""Which module of a model a LoRA file means: every dialect's spelling, flattened, looked up in one index.

``unet.down_blocks.0.attentions.0.proj_in`` (diffusers), ``lora_unet_down_blocks_0_attentions_0_proj_in`` (kohya),
``lora_unet_input_blocks_1_1_proj_in`` (Stability's own block names) and
``down_blocks.0.attentions.0.processor...`` (old attention processors) all end in the same module.
"""

import re
from collections.abc import Iterator, Mapping

from torch import nn

from webui.engine.families.ldm import unet_name

# As they are once dots are underscores; longest first where one begins like another.
PREFIXES = (
    ("text_encoder_2_", "text_encoder_2"),
    ("text_encoder_1_", "text_encoder"),
    ("text_encoder_", "text_encoder"),
    ("text_model_", "text_encoder"),
    *(  # as ComfyUI, OneTrainer and OMI name CLIP's encoders
        (f"{start}{encoder}_{inner}", component)
        for start in ("text_encoders_", "lora_", "")
        for encoder, component in (("clip_l", "text_encoder"), ("clip_h", "text_encoder"), ("clip_g", "text_encoder_2"))
        for inner in ("transformer_", "")
    ),
    ("unet_", "unet"),
    ("model_diffusion_model_", "unet"),
    ("diffusion_model_", "unet"),
    *(
        (f"{program}_{name}_", component)
        for program in ("lora", "lycoris", "oft")
        for name, component in (
            ("unet", "unet"), ("te1", "text_encoder"), ("te2", "text_encoder_2"), ("te", "text_encoder")
        )
    ),
    ("lycoris_text_model_", "text_encoder"),
    ("lycoris_", "unet"),
)  # fmt: skip
# What PEFT, torch.compile and data parallel training put around a module.
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:base_model\.model|_orig_mod|module)\.")
ATTENTION_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class ModuleIndex:
    """The modules of a model by every name that LoRA files have for them.

    ``components`` are the parts by diffusers' names: unet, text_encoder, text_encoder_2.
    """

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        self.components = components
        self._names: dict[str, dict[str, str]] = {}
        for component, root in components.items():
            names = self._names[component] = {}
            for path, module in root.named_modules():
                if any(True for _ in module.parameters(recurse=False)):
                    for name in _spellings(path, root):
                        names.setdefault(_flatten(name), path)

    @property
    def context_width(self) -> int | None:
        """How wide the texts are that the UNet attends to; None where it attends to none."""
        keys = (module for path, module in self.components["unet"].named_modules() if path.endswith("attn2.to_k"))
        return next((module.in_features for module in keys if isinstance(module, nn.Linear)), None)

    def find(self, name: str) -> tuple[str, str] | None:
        """(component, path of the module in it) for a key without its ending; None where nothing has this name."""
        flat = _flatten(_WRAPPERS.sub("", name))
        prefix, component = next((row for row in PREFIXES if flat.startswith(row[0])), ("", "unet"))
        names, flat = self._names.get(component, {}), flat.removeprefix(prefix)
        if (path := names.get(flat)) is None:
            path = names.get(flat.replace("_processor_", "_").removesuffix("_lora"))
        return None if path is None else (component, path)

    def parameter(self, component: str, path: str, kind: str) -> nn.Parameter | None:
        """The ``kind`` (weight or bias) of a module."""
        found = getattr(self.components[component].get_submodule(path), kind, None)
        return found if isinstance(found, nn.Parameter) else None


def _flatten(name: str) -> str:
    return name.replace(".", "_")


def _spellings(path: str, root: nn.Module) -> Iterator[str]:
    """The module's path, and what other programs call it."""
    yield path
    if path.endswith(".to_out.0"):
        yield path.removesuffix(".0")
    inner = path.removeprefix("text_model.")
    if inner.startswith(("encoder.", "embeddings.", "final_layer_norm")):  # transformers 5 has no text_model level
        for name in (inner, f"text_model.{inner}"):
            yield name
            for old, new in ATTENTION_NAMES.items():
                if name.endswith(f"self_attn.{new}"):
                    yield name.removesuffix(new) + old
    elif original := unet_name(path, root):
        yield original
