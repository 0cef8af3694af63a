"""Prompts as chunks of token ids: the ids are transformers' own, the cuts are A1111's."""

import gzip
import json
import random
import shutil
from itertools import chain
from pathlib import Path

import pytest
from checkpoints import WORDS
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from webui.core.errors import RequestError
from webui.core.prompt import parse_weights
from webui.engine import tokens
from webui.engine.tokens import Tokenizer, count_tokens, split_chunks
from webui.library.library import DEMO_MODEL

START, END, COMMA, CAT, DOG = 49406, 49407, 267, 2368, 1929
MERGES = Path(tokens.__file__).parent / "clip_vocabulary" / "merges.txt.gz"
PIECES = [
    *"abzAZ019 ,.!?-_'\"()[]:;/\\|<>&@#%*+=~^$\t\n\r\x0b\u00a0\u2003\u3000",
    *"éÉßñøÅİıſﬁǅΣςЖж中文字日本かなカナ한글עבריתعربيहिन्दीไทย",
    *"🍎😀👩‍👩‍👧🏳️‍🌈½²٣Ⅷ①—–…“”’«»°™©€£\u0301\u200b\u200d\ufeff\x00\x7f",
    *("don't", "I'm", "we're", "they've", "she'll", "he'd", "it's", "'S", "Photo", "ASTRONAUT", "1girl", "2023", "  "),
    *("masterpiece", "unreal engine 5", "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "</w>", "e\u0301"),
]


@pytest.fixture(scope="session")
def clip() -> Tokenizer:
    return Tokenizer.clip()


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """The shipped vocabulary as a model's ``tokenizer`` folder has it."""
    folder = tmp_path_factory.mktemp("clip")
    merges = gzip.decompress(MERGES.read_bytes()).decode("utf-8").split("\n")[:-1]
    assert len(merges) == 48_894
    shown = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    letters = [chr(byte) for byte in sorted(shown)] + [chr(256 + k) for k in range(256 - len(shown))]
    words = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    assert len(vocabulary) == 49_408
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    write_settings(folder, "tokenizer_config.json", tokenizer_class="CLIPTokenizer", model_max_length=77)
    return folder


def write_settings(folder: Path, file: str, **settings: object) -> None:
    (folder / file).write_text(json.dumps(settings), "utf-8")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        (" \n ", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a diagram", [320, 22697]),
        ("Hello World!", [3306, 1002, 256]),
        ("a photo of an astronaut riding a horse on mars", [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496]),
        ("a photograph of an astronaut riding a horse", [320, 8853, 539, 550, 18376, 6765, 320, 4558]),
    ],
)
def test_ids_are_the_published_ones(clip, text, ids):
    assert clip.ids(text) == ids


def test_clips_own_numbers(clip):
    assert (clip.start, clip.end, clip.pad, clip.length, clip.comma) == (START, END, END, 77, COMMA)
    assert Tokenizer.clip(pad=0).pad == 0


def test_ids_are_those_of_transformers(clip, clip_folder):
    demo_folder = DEMO_MODEL / "tokenizer"
    pairs = [
        (clip, CLIPTokenizer.from_pretrained(clip_folder)),
        (Tokenizer.from_folder(clip_folder), CLIPTokenizer.from_pretrained(clip_folder)),
        (Tokenizer.from_folder(demo_folder), CLIPTokenizer.from_pretrained(demo_folder)),
    ]
    dice = random.Random(5)
    texts = ["".join(dice.choices(PIECES, k=dice.randint(0, 40))) for _ in range(400)]
    texts += ["".join(chr(dice.choice([dice.randrange(0xD800), dice.randrange(0xE000, 0x110000)])) for _ in range(30))]
    texts += [*PIECES, "a red apple, flat style, on a blue background", "x" * 500, "日" * 100, "1234567890" * 20]
    for ours, theirs in pairs:
        for text in texts:
            assert ours.ids(text) == theirs(text, add_special_tokens=False).input_ids, ascii(text)


