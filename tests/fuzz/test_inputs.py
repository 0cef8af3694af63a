"""Hostile files and texts: each is read or refused in words, in bounded time and memory."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.fuzz import inputs
from tests.fuzz.conftest import bounded
from webui.core import images
from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.filenames import slug
from webui.core.prompt import parse_weights, split_loras, unbalanced, unsupported
from webui.core.request import Request
from webui.core.tensor_file import BadFile, read_header
from webui.interop.picture_info import read_info, read_text
from webui.workspace.preset import read_preset

CATALOG = Catalog({}, {}, {}, {}, {"DPM++ 2M": ("Default", "Karras"), "Euler a": ("Default",)})
REFUSED = (RequestError, images.ImageError, BadFile)
MANY = 5_000


def read_picture(data: bytes, _: Path) -> None:
    with suppress(images.ImageError):
        images.to_rgb(images.open_image(data))
    with suppress(images.ImageError):
        read_info(data, CATALOG).to_json()


def read_prompt(text: str, _: Path) -> None:
    read_text(text, CATALOG).to_json()
    slug(text)
    with suppress(*REFUSED):
        Request.parse({"prompt": text, "negative": text})
    text = text[:8_000]  # no longer prompt comes so far
    with suppress(*REFUSED):
        split_loras(text)
    unbalanced(text)
    unsupported(text)
    with suppress(*REFUSED):
        parse_weights(text)


def read_tensors(data: bytes, folder: Path) -> None:
    path = folder / "x.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    with suppress(BadFile):
        read_header(path)


def read_as_preset(data: bytes, _: Path) -> None:
    with suppress(*REFUSED):
        preset = read_preset(data, "x")
        preset.request({}, {})


def read_request(values: Any, _: Path) -> None:
    with suppress(*REFUSED):
        Request.parse(values)


Reader = Callable[[Any, Path], None]
CORPUS: dict[str, tuple[Reader, dict[str, Any]]] = {
    "pictures": (read_picture, inputs.bombs()),
    "texts": (read_prompt, inputs.TEXTS),
    "safetensors": (read_tensors, inputs.headers()),
    "presets": (read_as_preset, inputs.presets()),
    "requests": (read_request, inputs.as_json()),
}


@pytest.mark.parametrize("kind", CORPUS)
def test_what_is_made_to_hurt_does_not(kind: str, tmp_path: Path, keeps_memory: None) -> None:
    read, corpus = CORPUS[kind]
    for name, hostile in corpus.items():
        with bounded(f"{kind}: {name}"):
            read(hostile, tmp_path)


@pytest.mark.parametrize("name", inputs.NAMES)
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    made = slug(name)
    assert "/" not in made and "\\" not in made and "\0" not in made and made not in ("..", ".")
    for field in ("model", "vae", "sampler"):
        with suppress(RequestError):
            Request.parse({field: name})


def mutated(data: bytes, chance: random.Random) -> bytes:
    """With some of its bytes changed, doubled, or left out."""
    held = bytearray(data)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(len(held) + 1)
        match chance.randrange(4):
            case 0:
                held[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                held[place : place + chance.randint(1, 40)] = b""
            case 2:
                held[place:place] = held[place : place + chance.randint(1, 200)]
            case _:
                held[place:place] = chance.choice(
                    [b"\xff\xff\xff\xff", b"\0" * 8, b"[" * 50, b"(" * 50, b"<lora:", b"="]
                )
    return bytes(held)


def seeds() -> Iterator[tuple[Reader, bytes]]:
    for kind in inputs.FORMATS:
        yield read_picture, inputs.picture(kind)
    yield read_picture, inputs.with_texts({"parameters": "a red apple\nSteps: 20, Seed: 1, Size: 64x64"})
    yield read_picture, inputs.with_texts({"prompt": inputs.graph(12, fan=2)})
    for reader, corpus in ((read_tensors, inputs.headers()), (read_as_preset, inputs.presets())):
        yield from ((reader, data) for data in corpus.values() if len(data) < 20_000)
    for text in inputs.TEXTS.values():
        data = text[:2_000].encode("utf-8", "surrogatepass")
        yield (lambda mutant, folder: read_prompt(mutant.decode("utf-8", "replace"), folder)), data


@pytest.mark.slow
def test_thousands_of_mutants_are_read_or_refused(tmp_path: Path, keeps_memory: None) -> None:
    known, chance = [*seeds()], random.Random(25)
    for number in range(MANY):
        read, data = known[number % len(known)]
        mutant = mutated(data, chance)
        with bounded(f"mutant {number}: {mutant[:60]!r}"):
            read(mutant, tmp_path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*Request.model_fields, "init", "unknown"])


def check_request(values: dict[str, Any]) -> None:
    with bounded(values):
        read_request(values, Path())


@hypothesis.given(st.dictionaries(FIELDS, ANYTHING, max_size=4))
@hypothesis.settings(max_examples=50)
def test_a_request_of_anything_is_taken_or_refused(values: dict[str, Any]) -> None:
    check_request(values)


@pytest.mark.slow
@hypothesis.given(st.dictionaries(FIELDS, ANYTHING, max_size=4))
@hypothesis.settings(max_examples=1500)
def test_many_requests_of_anything_are_taken_or_refused(values: dict[str, Any]) -> None:
    check_request(values)
