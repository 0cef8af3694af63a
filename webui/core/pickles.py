"""What is in a pickle, read without running it: what torch saves is one, and opening a pickle runs what it names."""

import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from webui.core.tensor_file import BadFile

MAX_PICKLE_BYTES = 64 * 2**20  # the numbers themselves are not in it
MAX_OPERATIONS = 2_000_000
LEGACY_PICKLES = 4  # of torch before 1.6: magic number, version, system, then what was saved
_WEIGHTS = re.compile(
    r"collections\.OrderedDict|torch\.\w+Storage|torch\.storage\.\w+Storage|torch\.Size|torch\.(device|nn\.Parameter)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.(float16|float32|float64|bfloat16|int32|int64)"
)
"""What weights are made of; torch's own reader takes little more."""


@dataclass(frozen=True)
class Pickle:
    """``names`` are the functions and classes that opening it would run, ``texts`` all texts in it."""

    names: frozenset[str]
    texts: frozenset[str]

    @property
    def foreign(self) -> list[str]:
        """Those of the names that no weights need."""
        return sorted(name for name in self.names if not _WEIGHTS.fullmatch(name))


def read_pickle(path: Path) -> Pickle:
    """What a file that torch saved names; kept until it changes. Raises BadFile."""
    try:
        stat = path.stat()
        return _read_pickle(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=64)
def _read_pickle(path: Path, _size_bytes: int, _mtime_ns: int) -> Pickle:
    names: set[str] = set()
    texts: set[str] = set()
    last = ["?", "?"]
    try:
        for count, (opcode, argument, _) in enumerate(_operations(path)):
            if count > MAX_OPERATIONS:
                raise BadFile("has far too much in it to be weights")
            if opcode.name in ("GLOBAL", "INST"):
                names.add(str(argument).replace("__builtin__", "builtins").replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(last))
            elif isinstance(argument, str):
                texts.add(argument)
                last = [last[1], argument]
    except BadFile:
        raise
    except (ValueError, IndexError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError, KeyError):
        raise BadFile("is not a file of weights that torch saved, or is damaged") from None
    return Pickle(frozenset(names), frozenset(texts))


def _operations(path: Path) -> Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for number in range(LEGACY_PICKLES):
                if number and not file.peek(1):
                    return
                yield from pickletools.genops(file)
        return
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        if len(entries) != 1 or entries[0].file_size > MAX_PICKLE_BYTES:
            raise BadFile("is not a file of weights that torch saved")
        yield from pickletools.genops(archive.read(entries[0]))


def check_weights_alone(path: Path) -> Iterable[str]:
    """All texts in a file of weights that torch saved; BadFile where it would run anything but what weights need."""
    found = read_pickle(path)
    if foreign := found.foreign:
        raise BadFile(f"holds code and is not opened: it would run {foreign[0][:80]}; only weights are read")
    return found.texts
