"""What people are told of a LoRA: from its metadata and from the files beside it, all of it a stranger's text."""

import base64
import itertools
import json
import os
import struct
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from webui.core.files import LoraFile
from webui.library.lora_info import MAX_PREVIEW_BYTES, MAX_WORDS, LoraInfo, describe, read_preview

PNG = b"\x89PNG\r\n\x1a\n"
numbers = itertools.count()


@pytest.fixture
def make_lora(tmp_path: Path):
    """``make_lora({metadata}, {ending: content beside it}, name)``: a file without tensors."""

    def make(metadata: object = None, beside: dict[str, object] | None = None, name: str = "a name") -> LoraFile:
        path = tmp_path / f"{name}.safetensors"
        header = json.dumps({} if metadata is None else {"__metadata__": metadata}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        for ending, content in (beside or {}).items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            path.with_name(name + ending).write_bytes(data)
        return LoraFile(name, path)

    return make


def test_what_the_metadata_says(make_lora):
    info = describe(
        make_lora(
            {
                "modelspec.title": " Chalk ",
                "modelspec.description": "Drawings",
                "modelspec.architecture": "stable-diffusion-v1/lora",
                "modelspec.trigger_phrase": "chalk style, dusty ,chalk style,",
                "ss_tag_frequency": '{"x": {"other": 9}}',
                "ss_base_model_version": "sd_v1",
                "modelspec.timestep_range": "0,400",
            }
        )
    )
    size_bytes = info.size_bytes
    assert size_bytes > 100
    assert info == LoraInfo(
        "a name", size_bytes, "Chalk", "Drawings", "stable-diffusion-v1/lora", ("chalk style", "dusty"), noise=(0, 400)
    )


def test_a_file_that_says_nothing_is_described_by_its_name(make_lora):
    info = describe(make_lora())
    assert info == LoraInfo("a name", info.size_bytes) and info.weight == 1.0 and not info.problem


def test_kohya_s_base_model_is_what_it_was_made_for(make_lora):
    assert describe(make_lora({"ss_base_model_version": "sdxl_base_v1-0"})).made_for == "sdxl_base_v1-0"


def test_without_a_trigger_phrase_the_most_frequent_tags_are_offered(make_lora):
    counts = {"1_a": {"red": 3, "blue": 5, "x": 1}, "2_b": {"red": 3, " green ": 4, "y": 1, "z": 1, "w": 1}}
    info = describe(make_lora({"ss_tag_frequency": json.dumps(counts)}))
    assert info.trigger_words[:3] == ("red", "blue", "green") and len(info.trigger_words) == 6


@pytest.mark.parametrize(
    ("beside", "words", "weight", "description"),
    [
        ({".json": {"activation text": "a, b", "preferred weight": 0.6, "description": "d"}}, ("a", "b"), 0.6, "d"),
        ({".civitai.info": {"trainedWords": ["a, b", "c"], "description": "e"}}, ("a", "b", "c"), 1.0, "e"),
        ({".json": {"activation text": "a"}, ".civitai.info": {"trainedWords": ["b", "a"]}}, ("a", "b"), 1.0, ""),
        ({".json": {"preferred weight": -0.5}}, ("own",), -0.5, ""),
        ({".json": {"preferred weight": 0}}, ("own",), 1.0, ""),  # A1111 writes 0 for none
        ({".json": {"activation text": " , "}}, ("own",), 1.0, ""),
    ],
)
def test_what_is_written_beside_the_file_counts_first(make_lora, beside, words, weight, description):
    info = describe(make_lora({"modelspec.trigger_phrase": "own"}, beside))
    assert (info.trigger_words, info.weight, info.description) == (words, weight, description)


def test_notes_of_another_file_are_not_taken(make_lora):
    other = make_lora({}, {".json": {"activation text": "x"}, ".png": PNG}, name="other")
    assert describe(other).trigger_words == ("x",) and describe(other).has_preview
    info = describe(make_lora())
    assert info.trigger_words == () and not info.has_preview


@pytest.mark.parametrize(
    ("ending", "media_type"),
    [(".png", "image/png"), (".preview.png", "image/png"), (".jpg", "image/jpeg"), (".jpeg", "image/jpeg")]
    + [(".preview.webp", "image/webp")],
)
def test_a_picture_beside_the_file_is_its_preview(make_lora, ending, media_type):
    file = make_lora({"modelspec.thumbnail": "data:image/jpeg;base64,AAAA"}, {ending: PNG})
    assert describe(file).has_preview and read_preview(file) == (PNG, media_type)


def test_of_two_pictures_the_one_called_preview_is_taken(make_lora):
    assert read_preview(make_lora({}, {".png": b"1", ".preview.jpg": b"2"})) == (b"2", "image/jpeg")


def test_a_picture_in_the_metadata_is_the_preview(make_lora):
    file = make_lora({"modelspec.thumbnail": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"})
    assert describe(file).has_preview and read_preview(file) == (PNG, "image/png")


@pytest.mark.parametrize(
    "thumbnail",
    ["", "data:", "data:image/png;base64,@@@", "data:image/png;base64,A", "data:image/png;base64,é", "AAAA"]
    + ["data:image/svg+xml;base64,PHN2Zz4=", "data:text/html;base64,PGh0bWw+", "http://localhost/x.png", "\ud800"],
)
def test_anything_else_there_is_no_picture(make_lora, thumbnail):
    assert read_preview(make_lora({"modelspec.thumbnail": thumbnail})) is None


def test_pictures_that_are_empty_too_large_or_none_are_passed_over(make_lora):
    file = make_lora({}, {".preview.png": b"", ".preview.jpg": bytes(MAX_PREVIEW_BYTES + 1), ".svg": b"<svg/>"})
    file.path.with_name("a name.png").mkdir()
    assert read_preview(file) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"<html>", "is not a safetensors file, whatever its name says: it is a web page"), (b"", "is empty")],
)
def test_a_broken_file_is_listed_with_the_reason(make_lora, content, problem):
    file = make_lora({}, {".json": {"activation text": "x"}})
    file.path.write_bytes(content)
    assert describe(file).problem.startswith(f"a name.safetensors {problem}")
    assert describe(file) == LoraInfo("a name", problem=describe(file).problem)
    file.path.unlink()  # where it was is nobody's business
    assert describe(file).problem == "a name.safetensors cannot be read: No such file or directory"
    assert read_preview(file) is None


