"""What only an NVIDIA GPU can show; the engine's other tests run on one with ``--device cuda``."""

import numpy as np
import pytest
import torch

from webui.core.events import Done, Image
from webui.core.request import LoraRef
from webui.core.settings import Settings
from webui.darkroom import Darkroom

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
LORAS = ("", "blueprint:0.8", "night:1 sepia:0.5", "blueprint:-0.5", "blueprint:0.8", "")


@pytest.fixture
def draw_with(request_for, tmp_path):
    """``draw_with(memory="offload")``: a darkroom of these settings as a function from a request's fields to bytes."""

    def make(**settings):
        darkroom = Darkroom(Settings(device="cuda", data_dir=tmp_path, **settings))

        def draw(**fields) -> bytes:
            events = list(darkroom.generate(request_for(**fields)))
            assert isinstance(events[-1], Done)
            (picture,) = (event.image for event in events if isinstance(event, Image))
            assert np.asarray(picture).std() > 1, "a picture of one colour shows nothing"
            return picture.tobytes()

        return draw

    return make


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_replayed_graphs_give_the_plain_pictures_with_loras_and_in_other_sizes(draw_with, dtype) -> None:
    plain, replayed = draw_with(dtype=dtype), draw_with(dtype=dtype, cuda_graphs=True)
    seen = set()
    for text in LORAS:
        loras = tuple(LoraRef.model_validate(word) for word in text.split())
        for side in (64, 128):
            expected = plain(loras=loras, width=side, height=side)
            assert replayed(loras=loras, width=side, height=side) == expected
            seen.add(expected)
    assert len(seen) == 2 * len(set(LORAS))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_where_the_parts_lie_changes_no_picture(draw_with, dtype) -> None:
    expected = draw_with(dtype=dtype, memory="resident")()
    assert draw_with(dtype=dtype, memory="offload")() == expected
    assert draw_with(dtype=dtype, memory="sequential")() == expected


def test_float16_is_what_it_chooses() -> None:
    assert Darkroom(Settings()).manager.dtype == torch.float16
