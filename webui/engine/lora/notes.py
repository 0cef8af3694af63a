"""What a LoRA's file, and PEFT's configuration beside it, say of its modules besides tensors: alphas and variants."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from webui.core.files import LoraFile
from webui.core.lora_files import MAX_SIDECAR_BYTES, find_adapter_config
from webui.core.tensor_file import Header
from webui.engine.lora.deltas import ResidualOf
from webui.engine.lora.formats import Notes, Tensors

RANKED = ("down", "hada_b1", "lokr_w2_b", "lokr_w1_b", "q")
"""Roles whose first axis is the rank."""
DIFFUSERS_NAMES = ("unet", "transformer")
"""What diffusers calls the backbone in its copy of PEFT's configuration."""
_PLAIN_NAME = re.compile(r"\^?[\w.-]+\$?")


class NoteBook:
    """The notes of one file. ``remarks`` are sentences for people. Raises ValueError for what cannot be followed."""

    def __init__(self, file: LoraFile, header: Header) -> None:
        metadata = header.metadata
        self._saved: Mapping[str, Any] = _parse(metadata.get("lora_adapter_metadata", ""))  # diffusers' copy of PEFT's
        self._config: Mapping[str, Any] = {}
        remarks = []
        if (path := find_adapter_config(file.path)) is not None:
            self._config = _read_config(path)
        elif any(".lora_A" in key for key in header.shapes) and file.path.with_name("adapter_config.json").is_file():
            remarks.append(
                "The adapter_config.json beside it was not used, since other files lie there too; what it belongs to"
                " must be called adapter_model.safetensors, or be alone in its folder."
            )
        self._by_peft = bool(self._config) or any("base_model.model." in key for key in header.shapes)
        self._residual_of: ResidualOf = "principal"
        if any(key.endswith(".lambda_layer") for key in header.shapes):
            self._residual_of = _read_residual(_parse(metadata.get("ss_network_args", "")))
            remarks.append("A T-LoRA is trained to use few of its ranks at first; here all are used in every step.")
        self.remarks = tuple(remarks)

    def of(self, component: str, path: str, parts: Tensors) -> Notes:
        """The notes of one module; what stands in the file's tensors counts first."""
        rank = next((len(parts[role]) for role in RANKED if role in parts), None)
        if "alpha" in parts:
            alpha: float | None = float(parts["alpha"].float().max())
        else:
            alpha = self._alpha(component, path, rank)
        told_rank = _number(_of_module(self._config.get("rank_pattern"), path, self._config.get("r")))
        return Notes(alpha, int(told_rank) if told_rank else rank, self._config, self._by_peft, self._residual_of)

    def _alpha(self, component: str, path: str, rank: int | None) -> float | None:
        """As PEFT's configuration has it, if one is there, else as diffusers has written it into the file."""
        if rank is None and not self._config:
            return None
        names = DIFFUSERS_NAMES if component == "backbone" else (component,)
        whole = next((name for name in names if any(key.startswith(f"{name}.") for key in self._saved)), names[0])
        get = self._config.get if self._config else lambda name: self._saved.get(f"{whole}.{name}")
        own = get("lora_alpha") if get("lora_alpha") is not None else get("alpha")
        alpha = _number(_of_module(get("alpha_pattern"), path, own))
        return alpha * math.sqrt(rank) if alpha is not None and rank and get("use_rslora") else alpha


def _of_module(pattern: Any, path: str, otherwise: Any) -> Any:
    """The pattern's value for the module of this path, or what holds for all."""
    for name, value in pattern.items() if isinstance(pattern, dict) else ():
        if not _PLAIN_NAME.fullmatch(str(name)):
            raise ValueError(f"has settings by the expression {str(name)[:60]!r}, where only names of modules are read")
        plain = name.strip("^$")
        if path == plain or (not name.startswith("^") and path.endswith(f".{plain}")):
            return value
    return otherwise


def _number(value: Any) -> float | None:
    with suppress(TypeError, ValueError, OverflowError):
        return number if math.isfinite(number := float(value)) else None
    return None


def _parse(text: str) -> Mapping[str, Any]:
    """The JSON object; an empty one where there is none."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}


def _read_config(path: Any) -> Mapping[str, Any]:
    try:
        text = path.read_bytes() if path.stat().st_size <= MAX_SIDECAR_BYTES else b""
        found = json.loads(text)
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("has an adapter_config.json beside it that cannot be read")
    return found if "peft_type" in found else {}


def _read_residual(network_args: Mapping[str, Any]) -> ResidualOf:
    """Which part of the weights a T-LoRA began from, as kohya's trainer notes it."""
    if str(network_args.get("use_data_init", True)).lower() in ("false", "0"):
        raise ValueError("is a T-LoRA that began from random numbers, which are not in its file")
    part = str(network_args.get("sig_type", "principal"))
    if part not in get_args(ResidualOf):
        raise ValueError(f"is a T-LoRA of a kind that is not known here, {part[:60]!r}")
    return part  # type: ignore[return-value]
