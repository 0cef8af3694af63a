"""Every family against stock diffusers' pipelines, with real components of small size."""

import shutil

import diffusers
import numpy as np
import pytest
import torch
from checkpoints import WORDS, small, to_ldm
from PIL import Image as PilImages
from safetensors.torch import save_file

from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.tokens import Tokenizer

SIDE, STEPS, SEED, GUIDANCE = 64, 5, 21, 4.0
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green"
KINDS = ("sd1", "sd2", "sdxl", "sd1-inpaint", "sd2-inpaint", "sdxl-inpaint", "sdxl-refiner")
LEVELS = 1


@pytest.fixture(scope="module")
def pipes(tmp_path_factory, device):
    """The stock pipeline of each kind, saved as a folder and as a single file in LDM's layout."""
    checkpoints = tmp_path_factory.mktemp("data") / "models/Stable-diffusion"
    made = {}
    for kind in KINDS:
        pipe = made[kind] = small(kind, directory=checkpoints / kind)
        parts = {name: getattr(pipe, name, None) for name in ("unet", "vae", "text_encoder", "text_encoder_2")}
        tensors = to_ldm(**parts, open_clip=kind.startswith("sd2"), extra_layer=kind.startswith("sd2"))
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, checkpoints / f"{kind}-ldm.safetensors"
        )
        pipe.to(device)
    return checkpoints, made


@pytest.fixture(scope="module")
def darkroom(pipes, device):
    return Darkroom(Settings(device=device, dtype="float32", data_dir=pipes[0].parents[1]))


@pytest.fixture
def small_vocabulary(monkeypatch, pipes):
    """The small text encoders know the embedded model's words, not CLIP's 49,408."""
    monkeypatch.setattr("webui.engine.families.clip.CLIP_WORDS", WORDS)
    folder = pipes[0] / "sd1/tokenizer"
    monkeypatch.setattr(Tokenizer, "clip", lambda pad=None: Tokenizer.from_folder(folder))


def draw(darkroom, **fields) -> np.ndarray:
    quick = {"prompt": PROMPT, "width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "guidance": GUIDANCE}
    events = list(darkroom.generate(Request(**(quick | {"sampler": "DDIM", "schedule": "Default"} | fields))))
    assert isinstance(events[-1], Done)
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


def stock(pipe, kind: str = "", **options) -> np.ndarray:
    """The picture of the stock pipeline with DDIM, from the noise that our seed draws."""
    if kind:
        pipe = getattr(diffusers, kind)(**pipe.components)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    given = {"prompt": PROMPT, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "np"}
    if "image" not in options or "mask_image" in options:
        given |= {"width": SIDE, "height": SIDE}
    generator = torch.Generator("cpu").manual_seed(SEED)
    pixels = pipe(**(given | {"generator": generator} | options)).images[0]
    return (pixels * 255).round().astype(int)


def photo(seed: int = 0) -> PilImages.Image:
    numbers = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def mask() -> PilImages.Image:
    image = PilImages.new("L", (SIDE, SIDE), 0)
    image.paste(255, (16, 16, 48, 48))
    return image


@pytest.mark.parametrize("negative", [pytest.param("", marks=pytest.mark.slow), NEGATIVE])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_picture_from_words_is_stock_diffusers(darkroom, pipes, kind, negative):
    theirs = stock(pipes[1][kind], negative_prompt=negative or None)
    ours = draw(darkroom, model=kind, negative=negative)
    assert abs(ours - theirs).max() <= LEVELS
    assert ours.std() > 5, "it is a picture"


def test_sdxl_counts_skipped_layers_from_the_one_it_was_trained_on(darkroom, pipes):
    """diffusers counts the layers left out, ours the one that is read; only for the prompt, therefore guidance 1."""
    theirs = stock(pipes[1]["sdxl"], clip_skip=1, guidance_scale=1.0)
    ours = draw(darkroom, model="sdxl", clip_skip=2, guidance=1.0)
    assert abs(ours - theirs).max() <= LEVELS
    assert abs(ours - draw(darkroom, model="sdxl", guidance=1.0)).max() > LEVELS


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_picture_from_a_picture_is_stock_diffusers(darkroom, pipes, kind):
    pipeline = f"StableDiffusion{'XL' * (kind == 'sdxl')}Img2ImgPipeline"
    theirs = stock(pipes[1][kind], pipeline, image=photo(), strength=0.8)
    assert abs(draw(darkroom, model=kind, init=Init(image=photo(), strength=0.8)) - theirs).max() <= LEVELS


@pytest.mark.parametrize("kind", ["sd1-inpaint", "sd2-inpaint", "sdxl-inpaint"])
def test_the_nine_channel_unets_paint_as_stock_diffusers_do(darkroom, pipes, kind):
    theirs = stock(pipes[1][kind], image=photo(), mask_image=mask(), strength=1.0)
    ours = draw(darkroom, model=kind, init=Init(image=photo(), mask=mask(), strength=1.0, mask_blur=0))
    inside = np.asarray(mask()) == 255
    assert abs(ours - theirs)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


def test_the_refiner_alone_reworks_a_picture_as_stock_diffusers_does(darkroom, pipes):
    theirs = stock(pipes[1]["sdxl-refiner"], image=photo(), strength=0.8)
    ours = draw(darkroom, model="sdxl-refiner", init=Init(image=photo(), strength=0.8))
    assert abs(ours - theirs).max() <= LEVELS


@pytest.mark.parametrize("share", [0.2, 0.6, 0.8])
def test_the_refiner_as_second_stage_is_stock_diffusers_ensemble_of_experts(darkroom, pipes, share):
    latents = stock_latents(pipes[1]["sdxl"], share)
    theirs = stock(pipes[1]["sdxl-refiner"], image=latents, denoising_start=share)
    ours = draw(darkroom, model="sdxl", refiner="sdxl-refiner", refiner_at=share)
    assert abs(ours - theirs).max() <= LEVELS
    assert abs(ours - draw(darkroom, model="sdxl")).max() > LEVELS, "it takes part"


def test_a_refiner_must_be_able_to_go_on_from_latents(darkroom):
    with pytest.raises(RequestError, match="refiner 'sdxl-inpaint' is for inpainting and cannot go on from latents"):
        draw(darkroom, model="sdxl", refiner="sdxl-inpaint")
    with pytest.raises(RequestError, match="refiner 'sd1' is SD 1.x and cannot go on with the latents of SDXL"):
        draw(darkroom, model="sdxl", refiner="sd1")


def stock_latents(pipe, share: float) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    generator = torch.Generator("cpu").manual_seed(SEED)
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "width": SIDE, "height": SIDE}
    return pipe(PROMPT, generator=generator, denoising_end=share, output_type="latent", **given).images


