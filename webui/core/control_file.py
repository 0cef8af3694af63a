"""What a control file is: told from its tensors' names and shapes, before anything is drawn.

The names are those of diffusers, of the original programs (lllyasviel's ControlNet, TencentARC's T2I-Adapter), of
stabilityai's Control-LoRA, of xinsir's union and of h94's IP-Adapter.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from webui.core.errors import show
from webui.core.file_kinds import family_of, recognize
from webui.core.files import ControlFile, ModelFile
from webui.core.ip_adapter_file import look
from webui.core.kinds.sd import UNET_PREFIXES
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile, Header, read_header
from webui.core.weight_files import weight_files

Mode = Literal["balanced", "prompt", "control"]
MODES: tuple[Mode, ...] = get_args(Mode)
Form = Literal["ControlNet", "ControlNet Union", "Control-LoRA", "T2I-Adapter", "IP-Adapter"]
Shapes = Mapping[str, tuple[int, ...]]

CONFIG = "config.json"
CLASSES = ("ControlNetModel", "ControlNetUnionModel", "T2IAdapter")
"""Of diffusers' folders."""
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL refiner", 2048: "SDXL"}
"""By the width of the text that is attended to; others by how their UNet is built."""
PREFIX = "control_model."
UNSHUFFLED = {3 * 8**2: "SD 1.x", 3 * 16**2: "SDXL", 8**2: "SD 1.x", 16**2: "SDXL"}
"""What a T2I-Adapter is for, by the channels that it is shown: pixels in colour or grey, of a latent or of four."""
ARCHITECTURES = {"darkroom-demo": "SD 1.x", "stable-diffusion-v1": "SD 1.x", "stable-diffusion-xl-v1-base": "SDXL"}
"""What a T2I-Adapter is for where it says so itself (modelspec), whatever its shapes: the embedded model's first stage
has no attention, as SDXL's."""
ATTENTION = re.compile(r"(?:^|\.)(?:(down|up|mid)_blocks?|(input|output|middle)_blocks?)\.(.+)\.attn2\.to_k\.weight$")
WAYS = ("down", "input", "up", "output", "mid", "middle")
"""A cross-attention of a UNet in diffusers' names or in the original ones, and which way that is."""
UNION_PARTS = ("task_embedding", f"{PREFIX}task_embedding")


@dataclass(frozen=True)
class ControlKind:
    """``width`` is that of the text that it attends to, and ``channels`` are those of the UNet's first convolution; 0
    where nothing tells. ``names`` is ``diffusers`` or ``ldm``. ``detail`` is what else there is to say, for people.
    ``attentions`` are the widths of the cross-attentions that it is for: those on the way down, up, and in the middle.
    ``mode`` is the one that suits it, which its file may say. ``kinds`` is how many kinds of map a union knows.
    """

    form: Form
    family: str
    width: int = 0
    channels: int = 0
    names: str = "diffusers"
    detail: str = ""
    attentions: tuple[int, ...] = ()
    mode: Mode = "balanced"
    kinds: int = 0

    @property
    def title(self) -> str:
        """For people: ``ControlNet for SD 1.x``."""
        told = f"{self.form} for {self.family}" if self.family else self.form
        return told + (f", {self.detail}" if self.detail else "")


def control_weights(path: Path) -> tuple[Path, ...]:
    """The files of weights of a control, which is one or a diffusers folder."""
    return tuple(file for files in weight_files(path).values() for file in files)


def is_control_folder(path: Path) -> bool:
    """Whether its configuration is one of diffusers' controls."""
    return _class_name(path) in CLASSES


def _class_name(folder: Path) -> str:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        return str(config.get("_class_name", ""))
    except (OSError, ValueError, RecursionError, AttributeError):
        return ""


def read_control(file: ControlFile) -> ControlKind:
    """What a file is; raises BadFile with the reason why it is no control that can be used, to be put behind its name.

    It is read anew only after changes.
    """
    if file.problem:
        raise BadFile(file.problem)
    return control_of(control_header(file.path))


