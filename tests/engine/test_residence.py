"""The one resident model: how it comes and goes, where its parts rest, and what happens when memory runs out."""

import gc
import math
import pydoc
import shutil
import weakref

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file
from small_darkrooms import QUICK, draw, run, save_models

from webui.core.events import Cancelled, Done, Image, Loading
from webui.core.memory import PLAN_WORDS, PLANS, Need
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import kept, residence
from webui.engine.decode import NotFinite
from webui.engine.devices import trim_heap
from webui.engine.families import loading
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader
from webui.engine.manager import OutOfMemory


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A data folder with a small SD 1.x and a small SDXL model."""
    return save_models(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make(tree, monkeypatch):
    """``make(memory="offload")``: a darkroom over these models; how far loading is, is told at every tensor."""
    monkeypatch.setattr(residence, "REPORT_EVERY_S", 0.0)
    return lambda **settings: Darkroom(Settings(**({"device": "cpu", "dtype": "float32", "data_dir": tree} | settings)))


def digest(darkroom) -> dict[str, bytes]:
    model = darkroom.manager._residence.model
    parts = {**model.components, "vae": model.vae}
    return {
        f"{part}.{name}": tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


class Alive:
    """Counts which of the objects that were added are still in memory."""

    def __init__(self, *objects: object) -> None:
        self._references = [weakref.ref(one) for one in objects]

    def add(self, one: object) -> None:
        self._references.append(weakref.ref(one))

    def count(self) -> int:
        return sum(reference() is not None for reference in self._references)


@pytest.fixture
def alive():
    """``alive(*objects)``, with no garbage collector that would hide who holds them."""
    gc.collect()
    gc.disable()
    yield Alive
    gc.enable()


class TestLoading:
    def test_progress_is_told_in_bytes_and_grows_to_the_end(self, make):
        events = [event for event in run(make(), model="sdxl") if isinstance(event, Loading)]
        fractions = [event.fraction for event in events if event.fraction]
        assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(fractions) > 50
        assert any("UNet" in event.what and "GiB" in event.what for event in events)
        assert {part for event in events for part in ("text encoder", "VAE") if part in event.what}

    @pytest.mark.parametrize("both_fit", [True, False])
    def test_cancelled_half_way_the_former_model_is_there_again(self, make, monkeypatch, both_fit):
        darkroom = make()
        before = draw(darkroom, model="sd1")
        if not both_fit:
            needed = 10 * darkroom.manager._residence._resident.need.weight_bytes
            monkeypatch.setattr(
                residence, "free_bytes", lambda _: needed if darkroom.manager._residence._resident is None else 1
            )
            monkeypatch.setattr(residence.Residence, "_choose_plan", lambda *_: "resident")
        asked = iter(range(1000))
        events = list(darkroom.generate(Request(**QUICK, model="sdxl"), lambda: next(asked) > 40))
        assert isinstance(events[-1], Cancelled)
        assert darkroom.manager.model_name == "sd1"
        monkeypatch.undo()
        assert (draw(darkroom, model="sd1") == before).all()

    def test_the_former_model_comes_back_with_the_parts_that_it_had_borrowed(self, make, tree, tmp_path, monkeypatch):
        (tmp_path / "checkpoints").mkdir()
        unet = tree / "models/Stable-diffusion/sd1/unet/diffusion_pytorch_model.safetensors"
        shutil.copy(unet, tmp_path / "checkpoints/bare.safetensors")
        darkroom = make(models_dir=(tmp_path,))
        before = draw(darkroom, model="bare")
        home = darkroom.manager._residence
        needed = 10 * home._resident.need.weight_bytes
        monkeypatch.setattr(residence, "free_bytes", lambda _: needed if home._resident is None else 1)
        monkeypatch.setattr(residence.Residence, "_choose_plan", lambda *_: "resident")
        asked = iter(range(1000))
        assert isinstance([*darkroom.generate(Request(**QUICK, model="sdxl"), lambda: next(asked) > 40)][-1], Cancelled)
        monkeypatch.undo()
        assert darkroom.manager.model_name == "bare" and {file.name for file in home.lenders} == {"sd1"}
        assert (draw(darkroom, model="bare") == before).all()

    @pytest.mark.parametrize(("least", "trimmed"), [(10**12, 0), (1, 2)])
    def test_only_a_large_decoder_finds_the_heap_trimmed(self, make, monkeypatch, least, trimmed):
        calls = []
        monkeypatch.setattr(residence, "trim_heap", lambda: calls.append(1) or trim_heap())
        monkeypatch.setattr(residence, "TRIM_FROM_BYTES", least)
        darkroom = make()
        for _ in range(2):
            draw(darkroom, model="sd1")
        assert len(calls) == trimmed

    @pytest.mark.parametrize("both_fit", [True, False])
    def test_the_former_model_stays_only_where_memory_holds_both(self, make, monkeypatch, both_fit):
        darkroom = make()
        draw(darkroom, model="sd1")
        monkeypatch.setattr(residence, "free_bytes", lambda _: 10**12 if both_fit else 1)
        monkeypatch.setattr(residence.Residence, "_choose_plan", lambda *_: "resident")
        monkeypatch.setattr(residence.Residence, "tile", lambda *_: False)
        held = {
            darkroom.manager.model_name
            for event in darkroom.generate(Request(**QUICK, model="sdxl"))
            if isinstance(event, Loading) and 0 < event.fraction < 1
        }
        assert held == {"sd1" if both_fit else None}
        assert darkroom.manager.model_name == "sdxl"

    def test_where_memory_holds_one_no_two_are_ever_in_it(self, make, monkeypatch, alive):
        """Neither the former model while the new one is read, nor what was read of it while the former comes back."""
        darkroom = make()
        draw(darkroom, model="sd1")
        needed = 10 * darkroom.manager._residence._resident.need.weight_bytes
        monkeypatch.setattr(
            residence, "free_bytes", lambda _: needed if darkroom.manager._residence._resident is None else 1
        )
        monkeypatch.setattr(residence.Residence, "_choose_plan", lambda *_: "resident")
        monkeypatch.setattr(residence.Residence, "tile", lambda *_: False)
        former, half_read, counts = alive(darkroom.manager._residence.model.network), alive(), []
        read = loading.WeightLoader.read

        def watched(filling, *args):
            half_read.add(filling.module)
            counts.append((former.count(), half_read.count() - 1))
            yield from read(filling, *args)

        monkeypatch.setattr(loading.WeightLoader, "read", watched)
        asked = iter(range(1000))
        events = list(darkroom.generate(Request(**QUICK, model="sdxl"), lambda: next(asked) > 500))
        assert isinstance(events[-1], Cancelled) and darkroom.manager.model_name == "sd1"
        assert counts[:3] == [(0, 0), (0, 1), (0, 2)], "text encoders and UNet of the new model"
        assert counts[-3:] == [(0, 0), (0, 1), (0, 2)], "and those of the former one"

    def test_after_a_failed_load_the_former_model_is_there(self, make, tree, monkeypatch, tmp_path):
        darkroom = make(models_dir=(tmp_path,))
        before = draw(darkroom, model="sd1")
        shutil.copytree(tree / "models/Stable-diffusion/sdxl", tmp_path / "checkpoints/changing")
        file = tmp_path / "checkpoints/changing/vae/diffusion_pytorch_model.safetensors"
        request = darkroom.generate(Request(**QUICK, model="changing"))
        with pytest.raises(
            CannotLoad, match="model 'changing' cannot be loaded: changing was changed while it was read"
        ):
            for event in request:
                if isinstance(event, Loading) and event.fraction > 0.5:
                    file.write_bytes(file.read_bytes() + b"more")
        assert darkroom.manager.model_name == "sd1" and (draw(darkroom, model="sd1") == before).all()

    def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_crash(self, make, tree, tmp_path):
        shutil.copytree(tree / "models/Stable-diffusion/sdxl", tmp_path / "checkpoints/shrinking")
        darkroom = make(models_dir=(tmp_path,))
        file = tmp_path / "checkpoints/shrinking/vae/diffusion_pytorch_model.safetensors"
        with pytest.raises(CannotLoad, match="was cut short while it was read"):
            for event in darkroom.generate(Request(**QUICK, model="shrinking")):
                if isinstance(event, Loading) and event.fraction > 0.1:
                    with file.open("r+b") as opened:
                        opened.truncate(2000)

    def test_a_model_whose_files_were_replaced_is_loaded_again(self, make, tree, tmp_path):
        folder = tmp_path / "checkpoints/mine"
        shutil.copytree(tree / "models/Stable-diffusion/sd1", folder)
        darkroom = make(models_dir=(tmp_path,))
        first = draw(darkroom, model="mine")
        file = folder / "unet/diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        tensors["conv_out.bias"] = tensors["conv_out.bias"] + 0.5
        save_file(tensors, file)
        events = run(darkroom, model="mine")
        assert any(isinstance(event, Loading) for event in events)
        assert abs(draw(darkroom, model="mine") - first).max() > 1

    def test_not_enough_memory_is_said_before_loading_with_the_numbers(self, make, monkeypatch):
        darkroom = make()
        before = draw(darkroom, model="sd1")
        monkeypatch.setattr(residence, "free_bytes", lambda _: 10**5)
        with pytest.raises(CannotLoad, match=r"Model “sdxl” needs \d+\.\d GiB of memory on cpu, and 0\.0 GiB are free"):
            run(darkroom, model="sdxl")
        monkeypatch.undo()
        assert darkroom.manager.model_name == "sd1" and (draw(darkroom, model="sd1") == before).all()

    def test_what_torch_keeps_of_freed_memory_is_let_go_of_before_it_is_said_to_be_missing(self, make, monkeypatch):
        darkroom, free = make(), [10**5]
        monkeypatch.setattr(residence, "free_bytes", lambda _: free[0])
        monkeypatch.setattr(residence, "release_memory", lambda _: free.__setitem__(0, 10**12))
        list(darkroom.load("sdxl"))
        assert darkroom.manager.model_name == "sdxl"

    def test_nor_is_it_taken_in_what_is_told_before_a_job_is_queued(self, make, monkeypatch):
        home = make().manager._residence
        monkeypatch.setattr(residence, "free_bytes", lambda _: 10)
        monkeypatch.setattr(residence, "spare_bytes", lambda _: 7)
        assert home.room.free_bytes == 17

    def test_nor_is_a_picture_decoded_in_tiles_for_it(self, make, monkeypatch):
        """The second picture of a size finds what the first one took."""
        darkroom = make()
        draw(darkroom, model="sd1")
        home, free = darkroom.manager._residence, [10]
        for module in (residence, kept):
            monkeypatch.setattr(module, "free_bytes", lambda _: free[0])
        monkeypatch.setattr(kept, "release_memory", lambda _: free.__setitem__(0, 10**12))
        monkeypatch.setattr(home, "device", torch.device("cuda"))
        assert not home.tile(64, 64)
        free[0] = 10
        monkeypatch.setattr(kept, "release_memory", lambda _: None)
        assert home.tile(64, 64), "where it really is short"


class TestPlans:
    """Forced on the CPU: the hooks do on it what they do on a device with memory of its own."""

    # SDXL has all of the other's parts.
    @pytest.mark.parametrize("kind", [pytest.param("sd1", marks=pytest.mark.slow), "sdxl"])
    @pytest.mark.parametrize("memory", PLANS[1:])
    def test_a_plan_changes_no_bit_of_a_picture(self, make, memory, kind):
        darkroom = make(memory=memory)
        expected = draw(make(), model=kind)
        assert (draw(darkroom, model=kind) == expected).all()
        assert (draw(darkroom, model=kind) == expected).all(), "and again"
        assert darkroom.manager._residence.plan == memory and darkroom.manager.memory_plan == PLAN_WORDS[memory]

    @pytest.mark.parametrize("memory", PLANS[1:])
    def test_loras_come_and_go_under_every_plan(self, tree, memory, random_lora, tmp_path):
        darkrooms = [
            Darkroom(Settings(device="cpu", dtype="float32", data_dir=tree, models_dir=(tmp_path,), memory=plan))
            for plan in ("resident", memory)
        ]
        plain = [draw(darkroom, model="sd1") for darkroom in darkrooms]
        (tmp_path / "Lora").mkdir()
        save_file(
            random_lora(darkrooms[0].manager._residence.model.components, only="attn"),
            tmp_path / "Lora/all.safetensors",
        )
        for loras in (("all:1",), ("all:-0.5",), (), ("all:1",)):
            one, other = (draw(darkroom, model="sd1", loras=loras) for darkroom in darkrooms)
            assert (one == other).all()
            assert bool(abs(one - plain[0]).max() > 1) == bool(loras)
        assert (plain[0] == plain[1]).all()

    @pytest.mark.parametrize("plan", PLANS)
    def test_it_is_the_largest_that_fits_into_what_is_free(self, make, monkeypatch, plan):
        darkroom = make()
        home = darkroom.manager._residence
        monkeypatch.setattr(home, "device", torch.device("cuda"))
        monkeypatch.setattr(residence, "free_bytes", lambda _: 10**12)
        loading = ModelLoader(darkroom.catalog().models["sdxl"], [], torch.float32)
        need = Need(loading.part_bytes, loading.layer_bytes, step_bytes=10**6)
        assert home._choose_plan(loading, need, need.on_device(plan)) == plan

    @pytest.mark.parametrize(("memory", "share"), [("blocks", 2), ("blocks", 3), ("sequential", 6)])
    def test_a_model_larger_than_the_memory_is_drawn_within_it(self, make, tree, monkeypatch, memory, share):
        """What computes does so with copies, whose memory is counted from outside at each change of blocks."""
        expected = draw(make(), model="sdxl")
        darkroom = make(memory=memory)
        files = (tree / "models/Stable-diffusion/sdxl").rglob("*.safetensors")
        limit = sum(file.stat().st_size for file in files) // share
        monkeypatch.setattr(residence, "free_bytes", lambda _: limit)
        list(darkroom.load("sdxl"))
        home = darkroom.manager._residence
        with home.unhooked():
            weights = [weight for module in home._resident.modules.values() for weight in module.parameters()]
            resting = {weight.untyped_storage().data_ptr() for weight in weights}
        last, most = None, 0

        def count(module, *_):
            nonlocal last, most
            own = [weight for weight in module.__dict__["_parameters"].values() if weight is not None]
            if not own or (now := own[0].untyped_storage().data_ptr()) == last:
                return
            last = now
            storages = {storage.data_ptr(): storage for storage in (weight.untyped_storage() for weight in weights)}
            assert now not in resting, "it computes with what was brought"
            most = max(most, sum(storage.nbytes() for place, storage in storages.items() if place not in resting))

        handle = torch.nn.modules.module.register_module_forward_hook(count)
        try:
            assert (draw(darkroom, model="sdxl") == expected).all()
        finally:
            handle.remove()
        assert (limit / 2 if memory == "blocks" else 0) < most <= limit


class TestOutOfMemory:
    def fail_once(self, monkeypatch, model, error: Exception, times: int = 1) -> list[int]:
        calls: list[int] = []
        predict = type(model.backbone).predict

        def failing(self, *args):
            calls.append(1)
            if len(calls) <= times:
                raise error
            return predict(self, *args)

        monkeypatch.setattr(type(model.backbone), "predict", failing)
        return calls

    def test_it_is_tried_once_more_and_people_are_told(self, make, monkeypatch):
        darkroom = make()
        expected = draw(darkroom, model="sd1")
        self.fail_once(monkeypatch, darkroom.manager._residence.model, torch.OutOfMemoryError("CUDA out of memory"))
        events = run(darkroom, model="sd1")
        assert isinstance(events[-1], Done)
        assert events[-1].warnings[0] == "Memory was short; drawn with decoding in tiles."
        (picture,) = [event.image for event in events if isinstance(event, Image)]
        assert abs(np.asarray(picture).astype(int) - expected).max() <= 1
        assert run(darkroom, model="sd1")[-1].warnings == (), "the next job is unharmed"

    FAILING = {
        "UNet": ("webui.engine.nets.unet.UNet", "forward"),
        "decoder": ("webui.engine.nets.autoencoder.Autoencoder", "decode"),
        "encoder": ("webui.engine.nets.autoencoder.Autoencoder", "encode"),
        "text encoder": ("webui.engine.nets.clip.ClipText", "forward"),
        "LoRA": ("webui.engine.lora.cache", "merge"),
    }

    @pytest.fixture(scope="class")
    def undisturbed(self, tree, random_lora, tmp_path_factory):
        """Settings with a LoRA, a request with it and a start picture, its picture, and a plain one."""
        folder = tmp_path_factory.mktemp("undisturbed")
        settings = Settings(device="cpu", dtype="float32", data_dir=tree, models_dir=(folder,))
        darkroom = Darkroom(settings)
        plain = draw(darkroom, model="sd1")
        (folder / "Lora").mkdir()
        tensors = random_lora(darkroom.manager._residence.model.components, only="attn1.to_q")
        save_file(tensors, folder / "Lora/one.safetensors")
        init = {"image": PilImages.new("RGB", (64, 64), "red"), "strength": 0.7}
        fields = {"model": "sd1", "loras": ("one:0.5",), "init": init}
        return settings, fields, draw(darkroom, **fields), plain

    @pytest.mark.parametrize(("part", "always"), [*((part, False) for part in FAILING), ("UNet", True)])
    def test_the_second_try_starts_with_the_first_one_s_memory_free(
        self, undisturbed, monkeypatch, alive, part, always
    ):
        settings, fields, expected, plain = undisturbed
        darkroom = Darkroom(settings)
        list(darkroom.load("sd1"))
        place, name = self.FAILING[part]
        owner = pydoc.locate(place)
        works, tensors, counts = getattr(owner, name), alive(), []

        def failing(*args, **options):
            counts.append(tensors.count())
            if len(counts) == 1 or always:
                held = torch.zeros(1000)
                tensors.add(held)
                tensors.add(works(*args, **options) if part == "UNet" else held)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return works(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            if always:
                with pytest.raises(OutOfMemory):
                    run(darkroom, **fields)
            else:
                assert (draw(darkroom, **fields) == expected).all()
        assert counts[:2] == [0, 0]
        assert tensors.count() == 0
        assert (draw(darkroom, model="sd1") == plain).all()

    def test_pictures_that_are_finished_are_not_drawn_again(self, make, monkeypatch):
        darkroom = make()
        expected = [event.pixels_sha256 for event in run(darkroom, model="sd1", repeat=3) if isinstance(event, Image)]
        decode = type(darkroom.manager._residence.model).decode
        calls: list[int] = []

        def failing(self, *args, **options):
            calls.append(1)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return decode(self, *args, **options)

        monkeypatch.setattr(type(darkroom.manager._residence.model), "decode", failing)
        events = run(darkroom, model="sd1", repeat=3)
        pictures = [event for event in events if isinstance(event, Image)]
        assert [picture.index for picture in pictures] == [0, 1, 2]
        assert [picture.pixels_sha256 for picture in pictures] == expected

    def test_twice_is_an_error_in_words_and_the_next_job_draws(self, make, monkeypatch):
        darkroom = make()
        expected = draw(darkroom, model="sd1")
        with monkeypatch.context() as patch:
            self.fail_once(
                patch, darkroom.manager._residence.model, torch.OutOfMemoryError("CUDA out of memory"), times=2
            )
            with pytest.raises(OutOfMemory, match="ran out of memory at 64 x 64 px, 1 at once; draw fewer or smaller"):
                run(darkroom, model="sd1")
        assert (draw(darkroom, model="sd1") == expected).all()

    def test_going_to_a_smaller_plan_and_back_changes_no_picture(self, make):
        """What a card does when memory runs out, and before the next job."""
        darkroom = make()
        expected, weights = draw(darkroom, model="sdxl"), digest(darkroom)
        for plan in (*PLANS[1:], "resident"):
            darkroom.manager._residence._move_to(plan)
            assert (draw(darkroom, model="sdxl") == expected).all()
        assert digest(darkroom) == weights


class TestNotANumber:
    def break_decoder(self, monkeypatch, model, in_float32: bool) -> None:
        decode = model.vae.decode

        def broken(latents):
            pictures = decode(latents)
            return pictures if latents.dtype == torch.float32 and not in_float32 else pictures * math.nan

        monkeypatch.setattr(model.vae, "decode", broken)

    def test_a_decode_that_overflows_is_done_again_in_float32(self, make, monkeypatch):
        darkroom = make(dtype="bfloat16")
        expected = draw(darkroom, model="sd1")
        weights = digest(darkroom)
        self.break_decoder(monkeypatch, darkroom.manager._residence.model, in_float32=False)
        assert abs(draw(darkroom, model="sd1") - expected).mean() < 3
        monkeypatch.undo()
        assert digest(darkroom) == weights and darkroom.manager._residence.model.vae.dtype == torch.bfloat16

    def test_still_not_a_number_is_an_error_that_names_the_likely_cause(self, make, monkeypatch):
        darkroom = make(dtype="bfloat16")
        draw(darkroom, model="sd1")
        self.break_decoder(monkeypatch, darkroom.manager._residence.model, in_float32=True)
        with pytest.raises(NotFinite, match="the VAE came to not-a-number values even in float32"):
            run(darkroom, model="sd1")
