"""What a model is: its family, its parts, what its network predicts, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from webui.core.kinds import kind_of
from webui.core.kinds.forms import Form
from webui.core.kinds.kind import Defaults, Kind, Prediction
from webui.core.kinds.parts import NETWORKS, Network
from webui.core.kinds.sd import INPAINT_CHANNELS

PLAIN_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Checkpoint:
    """What a file or folder holds.

    ``family`` is the name of its ``Kind``, or of a part in a file of its own that of its ``Network``; ``names`` whose
    names its tensors go by. ``parts`` are what is in it, by role; ``prefixes`` are what the keys of each begin with in
    a single file.
    ``prediction`` is what the backbone was trained to predict, ``zero_snr`` whether its last timestep is pure noise.
    ``dtype`` is the format of the backbone's weights as the file names it, ``nbytes`` the size of all it holds.
    ``widths`` are those of text encoders, by role, that are not ``context_width``, which the backbone attends to.
    ``guides_itself`` marks backbones that are told the guidance (LCM). ``form`` is the name of its form where its files
    tell it or, ``form_chosen``, whoever asks. ``exchanged`` are the roles of which a request has chosen another file's.
    """

    family: str
    names: str
    parts: tuple[str, ...]
    in_channels: int
    context_width: int
    native_px: int
    prediction: Prediction = "epsilon"
    zero_snr: bool = False
    guides_itself: bool = False
    defaults: Defaults = field(default_factory=Defaults)
    dtype: str = "F32"
    nbytes: int = 0
    prefixes: tuple[tuple[str, str], ...] = ()
    widths: tuple[tuple[str, int], ...] = ()
    form: str = ""
    form_chosen: bool = False
    exchanged: tuple[str, ...] = ()

    @property
    def row(self) -> Kind:
        """What is known of all models of its kind."""
        return kind_of(self.family)

    @property
    def formed(self) -> Form | None:
        """The form that it is drawn with: where nothing tells, the first; None for a kind that has none."""
        forms = self.row.forms
        return next((form for form in forms if form.name == self.form), forms[0] if forms else None)

    def in_form(self, name: str) -> "Checkpoint":
        """The same taken for a form of its kind by name, whatever its files tell; raises KeyError."""
        form = {form.name: form for form in self.row.forms}[name]
        return self if name == self.form else replace(self, form=name, defaults=form.defaults, form_chosen=True)

    @property
    def inpaints(self) -> bool:
        """Whether the UNet is shown a mask and the masked picture."""
        return self.in_channels == INPAINT_CHANNELS

    @property
    def missing_parts(self) -> tuple[str, ...]:
        """What another file lends."""
        return tuple(part for part in self.row.parts if part not in self.parts or part in self.exchanged)

    @property
    def prediction_name(self) -> str:
        """As ``Request.prediction`` spells it."""
        return "v zero-SNR" if self.prediction == "v" and self.zero_snr else self.prediction

    @property
    def small_weights(self) -> str:
        """What people call the format of weights that stay small in memory: ``fp8``, ``Q8_0``; empty for others."""
        if self.dtype in PLAIN_DTYPES:
            return ""
        return "fp8" if self.dtype.startswith("F8") else {"I8": "INT8"}.get(self.dtype, self.dtype)

    @property
    def kind(self) -> str:
        """For people: ``SDXL, inpaint, v, Q8_0``."""
        words = [self.family, self.form, "inpaint" if self.inpaints else "", "v" if self.prediction == "v" else ""]
        words += ["zero SNR" if self.zero_snr else "", self.small_weights]
        return ", ".join(word for word in words if word)

    @property
    def networks(self) -> Mapping[str, Network]:
        """What its parts are, by role, where several kinds have that."""
        alone = {network.role: network for network in NETWORKS if network.name == self.family}
        return alone or self.row.networks

    @property
    def reads_words(self) -> bool:
        """Whether something in it does."""
        return any(part.startswith("text") for part in self.parts)

    def width_of(self, part: str) -> int:
        """How wide what a text encoder says is, or has to be; 0 where that does not matter."""
        return dict(self.widths).get(part, self.context_width if part.startswith("text") else 0)

    def role_of(self, part: str, other: "Checkpoint") -> str | None:
        """The role here of what is ``part`` in ``other``, or None.

        It is the same network, as wide if several are, or where kinds share none, the same role in the same kind. A
        file of a network alone may be its twin.
        """
        wanted, own = other.networks.get(part), self.networks
        if wanted is None:
            roles = [part] if self.family == other.family else []
        else:
            roles = [role for role, network in own.items() if network == wanted or self.family == wanted.twin]
        there = sorted(set(roles) & set(self.parts), key=lambda role: self.width_of(role) != other.width_of(part))
        return there[0] if there else None

    def lends(self, part: str, other: "Checkpoint") -> bool:
        """Whether ``other`` can use what this one has of its ``part``: it has to be as wide, where that matters."""
        role = self.role_of(part, other)
        return role is not None and self.width_of(role) in (0, other.width_of(part))

    def prefix_of(self, part: str) -> str:
        """What the keys of a part begin with in a single file."""
        return dict(self.prefixes)[part]
