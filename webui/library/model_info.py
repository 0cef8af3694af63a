"""What people are told of a model before they choose it; its name is a stranger's text."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from webui.core.abilities import lacking
from webui.core.files import ModelFile
from webui.core.kinds.kind import Defaults
from webui.core.samplers import FLOWING
from webui.core.tensor_file import BadFile, read_header
from webui.library.lora_info import find_preview, read_thumbnail


@dataclass(frozen=True)
class ModelInfo:
    """``kind`` is the family and what sets it apart, ``dtype`` the format of its numbers as its file names it.

    ``lacks`` are fields of a request that mean nothing to it, ``samplers`` those that can draw with it, where not all
    can. ``form`` is the name of its form where its files tell it, and ``forms`` what suits each form of its kind, by
    name, the usual one first. ``problem`` says why it cannot be used, if so.
    """

    name: str
    kind: str = ""
    family: str = ""
    size_bytes: int = 0
    dtype: str = ""
    native_px: int = 512
    defaults: Defaults = field(default_factory=Defaults)
    has_preview: bool = False
    lacks: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    form: str = ""
    forms: Mapping[str, Defaults] = field(default_factory=dict)
    problem: str = ""


def describe(file: ModelFile) -> ModelInfo:
    """What is known of it without reading its weights; never raises."""
    checkpoint = file.checkpoint
    if checkpoint is None:
        return ModelInfo(file.name, has_preview=_has_preview(file), problem=f"{file.path.name} {file.problem}")
    return ModelInfo(
        name=file.name,
        kind=checkpoint.kind,
        family=checkpoint.family,
        size_bytes=checkpoint.nbytes,
        dtype=checkpoint.dtype,
        native_px=file.native_px,
        defaults=file.defaults,
        has_preview=_has_preview(file),
        lacks=lacking(checkpoint.row),
        samplers=FLOWING if checkpoint.prediction == "flow" else (),
        form=checkpoint.form,
        forms={form.name: form.defaults for form in checkpoint.row.forms},
    )


def _has_preview(file: ModelFile) -> bool:
    if find_preview(file.path):
        return True
    with suppress(BadFile):
        return file.path.is_file() and read_thumbnail(read_header(file.path).metadata) is not None
    return False
