"""A catalog without a model of its own: the embedded one and its LoRAs, and a few samplers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo

from webui.core.catalog import Catalog
from webui.core.files import VaeFile
from webui.core.settings import Settings
from webui.interop.picture_info import PictureInfo, read_info
from webui.library.library import Library

SAMPLERS = {
    "Euler": ("Default", "Karras", "Trailing"),
    "Euler a": ("Default", "Karras"),
    "DPM++ 2M": ("Default", "Karras", "Exponential"),
    "DPM++ 2M SDE": ("Default", "Karras"),
    "DDIM": ("Default",),
}


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    found = Library(Settings(data_dir=tmp_path_factory.mktemp("data"))).snapshot()
    vaes = {"sharp": VaeFile("sharp", Path("sharp.safetensors"))}
    return Catalog(found.models, found.loras, vaes, found.embeddings, SAMPLERS)


@pytest.fixture
def read(tmp_path: Path, catalog: Catalog) -> Callable[..., PictureInfo]:
    """``read(parameters=text)``: what is found in a PNG with these texts."""

    def read(**texts: str) -> PictureInfo:
        chunks = PngInfo()
        for name, text in texts.items():
            chunks.add_itxt(name, text)
        PilImages.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=chunks)
        return read_info(tmp_path / "x.png", catalog)

    return read
