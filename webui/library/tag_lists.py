"""Lists of tags in the CSV of a1111-sd-webui-tagcomplete: name, category, how often it is used, "aliases, of, it"."""

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.core.words import Tag, TagList
from webui.library.scan import Scan
from webui.library.text_file import read_text

FOLDER = "tags"
MAX_FILE_BYTES = 32 * 2**20
MAX_TAGS = 500_000
MAX_CHARACTERS = 200  # of a tag
MAX_ALIASES = 64


def find_tag_lists(settings: Settings, scan: Scan | None = None) -> dict[str, TagList]:
    """Every list by name; ``scan`` notes what was read. One that cannot be used says so when it is read."""
    scan = scan or Scan()
    found: dict[str, TagList] = {}
    for root in (settings.data_dir / FOLDER, *(models / FOLDER for models in settings.models_dir)):
        inside = root.resolve()
        for folder, _, names in scan.walk(root):
            for path in (folder / name for name in names if name.lower().endswith(".csv")):
                scan.note(path)
                name = path.relative_to(root).with_suffix("").as_posix()
                read = read_tags if path.resolve().is_relative_to(inside) else _refuse
                found.setdefault(name, TagList(name, _version(path), partial(read, path)))
    return found


def read_tags(path: Path) -> Iterator[Tag]:
    """Its tags in the order of their lines; raises BadFile. Names of columns in the first line are no tag."""
    rows = csv.reader(io.StringIO(read_text(path, MAX_FILE_BYTES), newline=""))
    count = line = 0
    try:
        for row in rows:
            first, line = line + 1, rows.line_num
            if line > first:
                raise BadFile(f"has a quote in line {first} that is never closed there")
            cells = [" ".join(cell.split()) for cell in (*row[:3], *([",".join(row[3:])] if row[3:] else []))]
            if not cells or not cells[0] or first == 1 and _is_heading(cells):
                continue
            count += 1
            if count > MAX_TAGS:
                raise BadFile(f"has more than {MAX_TAGS:,} tags")
            yield _tag(first, *cells)
    except csv.Error as error:
        raise BadFile(f"cannot be read as CSV, line {line + 1}: {error}") from None
    if not count:
        raise BadFile("has no tags")


def _tag(line: int, name: str, category: str = "", note: str = "", aliases: str = "") -> Tag:
    if len(name) > MAX_CHARACTERS:
        raise BadFile(f"has a tag of {len(name):,} characters in line {line}; {MAX_CHARACTERS} are the most")
    others = [alias for alias in map(str.strip, aliases.split(",")) if 0 < len(alias) <= MAX_CHARACTERS]
    number = int(category) if category.removeprefix("-").isdecimal() and len(category) < 4 else 0
    return Tag(name, number, note[:MAX_CHARACTERS], tuple(others[:MAX_ALIASES]))


def _is_heading(cells: list[str]) -> bool:
    """Whether these are the names of columns: no number where each tag has its category."""
    return len(cells) > 1 and bool(cells[1]) and not cells[1].removeprefix("-").isdecimal()


def _version(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_mtime_ns:x}-{state.st_size:x}"


def _refuse(_path: Path) -> Iterator[Tag]:
    raise BadFile("is a link that leads out of the folder of tags; put the file itself there")
