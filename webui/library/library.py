"""What is on this machine to draw with, by the names that people see: models, LoRAs, autoencoders, embeddings,
upscalers, finders, controls."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from webui.core.allowance import EVERYTHING, Allowance
from webui.core.control_file import CONFIG, is_control_folder
from webui.core.files import (
    AnnotatorFile,
    ControlFile,
    EmbeddingFile,
    FinderFile,
    ImageEncoderFile,
    LoraFile,
    ModelFile,
    UpscalerFile,
    VaeFile,
)
from webui.core.finder_file import export_line
from webui.core.ip_adapter_file import pickle_line
from webui.core.kinds.kind import Defaults
from webui.core.settings import Settings
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile
from webui.core.weight_files import INDEXES, stamp
from webui.core.wildcards import Wildcard
from webui.core.words import TagList
from webui.library.checkpoint import read_checkpoint, read_part
from webui.library.folders import (
    ANNOTATOR_FOLDERS,
    CHECKPOINT_FOLDERS,
    CONTROL_FOLDERS,
    CONTROLS,
    EMBEDDING_FOLDERS,
    FINDER_FOLDERS,
    LORA_FOLDERS,
    TEXT_FOLDERS,
    UPSCALER_FOLDERS,
    VAE_FOLDERS,
)
from webui.library.image_encoders import find_image_encoders
from webui.library.naming import FoundFile, make_files
from webui.library.scan import LOOK_S, Scan, ScanCache
from webui.library.tag_lists import find_tag_lists
from webui.library.wildcards import find_wildcards

WEIGHT_ENDINGS = (".safetensors", *PICKLE_ENDINGS)
MODEL_ENDINGS = (*WEIGHT_ENDINGS, ".gguf")
NO_PICKLES = "is a pickle, which is not opened where others get in; have it saved as safetensors"
DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo"
UPSCALERS = DEMO_MODEL.with_name("upscalers")
"""Those that ship."""


def find_models(settings: Settings, scan: Scan | None = None) -> dict[str, ModelFile]:
    """Every model by name, the embedded one first; ``scan`` notes what was read.

    What cannot be used is listed with its problem, so that whoever asks for it is told why.
    """
    scan = scan or Scan()
    _note_model(DEMO_MODEL, scan)
    demo = _read_model(DEMO_MODEL)
    if demo.checkpoint:
        demo = replace(demo, checkpoint=replace(demo.checkpoint, defaults=Defaults()))
    read = {DEMO_MODEL: demo} if demo.checkpoint else {}
    found = [FoundFile(DEMO_MODEL, "demo", name="demo") for _ in read]
    for path, place in _model_paths(settings, scan):
        if path not in read:
            read[path] = _read_model(path)
            found.append(FoundFile(path, place, usable=read[path].checkpoint is not None))
    for path, name in _cached_repositories(scan):
        read[path] = _read_model(path)
        found.append(FoundFile(path, name, read[path].checkpoint is not None, name))
    return make_files(found, lambda name, path, **more: replace(read[path], name=name, **more))


def _model_paths(settings: Settings, scan: Scan) -> Iterator[tuple[Path, str]]:
    """Single files and diffusers folders, with where they lie below the folder of models."""
    for root in (settings.data_dir, *settings.models_dir):
        for top in CHECKPOINT_FOLDERS:
            for path, place in _find_paths(root / top, scan, folders_with=INDEXES, endings=MODEL_ENDINGS):
                _note_model(path, scan)
                yield path, place
    for root in settings.models_dir:  # a folder of models, or one model
        for path in [root] if _is_model(root) else scan.children(root):
            is_folder = _is_model(path)
            if is_folder or path.suffix.lower() in (".safetensors", ".gguf"):
                _note_model(path, scan)
                if _read_model(path).checkpoint:
                    yield path, path.name if is_folder else path.stem


def _is_model(folder: Path) -> bool:
    """Whether it is a diffusers folder of a whole model."""
    return any((folder / name).is_file() for name in INDEXES)


def _note_model(path: Path, scan: Scan) -> None:
    """What ``read_checkpoint`` looks at."""
    if path.is_dir():
        for child in scan.children(path):
            if child.is_dir():
                scan.children(child)
    for file in (path, path.with_suffix(".yaml")):
        scan.note(file)


def _read_model(path: Path) -> ModelFile:
    try:
        checkpoint = read_checkpoint(path)
        return ModelFile("", path, checkpoint, stamp=stamp(path))
    except BadFile as error:
        return ModelFile("", path, problem=str(error))
    except OSError as error:
        return ModelFile("", path, problem=f"cannot be read: {error.strerror}")


def _cached_repositories(scan: Scan) -> Iterator[tuple[Path, str]]:
    """Diffusers folders in Hugging Face's cache with their names: of each the revision that its main branch was at."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for repository in scan.children(Path(os.environ.get("HF_HUB_CACHE") or home / "hub")):
        if not repository.name.startswith("models--"):
            continue
        snapshots = scan.children(repository / "snapshots")
        revisions = [revision for revision in snapshots if _is_model(revision)]
        scan.note(repository / "refs" / "main")
        try:
            main = (repository / "refs" / "main").read_text("utf-8").strip()
        except (OSError, ValueError):
            main = ""
        chosen = [revision for revision in revisions if revision.name == main] or revisions[-1:]
        for revision in chosen:
            _note_model(revision, scan)
            yield revision, repository.name.removeprefix("models--").replace("--", "/")


