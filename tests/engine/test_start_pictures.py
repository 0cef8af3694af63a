"""img2img and inpaint: exact where exactness is promised, and nothing encoded twice."""

import threading

import diffusers
import numpy as np
import psutil
import pytest
import torch
from cachetools import LRUCache
from PIL import Image as PilImages
from start_pictures import BOX, SIDE_PX, STEPS, inpaint, inside, levels, noise, rectangle, start

from webui.core import images
from webui.core.events import Cancelled, Done, Image, Step
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.samplers import SAMPLERS
from webui.engine import latents
from webui.engine.encoding import picture_nbytes

CPU = torch.device("cpu")
WAYS = ("DPM++ 2M", "Euler a", "Heun", "PNDM", "DPM++ SDE", "LCM")
"""One of each way of stepping."""


@pytest.fixture
def encoded_pictures(model):
    """(width, height) of every picture that went through the autoencoder's encoder so far."""
    sizes: list[tuple[int, int]] = []
    hook = model.vae.encoder.register_forward_pre_hook(
        lambda _module, args: sizes.append((args[0].shape[-1], args[0].shape[-2]))
    )
    yield sizes
    hook.remove()


@pytest.fixture
def latent_sizes(model, unwritten):
    """(width, height) of every input of the UNet so far."""
    sizes: list[tuple[int, int]] = []
    hook = model.network.register_forward_pre_hook(
        lambda _module, args: sizes.append((args[0].shape[-1], args[0].shape[-2]))
    )
    yield sizes
    hook.remove()


