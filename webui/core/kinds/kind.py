"""``Kind``: the half of a model family that needs no torch: how its files are known, and what it can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from webui.core.kinds.parts import Network
from webui.core.tensor_file import Header

if TYPE_CHECKING:
    from webui.core.checkpoint import Checkpoint
    from webui.core.kinds.forms import Form

Prediction = Literal["epsilon", "v", "flow"]
Ability = Literal[
    "negative prompt", "emphasis", "clip skip", "embeddings", "masks", "hires", "details", "refiner", "prediction",
    "token merging", "reuse", "int8", "text encoder", "pag", "nag",
]  # fmt: skip
"""What some kinds of models cannot do, as people call it."""
OF_UNETS: frozenset[Ability] = frozenset({"token merging", "reuse", "int8", "pag", "nag"})
"""What only a UNet can do."""


@dataclass(frozen=True)
class Defaults:
    """What suits a model where nothing was asked for."""

    steps: int = 20
    guidance: float = 5.0
    sampler: str = "DPM++ 2M"
    schedule: str = "Default"


@dataclass(frozen=True)
class Traits:
    """What the names and shapes of a file's tensors say of it.

    ``prefixes`` are what the keys of each part in it begin with, by role; ``names`` is whose names its tensors go by.
    ``context_width`` is how wide the texts are that the backbone attends to: what lends a text encoder has the same.
    ``widths`` are those of text encoders, by role, where it is another one. ``guides_itself`` marks a backbone that is
    told the guidance.
    """

    prefixes: tuple[tuple[str, str], ...]
    names: str = "diffusers"
    in_channels: int = 4
    context_width: int = 0
    guides_itself: bool = False
    widths: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a checkpoint was read from, for what shapes do not say.

    ``configs`` are the folder's ``config.json`` of the backbone and the autoencoder, by role, ``scheduler``, and
    ``index`` of the whole; a single file has none. ``header`` is the file's, or that of the folder's backbone.
    """

    path: Path
    header: Header
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def as_it_is(checkpoint: "Checkpoint", _source: Source) -> "Checkpoint":
    """For kinds of which shapes say all."""
    return checkpoint


@dataclass(frozen=True)
class Kind:
    """One kind of model. To add one, add its row to ``KINDS``, and a ``Family`` to the engine's.

    ``name`` is what people call it and files are sorted by. ``parts`` are the roles of its networks in the order in
    which they are read: what reads text, then ``backbone``, then ``vae``. ``folders`` are
    diffusers' names of them, where these are others. Models with the same ``latents`` can go on with each other's.
    ``recognise`` says what a header tells, or None where it is of another kind; it raises BadFile for one of this kind
    that nothing can be drawn with. ``settle`` adds what shapes do not say. ``networks`` are those of its parts, by
    role, that other kinds have as well and lend each other; any other part only a model of the same kind lends.
    ``optional`` are the roles that it draws without, where no file has them.
    ``forms`` are those that shapes do not tell apart; a file that says nothing is taken for the first.
    ``vocabulary`` is what its words are counted with. ``lacks`` is what it cannot do. ``step_px_bytes`` is what a step
    takes beside the weights for each pixel of a picture, in a number format of two bytes (a transformer of patches of
    16 px: about a sixth of its width).
    """

    name: str
    parts: tuple[str, ...]
    latents: str
    recognise: Callable[[Header], Traits | None]
    settle: Callable[["Checkpoint", Source], "Checkpoint"] = as_it_is
    networks: Mapping[str, Network] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    vocabulary: str = "clip"
    folders: Mapping[str, str] = field(default_factory=dict)
    native_px: int = 512
    prediction: Prediction = "epsilon"
    defaults: Defaults = Defaults()
    forms: "tuple[Form, ...]" = ()
    lacks: frozenset[Ability] = frozenset()
    step_px_bytes: int = 500

    def folder(self, role: str) -> str:
        """Where diffusers' folder of a whole model has a part."""
        return self.folders.get(role, role)
