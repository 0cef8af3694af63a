"""What is here and what is wrong, each problem with its one-line mend."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from webui import __version__
from webui.core.control_file import read_control
from webui.core.finder_file import RUNTIME, check_finder
from webui.core.maps.networks import check_annotator
from webui.core.memory import in_gib
from webui.core.names import SUBJECT, find_file
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.library.library import find_annotators, find_controls, find_finders, find_loras, find_models
from webui.library.lora_info import describe
from webui.setup.cards import look
from webui.setup.torch_builds import (
    STAMP,
    choose_build,
    describe_misfit,
    pip_words,
    read_asked,
    read_installed,
    serves,
)

PACKAGES = ("torch", "diffusers", "safetensors", "gradio", "pillow", "numpy", "psutil")
DRIVER_MENDS = {
    "cuda": "see whether nvidia-smi works; if it does not, install NVIDIA's driver anew and restart the machine",
    "rocm": "join the groups that may use the card: sudo usermod -aG render,video $USER   (then log in again)",
    "xpu": "install Intel's driver for computing (Level Zero), and restart the machine",
}
LOW_DISK_BYTES = 2 * 2**30
GIB = 2**30


def examine(settings: Settings, name_workers: Callable[[], Sequence[str]] = tuple) -> int:
    """Prints facts, then problems; returns 1 where there is a problem, else 0.

    ``name_workers`` says where several workers would be; it raises RequestError for devices that are not there.
    """
    print(f"Darkroom {__version__} · Python {platform.python_version()} · {platform.platform()}")
    print(" · ".join(f"{name} {_version(name)}" for name in PACKAGES))
    problems = [
        *_missing_packages(),
        *_examine_device(settings),
        *_examine_workers(name_workers),
        *_examine_folder(settings),
        *_examine_models(settings),
        *_examine_finders(settings),
        *_examine_controls(settings),
        *_examine_annotators(settings),
    ]
    for problem, mend in problems:
        print(f"PROBLEM  {problem}\n   mend  {mend}")
    print("All is well." if not problems else f"{len(problems)} to mend.")
    return 1 if problems else 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _missing_packages() -> Iterator[tuple[str, str]]:
    missing = [name for name in PACKAGES if _version(name) == "missing"]
    if missing:
        yield f"not installed: {', '.join(missing)}", "python launch.py   (with the network up)"


def _examine_device(settings: Settings) -> Iterator[tuple[str, str]]:
    import psutil
    import torch

    from webui.core.errors import RequestError
    from webui.engine.devices import choose_device, choose_dtype, describe

    try:
        device = choose_device(settings.device)
    except RequestError as error:
        yield str(error), "start without --device"
        return
    dtype = choose_dtype(settings.dtype, device, settings.cache_dir)
    without = ", without CPU kernels" if device.type == "cpu" and not settings.cpu_kernels else ""
    print(f"Device: {describe(device, dtype)}, {torch.get_num_threads()} CPU threads{without}")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        print(f"GPU memory: {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    if device.type == "cpu" and settings.device == "auto":
        yield from _examine_card(Path(torch.__file__).parents[1])
    print(f"Memory: {psutil.virtual_memory().available / GIB:.1f} GiB available")


def _examine_workers(name_workers: Callable[[], Sequence[str]]) -> Iterator[tuple[str, str]]:
    from webui.core.errors import RequestError

    try:
        if names := name_workers():
            print(f"Workers: {', '.join(map(_with_card, names))}")
    except RequestError as error:
        yield str(error), "name other devices, or start without --workers, --devices and --ray"


def _with_card(name: str) -> str:
    """The name of a worker on a card of this machine with what the card is."""
    import torch

    kind, _, number = name.partition(":")
    if kind != "cuda" or not number.isdecimal() or int(number) >= torch.cuda.device_count():
        return name
    card = torch.cuda.get_device_properties(int(number))
    return f"{name} ({card.name}, {card.total_memory / GIB:.1f} GiB)"


def _examine_card(site: Path) -> Iterator[tuple[str, str]]:
    """Why a card that is here is not used."""
    wanted = choose_build(look(ask_driver=True), read_asked(Path(sys.prefix) / STAMP))
    installed = read_installed([site])
    if not wanted.card or not installed:
        return
    if not serves(installed, wanted):
        ours = Path(sys.prefix).parent / "launch.py"
        words = " ".join(pip_words(wanted, installed.version.partition("+")[0]))
        yield (
            describe_misfit(installed, wanted),
            "python launch.py --torch auto" if ours.exists() else f"{sys.executable} -m pip install {words}",
        )
    else:
        yield f"torch does not find the {wanted.card} card of this machine", wanted.note or DRIVER_MENDS[wanted.kind]


def _examine_folder(settings: Settings) -> Iterator[tuple[str, str]]:
    folder = settings.data_dir
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    print(f"Data folder: {folder}, {free / GIB:.1f} GiB free")
    if not os.access(nearest, os.W_OK):
        yield f"{nearest} cannot be written to", "choose another folder: --data-dir DIR"
    if free < LOW_DISK_BYTES:
        yield (
            f"only {free / GIB:.1f} GiB are free on the disk of {folder}",
            "free some space, or --data-dir DIR",
        )


def _examine_models(settings: Settings) -> Iterator[tuple[str, str]]:
    models = find_models(settings)
    kinds = [
        f"{name} ({file.checkpoint.kind}, {file.native_px} px, {in_gib(file.checkpoint.nbytes)})"
        for name, file in models.items()
        if file.checkpoint
    ]
    print(f"Models: {', '.join(kinds) or 'none'}")
    for name, file in models.items():
        if file.problem:
            yield f"model {name!r}: {file.path.name} {file.problem}", f"replace or remove {file.path}"
    loras = find_loras(settings)
    print(f"LoRAs: {', '.join(list(loras)[:20]) or 'none'}{f' and {len(loras) - 20} more' if len(loras) > 20 else ''}")
    for name, lora in loras.items():
        if problem := describe(lora).problem:
            yield f"LoRA {name!r}: {problem}", f"replace or remove {lora.path}"
    if "demo" not in models:
        yield "the embedded model is not in the installation", "get a complete copy of the product"
    if find_file(settings.model, models) is None:
        yield (
            f"model {settings.model!r} is not found",
            f"put it into {settings.data_dir / 'models/Stable-diffusion'}",
        )
    for folder in settings.models_dir:
        if not folder.is_dir():
            yield f"--models-dir {folder} is not a folder", "correct the path"


def _examine_finders(settings: Settings) -> Iterator[tuple[str, str]]:
    """Those in files, which need a package of their own."""
    finders = find_finders(settings)
    print(f"Finders: {', '.join((SUBJECT, *finders))}")
    usable = [name for name, file in finders.items() if not file.problem]
    if usable and find_spec(RUNTIME) is None:
        yield f"finders {', '.join(usable[:5])} need {RUNTIME}", f"{sys.executable} -m pip install {RUNTIME}"
        return
    for name, file in finders.items():
        try:
            check_finder(file)
        except BadFile as error:
            yield f"finder {name!r}: {file.path.name} {error}", f"replace or remove {file.path}"


def _examine_controls(settings: Settings) -> Iterator[tuple[str, str]]:
    """Control files: what each is, or why it cannot be used."""
    controls = find_controls(settings)
    print(f"Controls: {', '.join(controls) or 'none'}")
    for name, file in controls.items():
        try:
            read_control(file)
        except BadFile as error:
            yield f"control {name!r}: {file.path.name} {error}", f"replace or remove {file.path}"


def _examine_annotators(settings: Settings) -> Iterator[tuple[str, str]]:
    """Networks that make maps for controls; nothing is said where there are none."""
    annotators = find_annotators(settings)
    if annotators:
        print(f"Networks of preprocessors: {', '.join(annotators)}")
    if annotators and find_spec(RUNTIME) is None:
        yield "preprocessors with networks need " + RUNTIME, f"{sys.executable} -m pip install {RUNTIME}"
    for name, file in annotators.items():
        try:
            check_annotator(file)
        except BadFile as error:
            yield f"network {name!r} of preprocessors: {file.path.name} {error}", f"replace or remove {file.path}"
