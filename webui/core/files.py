"""Files to draw with, as values: a model, a LoRA, an autoencoder, an embedding, an upscaler, a finder, a control,
by name and place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from webui.core.checkpoint import Checkpoint
from webui.core.errors import show, show_some
from webui.core.kinds.kind import Defaults
from webui.core.tensor_file import BadFile, read_header

TINY_KEYS = frozenset({"decoder.layers.0.weight", "1.weight"})  # in diffusers' names, in its author's


@dataclass(frozen=True)
class File:
    """A file or a diffusers folder by name. ``place`` is where it lies in the folder of its kind, without its ending.

    ``namesakes`` are the names of further files that ``name`` could mean as well.
    """

    name: str
    path: Path
    place: str = field(default="", kw_only=True, compare=False)
    namesakes: tuple[str, ...] = field(default=(), kw_only=True, compare=False)

    @property
    def ambiguity(self) -> str:
        """For people: which file was used, where its name could mean others too; empty where it could not."""
        if not self.namesakes:
            return ""
        number, others = len(self.namesakes) + 1, show_some(self.namesakes)
        return f"{number} files are called “{show(self.name)}”: {show(self.full_place)} was used, not {others}."

    @property
    def full_place(self) -> str:
        """``place`` behind the name of its kind's folder."""
        depth = self.place.count("/") + 1
        return "/".join((*self.path.parts[-1 - depth : -depth], self.place))


@dataclass(frozen=True)
class ModelFile(File):
    """A model: a diffusers folder or a single file. ``checkpoint`` is what it is, or None with the ``problem``.

    ``stamp`` changes with its files (``core.weight_files.stamp``).
    """

    checkpoint: Checkpoint | None = None
    problem: str = ""
    stamp: int = 0

    @property
    def native_px(self) -> int:
        """The side of the pictures it was trained on."""
        return self.checkpoint.native_px if self.checkpoint else 512

    def in_form(self, name: str) -> "ModelFile":
        """The same taken for a form by name; ``auto`` leaves it as its files say."""
        if self.checkpoint is None or not self.checkpoint.row.forms or name == "auto":
            return self
        return replace(self, checkpoint=self.checkpoint.in_form(name))

    @property
    def defaults(self) -> Defaults:
        """What suits it where nothing was asked for."""
        return self.checkpoint.defaults if self.checkpoint else Defaults()


@dataclass(frozen=True)
class LoraFile(File):
    """A file with changes to a model's weights."""


@dataclass(frozen=True)
class VaeFile(File):
    """An autoencoder to use instead of a model's own."""

    @property
    def is_tiny(self) -> bool:
        """Whether it is TAESD, which comes near a real one in a small part of the time."""
        try:
            return not TINY_KEYS.isdisjoint(read_header(self.path).shapes)
        except BadFile:
            return False


@dataclass(frozen=True)
class EmbeddingFile(File):
    """Vectors that its name stands for in a prompt (textual inversion)."""


@dataclass(frozen=True)
class UpscalerFile(File):
    """A network that enlarges pictures. ``problem`` is why it is not to be opened, whatever is in it."""

    problem: str = ""


@dataclass(frozen=True)
class FinderFile(File):
    """A network that finds things in pictures. ``problem`` as for an upscaler."""

    problem: str = ""


@dataclass(frozen=True)
class ControlFile(File):
    """A network, a file or a diffusers folder, that draws after a picture (``core.control_file``). ``problem`` as for
    an upscaler."""

    problem: str = ""


@dataclass(frozen=True)
class AnnotatorFile(File):
    """A network that makes maps of pictures, for controls. ``problem`` as for an upscaler."""

    problem: str = ""


@dataclass(frozen=True)
class ImageEncoderFile(File):
    """What an IP-Adapter sees pictures with (CLIP vision), a file or a folder of transformers'. ``width`` is that of
    its hidden states, ``projected`` that of its summary. One that ``serves`` certain adapters alone names them."""

    width: int = 0
    projected: int = 0
    serves: str = ""


class Files(Protocol):
    """What planning asks a library for."""

    @property
    def models(self) -> Mapping[str, ModelFile]: ...
    @property
    def parts(self) -> Mapping[str, ModelFile]:
        """Parts of models in files of their own, which lend them."""

    @property
    def text_encoders(self) -> Mapping[str, ModelFile]:
        """Of these, what reads words and may be asked for by its name; what cannot be read among them, with why."""

    @property
    def loras(self) -> Mapping[str, LoraFile]: ...
    @property
    def vaes(self) -> Mapping[str, VaeFile]: ...
    @property
    def embeddings(self) -> Mapping[str, EmbeddingFile]: ...
    @property
    def upscalers(self) -> Mapping[str, UpscalerFile]: ...
    @property
    def finders(self) -> Mapping[str, FinderFile]: ...
    @property
    def controls(self) -> Mapping[str, ControlFile]: ...
    @property
    def annotators(self) -> Mapping[str, AnnotatorFile]: ...
    @property
    def image_encoders(self) -> Mapping[str, ImageEncoderFile]: ...
    def embeddings_in(self, text: str) -> Mapping[str, list[str]]:
        """By the names of embeddings, what may stand for each in the text."""
