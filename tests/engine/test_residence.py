"""The one resident model: how it comes and goes, where its parts rest, and what happens when memory runs out."""

import gc
import json
import math
import pydoc
import shutil
import weakref

import numpy as np
import pytest
import torch
from checkpoints import small, to_ldm
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Loading
from webui.core.memory import PLAN_WORDS, PLANS, Need
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import residence
from webui.engine.decode import NotFinite
from webui.engine.devices import trim_heap
from webui.engine.families import loading
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader
from webui.engine.manager import OutOfMemory

PROMPT = "a red apple, flat style, on a blue background"
QUICK = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 5, "guidance": 3.0, "sampler": "Euler"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A data folder with a small SD 1.x and a small SDXL model."""
    data = tmp_path_factory.mktemp("data")
    for kind in ("sd1", "sdxl"):
        small(kind, directory=data / "models/Stable-diffusion" / kind)
    return data


@pytest.fixture
def make(tree, monkeypatch):
    """``make(memory="offload")``: a darkroom over these models; how far loading is, is told at every tensor."""
    monkeypatch.setattr(residence, "REPORT_EVERY_S", 0.0)
    return lambda **settings: Darkroom(Settings(**({"device": "cpu", "dtype": "float32", "data_dir": tree} | settings)))


def run(darkroom, **fields) -> list:
    return list(darkroom.generate(Request(**(QUICK | fields))))


def draw(darkroom, **fields) -> np.ndarray:
    events = run(darkroom, **fields)
    assert isinstance(events[-1], Done)
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


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


class TestPlans:
    """Forced on the CPU: the hooks do on it what they do on a device with memory of its own."""

    @pytest.mark.parametrize("kind", ["sd1", "sdxl"])
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


class TestVae:
    @pytest.fixture
    def folder(self, tree):
        folder = tree / "models/VAE"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @pytest.fixture
    def other(self):
        """An autoencoder of the small models' shape with other weights."""
        return small("sd1", seed=9).vae

    def test_one_of_its_own_file_is_used_in_any_names_and_the_model_s_own_comes_back(self, make, folder, other):
        bare = {
            name.removeprefix("first_stage_model."): tensor.contiguous() for name, tensor in to_ldm(vae=other).items()
        }
        save_file(bare, folder / "other.safetensors")
        save_file(dict(other.state_dict()), folder / "other diffusers.safetensors")
        save_file(
            {f"first_stage_model.{name}": tensor for name, tensor in bare.items()}, folder / "other whole.safetensors"
        )
        darkroom = make()
        own = draw(darkroom, model="sd1")
        pictures = [draw(darkroom, model="sd1", vae=name) for name in ("other", "other diffusers", "other whole")]
        assert all((picture == pictures[0]).all() for picture in pictures)
        assert abs(pictures[0] - own).max() > 1
        assert (draw(darkroom, model="sd1") == own).all()

    def test_a_tiny_one_serves_in_diffusers_and_in_its_authors_names(self, make, folder):
        torch.manual_seed(3)
        tiny = AutoencoderTiny()
        state = tiny.state_dict()
        save_file(dict(state), folder / "tiny.safetensors")
        for half, shift in (("encoder", 0), ("decoder", 1)):
            own = {}
            for name, tensor in state.items():
                if name.startswith(f"{half}.layers."):
                    number, rest = name.removeprefix(f"{half}.layers.").split(".", 1)
                    own[f"{int(number) + shift}.{rest}"] = tensor.clone()
            save_file(own, folder / f"taesd_{half}.safetensors")
        darkroom = make()
        events = run(darkroom, model="sd1", vae="tiny")
        (picture,) = [event.image for event in events if isinstance(event, Image)]
        again = [event.image for event in run(darkroom, model="sd1", vae="taesd_decoder") if isinstance(event, Image)]
        assert np.array_equal(np.asarray(picture), np.asarray(again[0]))

    def test_what_is_no_autoencoder_of_this_family_is_refused_by_name(self, make, folder):
        wide = AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=16,
        )
        save_file(dict(wide.state_dict()), folder / "flux.safetensors")
        save_file({"x": torch.zeros(1)}, folder / "nothing.safetensors")
        save_file({"lora_unet_conv_in.lora_up.weight": torch.zeros(1, 1)}, folder / "lora.safetensors")
        (folder / "old.pt").write_bytes(b"pickle")
        darkroom = make()
        before = draw(darkroom, model="sd1")
        with pytest.raises(RequestError, match="'flux' is FLUX.1's VAE, which SD 1.x"):
            run(darkroom, model="sd1", vae="flux")
        with pytest.raises(CannotLoad, match="VAE 'nothing' cannot be used: nothing.safetensors holds no VAE"):
            run(darkroom, model="sd1", vae="nothing")
        with pytest.raises(CannotLoad, match="lora.safetensors is a LoRA; it belongs in the folder for LoRAs"):
            run(darkroom, model="sd1", vae="lora")
        with pytest.raises(CannotLoad, match="VAE 'old' cannot be used: old.pt is a pickle"):
            run(darkroom, model="sd1", vae="old")
        with pytest.raises(RequestError, match="no VAE “flix”; did you mean flux"):
            run(darkroom, model="sd1", vae="flix")
        assert (draw(darkroom, model="sd1") == before).all()


