"""LoRA files -> deltas by the tensor they change. To add a format, add a ``Format`` to ``FORMATS``.

A file's keys are ``<module><ending>``. Endings say which role a tensor plays, all roles of one module together which
format it is; the module's name is looked up whatever its dialect (``names.py``).
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from webui.core.library import LoraFile
from webui.core.lora_info import made_for
from webui.core.request import RequestError
from webui.core.tensor_file import BadFile, read_header
from webui.engine.lora.deltas import Decomposed, Delta, Difference, Hadamard, Kronecker, LowRank, Scaled
from webui.engine.lora.names import ModuleIndex

Tensors = Mapping[str, torch.Tensor]
Parameter = tuple[str, str, str]
"""Component, path of the module, weight or bias."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ARCHITECTURES = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL refiner", 2048: "SDXL"}
"""By the width of the text that the UNet attends to."""


class CannotApply(RequestError):
    """A LoRA that cannot be used on this model; the message names the file and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"LoRA {name[:80]!r} {reason}", field="loras")


@dataclass(frozen=True)
class LoraWeights:
    """A file made ready for one model: deltas on the model's device, and the keys that match nothing in it."""

    deltas: Mapping[Parameter, Delta]
    unmatched: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        return sum(delta.nbytes for delta in self.deltas.values())


@dataclass(frozen=True)
class Format:
    """A way to write down a change. ``endings`` maps key endings to roles; with all of ``needed`` there, it is used.

    ``build`` gets the roles' tensors and the alpha (None: the rank), and returns deltas for ``weight`` and ``bias``.
    """

    name: str
    endings: Mapping[str, str]
    needed: frozenset[str]
    build: Callable[[Tensors, float | None], Mapping[str, Delta]]


def _scale(alpha: float | None, rank: int) -> float:
    """What the product of low rank is multiplied with; raises RuntimeError."""
    if rank == 0:
        raise RuntimeError("its rank is 0")
    return (rank if alpha is None else alpha) / rank


def _build_lora(parts: Tensors, alpha: float | None) -> Mapping[str, Delta]:
    up, down, mid = parts["up"].flatten(1), parts["down"].flatten(1), parts.get("mid")
    rank = len(down)
    if up.shape[1] != rank or (mid is not None and mid.shape[:2] != (rank, rank)):
        raise RuntimeError(f"rank {rank} of its down part and {up.shape[1]} of its up part")
    return {"weight": LowRank(up, down, _scale(alpha, rank), mid)}


def _build_loha(parts: Tensors, alpha: float | None) -> Mapping[str, Delta]:
    scale = _scale(alpha, len(parts["hada_b1"]))
    four = (parts["hada_a1"], parts["hada_b1"], parts["hada_a2"], parts["hada_b2"])
    return {"weight": Hadamard(*four, parts.get("hada_t1"), parts.get("hada_t2"), scale)}


def _build_lokr(parts: Tensors, alpha: float | None) -> Mapping[str, Delta]:
    rank: int | None = None
    halves: list[Any] = []
    for half in ("w1", "w2"):
        if f"lokr_{half}" in parts:
            halves.append(parts[f"lokr_{half}"])
        else:
            pair = parts[f"lokr_{half}_a"], parts[f"lokr_{half}_b"]
            rank = len(pair[1])
            halves.append(pair)
    scale = 1.0 if rank is None else _scale(alpha, rank)
    return {"weight": Kronecker(halves[0], halves[1], parts.get("lokr_t2"), scale)}


def _build_ia3(parts: Tensors, _alpha: float | None) -> Mapping[str, Delta]:
    return {"weight": Scaled(parts["factors"], bool(parts["on_input"].any()))}


def _build_difference(parts: Tensors, _alpha: float | None) -> Mapping[str, Delta]:
    return {"weight": Difference(parts["diff"])}


def _build_bias(parts: Tensors, _alpha: float | None) -> Mapping[str, Delta]:
    return {"bias": Difference(parts["diff_b"])}


