"""Names people see -> files on disk. A name is a key of what was found; it is never joined into a path."""

import difflib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from webui.core.checkpoint import Checkpoint, Defaults, read_checkpoint, weight_files
from webui.core.request import Request, RequestError
from webui.core.settings import Settings
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile, read_header

WEIGHT_ENDINGS = (".safetensors", *PICKLE_ENDINGS)
DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo"
# A1111's and ComfyUI's names, below the folder of the program or below its models folder.
CHECKPOINT_FOLDERS = (
    "models/Stable-diffusion",
    "models/checkpoints",
    "models/unet",
    "models/diffusion_models",
    "Stable-diffusion",
    "checkpoints",
    "unet",
    "diffusion_models",
)
LORA_FOLDERS = ("models/Lora", "models/LyCORIS", "models/loras", "Lora", "LyCORIS", "loras")
VAE_FOLDERS = ("models/VAE", "models/vae", "models/VAE-approx", "models/vae_approx", "VAE", "vae", "vae_approx")
EMBEDDING_FOLDERS = ("embeddings", "models/embeddings")
TINY_KEYS = frozenset({"decoder.layers.0.weight", "1.weight"})  # in diffusers' names, in its author's


@dataclass(frozen=True)
class ModelFile:
    """A model: a diffusers folder or a single file. ``checkpoint`` is what it is, or None with the ``problem``.

    ``stamp`` changes with its files.
    """

    name: str
    path: Path
    checkpoint: Checkpoint | None = None
    problem: str = ""
    stamp: int = 0

    @property
    def native_px(self) -> int:
        """The side of the pictures it was trained on."""
        return self.checkpoint.native_px if self.checkpoint else 512

    @property
    def defaults(self) -> Defaults:
        """What suits it where nothing was asked for."""
        return self.checkpoint.defaults if self.checkpoint else Defaults()


@dataclass(frozen=True)
class LoraFile:
    """A file with changes to a model's weights."""

    name: str
    path: Path


@dataclass(frozen=True)
class VaeFile:
    """An autoencoder to use instead of a model's own."""

    name: str
    path: Path

    @property
    def is_tiny(self) -> bool:
        """Whether it is TAESD, which comes near a real one in a small part of the time."""
        try:
            return not TINY_KEYS.isdisjoint(read_header(self.path).shapes)
        except BadFile:
            return False


@dataclass(frozen=True)
class EmbeddingFile:
    """Vectors that its name stands for in a prompt (textual inversion)."""

    name: str
    path: Path


def find_models(settings: Settings) -> dict[str, ModelFile]:
    """Every model by name, the embedded one first; of several with one name, the further ones as ``folder/name``.

    What cannot be used is listed with its problem, so that whoever asks for it is told why.
    """
    demo = _read_model("demo", DEMO_MODEL)
    if demo.checkpoint:
        demo = replace(demo, checkpoint=replace(demo.checkpoint, defaults=Defaults()))
    found = {"demo": demo} if demo.checkpoint else {}
    for root in (settings.data_dir, *settings.models_dir):
        for folder in CHECKPOINT_FOLDERS:
            for path in _model_paths(root / folder):
                _add_model(found, path)
    for root in settings.models_dir:  # a folder of models, or one model
        for path in [root] if (root / "model_index.json").is_file() else _children(root):
            is_model = (path / "model_index.json").is_file() or path.suffix.lower() == ".safetensors"
            if is_model and _read_model(path.stem, path).checkpoint:
                _add_model(found, path)
    for path in _cached_repositories():
        name = path.parents[1].name.removeprefix("models--").replace("--", "/")
        found.setdefault(name, _read_model(name, path))
    return found


def _add_model(found: dict[str, ModelFile], path: Path) -> None:
    name = path.name if path.is_dir() else path.stem
    if name in found and found[name].path != path:
        name = f"{path.parent.name}/{name}"
    found.setdefault(name, _read_model(name, path))


def _read_model(name: str, path: Path) -> ModelFile:
    try:
        checkpoint = read_checkpoint(path)
        files = [file for part in weight_files(path).values() for file in part]
        return ModelFile(name, path, checkpoint, stamp=max(file.stat().st_mtime_ns for file in files))
    except BadFile as error:
        return ModelFile(name, path, problem=str(error))
    except OSError as error:
        return ModelFile(name, path, problem=f"cannot be read: {error.strerror}")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and _is_text(entry.name))
    except OSError:
        return []


