"""What the resident model is drawn with besides: VAEs, embeddings, another prediction, what suits it."""

import json
import shutil

import numpy as np
import pytest
import torch
from checkpoints import small, to_ldm
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from small_darkrooms import QUICK, draw, run, save_models

from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import residence
from webui.engine.families.base import CannotLoad


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A data folder with a small SD 1.x and a small SDXL model."""
    return save_models(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make(tree, monkeypatch):
    """``make(memory="offload")``: a darkroom over these models; how far loading is, is told at every tensor."""
    monkeypatch.setattr(residence, "REPORT_EVERY_S", 0.0)
    return lambda **settings: Darkroom(Settings(**({"device": "cpu", "dtype": "float32", "data_dir": tree} | settings)))


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
        events = list(darkroom.generate(Request(prompt=QUICK["prompt"], model="tuned", width=64, height=64, seed=1)))
        request = next(event for event in events if isinstance(event, Image)).recipe.request
        assert (request.steps, request.guidance, request.sampler, request.schedule) == expected
        asked = list(darkroom.generate(Request(**QUICK, model="tuned", schedule="Default")))
        request = next(event for event in asked if isinstance(event, Image)).recipe.request
        assert (request.steps, request.guidance, request.sampler, request.schedule) == (2, 3.0, "Euler", "Default")
