"""What there is to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from webui.core.files import (
    AnnotatorFile,
    ControlFile,
    EmbeddingFile,
    Files,
    FinderFile,
    ImageEncoderFile,
    LoraFile,
    ModelFile,
    UpscalerFile,
    VaeFile,
)
from webui.core.samplers import SAMPLERS
from webui.core.words import Words


class Known(Files, Words, Protocol):
    """What a catalog is made of."""


@dataclass(frozen=True)
class Catalog:
    """What can be chosen from: files of each kind by name, and per sampler name the schedules it can use.

    ``words`` is looked up when it is asked for, and not before.
    """

    models: Mapping[str, ModelFile]
    loras: Mapping[str, LoraFile]
    vaes: Mapping[str, VaeFile]
    embeddings: Mapping[str, EmbeddingFile]
    samplers: Mapping[str, tuple[str, ...]]
    upscalers: Mapping[str, UpscalerFile] = field(default_factory=dict)
    finders: Mapping[str, FinderFile] = field(default_factory=dict)
    controls: Mapping[str, ControlFile] = field(default_factory=dict)
    annotators: Mapping[str, AnnotatorFile] = field(default_factory=dict, kw_only=True)
    parts: Mapping[str, ModelFile] = field(default_factory=dict)
    text_encoders: Mapping[str, ModelFile] = field(default_factory=dict)
    words: Words | None = field(default=None, compare=False)
    image_encoders: Mapping[str, ImageEncoderFile] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Known) -> "Catalog":
        """All files, and every sampler."""
        samplers = {name: row.schedules for name, row in SAMPLERS.items()}
        weights = files.models, files.loras, files.vaes, files.embeddings
        return cls(
            *weights,
            samplers,
            files.upscalers,
            files.finders,
            files.controls,
            files.parts,
            files.text_encoders,
            files,
            annotators=files.annotators,
            image_encoders=files.image_encoders,
        )

    @property
    def schedules(self) -> tuple[str, ...]:
        """Every schedule that some sampler has, each once, in order of first mention."""
        return tuple(dict.fromkeys(name for names in self.samplers.values() for name in names))
