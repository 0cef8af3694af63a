"""Which programs draw, and what a row says of each; the programs themselves are stood in for."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image

from benchmarks import lora, pictures, previews
from benchmarks.floor import Floor
from benchmarks.measure import Options
from benchmarks.peers import Answer, Drawing, Models, Ready
from benchmarks.pictures import baseline_of, compare, peer_variants, programs
from benchmarks.tasks import BASELINE, FUSED, HALF, HALF_FUSED, Task
from webui.library.library import DEMO_MODEL

SD15 = Options(size="sd15")


def test_previews_are_measured_at_every_size(monkeypatch):
    tasks: list[Task] = []
    monkeypatch.setattr(previews, "compare", lambda task, options: tasks.append(task) or [])
    previews.run(SD15)
    wanted = ["darkroom fp32", "darkroom fp32, previews off", BASELINE]
    assert programs(tasks[0], SD15, torch.float32) == programs(tasks[0], Options(), torch.float32) == wanted


def test_fewer_programs_fit_at_sd15s_size():
    assert programs(Task("txt2img"), SD15, torch.bfloat16) == ["darkroom as it starts", BASELINE, "diffusers bf16"]
    assert programs(Task("txt2img"), SD15, torch.float32) == ["darkroom as it starts", BASELINE]
    assert "darkroom --compile" in programs(Task("txt2img"), Options(), torch.float32)


def test_a_gpu_draws_with_usual_sizes_in_float16_and_with_what_takes_minutes_where_that_is_asked_for():
    large = Options(size="sdxl", device="cuda")
    usual = ["darkroom as it starts", "darkroom --cuda-graphs", HALF]
    assert programs(Task("txt2img"), large, torch.float16) == usual and baseline_of(Task("txt2img"), large) == HALF
    compiled = replace(large, compiled=True)
    assert programs(Task("txt2img"), compiled, torch.float16) == [*usual, "diffusers fp16 compiled"]
    small = replace(large, size="demo")
    assert (
        BASELINE in programs(Task("txt2img"), small, torch.float16) and baseline_of(Task("txt2img"), small) == BASELINE
    )
    loras = Task("lora", programs=lora.PROGRAMS, baseline=FUSED)
    assert programs(loras, large, torch.float16) == [*usual, HALF_FUSED] and baseline_of(loras, large) == HALF_FUSED
    assert baseline_of(replace(loras, programs=("darkroom fp32", BASELINE), baseline=BASELINE), large) == BASELINE


def test_what_only_a_gpu_runs_is_not_asked_of_a_processor():
    assert not {"darkroom --cuda-graphs", HALF, HALF_FUSED} & {
        *programs(Task("t", programs=lora.PROGRAMS), SD15, torch.float32)
    }


def test_diffusers_best_is_in_the_format_that_suits_the_processor():
    assert ("diffusers", "fp32-best") in peer_variants(torch.float32)
    assert ("diffusers", "bf16-best") in peer_variants(torch.bfloat16)


class Session:
    """Draws one flat picture, lighter than black by ``level``."""

    def __init__(self, level: int, **versions: str) -> None:
        self.level, self.asked = level, list[Drawing]()
        self.ready = Ready(versions, "float32", "other noise")

    def draw(self, drawing: Drawing) -> Answer:
        self.asked.append(drawing)
        Image.new("RGB", (drawing.width, drawing.height), (self.level,) * 3).save(drawing.out)
        return Answer(0.1 * len(self.asked), 2**29)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Session]:
    """Ours, the baseline and a peer."""
    made = {
        "darkroom as it starts": Session(0, torch="2.13.0"),
        BASELINE: Session(0, diffusers="0.42.1"),
        "openvino default": Session(2, openvino="2026.4.1", diffusers="0.39.0"),
    }
    monkeypatch.setattr(pictures, "_start", lambda *_: dict(made))
    monkeypatch.setattr(pictures, "of_size", lambda _: Models(DEMO_MODEL, Path("none")))
    monkeypatch.setattr(Floor, "measured", staticmethod(lambda *_: Floor(1e12, 1e12)))
    return made


def test_a_rows_figures_and_a_peers_version(sessions):
    peer, stock, ours, _ = compare(Task("txt2img"), Options(rounds=2, steps=2))
    assert ours.max_difference == 0 and ours.psnr_db == float("inf") and "same pixels" in ours.note
    assert stock.psnr_db is None and stock.peak_mib == 512 and "peak 512 MiB" in stock.note
    assert peer.max_difference == 2 and peer.psnr_db == pytest.approx(42.1, abs=0.1)
    assert f"{peer.floor_share:.0%} of the machine's floor" in peer.note
    assert peer.versions == {"openvino": "2026.4.1", "diffusers": "0.39.0"}
    assert "; openvino 2026.4.1; other noise)" in peer.note
    assert "0.42.1" not in stock.note  # the machine's line has it


def test_sets_of_loras_take_turns_and_each_is_warmed_up(sessions):
    one, other = [("one.safetensors", 0.8)], [("other.safetensors", 0.8)]
    rows = compare(Task("lora", lora_sets=[one, other]), Options(rounds=3, steps=2))
    stock = sessions[BASELINE]
    assert [drawing.loras for drawing in stock.asked] == [one, other, one, other, one]
    assert all(drawing.task == "txt2img" for drawing in stock.asked)
    assert median(rows[0].samples) == pytest.approx(400) and len(rows[0].samples) == 3