def test_the_refiner_leaves_one_model_behind(darkroom):
    draw(darkroom, model="sdxl", refiner="sdxl-refiner")
    assert darkroom.manager.model_name in ("sdxl", "sdxl-refiner")
    first = draw(darkroom, model="sdxl", refiner="sdxl-refiner")
    assert (draw(darkroom, model="sdxl", refiner="sdxl-refiner") == first).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_is_the_folder_bit_for_bit(darkroom, small_vocabulary, kind):
    fields = {}
    if kind.endswith("refiner"):
        fields = {"init": Init(image=photo(), strength=0.8)}
    elif kind.endswith("inpaint"):
        fields = {"init": Init(image=photo(), mask=mask(), strength=0.8)}
    prediction = "v" if kind == "sd2" else "auto"  # random weights do not show which it is
    folder = draw(darkroom, model=kind, **fields)
    of_folder = weights(darkroom)
    single = draw(darkroom, model=f"{kind}-ldm", prediction=prediction, **fields)
    of_file = weights(darkroom)
    assert of_file.keys() == of_folder.keys()
    assert all(torch.equal(tensor, of_file[name]) for name, tensor in of_folder.items())
    assert (single == folder).all()


def weights(darkroom) -> dict[str, torch.Tensor]:
    model = darkroom.manager._residence.model
    parts = {**model.components, "vae": model.vae}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def test_a_file_without_text_encoder_and_autoencoder_borrows_them_and_says_so(
    pipes, tmp_path, small_vocabulary, device
):
    checkpoints = tmp_path / "models/checkpoints"
    pipe = small("sdxl", directory=checkpoints / "whole")
    bare = to_ldm(unet=pipe.unet)
    save_file({name: tensor.contiguous() for name, tensor in bare.items()}, checkpoints / "bare.safetensors")
    save_file(dict(pipe.unet.state_dict()), checkpoints / "bare diffusers.safetensors")
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=tmp_path))
    whole = draw(darkroom, model="whole")
    for name in ("bare", "bare diffusers"):
        assert (draw(darkroom, model=name) == whole).all()
        warnings = list(darkroom.generate(Request(model=name, width=SIDE, height=SIDE, steps=1)))[-1].warnings
        missing = ("text encoder", "second text encoder", "VAE")
        assert warnings == tuple(f"{name} has no {part}; the one of whole is used." for part in missing)


def test_a_variant_and_shards_are_read_like_the_plain_file(darkroom, pipes):
    checkpoints, made = pipes
    folder = checkpoints / "variant"
    shutil.copytree(checkpoints / "sd1", folder)
    plain = folder / "unet/diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    shutil.copytree(checkpoints / "sd1", checkpoints / "shards")
    plain = checkpoints / "shards/unet/diffusion_pytorch_model.safetensors"
    plain.unlink()
    tensors = list(made["sd1"].unet.state_dict().items())
    half = len(tensors) // 2
    for number, part in enumerate((tensors[:half], tensors[half:]), start=1):
        save_file(dict(part), plain.with_name(f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"))
    expected = draw(darkroom, model="sd1")
    assert (draw(darkroom, model="variant") == expected).all()
    assert (draw(darkroom, model="shards") == expected).all()