class TestExactness:
    @pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "Heun"])
    @pytest.mark.parametrize("mask_blur", [0, 8])
    def test_a_mask_that_is_white_all_over_is_img2img(self, restart, sampler, mask_blur):
        white = PilImages.new("L", (SIDE_PX, SIDE_PX), 255)
        masked = restart(start(mask=white, mask_blur=mask_blur), sampler=sampler)
        assert np.array_equal(masked, restart(start(), sampler=sampler))

    @pytest.mark.parametrize(
        "options", [{}, {"only_masked": True}, {"mask_fill": "noise"}, {"resize": "latent resize"}]
    )
    def test_a_mask_that_is_black_all_over_is_the_input(self, restart, options, unet_rows):
        black = PilImages.new("L", (SIDE_PX, SIDE_PX))
        assert np.array_equal(restart(start(mask=black, **options)), levels(noise()))
        assert unet_rows == [], "nothing was to be drawn"

    def test_only_the_masked_part_of_nothing_is_the_input_in_its_odd_size(self, restart):
        image = noise(101, 77)
        black = PilImages.new("L", (101, 77))
        assert np.array_equal(restart(start(image, mask=black, only_masked=True)), levels(image))

    @pytest.mark.parametrize("options", [{}, {"mask": rectangle()}, {"mask": rectangle(), "only_masked": True}])
    def test_strength_0_is_the_input(self, restart, options, unet_rows):
        assert np.array_equal(restart(start(strength=0, **options)), levels(noise()))
        assert unet_rows == []

    @pytest.mark.parametrize(
        "sampler", [pytest.param(s, marks=() if s in WAYS else pytest.mark.slow) for s in SAMPLERS]
    )
    def test_a_strength_below_one_step_is_the_last_step_of_finer_ones(self, restart, sampler, unet_rows):
        init = start(strength=0.05)
        coarse, fine = restart(init, sampler=sampler, steps=3), restart(init, sampler=sampler, steps=20)
        assert np.array_equal(coarse, fine)
        assert len(unet_rows) == 2 * (2 if sampler == "PNDM" else 1)

    def test_the_smaller_the_strength_the_nearer_is_the_picture(self, restart):
        drawn = [restart(start(strength=strength), steps=4, sampler="Euler") for strength in (0.02, 0.1, 0.2, 0.25, 1)]
        moved = [abs(picture - levels(noise())).mean() for picture in drawn]
        assert moved == sorted(moved) and len(set(moved)) == len(moved), moved

    def test_a_strength_that_is_too_small_for_the_sampler_is_said(self, run):
        def warnings(strength, **fields):
            return run(init=start(strength=strength), width=None, height=None, **fields)[-1].warnings

        assert warnings(0.02, sampler="LCM", steps=4) == warnings(1 / 150, steps=4) == ()
        assert warnings(0.01, sampler="LCM", steps=4) == ("Strength 0.01 is less than LCM can take; drawn at 0.02.",)
        assert warnings(1e-6, steps=4) == ("Strength 1e-06 is less than DPM++ 2M can take; drawn at 0.0067.",)

    def test_every_picture_of_a_job_without_strength_is_there(self, run):
        events = run(init=start(strength=0), width=None, height=None, count=2, repeat=2)
        assert [type(event) for event in events] == [Image] * 4 + [Done]
        assert [event.seed for event in events[:-1]] == [11, 12, 13, 14]

    @pytest.mark.parametrize(
        ("sampler", "init"),
        [
            ("DPM++ 2M SDE", start()),
            ("Euler a", inpaint(mask_blur=4)),
            ("PNDM", inpaint(only_masked=True)),
            ("DPM++ 2M SDE", inpaint(mask_blur=4)),
        ],
    )
    def test_the_same_seed_twice_is_the_same_picture(self, restart, sampler, init):
        first, again, other = (restart(init, sampler=sampler, seed=seed) for seed in (3, 3, 4))
        assert np.array_equal(first, again) and abs(first - other).max() > 1

    def test_a_picture_that_was_encoded_before_is_drawn_the_same(self, restart, darkroom, monkeypatch):
        warm = restart(start())
        monkeypatch.setattr(darkroom.manager._encoder, "_pictures", LRUCache(10**8, getsizeof=picture_nbytes))
        assert np.array_equal(restart(start()), warm)

    @pytest.mark.parametrize(
        "options",
        [
            {"mask_blur": 0},
            {"mask_blur": 4, "mask_fill": "fill"},
            {"mask_blur": 4, "mask_fill": "noise"},
            {"mask_blur": 4, "invert_mask": True},
            {"mask_blur": 4, "only_masked": True, "padding": 16},
            {"mask_blur": 4, "only_masked": True, "invert_mask": True},
            {"mask_blur": 4, "outpaint": (16, 0, 0, 8)},
            {"mask_blur": 4, "outpaint": (16, 0, 0, 8), "mask": None},
            {"mask_blur": 4, "outpaint": (0, 24, 0, 0), "only_masked": True, "mask": None},
        ],
        ids=str,
    )
    def test_what_lies_outside_the_blurred_mask_is_the_input_bit_for_bit(self, restart, options):
        size = (101, 120) if options.get("only_masked") else (96, 120)
        image = noise(*size, seed=2)
        mask = rectangle((24, 40, 56, 72), size, level=255 if options.get("invert_mask") else 180)
        init = start(image, **({"mask": mask, "strength": 1.0} | options))
        ours = restart(init, sampler="Euler", steps=3)
        sides = init.outpaint
        whole = levels(images.extend(image, sides)) if any(sides) else levels(image)
        reach = np.zeros(whole.shape[:2], bool)
        if init.mask is not None:
            marked = levels(mask) > 0
            reach[sides[1] : sides[1] + size[1], sides[0] : sides[0] + size[0]] = marked ^ init.invert_mask
        if any(sides):
            overlap = init.mask_blur
            old = np.ones(whole.shape[:2], bool)
            old[
                sides[1] + (overlap if sides[1] else 0) : sides[1] + size[1] - (overlap if sides[3] else 0),
                sides[0] + (overlap if sides[0] else 0) : sides[0] + size[0] - (overlap if sides[2] else 0),
            ] = False
            reach |= old
        blurred = levels(images.blur(PilImages.fromarray(reach.astype(np.uint8) * 255), init.mask_blur))
        assert ours.shape == whole.shape
        assert (blurred == 0).sum() > 100 and (blurred == 255).sum() > 100
        assert np.array_equal(ours[blurred == 0], whole[blurred == 0])
        assert (abs(ours - whole).max(axis=2)[blurred == 255] > 0).mean() > 0.9, "hardly anything was drawn"