def control_header(path: Path) -> Header:
    """The header of a file, or of all files of weights in a folder; raises BadFile."""
    if not path.is_dir():
        return read_header(path)
    if not (files := control_weights(path)):
        pickles = any(child.suffix.lower() in PICKLE_ENDINGS for child in path.iterdir())
        raise BadFile("has its weights only as a pickle; get it as safetensors" if pickles else "has no weights")
    headers = [read_header(file) for file in files]
    shapes = {key: shape for header in headers for key, shape in header.shapes.items()}
    places = {key: place for header in headers for key, place in header.places.items()}
    return Header(headers[0].metadata, shapes, places)


def control_of(header: Header) -> ControlKind:
    """The same as ``read_control`` by a header alone."""
    shapes = header.shapes
    try:
        for read in (_read_ip_adapter, _read_adapter, _read_control_net):
            if found := read(shapes):
                return replace(found, family=_said_family(header) or found.family, mode=_said_mode(header))
    except LookupError:
        raise BadFile("is damaged: its tensors have not the shapes of a control") from None
    kind = recognize(shapes)
    if kind and kind.role == "control":
        raise BadFile(f"seems to be {kind.name}, but lacks what one has; it may be damaged")
    raise BadFile(kind.reason if kind else "is no control: no ControlNet, T2I-Adapter or IP-Adapter that is known here")


def _said_family(header: Header) -> str:
    said, _, form = header.metadata.get("modelspec.architecture", "").partition("/")
    return ARCHITECTURES.get(said, "") if form == "t2i-adapter" else ""


def _said_mode(header: Header) -> Mode:
    """The embedded control's is `control`: it follows most closely with the prompt alone."""
    said = header.metadata.get("darkroom.mode")
    return next((mode for mode in MODES if mode == said), MODES[0])


def _read_control_net(shapes: Shapes) -> ControlKind | None:
    if any(key.startswith("lllite_") for key in shapes):
        raise BadFile("is a ControlNet-LLLite, which cannot be used here; get a ControlNet or Control-LoRA instead")
    if any("controlnet_blocks." in key or "controlnet_x_embedder." in key for key in shapes):
        family = family_of(shapes) or "a newer family"
        raise BadFile(f"is a ControlNet for {family}; controls here are for SD 1.x, SD 2.x and SDXL")
    prefix = PREFIX if any(key.startswith(PREFIX) for key in shapes) else ""
    if f"{prefix}controlnet_cond_embedding.conv_in.weight" in shapes:
        names, first, label = "diffusers", f"{prefix}controlnet_down_blocks.0.weight", "add_embedding.linear_1.weight"
    elif f"{prefix}input_hint_block.0.weight" in shapes:
        names, first, label = "ldm", f"{prefix}zero_convs.0.0.weight", "label_emb.0.0.weight"
    else:
        return None
    if "difference" in shapes:
        raise BadFile("holds only differences to a model's UNet; get the whole ControlNet or a Control-LoRA")
    is_lora = "lora_controlnet" in shapes
    width = next(_ending(shapes, "attn2.to_k.down" if is_lora else "attn2.to_k.weight"), (0, 0))[-1]
    if width == 0 and is_lora:
        width = next(_ending(shapes, "attn2.to_k.weight"), (0, 0))[-1]
    has_label = any(key.startswith(f"{prefix}{label.rpartition('.')[0]}") for key in shapes)
    linear = any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in shapes.items())
    family = FAMILIES.get(width, "SDXL" if has_label else "SD 2.x" if linear else "SD 1.x")
    if family == "SDXL refiner":
        raise BadFile("is a ControlNet for the refiner of SDXL; controls here are for SD 1.x, SD 2.x and SDXL")
    channels = shapes[first][0]
    if is_lora:
        return ControlKind("Control-LoRA", family, width, channels, names)
    if task := next((key for key in UNION_PARTS if key in shapes), None):
        tasks = shapes[task][0]
        return ControlKind("ControlNet Union", family, width, channels, names, f"{tasks} kinds of guides", kinds=tasks)
    return ControlKind("ControlNet", family, width, channels, names)


