"""Pictures that say where things are, or what they look like, and the networks that draw after them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from PIL.Image import Image as PilImage
from pydantic import ConfigDict, Field, field_validator

from webui.core import images
from webui.core.files import Files, ModelFile
from webui.core.groups.init import Init
from webui.core.groups.listed import Listed
from webui.core.ip_adapter_file import IpAdapter, choose_encoder, ip_adapter_of
from webui.core.maps import choose_map
from webui.core.picture import Picture
from webui.core.stages import ControlUse, Pass, Stage
from webui.core.values import share_field

MAX_CONTROLS, MAX_OPTIONS = 8, 8
NO_MAP = "none"
"""The preprocessor that leaves the picture as it is: it is a map already."""
MapKind = Literal["auto", "pose", "depth", "soft edge", "hard edge", "normals", "segmentation", "tile", "inpaint"]
MAP_KINDS = get_args(MapKind)[1:]
"""The kinds of map that a ControlNet Union knows, in the order of its numbers (xinsir, ControlNetPlus)."""
KIND_OF_MAP: Mapping[str, MapKind] = {
    **dict.fromkeys(("pose", "body"), "pose"),
    "depth": "depth",
    **dict.fromkeys(("soft edge", "scribble", "hed", "pidinet", "teed"), "soft edge"),
    **{"normals": "normals", "segmentation": "segmentation"},
    **dict.fromkeys(("canny", "line"), "hard edge"),
    **dict.fromkeys(("tile", "blur"), "tile"),
    "inpaint": "inpaint",
}
"""What a map is by the preprocessor that makes it. Of one that is given as it is, a union is told nothing, as in
ComfyUI's ``auto``, unless somebody says what it shows."""
MapValue = Annotated[float, Field(allow_inf_nan=False)]


