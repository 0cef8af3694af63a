"""Image encoders (CLIP vision), which IP-Adapters see pictures with."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from webui.core.clip_vision_file import CONFIG, read_clip_vision
from webui.core.files import ImageEncoderFile
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.library.folders import CONTROL_FOLDERS, CONTROLS
from webui.library.naming import FoundFile, make_files
from webui.library.scan import Scan

FOLDERS = ("models/clip_vision", "clip_vision")
BESIDE = "image_encoder"
"""What h94 calls the folder beside IP-Adapters."""


def find_image_encoders(settings: Settings, scan: Scan | None = None) -> dict[str, ImageEncoderFile]:
    """Every encoder that can be used by name, the embedded one last; ``scan`` notes what was read. In folders of
    controls those are found that lie as h94 has them."""
    scan = scan or Scan()
    read: dict[Path, ImageEncoderFile] = {}
    found = []
    for root in (settings.data_dir, *settings.models_dir):
        for top in (*FOLDERS, *CONTROL_FOLDERS):
            for path, place in _encoders(root / top, scan, everywhere=top in FOLDERS):
                if path not in read and (file := _read(path, scan)):
                    read[path] = file
                    found.append(FoundFile(path, place))
    for path, _ in _encoders(CONTROLS, scan, everywhere=False):
        if file := _read(path, scan):
            read[path] = file
            found.append(FoundFile(path, file.serves, name=file.serves))
    return make_files(found, lambda name, path, **more: replace(read[path], name=name, **more))


def _encoders(root: Path, scan: Scan, everywhere: bool) -> Iterator[tuple[Path, str]]:
    """Files, and folders of transformers', below a folder."""
    for folder, _, names in scan.walk(root):
        above = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        if not everywhere and folder.name != BESIDE:
            continue
        if CONFIG in names:
            yield folder, above.rstrip("/") or folder.name
            continue
        for stem, ending in map(os.path.splitext, names):
            if ending.lower() == ".safetensors":
                yield folder / f"{stem}{ending}", f"{above}{stem}"


def _read(path: Path, scan: Scan) -> ImageEncoderFile | None:
    scan.note(path)
    try:
        shape = read_clip_vision(path)
    except (BadFile, OSError):
        return None
    return ImageEncoderFile("", path, width=shape.width, projected=shape.projected, serves=shape.serves)