class TestMasks:
    @pytest.mark.parametrize("sampler", ["DPM++ 2M", "DDIM"])
    def test_grey_changes_less_than_white_and_more_than_black(self, restart, sampler):
        ramp = PilImages.linear_gradient("L").resize((SIDE_PX, SIDE_PX))
        smooth = PilImages.merge("RGB", (ramp.point(lambda v: v // 4), ramp, PilImages.new("L", ramp.size, 200)))
        changes = []
        for level in (0, 64, 128, 192, 255):
            init = inpaint(smooth, mask=rectangle(level=level), strength=1.0)
            changes.append(abs(inside(restart(init, sampler=sampler, steps=8)) - inside(levels(smooth))).mean())
        autoencoder_s = 4  # levels by which going through it alone can differ
        assert changes[0] == 0 < changes[1]
        assert all(more > less - autoencoder_s for less, more in zip(changes, changes[1:], strict=False)), changes
        assert changes[1] < 0.6 * changes[4] and changes[2] < 0.9 * changes[4], changes

    def test_what_the_masked_part_starts_from_matters(self, restart):
        fills = ("fill", "original", "noise", "nothing")
        drawn = [inside(restart(inpaint(mask_fill=fill, strength=0.5), sampler="DDIM")) for fill in fills]
        for k, one in enumerate(drawn):
            assert one.std() > 1
            assert all(abs(one - other).mean() > 1 for other in drawn[k + 1 :]), fills[k]

    @pytest.mark.parametrize("fill", ["fill", "noise", "nothing"])
    def test_what_was_there_is_gone_unless_it_was_to_be_kept(self, restart, fill):
        """The same surroundings, something else under the mask."""
        other = noise()
        other.paste(noise(32, 32, seed=9), BOX[:2])
        one, two = (restart(inpaint(image, mask_fill=fill, strength=0.5), sampler="DDIM") for image in (noise(), other))
        kept = [
            restart(inpaint(image, mask_fill="original", strength=0.5), sampler="DDIM") for image in (noise(), other)
        ]
        difference, by_picture = abs(one - two), abs(kept[0] - kept[1])
        assert inside(difference).mean() < 0.8 * inside(by_picture).mean()

    def test_an_inverted_mask_is_the_mask_s_negative(self, restart):
        negative = PilImages.fromarray(255 - np.asarray(rectangle()))
        inverted = restart(inpaint(invert_mask=True))
        assert np.array_equal(inverted, restart(inpaint(mask=negative)))
        assert np.array_equal(inside(inverted), inside(levels(noise())))

    def test_only_the_masked_part_is_drawn_at_the_size_asked_for_and_put_back(
        self, restart, latent_sizes, encoded_pictures, model
    ):
        image = noise(120, 101, seed=4)
        mask = rectangle((40, 40, 72, 64), (120, 101))
        ours = restart(start(image, mask=mask, only_masked=True, padding=4), width=96, height=72)
        scale = model.latent_scale
        assert set(latent_sizes) == {(96 // scale, 72 // scale)} and set(encoded_pictures) <= {(96, 72)}
        assert ours.shape == (101, 120, 3)
        assert abs(ours[44:60, 44:68] - levels(image)[44:60, 44:68]).mean() > 1

    def test_a_red_apple_in_the_middle_of_blue_is_red_and_the_rest_is_as_blue_as_before(self, restart):
        blue = PilImages.new("RGB", (128, 128), (40, 70, 200))
        mask = rectangle((32, 32, 96, 96), (128, 128))
        init = Init(image=blue, mask=mask, strength=1.0, mask_fill="noise")
        ours = restart(init, steps=20, prompt="a red apple, flat style, on a blue background", seed=1)
        redness = (ours[..., 0] - ours[..., 2])[48:80, 48:80].mean()
        assert redness > (40 - 200) + 80, redness
        untouched = levels(images.blur(mask, init.mask_blur)) == 0
        assert np.array_equal(ours[untouched], levels(blue)[untouched])


class TestSizes:
    def test_the_size_is_the_picture_s_own_to_the_nearest_8(self, restart):
        assert restart(start(noise(101, 77)), steps=2).shape == (80, 104, 3)

    @pytest.mark.parametrize("resize", ["just resize", "crop and resize", "resize and fill"])
    def test_another_size_is_resampled_before_it_is_encoded(self, restart, encoded_pictures, resize):
        assert restart(start(noise(seed=6), resize=resize), width=96, height=72, steps=2).shape == (72, 96, 3)
        assert encoded_pictures == [(96, 72)]

    def test_latent_resize_enlarges_what_was_encoded(self, restart, encoded_pictures, latent_sizes):
        ours = restart(start(noise(seed=7), resize="latent resize"), width=96, height=72, steps=2)
        assert ours.shape == (72, 96, 3)
        assert encoded_pictures == [(SIDE_PX, SIDE_PX)] and set(latent_sizes) == {(12, 9)}

    @pytest.mark.parametrize("init", [start(), inpaint(mask_blur=4)])
    def test_picture_k_of_a_batch_is_the_picture_of_its_seed_alone(self, draw, init):
        fields = {"init": init, "sampler": "DPM++ SDE", "width": None, "height": None}
        batch = draw(seed=40, count=2, **fields)
        alone = [draw(seed=seed, **fields)[0] for seed in (40, 41)]
        assert [abs(one - other).max() <= 1 for one, other in zip(batch, alone, strict=True)] == [True, True]
        assert abs(batch[0] - batch[1]).max() > 1

    @pytest.mark.parametrize(("strength", "taken"), [(0.01, 1), (0.5, 3), (0.99, 5), (1.0, 6)])
    @pytest.mark.parametrize("sampler", ["Euler", "Heun"])
    def test_the_strength_is_the_share_of_the_steps_that_is_taken(self, run, strength, taken, sampler):
        events = run(init=start(strength=strength), sampler=sampler)
        steps = [event for event in events if isinstance(event, Step)]
        assert {step.total for step in steps} == {taken} and steps[-1].index == taken


class TestImagePath:
    @pytest.mark.parametrize("size", [(64, 64), (200, 104)])
    def test_between_the_decoded_picture_and_the_tensor_is_one_copy_of_the_pixels(self, monkeypatch, tmp_path, size):
        """Pillow hands its pixels out as bytes, once, and these very bytes are what crosses to the device."""
        noise(*size).save(tmp_path / "a.png")
        taken, crossing = [], []
        tobytes, from_numpy = PilImages.Image.tobytes, torch.from_numpy
        for method in ("copy", "convert", "resize", "crop", "transpose"):
            monkeypatch.setattr(PilImages.Image, method, lambda *_args, **_kwargs: pytest.fail("another copy"))
        monkeypatch.setattr(PilImages.Image, "tobytes", lambda *args: taken.append(tobytes(*args)) or taken[-1])
        monkeypatch.setattr(torch, "from_numpy", lambda array: crossing.append(array) or from_numpy(array))
        opened = images.open_image(tmp_path / "a.png")
        tensor = latents.to_tensor(images.ensure_multiple_of_8(images.to_rgb(opened)), CPU)
        (pixels,), (array,) = taken, crossing
        assert len(pixels) == array.nbytes == 3 * size[0] * size[1]
        assert np.shares_memory(array, np.frombuffer(pixels, np.uint8))
        assert tensor.shape == (1, 3, size[1], size[0]) and tensor.is_contiguous()

    def test_every_level_goes_to_its_place_between_minus_1_and_1(self):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        picture = PilImages.fromarray(np.dstack([ramp, ramp.T, 255 - ramp]))
        tensor = latents.to_tensor(picture, CPU)
        expected = np.asarray(picture).astype(np.float64).transpose(2, 0, 1)[None] / 127.5 - 1
        assert tensor.dtype == torch.float32 and abs(tensor.numpy() - expected).max() < 1e-6
        assert (tensor.min(), tensor.max()) == (-1, 1)

    def test_it_is_what_diffusers_makes_of_a_picture(self):
        stock = diffusers.image_processor.VaeImageProcessor(vae_scale_factor=8).preprocess(noise())
        assert abs(latents.to_tensor(noise(), CPU) - stock).max() < 1e-6

    def test_the_picture_given_is_not_written_to(self, restart):
        image, mask = noise(), rectangle()
        before = images.pixels_sha256(image), images.pixels_sha256(mask)
        restart(inpaint(image, mask=mask))
        restart(inpaint(image, mask=mask, only_masked=True, mask_fill="fill"))
        assert (images.pixels_sha256(image), images.pixels_sha256(mask)) == before


class TestEncodeCache:
    @pytest.fixture(autouse=True)
    def fresh(self, darkroom, monkeypatch):
        monkeypatch.setattr(darkroom.manager._encoder, "_pictures", LRUCache(10**8, getsizeof=picture_nbytes))

    @pytest.mark.parametrize("make", [start, inpaint])
    def test_what_the_picture_does_not_depend_on_does_not_encode_it_again(self, restart, encoded_pictures, make):
        restart(make(strength=0.5), steps=2)
        assert len(encoded_pictures) == 1
        for strength, fields in (
            (0.5, {"prompt": "something else"}),
            (0.9, {}),
            (0.5, {"seed": 99}),
            (0.5, {"sampler": "DDIM"}),
            (0.5, {"guidance": 1.0, "steps": 3}),
        ):
            restart(make(strength=strength), **({"steps": 2} | fields))  # a new object, the same pixels
        assert len(encoded_pictures) == 1

    @pytest.mark.parametrize(
        ("options", "fields"),
        [
            ({"image": noise(seed=1)}, {}),
            ({"mask": rectangle((8, 8, 40, 40))}, {}),
            ({"mask_fill": "fill"}, {}),
            ({"invert_mask": True}, {}),
            ({"only_masked": True, "padding": 0}, {"width": 64, "height": 64}),
            ({}, {"width": 72, "height": 72}),
        ],
        ids=["image", "mask", "mask_fill", "invert_mask", "only_masked", "size"],
    )
    def test_what_it_does_depend_on_does(self, restart, encoded_pictures, options, fields):
        first = restart(inpaint(), steps=2)
        other = restart(inpaint(**options), steps=2, **fields)
        assert len(encoded_pictures) == 2
        assert first.shape != other.shape or abs(first - other).max() > 1

    def test_a_turned_picture_and_another_palette_are_other_pictures(self, restart):
        turned = noise()
        turned.getexif()[0x0112] = 3
        upright, upside_down = restart(start(strength=0)), restart(start(turned, strength=0))
        assert np.array_equal(upside_down, upright[::-1, ::-1])

    def test_two_pictures_in_turn_are_both_kept(self, restart, encoded_pictures):
        for seed in (1, 2, 1, 2, 1):
            restart(start(noise(seed=seed)), steps=2)
        assert len(encoded_pictures) == 2

    def test_it_holds_no_more_bytes_than_it_may(self, restart, darkroom, monkeypatch, encoded_pictures):
        restart(start(), steps=1)
        ((canvas, encoded),) = darkroom.manager._encoder._pictures.values()
        assert encoded.nbytes >= 2 * 4 * 4 * 8 * 8, "mean and deviation, four channels of floats"
        each = canvas.nbytes + encoded.nbytes
        monkeypatch.setattr(darkroom.manager._encoder, "_pictures", LRUCache(int(2.5 * each), getsizeof=picture_nbytes))
        for seed in range(5):
            restart(start(noise(seed=seed)), steps=1)
            assert darkroom.manager._encoder._pictures.currsize <= 2.5 * each
        assert len(darkroom.manager._encoder._pictures) == 2
        encoded_pictures.clear()
        restart(start(noise(seed=4)), steps=1)
        assert encoded_pictures == []

    def test_a_picture_too_large_to_keep_is_drawn_all_the_same(self, restart, darkroom, monkeypatch):
        expected = restart(start(), steps=2)
        monkeypatch.setattr("webui.engine.encoding.CACHED_PICTURE_BYTES", 100)
        monkeypatch.setattr(darkroom.manager._encoder, "_pictures", LRUCache(100, getsizeof=picture_nbytes))
        assert np.array_equal(restart(start(), steps=2), expected)
        assert len(darkroom.manager._encoder._pictures) == 0

    def test_memory_does_not_grow_with_the_pictures_that_were_given(self, darkroom, monkeypatch):
        """The region that is drawn is small; the picture that it is put back into is not."""
        limit = 32 * 2**20
        monkeypatch.setattr(darkroom.manager._encoder, "_pictures", LRUCache(limit, getsizeof=picture_nbytes))
        monkeypatch.setattr("webui.engine.encoding.CACHED_PICTURE_BYTES", limit)
        process, size = psutil.Process(), (1600, 1200)
        mask = rectangle((700, 500, 764, 564), size)

        def draw_one(level) -> int:
            image = PilImages.new("RGB", size, (level, 90, 90))
            init = Init(image=image, mask=mask, only_masked=True, strength=0.3)
            list(darkroom.generate(Request(prompt="a cat", steps=4, seed=1, width=64, height=64, init=init)))
            return process.memory_info().rss

        settled = max(draw_one(level) for level in range(4))
        grown = max(draw_one(level) for level in range(4, 28)) - settled
        assert grown < 100 * 2**20, f"{grown / 2**20:.0f} MB for 24 pictures of 8 MB"


class TestCancel:
    @pytest.mark.parametrize("init", [start(strength=1.0), inpaint(strength=1.0)])
    def test_it_acts_before_the_next_step_and_the_next_job_is_unharmed(
        self, darkroom, run, request_for, init, unet_rows
    ):
        expected = [event.pixels_sha256 for event in run(init=init, sampler="Euler") if isinstance(event, Image)]
        unet_rows.clear()
        cancel, events = threading.Event(), []
        for event in darkroom.generate(request_for(init=init, sampler="Euler"), cancel.is_set):
            events.append(event)
            if isinstance(event, Step) and event.index == 2:
                cancel.set()
        assert events[-1] == Cancelled(2, STEPS) and len(unet_rows) == 2
        assert not any(isinstance(event, Image) for event in events)
        again = [event.pixels_sha256 for event in run(init=init, sampler="Euler") if isinstance(event, Image)]
        assert again == expected