def find_parts(settings: Settings, scan: Scan | None = None) -> dict[str, ModelFile]:
    """Text encoders and autoencoders in files of their own, which lend them to models, by name; ``scan`` notes what was
    read. What no model here can use is left out, but for text encoders that cannot be read, which are there with why.
    """
    scan = scan or Scan()
    read: dict[Path, ModelFile] = {}
    found: list[FoundFile] = []
    for tops in (TEXT_FOLDERS, VAE_FOLDERS):
        for entry in _find_files(settings, tops, scan, endings=MODEL_ENDINGS):
            if entry.usable and entry.path not in read:
                scan.note(entry.path)
                part = _read_part(entry.path)
                if part.checkpoint or (part.problem and tops == TEXT_FOLDERS):
                    read[entry.path] = part
                    found.append(entry)
    return make_files(found, lambda name, path, **more: replace(read[path], name=name, **more))


def _read_part(path: Path) -> ModelFile:
    try:
        return ModelFile("", path, read_part(path), stamp=stamp(path))
    except BadFile as error:
        return ModelFile("", path, problem=str(error))
    except OSError:
        return ModelFile("", path)


def find_loras(settings: Settings, scan: Scan | None = None) -> dict[str, LoraFile]:
    """Every LoRA by name, the embedded ones last; ``scan`` notes what was read."""
    return make_files(_find_files(settings, LORA_FOLDERS, scan, DEMO_MODEL / "loras"), LoraFile)


def find_vaes(settings: Settings, scan: Scan | None = None) -> dict[str, VaeFile]:
    """Every autoencoder by name; ``scan`` notes what was read."""
    return make_files(_find_files(settings, VAE_FOLDERS, scan), VaeFile)


def find_embeddings(settings: Settings, scan: Scan | None = None) -> dict[str, EmbeddingFile]:
    """Every textual inversion by the name that stands for it in prompts; ``scan`` notes what was read."""
    return make_files(_find_files(settings, EMBEDDING_FOLDERS, scan), EmbeddingFile)


def find_upscalers(settings: Settings, scan: Scan | None = None) -> dict[str, UpscalerFile]:
    """Every upscaler by name, the embedded one first; ``scan`` notes what was read.

    Pickles can be used, where only the owner of this machine says which: there are hardly any others of these files.
    """
    scan = scan or Scan()
    embedded = [FoundFile(path, place, name=place) for path, place in _find_paths(UPSCALERS, scan)]
    found = _find_files(settings, UPSCALER_FOLDERS, scan, pickles=not settings.has_guests)

    def make(name: str, path: Path, **more: Any) -> UpscalerFile:
        refused = settings.has_guests and path.suffix.lower() in PICKLE_ENDINGS
        return UpscalerFile(name, path, problem=NO_PICKLES if refused else "", **more)

    return make_files((*embedded, *found), make)