class TestEmbeddings:
    def test_its_name_in_the_prompt_stands_for_its_vectors(self, make, tree):
        folder = tree / "embeddings"
        folder.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(1)
        save_file({"emb_params": torch.randn(3, 64, generator=generator)}, folder / "zog.safetensors")
        save_file(
            {"clip_l": torch.randn(2, 64, generator=generator), "clip_g": torch.randn(2, 128, generator=generator)},
            folder / "zix.safetensors",
        )
        (folder / "zbad.safetensors").write_text("<html>")
        darkroom = make()
        words = draw(darkroom, model="sd1", prompt="a zug")
        assert abs(draw(darkroom, model="sd1", prompt="a zog") - words).max() > 1
        told = run(darkroom, model="sd1", prompt="a zix")[-1].warnings
        assert told == ("Embedding zix is for another kind of model and was read as plain words.",)
        assert run(darkroom, model="sdxl", prompt="a zix")[-1].warnings == ()
        assert (
            abs(draw(darkroom, model="sdxl", prompt="a zix") - draw(darkroom, model="sdxl", prompt="a zax")).max() > 1
        )

    def test_those_in_a_lora_s_file_stand_while_it_is_on(self, make, tree):
        embeddings, loras = tree / "embeddings", tree / "models/Lora"
        for folder in (embeddings, loras):
            folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(5)
        one, narrow, wide = (torch.randn(2, width, generator=generator) for width in (64, 64, 128))
        save_file({"emb_params": one}, embeddings / "zap.safetensors")
        save_file({"clip_l": narrow, "clip_g": wide}, embeddings / "zep.safetensors")
        note = {"bundle_emb.zorb.string_to_token.*": torch.tensor(265)}
        save_file({"bundle_emb.zorb.string_to_param.*": one} | note, loras / "one.safetensors")
        save_file({"bundle_emb.Zorb.clip_l": narrow, "bundle_emb.Zorb.clip_g": wide}, loras / "both.safetensors")
        darkroom = make()
        words = draw(darkroom, model="sd1", prompt="a zorb")
        on = {"model": "sd1", "loras": ("one:0.3",)}
        assert (draw(darkroom, **on, prompt="a zorb") == draw(darkroom, model="sd1", prompt="a zap")).all()
        assert abs(draw(darkroom, **on, prompt="a zorb") - words).max() > 1
        assert (draw(darkroom, model="sd1", prompt="a zorb") == words).all()
        assert run(darkroom, **on, prompt="a zorb")[-1].warnings == ()
        as_file = draw(darkroom, model="sdxl", prompt="a zep")
        assert (draw(darkroom, model="sdxl", loras=("both",), prompt="a zorb") == as_file).all()
        for loras_, told in (("one",), "LoRA"), (("both", "one"), "Several LoRAs bring an embedding called"):
            done = run(darkroom, model="sdxl", loras=loras_, prompt="a zorb")[-1]
            assert any(told in warning for warning in done.warnings)
        (embeddings / "zorb.safetensors").write_bytes((embeddings / "zep.safetensors").read_bytes())
        told = run(darkroom, **on, prompt="a zorb")[-1].warnings
        assert told == ("“zorb” stands for the embedding that a LoRA brings, not for the file.",)

    def test_one_that_cannot_be_used_is_told_and_read_as_words(self, make, tree):
        folder = tree / "embeddings"
        folder.mkdir(exist_ok=True)
        darkroom = make()
        words = draw(darkroom, model="sd1", prompt="a zbad")
        (folder / "zbad.safetensors").write_text("<html>")
        (folder / "zold.pt").write_bytes(b"pickle")
        assert (draw(darkroom, model="sd1", prompt="a zbad") == words).all()
        for name, reason in (("zbad", "zbad.safetensors is"), ("zold", "zold.pt is a pickle")):
            (told,) = run(darkroom, model="sd1", prompt=f"a {name}, a cat")[-1].warnings
            assert told.startswith(f"Embedding {name} was read as plain words: {reason}"), told
        assert run(darkroom, model="sd1", prompt="a zbadger")[-1].warnings == (), "no word of the prompt is its name"

    def test_the_usable_one_of_a_name_is_used_and_where_a_file_lies_is_a_name_too(self, make, tree):
        folder = tree / "embeddings"
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(1)
        for place in ("ztwo", "deep/ztwo"):
            save_file({"emb_params": torch.randn(3, 64, generator=generator)}, folder / f"{place}.safetensors")
        (folder / "ztwo.bin").write_bytes(b"pickle")
        darkroom = make()
        events = run(darkroom, model="sd1", prompt="a ztwo")
        told = "2 files are called “ztwo”: embeddings/ztwo was used, not deep/ztwo."
        assert events[-1].warnings == (told,)
        (picture,) = [event for event in events if isinstance(event, Image)]
        assert list(picture.recipe.hashes["embedding"]) == ["ztwo"]
        first, second = (draw(darkroom, model="sd1", prompt=f"a {name}") for name in ("ztwo", "deep/ztwo"))
        assert abs(first - second).max() > 1
        assert (draw(darkroom, model="sd1", prompt="a embeddings/ztwo") == first).all()
        (folder / "ztwo.safetensors").unlink()
        assert (draw(darkroom, model="sd1", prompt="a deep/ztwo") == second).all(), "the name that it had is kept"


