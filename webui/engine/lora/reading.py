"""LoRA files -> deltas by the tensor they change, for one model, and what people must be told of them.

Each key's module is looked up whatever its dialect (``names.py``), its ending says what it is (``formats.py``).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from webui.compat.late_torch import make_meta_functions
from webui.core.errors import Mend, RequestError
from webui.core.file_kinds import recognize
from webui.core.files import LoraFile
from webui.core.lora_files import bundled_embeddings, made_for, name_widest, name_width, text_widths
from webui.core.quantization import IGNORED, check_quantization, scale_names
from webui.core.tensor_file import BadFile, Header, hash_file, read_header
from webui.engine.embeddings import Embedding, make_embedding
from webui.engine.lora.deltas import Decomposed, Delta, LowRank, rows_of
from webui.engine.lora.formats import FORMATS, Tensors, name_format, split_adapter, split_key
from webui.engine.lora.names import ModuleIndex, Place
from webui.engine.lora.notes import NoteBook

Parameter = tuple[str, str, str]
"""A part's role, path of the module, weight or bias."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SMALL_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
NAMED_ENDINGS = 3
_BUNDLED_NOTE = re.compile(r"bundle_emb\.[^.]+\.(string_to_token\..+|name|step|sd_checkpoint(_name)?)$")
"""What A1111 notes of an embedding besides its vectors."""


class CannotApply(RequestError):
    """A LoRA that cannot be used on this model; the message names the file and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"LoRA {name[:80]!r} {reason}", "loras", Mend("remove", name))


@dataclass(frozen=True)
class LoraWeights:
    """A file made ready for one model: deltas on the model's device, its embeddings, and what of it is not used.

    ``unmatched`` are keys with no place in the model, ``unknown`` those of its modules whose ending, by key, is not
    known.
    """

    deltas: Mapping[Parameter, Delta]
    unmatched: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        vectors = (tensor for embedding in self.embeddings for tensor in embedding.vectors.values())
        return sum(delta.nbytes for delta in self.deltas.values()) + sum(tensor.nbytes for tensor in vectors)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people must know, as sentences."""
        told = list(self.remarks)
        if self.unmatched:
            keys = "1 key has" if len(self.unmatched) == 1 else f"{len(self.unmatched)} keys have"
            told.append(f"{keys} no place in this model and did nothing, for example {self.unmatched[0][:120]}.")
        if self.unknown:
            keys = "1 key does" if len(self.unknown) == 1 else f"{len(self.unknown)} keys do"
            told.append(
                f"{keys} nothing, though this model has the modules: the ending {_name_endings(self.unknown)} is not"
                f" known here, for example {next(iter(self.unknown))[:120]}."
            )
        return tuple(told)