@pytest.mark.parametrize("left_out", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_folder_may_hold_either_form_of_the_vocabulary(tmp_path, left_out):
    folder = shutil.copytree(DEMO_MODEL / "tokenizer", tmp_path / "tokenizer")
    for name in left_out:
        (folder / name).unlink()
    whole, part = Tokenizer.from_folder(DEMO_MODEL / "tokenizer"), Tokenizer.from_folder(folder)
    text = "a red Apple, flat style: 1 é"
    assert part.ids(text) == whole.ids(text) != []
    assert (part.start, part.end, part.pad, part.length) == (WORDS - 2, WORDS - 1, WORDS - 1, 77)


def test_special_tokens_may_be_objects_and_the_map_of_them_comes_first(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "tokenizer")
    start, end = {"__type": "AddedToken", "content": "<|startoftext|>", "normalized": True}, "<|endoftext|>"
    write_settings(folder, "tokenizer_config.json", bos_token=start, pad_token=end, model_max_length=1e30)
    write_settings(folder, "special_tokens_map.json", pad_token="!", eos_token={"content": "<|endoftext|>"})
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.start, tokenizer.end, tokenizer.pad, tokenizer.length) == (START, END, 0, 77)
    assert tokenizer.ids("wow!") == [*tokenizer.ids("wow"), 256]  # a mark in the text is no padding


def test_a_folder_without_settings_is_plain_clip(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.start, tokenizer.end, tokenizer.pad, tokenizer.length) == (START, END, END, 77)


def test_tokens_added_to_the_vocabulary_are_found(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "tokenizer")
    write_settings(folder, "added_tokens.json", **{"<cat-toy>": 49408, "!": 0})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.ids("a <cat-toy>!") == [320, 49408, 256]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "no json"),
        ("tokenizer.json", "[1]"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}}'),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": ["a b"]}}'),
        ("tokenizer_config.json", '{"bos_token": "<start>"}'),
        ("tokenizer_config.json", '{"pad_token": 5}'),
        ("tokenizer_config.json", '{"pad_token": {}, "eos_token": {"text": 1}}'),
    ],
)
def test_a_broken_folder_is_refused(tmp_path, file, content):
    folder = shutil.copytree(DEMO_MODEL / "tokenizer", tmp_path / "tokenizer")
    (folder / file).write_text(content)
    with pytest.raises(ValueError):
        Tokenizer.from_folder(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(OSError):
        Tokenizer.from_folder(tmp_path)


def spoken(chunk) -> list[int]:
    """The ids between start and the first end."""
    assert len(chunk.ids) == len(chunk.weights) == 77 and chunk.ids[0] == START
    end = chunk.ids.index(END)
    assert set(chunk.weights[end:]) <= {1.0} and chunk.weights[0] == 1
    return list(chunk.ids[1:end])


def test_an_empty_prompt_is_one_chunk(clip):
    (chunk,) = split_chunks("", clip)
    assert chunk.ids == (START, *[END] * 76) and chunk.weights == (1.0,) * 77 and chunk.vectors == ()


def test_padding_comes_behind_one_end():
    (chunk,) = split_chunks("a cat", Tokenizer.clip(pad=0))
    assert chunk.ids == (START, 320, CAT, END, *[0] * 73)


@pytest.mark.parametrize(
    ("prompt", "ids", "weights"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368], [1] * 5),
        ("a (cat)", [320, CAT], [1, 1.1]),
        ("a [cat], (dog:1.5)", [320, CAT, COMMA, DOG], [1, 1 / 1.1, 1, 1.5]),
        ("(a ((cat:2)))", [320, CAT], [1.1, 2.42]),
        ("(a photo of (a cat)", [320, 1125, 539, 320, CAT], [1.1, 1.1, 1.1, 1.21, 1.21]),
        ("(cat:0) (dog:-1)", [CAT, DOG], [0, -1]),
        ("()", [], []),
    ],
)
def test_each_token_has_the_weight_of_its_words(clip, prompt, ids, weights):
    (chunk,) = split_chunks(prompt, clip)
    assert spoken(chunk) == ids
    assert list(chunk.weights[1 : len(ids) + 1]) == pytest.approx(weights, rel=1e-9)


def test_words_of_different_weights_are_read_apart(clip):
    (apart,), (together,) = split_chunks("foot(ball)", clip), split_chunks("(foot)(ball)", clip)
    assert spoken(apart) == [*clip.ids("foot"), *clip.ids("ball")]
    assert spoken(together) == clip.ids("football") != spoken(apart)


