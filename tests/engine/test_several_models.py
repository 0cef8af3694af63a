"""Several models in memory: each is read once, what is shared is there once, and what has no room goes part by part."""

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn

from webui.core.events import Cancelled, Done, Image, Loading
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import kept as kept_module
from webui.engine.cpu.install import PLAIN
from webui.engine.families.loading import WeightLoader
from webui.engine.kept import HOST, Kept
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.clip import ClipText
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.nets.unet import UNet

QUICK = {"prompt": "a red apple, flat style", "width": 64, "height": 64, "steps": 2, "seed": 5, "sampler": "Euler"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make(tree, clone_demo):
    """``make(model_cache="1GB")``: a darkroom with "demo", "twin", which is the demo model but for its UNet's file, and
    "other", which shares nothing."""
    for name, own in (("twin", ("unet",)), ("other", ("unet", "vae", "text_encoder"))):
        if not (tree / "models/Stable-diffusion" / name).exists():
            clone_demo(tree / "models/Stable-diffusion" / name, own)
    return lambda **fields: Darkroom(
        Settings(**({"device": "cpu", "dtype": "float32", "data_dir": tree, "model_cache": "1GB"} | fields))
    )


@pytest.fixture
def reads(monkeypatch) -> list[type]:
    """The class of each network whose weights were read."""
    found, read = [], WeightLoader.read

    def watched(self, *given):
        found.append(type(self.module))
        yield from read(self, *given)

    monkeypatch.setattr(WeightLoader, "read", watched)
    return found


def hashes(darkroom, **fields) -> list[str]:
    events = list(darkroom.generate(Request(**(QUICK | fields))))
    assert isinstance(events[-1], Done)
    return [event.pixels_sha256 for event in events if isinstance(event, Image)]


def test_a_refiner_and_its_base_are_read_once_for_all_pictures_of_a_job(make, reads):
    fields = {"refiner": "twin", "refiner_at": 0.5, "repeat": 2, "loras": ("night:0.8",)}
    darkroom = make()
    found = hashes(darkroom, **fields)
    assert sorted(reads, key=str) == sorted([ClipText, UNet, Autoencoder, UNet], key=str)
    assert darkroom.manager.model_names == ["demo", "twin"]
    reads.clear()
    assert hashes(make(model_cache=0), **fields) == found and reads.count(UNet) == 4


def test_a_hires_pass_on_another_model_reads_each_once_and_is_what_that_model_makes_of_the_picture(make, tree, reads):
    weights = tree / "models/Stable-diffusion/twin/unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.02 for name, tensor in tensors.items()}, weights)
    darkroom, hires = make(), {"model": "twin", "scale": 1, "upscaler": "Lanczos", "strength": 0.6}
    same = {"guidance": 5.0, "schedule": "Default"}  # else each model has its own
    found = hashes(darkroom, hires=hires, repeat=2, **same)
    assert sorted(reads, key=str) == sorted([ClipText, UNet, Autoencoder, UNet], key=str)
    (first,) = darkroom.draw(Request(**QUICK, **same))
    start = {"image": first.image, "strength": 0.6}
    by_hand = [hashes(darkroom, model=name, init=start, **same) for name in ("twin", "demo")]
    assert found[:1] == by_hand[0] != by_hand[1] and len(set(found)) == 2


def test_back_to_a_model_that_is_there_nothing_is_loaded_and_its_merged_loras_are_there(make, reads):
    darkroom = make()
    first = [hashes(darkroom, model=name, loras=("night:1",)) for name in ("demo", "other")]
    reads.clear()
    for _ in range(2):
        for name, expected in zip(("demo", "other"), first, strict=True):
            events = list(darkroom.generate(Request(**QUICK, model=name, loras=("night:1",))))
            assert not [event for event in events if isinstance(event, Loading)] and events[-1].loras.how == "cached"
            assert [event.pixels_sha256 for event in events if isinstance(event, Image)] == expected
            assert darkroom.manager.model_name == name
    assert not reads


def test_what_has_no_room_goes_merged_loras_first_then_the_oldest_parts(make, reads):
    darkroom, kept = make(), lambda: darkroom.manager._residence.kept
    hashes(darkroom, model="demo", loras=("night:1",))
    sizes = {PLAIN.get(type(part.module), type(part.module)): part.nbytes for part in kept()._parts.values()}
    names = [ClipText, UNet, Autoencoder]
    for limit, stays in ((sizes[UNet] + sizes[Autoencoder], names[1:]), (0, [])):
        darkroom = make(model_cache=limit)
        hashes(darkroom, model="demo", loras=("night:1",))
        resident = darkroom.manager._residence._resident
        assert resident.loras.cache.nbytes
        reads.clear()
        hashes(darkroom, model="other")
        assert reads == names and not resident.loras.cache.nbytes and kept().idle_bytes() <= limit
        reads.clear()
        hashes(darkroom, model="demo")
        assert reads == [name for name in names if name not in stays]


def test_where_nothing_is_said_a_quarter_of_the_memory_stays_free(make, monkeypatch):
    darkroom, free = make(model_cache=None), [10**12]
    monkeypatch.setattr(kept_module, "total_bytes", lambda _: 10**12)
    monkeypatch.setattr(kept_module, "free_bytes", lambda _: free[0])
    for name in ("demo", "other"):
        hashes(darkroom, model=name)
    assert darkroom.manager.model_names == ["demo", "other"]
    free[0] = 10**12 // 5  # other programs want it
    hashes(darkroom, model="other")
    assert darkroom.manager.model_names == ["other"] and not darkroom.manager._residence.kept.idle_bytes()


def test_what_torch_keeps_of_freed_memory_drives_no_model_out(monkeypatch):
    """A device's allocator keeps what a picture took: 80 of 90 bytes here, until it is told to let go."""
    kept, cached = Kept(torch.device("cuda"), None), [80]
    kept.put("idle", _Weights(), 10, torch.device("cuda"))
    monkeypatch.setattr(kept_module, "free_bytes", lambda _: 90 - cached[0])
    monkeypatch.setattr(kept_module, "release_memory", lambda _: cached.__setitem__(0, 0))
    kept.make_room(torch.device("cuda"), 50)
    assert "idle" in kept and not cached[0]
    cached[0] = 80
    kept.make_room(torch.device("cuda"), 5)
    assert cached[0] == 80, "nothing is let go of where there is room"


def test_cancelled_while_another_is_loaded_the_one_before_is_there_at_once(make, reads):
    darkroom = make()
    expected, asked = hashes(darkroom, model="demo"), iter(range(1000))
    events = list(darkroom.generate(Request(**QUICK, model="other"), lambda: next(asked) > 20))
    assert isinstance(events[-1], Cancelled) and darkroom.manager.model_name == "demo"
    reads.clear()
    assert hashes(darkroom, model="demo") == expected and not reads


def test_where_memory_ends_the_others_go_before_it_is_tried_again(make, monkeypatch):
    darkroom, failed = make(), []
    expected = hashes(darkroom, model="demo")
    hashes(darkroom, model="other")
    forward = UNet.forward

    def failing(*given):
        failed.append(darkroom.manager.model_names)
        if len(failed) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*given)

    monkeypatch.setattr(UNet, "forward", failing)
    hashes(darkroom, model="other")
    assert failed[:2] == [["demo", "other"], ["other"]]
    assert hashes(darkroom, model="demo") == expected


