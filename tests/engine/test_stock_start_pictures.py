"""img2img and inpaint are stock diffusers'."""

import shutil

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image as PilImages
from start_pictures import BOX, PROMPT, SEED, SIDE_PX, STEPS, inpaint, inside, levels, noise, rectangle, start

from webui.core import images
from webui.core.events import Image
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.samplers import make_scheduler
from webui.library.library import DEMO_MODEL

WAYS = ("DPM++ 2M", "Euler a", "Heun", "PNDM", "DPM++ SDE", "LCM")
"""One of each way of stepping: a mask is put back between steps, whatever was in one."""
OTHERS = [pytest.param(sampler, marks=pytest.mark.slow) for sampler in SAMPLERS if sampler not in WAYS]


def pairs(samplers, strengths):
    """Each with the first of the others; all other pairs are slow."""
    return [
        pytest.param(
            sampler, strength, marks=() if sampler == samplers[0] or strength == strengths[0] else pytest.mark.slow
        )
        for sampler in samplers
        for strength in strengths
    ]


def draw_stock(pipeline_class, parts, model, sampler, schedule="Default", seeds=(SEED,), **options):
    """Stock diffusers with these parts of the same model; its pictures as levels."""
    scheduler = make_scheduler(sampler, schedule, model.scheduler_config)
    pipeline = pipeline_class(**{**parts, "scheduler": scheduler}, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    options = {"num_inference_steps": STEPS, "guidance_scale": 5.0} | options
    made = pipeline(PROMPT, num_images_per_prompt=len(seeds), generator=generators, **options)
    return [levels(picture) for picture in made.images]


def assert_close(ours, theirs):
    """Within 1 of 255 levels in every channel of every pixel."""
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() <= 1
    assert ours.std() > 1, "a picture of one colour shows nothing"


class TestStockImg2Img:
    @pytest.fixture
    def stock(self, stock_parts, model):
        def stock(sampler, image=None, **options):
            kind = diffusers.StableDiffusionImg2ImgPipeline
            return draw_stock(kind, stock_parts, model, sampler, image=image or noise(), **options)

        return stock

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_the_picture_is_stock_diffusers_picture(self, restart, stock, sampler):
        assert_close(restart(start(strength=0.6), sampler=sampler), stock(sampler, strength=0.6)[0])

    @pytest.mark.parametrize(
        ("sampler", "strength"), pairs(["DPM++ 2M", "Euler a", "Heun", "PNDM", "UniPC"], [0.2, 0.5, 0.8, 1.0])
    )
    def test_at_any_strength(self, restart, stock, sampler, strength):
        assert_close(restart(start(strength=strength), sampler=sampler), stock(sampler, strength=strength)[0])

    @pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler", "LMS"])
    def test_with_karras_sigmas(self, restart, stock, sampler):
        ours = restart(start(strength=0.7), sampler=sampler, schedule="Karras")
        assert_close(ours, stock(sampler, schedule="Karras", strength=0.7)[0])

    @pytest.mark.parametrize("sampler", ["DPM++ SDE", "DDIM"])
    def test_a_batch_in_another_size(self, draw, stock, sampler):
        image = noise(72, 104)
        ours = draw(init=start(image), sampler=sampler, width=None, height=None, count=2)
        theirs = stock(sampler, image=image, strength=0.6, seeds=(SEED, SEED + 1))
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)

    @pytest.mark.parametrize("guidance", [1.0, 7.5])
    def test_with_and_without_guidance(self, restart, stock, guidance):
        theirs = stock("DPM++ 2M", strength=0.6, guidance_scale=guidance)[0]
        assert_close(restart(start(), guidance=guidance), theirs)


class TestStockInpaint:
    """Four channels: what lies outside the mask is put back in latent space."""

    @pytest.fixture
    def stock(self, stock_parts, model):
        def stock(sampler, **options):
            given = {"image": noise(), "mask_image": rectangle(), "height": SIDE_PX, "width": SIDE_PX}
            given["masked_image_latents"] = torch.zeros(1, 4, SIDE_PX // 8, SIDE_PX // 8)  # else it draws more noise
            kind = diffusers.StableDiffusionInpaintPipeline
            (picture,) = draw_stock(kind, stock_parts, model, sampler, **(given | options))
            return picture

        return stock

    @pytest.mark.parametrize("sampler", [*WAYS, *OTHERS])
    def test_the_masked_part_is_stock_diffusers(self, restart, stock, sampler):
        ours = restart(inpaint(strength=0.6), sampler=sampler)
        assert_close(inside(ours), inside(stock(sampler, strength=0.6)))
        assert abs(inside(ours) - inside(restart(start(strength=0.6), sampler=sampler))).max() > 1, "as without a mask"

    @pytest.mark.parametrize(
        ("sampler", "strength"), pairs(["DPM++ 2M", "Euler a", "Heun", "PNDM", "UniPC"], [0.8, 0.5])
    )
    def test_at_other_strengths(self, restart, stock, sampler, strength):
        ours = restart(inpaint(strength=strength), sampler=sampler)
        assert_close(inside(ours), inside(stock(sampler, strength=strength)))

    def test_everything_drawn_is_stock_diffusers_before_the_picture_is_put_back(self, restart, stock, monkeypatch):
        monkeypatch.setattr("webui.core.canvas.PilImages.composite", lambda drawn, _kept, _opacity: drawn)
        assert_close(restart(inpaint(noise(seed=5)), sampler="DDIM"), stock("DDIM", image=noise(seed=5), strength=0.6))


@pytest.fixture(scope="module")
def nine_and_unet(tmp_path_factory, device):
    """A darkroom with a checkpoint whose UNet takes mask and masked picture, and diffusers' UNet of it.

    Its weights are random.
    """
    data_dir = tmp_path_factory.mktemp("nine")
    folder = data_dir / "models/Stable-diffusion/nine"
    shutil.copytree(DEMO_MODEL, folder)
    config = UNet2DConditionModel.load_config(folder / "unet")
    shutil.rmtree(folder / "unet")
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**config, "in_channels": 9}).eval()
    unet.save_pretrained(folder / "unet")
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=data_dir))
    for _ in darkroom.load("nine"):
        pass
    return darkroom, unet.to(device)