class TestPrediction:
    def test_the_choice_overrides_the_file_and_the_recipe_tells_it(self, make):
        darkroom = make()
        events = run(darkroom, model="sd1")
        (picture,) = [event for event in events if isinstance(event, Image)]
        assert picture.recipe.request.prediction == "epsilon"
        own = draw(darkroom, model="sd1")
        assert (draw(darkroom, model="sd1", prediction="epsilon") == own).all()
        others = [draw(darkroom, model="sd1", prediction=name) for name in ("v", "v zero-SNR")]
        assert abs(others[0] - own).max() > 1 and abs(others[1] - others[0]).max() > 1

    def test_zero_snr_starts_from_pure_noise_or_not_at_all(self, make):
        with pytest.raises(RequestError, match="sampler 'Heun' cannot start from pure noise, as 'sd1' with zero SNR"):
            run(make(), model="sd1", prediction="v zero-SNR", sampler="Heun")


class TestDefaults:
    @pytest.mark.parametrize(
        ("scheduler", "expected"),
        [
            ("LCMScheduler", (4, 1.0, "LCM", "Default")),
            pytest.param("TCDScheduler", (4, 1.0, "TCD", "Default"), marks=pytest.mark.slow),
            ("EulerAncestralDiscreteScheduler trailing", (4, 1.0, "Euler a", "Trailing")),
            pytest.param("EulerDiscreteScheduler trailing", (4, 1.0, "Euler", "Trailing"), marks=pytest.mark.slow),
            ("DDIMScheduler trailing zero-SNR", (20, 7.0, "DPM++ 2M", "Trailing")),
            pytest.param("PNDMScheduler", (20, 7.0, "DPM++ 2M", "Default"), marks=pytest.mark.slow),
        ],
    )
    def test_what_was_not_asked_for_suits_the_model(self, make, tree, tmp_path, scheduler, expected):
        folder = tmp_path / "checkpoints/tuned"
        shutil.copytree(tree / "models/Stable-diffusion/sd1", folder)
        config = {"_class_name": scheduler.split()[0]}
        if "trailing" in scheduler:
            config["timestep_spacing"] = "trailing"
        if "zero-SNR" in scheduler:
            config |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
        darkroom = make(models_dir=(tmp_path,))
        events = list(darkroom.generate(Request(prompt=PROMPT, model="tuned", width=64, height=64, seed=1)))
        request = next(event for event in events if isinstance(event, Image)).recipe.request
        assert (request.steps, request.guidance, request.sampler, request.schedule) == expected
        asked = list(darkroom.generate(Request(**QUICK, model="tuned", schedule="Default")))
        request = next(event for event in asked if isinstance(event, Image)).recipe.request
        assert (request.steps, request.guidance, request.sampler, request.schedule) == (2, 3.0, "Euler", "Default")
