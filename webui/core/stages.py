"""What a request becomes: stages, one behind the other. They are plain data, with nothing left open, and pickle."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from PIL.Image import Image as PilImage

from webui.core.block_weights import BlockWeights
from webui.core.files import (
    AnnotatorFile,
    ControlFile,
    EmbeddingFile,
    File,
    FinderFile,
    ImageEncoderFile,
    LoraFile,
    ModelFile,
    UpscalerFile,
    VaeFile,
)
from webui.core.images import Size, pixels_sha256
from webui.core.lora_ref import LoraRef
from webui.core.maps import make_map
from webui.core.schedule import Weight, weight_at

if TYPE_CHECKING:
    from webui.core.groups.init import Init
    from webui.core.groups.nag import Nag
    from webui.core.groups.pag import Pag
    from webui.core.groups.variation import Variation


@dataclass(frozen=True)
class LoraUse:
    """A LoRA and how strongly it acts on the UNet and on the text encoder: 0 is not at all, 1 as it was trained.

    ``blocks`` are factors by block of the network, None for 1 everywhere.
    """

    file: LoraFile
    unet: float = 1.0
    text: float = 1.0
    blocks: BlockWeights | None = None

    def __str__(self) -> str:
        """As a request has it: ``NAME:WEIGHT`` or ``NAME:TEXT:UNET``, and the weights by block."""
        strengths = (self.unet,) if self.text == self.unet else (self.text, self.unet)
        return ":".join((self.file.name, *(f"{strength:g}" for strength in strengths))) + str(self.blocks or "")


@dataclass(frozen=True)
class LoraSchedule:
    """A LoRA that is not the same in all steps; with a ``tag`` it acts where the prompt says this."""

    file: LoraFile
    unet: Weight
    text: Weight
    tag: str = ""
    blocks: BlockWeights | None = None

    def at(self, step: int, steps: int) -> LoraUse:
        """What it is at a step, 0..steps - 1."""
        unet, text = (weight_at(weight, step, steps) for weight in (self.unet, self.text))
        return LoraUse(self.file, unet, text, self.blocks)


@dataclass(frozen=True)
class EmbeddingUse:
    """A textual inversion, and the ``forms`` in which a prompt may name it, its own name or where it lies."""

    file: EmbeddingFile
    forms: tuple[str, ...]

    def forms_in(self, text: str) -> list[str]:
        """Those that may stand in the text, whatever their case."""
        return [form for form in self.forms if form.casefold() in text.casefold()]


Shares = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of a picture, 0..1."""
WHOLE: Shares = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Area:
    """A part of a picture: a box, or a mask as base64 of a grey picture, white for what is in it.

    ``feather`` is how wide its edge is, as a share of the shorter side. ``seen`` is what of the picture is drawn.
    """

    box: Shares | None = None
    mask: str | None = None
    feather: float = 0.0
    seen: Shares = WHOLE


@dataclass(frozen=True)
class RegionUse:
    """What is to be in an area, and how much it counts there, 0..1."""

    prompt: str
    weight: float
    area: Area


@dataclass(frozen=True)
class ControlUse:
    """A control, and the picture that it draws after: two are the same where its pixels are. It is RGB, or RGBA for a
    preprocessor that is told what is masked.

    ``weight`` is 0..2. It acts in steps that lie within the shares ``start`` to ``end``, each 0..1, of those that the
    pass takes. ``preprocessor`` makes the map of the picture, with ``options`` by name, sorted. ``mode`` says which
    counts more, prompt or control. ``resize`` is how the picture is brought to the size of the pass; that of an
    IP-Adapter, to the one that its image ``encoder`` sees. ``networks`` are
    the files that the preprocessor needs. ``kind`` is the number of the map's kind, for a network that knows several.
    """

    file: ControlFile
    image: PilImage = field(compare=False, repr=False)
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    preprocessor: str = "none"
    options: tuple[tuple[str, float], ...] = ()
    mode: Literal["balanced", "prompt", "control"] = "balanced"
    resize: Literal["just resize", "crop and resize", "resize and fill"] = "crop and resize"
    networks: tuple[AnnotatorFile, ...] = ()
    encoder: ImageEncoderFile | None = None
    kind: int | None = None
    pixels: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", pixels_sha256(self.image))

    @property
    def files(self) -> tuple[File, ...]:
        """All that it reads."""
        return self.file, *self.networks, *((self.encoder,) if self.encoder else ())

    def map_at(self, size: Size) -> PilImage:
        """Its map at a size, as ``core.maps.make_map`` makes it."""
        return make_map(self.preprocessor, self.image, size, self.resize, self.options, networks=self.networks)

    def at(self, step: int, steps: int) -> float:
        """Its weight at a step, 0..steps - 1, as diffusers has it: whole steps within start and end."""
        return self.weight if self.start <= step / steps and (step + 1) / steps <= self.end else 0.0


