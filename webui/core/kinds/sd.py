"""Stable Diffusion 1.x, 2.x, SDXL and its refiner: how their files are known, and what they were trained on.

Two layouts are known: diffusers' names, and those of the original programs (LDM), whose UNet is called
``model.diffusion_model``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.core.kinds.kind import Defaults, Kind, Prediction, Source, Traits
from webui.core.tensor_file import BadFile, Header, read_floats
from webui.core.text_encoders import find_text_encoders

if TYPE_CHECKING:
    from webui.core.checkpoint import Checkpoint

INPAINT_CHANNELS = 9  # noisy latents (4), mask (1), latents of the masked picture (4)
SIZE_IDS = 256  # numbers that each of SDXL's sizes becomes: six of them in the base, five in the refiner
VAE_PREFIX = "first_stage_model."
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
TEXT_PARTS: Mapping[str, tuple[str, ...]] = {
    "SD 1.x": ("text_encoder",),
    "SD 2.x": ("text_encoder",),
    "SDXL": ("text_encoder", "text_encoder_2"),
    "SDXL refiner": ("text_encoder_2",),
}


def _look(name: str, header: Header) -> Traits | None:
    """What a UNet's own tensors say, whichever names they go by; None where it is none of the kind ``name``."""
    shapes = header.shapes
    prefix = next((prefix for prefix in UNET_PREFIXES if f"{prefix}input_blocks.0.0.weight" in shapes), None)
    alone = "conv_in.weight" in shapes and any(key.startswith("down_blocks.0.") for key in shapes)
    if prefix is None and not alone:
        return None
    names, prefix = ("diffusers", "") if alone or prefix is None else ("ldm", prefix)
    if names == "ldm" and any(key.startswith(UNCLIP_PREFIXES) for key in shapes):
        raise BadFile(
            "is an unCLIP model of SD 2.x, which is told a picture; only those that are told words can draw here"
        )
    first = shapes[f"{prefix}input_blocks.0.0.weight" if names == "ldm" else f"{prefix}conv_in.weight"]
    contexts = _ending(shapes, prefix, ".attn2.to_k.weight")
    if (context := next(contexts, None)) is None or len(first) != 4:
        raise BadFile("holds a UNet that does not read prompts")
    if _family(shapes, prefix, names, context[-1]) != name:
        return None
    if first[1] not in (4, INPAINT_CHANNELS):
        raise BadFile(f"has a UNet of {first[1]} input channels; 4, and 9 for inpainting, are known here")
    prefixes = {"backbone": prefix}
    if names == "ldm":
        prefixes |= find_text_encoders(shapes, TEXT_PARTS[name], context[-1])
        prefixes |= {"vae": VAE_PREFIX} if any(key.startswith(VAE_PREFIX) for key in shapes) else {}
    guided = next(_ending(shapes, prefix, "cond_proj.weight"), None) is not None
    return Traits(tuple(prefixes.items()), names, first[1], context[-1], guided)


def _ending(shapes: Mapping[str, tuple[int, ...]], prefix: str, end: str) -> Iterator[tuple[int, ...]]:
    return (shape for key, shape in shapes.items() if key.startswith(prefix) and key.endswith(end))


def _family(shapes: Mapping[str, tuple[int, ...]], prefix: str, names: str, context: int) -> str:
    """SDXL is told sizes as well as words; SD 2.x differs from 1.x by linear layers around its attention."""
    label = shapes.get(f"{prefix}label_emb.0.0.weight" if names == "ldm" else f"{prefix}add_embedding.linear_1.weight")
    if label is not None:
        return "SDXL refiner" if label[1] - 5 * SIZE_IDS == context else "SDXL"
    projection = next(
        (shape for key, shape in shapes.items() if key.endswith(".proj_in.weight") and key.startswith(prefix)), ()
    )
    return "SD 2.x" if len(projection) == 2 else "SD 1.x"


def _settle(found: "Checkpoint", source: Source) -> "Checkpoint":
    """What it was trained to predict, what suits it, and the size that it was trained for."""
    scheduler: Mapping[str, Any]
    if source.configs:
        scheduler = source.configs["scheduler"]
        _check_noise(scheduler)
        prediction: Prediction = "v" if scheduler.get("prediction_type") == "v_prediction" else "epsilon"
        zero_snr, native_px = bool(scheduler.get("rescale_betas_zero_snr")), _native_px(source)
    else:
        prefix = found.prefix_of("backbone")
        prediction, zero_snr = _prediction(found.family, found.in_channels, prefix, source.header, source.path)
        native_px = 768 if (found.family, prediction) == ("SD 2.x", "v") else found.native_px
        scheduler = {"_class_name": "LCMScheduler"} if found.guides_itself else {}
    defaults = _defaults(found.family, scheduler, prediction, zero_snr)
    return replace(found, prediction=prediction, zero_snr=zero_snr, native_px=native_px, defaults=defaults)


def _native_px(source: Source) -> int:
    try:
        levels = len(source.configs["vae"]["block_out_channels"])
        native_px: int = int(source.configs["backbone"]["sample_size"]) * 2 ** (levels - 1)
    except (ValueError, KeyError, TypeError, OverflowError):
        native_px = 0
    if native_px < 1:
        raise BadFile("does not say its native size")
    return native_px


def _prediction(family: str, channels: int, prefix: str, header: Header, path: Path) -> tuple[Prediction, bool]:
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
        text = path.with_suffix(".yaml").read_text("utf-8")
    except (OSError, ValueError):
        return None
    import yaml  # hardly any file has one beside it

    try:
        config = yaml.safe_load(text)
        said = config["model"]["params"].get("parameterization", "eps")
    except (ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return "v" if said == "v" else "epsilon"


def _defaults(family: str, scheduler: Mapping[str, Any], prediction: Prediction, zero_snr: bool) -> Defaults:
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


def _row(name: str, latents: str, native_px: int) -> Kind:
    return Kind(
        name=name,
        parts=(*TEXT_PARTS[name], "backbone", "vae"),
        latents=latents,
        recognise=partial(_look, name),
        settle=_settle,
        folders={"backbone": "unet"},
        native_px=native_px,
        step_px_bytes=250 if latents == "SDXL" else 400,
    )


SD1 = _row("SD 1.x", "SD", 512)
SD2 = _row("SD 2.x", "SD", 512)
SDXL = _row("SDXL", "SDXL", 1024)
SDXL_REFINER = _row("SDXL refiner", "SDXL", 1024)