@pytest.mark.parametrize(
    ("cats", "sizes"), [(74, [74]), (75, [75]), (76, [75, 1]), (150, [75, 75]), (151, [75, 75, 1])]
)
def test_a_long_prompt_is_cut_at_75_tokens(clip, cats, sizes):
    chunks = split_chunks("cat " * cats, clip)
    assert [spoken(chunk) for chunk in chunks] == [[CAT] * size for size in sizes]
    assert chunks[0].ids[76] == END


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        # the comma is 20 back: what is behind it moves
        ("cat " * 55 + "," + " dog" * 20, [[CAT] * 55 + [COMMA], [DOG] * 20]),
        # 21 back: the chunk is filled
        ("cat " * 54 + "," + " dog" * 21, [[CAT] * 54 + [COMMA] + [DOG] * 20, [DOG]]),
        # nothing more comes: nothing moves
        ("cat " * 55 + "," + " dog" * 19, [[CAT] * 55 + [COMMA] + [DOG] * 19]),
        # the next token is a comma itself
        (
            "cat " * 60 + "," + " dog" * 14 + ", cat",
            [[CAT] * 60 + [COMMA] + [DOG] * 14, [COMMA, CAT]],
        ),
        # the comma is the last in the chunk
        ("cat " * 74 + ", dog", [[CAT] * 74 + [COMMA], [DOG]]),
        # the last comma counts
        ("cat , " * 33 + "cat " * 9 + "dog", [[CAT, COMMA] * 33, [CAT] * 9 + [DOG]]),
        # a comma of the chunk before does not count, and neither does one that was pushed to the start
        ("cat " * 75 + "," + "dog " * 75, [[CAT] * 75, [COMMA] + [DOG] * 74, [DOG]]),
        # again in the second chunk, from where the first was cut
        (
            "cat " * 55 + "," + " dog" * 60 + "," + " cat" * 15,
            [[CAT] * 55 + [COMMA], [DOG] * 60 + [COMMA], [CAT] * 15],
        ),
        # a full stop is no comma, and neither are two commas in one
        ("cat " * 70 + "." + " dog" * 6, [[CAT] * 70 + [269] + [DOG] * 4, [DOG] * 2]),
        ("cat " * 70 + ",," + " dog" * 6, [[CAT] * 70 + [8844] + [DOG] * 4, [DOG] * 2]),
    ],
)
def test_a_full_chunk_is_cut_behind_a_near_comma(clip, prompt, expected):
    assert [spoken(chunk) for chunk in split_chunks(prompt, clip)] == expected


def test_weights_move_with_their_tokens(clip):
    first, second = split_chunks("cat " * 60 + ", (" + "dog " * 20 + ":1.5)", clip)
    assert set(first.weights) == {1.0} and len(spoken(first)) == 61
    assert second.weights == (1.0, *[1.5] * 20, *[1.0] * 56)


@pytest.mark.parametrize(
    ("prompt", "expected", "count"),
    [
        ("", [[]], (0, 75)),
        ("cat", [[CAT]], (1, 75)),
        ("cat " * 75, [[CAT] * 75], (75, 75)),
        ("cat " * 76, [[CAT] * 75, [CAT]], (76, 150)),
        ("cat " * 55 + "," + " dog" * 20, [[CAT] * 55 + [COMMA], [DOG] * 20], (95, 150)),
        ("cat BREAK dog", [[CAT], [DOG]], (76, 150)),
        ("cat BREAK", [[CAT]], (75, 75)),
        ("BREAK cat", [[], [CAT]], (76, 150)),
        ("BREAK", [[]], (75, 75)),
        ("cat BREAK BREAK dog", [[CAT], [], [DOG]], (151, 225)),
        ("cat BREAK BREAK", [[CAT], []], (150, 150)),
        ("cat " * 75 + "BREAK dog", [[CAT] * 75, [DOG]], (76, 150)),
        ("cat, BREAK " + "dog " * 76, [[CAT, COMMA], [DOG] * 75, [DOG]], (151, 225)),
    ],
)
def test_break_closes_a_chunk_and_the_counter_takes_it_whole(clip, prompt, expected, count):
    assert [spoken(chunk) for chunk in split_chunks(prompt, clip)] == expected
    assert count_tokens(prompt, clip) == count


