"""Weights that are stored as small numbers with a scale beside them: which of these forms can be read.

fp8 and INT8 with a scale a tensor or a row are known: ComfyUI's form (its QUANTIZATION.md) and the older one of fp8
(``scaled_fp8``, ``scale_weight``); INT8 may have been rotated ("convrot"). All else is refused by name, since without
its rules the numbers are noise. Nothing here imports torch.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from webui.core.tensor_file import BadFile, Header

INT8 = "int8_tensorwise"
FORMATS = ("float8_e4m3fn", "float8_e4m3fn_rowwise", "float8_e5m2", INT8)
UNDERSTOOD = ("format", "full_precision_matrix_mult", "orig_dtype", "orig_shape")
"""What a layer's note may say; of these only the format matters to who multiplies in full precision."""
OF_INT8 = ("convrot", "convrot_groupsize", "per_row")
GROUP = 256
"""How many numbers of a row are rotated together, where a note does not say it."""
NOTE, NOTES = ".comfy_quant", "_quantization_metadata"
MAX_NOTE_BYTES = 4096
OTHER_FORMS = {  # by the end of a tensor's name that only they have
    ".weight_scale_2": "nvfp4",
    ".pre_quant_scale": "a format with smoothed inputs",
    ".weight_scale_inv": "fp8 in blocks",
    "bitsandbytes__nf4": "bitsandbytes nf4",
    "bitsandbytes__fp4": "bitsandbytes fp4",
    ".SCB": "bitsandbytes int8",
    ".qweight": "GPTQ, AWQ or SVDQuant",
}
IGNORED = (NOTE, ".input_scale", ".scale_input", "scaled_fp8")
"""Ends of names of what only matters to who multiplies in fp8."""


def scale_names(name: str) -> Iterator[str]:
    """Under which names a weight's scale may be found."""
    yield f"{name}_scale"
    if name.endswith("weight"):
        yield f"{name.removesuffix('weight')}scale_weight"


def check_quantization(path: Path, header: Header) -> Mapping[str, int]:
    """How many numbers of a row were rotated together, by the names of the layers where that was done.

    Raises BadFile, which names the form, for a file whose weights cannot be made out.
    """
    rotated = {}
    for layer, note in _notes(path, header):
        form = str(note.get("format"))[:40]
        understood = UNDERSTOOD + OF_INT8 if form == INT8 else UNDERSTOOD
        unknown = [key for key, value in note.items() if key not in understood and value]
        if form not in FORMATS or unknown:
            also = f" with {unknown[0][:40]}" if unknown and form in FORMATS else ""
            raise BadFile(f"{_refusal(form + also)} ({layer[:80]} is)")
        if note.get("convrot"):
            rotated[layer] = _group(note.get("convrot_groupsize", GROUP), layer, header)
    for key in header.shapes:
        for ending, form in OTHER_FORMS.items():
            if key.endswith(ending):
                raise BadFile(f"{_refusal(form)} ({key[:80]})")
    return rotated


def _group(said: Any, layer: str, header: Header) -> int:
    """A power of 4 of which a row of the layer's weight is made; raises BadFile."""
    shape = header.shapes.get(f"{layer}.weight", ())
    is_power_of_4 = isinstance(said, int) and said > 1 and said & (said - 1) == 0 and said.bit_length() % 2
    if not is_power_of_4 or (shape and (len(shape) != 2 or shape[1] % said)):
        sides = " x ".join(map(str, shape))
        raise BadFile(f"is damaged: {layer[:80]}, {sides}, is rotated in groups of {str(said)[:20]}")
    return int(said)


def _refusal(form: str) -> str:
    return f"is quantized as {form}, which is not known here; get it in float16, bfloat16, fp8 or INT8"


def _notes(path: Path, header: Header) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is said about each quantized layer, in the file's metadata or beside the layer."""
    try:
        layers = json.loads(header.metadata.get(NOTES, "{}")).get("layers", {})
        for layer, note in layers.items():
            yield layer, note if isinstance(note, dict) else {"format": note}
        if places := {key: place for key, place in header.places.items() if key.endswith(NOTE)}:
            with path.open("rb") as file:
                for key, place in places.items():
                    file.seek(place.offset)
                    note = json.loads(file.read(min(place.nbytes, MAX_NOTE_BYTES)))
                    yield key.removesuffix(NOTE), note if isinstance(note, dict) else {"format": note}
    except (OSError, ValueError, AttributeError, RecursionError):
        raise BadFile("is quantized in a way that it does not tell") from None
