"""Headers of safetensors files, real and hostile: read, or refused with the reason."""

import itertools
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webui.core import tensor_file
from webui.core.tensor_file import MAX_TENSORS, BadFile, Header, hash_file, read_header

numbers = itertools.count()


def encode(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], end: int = 0) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


@pytest.fixture
def write(tmp_path: Path):
    """``write(content)``: a file of its own name, since a header is kept until its file's size or time changes."""

    def write(content: bytes, ending: str = ".safetensors") -> Path:
        path = tmp_path / f"{next(numbers)}{ending}"
        path.write_bytes(content)
        return path

    return write


def test_a_header_is_read_without_the_tensors(write):
    path = write(encode({"__metadata__": {"title": "Näme"}, "a.weight": entry([2, 3], 24), "b": entry([0])}, bytes(24)))
    assert read_header(path) == Header({"title": "Näme"}, {"a.weight": (2, 3), "b": (0,)})


def test_a_header_is_read_again_once_the_file_has_changed(write):
    path = write(encode({"a": entry([0])}))
    assert set(read_header(path).shapes) == {"a"}
    path.write_bytes(encode({"b": entry([0])}))
    os.utime(path, ns=(1, 1))
    assert set(read_header(path).shapes) == {"b"}


STARTS = {
    b"<!DOCTYPE html>\n<html><body>401</body></html>": "it is a web page; the download may need a login",
    b"\n  <HTML lang=en><body>401</body></html>": "it is a web page; the download may need a login",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n": (
        "it is a Git LFS pointer, a note of where the file is; get the file itself, with 'git lfs pull'"
    ),
    b'{"error": {"message": "not found"}}': (
        'it is JSON, maybe an error message of the download: {"error": {"message": "not found"}}'
    ),
    b'{"a":{}}': 'it is JSON, maybe an error message of the download: {"a":{}}',
    b'[\n{"type": "missing\x00"}]': 'it is JSON, maybe an error message of the download: [ {"type": "missing "}]',
    b"Invalid username or password.\n": (
        "it is text, maybe an error message of the download: Invalid username or password."
    ),
    b"<Error><Code>AccessDenied</Code></Error>": "it is a web page; the download may need a login",
    b"PK\x03\x04" + bytes(60): "it is a zip archive or a pickle",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "it is a pickle",
    b"\x89PNG\r\n\x1a\n": "it is a PNG picture",
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"{", "is not a safetensors file, whatever its name says"),
        (bytes(8), "is not a safetensors file, whatever its name says"),
        (struct.pack("<Q", 1) + b"{", "is not a safetensors file, whatever its name says"),
        (bytes(8) + b"{}", "is not a safetensors file, whatever its name says"),
        *((start, f"is not a safetensors file, whatever its name says: {seems}") for start, seems in STARTS.items()),
        (encode([]), "is not a safetensors file, whatever its name says"),
        (encode("{}"), "is not a safetensors file, whatever its name says"),
        (struct.pack("<Q", 2**63) + b"{}", "has a header of 8,796,093,022,208 MiB; 16 MiB are allowed"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "has a header of 17,592,186,044,416 MiB; 16 MiB are allowed"),
        (struct.pack("<Q", 100) + b"{}", "is cut short: it ends within its header"),
        (encode({"a": entry([2], 8)}, bytes(7)), "is cut short: it has 76 of 77 bytes"),
        (encode({"a": entry([2], 7)}, bytes(7)), "is damaged: 'a' has 7 bytes, and its shape needs others"),
        (encode({"a": entry([2**40], 0)}), "is damaged: 'a' has 0 bytes, and its shape needs others"),
        (encode({"a": entry([-2, -1], 8)}, bytes(8)), "is damaged: 'a' has 8 bytes, and its shape needs others"),
        (encode({"a": entry([2**64] * 300_000)}), "is damaged: 'a' has 0 bytes, and its shape needs others"),
        (encode(b"{]"), "is damaged: its header cannot be read"),
        (encode(b"{\xff\xff}"), "is damaged: its header cannot be read"),
        (encode(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "is damaged: its header cannot be read"),
        *((encode({"a": value}), "is damaged: its header cannot be read") for value in (1, None, [], {}, "x", True)),
        (encode({"a": {"shape": 3}}), "is damaged: its header cannot be read"),
        (encode({"a": {"shape": [1], "data_offsets": [0]}}), "is damaged: its header cannot be read"),
        (encode(b'{"a": {"shape": [1e999], "data_offsets": [0, 1]}}'), "is damaged: its header cannot be read"),
        (encode(b'{"a": {"shape": [1], "data_offsets": [0, 1e999]}}'), "is damaged: its header cannot be read"),
        (encode(b'{"a": {"shape": [NaN], "data_offsets": [0, 1]}}'), "is damaged: its header cannot be read"),
        (encode({"__metadata__": "x"}), "is damaged: its header cannot be read"),
        *((encode({"__metadata__": value}), "is damaged: its header cannot be read") for value in ([], 0, False, "")),
    ],
    ids=itertools.count(),
)
def test_what_is_no_safetensors_file_is_refused_with_the_reason(write, content, reason):
    with pytest.raises(BadFile) as caught:
        read_header(write(content))
    assert str(caught.value) == reason