@pytest.mark.parametrize(
    ("prompt", "ids", "vectors"),
    [
        ("cat my-style dog", [CAT, 0, 0, 0, DOG], [(2, "My-Style", 0), (3, "My-Style", 1), (4, "My-Style", 2)]),
        ("MY-STYLE", [0, 0, 0], [(1, "My-Style", 0), (2, "My-Style", 1), (3, "My-Style", 2)]),
        ("oil", [0], [(1, "oil", 0)]),
        ("oil painting", [0, 0], [(1, "oil painting", 0), (2, "oil painting", 1)]),  # the longest name
        ("oil oil painting", [0, 0, 0], [(1, "oil", 0), (2, "oil painting", 0), (3, "oil painting", 1)]),
        ("oil (painting)", [0, 3086], [(1, "oil", 0)]),  # a name does not go across weights
        ("oil, cat", [0, COMMA, CAT], [(1, "oil", 0)]),
        ("oily", None, []),  # another word
    ],
)
def test_an_embedding_stands_in_for_its_name(clip, prompt, ids, vectors):
    (chunk,) = split_chunks(prompt, clip, {"oil": 1, "My-Style": 3, "oil painting": 2, " ": 4})
    assert spoken(chunk) == (clip.ids(prompt) if ids is None else ids)
    assert list(chunk.vectors) == vectors


def test_an_embeddings_rows_have_the_weight_of_its_name(clip):
    (chunk,) = split_chunks("cat (oil:1.5)", clip, {"oil": 2})
    assert chunk.weights[:5] == (1, 1, 1.5, 1.5, 1)


OIL = tuple((position, "oil", position - 1) for position in (1, 2, 3))  # at the start of a chunk
BIG = tuple((position, "big", position - 1) for position in range(1, 76))


@pytest.mark.parametrize(
    ("prompt", "expected", "count"),
    [
        ("cat " * 72 + "oil", [([CAT] * 72 + [0] * 3, tuple((73 + row, "oil", row) for row in range(3)))], (75, 75)),
        ("cat " * 73 + "oil", [([CAT] * 73, ()), ([0] * 3, OIL)], (78, 150)),
        ("cat " * 75 + "oil", [([CAT] * 75, ()), ([0] * 3, OIL)], (78, 150)),
        # what does not fit goes on alone, whatever comma is near
        ("cat " * 70 + ", cat cat oil", [([CAT] * 70 + [COMMA] + [CAT] * 2, ()), ([0] * 3, OIL)], (78, 150)),
        # moved behind a comma with its tokens
        ("cat " * 60 + ", oil" + " dog" * 12, [([CAT] * 60 + [COMMA], ()), ([0] * 3 + [DOG] * 12, OIL)], (90, 150)),
        ("big cat", [([0] * 75, BIG), ([CAT], ())], (76, 150)),
        ("cat big", [([CAT], ()), ([0] * 75, BIG)], (150, 150)),
    ],
)
def test_an_embedding_is_never_cut(clip, prompt, expected, count):
    embeddings = {"oil": 3, "big": 75}
    chunks = split_chunks(prompt, clip, embeddings)
    assert [(spoken(chunk), chunk.vectors) for chunk in chunks] == expected
    assert count_tokens(prompt, clip, embeddings) == count


prompts = st.lists(
    st.sampled_from(["cat ", "dog ", ", ", "(", ")", "[", "]", ":1.3)", "BREAK ", "oil ", "é🍎", "cat " * 30, "big "])
).map("".join)


@given(prompts)
def test_no_token_is_lost(clip, prompt):
    chunks = split_chunks(prompt, clip)
    expected = [
        (number, pytest.approx(words.weight)) for words in parse_weights(prompt) for number in clip.ids(words.text)
    ]
    found = [list(zip(spoken(chunk), chunk.weights[1:], strict=False)) for chunk in chunks]
    assert list(chain.from_iterable(found)) == expected
    used, room = count_tokens(prompt, clip)
    assert room == 75 * len(chunks) and len(expected) <= used <= room


@given(prompts)
def test_no_row_is_lost(clip, prompt):
    embeddings = {"oil": 3, "big": 75}
    chunks = split_chunks(prompt, clip, embeddings)
    assert all(len(spoken(chunk)) <= 75 for chunk in chunks)
    for chunk in chunks:
        assert all(chunk.ids[position] == 0 for position, _, _ in chunk.vectors)
        assert len(chunk.vectors) == chunk.ids.count(0)
    order = [(name, row) for chunk in chunks for _, name, row in chunk.vectors]
    names = [name for name, row in order if row == 0]
    assert order == [(name, row) for name in names for row in range(embeddings[name])]


@pytest.mark.parametrize("piece", ["BREAK ", "🍎" * 20 + " "])
def test_too_many_chunks_are_refused(clip, piece):
    for call in (split_chunks, count_tokens):
        call(piece * 20, clip)
        with pytest.raises(RequestError, match="more than 64 chunks of 75 tokens"):
            call(piece * 1_300, clip)
