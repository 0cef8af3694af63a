"""``webui info``: says what pictures, or settings as text, tell of how they were made."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from webui.app import make_executor
from webui.core.images import ImageError
from webui.core.settings import Settings
from webui.interop.picture_info import PictureInfo, read_info, read_text

STANDARD_INPUT = Path("-")
MAX_TEXT_BYTES = 10 * 2**20


def inspect(pictures: Sequence[Path], settings: Settings, as_json: bool) -> int:
    """Prints what is known of each picture; returns 0, 1 where one has no settings, 2 where one cannot be read.

    ``-`` stands for settings as text on the standard input.
    """
    executor = make_executor(settings)
    status = 0
    try:
        catalog = executor.catalog()
        for path in pictures:
            try:
                info = read_text(_read_input(), catalog) if path == STANDARD_INPUT else read_info(path, catalog)
            except ImageError as error:
                if as_json:
                    print(json.dumps({"name": str(path), "error": str(error)}), flush=True)
                print(f"webui: {path}: {error}", file=sys.stderr)
                status = 2
                continue
            print(json.dumps({"name": str(path)} | info.to_json()) if as_json else _to_text(path, info), flush=True)
            status = max(status, int(not info.values))
    finally:
        executor.close()
    return status


def _read_input() -> str:
    return sys.stdin.buffer.read(MAX_TEXT_BYTES).decode("utf-8", "replace")


def _to_text(path: Path, info: PictureInfo) -> str:
    settings = [f"  {name}: {_show(value)}" for name, value in info.values.items()]
    notes = [f"  not used: {line}" for line in info.unmapped]
    return "\n".join([f"{path}: {info.program or 'no settings'}", *settings, *notes])


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
