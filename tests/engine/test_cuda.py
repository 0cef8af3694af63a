"""What only an NVIDIA GPU can show; the engine's other tests run on one with ``--device cuda``."""

import numpy as np
import pytest
import torch

from webui.core.events import Done, Image
from webui.core.request import LoraRef
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import residence
from webui.engine.speed import graphed
from webui.engine.streaming import Streamed
from webui.library.library import DEMO_MODEL

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


def test_200_switches_in_mid_picture_record_nothing_anew_and_change_no_picture(
    tmp_path, switching, monkeypatch
) -> None:
    recordings, record = [], graphed.record
    monkeypatch.setattr(graphed, "record", lambda run: recordings.append(1) or record(run))
    settings = {"device": "cuda", "dtype": "float16", "data_dir": tmp_path}
    plain, replayed = Darkroom(Settings(**settings)), Darkroom(Settings(**settings, cuda_graphs=True))

    def pixels(darkroom, name) -> str:
        (picture,) = (event for event in darkroom.generate(switching(name)) if isinstance(event, Image))
        return picture.pixels_sha256

    def weights() -> dict[str, torch.Tensor]:
        replayed.manager._residence.loras.switch(())
        unet = replayed.manager._residence.model.components["backbone"]
        return {name: weight.data.cpu() for name, weight in unet.named_parameters()}

    expected = [pixels(plain, name) for name in ("night", "sepia")]
    list(replayed.load("demo"))
    before = weights()
    assert [pixels(replayed, name) for name in ("night", "sepia") * 5] == expected * 5 and len(set(expected)) == 2
    assert len(recordings) == 1
    after = weights()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_where_the_parts_lie_changes_no_picture(draw_with, dtype) -> None:
    expected = draw_with(dtype=dtype, memory="resident")()
    assert draw_with(dtype=dtype, memory="offload")() == expected
    assert draw_with(dtype=dtype, memory="sequential")() == expected


@pytest.mark.parametrize("share", [2, 3])
def test_blocks_that_come_and_go_while_others_compute_change_no_picture(draw_with, monkeypatch, share) -> None:
    """Too few fit for all to stay, so that each step copies some on a stream of its own; with LoRAs, too."""
    loras = (LoraRef.model_validate("night:1"),)
    plain, blocks = draw_with(memory="resident"), draw_with(memory="blocks")
    expected = [plain(), plain(loras=loras)]
    unet = sum(file.stat().st_size for file in (DEMO_MODEL / "unet").glob("*.safetensors")) // 2  # in float16
    monkeypatch.setattr(residence, "free_bytes", lambda device: unet // share if device.type == "cuda" else 2**40)
    monkeypatch.setattr(residence.Residence, "_choose_plan", lambda *_: "blocks")
    monkeypatch.setattr(residence.Residence, "tile", lambda *_: False)
    came: list[int] = []
    bring = Streamed._bring
    monkeypatch.setattr(Streamed, "_bring", lambda own, unit: came.append(1) or bring(own, unit))
    assert [blocks(), blocks(loras=loras), blocks()] == [*expected, expected[0]]
    assert len(came) > 3 * 6, "in each step of each picture at least one came"


def test_a_recording_that_fails_leaves_torch_where_it_was() -> None:
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        graphed.record(lambda: torch.ones(1, device="cuda").cpu())  # waits for the GPU, which no recording may
    assert torch.cuda.current_stream() == before
    assert torch.ones(2, device="cuda").sum().item() == 2


def test_float16_is_what_it_chooses() -> None:
    assert Darkroom(Settings()).manager.dtype == torch.float16
