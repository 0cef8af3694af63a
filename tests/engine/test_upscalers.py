"""Upscaler files: real weights against ncnn, every style of names, pickles, and what is refused with which reason."""

import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests import ncnn_models
from webui.core.files import UpscalerFile
from webui.core.stages import Upscale
from webui.core.upscaler_file import check_upscaler
from webui.engine.families.base import CannotLoad
from webui.engine.nets.compact import Compact
from webui.engine.nets.rrdb import Rrdb
from webui.engine.stages.upscale import Enlarger
from webui.engine.upscalers import read_upscaler
from webui.library.library import DEMO_MODEL, UPSCALERS

EMBEDDED = UPSCALERS / "realesr-animevideov3.safetensors"
TO_FIRST = (  # Real-ESRGAN's names to those of ESRGAN's first code
    (r"^body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0."),
    (r"^conv_first\.", "model.0."),
    (r"^conv_body\.", "model.1.sub.{blocks}."),
)
TO_SECOND = (
    (r"^body\.(\d+)\.rdb", r"RRDB_trunk.\1.RDB"),
    (r"^conv_body", "trunk_conv"),
    (r"^conv_up", "upconv"),
    (r"^conv_hr", "HRconv"),
)


def picture(px):
    return PilImages.open(DEMO_MODEL / "preview.png").convert("RGB").resize((px, px))


def levels(network, picture):
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return network(pixels)[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255


def save(folder, state, name="net.safetensors"):
    path = folder / name
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return UpscalerFile(path.stem, path)


def small_rrdb(doublings=2, multiple=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Rrdb(3, 16, 8, 2, doublings, multiple).eval()


def renamed(state, rules, blocks=2):
    found = {}
    for key, tensor in state.items():
        for pattern, into in rules:
            key = re.sub(pattern, into.replace("{blocks}", str(blocks)), key)
        found[key] = tensor
    return found


# equal to the reference engine on real weights


def test_the_embedded_file_has_the_very_numbers_of_its_authors():
    network = read_upscaler(UpscalerFile("embedded", EMBEDDED))
    theirs = ncnn_models.compact_state("realesr-animevideov3-x4")
    assert sum(tensor.numel() for tensor in theirs.values()) == 621_424
    assert network.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "state_of", "px"),
    [
        ("realesr-animevideov3-x4", ncnn_models.compact_state, 64),
        ("realesrgan-x4plus-anime", ncnn_models.rrdb_state, 32),
        ("realesrgan-x4plus", ncnn_models.rrdb_state, 24),
    ],
)
def test_real_weights_make_what_ncnn_makes_within_one_level(tmp_path, name, state_of, px):
    network = read_upscaler(save(tmp_path, state_of(name)))
    ours, theirs = levels(network, picture(px)), ncnn_models.compute(name, np.asarray(picture(px)))
    assert ours.shape == theirs.shape == (4 * px, 4 * px, 3)
    print(f"{name}: up to {np.abs(ours - theirs).max():.4f} of 255 levels from ncnn")
    assert np.abs(ours - theirs).max() < 1 and np.ptp(ours) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["realesrgan-x4plus-anime", "realesrgan-x4plus"])
def test_the_seam_of_networks_that_see_everything_is_small(tmp_path, name):
    file, start = save(tmp_path, ncnn_models.rrdb_state(name)), picture(256)
    enlarger = Enlarger()
    network = enlarger.load(file)

    def make():
        steps = enlarger.enlarge(start, Upscale(file, (1024, 1024)), lambda: None)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return np.asarray(stop.value, np.int16)

    tiled = make()
    network.tile_px = 4096
    seam = np.abs(make() - tiled)
    print(f"{name}: seam of up to {seam.max()} of 255 levels, {seam.mean():.4f} on average")
    assert seam.max() <= 8 and seam.mean() < 0.1


# names and containers


