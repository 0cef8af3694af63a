"""Is a picture still what its recipe makes? Compares the one on disk with the one drawn again, and says why not."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PilImages
from PIL import ImageChops, ImageOps
from PIL.Image import Image as PilImage

from webui.core.catalog import Catalog
from webui.core.control_file import control_weights
from webui.core.events import Image
from webui.core.files import ControlFile, File, LoraFile, ModelFile
from webui.core.lora_ref import LoraRef, once_each
from webui.core.names import FINDERS, find_file, in_tags
from webui.core.prompt import rename_loras
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request
from webui.core.tensor_file import hash_file
from webui.core.weight_files import content_hash, hash_whole

TOLERANCES = {"float32": 4, "bfloat16": 24, "float16": 24}
"""Levels of 255 by which a picture may differ where only the environment changed, by the coarser number format.

Measured on the demo model with every sampler: another number of threads or pictures at once, 1; compiled code, 7;
another format, up to 15 for all samplers but PNDM and LMS.
"""

LOSSY_LEVELS = 96
"""By how much JPEG and WebP may move a single value of a picture that nobody edited (measured: 60)."""

IMPLIED: dict[str, Any] = {"cpu_kernels": True, "float32": "as torch has it", "weights": "dense", "together": 1}
"""What an environment means that does not say it."""

WORKER = "worker"
"""What an environment may say that no pixel depends on: which of several workers drew the picture."""

GAP_PX = 4
Outcome = Literal["identical", "equal", "different"]
ENVIRONMENT = "environment: "


@dataclass(frozen=True)
class Verdict:
    """``identical`` is the same pixels, ``equal`` within what the changed environment explains.

    ``unknown`` is a preset that expects no certain picture.

    ``max_difference`` and ``tolerance`` are levels of 255; ``reasons`` are what has changed, for people.
    ``comparison`` has the picture, the new one and their difference side by side, where they differ.
    """

    outcome: Literal["identical", "equal", "different", "unknown"]
    max_difference: int = 0
    tolerance: int = 0
    reasons: tuple[str, ...] = ()
    comparison: PilImage | None = None

    def __str__(self) -> str:
        if self.outcome == "unknown":
            return "its files are those it was made with; it expects no certain picture"
        if self.outcome == "identical":
            return "; ".join(("identical", *self.reasons))
        why = "; ".join(self.reasons) or "nothing that the recipe knows of has changed"
        allowed = f", {self.tolerance} are allowed" if self.outcome == "equal" else ""
        return f"{self.outcome}: by up to {self.max_difference} of 255 levels{allowed}: {why}"


def prepare(recipe: Recipe, catalog: Catalog, find_start: Callable[[str], PilImage | None]) -> Request:
    """What to ask for to draw it again; raises RecipeError naming, with its hash, what is not here.

    Of several files that a name could mean, the one with the recipe's hash is asked for.
    """
    here = _files_by_kind(catalog)
    missing = [
        f"{kind} {name[:80]!r} (SHA-256 {digest[:12]})"
        for kind, names in recipe.hashes.items()
        for name, digest in names.items()
        if find_file(name, here.get(kind, {})) is None
    ]
    if missing:
        raise RecipeError(f"cannot be drawn again: {', '.join(missing[:5])} not here")
    request = recipe.with_pictures(find_start).drawn_as()

    def meant(kind: str, name: str) -> str:
        return _find_same(name, recipe.hashes.get(kind, {}).get(name, ""), here[kind])

    def same_loras(refs: Iterable[LoraRef]) -> tuple[LoraRef, ...]:
        return once_each(ref.model_copy(update={"name": meant("lora", ref.name)}) for ref in refs)

    def same_tags(text: str) -> str:
        return rename_loras(text, lambda name: _find_tagged(name, recipe.lora_hashes, catalog.loras))

    names: dict[str, Any] = {kind: meant(kind, getattr(request, kind)) for kind in ("model", "refiner", "vae")}
    names["text_encoder"] = meant("lender", request.text_encoder)
    if upscale := request.upscale:
        names["upscale"] = upscale.model_copy(update={"upscaler": meant("upscaler", upscale.upscaler)})
    if hires := request.hires:
        model = hires.model and meant(
            "hires" if hires.model in recipe.hashes.get("hires", {}) else "model", hires.model
        )
        own = {"model": model, "loras": same_loras(hires.loras), "prompt": same_tags(hires.prompt)}
        names["hires"] = hires.model_copy(update=own | {"upscaler": meant("upscaler", hires.upscaler)})
    names["detail"] = tuple(
        detail.model_copy(
            update={
                "finder": meant("finder", detail.finder) if detail.finder not in FINDERS else detail.finder,
                "loras": same_loras(detail.loras),
                "prompt": same_tags(detail.prompt),
            }
        )
        for detail in request.detail
    )
    names["controls"] = tuple(
        control.model_copy(update={"model": meant("control", control.model)}) for control in request.controls
    )
    texts = {"loras": same_loras(request.loras), "prompt": same_tags(request.prompt)}
    return request.model_copy(update=texts | names)


def _files_by_kind(catalog: Catalog) -> Mapping[str, Mapping[str, File]]:
    """By the kinds that recipes have hashes of."""
    return {
        "model": catalog.models,
        "refiner": catalog.models,
        "hires": catalog.models,
        "lender": {**catalog.models, **catalog.parts},
        "lora": catalog.loras,
        "lora configuration": catalog.loras,
        "vae": catalog.vaes,
        "embedding": catalog.embeddings,
        "upscaler": catalog.upscalers,
        "finder": catalog.finders,
        "control": catalog.controls,
        "image encoder": catalog.image_encoders,
        "annotator": catalog.annotators,
    }


def _find_tagged(name: str, hashes: Mapping[str, str], files: Mapping[str, LoraFile]) -> str:
    """The same for the name in a tag that stays in the prompt, which may be another form of the recipe's; as a tag has
    it."""
    drawn = find_file(name, {known: LoraFile(known, Path(f"{known}.safetensors"), place=known) for known in hashes})
    if drawn is None or (same := _find_same(drawn, hashes[drawn], files)) == find_file(name, files):
        return name
    return in_tags(same, files) or name


def _find_same(name: str, digest: str, files: Mapping[str, File]) -> str:
    """The name of the file with this hash among those that ``name`` could mean; where there is none, ``name``."""
    file = files.get(find_file(name, files) or "")
    for other in (file, *(files[other] for other in file.namesakes)) if file and file.namesakes else ():
        with suppress(OSError):
            if _hash(other) == digest:
                return other.name
    return name


def _hash(file: File) -> str:
    """As recipes have it; raises OSError."""
    if isinstance(file, LoraFile):
        return hash_file(file.path).tensors
    if isinstance(file, ControlFile):
        return hash_whole(*control_weights(file.path))
    return content_hash(file) if isinstance(file, ModelFile) else hash_whole(file.path)


def judge(picture: PilImage, recipe: Recipe, again: Image) -> Verdict:
    """What became of ``picture`` and its recipe, now that ``again`` was drawn from it.

    A lossy file is held to its recipe's hash, and its pixels only to what such a format does to them.
    """
    lossy = picture.format not in (None, "PNG")
    first, second = picture.convert("RGB"), again.image.convert("RGB")
    changed = list(changes(recipe, again.recipe))
    if first.size != second.size:
        words = "the file has been resized or cut" if recipe.pixels_sha256 == again.pixels_sha256 else "its size"
        return Verdict("different", 255, 0, (*changed, words))
    difference = ImageChops.difference(first, second)
    largest = _largest(difference)
    same_recipe = again.pixels_sha256 == recipe.pixels_sha256
    if largest == 0 and not lossy or same_recipe and lossy and largest <= LOSSY_LEVELS:
        return Verdict("identical")
    if same_recipe:
        changed = ["its recipe still gives the picture that was drawn, so the file was edited since"]
    elif not changed and not lossy and Image(0, first, recipe).pixels_sha256 == recipe.pixels_sha256:
        changed = ["its pixels are those that were drawn, so the recipe may have been edited since"]
    tolerance = max(tolerance_of(recipe), tolerance_of(again.recipe)) + (LOSSY_LEVELS if lossy else 0)
    explained = bool(changed) and not same_recipe and all(name.startswith(ENVIRONMENT) for name in changed)
    outcome: Outcome = "equal" if explained and largest <= tolerance else "different"
    return Verdict(outcome, largest, tolerance, tuple(changed), side_by_side(first, second, difference))


def judge_hash(expected: str, kept: PilImage | None, again: Image, changed: tuple[str, ...]) -> Verdict:
    """Of a picture that is known by the beginning of its hash alone, and perhaps by a copy, ``kept``."""
    if again.pixels_sha256.startswith(expected):
        return Verdict("identical", reasons=changed)
    if kept is None or kept.size != again.image.size:
        return Verdict(
            "different", 255, 0, (*changed, f"its pixels are {again.pixels_sha256[:12]}, not {expected[:12]}")
        )
    difference = ImageChops.difference(kept.convert("RGB"), again.image.convert("RGB"))
    largest, tolerance = _largest(difference), TOLERANCES["float32"]
    outcome: Outcome = "equal" if largest <= tolerance and not changed else "different"
    return Verdict(outcome, largest, tolerance, changed or ("another processor or version",))


def changes(old: Recipe, new: Recipe) -> Iterator[str]:
    """What explains another picture, in words: what details found, files, sampler, then the environment."""
    yield from _other_parts(old, new)
    for kind in {**old.hashes, **new.hashes}:
        before, now = old.hashes.get(kind, {}), new.hashes.get(kind, {})
        renamed = set(before.values()) & set(now.values())
        for name in {**before, **now}:
            is_one_s_own = (name in before) != (name in now)
            if before.get(name) != now.get(name) and not (is_one_s_own and {**before, **now}[name] in renamed):
                hashes = f"{before.get(name, 'none')[:12]}, now {now.get(name, 'none')[:12]}"
                yield f"{kind} {name!r} is another file ({hashes})"
    yield from _differences("sampler ", _flat(old.sampler), _flat(new.sampler))
    before, now = ({**IMPLIED, **recipe.environment, WORKER: ""} for recipe in (old, new))
    yield from _differences(ENVIRONMENT, before, now)


def _other_parts(old: Recipe, new: Recipe) -> Iterator[str]:
    """Details that found something else than they did: other parts are drawn then, and pixels say nothing more."""
    for number, (before, now) in enumerate(zip_longest(old.found, new.found, fillvalue=()), start=1):
        boxes = [[spot.box for spot in spots] for spots in (before, now)]
        if boxes[0] != boxes[1]:
            told = [", ".join(map(str, places[:4])) or "nothing" for places in boxes]
            yield f"detail {number} found {told[0]} then, and {told[1]} now"


def _differences(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield f"{prefix}{name} {str(old.get(name, 'unknown'))[:60]}, now {str(new.get(name, 'unknown'))[:60]}"


def _flat(sampler: Mapping[str, Any]) -> dict[str, Any]:
    config = sampler.get("config")
    found = {"class": sampler.get("class")} | (dict(config) if isinstance(config, Mapping) else {})
    for name, other in sampler.items():  # those of further passes, by their names
        if name != "config" and isinstance(other, Mapping):
            found |= {f"{name} {key}": value for key, value in _flat(other).items()}
    return found


def _largest(difference: PilImage) -> int:
    return int(np.asarray(difference).max())


def tolerance_of(recipe: Recipe) -> int:
    """Levels of 255 by which its picture may differ elsewhere."""
    return TOLERANCES.get(str(recipe.environment.get("dtype")), TOLERANCES["float32"])


def side_by_side(first: PilImage, second: PilImage, difference: PilImage) -> PilImage:
    """The two and their difference, stretched to the whole range of levels."""
    levels = np.asarray(difference, np.float32)
    stretched = PilImages.fromarray((levels * (255 / max(levels.max(), 1))).astype(np.uint8))
    canvas = PilImages.new("RGB", (3 * first.width + 2 * GAP_PX, first.height), (128, 128, 128))
    for number, picture in enumerate((first, second, ImageOps.invert(stretched))):
        canvas.paste(picture, (number * (first.width + GAP_PX), 0))
    return canvas
