"""What a model takes of memory, and under which plan it fits: arithmetic on bytes, without a network."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from webui.core.checkpoint import PLAIN_DTYPES, Checkpoint
from webui.core.control_file import control_header
from webui.core.errors import show
from webui.core.files import ControlFile, ModelFile
from webui.core.images import Size
from webui.core.stages import rows_of
from webui.core.tensor_file import read_header
from webui.core.uses import lender_of
from webui.core.weight_files import weight_files

PLANS = ("resident", "offload", "blocks", "sequential")
"""Where weights rest while nothing computes with them, the fastest first."""
STREAMING = PLANS[2:]
"""Those under which the backbone, too, rests in the computer's memory."""
PLAN_WORDS: Mapping[str, str] = {
    "resident": "the whole model on the device",
    "offload": "text encoder and VAE off the device while the UNet runs",
    "blocks": "blocks brought to the device as they are needed, as many as fit stay there",
    "sequential": "every layer brought to the device as it is needed",
}
HEADROOM = 1.05
"""How much more than its weights a model must find free: allocators leave gaps."""
BLOCKS_SHARE = 4
"""Blocks pay where the device holds this part of the largest network; below it nearly nothing would stay there."""
TOLD_BYTES = 2**28
"""What a step takes is said where it is as much."""
READS_WORDS = "text"
"""What the roles of networks that read words begin with."""
RESTS_FROM_BYTES = 2**26
"""On a processor a network that waits for long rests in its file from here on: reading less saves next to nothing."""
SLOTS = 2
"""One block computes while the next one comes."""
FORWARD_ROWS = 32
"""Of one forward: what 16 pictures, the most of a batch, take with one prompt and a negative one."""