_LORA_ENDINGS = {
    **{f".lora_{name}.weight": name for name in ("down", "up", "mid")},
    **{f".lora_{letter}{adapter}.weight": role for letter, role in (("A", "down"), ("B", "up"))
       for adapter in ("", ".default", ".default_0")},
    **{f".{middle}{name}.weight": name for middle in ("lora.", "lora_linear_layer.", "") for name in ("down", "up")},
}  # fmt: skip
_LOHA_ENDINGS = {
    **{f".hada_w{number}_{letter}": f"hada_{letter}{number}" for number in "12" for letter in "ab"},
    **{f".hada_t{number}": f"hada_t{number}" for number in "12"},
}
_LOKR_ENDINGS = {f".lokr_{part}": f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}

FORMATS = (
    Format("LoRA", _LORA_ENDINGS, frozenset({"up", "down"}), _build_lora),
    Format("LoHa", _LOHA_ENDINGS, frozenset({"hada_a1", "hada_b1", "hada_a2", "hada_b2"}), _build_loha),
    *(
        Format("LoKr", _LOKR_ENDINGS, frozenset({*one, *other}), _build_lokr)
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for other in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    Format("IA3", {".weight": "factors", ".on_input": "on_input"}, frozenset({"factors", "on_input"}), _build_ia3),
    Format("difference", {".diff": "diff", ".w_norm": "diff"}, frozenset({"diff"}), _build_difference),
    Format("bias difference", {".diff_b": "diff_b", ".b_norm": "diff_b"}, frozenset({"diff_b"}), _build_bias),
)
_ENDINGS: Mapping[str, str] = {
    **{ending: role for row in FORMATS for ending, role in row.endings.items()},
    **{".alpha": "alpha", ".dora_scale": "magnitude"},
    **{f".lora_magnitude_vector{rest}": "row_magnitude" for rest in ("", ".weight", ".default.weight")},
}


def read_lora(file: LoraFile, index: ModuleIndex, device: torch.device) -> LoraWeights:
    """Everything of the file that has a place in the model; raises CannotApply.

    Only these tensors are read, each through the file's memory map straight into memory of its own on the device, so
    that a file that is overwritten later changes nothing.
    """
    try:
        header = read_header(file.path)
        places, unmatched = _assign(header.shapes, index)
        _check_architecture(file, header.shapes, header.metadata, places, index)
        alphas = _Alphas(header.metadata)
        deltas: dict[Parameter, Delta] = {}
        with safe_open(file.path, framework="pt") as tensors:
            for (component, path), roles in places.items():
                parts = {role: _read(tensors, key, device) for role, key in roles.items()}
                for kind, delta in _build(component, path, parts, alphas).items():
                    _check_fit(component, path, kind, delta, index)
                    deltas[component, path, kind] = delta
    except CannotApply:
        raise
    except (BadFile, ValueError) as error:
        raise CannotApply(file.name, str(error)) from None
    except (OSError, SafetensorError) as error:
        raise CannotApply(file.name, f"cannot be read: {error}") from None
    except (RuntimeError, LookupError, TypeError) as error:  # what torch makes of tensors with too few axes
        raise CannotApply(file.name, f"does not fit together: {str(error).splitlines()[0]}") from None
    return LoraWeights(deltas, tuple(unmatched))


def describe_model(index: ModuleIndex) -> str:
    """The model's architecture, as people call it."""
    width = index.context_width
    return ARCHITECTURES.get(width, f"a model with texts {width} wide") if isinstance(width, int) else "another model"


def _assign(
    shapes: Mapping[str, tuple[int, ...]], index: ModuleIndex
) -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    """Keys by (component, module) and role, and the keys without a place."""
    places: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    unmatched = []
    for key in shapes:
        found = _split(key)
        module = index.find(found[0]) if found else None
        if found is None or module is None or found[1] in places[module]:
            unmatched.append(key)
        else:
            places[module][found[1]] = key
    for roles in places.values():
        if roles.keys() == {"alpha"}:  # nothing that it could scale
            unmatched.append(roles.pop("alpha"))
    return {module: roles for module, roles in places.items() if roles}, unmatched


def _split(key: str) -> tuple[str, str] | None:
    """A key's module name and role, by its longest known ending."""
    at = key.find(".")
    while at >= 0:
        if role := _ENDINGS.get(key[at:]):
            return key[:at], role
        at = key.find(".", at + 1)
    return None


def _check_architecture(
    file: LoraFile,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    places: Mapping[tuple[str, str], Mapping[str, str]],
    index: ModuleIndex,
) -> None:
    """Raises CannotApply where the file was made for texts of another width, or has nothing for this model."""
    from_text = (key for key in shapes if "attn2" in key and "to_k" in key and len(shapes[key]) >= 2)
    widths = {shapes[key][1] for key in from_text if (_split(key) or ("", ""))[1] in ("down", "hada_b1")}
    model = describe_model(index)
    if widths and index.context_width not in widths:
        width = max(widths)
        made = ARCHITECTURES.get(width, made_for(metadata) or f"a model with texts {width} wide")
        raise CannotApply(file.name, f"is made for {made}, but this model is {model}")
    if not places:
        made = f"; it says it is made for {made_for(metadata)}" if made_for(metadata) else ""
        raise CannotApply(file.name, f"has no weights that this model, {model}, has a place for{made}")


def _read(tensors: Any, key: str, device: torch.device) -> torch.Tensor:
    tensor: torch.Tensor = tensors.get_tensor(key)
    if tensor.dtype not in FLOATS and tensor.dim() > 0 and tensor.numel() > 1:
        raise ValueError(f"has {tensor.dtype} numbers in {key[:120]!r}; float16, bfloat16 and float32 are known")
    if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, torch.aminmax(tensor))):
        raise ValueError(f"has not-a-number or infinite values in {key[:120]!r}")
    return tensor.to(device, copy=True)