def _cached_repositories() -> Iterator[Path]:
    """Diffusers folders in Hugging Face's cache: of each repository the revision that its main branch was at."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    for repository in sorted(cache.glob("models--*")):
        revisions = sorted((repository / "snapshots").glob("*/model_index.json"))
        try:
            main = (repository / "refs" / "main").read_text("utf-8").strip()
        except (OSError, ValueError):
            main = ""
        chosen = [index.parent for index in revisions if index.parent.name == main]
        yield from chosen or [index.parent for index in revisions[-1:]]


def find_vaes(settings: Settings) -> dict[str, VaeFile]:
    """Every autoencoder by name."""
    return {name: VaeFile(name, path) for name, path in _find_files(settings, VAE_FOLDERS).items()}


def approximations(request: Request, vaes: Mapping[str, VaeFile]) -> tuple[str, ...]:
    """As ``Request.approximations``, and a tiny autoencoder where one of ``vaes`` is asked for."""
    vae = vaes.get(request.vae)
    return (*request.approximations, *(["a tiny VAE"] if vae and vae.is_tiny else []))


def find_embeddings(settings: Settings) -> dict[str, EmbeddingFile]:
    """Every textual inversion by the name that stands for it in prompts."""
    return {name: EmbeddingFile(name, path) for name, path in _find_files(settings, EMBEDDING_FOLDERS).items()}


def _find_files(settings: Settings, folders: Iterable[str], *further: Path) -> dict[str, Path]:
    """Files of weights by name; of several with one name, the further ones as ``folder/name``.

    Pickles are listed too, so that whoever asks for one is told why it is refused.
    """
    found: dict[str, Path] = {}
    roots = [root / folder for root in (settings.data_dir, *settings.models_dir) for folder in folders]
    for root in (*roots, *further):
        for path in _tensor_files(root):
            found.setdefault(f"{path.parent.name}/{path.stem}" if path.stem in found else path.stem, path)
    return found


def find_loras(settings: Settings) -> dict[str, LoraFile]:
    """Every LoRA by name, the embedded ones last."""
    files = _find_files(settings, LORA_FOLDERS, DEMO_MODEL / "loras")
    return {name: LoraFile(name, path) for name, path in files.items()}


class Library:
    """What is on disk when it is first asked for: models, LoRAs, autoencoders and embeddings, by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def models(self) -> Mapping[str, ModelFile]:
        """As ``find_models`` finds them."""
        return find_models(self._settings)

    @cached_property
    def loras(self) -> Mapping[str, LoraFile]:
        """As ``find_loras`` finds them."""
        return find_loras(self._settings)

    @cached_property
    def vaes(self) -> Mapping[str, VaeFile]:
        """As ``find_vaes`` finds them."""
        return find_vaes(self._settings)

    @cached_property
    def embeddings(self) -> Mapping[str, EmbeddingFile]:
        """As ``find_embeddings`` finds them."""
        return find_embeddings(self._settings)


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
    """SHA-256 over a model's weight files, one behind the other; kept until one of them changes.

    For a single file its first ten digits are what A1111 and civitai call the model hash.
    """
    return hash_whole(*(file for part in weight_files(model.path).values() for file in part))


def hash_whole(*files: Path) -> str:
    """SHA-256 over files, one behind the other; kept until one of them changes. Raises OSError."""
    stats = [file.stat() for file in files]
    return _hash_files(files, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache(maxsize=64)
def _hash_files(files: tuple[Path, ...], _stamp: tuple[tuple[int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _tensor_files(root: Path) -> Iterator[Path]:
    """Files of weights below a folder; hidden and half-downloaded ones are not."""
    for folder, _, names in _walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and _is_text(str(path)) and path.suffix.lower() in WEIGHT_ENDINGS:
                yield path


def _model_paths(root: Path) -> Iterator[Path]:
    """Single files and diffusers folders below a folder."""
    for folder, folders, names in _walk(root):
        if "model_index.json" in names:
            folders.clear()
            if _is_text(folder):
                yield Path(folder)
            continue
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and _is_text(str(path)) and path.suffix.lower() in WEIGHT_ENDINGS:
                yield path


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` following links, each folder once, without hidden ones."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, folders, names


def _is_text(name: str) -> bool:
    """Whether a name can be shown and sent; disks hold any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
