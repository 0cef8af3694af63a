"""What an ONNX file says of itself, read without running it: what goes in and comes out, its operators, its notes.

Format: protobuf, of which the fields below are read by their numbers in ``onnx.proto3`` of the ONNX project. Weights
are passed over, so the time goes with the number of tensors and not with their size.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from webui.core.first_bytes import recognize_bytes
from webui.core.tensor_file import BadFile

MAX_ONNX_BYTES = 2**31
MAX_FIELDS = 300_000
MAX_DEPTH = 8
"""Of graphs within graphs."""
MAX_NOTE_CHARACTERS = 2_000
OWN_DOMAINS = ("", "ai.onnx")
LOOPS = ("Loop", "Scan")
IS_ELSEWHERE = 1
"""Of a tensor whose numbers are in another file."""
# Numbers of fields, by the message that has them.
MODEL_GRAPH, MODEL_NOTES, MODEL_FUNCTIONS = 7, 14, 25
GRAPH_NODE, GRAPH_TENSOR, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE = 1, 5, 11, 12, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = 5, 6, 10, 11, (22, 23)
FUNCTION_NODE = 7
TENSOR_NAME, TENSOR_ELSEWHERE, TENSOR_PLACE = 8, 13, 14

Span = range
"""Where the bytes of a field are in the file."""
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Port:
    """An input or output: ONNX's number of its type (1 float, 10 half), and its shape with None for what is free.

    The shape itself is None where the file does not say it.
    """

    name: str
    dtype: int
    shape: Shape | None


@dataclass(frozen=True)
class OnnxFile:
    """``foreign`` are operators that are not ONNX's own, ``elsewhere`` the names of further files with its numbers,
    ``loops`` its operators that may go round for ever."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()


def read_onnx(path: Path) -> OnnxFile:
    """What the file says, kept until it changes; raises BadFile."""
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror or error}") from None


def read_safe(path: Path) -> OnnxFile:
    """The same for a file that is to be run; BadFile for one whose numbers are in other files, with operators that are
    not ONNX's own, or with loops."""
    found = read_onnx(path)
    if found.elsewhere:
        raise BadFile(
            f"keeps its numbers in another file, {found.elsewhere[0][:80]!r}, which is not opened: export it whole"
        )
    if found.foreign:
        raise BadFile(f"uses an operator that is not ONNX's own, {found.foreign[0][:80]!r}, and is not run")
    if found.loops:
        raise BadFile(f"has a loop ({found.loops[0]}), which may have no end, and is not run")
    return found


@lru_cache(maxsize=64)
def _read(path: Path, size_bytes: int, _mtime_ns: int) -> OnnxFile:
    if size_bytes == 0:
        raise BadFile("is empty")
    if size_bytes > MAX_ONNX_BYTES:
        raise BadFile(f"has {size_bytes / 2**30:.1f} GiB; {MAX_ONNX_BYTES // 2**30} are allowed")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _Reader(data).model()
        except (ValueError, IndexError):
            seems = recognize_bytes(data[:200])
            raise BadFile(f"is not an ONNX file{f': {seems}' if seems else ', or is damaged'}") from None
    if found is None:
        raise BadFile("is not an ONNX file: it holds no network")
    return found


