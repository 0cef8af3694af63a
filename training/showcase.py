"""What shows the model off, drawn with the product itself: preview, shipped presets, and the README's gallery."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import hash_file
from webui.core.weight_files import content_hash
from webui.engine.manager import PipelineManager
from webui.library.library import Library, Snapshot
from webui.workspace.preset import read_preset

from .concepts import IMAGE_SIZE

ROWS = (
    ("red apple", "penguin", "rocket", "castle", "lollipop", "tiger", "cherry blossom", "volcano"),
    ("fox", "watermelon", "flamingo", "house", "guitar", "dolphin", "cupcake", "sunflower"),
    ("panda", "sailboat", "laughing face", "cactus", "hamburger", "owl", "trophy", "snowman"),
)
"""The gallery's things: a row for each style."""
STYLES = ("3d", "flat", "cartoon")
COLOURS = ("sky blue", "yellow", "pink", "teal", "beige", "purple", "green", "orange")
GAP_PX = 4
PREVIEW = "a red apple, 3d style, on a sky blue background"


def draw(manager: PipelineManager, request: Request) -> Image:
    """The one picture of a request."""
    (picture,) = (event for event in manager.generate(request) if isinstance(event, Image))
    return picture


def renew_preset(file: Path, manager: PipelineManager, library: Snapshot) -> None:
    """Draw a preset of the demo model again, and keep picture, expected hash and the hashes of its files."""
    preset = read_preset(file.read_bytes(), file.stem)
    if preset.fields.get("model") != "demo":
        return
    request = preset.request()
    pins = {
        "model": content_hash(library.models["demo"]),
        "loras": {lora.name: hash_file(library.loras[lora.name].path).tensors for lora in request.loras},
    }
    changed: dict[str, object] = {"pins": pins}
    if preset.expected:
        picture = draw(manager, request)
        changed["expected"] = picture.pixels_sha256
        picture.image.save(file.with_suffix(".png"), optimize=True)
    file.write_text(preset.model_validate(preset.model_dump() | changed).text, encoding="utf-8")


def gallery(manager: PipelineManager) -> PilImage:
    """Eight things in each style, each on another background."""
    side = IMAGE_SIZE + GAP_PX
    sheet = PilImages.new("RGB", (side * len(COLOURS) - GAP_PX, side * len(ROWS) - GAP_PX), "white")
    for y, (things, style) in enumerate(zip(ROWS, STYLES, strict=True)):
        for x, thing in enumerate(things):
            prompt = f"a {thing}, {style} style, on a {COLOURS[(x + 3 * y) % len(COLOURS)]} background"
            sheet.paste(draw(manager, Request(prompt=prompt, seed=8 * y + x)).image, (side * x, side * y))
    return sheet


def make(repository: Path) -> None:
    """Renew the model's preview, `presets/` and `docs/gallery.png`."""
    with TemporaryDirectory() as folder:
        settings = Settings(device="cpu", dtype="float32", data_dir=Path(folder))
        manager, library = PipelineManager(settings), Library(settings).snapshot()
        for file in sorted((repository / "presets").glob("*.toml")):
            renew_preset(file, manager, library)
        preview = draw(manager, Request(prompt=PREVIEW, seed=0)).image
        preview.save(repository / "webui" / "demo" / "preview.png", optimize=True)
        gallery(manager).save(repository / "docs" / "gallery.png", optimize=True)
