"""Which module of a model a LoRA file means: every dialect's spelling, flattened, looked up in one index.

``unet.down_blocks.0.attentions.0.proj_in`` (diffusers), ``lora_unet_down_blocks_0_attentions_0_proj_in`` (kohya),
``lora_unet_input_blocks_1_1_proj_in`` (Stability's own block names) and
``down_blocks.0.attentions.0.processor...`` (old attention processors) all end in the same module. What programs call
the modules of a network is that part's own table (``families.family.Part``).
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from webui.core.lora_files import UNET_BLOCK
from webui.engine.families.family import Part
from webui.engine.weights.layers import StoredLayer
from webui.engine.weights.stored import Stored

# What PEFT, torch.compile and data parallel training put around a module.
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:base_model\.model|_orig_mod|module)\.")
Place = tuple[str, str, tuple[int, ...] | None]
"""A part's role, the path of a module in it, and which rows of a file's tensor are that module's; None for all."""


class ModuleIndex:
    """The modules of a model by every name that LoRA files have for them.

    ``components`` are the networks by role, ``parts`` what their family says of them, ``family`` its kind's name.
    """

    def __init__(self, components: Mapping[str, nn.Module], parts: Sequence[Part], family: str = "") -> None:
        self.components, self.family = components, family
        rows = [part for part in parts if part.role in components]
        starts = [(prefix, part.role) for part in rows for prefix in part.lora_prefixes]
        self._prefixes = sorted(starts, key=lambda row: -len(row[0]))  # where one begins like another
        self._names: dict[str, dict[str, list[Place]]] = {}
        for part in rows:
            root, names = components[part.role], self._names.setdefault(part.role, {})
            for path, module in root.named_modules():
                if isinstance(module, Stored):  # part of a layer
                    continue
                if isinstance(module, StoredLayer) or any(True for _ in module.parameters(recurse=False)):
                    for spelling in part.spellings(path, root):
                        places = names.setdefault(_flatten(spelling.name), [])
                        if not places or spelling.rows is not None and places[0][2] is not None:
                            places.append((part.role, path, spelling.rows))

    @property
    def context_width(self) -> int | None:
        """How wide the texts are that the UNet attends to; None where it attends to none, or there is no UNet."""
        keys = (
            module
            for path, module in self.components["backbone"].named_modules()
            if path.endswith("attn2.to_k") and UNET_BLOCK.search(path)
        )
        return next((module.in_features for module in keys if isinstance(module, nn.Linear)), None)

    def find(self, name: str) -> tuple[Place, ...]:
        """The places that a key without its ending means: one, several for a fused tensor, none for an unknown name."""
        flat = _flatten(_WRAPPERS.sub("", name))
        prefix, role = next((row for row in self._prefixes if flat.startswith(row[0])), ("", "backbone"))
        names, flat = self._names.get(role, {}), flat.removeprefix(prefix)
        if (places := names.get(flat)) is None:
            places = names.get(flat.replace("_processor_", "_").removesuffix("_lora"), [])
        return tuple(places)

    def parameter(self, role: str, path: str, kind: str) -> torch.Tensor | None:
        """The ``kind`` (weight or bias) of a module; without numbers where it is kept in others."""
        found = getattr(self.components[role].get_submodule(path), kind, None)
        if isinstance(found, Stored):
            return torch.empty(found.shape, dtype=found.dtype, device="meta")
        return found if isinstance(found, nn.Parameter) else None


def _flatten(name: str) -> str:
    return name.replace(".", "_")
