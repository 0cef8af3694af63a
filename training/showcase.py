"""What shows the model off, drawn with the product itself: preview, shipped presets, and the README's gallery."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import hash_file
from webui.core.weight_files import content_hash
from webui.darkroom import Darkroom
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


def renew_preset(file: Path, darkroom: Darkroom) -> None:
    """Draw a preset of the demo model again, and keep picture, expected hash and the hashes of its files."""
    preset = read_preset(file.read_bytes(), file.stem)
    if preset.fields.get("model") != "demo":
        return
    request, files = preset.request(), darkroom.catalog()
    pins = {
        "model": content_hash(files.models["demo"]),
        "loras": {lora.name: hash_file(files.loras[lora.name].path).tensors for lora in request.loras},
    }
    changed: dict[str, object] = {"pins": pins}
    if preset.expected:
        (picture,) = darkroom.draw(request)
        changed["expected"] = picture.pixels_sha256
        picture.image.save(file.with_suffix(".png"), optimize=True)
    file.write_text(preset.model_validate(preset.model_dump() | changed).text, encoding="utf-8")


def gallery(darkroom: Darkroom) -> PilImage:
    """Eight things in each style, each on another background."""
    side = IMAGE_SIZE + GAP_PX
    sheet = PilImages.new("RGB", (side * len(COLOURS) - GAP_PX, side * len(ROWS) - GAP_PX), "white")
    for y, (things, style) in enumerate(zip(ROWS, STYLES, strict=True)):
        for x, thing in enumerate(things):
            prompt = f"a {thing}, {style} style, on a {COLOURS[(x + 3 * y) % len(COLOURS)]} background"
            (picture,) = darkroom.draw(Request(prompt=prompt, seed=8 * y + x))
            sheet.paste(picture.image, (side * x, side * y))
    return sheet


def make(repository: Path) -> None:
    """Renew the model's preview, `presets/` and `docs/gallery.png`."""
    with TemporaryDirectory() as folder:
        settings = Settings(device="cpu", dtype="float32", data_dir=Path(folder))
        darkroom = Darkroom(settings)
        for file in sorted((repository / "presets").glob("*.toml")):
            renew_preset(file, darkroom)
        (preview,) = darkroom.draw(Request(prompt=PREVIEW, seed=0))
        preview.image.save(repository / "webui" / "demo" / "preview.png", optimize=True)
        gallery(darkroom).save(repository / "docs" / "gallery.png", optimize=True)