def test_another_autoencoder_is_kept_with_its_model(make, tree, reads):
    folder = tree / "models/VAE"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    save_file(dict(AutoencoderTiny().state_dict()), folder / "tiny.safetensors")
    darkroom, fields = make(), {"vae": "tiny", "refiner": "twin", "refiner_at": 0.5, "repeat": 2}
    found = hashes(darkroom, **fields)
    assert reads.count(Autoencoder) == reads.count(TinyAutoencoder) == 1
    reads.clear()
    assert hashes(darkroom, model="twin", vae="tiny") and hashes(darkroom, model="twin")
    assert hashes(darkroom, **fields) == found
    assert not reads


class _Weights(nn.Module):
    """A network of which nothing matters but where it was moved to."""

    at = "gpu"

    def to(self, device):
        self.at = device.type
        return self


@pytest.mark.parametrize(("host_free", "at"), [(2000, "cpu"), (300, "gpu")])
def test_from_a_device_with_memory_of_its_own_parts_go_to_the_computer_s_while_it_has_room(monkeypatch, host_free, at):
    device = torch.device("cuda")
    kept, parts = Kept(device, None), [_Weights() for _ in range(3)]
    for number, part in enumerate(parts):
        kept.put(number, part, 100, device)
    monkeypatch.setattr(kept_module, "total_bytes", lambda _: 1000)
    monkeypatch.setattr(kept_module, "release_memory", lambda _: None)
    monkeypatch.setattr(
        kept_module, "free_bytes", lambda asked: host_free if asked == HOST else 300 - kept.nbytes(device)
    )
    kept.make_room(device, 150, besides=[0])
    assert [part.at for part in parts] == ["gpu", at, at]
    assert sorted(kept.find({str(k): k for k in range(3)})) == (["0", "1", "2"] if at == "cpu" else ["0"])
    assert kept.nbytes(device) == 100 and kept.idle_bytes() == (300 if at == "cpu" else 100)
    kept.put(1, parts[1], 100, device)
    assert parts[1].at in ("cuda", "gpu") and kept.nbytes(device) == 200