def find_finders(settings: Settings, scan: Scan | None = None) -> dict[str, FinderFile]:
    """Every finder by name; ``scan`` notes what was read. Pickles are among them, so that it is told what to do."""
    scan = scan or Scan()
    endings = (".onnx", *PICKLE_ENDINGS)
    found = (
        FoundFile(path, place, usable=path.suffix.lower() == ".onnx")
        for root in (settings.data_dir, *settings.models_dir)
        for top in FINDER_FOLDERS
        for path, place in _find_paths(root / top, scan, endings=endings)
    )

    def make(name: str, path: Path, **more: Any) -> FinderFile:
        problem = export_line(path.stem) if path.suffix.lower() in PICKLE_ENDINGS else ""
        return FinderFile(name, path, problem=problem, **more)

    return make_files(found, make)


def find_controls(settings: Settings, scan: Scan | None = None) -> dict[str, ControlFile]:
    """Every control by name, the embedded ones last; ``scan`` notes what was read. Pickles are among them, so that it
    is told what to do."""
    scan = scan or Scan()
    roots = [root / top for root in (settings.data_dir, *settings.models_dir) for top in CONTROL_FOLDERS]
    found = (
        FoundFile(path, place, usable=path.suffix.lower() not in PICKLE_ENDINGS)
        for root in (*roots, CONTROLS)
        for path, place in _find_paths(root, scan, folders_with=(CONFIG,))
        if not path.is_dir() or is_control_folder(path)
    )

    def make(name: str, path: Path, **more: Any) -> ControlFile:
        is_pickle = path.suffix.lower() in PICKLE_ENDINGS
        return ControlFile(name, path, problem=pickle_line(path.stem) if is_pickle else "", **more)

    return make_files(found, make)


def find_annotators(settings: Settings, scan: Scan | None = None) -> dict[str, AnnotatorFile]:
    """Every network that makes maps, by name; ``scan`` notes what was read."""
    return make_files(_find_files(settings, ANNOTATOR_FOLDERS, scan, endings=(".onnx",)), AnnotatorFile)


def _find_files(
    settings: Settings,
    tops: Iterable[str],
    scan: Scan | None,
    *further: Path,
    pickles: bool = False,
    endings: tuple[str, ...] = WEIGHT_ENDINGS,
) -> Iterator[FoundFile]:
    """Files of weights. Pickles are among them also where they cannot be used, so that whoever asks for one is told."""
    scan = scan or Scan()
    for root in (*(root / top for root in (settings.data_dir, *settings.models_dir) for top in tops), *further):
        for path, place in _find_paths(root, scan, endings=endings):
            yield FoundFile(path, place, usable=pickles or path.suffix.lower() not in PICKLE_ENDINGS)


def _find_paths(
    root: Path, scan: Scan, folders_with: tuple[str, ...] = (), endings: tuple[str, ...] = WEIGHT_ENDINGS
) -> Iterator[tuple[Path, str]]:
    """Files of weights below a folder, and diffusers folders, by a name in them, with where they lie in it."""
    for folder, below, names in scan.walk(root):
        above = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        if not set(folders_with).isdisjoint(names):
            below.clear()
            yield folder, above.rstrip("/") or folder.name
            continue
        for stem, ending in map(os.path.splitext, names):
            if ending.lower() in endings:
                yield folder / f"{stem}{ending}", f"{above}{stem}"