@dataclass(frozen=True)
class Need:
    """Bytes: of the weights by part, of the largest layer's, of what a step takes besides, of all controls, and of
    networks that stay beside them: upscalers, finders, preprocessors, what sees an IP-Adapter's pictures."""

    parts: Mapping[str, int]
    layer_bytes: int
    step_bytes: int = 0
    control_bytes: int = 0
    beside_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        """Of all parts and controls."""
        return sum(self.parts.values()) + self.control_bytes

    def on_device(self, plan: str) -> int:
        """What the device must have free under a plan."""
        largest = max((nbytes for part, nbytes in self.parts.items() if part != "backbone"), default=0)
        held = {
            "resident": self.weight_bytes,
            "offload": self.parts.get("backbone", 0) + self.control_bytes + largest,
            "blocks": max(max(*self.parts.values(), self.control_bytes, 0) // BLOCKS_SHARE, SLOTS * self.layer_bytes),
            "sequential": SLOTS * self.layer_bytes,
        }[plan]
        return int(held * HEADROOM) + self.step_bytes + self.beside_bytes

    def in_int8(self, number_bytes: int) -> "Need":
        """The same where the network's weights, of so many bytes a number, are there in 8 bits, too."""
        return replace(self, step_bytes=self.step_bytes + self.parts.get("backbone", 0) // number_bytes)

    def block_bytes(self, free_bytes: int) -> int:
        """What of a device's free memory weights may take under the plan ``blocks``."""
        return max(0, math.floor((free_bytes - self.step_bytes) / HEADROOM))

    def choose(self, free_bytes: int, plans: Iterable[str] = PLANS) -> str | None:
        """The first plan that fits."""
        return next((plan for plan in plans if self.on_device(plan) <= free_bytes), None)

    def told(self, model: str, device: str, plan: str) -> str:
        """What is taken and how, for people."""
        total, step = in_gib(self.weight_bytes + self.step_bytes), in_gib(self.step_bytes)
        return f"{model} takes {total} of memory on {device}, {step} of it for a step; memory plan: {plan}."

    def missing(self, room: "Room") -> int:
        """What is lacking even under the plan that takes least; above 0 where nothing fits."""
        return min(map(self.on_device, room.plans)) - room.free_bytes

    def refusal(self, model: str, room: "Room") -> str:
        """Why nothing fits, for people: what is needed, what is free, and what would help."""
        missing = self.missing(room)
        needed, free = in_gib(missing + room.free_bytes), in_gib(room.free_bytes)
        said = [f"Model “{show(model)}” needs {needed} of memory on {room.device}, and {free} are free."]
        if self.step_bytes >= TOLD_BYTES:
            said.append(f"Steps of this size take {in_gib(self.step_bytes)} of that.")
        if self.control_bytes >= TOLD_BYTES:
            said.append(f"Controls weigh {in_gib(self.control_bytes)} altogether.")
        if self.beside_bytes >= TOLD_BYTES:
            said.append(f"Upscalers, finders and preprocessors weigh {in_gib(self.beside_bytes)} altogether.")
        if self.step_bytes > missing:
            said.append("A smaller picture would fit.")
        if room.plan == "auto":
            said.append("Close other programs, or choose a file with smaller weights (fp8, GGUF).")
        else:
            said.append("Close other programs, or use --memory auto.")
        return " ".join(said)


@dataclass(frozen=True)
class Room:
    """What a device has for a model: its kind, how much would be free were nothing loaded, and how it computes.

    ``number_bytes`` is what a number of its format takes, ``plan`` the one that was asked for, or auto.
    ``read_bytes_s`` is how fast the last model was read, None before the first. ``no_int8`` is why it computes nothing
    in 8 bits, in words; empty where it can. ``beside`` are files of networks beside models (upscalers, finders,
    preprocessors) that are in memory already, and so not in what is free.
    """

    device: str
    free_bytes: int
    number_bytes: int
    plan: str = "auto"
    read_bytes_s: float | None = None
    no_int8: str = ""
    beside: frozenset[Path] = frozenset()

    @property
    def plans(self) -> tuple[str, ...]:
        """Those that may be chosen: a processor has nowhere else to rest weights."""
        if self.plan != "auto":
            return (self.plan,)
        return PLANS[:1] if self.device == "cpu" else PLANS


@dataclass(frozen=True)
class Asked:
    """A job as far as memory goes: its model, the (width, height) and number of its pictures, whether it is guided, its
    controls, how many regions it has, whether attention is perturbed, and whether it computes in 8 bits."""

    model: str
    size: Size
    count: int = 1
    guided: bool = True
    controls: tuple[str, ...] = ()
    regions: int = 0
    perturbed: bool = False
    int8: bool = False

    @property
    def rows(self) -> int:
        """Of one evaluation, for all pictures."""
        return self.count * rows_of(self.regions, self.guided, self.perturbed)


def rests_in_files(device: str, plan: str) -> bool:
    """Whether networks that compute once and wait for long are in memory a layer at a time, as they compute."""
    return device == "cpu" and plan == "auto"


def need_of(file: ModelFile, lenders: Iterable[ModelFile], room: "Room", step: int = 0) -> Need:
    """What a model takes with what it borrows, told from headers: a few per cent off at most.

    Weights that are small in the file stay so. Raises BadFile and OSError.
    """
    assert file.checkpoint
    parts, layer = dict[str, int](), 0
    resting = READS_WORDS if rests_in_files(room.device, room.plan) else None
    for role in file.checkpoint.row.parts:
        owner = file if role in file.checkpoint.parts else lender_of(role, file, lenders)
        sizes = list(_sizes(owner, role, file, room.number_bytes)) if owner else []
        rests = resting and role.startswith(resting) and sum(sizes) >= RESTS_FROM_BYTES
        parts[role] = max(sizes) if rests else sum(sizes)
        layer = max(layer, *sizes, 0)
    return Need(parts, layer, step)


def control_bytes(file: ControlFile, number_bytes: int) -> int:
    """What a control takes, told from its header; a Control-LoRA becomes whole. Raises BadFile."""
    header, total = control_header(file.path), 0
    for key, place in header.places.items():
        shape = header.shapes[key]
        up = header.shapes.get(f"{key.removesuffix('.down')}.up") if key.endswith(".down") else None
        if up:
            total += up[0] * math.prod(shape[1:]) * number_bytes
        elif not key.endswith(".up"):
            small = place.dtype not in PLAIN_DTYPES
            total += place.nbytes if small else math.prod(shape) * number_bytes
    return total


def _sizes(owner: ModelFile, role: str, borrower: ModelFile, number_bytes: int) -> Iterator[int]:
    """Of the tensors of a part."""
    own, whole = owner.checkpoint, borrower.checkpoint
    assert own and whole
    theirs = own.role_of(role, whole) or role
    is_folder = owner.path.is_dir()
    files = weight_files(owner.path).get(own.row.folder(theirs) if is_folder else "", ())
    prefix = "" if is_folder else own.prefix_of(theirs)
    others = () if is_folder else tuple(begin for part, begin in own.prefixes if part != theirs and begin != prefix)
    longer = tuple(begin for begin in others if begin.startswith(prefix))
    for path in files:
        header = read_header(path)
        for key, place in header.places.items():
            if key.startswith(prefix) and not (longer and key.startswith(longer)):
                shape, small = header.shapes[key], place.dtype not in PLAIN_DTYPES
                frames = shape[2] if len(shape) == 5 else 1  # of a kernel for films a picture takes one
                yield place.nbytes if small else math.prod(shape) // frames * number_bytes


def step_bytes(checkpoint: Checkpoint, size: Size, rows: int, number_bytes: int) -> int:
    """What a step takes beside the weights: so many ``rows`` of this (width, height) at once, in this format.

    Each picture is one for each prompt that it is asked about with, the negative one too.
    """
    return math.prod(size) * min(rows, FORWARD_ROWS) * checkpoint.row.step_px_bytes * number_bytes // 2


def in_gib(nbytes: int) -> str:
    """For people."""
    return f"{nbytes / 2**30:.1f} GiB"
