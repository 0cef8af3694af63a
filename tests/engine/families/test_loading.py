"""Single files in their many spellings: scaled fp8, text encoders under other names, leftovers, damage."""

import math

import numpy as np
import pytest
import torch
from checkpoints import UNET, WORDS, small, to_ldm
from safetensors.torch import save_file

from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.files import VaeFile
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader, read_vae
from webui.engine.tokens import Tokenizer

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """Small SD 1.x and SD 2.x models in the published layout, by kind, and the folder of a tokenizer."""
    folder = tmp_path_factory.mktemp("sd1")
    made = {}
    for kind in ("sd1", "sd2"):
        pipe = small(kind, directory=folder if kind == "sd1" else None)
        sd2 = kind == "sd2"
        made[kind] = to_ldm(pipe.unet, pipe.vae, pipe.text_encoder, open_clip=sd2, extra_layer=sd2)
        hf = to_ldm(pipe.unet, pipe.vae, pipe.text_encoder)
        made[f"{kind}-hf"] = {key: value.clone() for key, value in hf.items()}
    return made, folder / "tokenizer"


@pytest.fixture
def darkroom(tensors, tmp_path, monkeypatch):
    monkeypatch.setattr("webui.engine.families.clip.CLIP_WORDS", WORDS)
    monkeypatch.setattr(Tokenizer, "clip", lambda pad=None: Tokenizer.from_folder(tensors[1]))
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))


@pytest.fixture
def write(tmp_path):
    """``write(name, tensors)``: a checkpoint."""
    folder = tmp_path / "models/Stable-diffusion"
    folder.mkdir(parents=True)
    return lambda name, tensors: save_file(
        {key: value.contiguous().clone() for key, value in tensors.items()}, folder / f"{name}.safetensors"
    )


def draw(darkroom, name, **fields) -> tuple[np.ndarray, tuple[str, ...]]:
    quick = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 5}
    events = list(darkroom.generate(Request(**(quick | {"model": name} | fields))))
    assert isinstance(events[-1], Done)
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int), events[-1].warnings


@pytest.mark.parametrize("spelling", ["weight_scale", "scale_weight"])
def test_scaled_fp8_draws_what_its_weights_times_their_scales_draw(darkroom, write, tensors, spelling):
    """In all three parts: UNet, text encoder and autoencoder."""
    scaled, whole = {"scaled_fp8": torch.zeros(2).to(FP8)}, {}
    for key, weight in tensors[0]["sd1"].items():
        whole[key] = weight
        if key.endswith(".weight") and weight.dim() > 1:
            scale = weight.abs().max() / 448
            scaled[key] = (weight / scale).to(FP8)
            scaled[key.removesuffix("weight") + spelling] = scale
            whole[key] = scaled[key].float() * scale
        else:
            scaled[key] = weight
    write("scaled", scaled)
    write("whole", whole)
    picture, warnings = draw(darkroom, "scaled")
    assert (picture == draw(darkroom, "whole")[0]).all() and warnings == ()


@pytest.fixture(scope="module")
def usual_pictures():
    """Those of each kind under its usual names, once they have been drawn."""
    return {}


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("sd2", "conditioner.embedders.0.model."),
        ("sd2-hf", "cond_stage_model.transformer."),
        ("sd2-hf", "conditioner.embedders.0.transformer."),
        ("sd2-hf", "text_encoder."),
        ("sd2", "text_encoders.clip_h."),
        ("sd1", "conditioner.embedders.0.transformer."),
        ("sd1", "text_encoders.clip_l.transformer."),
    ],
)
def test_a_text_encoder_is_found_under_each_of_its_names(darkroom, write, tensors, usual_pictures, kind, start):
    usual, base = "cond_stage_model.transformer." if kind != "sd2" else "cond_stage_model.model.", kind[:3]
    if base not in usual_pictures:
        write("usual", tensors[0][base])
        usual_pictures[base] = draw(darkroom, "usual")[0]
    write("other", {key.replace(usual, start): value for key, value in tensors[0][kind].items()})
    picture, warnings = draw(darkroom, "other")
    assert (picture == usual_pictures[base]).all()
    assert warnings == (), "nobody lent one, and nothing was left over"


def test_a_file_that_is_gone_is_named_without_its_folder(darkroom, write, tensors, tmp_path):
    write("gone", tensors[0]["sd1"])
    file = darkroom.plan(Request(model="gone")).stages[0].model
    file.path.unlink()
    words = "gone.safetensors cannot be read: No such file or directory"
    with pytest.raises(CannotLoad) as caught:
        ModelLoader(file, (), torch.float32)
    assert str(caught.value) == f"model 'gone' cannot be loaded: {words}"
    with pytest.raises(CannotLoad) as caught:
        read_vae(
            VaeFile("gone", file.path), Checkpoint("SD 1.x", "ldm", (), 4, 768, 512), torch.float32, torch.device("cpu")
        )
    assert str(caught.value) == f"VAE 'gone' cannot be used: {words}"


def test_keys_that_nothing_reads_are_said_with_an_example(darkroom, write, tensors):
    base, more = tensors[0]["sd1"], torch.zeros(3)
    write("plain", base | {"model_ema.decay": more, "first_stage_model.loss.logvar": more, "junk": more})
    write("gligen", base | {f"{UNET}position_net.linears.0.bias": more, f"{UNET}position_net.linears.2.bias": more})
    assert draw(darkroom, "plain")[1] == ()
    expected = "gligen: 2 keys match nothing in its UNet and did nothing, for example "
    assert draw(darkroom, "gligen")[1] == (f"{expected}{UNET}position_net.linears.0.bias.",)


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (f"{UNET}out.2.weight", "UNet"),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "text encoder"),
        ("first_stage_model.decoder.conv_out.weight", "VAE"),
    ],
)
def test_a_file_that_holds_nan_is_named_with_the_part(darkroom, write, tensors, key, part):
    write("nan", tensors[0]["sd1"] | {key: torch.full_like(tensors[0]["sd1"][key], math.nan)})
    with pytest.raises(CannotLoad) as caught:
        draw(darkroom, "nan")
    words = f"model 'nan': nan.safetensors holds not-a-number values in its {part} ({key}): it is damaged"
    assert str(caught.value) == words


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_missing_tensor_is_bad_input_that_names_it(darkroom, write, tensors, kind):
    write("less", {key: value for key, value in tensors[0][kind].items() if key != f"{UNET}out.2.weight"})
    with pytest.raises(RequestError, match=rf"model 'less' cannot be loaded: less.safetensors lacks {UNET}out.2.weigh"):
        draw(darkroom, "less")