def test_a_pickle_is_listed_with_the_reason(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02")
    assert describe(LoraFile("x", tmp_path / "x.ckpt")).problem.startswith("x.ckpt is a pickle, and opening")


def test_a_file_written_anew_is_described_anew(make_lora):
    assert describe(make_lora({"modelspec.title": "One"})).title == "One"
    file = make_lora({"modelspec.title": "Two"})
    os.utime(file.path, ns=(1, 1))
    assert describe(file).title == "Two"


def check_shown(file: LoraFile) -> None:
    """It is described in texts of bounded length that can be sent to a browser."""
    info = describe(file)
    read_preview(file)
    assert not info.problem
    assert len(json.dumps(asdict(info), ensure_ascii=False).encode("utf-8")) < 20_000
    assert 0 < abs(info.weight) <= 10 and len(info.trigger_words) <= MAX_WORDS


HOSTILE = [
    "<script>alert(1)</script>", "\0\0", "x" * 10**6, "\ud800", "💥" * 10**4, ",".join(map(str, range(10**5))),
    "[" * 10**5, "{", "null", "[]", "7", '{"a": 1}', '{"a": null}', '{"a": {"x": 1e999}}', '{"a": {"x": NaN}}',
    '{"a": {"x": "y"}}',
    '{"a": {"\\ud800": 1}}', '{"a": {"x": [1]}}', '{"a": [["x", 1]]}', '{"a": {"": 5, " ": 6}}',
]  # fmt: skip
KEYS = ["modelspec.title", "modelspec.description", "modelspec.architecture", "modelspec.trigger_phrase"]
KEYS += ["modelspec.thumbnail", "ss_tag_frequency", "ss_base_model_version"]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_metadata_is_text_like_any_other(make_lora, value):
    check_shown(make_lora(dict.fromkeys(KEYS, value), name=f"hostile {next(numbers)}"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10**5, b"{}" + b" " * 2**21, b'{"preferred weight": 1e999}']
    + [b'{"preferred weight": NaN, "description": 5}', b'{"preferred weight": "0.5", "trainedWords": "x"}']
    + [b'{"preferred weight": 1%s}' % (b"0" * 400), b'{"activation text": ["x"], "trainedWords": [1, null, {}]}']
    + [b'{"activation text": "\\ud800", "trainedWords": ["\\u0000"], "description": "\\udfff"}'],
)
@pytest.mark.parametrize("ending", [".json", ".civitai.info"])
def test_hostile_notes_are_passed_over(make_lora, content, ending):
    file = make_lora({"modelspec.trigger_phrase": "own"}, {ending: content}, name=f"notes {next(numbers)}")
    check_shown(file)
    assert describe(file).weight == 1.0


texts = st.text(max_size=30) | st.sampled_from(HOSTILE[-12:])
notes = st.dictionaries(
    st.sampled_from(["activation text", "preferred weight", "description", "trainedWords"]),
    texts | st.floats() | st.integers() | st.none() | st.lists(texts | st.integers(), max_size=3),
)


@given(st.dictionaries(st.sampled_from(KEYS), texts), notes)
def test_any_metadata_and_notes_are_described(make_lora, metadata, beside):
    check_shown(make_lora(metadata, {".json": beside}, name=f"any {next(numbers)}"))


def test_three_hundred_thousand_tags_are_counted_in_seconds(make_lora):
    tags = json.dumps({"x": {f"tag {number}": number for number in range(300_000)}})
    file = make_lora({"ss_tag_frequency": tags})
    start = time.thread_time()
    assert describe(file).trigger_words[0] == "tag 299999"
    assert time.thread_time() - start < 10  # about half a second


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (
            {"emb_params": (4, 768)},
            "x.safetensors is an embedding; it belongs in the folder for embeddings",
        ),
        (
            {"lora_unet_double_stream_blocks_8_block_attn1_to_q.lora_up.weight": (2, 2)},
            "x.safetensors is a LoRA for HiDream; SD 1.x",
        ),
        ({"lora_unet_conv_in.lora_up.weight": (2, 2)}, ""),
        ({"something": (2,)}, ""),
    ],
)
def test_what_is_no_lora_of_ours_is_listed_with_what_it_is(tmp_path, shapes, problem):
    path = tmp_path / "x.safetensors"
    save_file({key: np.zeros(shape, "f4") for key, shape in shapes.items()}, path)
    found = describe(LoraFile("x", path)).problem
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_the_words_of_embeddings_in_the_file_are_its_trigger_words(tmp_path):
    keys = ("bundle_emb.zorb.clip_l", "bundle_emb.zorb.clip_g", "bundle_emb.<s0>.emb_params", "bundle_emb.a.b.clip_l")
    save_file({key: np.zeros((2, 3), "f4") for key in keys}, tmp_path / "x.safetensors")
    assert describe(LoraFile("x", tmp_path / "x.safetensors")).trigger_words == ("<s0>", "zorb")