def test_metadata_of_null_is_none(write):
    assert read_header(write(encode({"__metadata__": None, "a": entry([0])}))) == Header({}, {"a": (0,)})


def test_nested_metadata_is_text(write):
    header = read_header(write(encode({"__metadata__": {"a": {"b": [1]}, "n": 1, "none": None}})))
    assert header.metadata == {"a": "{'b': [1]}", "n": "1", "none": "None"}


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin", ".PT"])
def test_a_pickle_is_refused_without_a_look_at_it(write, ending):
    for path in (write(encode({}), ending), Path(f"/nowhere/x{ending}")):
        with pytest.raises(BadFile, match="is a pickle, and opening a pickle can run any program"):
            read_header(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "gone")
    for name in ("none", "folder", "dangling"):
        with pytest.raises(BadFile, match="cannot be read: |is not a safetensors file|is empty"):
            read_header(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(("count", "allowed"), [(MAX_TENSORS, True), (MAX_TENSORS + 1, False), (300_000, False)])
def test_the_number_of_tensors_is_bounded(write, count, allowed):
    # Short keys and offsets: 300,000 of them stay below the limit of a header's size.
    text = b"{" + b",".join(b'"%x":{"shape":[],"data_offsets":[0,0]}' % number for number in range(count)) + b"}"
    path = write(encode(text))
    if allowed:
        assert len(read_header(path).shapes) == count
    else:
        with pytest.raises(BadFile, match=f"has {count:,} tensors; 20,000 are allowed"):
            read_header(path)


def test_a_gguf_file_that_shrinks_while_it_is_read_is_refused(write):
    path = write(struct.pack("<4sIQQ", b"GGUF", 3, 1, 0))
    with pytest.raises(BadFile, match="was cut short while it was read"):
        tensor_file._read_header(path, 1000, 0)


def test_fifty_megabytes_of_metadata_are_refused_unread(write, monkeypatch):
    path = write(encode({"__metadata__": {"x": "y" * 50 * 2**20}}))
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was read"))
    with pytest.raises(BadFile, match="has a header of 50 MiB; 16 MiB are allowed"):
        read_header(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)
entries = values | st.fixed_dictionaries({"shape": values, "data_offsets": values})
headers = st.dictionaries(st.text(max_size=9) | st.just("__metadata__"), entries, max_size=4)


def read_or_refuse(path: Path) -> None:
    try:
        header = read_header(path)
    except BadFile as error:
        assert 0 < len(str(error)) < 6000 and "\n" not in str(error)
    else:
        assert all(isinstance(text, str) for text in header.metadata.values())
        assert all(isinstance(side, int) for shape in header.shapes.values() for side in shape)


@given(st.binary(max_size=99) | st.binary(max_size=99).map(lambda content: encode(b"{" + content)))
def test_any_bytes_are_read_or_refused(write, content):
    read_or_refuse(write(content))


@given(headers, st.binary(max_size=20))
@example({"a": {"shape": [float("inf")], "data_offsets": [0, 0]}}, b"")
def test_any_json_is_read_or_refused(write, header, data):
    read_or_refuse(write(encode(header, data)))


def test_one_hash_is_of_the_tensors_the_other_of_the_metadata_too(write):
    def content(title: str, data: bytes) -> bytes:
        return encode({"__metadata__": {"title": title}, "a": entry([2], 8)}, data)

    first, renamed, other = (
        hash_file(write(content(title, data * 8))) for title, data in (("x", b"1"), ("y", b"1"), ("x", b"2"))
    )
    assert first.tensors == renamed.tensors != other.tensors
    assert len({first.content, renamed.content, other.content}) == 3
    assert hash_file(write(content("x", b"1" * 8))) == first


def test_a_file_is_hashed_once_until_it_changes(write, monkeypatch):
    path = write(encode({"a": entry([2], 8)}, b"1" * 8))
    before = hash_file(path)
    stamp = path.stat().st_mtime_ns
    path.write_bytes(encode({"a": entry([2], 8)}, b"2" * 8))
    os.utime(path, ns=(stamp + 10**6, stamp + 10**6))
    after = hash_file(path)
    assert after != before
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was read again"))
    assert hash_file(path) == after


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 40])
def test_any_file_has_a_hash(write, content):
    assert len(hash_file(write(content)).content) == 64
