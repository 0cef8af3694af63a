"""IP-Adapters, told from their files' headers: for which models they are, and what image encoder they were trained
with. Nothing here imports torch.

The layout is that of h94's files: ``image_proj.`` makes tokens of what an encoder saw, ``ip_adapter.N.`` has keys and
values for the cross-attentions of the UNet.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from webui.core.clip_vision_file import SERVES
from webui.core.files import ControlFile, ImageEncoderFile
from webui.core.tensor_file import BadFile, read_header

IpForm = Literal["plain", "plus", "full"]
Shapes = Mapping[str, tuple[int, ...]]

PROJECTION = "image_proj."
FACE_ID = (
    "is an IP-Adapter FaceID, which needs what the program insightface says of a face, and that is not here: use a"
    " plus-face or full-face one"
)
FACE_CHANNELS = 512
"""What insightface says of a face."""
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
"""By the width of what the UNet attends to."""
VIT_H = "CLIP-ViT-H-14-laion2B-s32B-b79K", "models/image_encoder/model.safetensors"
VIT_BIG_G = "CLIP-ViT-bigG-14-laion2B-39B-b160k", "sdxl_models/image_encoder/model.safetensors"
ENCODERS = {
    ("summary", 1024): VIT_H,
    ("summary", 1280): VIT_BIG_G,
    ("hidden", 1280): VIT_H,
    ("hidden", 1664): VIT_BIG_G,
}
"""What people call the published encoders, and where h94 has them."""
_PAIR = re.compile(r"^ip_adapter\.(\d+)\.to_k_ip\.weight$")


@dataclass(frozen=True)
class IpAdapter:
    """What a file holds.

    ``form``: a layer makes tokens of a picture's summary (plain), a resampler (plus) or a network of two layers (full)
    of the encoder's hidden states. ``context`` is the width of the tokens, ``sees`` that of what the encoder says.
    ``widths`` are those of the cross-attentions, by their number in the file. ``encoder`` is what its own image encoder
    serves, where it has one that is for nothing else.
    """

    form: IpForm
    context: int
    sees: int
    widths: tuple[tuple[int, int], ...]
    encoder: str = ""

    @property
    def family(self) -> str:
        """Of the models that it is for; empty where the width of its tokens tells none."""
        return FAMILIES.get(self.context, "")

    @property
    def reads(self) -> Literal["summary", "hidden"]:
        """What of the encoder it takes."""
        return "summary" if self.form == "plain" else "hidden"

    @property
    def encoder_line(self) -> str:
        """The image encoder that it needs, and where it goes, in a sentence to be put behind its name."""
        if (known := ENCODERS.get((self.reads, self.sees))) is None:
            what = "a summary" if self.reads == "summary" else "hidden states"
            return f"needs the image encoder that it was trained with ({what} {self.sees} wide), in models/clip_vision"
        name, place = known
        return f"needs the image encoder {name}.safetensors in models/clip_vision (h94/IP-Adapter has it as {place})"


def look(shapes: Shapes, metadata: Mapping[str, str] = MappingProxyType({})) -> IpAdapter | None:
    """What the header of a file says; None where it is no IP-Adapter, BadFile for one that cannot be used here."""
    numbers = sorted(int(found[1]) for key in shapes if (found := _PAIR.match(key)))
    if not any(key.startswith(PROJECTION) for key in shapes) and not numbers:
        return None
    told = {key.removeprefix(PROJECTION): shape for key, shape in shapes.items() if key.startswith(PROJECTION)}
    changes = any(key.startswith("ip_adapter.") and "_lora." in key for key in shapes)
    resamples = any(key.startswith("perceiver_resampler.") for key in told)
    if changes or resamples or {"norm.weight", "proj.0.weight"} <= told.keys():
        raise BadFile(FACE_ID)
    if not numbers or not told:
        raise BadFile(
            "is half of an IP-Adapter: it lacks " + ("the keys and values" if told else "what reads a picture")
        )
    try:
        form, context, sees = _projection(told)
        widths = tuple((number, shapes[f"ip_adapter.{number}.to_k_ip.weight"][0]) for number in numbers)
    except (KeyError, IndexError, ValueError):
        raise BadFile("is an IP-Adapter whose layout is not known here") from None
    if form == "plus" and sees == FACE_CHANNELS:
        raise BadFile("is InstantID's IP-Adapter, which needs what the program insightface says of a face")
    return IpAdapter(form, context, sees, widths, metadata.get(SERVES, ""))


def _projection(told: Shapes) -> tuple[IpForm, int, int]:
    """Its form, the width of its tokens, and what it takes."""
    if "proj.weight" in told:
        return "plain", told["norm.weight"][0], told["proj.weight"][1]
    if "proj.3.weight" in told:
        return "full", told["proj.3.weight"][0], told["proj.0.weight"][1]
    return "plus", told["proj_out.weight"][0], told["proj_in.weight"][1]


def pickle_line(stem: str) -> str:
    """What to get instead of a control's pickle, by its name, to be put behind that."""
    told = stem.casefold()
    if "ip" in told and "faceid" in told or told.startswith(("instantid", "instant-id", "instant_id")):
        return FACE_ID
    same = f"h94/IP-Adapter has the same as {stem[:80]}.safetensors" if re.match(r"ip[-_]?adapter", told) else ""
    return f"is a pickle, and opening a pickle can run any program; {same or 'get it as safetensors'}"


def ip_adapter_of(file: ControlFile) -> IpAdapter | None:
    """What a control's file says, if it is an IP-Adapter that can be used."""
    try:
        if file.path.is_dir() or file.problem:
            return None
        header = read_header(file.path)
        return look(header.shapes, header.metadata)
    except BadFile:
        return None


def choose_encoder(adapter: IpAdapter, encoders: Mapping[str, ImageEncoderFile]) -> ImageEncoderFile | None:
    """The first encoder by name that says what the adapter takes; its own, where it has one."""
    fitting = (
        name
        for name, file in encoders.items()
        if adapter.sees == _said(adapter, file) and adapter.encoder == file.serves
    )
    return next((encoders[name] for name in sorted(fitting)), None)


def _said(adapter: IpAdapter, encoder: ImageEncoderFile) -> int:
    return encoder.projected if adapter.reads == "summary" else encoder.width
