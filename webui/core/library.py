"""Names people see -> files on disk. A name is a key of what was found; it is never joined into a path."""

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from webui.core.request import RequestError
from webui.core.settings import Settings
from webui.core.tensor_file import PICKLE_ENDINGS

DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo"
CHECKPOINT_FOLDERS = ("models/Stable-diffusion", "models/checkpoints", "Stable-diffusion", "checkpoints")
LORA_FOLDERS = ("models/Lora", "models/LyCORIS", "models/loras", "Lora", "LyCORIS", "loras")
WEIGHT_FOLDERS = ("text_encoder", "text_encoder_2", "unet", "vae")


@dataclass(frozen=True)
class ModelFile:
    """A model that can be loaded: a folder in the diffusers layout. ``native_px`` is the side it was trained at."""

    name: str
    path: Path
    native_px: int


@dataclass(frozen=True)
class LoraFile:
    """A file with changes to a model's weights."""

    name: str
    path: Path


def find_models(settings: Settings) -> dict[str, ModelFile]:
    """Every model by name, the embedded one first; of two with one name, the first found."""
    found = {"demo": _read_model("demo", DEMO_MODEL)}
    for root in (settings.data_dir, *settings.models_dir):
        for folder in _model_folders(root):
            found.setdefault(folder.name, _read_model(folder.name, folder))
    return {name: model for name, model in found.items() if model is not None}


def find_loras(settings: Settings) -> dict[str, LoraFile]:
    """Every LoRA by name, the embedded ones last; of several with one name, the further ones as ``folder/name``.

    Pickles are listed too, so that whoever asks for one is told why it is refused.
    """
    found: dict[str, LoraFile] = {}
    roots = [root / folder for root in (settings.data_dir, *settings.models_dir) for folder in LORA_FOLDERS]
    for root in (*roots, DEMO_MODEL / "loras"):
        for path in _tensor_files(root):
            name = f"{path.parent.name}/{path.stem}" if path.stem in found else path.stem
            found.setdefault(name, LoraFile(name, path))
    return found


def choose(kind: str, name: str, names: Iterable[str], field: str = "") -> str:
    """The one of ``names`` that ``name`` means, whatever its case; RequestError with near names otherwise.

    ``field`` is the request's field that the error is about, where it is not called like the kind.
    """
    names = tuple(names)
    if name in names:
        return name
    by_lowercase = {known.casefold(): known for known in names}
    if match := by_lowercase.get(name.casefold()):
        return match
    near = difflib.get_close_matches(name.casefold(), by_lowercase, n=3, cutoff=0.5) or list(by_lowercase)[:8]
    offer = f"; did you mean {', '.join(by_lowercase[n] for n in near)}?" if near else ""
    raise RequestError(f"{kind} {name[:60]!r} is not known{offer}", field=field or kind)


def content_hash(model: ModelFile) -> str:
    """SHA-256 over a model's weight files; cached until one of them changes."""
    files = sorted(file for folder in WEIGHT_FOLDERS for file in (model.path / folder).glob("*.safetensors"))
    stats = [file.stat() for file in files]
    return _hash_files(tuple(files), tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache(maxsize=64)
def _hash_files(files: tuple[Path, ...], _stamp: tuple[tuple[int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _tensor_files(root: Path) -> Iterator[Path]:
    """Files of weights below a folder, following links, each folder once; hidden and half-downloaded ones are not."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or not _is_text(str(path)):
                continue
            if path.suffix.lower() in (".safetensors", *PICKLE_ENDINGS):
                yield path


def _is_text(name: str) -> bool:
    """Whether a name can be shown and sent; disks hold any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _model_folders(root: Path) -> Iterator[Path]:
    for folder in CHECKPOINT_FOLDERS:
        for index in sorted((root / folder).glob("*/model_index.json")):
            if not index.parent.name.startswith("."):
                yield index.parent


def _read_model(name: str, folder: Path) -> ModelFile | None:
    """What the small JSON files of a diffusers folder say; None where they cannot be read."""
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
        vae = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
        latent_px, factor = int(unet["sample_size"]), 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if latent_px < 1:
        return None
    return ModelFile(name, folder, latent_px * factor)