@dataclass
class _Sorted:
    """A file's keys: by the places of a module and what each is, those of embeddings by name, and those not used."""

    embeddings: Mapping[str, Mapping[str, str]]
    places: dict[tuple[Place, ...], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    unmatched: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


def read_lora(file: LoraFile, index: ModuleIndex, device: torch.device) -> LoraWeights:
    """Everything of the file that has a place in the model; raises CannotApply.

    Only these tensors are read, each through the file's memory map straight into memory of its own on the device, so
    that a file that is overwritten later changes nothing.
    """
    try:
        header = read_header(file.path)
        check_quantization(file.path, header)
        scales = {key: scale for key in header.shapes for scale in scale_names(key) if scale in header.shapes}
        found = _sort_keys([key for key in header.shapes if not _is_of_quantization(key, scales)], index)
        _check_use(header, found, index)
        notes = NoteBook(file, header)
        deltas: dict[Parameter, Delta] = {}
        with safe_open(file.path, framework="pt") as tensors:
            for places, roles in found.places.items():
                parts = {role: _read(tensors, key, device, scales.get(key)) for role, key in roles.items()}
                whole = max((max(rows) for *_, rows in places if rows), default=0)
                for component, path, rows in places:
                    for kind, delta in _build(component, path, parts, notes).items():
                        try:
                            own = delta if rows is None else rows_of(delta, rows, whole)
                            _check_fit(component, path, kind, own, index)
                        except ValueError as error:
                            raise ValueError(f"{error}{_names_both(header, index)}") from None
                        deltas[component, path, kind] = own
            embeddings = _read_embeddings(file, found.embeddings, tensors)
    except (BadFile, ValueError) as error:
        raise CannotApply(file.name, str(error)) from None
    except (OSError, SafetensorError) as error:
        raise CannotApply(file.name, f"cannot be read: {error}") from None
    except (RuntimeError, LookupError, TypeError) as error:  # what torch makes of tensors with too few axes
        raise CannotApply(file.name, f"does not fit together: {str(error).splitlines()[0]}") from None
    return LoraWeights(deltas, tuple(found.unmatched), found.unknown, notes.remarks, embeddings)


def describe_model(index: ModuleIndex) -> str:
    """The model's architecture, as people call it."""
    width = index.context_width
    if width is None:
        return index.family or "another model"
    return name_width(width)


def _read_embeddings(file: LoraFile, keys: Mapping[str, Mapping[str, str]], tensors: Any) -> tuple[Embedding, ...]:
    """Raises ValueError."""
    found = []
    for name, own in keys.items():
        vectors = {part: tensors.get_tensor(key) for part, key in own.items()}
        try:
            found.append(make_embedding(name, vectors, f"{hash_file(file.path).content}/{name}"))
        except BadFile as error:
            raise ValueError(f"holds an embedding {name[:60]!r} that {error}") from None
    return tuple(found)


def _sort_keys(shapes: Iterable[str], index: ModuleIndex) -> _Sorted:
    """Raises ValueError for several adapters in one file."""
    found = _Sorted(bundled_embeddings(shapes))
    bundled = {key for keys in found.embeddings.values() for key in keys.values()}
    adapters = set()
    for key in shapes:
        if key in bundled or _BUNDLED_NOTE.match(key):
            continue
        plain, adapter = split_adapter(key)
        adapters.add(adapter)
        split = split_key(plain)
        module = index.find(split[0]) if split else ()
        if split and module and split[1] not in found.places[module]:
            found.places[module][split[1]] = key
        elif not module and (ending := _unknown_ending(plain, index)):
            found.unknown[key] = ending
        else:
            found.unmatched.append(key)
    if len(named := sorted(adapters - {""})) > 1:
        raise ValueError(f"holds {len(named)} LoRAs, {named[0][:60]!r} and {named[1][:60]!r}; one file can hold one")
    for roles in found.places.values():
        if "on_input" not in roles and "factors" in roles:  # a plain weight, and no IA3
            found.unknown[roles.pop("factors")] = ".weight"
        if roles.keys() == {"alpha"}:  # nothing that it could scale
            found.unmatched.append(roles.pop("alpha"))
    found.places = {module: roles for module, roles in found.places.items() if roles}
    return found


def _unknown_ending(key: str, index: ModuleIndex) -> str:
    """What stands behind the name of one of the model's modules; empty where the key begins with none."""
    at = key.rfind(".")
    while at >= 0:
        if index.find(key[:at]):
            return key[at:]
        at = key.rfind(".", 0, at)
    return ""


def _name_endings(unknown: Mapping[str, str]) -> str:
    """The endings, the most frequent first, with the formats that they are of."""
    counts = Counter(unknown.values())
    names = []
    for ending, _ in counts.most_common(NAMED_ENDINGS):
        known_as = name_format(ending)
        names.append(f"{ending[:60]} ({known_as})" if known_as else ending[:60])
    return ", ".join(names) + (" and others" if len(counts) > NAMED_ENDINGS else "")


def _check_use(header: Header, found: _Sorted, index: ModuleIndex) -> None:
    """Raises ValueError where the file is none for this model: with what it is or was made for."""
    shapes = header.shapes
    widths, model = text_widths(shapes), describe_model(index)
    if widths and index.context_width not in widths:
        raise ValueError(f"is made for {name_widest(widths, header.metadata)}, but this model is {model}")
    kind = recognize(shapes)
    if kind and kind.role != "LoRA" and not found.places:
        raise ValueError(kind.reason)
    is_other = kind and kind.family and not (index.family and index.family in kind.family)
    if kind and is_other and (found.unmatched or not found.places):
        raise ValueError(f"is made for {kind.family}, but this model is {model}")
    if found.places or found.embeddings:
        return
    if found.unknown:
        raise ValueError(f"has only weights whose ending is not known here: {_name_endings(found.unknown)}")
    made = f"; it says it is made for {made_for(header.metadata)}" if made_for(header.metadata) else ""
    raise ValueError(f"has no weights that this model, {model}, has a place for{made}")


def _names_both(header: Header, index: ModuleIndex) -> str:
    """What a file is for by its names, and what the model is, where they may be two."""
    kind, model = recognize(header.shapes), describe_model(index)
    family = kind.family if kind and kind.family != model else ""
    return f"; by its names it is for {family}, and this model is {model}" if family else ""


def _is_of_quantization(key: str, scales: Mapping[str, str]) -> bool:
    return key.endswith(IGNORED) or key in scales.values()


def _read(tensors: Any, key: str, device: torch.device, scale: str | None = None) -> torch.Tensor:
    """The tensor, times what is under ``scale``: one number, or one a row."""
    tensor: torch.Tensor = tensors.get_tensor(key)
    if scale:
        factors = tensors.get_tensor(scale).float()
        if factors.numel() not in (1, len(tensor)):
            raise ValueError(f"has {factors.numel()} numbers in {scale[:120]!r}, where 1 or {len(tensor)} are known")
        tensor = tensor.float() * factors.reshape(-1, *[1] * (tensor.dim() - 1))
    if tensor.dtype in SMALL_FLOATS:
        tensor = tensor.to(torch.float16)  # which holds every number of theirs
    if tensor.dtype not in FLOATS and tensor.dim() > 0 and tensor.numel() > 1:
        raise ValueError(
            f"has {tensor.dtype} numbers in {key[:120]!r}; float8, float16, bfloat16 and float32 are known"
        )
    if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, torch.aminmax(tensor))):
        raise ValueError(f"has not-a-number or infinite values in {key[:120]!r}")
    return tensor.to(device, copy=True)


def _build(component: str, path: str, parts: Tensors, notes: NoteBook) -> dict[str, Delta]:
    """The deltas of one module; raises ValueError where roles are left over."""
    told = notes.of(component, path, parts)
    left = set(parts) - {"alpha"}
    deltas: dict[str, Delta] = {}
    for row in FORMATS:
        if row.needed <= left:
            deltas |= row.build(parts, told)
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
            make_meta_functions()
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