@pytest.fixture
def nine(nine_and_unet):
    return nine_and_unet[0]


class TestStockInpaintNineChannels:
    """Nine channels: the UNet is shown the mask and what lies outside it. The checkpoint decides, nobody else."""

    @pytest.fixture
    def draw_nine(self, nine, request_for):
        def draw_nine(**fields):
            asked = request_for(model="nine", **({"width": None, "height": None} | fields))
            return [levels(event.image) for event in nine.generate(asked) if isinstance(event, Image)]

        return draw_nine

    @pytest.fixture
    def stock(self, nine_and_unet, stock_parts):
        nine, unet = nine_and_unet
        parts = {**stock_parts, "unet": unet}

        def stock(sampler, **options):
            given = {"image": noise(), "mask_image": rectangle(), "height": SIDE_PX, "width": SIDE_PX}
            kind = diffusers.StableDiffusionInpaintPipeline
            (picture,) = draw_stock(kind, parts, nine.manager._residence.model, sampler, **(given | options))
            return picture

        return stock

    @pytest.mark.parametrize("sampler", [*WAYS, *OTHERS])
    def test_the_masked_part_is_stock_diffusers(self, draw_nine, stock, sampler):
        (ours,) = draw_nine(init=inpaint(strength=0.7), sampler=sampler)
        assert_close(inside(ours), inside(stock(sampler, strength=0.7)))

    @pytest.mark.parametrize(("sampler", "strength"), pairs(["Euler a", "UniPC"], [0.8, 0.5]))
    def test_at_other_strengths(self, draw_nine, stock, sampler, strength):
        (ours,) = draw_nine(init=inpaint(strength=strength), sampler=sampler)
        assert_close(inside(ours), inside(stock(sampler, strength=strength)))

    def test_the_mask_and_the_masked_picture_are_what_it_is_shown(self, draw_nine, nine, unwritten):
        seen = []
        hook = nine.manager._residence.model.network.register_forward_pre_hook(
            lambda _module, args: seen.append(args[0])
        )
        draw_nine(init=inpaint(), sampler="DDIM")
        hook.remove()
        assert {tuple(one.shape[1:]) for one in seen} == {(9, 8, 8)}
        expected = np.zeros((8, 8))
        expected[3:7, 2:6] = 1
        assert all(np.array_equal(row, expected) for row in seen[0][:, 4].cpu().numpy())
        hidden = noise()
        hidden.paste((99, 99, 99), BOX)  # what lies under the mask must not matter
        again = []
        hook = nine.manager._residence.model.network.register_forward_pre_hook(
            lambda _module, args: again.append(args[0])
        )
        draw_nine(init=inpaint(hidden), sampler="DDIM")
        hook.remove()
        assert torch.equal(seen[0][:, 4:], again[0][:, 4:])

    def test_without_a_mask_it_is_shown_a_picture_that_is_masked_all_over(self, draw_nine, stock):
        (ours,) = draw_nine(init=start(strength=0.6), sampler="Euler")
        assert_close(ours, stock("Euler", mask_image=PilImages.new("L", (64, 64), 255), strength=0.6))

    def test_without_a_picture_too(self, draw_nine, stock):
        (ours,) = draw_nine(width=64, height=64, sampler="Euler")
        assert_close(ours, stock("Euler", mask_image=PilImages.new("L", (64, 64), 255), strength=1.0))

    @pytest.mark.parametrize("options", [{"mask_blur": 4}, {"only_masked": True, "padding": 8}])
    def test_what_lies_outside_is_the_input_bit_for_bit(self, draw_nine, options):
        image = noise(128, 128)
        mask = rectangle((48, 48, 80, 80), (128, 128))
        (ours,) = draw_nine(init=start(image, mask=mask, **options), sampler="Euler")
        untouched = levels(images.blur(mask, options.get("mask_blur", 4))) == 0
        assert np.array_equal(ours[untouched], levels(image)[untouched])
        assert abs(ours[52:76, 52:76] - levels(image)[52:76, 52:76]).max() > 1

    def test_a_batch_is_its_pictures_alone(self, draw_nine):
        batch = draw_nine(init=inpaint(), count=2, seed=40, sampler="Euler a")
        alone = [draw_nine(init=inpaint(), seed=seed, sampler="Euler a")[0] for seed in (40, 41)]
        assert [abs(one - other).max() <= 1 for one, other in zip(batch, alone, strict=True)] == [True, True]
        assert abs(inside(batch[0]) - inside(batch[1])).max() > 1
