"""Which files a visitor may draw with: the host's choice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from webui.core.files import File, ModelFile
from webui.core.names import choose_file, find_file

F = TypeVar("F", bound=File)


@dataclass(frozen=True)
class Allowance:
    """Names as people write them; None allows all. Text encoders, VAEs, upscalers, finders and controls
    go with the models, embeddings with the LoRAs.

    ``usable`` leaves out models that cannot be drawn with, whose names and faults concern their owner alone.
    """

    models: tuple[str, ...] | None = None
    loras: tuple[str, ...] | None = None
    usable: bool = False

    def of_models(self, files: Mapping[str, ModelFile]) -> Mapping[str, ModelFile]:
        """Those of the models, or of the text encoders, that are allowed."""
        allowed = _only(self.models, files)
        return {name: file for name, file in allowed.items() if file.checkpoint} if self.usable else allowed

    def of_vaes(self, files: Mapping[str, F]) -> Mapping[str, F]:
        """Those of the autoencoders that are allowed."""
        return _only(self.models, files)

    def of_upscalers(self, files: Mapping[str, F]) -> Mapping[str, F]:
        """Those of the upscalers that are allowed."""
        return _only(self.models, files)

    def of_finders(self, files: Mapping[str, F]) -> Mapping[str, F]:
        """Those of the finders that are allowed."""
        return _only(self.models, files)

    def of_controls(self, files: Mapping[str, F]) -> Mapping[str, F]:
        """Those of the controls that are allowed."""
        return _only(self.models, files)

    def of_loras(self, files: Mapping[str, F]) -> Mapping[str, F]:
        """Those of the LoRAs, or of the embeddings, that are allowed."""
        return _only(self.loras, files)


EVERYTHING = Allowance()


def check_names(kind: str, names: Iterable[str], *files: Mapping[str, File]) -> None:
    """Raises RequestError for a name that none of these files has, with near ones of the first."""
    for name in names:
        if not any(find_file(name, known) for known in files):
            choose_file(kind, name, files[0], field=f"guest_{kind}s".lower())


def _only(names: tuple[str, ...] | None, files: Mapping[str, F]) -> Mapping[str, F]:
    """The files of these names, none of which tells of another that is left out."""
    if names is None:
        return files
    allowed = {found for name in names if (found := find_file(name, files))}
    return {
        name: replace(file, namesakes=tuple(other for other in file.namesakes if other in allowed))
        for name, file in files.items()
        if name in allowed
    }