class _Reader:
    """One look at a file; raises ValueError for what is no protobuf or has too much in it."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._fields = data, 0
        self._foreign: dict[str, None] = {}
        self._elsewhere: dict[str, None] = {}
        self._loops: dict[str, None] = {}

    def model(self) -> OnnxFile | None:
        """What the file says; None where there is no network in it."""
        notes: dict[str, str] = {}
        ports: tuple[tuple[Port, ...], tuple[Port, ...]] | None = None
        for number, value in self._split(range(len(self._data))):
            if number == MODEL_GRAPH:
                ports = self._graph(_span(value), MAX_DEPTH)
            elif number == MODEL_NOTES:
                name, text = self._texts(_span(value))
                notes[name] = text
            elif number == MODEL_FUNCTIONS:
                for inner, node in self._split(_span(value)):
                    if inner == FUNCTION_NODE:
                        self._node(_span(node), MAX_DEPTH)
        if ports is None:
            return None
        return OnnxFile(*ports, notes, tuple(self._foreign), tuple(self._elsewhere), tuple(self._loops))

    def _graph(self, span: Span, depth: int) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        if not depth:
            raise ValueError
        inputs, outputs, tensors = [], [], set()
        for number, value in self._split(span):
            if number == GRAPH_NODE:
                self._node(_span(value), depth)
            elif number == GRAPH_TENSOR:
                tensors.add(self._tensor(_span(value)))
            elif number == GRAPH_SPARSE:
                self._sparse(_span(value))
            elif number == GRAPH_INPUT:
                inputs.append(self._port(_span(value)))
            elif number == GRAPH_OUTPUT:
                outputs.append(self._port(_span(value)))
        return tuple(port for port in inputs if port.name not in tensors), tuple(outputs)

    def _node(self, span: Span, depth: int) -> None:
        operator = domain = ""
        for number, value in self._split(span):
            if number == NODE_OPERATOR:
                operator = self._text(value)
            elif number == NODE_DOMAIN:
                domain = self._text(value)
            elif number == NODE_ATTRIBUTE:
                for inner, held in self._split(_span(value)):
                    if inner in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                        self._tensor(_span(held))
                    elif inner in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                        self._graph(_span(held), depth - 1)
                    elif inner in ATTRIBUTE_SPARSE:
                        self._sparse(_span(held))
        if domain not in OWN_DOMAINS:
            self._foreign[f"{domain}.{operator}"] = None
        elif operator in LOOPS:
            self._loops[operator] = None

    def _tensor(self, span: Span) -> str:
        """Its name; where its numbers are in another file, that one is noted."""
        name, elsewhere, place = "", False, ""
        for number, value in self._split(span):
            if number == TENSOR_NAME:
                name = self._text(value)
            elif number == TENSOR_PLACE:
                elsewhere |= value == IS_ELSEWHERE
            elif number == TENSOR_ELSEWHERE:
                key, text = self._texts(_span(value))
                elsewhere, place = True, text if key == "location" else place
        if elsewhere:
            self._elsewhere[place or "?"] = None
        return name

    def _sparse(self, span: Span) -> None:
        for number, value in self._split(span):
            if number in (1, 2):  # its values, and where they are
                self._tensor(_span(value))

    def _port(self, span: Span) -> Port:
        """ValueInfoProto: a name, and behind it TypeProto, its Tensor, TensorShapeProto, Dimension."""
        name, dtype, shape = "", 0, None
        for number, value in self._split(span):
            if number == 1:
                name = self._text(value)
            elif number == 2:
                for inner in (held for kind, held in self._split(_span(value)) if kind == 1):
                    for part, held in self._split(_span(inner)):
                        if part == 1:
                            dtype = _whole(held)
                        elif part == 2:
                            sides = (side for kind, side in self._split(_span(held)) if kind == 1)
                            shape = tuple(self._side(_span(side)) for side in sides)
        return Port(name, dtype, shape)

    def _side(self, span: Span) -> int | None:
        """A number from 1 on; None for one that is free, or that says nothing."""
        return next((_whole(value) or None for number, value in self._split(span) if number == 1), None)

    def _texts(self, span: Span) -> tuple[str, str]:
        """StringStringEntryProto."""
        held = {number: self._text(value) for number, value in self._split(span) if number in (1, 2)}
        return held.get(1, ""), held.get(2, "")

    def _split(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """A message's fields: numbers as they are, of all else where its bytes are."""
        at = span.start
        while at < span.stop:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError
            key, at = self._number(at)
            wire = key & 7
            if wire == 0:
                value, at = self._number(at)
                yield key >> 3, value
                continue
            if wire == 2:
                length, at = self._number(at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ValueError
            if length > span.stop - at:
                raise ValueError
            yield key >> 3, range(at, at + length)
            at += length

    def _number(self, at: int) -> tuple[int, int]:
        """A number of seven bits a byte, the lowest first, and where it ends."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self._data[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number, at
        raise ValueError

    def _text(self, value: int | Span) -> str:
        span = _span(value)[: 4 * MAX_NOTE_CHARACTERS]
        return self._data[span.start : span.stop].decode("utf-8", "replace")[:MAX_NOTE_CHARACTERS]


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise ValueError
    return value


def _whole(value: int | Span) -> int:
    if isinstance(value, int) and value < 2**31:
        return value
    raise ValueError