class Snapshot:
    """Files by name, each kind as it is when it is first asked for here; from then on it stays.

    What is not allowed is not there.
    """

    def __init__(self, library: "Library", max_age_s: float, allowed: Allowance = EVERYTHING) -> None:
        self._library, self._max_age_s, self._allowed = library, max_age_s, allowed

    @cached_property
    def models(self) -> Mapping[str, ModelFile]:
        """As ``find_models`` finds them."""
        return self._allowed.of_models(self._library.models.get(self._max_age_s))

    @cached_property
    def parts(self) -> Mapping[str, ModelFile]:
        """As ``find_parts`` finds them: they are lent to whatever model is allowed."""
        return self._library.parts.get(self._max_age_s)

    @cached_property
    def text_encoders(self) -> Mapping[str, ModelFile]:
        """Of these, what reads words and may be asked for by its name."""
        known = {name: file.checkpoint for name, file in self.parts.items()}
        readers = {name: self.parts[name] for name, about in known.items() if not about or about.reads_words}
        return self._allowed.of_models(readers)

    @cached_property
    def loras(self) -> Mapping[str, LoraFile]:
        """As ``find_loras`` finds them."""
        return self._allowed.of_loras(self._library.loras.get(self._max_age_s))

    @cached_property
    def vaes(self) -> Mapping[str, VaeFile]:
        """As ``find_vaes`` finds them."""
        return self._allowed.of_vaes(self._library.vaes.get(self._max_age_s))

    @cached_property
    def embeddings(self) -> Mapping[str, EmbeddingFile]:
        """As ``find_embeddings`` finds them."""
        return self._allowed.of_loras(self._library.embeddings.get(self._max_age_s))

    @cached_property
    def upscalers(self) -> Mapping[str, UpscalerFile]:
        """As ``find_upscalers`` finds them."""
        return self._allowed.of_upscalers(self._library.upscalers.get(self._max_age_s))

    @cached_property
    def finders(self) -> Mapping[str, FinderFile]:
        """As ``find_finders`` finds them."""
        return self._allowed.of_finders(self._library.finders.get(self._max_age_s))

    @cached_property
    def controls(self) -> Mapping[str, ControlFile]:
        """As ``find_controls`` finds them."""
        return self._allowed.of_controls(self._library.controls.get(self._max_age_s))

    @cached_property
    def annotators(self) -> Mapping[str, AnnotatorFile]:
        """As ``find_annotators`` finds them, for everybody: nobody asks for one by its name."""
        return self._library.annotators.get(self._max_age_s)

    @cached_property
    def image_encoders(self) -> Mapping[str, ImageEncoderFile]:
        """As ``find_image_encoders`` finds them: they serve whatever control is allowed."""
        return self._library.image_encoders.get(self._max_age_s)

    @cached_property
    def wildcards(self) -> Mapping[str, Wildcard]:
        """As ``find_wildcards`` finds them."""
        return self._library.wildcards.get(self._max_age_s)

    @cached_property
    def tag_lists(self) -> Mapping[str, TagList]:
        """As ``find_tag_lists`` finds them."""
        return self._library.tag_lists.get(self._max_age_s)

    def embeddings_in(self, text: str) -> dict[str, list[str]]:
        """By the names of embeddings, what may stand for each in the text: its name, or where it lies."""
        forms = {name: name for name in self.embeddings}
        for file in self.embeddings.values():
            for place in (file.place, file.full_place):
                forms.setdefault(place, file.name)
        found: dict[str, list[str]] = {}
        text = text.casefold()
        for form, name in forms.items():
            if form and form.casefold() in text:
                found.setdefault(name, []).append(form)
        return found


class Library:
    """What is on this machine to draw with. A process has one, so that folders are walked only after changes."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.models = ScanCache(lambda scan: find_models(settings, scan), clock)
        self.parts = ScanCache(lambda scan: find_parts(settings, scan), clock)
        self.loras = ScanCache(lambda scan: find_loras(settings, scan), clock)
        self.vaes = ScanCache(lambda scan: find_vaes(settings, scan), clock)
        self.embeddings = ScanCache(lambda scan: find_embeddings(settings, scan), clock)
        self.upscalers = ScanCache(lambda scan: find_upscalers(settings, scan), clock)
        self.finders = ScanCache(lambda scan: find_finders(settings, scan), clock)
        self.controls = ScanCache(lambda scan: find_controls(settings, scan), clock)
        self.annotators = ScanCache(lambda scan: find_annotators(settings, scan), clock)
        self.image_encoders = ScanCache(lambda scan: find_image_encoders(settings, scan), clock)
        self.wildcards = ScanCache(lambda scan: find_wildcards(settings, scan), clock)
        self.tag_lists = ScanCache(lambda scan: find_tag_lists(settings, scan), clock)

    def snapshot(self, max_age_s: float = LOOK_S, allowed: Allowance = EVERYTHING) -> Snapshot:
        """The files that are allowed, as they were ``max_age_s`` ago or later."""
        return Snapshot(self, max_age_s, allowed)

    def reload(self) -> None:
        """The next look walks all folders, whatever their times say."""
        for cache in vars(self).values():
            cache.invalidate()
