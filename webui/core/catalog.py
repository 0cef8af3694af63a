"""What there is to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass

from webui.core.files import EmbeddingFile, LoraFile, ModelFile, VaeFile


@dataclass(frozen=True)
class Catalog:
    """What can be chosen from: files of each kind by name, and per sampler name the schedules it can use."""

    models: Mapping[str, ModelFile]
    loras: Mapping[str, LoraFile]
    vaes: Mapping[str, VaeFile]
    embeddings: Mapping[str, EmbeddingFile]
    samplers: Mapping[str, tuple[str, ...]]

    @property
    def schedules(self) -> tuple[str, ...]:
        """Every schedule that some sampler has, each once, in order of first mention."""
        return tuple(dict.fromkeys(name for names in self.samplers.values() for name in names))
