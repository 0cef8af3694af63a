"""Files of wildcards: a text file is one wildcard, a line each; in YAML and JSON each list is one, by its keys.

As with dynamicprompts a wildcard is called by where its file lies, the lists in a file by its folder and their keys.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from webui.core.errors import show_some
from webui.core.names import fold
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.core.wildcards import Entry, Wildcard
from webui.library.scan import Scan
from webui.library.text_file import read_text

WILDCARD_FOLDERS = (
    "wildcards",
    "extensions/sd-dynamic-prompts/wildcards",
    "extensions/stable-diffusion-webui-wildcards/wildcards",
    "custom_nodes/comfyui-impact-pack/wildcards",
    "custom_nodes/comfyui-impact-pack/custom_wildcards",
    "custom_nodes/ComfyUI-Impact-Pack/wildcards",
    "custom_nodes/ComfyUI-Impact-Pack/custom_wildcards",
)
LISTS = {".yaml", ".yml", ".json"}
MAX_FILE_BYTES = 16 * 2**20
MAX_DEPTH = 20
MAX_WEIGHT = 1e6
_WEIGHTED = re.compile(r"(\d+\.?\d*|\.\d+)::(.*)", re.DOTALL)


def find_wildcards(settings: Settings, scan: Scan | None = None) -> dict[str, Wildcard]:
    """Every wildcard by name; ``scan`` notes what was read. What cannot be used says so where it is drawn."""
    scan = scan or Scan()
    found: dict[str, list[tuple[str, Wildcard]]] = {}
    for root in (settings.data_dir, *settings.models_dir):
        for top in WILDCARD_FOLDERS:
            for place, wildcard in _in_folder(root / top, scan):
                found.setdefault(fold(wildcard.name), []).append((place, wildcard))
    return {wildcard.name: wildcard for wildcard in map(_the_one, found.values())}


def _in_folder(root: Path, scan: Scan) -> Iterator[tuple[str, Wildcard]]:
    """The wildcards of a folder, each with where its file lies in it."""
    inside = root.resolve()
    for folder, _, names in scan.walk(root):
        for path in (folder / name for name in names):
            ending = path.suffix.lower()
            if ending != ".txt" and ending not in LISTS:
                continue
            place = path.relative_to(root)
            name = place.with_suffix("").as_posix()
            scan.note(path)
            if not path.resolve().is_relative_to(inside):
                leads_out = "is a link that leads out of the folder of wildcards; put the file itself there"
                yield place.as_posix(), Wildcard(name, partial(_refuse, leads_out))
            elif ending == ".txt":
                yield place.as_posix(), Wildcard(name, partial(_read_lines, path))
            else:
                for wildcard in _read_lists(path, place):
                    yield place.as_posix(), wildcard


def _the_one(named: list[tuple[str, Wildcard]]) -> Wildcard:
    """Of those with one name the first; where they are not the same, one that says so."""
    places, wildcards = zip(*named, strict=True)
    first: Wildcard = wildcards[0]
    if len(wildcards) == 1:
        return first
    try:
        if len({wildcard.entries for wildcard in wildcards}) == 1:
            return first
    except BadFile:
        pass
    return Wildcard(first.name, partial(_refuse, f"is there {len(named)} times: {show_some(places)}; keep one of them"))


def _refuse(reason: str) -> tuple[Entry, ...]:
    raise BadFile(reason)


def _read_lines(path: Path) -> Iterator[Entry]:
    for line in re.split(r"\r\n|\r|\n", read_text(path, MAX_FILE_BYTES)):
        if (line := line.strip()) and not line.startswith("#"):
            yield _entry(line)


def _read_lists(path: Path, place: Path) -> Iterator[Wildcard]:
    """The wildcards of a file; where it cannot be read, one by the file's name that says why."""
    above = place.parent.as_posix().removeprefix(".")
    name = place.with_suffix("").as_posix()
    try:
        text = read_text(path, MAX_FILE_BYTES)
        held = _read_json(text) if path.suffix.lower() == ".json" else _read_yaml(text)
        yield from [*_lists(held, above if isinstance(held, Mapping) else name)]
    except BadFile as error:
        yield Wildcard(name, partial(_refuse, str(error)))


def _lists(held: Any, name: str) -> Iterator[Wildcard]:
    if isinstance(held, Mapping):
        for key, value in held.items():
            yield from _lists(value, f"{name}/{key}".strip("/"))
    else:
        entries = tuple(_entries(held if isinstance(held, list) else [held]))
        yield Wildcard(name, lambda: entries)


def _entries(held: Iterable[Any]) -> Iterator[Entry]:
    for item in held:
        if isinstance(item, str) and item.strip():
            yield _entry(item.strip())
        elif isinstance(item, Mapping):
            text = item.get("text") or item.get("content")
            if not isinstance(text, str) or not text.strip():
                raise BadFile("has an entry without a text")
            yield _entry(f"{item['weight']}::{text.strip()}" if "weight" in item else text.strip())
        elif isinstance(item, list):
            raise BadFile("has a list within a list")


def _entry(text: str) -> Entry:
    """A text, with how often it comes before it: ``2::red``."""
    if not (weighted := _WEIGHTED.fullmatch(text)):
        return Entry(text)
    return Entry(weighted[2].strip(), min(float(weighted[1]), MAX_WEIGHT))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_keyed, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile("cannot be read as JSON") from None


def _read_yaml(text: str) -> Any:
    """Its mappings, lists and texts, all else as it is written: to YAML ``no`` would be false, and ``1.10`` a number.

    Raises BadFile for a key that stands twice, and for aliases, with which a small file can be endless.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stack: list[list[Any]] = [[]]
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise BadFile("has an alias (*), which is not read here")
            if isinstance(event, yaml.ScalarEvent):
                stack[-1].append("" if event.implicit[0] and event.value in ("~", "null") else event.value)
            elif isinstance(event, yaml.CollectionStartEvent):
                stack.append([])
            elif isinstance(event, yaml.CollectionEndEvent):
                items = stack.pop()
                pairs = zip(items[::2], items[1::2], strict=True)
                stack[-1].append(_keyed(pairs) if isinstance(event, yaml.MappingEndEvent) else items)
            if len(stack) > MAX_DEPTH:
                raise BadFile("is nested too deeply")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BadFile(f"cannot be read as YAML{where}") from None
    return stack[0][0] if len(stack[0]) == 1 else stack[0]


def _keyed(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise BadFile("has a key that is not text")
        if key in held:
            raise BadFile(f"has “{key[:60]}” twice")
        held[key] = value
    return held
