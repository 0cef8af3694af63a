"""What a model file is, read from the names and shapes of its tensors; never from what the file is called.

Two layouts are known: diffusers' folders, and single files in the layout of the original programs (LDM), whose UNet
is called ``model.diffusion_model``. Nothing here imports torch.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from webui.core.checkpoint import (
    INPAINT_CHANNELS,
    NATIVE_PX,
    SIZE_IDS,
    TEXT_PARTS,
    VAE_PREFIX,
    Checkpoint,
    Defaults,
    FamilyName,
    KeyNames,
    Prediction,
)
from webui.core.file_kinds import recognize
from webui.core.quantization import check_quantization
from webui.core.tensor_file import BadFile, Header, read_header
from webui.core.text_encoders import find_text_encoders
from webui.core.weight_files import PARTS, weight_files

CONFIGS = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
V_BIAS_STD = 0.09
"""Above it, SD 2.x predicts v: the spread of one bias tells the two trainings apart (ComfyUI, supported_models.py)."""

UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
UNCLIP_PREFIXES = ("embedder.model.visual.", "noise_augmentor.")
OTHER_NOISE = {  # tensors that say what a UNet was trained on, where it is not the noise of these families
    "edm_mean": "EDM noise, like Playground v2.5",
    "edm_std": "EDM noise, like Playground v2.5",
    "edm_vpred.sigma_max": "EDM noise, like CosXL",
}
OTHER_SCHEDULERS = {"EDM": "EDM noise", "FlowMatch": "flow matching"}  # by how the class's name begins
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def read_checkpoint(path: Path) -> Checkpoint:
    """What the single file or the diffusers folder at ``path`` is; kept until it changes. Raises BadFile."""
    files = [file for part in weight_files(path).values() for file in part]
    files += [file for file in _words_about(path) if file.is_file()]
    try:
        stats = [(file, file.stat()) for file in files]
        stamps = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
        return _read(path, stamps)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}") from None


def _words_about(path: Path) -> list[Path]:
    """The small files that say what the weights do not."""
    if path.is_dir():
        return [path / name for name in CONFIGS]
    return [path.with_suffix(".yaml")]


@lru_cache(maxsize=1024)
def _read(path: Path, _stamps: tuple[tuple[Path, int, int], ...]) -> Checkpoint:
    return _read_folder(path) if path.is_dir() else _read_single(path, read_header(path))


def check_header(header: Header) -> Checkpoint:
    """What a single file is as far as its header tells, before the rest of it is there; raises BadFile."""
    return _read_single(Path(), replace(header, places={}))


def _read_single(path: Path, header: Header) -> Checkpoint:
    shapes = header.shapes
    check_quantization(path, header)
    prefix = next((prefix for prefix in UNET_PREFIXES if f"{prefix}input_blocks.0.0.weight" in shapes), None)
    alone = {"conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"} <= shapes.keys()  # as diffusers names it
    if not prefix and (not alone and prefix is None or (kind := recognize(shapes)) and kind.role == "other"):
        raise BadFile(_what_else(shapes))
    if alone:
        return _describe(shapes, header, path, "diffusers", "", ("unet",))
    if any(key.startswith(UNCLIP_PREFIXES) for key in shapes):
        raise BadFile(
            "is an unCLIP model of SD 2.x, which is told a picture; only those that are told words can draw here"
        )
    assert prefix is not None
    found = _describe(shapes, header, path, "ldm", prefix, ("unet",))
    text = find_text_encoders(shapes, TEXT_PARTS[found.family], found.context_width)
    others = {"unet", "vae"} if any(key.startswith(VAE_PREFIX) for key in shapes) else {"unet"}
    parts = tuple(part for part in PARTS if part in text or part in others)
    return replace(found, parts=parts, text_prefixes=tuple(text.items()))


def _what_else(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why a file without a UNet of ours cannot be used."""
    kind = recognize(shapes)
    if kind is None or (kind.role == "checkpoint" and not kind.family):
        return "holds no UNet of Stable Diffusion 1.x, 2.x or SDXL"
    return kind.reason