def rows_of(regions: int, guided: bool, perturbed: bool) -> int:
    """How many answers of the network a picture takes in an evaluation: the picture's prompt and each region's, all of
    them once more where they are ``perturbed``, and the negative prompt where it is ``guided``."""
    return (1 + regions) * (1 + perturbed) + guided


@dataclass(frozen=True)
class Pass:
    """One run of the denoising loop with one model.

    ``begin`` is what it begins from: noise, the picture in ``init``, the finished pictures of the stage before
    (``drawn``), the latents of the pass before, enlarged by the filter ``enlarged_by`` (``latents``; of ``init`` only
    the mask counts in both), or these at their noise level (``handover``). From what was drawn, each picture of a batch
    is drawn by itself, as if it had come from a file. ``handover_at`` is the share of the noise, 0..1, after which the
    one hands over to the other. ``strength`` is the share of the steps that a pass from a picture takes.
    ``guidance_until`` is the share of the network's evaluations after which the prompt goes on alone. ``pag`` and
    ``nag`` are there where they do anything. ``prediction`` is
    ``auto`` for the one that the model's file says. ``lenders`` are models that may lend what the model's file lacks.
    ``variation`` is that of the order's first picture. ``done`` are the steps of the passes before, behind which
    prompts count its own. ``controls`` say where things are, ``references`` what they look like. ``refs`` are its
    LoRAs as they were asked for. ``int8`` says whether the network computes in 8 bits where that pays. ``name`` is what
    its steps are told under where an order has stages of several names.
    """

    model: ModelFile
    size: Size
    steps: int
    sampler: str
    schedule: str
    prompt: str
    negative: str
    guidance: float
    vae: VaeFile | None = None
    lenders: tuple[ModelFile, ...] = ()
    prediction: str = "auto"
    clip_skip: int = 1
    begin: Literal["noise", "picture", "drawn", "latents", "handover"] = "noise"
    strength: float = 1.0
    handover_at: float | None = None
    guidance_until: float = 1.0
    guidance_rescale: float = 0.0
    pag: "Pag | None" = None
    nag: "Nag | None" = None
    loras: tuple[LoraUse, ...] = ()
    lora_schedules: tuple[LoraSchedule, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    controls: tuple[ControlUse, ...] = ()
    references: tuple[ControlUse, ...] = ()
    init: "Init | None" = None
    variation: "Variation | None" = None
    enlarged_by: str = ""
    done: int = 0
    refs: tuple[LoraRef, ...] = ()
    reuse: int = 1
    token_merging: float = 0.0
    int8: bool = False
    regions: tuple[RegionUse, ...] = ()
    name: str = "base"

    @property
    def steps_taken(self) -> int:
        """How many of its steps it takes."""
        return steps_to_take(self.steps, self.strength)

    @property
    def cost(self) -> float:
        """Megapixel-evaluations for one picture: of a pass that hands over or is handed to, its share of the steps."""
        share = 1.0 if self.handover_at is None else self.handover_at
        share = 1.0 - share if self.begin == "handover" else share
        width, height = self.size
        return self.steps_taken * share * self.rows * width * height / 1e6

    @property
    def rows(self) -> int:
        """How many prompts the network is asked about for each picture in an evaluation, without those of AND."""
        return rows_of(len(self.regions), self.guidance != 1, self.pag is not None)

    @property
    def result_size(self) -> Size:
        """Of its pictures: that of the whole start picture where only a part of it is drawn."""
        if self.init and self.init.only_masked and self.init.masked:
            return self.init.extended_size
        return self.size

    @property
    def files(self) -> tuple[File, ...]:
        """All that it reads; of the lenders those that it may need."""
        own: Iterable[File | None] = (self.model, *self.lenders, self.vae)
        used = (
            *self.lora_files,
            *(use.file for use in self.embeddings),
            *(file for use in (*self.controls, *self.references) for file in use.files),
        )
        return tuple(file for file in (*own, *used) if file)

    @property
    def lora_files(self) -> tuple[LoraFile, ...]:
        """Of all LoRAs that it puts on at any step."""
        return (*(use.file for use in self.loras), *(schedule.file for schedule in self.lora_schedules))


UPSCALE_STEP_PX = 256


@dataclass(frozen=True)
class Upscale:
    """Each picture enlarged to ``size`` by the network in ``file``, or where that is None, by Lanczos' filter.

    A size of another shape is filled, and the rest cut off on both sides. ``init`` holds the picture where none is
    drawn before. ``name`` as in Pass.
    """

    file: UpscalerFile | None
    size: Size
    init: "Init | None" = None
    name: str = "upscale"

    @property
    def steps_taken(self) -> int:
        """What it counts for in progress: squares of ``UPSCALE_STEP_PX`` for a network, nothing for the filter."""
        across, down = (-(-side // UPSCALE_STEP_PX) for side in self.size)
        return across * down if self.file else 0

    @property
    def cost(self) -> float:
        """As that of a pass: what a network does for a pixel of the result is taken for one evaluation."""
        return self.size[0] * self.size[1] / 1e6 if self.file else 0.0

    @property
    def files(self) -> tuple[File, ...]:
        """All that it reads."""
        return (self.file,) if self.file else ()

    @property
    def result_size(self) -> Size:
        """Of its pictures."""
        return self.size


@dataclass(frozen=True)
class Detail:
    """Parts of each picture, each drawn again by the pass ``each`` and put back.

    ``finder`` is a file, or the name of one that is no file. Of what it finds with a score from ``threshold`` on, 0..1,
    the surest parts are drawn, ``at_most`` so many, grown by a square of ``dilate_px`` (shrunk by one below 0), with
    ``padding_px`` around them. ``size`` is that of the pictures. ``name`` as in Pass.
    """

    finder: FinderFile | str
    threshold: float
    padding_px: int
    dilate_px: int
    at_most: int
    each: Pass
    size: Size
    name: str = "detail"

    @property
    def steps_taken(self) -> int:
        """What it counts for in progress: one part in each picture, for how many there are is not known before."""
        return self.each.steps_taken

    @property
    def cost(self) -> float:
        """As that of a pass, of as many parts as there may be."""
        return self.each.cost * self.at_most

    @property
    def files(self) -> tuple[File, ...]:
        """All that it reads."""
        return (*((self.finder,) if isinstance(self.finder, FinderFile) else ()), *self.each.files)

    @property
    def result_size(self) -> Size:
        """Of its pictures."""
        return self.size


Stage = Pass | Upscale | Detail
"""The kinds of stage there are."""


def steps_of(stage: Stage) -> int:
    """How many steps a stage adds; a pass that latents are handed to goes on with those of the pass before."""
    return 0 if isinstance(stage, Pass) and stage.begin == "handover" else stage.steps_taken


def likely_cost(stage: Stage) -> float:
    """What of its cost will most likely be spent: of parts that may be found, one a picture."""
    return stage.each.cost if isinstance(stage, Detail) else stage.cost


def steps_to_take(steps: int, strength: float) -> int:
    """How many of ``steps`` are left for a strength of 0..1: at least one, unless the strength is 0."""
    return min(steps, max(int(steps * strength), 1 if strength > 0 else 0))