@pytest.mark.parametrize("rules", [(), TO_SECOND], ids=["Real-ESRGAN", "ESRGAN"])
@pytest.mark.parametrize(("doublings", "multiple", "scale"), [(2, 1, 4), (2, 2, 2), (2, 4, 1), (1, 1, 2), (3, 1, 8)])
def test_every_scale_is_told_from_the_shapes(tmp_path, rules, doublings, multiple, scale):
    network = small_rrdb(doublings, multiple)
    read = read_upscaler(save(tmp_path, renamed(network.state_dict(), rules)))
    assert (read.scale, read.multiple) == (scale, multiple)
    assert np.array_equal(levels(read, picture(32)), levels(network, picture(32)))


@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
def test_the_names_of_esrgan_s_first_code_are_known(tmp_path, doublings):
    network = small_rrdb(doublings)
    ups = [(rf"^conv_up{n}\.", f"model.{3 * n}.") for n in range(1, doublings + 1)]
    last = [(r"^conv_hr\.", f"model.{3 * doublings + 2}."), (r"^conv_last\.", f"model.{3 * doublings + 4}.")]
    state = renamed(network.state_dict(), (*TO_FIRST, *ups, *last))
    assert "model.1.sub.2.weight" in state
    read = read_upscaler(save(tmp_path, state))
    assert read.scale == 2**doublings and np.array_equal(levels(read, picture(16)), levels(network, picture(16)))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", [None, "params", "params_ema"])
def test_pickles_of_weights_are_read(tmp_path, wrapper, legacy):
    with torch.random.fork_rng():
        network = Compact(3, 8, 2, 2).eval()
    state = network.state_dict()
    held = {"params": {}, wrapper: state} if wrapper else state
    path = tmp_path / "net.pth"
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    file = UpscalerFile("net", path)
    check_upscaler(file)
    read = read_upscaler(file)
    assert (read.scale, read.reach_px) == (2, 4)
    assert np.array_equal(levels(read, picture(16)), levels(network, picture(16)))


# what is refused


class Harm:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('harm.txt').touch()",)


def refusal(file, check=check_upscaler):
    with pytest.raises((CannotLoad, ValueError)) as error:
        check(file)
    return str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_in_it_is_refused_and_never_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    torch.save({"body.0.weight": Harm()}, path, _use_new_zipfile_serialization=not legacy)
    file = UpscalerFile("bad", path)
    for check in (check_upscaler, read_upscaler):
        assert "holds code and is not opened: it would run builtins.exec" in refusal(file, check)
    path.write_bytes(pickle.dumps({"body.0.weight": Harm()}, protocol=4))
    assert "holds code and is not opened: it would run builtins.exec" in refusal(file)
    assert not (tmp_path / "harm.txt").exists()


def test_what_cannot_be_used_is_told_by_its_reason(tmp_path):
    path = tmp_path / "net.pth"
    for data in (b"", b"no pickle", b"PK\x03\x04 cut short"):
        path.write_bytes(data)
        assert "is not a file of weights that torch saved, or is damaged" in refusal(UpscalerFile("net", path))
    lora = save(tmp_path, {"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, "lora.safetensors")
    assert refusal(lora).startswith("is a LoRA; it belongs in")
    other = save(tmp_path, {"layers.0.attn.weight": torch.zeros(4, 4)}, "swin.safetensors")
    assert "not an ESRGAN, Real-ESRGAN or compact network; the package spandrel" in refusal(other)
    assert refusal(UpscalerFile("net", path, problem="is not to be opened")) == "is not to be opened"
    state = small_rrdb().state_dict()
    missing = {key: tensor for key, tensor in state.items() if key != "body.1.rdb3.conv5.bias"}
    for wrong in (missing, state | {"extra.weight": torch.zeros(1)}, {"body.0.weight": torch.zeros(8, 3, 3, 3)}):
        told = refusal(save(tmp_path, wrong, "wrong.safetensors"), read_upscaler)
        assert told.startswith("upscaler 'wrong': wrong.safetensors is a network that is not known here")
    none = save(tmp_path, state | {"conv_last.bias": torch.full((3,), float("nan"))}, "none.safetensors")
    assert "values that are not numbers" in refusal(none, read_upscaler)
