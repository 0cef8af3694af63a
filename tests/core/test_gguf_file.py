"""The header of a GGUF file: what is read of it, and that no file, however broken, is more than an error."""

import struct

import gguf
import numpy as np
import pytest

from webui.core import gguf_file
from webui.core.file_kinds import recognize
from webui.core.tensor_file import BadFile, parse_gguf_header, read_header


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def note(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, sides: list[int], kind: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, offset)


def encode(tensors=(), notes=(), version=3, counts=None, body=0) -> bytes:
    counts = counts or (len(tensors), len(notes))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(notes) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + body)


@pytest.fixture
def read(tmp_path):
    """The header of a file with these bytes, under a name that says something else."""

    def read(content: bytes):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        return read_header(path)

    return read


def test_the_types_are_ggml_s_own():
    for kind in gguf.GGMLQuantizationType:
        assert gguf_file._TYPES[kind.value] == kind.name
    for name, block in gguf_file.BLOCKS.items():
        assert (block.numbers, block.nbytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    assert gguf_file._SCALARS.keys() | {8, 9} == {kind.value for kind in gguf.GGUFValueType}


def test_what_gguf_writes_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "sdxl")
    writer.add_array("tokens", [f"word {number}" for number in range(40_000)])  # a header of more than one read
    writer.add_array("comfy.gguf.orig_shape.conv.weight", [64, 4, 3, 3])
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.add_tensor("plain", plain)
    blocks = gguf.quants.quantize(np.random.randn(9, 256).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("conv.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    header = read_header(tmp_path / "x.gguf")
    assert header.shapes == {"plain": (3, 4), "conv.weight": (64, 4, 3, 3)}
    assert header.metadata["general.architecture"] == "sdxl" and "tokens" not in header.metadata
    content = (tmp_path / "x.gguf").read_bytes()
    place = header.places["conv.weight"]
    assert place.dtype == "Q8_0" and content[place.offset : place.offset + place.nbytes] == blocks.tobytes()
    place = header.places["plain"]
    assert place.dtype == "F32" and content[place.offset : place.offset + place.nbytes] == plain.tobytes()


ONE = tensor("a", [32, 2], 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF", "is cut short: it ends within its header"),
        (encode([ONE])[:40], "is cut short: it ends within its header"),
        (encode([ONE], body=67), "is cut short: it has 163 of 164 bytes"),
        (encode(version=1), "is damaged: its header is of another version than 2 and 3"),
        (encode(version=0x03000000), "is damaged: its header is of another version than 2 and 3"),
        (
            encode(counts=(2**60, 0)),
            "is damaged: its header is of 1,152,921,504,606,846,976 tensors and 0 notes, which",
        ),
        (
            encode([tensor("a", [31], 8)]),
            "is damaged: its header is wrong at 'a': it has rows of 31 numbers in blocks of",
        ),
        (
            encode([tensor("a", [128], 12)]),
            "is damaged: its header is wrong at 'a': it has rows of 128 numbers in blocks",
        ),
        (encode([tensor("a", [2] * 5, 0)]), "is damaged: its header is wrong at 'a': it is there twice or has 5 sides"),
        (encode([ONE, ONE], body=200), "is damaged: its header is wrong at 'a': it is there twice or has 2 sides"),
        (encode([tensor("a", [256], 23)]), "has weights as IQ4_XS, which is not known here; get it as Q8_0, Q6_K or"),
        (encode([tensor("a", [64], 40)]), "has weights as NVFP4, which is not known here"),
        (encode([tensor("a", [64], 99)]), "has weights as type 99, which is not known here"),
        (encode(notes=[note("x", 77, b"")]), "is damaged: its header is of a note of the type 77, which is not known"),
        (encode(notes=[note("x", 9, struct.pack("<IQ", 4, 2**50))]), "is damaged: its header is of a list of"),
        (
            encode(notes=[note("x", 9, struct.pack("<IQ", 9, 1))]),
            "is damaged: its header is of a list of 1 of the type 9",
        ),
        (encode(notes=[struct.pack("<Q", 2**40)]), "is damaged: its header is of a text of 1,099,511,627,776 bytes"),
        (
            encode(notes=[note("general.alignment", 4, struct.pack("<I", 3))]),
            "is damaged: its header is of an alignment that is not a power of two",
        ),
        (
            encode([ONE], [note("comfy.gguf.orig_shape.a", 9, struct.pack("<IQ2i", 5, 2, 3, 3))], body=68),
            "is damaged: its header is wrong at 'a': it has 64 numbers, and a shape of 9",
        ),
        (
            encode([ONE], [note("comfy.gguf.orig_shape.a", 9, struct.pack("<IQ2i", 5, 2, -8, -8))], body=68),
            "is damaged: its header is wrong at 'a': it has a note of a shape that is none",
        ),
        (
            encode([ONE], [note("comfy.gguf.orig_shape.a", 9, struct.pack("<IQ", 10, 300_000) + b"\xff" * 2_400_000)]),
            "is damaged: its header is wrong at 'a': it has a note of a shape that is none",
        ),
        (
            encode([ONE], [note("comfy.gguf.orig_shape.a", 8, text("8x8"))], body=68),
            "is damaged: its header is wrong at",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(read, content, reason):
    with pytest.raises(BadFile) as caught:
        read(content)
    assert str(caught.value).startswith(reason)


def test_no_damage_is_more_than_an_error():
    """Every cut, and many changed bytes."""
    notes = [note("general.architecture", 8, text("sdxl")), note("n", 9, struct.pack("<IQ2i", 5, 2, 1, 2))]
    whole = encode([ONE, tensor("b", [256, 2], 12, 96)], notes, body=96 + 288)
    assert parse_gguf_header(whole, len(whole)) is not None
    dice = np.random.default_rng(0)
    broken = [whole[:cut] for cut in range(4, len(whole) - 400)]
    for _ in range(3_000):
        content = bytearray(whole)
        for at in dice.integers(4, len(whole) - 380, dice.integers(1, 4)):
            content[at] = dice.integers(256)
        broken.append(bytes(content))
    refused = 0
    for content in broken:
        try:
            header = parse_gguf_header(content, len(content))
            assert header is not None
            recognize(header.shapes)
        except BadFile:
            refused += 1
    assert refused > len(whole) - 400