def _describe(
    shapes: Mapping[str, tuple[int, ...]],
    header: Header,
    path: Path,
    names: KeyNames,
    prefix: str,
    parts: tuple[str, ...],
) -> Checkpoint:
    """What a UNet's own tensors say, whichever names they go by."""
    first = shapes[f"{prefix}input_blocks.0.0.weight" if names == "ldm" else f"{prefix}conv_in.weight"]
    contexts = [shape for key, shape in shapes.items() if key.startswith(prefix) and key.endswith(".attn2.to_k.weight")]
    if not contexts or len(first) != 4:
        raise BadFile("holds a UNet that does not read prompts")
    family = _family(shapes, prefix, names, contexts[0][-1])
    if first[1] not in (4, INPAINT_CHANNELS):
        raise BadFile(f"has a UNet of {first[1]} input channels; 4, and 9 for inpainting, are known here")
    prediction, zero_snr = _prediction(family, first[1], prefix, header, path)
    guided = any(key.startswith(prefix) and key.endswith("cond_proj.weight") for key in shapes)
    return Checkpoint(
        family=family,
        names=names,
        parts=parts,
        in_channels=first[1],
        context_width=contexts[0][-1],
        native_px=768 if (family, prediction) == ("SD 2.x", "v") else NATIVE_PX[family],
        prediction=prediction,
        zero_snr=zero_snr,
        guides_itself=guided,
        defaults=_defaults(family, {"_class_name": "LCMScheduler"} if guided else {}, prediction, zero_snr),
        dtype=_dtype(header, prefix),
        nbytes=sum(place.nbytes for place in header.places.values()),
        unet_prefix=prefix,
    )


def _family(shapes: Mapping[str, tuple[int, ...]], prefix: str, names: KeyNames, context: int) -> FamilyName:
    """SDXL is told sizes as well as words; SD 2.x differs from 1.x by linear layers around its attention."""
    label = shapes.get(f"{prefix}label_emb.0.0.weight" if names == "ldm" else f"{prefix}add_embedding.linear_1.weight")
    if label is not None:
        return "SDXL refiner" if label[1] - 5 * SIZE_IDS == context else "SDXL"
    projection = next(
        (shape for key, shape in shapes.items() if key.endswith(".proj_in.weight") and key.startswith(prefix)), ()
    )
    return "SD 2.x" if len(projection) == 2 else "SD 1.x"


def _prediction(family: FamilyName, channels: int, prefix: str, header: Header, path: Path) -> tuple[Prediction, bool]:
    """From the file's own words and markers, a yaml beside it, or for SD 2.x a weight that tells."""
    if noise := next((noise for marker, noise in OTHER_NOISE.items() if marker in header.shapes), None):
        raise BadFile(f"was trained with {noise}, which no sampler here can draw with")
    zero_snr = "ztsnr" in header.shapes
    if "v_pred" in header.shapes or header.metadata.get("modelspec.prediction_type", "").startswith("v"):
        return "v", zero_snr
    if said := _sidecar_prediction(path):
        return said, zero_snr
    if family == "SD 2.x" and channels == 4:
        key = f"{prefix}output_blocks.11.1.transformer_blocks.0.norm1.bias"
        numbers = read_floats(path, header, key)
        if numbers is not None and float(numbers.std()) > V_BIAS_STD:
            return "v", zero_snr
    return "epsilon", zero_snr


def _sidecar_prediction(path: Path) -> Prediction | None:
    """What the LDM configuration beside a file says, as A1111 reads it: ``name.yaml`` with ``parameterization``."""
    try:
        config = yaml.safe_load(path.with_suffix(".yaml").read_text("utf-8"))
        said = config["model"]["params"].get("parameterization", "eps")
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return "v" if said == "v" else "epsilon"


def read_floats(path: Path, header: Header, key: str) -> np.ndarray | None:
    """One small tensor's numbers, flat; None where the file has none of that name or not as floats."""
    place = header.places.get(key)
    if place is None or place.dtype not in ("F32", "F16", "BF16"):
        return None
    with path.open("rb") as file:
        file.seek(place.offset)
        data = file.read(place.nbytes)
    if place.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, "<f4" if place.dtype == "F32" else "<f2").astype("<f4")


