"""The trained parts as one diffusers StableDiffusionPipeline folder in half precision."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.models import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers.models.clip import CLIPTokenizer

from . import card, vocabulary
from . import latents as latents_module
from .progress import load_checkpoint
from .unet import BETA_END, BETA_START, NOISE_STEPS, Denoiser

SIZE_LIMIT = 30_000_000
"""Bytes the whole folder may have."""

NOTICE_FILE = Path(__file__).with_name("NOTICE.txt")
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")


def scheduler() -> EulerDiscreteScheduler:
    """The sampler that the folder names; all its settings but the class follow from the training."""
    made: EulerDiscreteScheduler = EulerDiscreteScheduler(
        num_train_timesteps=NOISE_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return made


def assemble(work: Path) -> StableDiffusionPipeline:
    """The pipeline in half precision, with the averaged weights of `work/unet.pt`."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = Denoiser(len(tokenizer))
    state = load_checkpoint(work / "unet.pt")
    if state is None:
        raise SystemExit("There is no unet.pt to export yet: run the unet stage first.")
    model.load_state_dict(state["average"])
    vae = AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.contiguous_format)
    left_out: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    own: Any = scheduler()  # annotated there as one of an enumeration of names
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=model.text, tokenizer=tokenizer, unet=model.unet, scheduler=own, **left_out
    )
    return pipeline.to(dtype=torch.float16)


def export(work: Path, out: Path) -> int:
    """Write the folder beside `out` and then put it in `out`'s place; return its size in bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary) / "model"
        assemble(work).save_pretrained(folder, safe_serialization=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(work / "tokenizer" / name, folder / "tokenizer" / name)
        preview = latents_module.fit_preview(latents_module.prepare(work))
        (folder / "preview.json").write_text(json.dumps(preview, indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(NOTICE_FILE, folder / "NOTICE")
        tidy_configs(folder)
        vocabulary.write(folder)
        card.write(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > SIZE_LIMIT:
            raise SystemExit(f"The model has {size:,} bytes; {SIZE_LIMIT:,} are allowed.")
        replace_folder(folder, out)
    return size


def tidy_configs(folder: Path) -> None:
    """Take the names of local folders out of the configuration files; they depend on who ran the export."""
    for file in folder.glob("*/*config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
            config.pop(key, None)
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    index = folder / "model_index.json"
    config = json.loads(index.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    index.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def replace_folder(new: Path, old: Path) -> None:
    """Swap a finished folder in; nobody sees a half-written one."""
    aside = new.with_name("old")
    if old.exists():
        os.replace(old, aside)
    os.replace(new, old)