def _read_adapter(shapes: Shapes) -> ControlKind | None:
    """A T2I-Adapter, full or light, which has no first convolution of its own."""
    prefix = "adapter." if any(key.startswith("adapter.") for key in shapes) else ""
    is_ours = f"{prefix}body.0.resnets.0.block1.weight" in shapes
    is_light = f"{prefix}body.0.in_conv.weight" in shapes and f"{prefix}conv_in.weight" not in shapes
    if (
        not is_ours
        and f"{prefix}body.0.block1.weight" not in shapes
        and not (is_light and f"{prefix}body.0.body.0.block1.weight" in shapes)
    ):
        return None
    first = shapes[f"{prefix}body.0.in_conv.weight" if is_light else f"{prefix}conv_in.weight"]
    channels = shapes[f"{prefix}body.0.out_conv.weight"][0] if is_light else first[0]
    family = UNSHUFFLED.get(first[1], "SD 1.x")
    return ControlKind(
        "T2I-Adapter", family, 0, channels, "diffusers" if is_ours else "ldm", "light" if is_light else ""
    )


def _read_ip_adapter(shapes: Shapes) -> ControlKind | None:
    if (found := look(shapes)) is None:
        return None
    detail, widths = "" if found.form == "plain" else found.form, tuple(width for _, width in found.widths)
    return ControlKind("IP-Adapter", found.family, found.context, 0, "ldm", detail, widths)


def _ending(shapes: Shapes, end: str) -> Iterator[tuple[int, ...]]:
    return (shape for key, shape in shapes.items() if key.endswith(end) and len(shape) >= 2)


def unread_line(name: str, keys: Sequence[str]) -> str:
    """A sentence about keys of a control's file that have no place in its network; there is one at least."""
    count = "1 key has" if len(keys) == 1 else f"{len(keys)} keys have"
    return f"Control {name}: {count} no place in its network and did nothing, for example {keys[0][:120]}."


def misfit(name: str, kind: ControlKind, model: ModelFile) -> str:
    """Why a control is not for a model, in a sentence that names both; empty where nothing speaks against it."""
    about = model.checkpoint
    if about is None:
        return ""
    if kind.family not in ("", about.family):
        return (
            f"{show(name)} is {_article(kind.form)} for {kind.family}; the model {show(model.name)} is {about.family}"
        )
    if kind.width not in (0, about.context_width):
        needs = f"attends to texts {kind.width:,} wide; those of {show(model.name)} are {about.context_width:,} wide"
        return f"{show(name)} is {_article(kind.form)} for another model: it {needs}"
    shapes = _unet_shapes(model)
    channels = _channels(shapes)
    if kind.channels and channels and kind.channels != channels:
        needs = f"is for {kind.channels:,} channels; {show(model.name)} begins with {channels:,}"
        return f"{show(name)} is {_article(kind.form)} for another model: it {needs}"
    attentions = _attentions(shapes) if kind.attentions else ()
    if attentions and kind.attentions != attentions:
        layers = f"its layers do not fit those of {show(model.name)}"
        return f"{show(name)} is {_article(kind.form)} for another UNet: {layers}"
    return ""


def _article(form: Form) -> str:
    return f"{'an' if form == 'IP-Adapter' else 'a'} {form}"


def _unet_shapes(model: ModelFile) -> Shapes:
    """Those of the UNet's tensors, and of what else is in its files; none where they cannot be read."""
    files = weight_files(model.path)
    try:
        headers = [read_header(file) for file in files.get("unet", files.get("", ()))]
        return {key: shape for header in headers for key, shape in header.shapes.items()}
    except BadFile:
        return {}


def _channels(unet: Shapes) -> int:
    """Those of its first convolution; 0 where there is none."""
    keys = ("conv_in.weight", *(f"{prefix}input_blocks.0.0.weight" for prefix in UNET_PREFIXES))
    return next((unet[key][0] for key in keys if key in unet), 0)


def _attentions(unet: Shapes) -> tuple[int, ...]:
    """The widths of its cross-attentions: down, up, middle, in either names."""
    found = {}
    for key, shape in unet.items():
        if key.endswith(".attn2.to_k.weight") and (match := ATTENTION.search(key)):
            way = WAYS.index(match[1] or match[2])
            found[way, *map(int, re.findall(r"\d+", match[3]))] = shape[0]
    return tuple(found[place] for place in sorted(found))