def _dtype(header: Header, prefix: str) -> str:
    """The format that most of the UNet's bytes are in."""
    sizes: dict[str, int] = {}
    for key, place in header.places.items():
        if key.startswith(prefix):
            sizes[place.dtype] = sizes.get(place.dtype, 0) + place.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype], default="F32")


def _defaults(family: FamilyName, scheduler: Mapping[str, Any], prediction: Prediction, zero_snr: bool) -> Defaults:
    """By the schedule that the model was published with: distilled ones need few steps and no guidance."""
    name, trailing = str(scheduler.get("_class_name", "")), scheduler.get("timestep_spacing") == "trailing"
    if name in ("LCMScheduler", "TCDScheduler"):
        return Defaults(steps=4, guidance=1.0, sampler=name.removesuffix("Scheduler"))
    if trailing and prediction == "epsilon" and name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"):
        sampler = "Euler" if name == "EulerDiscreteScheduler" else "Euler a"
        return Defaults(steps=4, guidance=1.0, sampler=sampler, schedule="Trailing")
    if family == "SDXL refiner":
        return Defaults()
    schedule = "Trailing" if zero_snr else "Default"
    return Defaults(guidance=5.0 if family == "SDXL" else 7.0, schedule=schedule)


def _check_noise(scheduler: Mapping[str, Any]) -> None:
    """Raises BadFile for a schedule with which no sampler here draws."""
    name, predicted = str(scheduler.get("_class_name", "")), scheduler.get("prediction_type", "epsilon")
    for start, noise in OTHER_SCHEDULERS.items():
        if name.startswith(start):
            raise BadFile(f"was trained with {noise} ({name[:60]}), which no sampler here can draw with")
    if predicted not in PREDICTIONS:
        raise BadFile(f"predicts {str(predicted)[:60]!r}; known here are {', '.join(PREDICTIONS)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadFile(f"has no {path.parent.name}/{path.name} that can be read") from None
    if not isinstance(found, dict):
        raise BadFile(f"has no {path.parent.name}/{path.name} that can be read")
    return found


def _read_inner(folder: Path, file: Path) -> Header:
    try:
        return read_header(file)
    except BadFile as error:
        raise BadFile(f"holds {file.relative_to(folder).as_posix()}, which {error}") from None


def _without_weights(folder: Path, part: str) -> str:
    if any((folder / part).glob("*.bin")):
        return f"has its {part} only as a pickle, and opening a pickle can run any program; get it as safetensors"
    return f"has no weights in {part} as safetensors"


def _read_folder(path: Path) -> Checkpoint:
    """A diffusers folder: its small JSON files are the word, its tensors the proof."""
    unet, vae, scheduler = (_read_json(path / name) for name in CONFIGS)
    files = weight_files(path)
    headers = {part: [_read_inner(path, file) for file in found] for part, found in files.items()}
    unet_headers = headers.get("unet", [])
    shapes = {key: shape for header in unet_headers for key, shape in header.shapes.items()}
    if "conv_in.weight" not in shapes:
        raise BadFile(_without_weights(path, "unet"))
    _check_noise(scheduler)
    places = {key: place for header in unet_headers for key, place in header.places.items()}
    found = _describe(shapes, Header({}, shapes, places), path, "diffusers", "", ("unet",))
    for part in (*TEXT_PARTS[found.family], "vae"):
        if part not in headers:
            raise BadFile(_without_weights(path, part))
    try:
        native_px = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (ValueError, KeyError, TypeError, OverflowError):
        native_px = 0
    if native_px < 1:
        raise BadFile("does not say its native size")
    zero_snr = bool(scheduler.get("rescale_betas_zero_snr"))
    prediction: Prediction = "v" if scheduler.get("prediction_type") == "v_prediction" else "epsilon"
    every = [header for part in headers.values() for header in part]
    return replace(
        found,
        parts=tuple(part for part in PARTS if part in headers),
        native_px=native_px,
        prediction=prediction,
        zero_snr=zero_snr,
        defaults=_defaults(found.family, scheduler, prediction, zero_snr),
        nbytes=sum(place.nbytes for header in every for place in header.places.values()),
    )
