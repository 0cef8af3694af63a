"""Flags that commands share, and the settings that are made of them."""

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from webui.cli import BadInput
from webui.core.errors import explain
from webui.core.filenames import FILENAME, FILENAME_FIELDS, FileFormat
from webui.core.settings import DEVICES, DTYPES, MEMORY_PLANS, Settings

SETTINGS_FLAGS = (
    "model",
    "device",
    "workers",
    "devices",
    "ray",
    "ray_files",
    "together",
    "dtype",
    "data_dir",
    "models_dir",
    "offline",
    "memory",
    "lora_cache",
    "model_cache",
    "cpu_kernels",
    "compile",
    "cuda_graphs",
    "allow_host",
    "root_path",
    "tls_cert",
    "tls_key",
    "format",
    "filename",
)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What is drawn with, and on what."""
    parser.add_argument("--model", metavar="NAME", help="the model to draw with (default: demo)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="models, outputs and caches (default: data)")
    parser.add_argument(
        "--models-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="another folder of models, as A1111 or ComfyUI have it; can be repeated",
    )
    parser.add_argument(
        "--memory",
        default="auto",
        choices=MEMORY_PLANS,
        help="what stays off the device until it is needed: nothing, all but the UNet, what has no room, or every layer"
        " (default: what fits)",
    )
    parser.add_argument(
        "--lora-cache",
        metavar="SIZE",
        help="memory for merged LoRA weights, such as 2GB or 512MB (default: a quarter of what is free)",
    )
    parser.add_argument(
        "--model-cache",
        metavar="SIZE",
        help="memory for models kept beside the one in use; 0 keeps none (default: all but a quarter of what is free)",
    )
    text = "use plain torch on a CPU: slower, the same pictures within rounding"
    parser.add_argument("--no-cpu-kernels", dest="cpu_kernels", action="store_false", help=text)


def add_offline(parser: argparse.ArgumentParser) -> None:
    """Whether addresses are fetched."""
    text = "fetch no models from addresses, whoever asks (also: HF_HUB_OFFLINE=1)"
    parser.add_argument("--offline", action="store_const", const=True, help=text)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many draw at the same time."""
    text = "processes that draw: each on its own graphics card, or on the processor if there is none (default: 1)"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
    text = "draw on each of these, each in a process of its own: cuda:0,cuda:1,cpu"
    parser.add_argument("--devices", type=lambda text: tuple(text.split(",")), metavar="LIST", help=text)
    text = "draw on a Ray cluster: HOST:PORT of one that this machine belongs to, or local to start one here"
    parser.add_argument("--ray", metavar="ADDRESS", help=text)
    text = "disk space for models on machines of the cluster that lack them (default: half of what is free there)"
    parser.add_argument("--ray-files", metavar="SIZE", help=text)


def add_saving(parser: argparse.ArgumentParser) -> None:
    """How pictures become files."""
    parser.add_argument("--format", choices=get_args(FileFormat), help="file format (default: png)")
    fields = ", ".join(f"{{{name}}}" for name in FILENAME_FIELDS)
    parser.add_argument("--filename", metavar="PATTERN", help=f"file names, made of {fields} (default: {FILENAME})")


def read_settings(options: argparse.Namespace, **more: Any) -> Settings:
    """The settings that the flags ask for; raises BadInput.

    With ``out``, which may be None, pictures are to be saved: their folder must be one that can be written to.
    """
    given = ((name, getattr(options, name, None)) for name in SETTINGS_FLAGS)
    values = {name: value for name, value in given if value is not None}
    try:
        settings = Settings(**values, **more)
    except ValidationError as error:
        raise BadInput(explain(error)) from None
    for flag, folder in (("--data-dir", settings.data_dir), ("--out", settings.out)):
        if folder and not (nearest := _nearest(folder)).is_dir():
            raise BadInput(f"{flag} {str(folder)!r} cannot be used: {nearest} is not a folder")
    if "out" in more and not os.access(nearest := _nearest(settings.out or settings.outputs_dir), os.W_OK | os.X_OK):
        raise BadInput(f"nothing could be saved: {nearest} cannot be written to; choose another folder: --out DIR")
    return settings


def _nearest(folder: Path) -> Path:
    """The folder itself, or that above it which is there."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
