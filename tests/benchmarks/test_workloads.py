"""What workloads measure, looked at on the demo model."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import small
from diffusers import UNet2DConditionModel

from benchmarks import approximate, families, family_models, pictures, together, upscale
from benchmarks.lora_files import write_lora
from benchmarks.measure import Options, Row
from benchmarks.peers import Models, convert
from benchmarks.tasks import Task
from webui.core.settings import Settings
from webui.engine.devices import one_thread
from webui.engine.families.sd import STABLE_DIFFUSION
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import read_lora
from webui.library.library import DEMO_MODEL, find_models


def test_the_loras_change_convolutions_too(tmp_path: Path):
    unet = UNet2DConditionModel.from_pretrained(DEMO_MODEL / "unet", local_files_only=True)
    file = write_lora(tmp_path / "known.safetensors", unet, seed=0)
    weights = read_lora(file, ModuleIndex({"backbone": unet}, STABLE_DIFFUSION.parts), torch.device("cpu"))
    parameters = [unet.get_submodule(path).weight for _, path, _ in weights.deltas]
    assert not weights.unmatched
    assert any(weight.shape[2:] == (3, 3) for weight in parameters) and any(weight.dim() == 2 for weight in parameters)


def test_what_this_processor_cannot_do_has_a_row_that_says_why(monkeypatch: pytest.MonkeyPatch):
    manager = SimpleNamespace(room=SimpleNamespace(no_int8="no instructions for it"))
    darkroom = SimpleNamespace(load=lambda _: (), manager=manager)
    monkeypatch.setattr(approximate, "_compare", lambda _, model, ways, *__: [Row(name, "ms", [1.0]) for name in ways])
    rows = approximate._all_sides(darkroom, "demo", {"exact": {}, "int8": {"int8": True}}, Options(side=64))
    assert [(row.name, row.note) for row in rows] == [("exact", ""), ("int8", "refused here: no instructions for it")]


def test_what_is_enlarged_with_ships():
    assert upscale.EMBEDDED.path.is_file()


@pytest.mark.slow
def test_few_steps_are_drawn_with_their_lora_and_judged(monkeypatch: pytest.MonkeyPatch):
    (name,) = [name for name in approximate.ON_DEMO if "few-steps" in name]
    ways = {"exact": {}, name: approximate.ON_DEMO[name], "without": approximate.LCM}
    monkeypatch.setattr(approximate, "ON_DEMO", ways)
    rows = {row.name: row for row in approximate.run(Options(rounds=1, steps=4))}
    exact, few, without = (rows[f"128 px, 4 steps: {way}"] for way in ways)
    assert exact.psnr_db is None
    assert 5 < few.psnr_db < 50 and 0.2 < few.ssim < 1  # another picture of the same thing
    assert few.psnr_db != without.psnr_db
    assert f"PSNR {few.psnr_db:.1f} dB, SSIM {few.ssim:.3f}" in few.note


def test_a_family_is_measured_beside_diffusers_where_both_come_to_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(families, "SIDE_PX", 64)
    subject = replace(
        family_models.stable_diffusion("sd1"),
        make=lambda: {"unet": small("sd1").unet},
        save=lambda folder, _: small("sd1", directory=folder),
    )
    with one_thread(), torch.inference_mode():
        rows = families.measure(subject, rounds=1)
        assert [row.name.split(", ")[1] for row in rows] == ["a step"] * 2 + ["load"] * 2 + ["peak memory"] * 2
        assert all(row.samples[0] > 0 for row in rows if row.unit == "ms" or sys.platform == "linux")
    with pytest.raises(RuntimeError, match=r"SD 1.x: a step differs by 0\.5 of the largest number"):
        families._compare("SD 1.x", torch.ones(2) * 2, torch.ones(2))


@pytest.mark.slow
def test_sdxls_build_is_drawn_as_diffusers_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "of_size", lambda size: convert.random(size, tmp_path))
    options = Options(size="sdxl-small", rounds=1, steps=2, side=64, threads=1)
    stock, ours = pictures.compare(Task("txt2img"), options)
    assert "diffusers fp32" in stock.name and "darkroom as it starts" in ours.name and ours.max_difference <= 1


def test_a_data_folder_offers_the_model_of_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convert, "random", lambda _: Models(DEMO_MODEL, Path("none")))
    assert convert.offer("demo", tmp_path) == "demo" and not list(tmp_path.iterdir())
    assert convert.offer("sd15", tmp_path) in find_models(Settings(data_dir=tmp_path))


def test_strangers_are_measured_one_by_one_and_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(together, "VISITORS", (2,))
    rows = together.run(Options(rounds=1, steps=3, side=64))
    assert [row.unit.split()[0] for row in rows] == ["pictures/min"] * 2 + ["s"] * 6
    assert all(row.samples[0] > 0 for row in rows)
    assert rows[1].ratio and "2 in a forward" in rows[1].note