class Control(Listed):
    """One control of a request, which has a list of them, all of which act at once.

    ``options`` are the preprocessor's own, by name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    flag = "control"
    example = "model=NAME,image=FILE,weight=0.8"
    by_hand = ("image", "options")
    pictures = ("image",)

    model: str = Field(min_length=1, max_length=255, title="Model", description="The file that draws after the picture")
    image: Picture | None = Field(
        default=None, title="Picture", description="What to draw after. Left out: the start picture"
    )
    weight: float = Field(
        default=1.0, ge=0.0, le=2.0, allow_inf_nan=False, title="Weight", description="How much it counts. 0: off"
    )
    start: float = share_field(0.0, "Start", "The share of the steps after which it begins to act")
    end: float = share_field(1.0, "End", "The share of the steps after which it acts no more")
    preprocessor: str = Field(
        default=NO_MAP,
        min_length=1,
        max_length=100,
        title="Preprocessor",
        description="What makes the map of the picture; none for a picture that is a map already",
    )
    mode: Literal["auto", "balanced", "prompt", "control"] = Field(
        default="auto",
        title="Mode",
        description="Which of the two counts more, where they disagree. auto: what suits the file",
    )
    resize: Literal["just resize", "crop and resize", "resize and fill"] = Field(
        default="crop and resize", title="Resize", description="How the picture is fitted to the size"
    )
    kind: MapKind = Field(
        default="auto",
        title="Kind of map",
        description="What a map shows, which a ControlNet Union is told. auto: what its preprocessor makes",
    )
    options: Mapping[str, MapValue] = Field(
        default_factory=dict, max_length=MAX_OPTIONS, title="Options", description="The preprocessor's own, by name"
    )

    @field_validator("options", mode="before")
    @classmethod
    def _read_options(cls, value: Any) -> Any:
        """From a flag as ``low:100;high:200``."""
        if not isinstance(value, str):
            return value
        pairs = [pair.partition(":") for pair in value.split(";") if pair.strip()]
        if not all(colon for _, colon, _ in pairs):
            raise ValueError("must look like low:100;high:200")
        return {name.strip(): number.strip() for name, _, number in pairs}

    def __eq__(self, other: object) -> bool:
        """By what is drawn after: the same picture is the same, whichever file it came from."""
        return isinstance(other, Control) and (self.said, self.pixels) == (other.said, other.pixels)

    def __hash__(self) -> int:
        return hash((self.model, self.pixels))

    @property
    def pixels(self) -> str:
        """The hash of its picture's; empty where it has none of its own."""
        return images.pixels_sha256(images.to_rgb(self.image)) if self.image else ""

    @property
    def said(self) -> dict[str, Any]:
        """What of it is not left out, for JSON, without its picture; its model always."""
        said = self.model_dump(mode="json", exclude={"image"}, exclude_defaults=True, exclude_none=True)
        return {"model": self.model} | {name: value for name, value in said.items() if value != {}}

    @property
    def acts(self) -> bool:
        """Whether it does anything at any step."""
        return self.weight > 0 and self.start < self.end

    @property
    def map_kind(self) -> int | None:
        """The number of its kind of map among a union's; None where a union is told nothing."""
        kind = KIND_OF_MAP.get(self.preprocessor, "auto") if self.kind == "auto" else self.kind
        return None if kind == "auto" else MAP_KINDS.index(kind)

    def stages(self, stages: tuple[Stage, ...], files: Files) -> tuple[Stage, ...]:
        """One control more for each pass so far that draws with a model of the first one's kind."""
        first = stages[0]
        assert isinstance(first, Pass)
        return tuple(self._in(stage, files) if _alike(stage, first) else stage for stage in stages)

    def _in(self, stage: Stage, files: Files) -> Stage:
        assert isinstance(stage, Pass)
        if not self.acts:
            return stage
        if adapter := ip_adapter_of(files.controls[self.model]):
            return replace(stage, references=(*stage.references, self._reference(adapter, stage.init, files)))
        init, resize = stage.init, self.resize
        if self.image is None:
            assert init, "a resolved request has a picture for each control"
            resize = "just resize" if init.resize == "latent resize" else init.resize
        assert self.mode != "auto", "a resolved request has a mode for each control"
        image, row = self._shown(init), choose_map(self.preprocessor)
        row.working_size(stage.size, self.options)
        use = ControlUse(
            file=files.controls[self.model],
            image=init.part_drawn(image, stage.size, resize) if init else image,
            weight=self.weight,
            start=self.start,
            end=self.end,
            preprocessor=self.preprocessor,
            options=tuple(sorted(self.options.items())),
            mode=self.mode,
            resize=resize,
            networks=row.find_networks(files.annotators),
            kind=self.map_kind,
        )
        return replace(stage, controls=(*stage.controls, use))

    def _reference(self, adapter: IpAdapter, init: Init | None, files: Files) -> ControlUse:
        """It says what things look like, not where: whatever of the picture is drawn, the whole of it is seen."""
        given = self.image if self.image is not None else init.image if init else None
        assert given, "a resolved request has a picture for each control"
        image = (
            images.to_rgb(given) if self.image is not None or init is None else images.to_rgb(given, init.background)
        )
        encoder = choose_encoder(adapter, files.image_encoders)
        file = files.controls[self.model]
        return ControlUse(file, image, self.weight, self.start, self.end, resize=self.resize, encoder=encoder)

    def _shown(self, init: Init | None) -> PilImage:
        """Its picture or the start picture in RGB; for a preprocessor that is told what is masked, transparent there.

        A picture that says that itself is taken as it is, any other with the start picture's mask.
        """
        needs_mask = choose_map(self.preprocessor).needs_mask
        if self.image is not None and needs_mask and "A" in self.image.getbands():
            return self.image.convert("RGBA")
        image = images.to_rgb(self.image) if self.image is not None else init.shown if init else None
        assert image, "a resolved request has a picture for each control"
        mask = init.whole_mask if init and needs_mask else None
        if mask:
            image = image.copy()
            image.putalpha(images.resize(mask, image.size, "just resize").point(lambda level: 255 - level))
        return image


def _alike(stage: Stage, first: Pass) -> bool:
    return isinstance(stage, Pass) and alike(stage.model, first.model)


def alike(one: ModelFile, other: ModelFile) -> bool:
    """Whether two models are of one kind, so that a control of the one is one of the other."""
    kinds = [(about.family, about.context_width) for model in (one, other) if (about := model.checkpoint)]
    return len(set(kinds)) == 1