def _build(component: str, path: str, parts: Tensors, alphas: "_Alphas") -> dict[str, Delta]:
    """The deltas of one module; raises ValueError where roles are left over."""
    alpha = float(parts["alpha"].float().max()) if "alpha" in parts else None
    left = set(parts) - {"alpha"}
    deltas: dict[str, Delta] = {}
    for row in FORMATS:
        if row.needed <= left:
            if alpha is None and row.name == "LoRA":
                alpha = alphas.of(component, path, len(parts["down"]))
            deltas |= row.build(parts, alpha)
            left -= {*row.endings.values()}
    for role in left & {"magnitude", "row_magnitude"}:
        if "weight" in deltas:  # PEFT has one length a row, in the shape (1, out, 1, 1) for a convolution
            magnitude = parts[role] if role == "magnitude" else parts[role].flatten()
            deltas["weight"] = Decomposed(deltas["weight"], magnitude)
            left.remove(role)
    if left:
        raise ValueError(f"is incomplete: {path} has only {', '.join(sorted(left))}")
    return deltas


def _check_fit(component: str, path: str, kind: str, delta: Delta, index: ModuleIndex) -> None:
    """Raises ValueError where the delta is of another shape than what it changes; computes nothing."""
    parameter = index.parameter(component, path, kind)
    if parameter is None:
        raise ValueError(f"changes a {kind} that {path} does not have")
    try:
        if isinstance(delta, LowRank):  # nearly all are, and this is all there is to check
            fits = delta.shape == (len(parameter), parameter.numel() // max(1, len(parameter)))
        else:
            _on_paper(delta).change(torch.empty_like(parameter, device="meta", dtype=torch.float32), 1.0)
            fits = True
    except (RuntimeError, LookupError, TypeError):
        fits = False
    if not fits:
        raise ValueError(f"has weights of another shape than this model's {path}, {tuple(parameter.shape)}")


def _on_paper(delta: Any) -> Any:
    """The same delta without its numbers."""
    if isinstance(delta, torch.Tensor):
        return delta.to("meta")
    if isinstance(delta, tuple):
        return tuple(_on_paper(part) for part in delta)
    if hasattr(delta, "__dataclass_fields__"):
        return type(delta)(**{name: _on_paper(value) for name, value in vars(delta).items()})
    return delta


class _Alphas:
    """Alphas that diffusers and PEFT keep in the file's metadata instead of tensors."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._config: Any = {}
        with suppress(ValueError, RecursionError):
            self._config = json.loads(metadata.get("lora_adapter_metadata", "{}"))

    def of(self, component: str, path: str, rank: int) -> float | None:
        """The alpha of one module, or None where the file does not say."""
        with suppress(AttributeError, TypeError, ValueError):
            get = self._config.get
            pattern = get(f"{component}.alpha_pattern") or {}
            own = next((value for name, value in pattern.items() if path == name or path.endswith(f".{name}")), None)
            alpha = float(get(f"{component}.lora_alpha") if own is None else own)
            return alpha * math.sqrt(rank) if get(f"{component}.use_rslora") else alpha
        return None
