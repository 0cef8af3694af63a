"""Faster and less exact, where it is asked for: how much less is computed, and how near the picture stays."""

import copy
import shutil
import threading

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from PIL import ImageDraw
from safetensors.torch import save_file

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Step
from webui.core.groups.init import Init
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.cpu import int8
from webui.engine.cpu.int8 import INSTRUCTIONS, capabilities
from webui.engine.nets import encoder
from webui.engine.nets.tiny import TinyAutoencoder

PROMPT = "a red apple, flat style, on a blue background"
STEPS = 6
OFF = {"guidance_until": 1.0, "reuse": 1, "token_merging": 0.0}
LEVERS = {
    "guidance": {"guidance_until": 0.75},
    "reuse": {"reuse": 2},
    "merging": {"token_merging": 0.5},
    "all": {"guidance_until": 0.8, "reuse": 2, "token_merging": 0.25},
}
EACH = pytest.mark.parametrize("lever", LEVERS)
SOME = pytest.mark.parametrize(  # what is kept from step to step, and all together
    "lever", [pytest.param(lever, marks=() if lever in ("reuse", "all") else pytest.mark.slow) for lever in LEVERS]
)
NATIVE = {"width": 128, "height": 128, "steps": 12}
LEAST_PSNR_DB = 18.0


def psnr_db(picture: np.ndarray, reference: np.ndarray) -> float:
    error = np.square((picture - reference).astype(float)).mean()
    return 10 * np.log10(255**2 / error) if error else np.inf


def scene() -> PilImages.Image:
    picture = PilImages.new("RGB", (64, 64), "skyblue")
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill="tomato")
    return picture


def mask() -> PilImages.Image:
    picture = PilImages.new("L", (64, 64), 0)
    ImageDraw.Draw(picture).rectangle((16, 16, 48, 48), fill=255)
    return picture


STARTS = {
    "txt2img": {},
    "batch": {"count": 2},
    "img2img": {"init": Init(image=scene(), strength=0.7)},
    "inpaint": {"init": Init(image=scene(), mask=mask(), strength=1.0, mask_blur=0)},
}


@pytest.fixture
def whole_runs(model, unwritten):
    """One entry for each forward that went all the way to the UNet's innermost layers: its rows."""
    rows: list[int] = []
    hook = model.network.mid_block.resnets[0].register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


@pytest.fixture
def attending_tokens(model, unwritten):
    """How many tokens each self-attention had so far."""
    counts: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, args: counts.append(args[0].shape[1]))
        for name, module in model.network.named_modules()
        if name.endswith("attn1.to_q")
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.fixture(scope="module")
def exact_pictures():
    """Those of each start, once they have been drawn."""
    return {}


EVERYWHERE = [(lever, start) for lever in LEVERS for start in STARTS]
SEVERAL = [pair for pair in EVERYWHERE if pair[0] != "all" and pair[1] != "txt2img"]


@pytest.mark.parametrize(
    ("lever", "start"),
    [pytest.param(*pair, marks=pytest.mark.slow) if pair in SEVERAL else pair for pair in EVERYWHERE],
)
def test_each_changes_the_picture_a_little_and_always_in_the_same_way(draw, exact_pictures, lever, start):
    given = NATIVE | STARTS[start]
    if start not in exact_pictures:
        exact_pictures[start] = draw(**given)
    fast = draw(**given, **LEVERS[lever])
    for before, picture in zip(exact_pictures[start], fast, strict=True):
        assert LEAST_PSNR_DB < psnr_db(picture, before) < np.inf
    if not STARTS[start]:  # the bits of the others are those of the frozen loop, in test_same_bits
        assert (draw(**given, **LEVERS[lever])[0] == fast[0]).all()


@EACH
def test_switched_off_they_change_nothing_and_leave_nothing_behind(draw, lever):
    exact = draw()
    draw(**LEVERS[lever])
    assert (draw(**OFF)[0] == exact[0]).all()


@EACH
def test_a_picture_of_a_batch_is_that_of_its_seed_alone(draw, lever):
    batch = draw(count=2, seed=11, **LEVERS[lever])
    assert abs(batch[1] - draw(seed=12, **LEVERS[lever])[0]).max() <= 1


@EACH
def test_what_was_given_up_is_said(run, lever):
    fields = LEVERS[lever]
    (warning,) = run(**fields)[-1].warnings
    assert warning.startswith("Approximate: ") and len(warning.split(", ")) == len(fields)
    assert run(**OFF)[-1].warnings == ()


@SOME
def test_loras_come_and_go_as_ever(draw, lever):
    plain = draw(**LEVERS[lever])
    changed = draw(**LEVERS[lever], loras=("night:1",))
    assert abs(changed[0] - plain[0]).max() > 1
    assert (draw(**LEVERS[lever])[0] == plain[0]).all()


@SOME
def test_stop_acts_and_the_next_picture_is_whole(darkroom, request_for, draw, lever):
    plain = draw(**LEVERS[lever])
    cancel, events = threading.Event(), []
    for event in darkroom.generate(request_for(**LEVERS[lever]), cancel.is_set):
        events.append(event)
        if isinstance(event, Step) and event.index == 3:
            cancel.set()
    assert events[-1] == Cancelled(3, STEPS)
    assert (draw(**LEVERS[lever])[0] == plain[0]).all()


@pytest.mark.skipif(not any(map(capabilities().get, INSTRUCTIONS)), reason="nothing computes in 8 bits here")
@pytest.mark.skipif(torch.cuda.is_available(), reason="it is for CPUs")
def test_int8_changes_the_picture_a_little_always_in_the_same_way_and_leaves_nothing(draw, run, model, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_PRODUCTS", 0)  # the picture is small
    few = {"steps": 3}
    exact, night = draw(**few)[0], draw(**few, loras=("night:1",))[0]
    events = run(**few, int8=True, count=2)
    assert events[-1].warnings == ("Approximate: int8.",)
    fast = [np.asarray(event.image).astype(int) for event in events if isinstance(event, Image)]
    assert 30 < psnr_db(fast[0], exact) < np.inf
    changed = draw(**few, int8=True, loras=("night:1",))[0]  # from the merged weights, which took the others' place
    assert psnr_db(changed, night) > 30 > psnr_db(changed, exact)
    assert all((one == other).all() for one, other in zip(draw(**few, int8=True, count=2), fast, strict=True))
    assert (draw(**few)[0] == exact).all()
    assert not any("_rounded" in vars(part) for part in model.network.modules())


def test_int8_is_refused_where_nothing_computes_in_it(run, darkroom, monkeypatch):
    monkeypatch.setattr(darkroom.manager._residence, "no_int8", "this processor has no instructions for it")
    with pytest.raises(RequestError, match="^int8: this processor has no instructions for it$") as refused:
        run(int8=True)
    assert refused.value.field == "int8" and refused.value.mend.value is False


class TestGuidanceUntil:
    def test_after_it_the_prompt_goes_on_alone(self, run, unet_rows):
        run(guidance_until=0.5)
        assert unet_rows == [(1, 2)] * 3 + [(1, 1)] * 3

    def test_in_a_batch_too(self, run, unet_rows):
        run(guidance_until=0.34, count=3)
        assert unet_rows == [(3, 6)] * 2 + [(3, 3)] * 4

    def test_a_start_picture_s_share_is_that_of_its_own_steps(self, run, unet_rows):
        run(guidance_until=0.5, steps=8, init=Init(image=scene(), strength=0.5))
        assert unet_rows == [(1, 2)] * 2 + [(1, 1)] * 2

    def test_at_0_it_is_the_picture_without_guidance(self, draw, unet_rows):
        assert (draw(guidance_until=0.0)[0] == draw(guidance=1.0)[0]).all()
        assert unet_rows == [(1, 1)] * 2 * STEPS

    def test_prompts_of_different_length_are_asked_apart_until_then(self, run, unet_rows):
        run(guidance_until=0.5, prompt=", ".join(["a red apple"] * 40))
        assert unet_rows == [(1, 1)] * 2 * 3 + [(1, 1)] * 3

    def test_without_guidance_there_is_nothing_to_give_up(self, run):
        assert run(guidance_until=0.5, guidance=1.0)[-1].warnings == (
            "“Stop guidance after” has no effect at guidance 1.",
        )


class TestReuse:
    @pytest.mark.parametrize(("reuse", "whole"), [(1, 6), (2, 3), (3, 2), (5, 2), (10, 1)])
    def test_so_many_steps_are_whole(self, run, whole_runs, reuse, whole):
        run(reuse=reuse)
        assert len(whole_runs) == whole

    def test_each_batch_begins_with_a_whole_one(self, run, whole_runs):
        run(reuse=10, repeat=3)
        assert len(whole_runs) == 3

    def test_it_begins_anew_where_guidance_ends(self, run, whole_runs):
        run(reuse=10, guidance_until=0.5)
        assert whole_runs == [2, 1]

    def test_each_half_has_its_own_where_the_prompts_differ_in_length(self, draw, whole_runs):
        long = {"prompt": ", ".join(["a red apple"] * 40)}
        fast = draw(reuse=2, **NATIVE, **long)
        assert whole_runs == [1] * NATIVE["steps"]
        assert psnr_db(fast[0], draw(**NATIVE, **long)[0]) > LEAST_PSNR_DB

    def test_more_of_it_is_further_from_the_exact_picture(self, draw):
        exact, *fast = (draw(reuse=reuse, steps=20)[0] for reuse in (1, 2, 5))
        near, far = (psnr_db(picture, exact) for picture in fast)
        assert near > far > 10


class TestTokenMerging:
    def test_fewer_tokens_attend(self, run, attending_tokens):
        run(width=128, height=128, steps=1)
        exact = list(attending_tokens)
        attending_tokens.clear()
        run(width=128, height=128, steps=1, token_merging=0.75)
        assert exact == [64, 16, 64, 64] and attending_tokens == [16, 16, 16, 16]


class TestRefiner:
    def test_guidance_ends_at_the_same_step_and_features_are_its_own(
        self, tmp_path, clone_demo, request_for, monkeypatch, device, unwritten
    ):
        clone_demo(tmp_path / "models/Stable-diffusion/second", own=("unet",))
        darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=tmp_path))
        rows: list[int] = []
        through = encoder.Walk.through
        monkeypatch.setattr(
            encoder.Walk, "through", lambda walk, block: (rows.append(walk.rows), through(walk, block))[1]
        )

        def draw(**fields) -> np.ndarray:
            rows.clear()
            events = list(darkroom.generate(request_for(**({"refiner": "second", "refiner_at": 0.5} | fields))))
            assert isinstance(events[-1], Done)
            unused = "The refiner drew nothing: no step was left for it."
            assert (unused in events[-1].warnings) is (fields.get("refiner_at") == 1)
            return next(np.asarray(event.image).astype(int) for event in events if isinstance(event, Image))

        draw(refiner_at=1)
        exact = draw()
        assert rows == [2] * STEPS
        fast = draw(guidance_until=0.7, reuse=5)
        assert rows == [2, 2, 1]  # at the start, with the refiner, without guidance
        assert 8 < psnr_db(fast, exact) < np.inf


def test_a_tiny_autoencoder_is_said_to_be_approximate(tmp_path, request_for, device):
    (tmp_path / "models/VAE").mkdir(parents=True)
    torch.manual_seed(0)
    save_file(TinyAutoencoder().state_dict(), tmp_path / "models/VAE/taesd.safetensors")
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=tmp_path))
    done = list(darkroom.generate(request_for(vae="taesd", reuse=2)))[-1]
    assert done.warnings == ("Approximate: step caching every 2 steps, a tiny VAE.",)


class TestFewSteps:
    """LCM's and TCD's samplers with a LoRA of the form in which LCM's are published; its weights are random."""

    LAYERS = "attn|proj_in|proj_out|ff.net|resnets|samplers"

    @pytest.fixture
    def lcm_lora(self, darkroom, model, random_lora):
        folder = darkroom.settings.data_dir / "models/Lora"
        folder.mkdir(parents=True)
        tensors = random_lora({"backbone": model.network}, 4, self.LAYERS, size=0.05)
        downs = [key for key in tensors if key.endswith("lora_down.weight")]
        alphas = {key.replace("lora_down.weight", "alpha"): torch.tensor(4.0) for key in downs}
        save_file(tensors | alphas, folder / "lcm.safetensors")
        yield folder / "lcm.safetensors"
        shutil.rmtree(folder)

    @pytest.fixture
    def stock(self, stock_parts, lcm_lora, model):
        """``stock(sampler, steps, guidance)``: what diffusers draws with that LoRA."""
        parts = {**stock_parts, "unet": copy.deepcopy(stock_parts["unet"])}
        pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_lora_weights(lcm_lora.parent, weight_name=lcm_lora.name)

        def draw(sampler: str, steps: int, guidance: float) -> np.ndarray:
            scheduler = getattr(diffusers, SAMPLERS[sampler].scheduler)
            pipeline.scheduler = scheduler.from_config(model.scheduler_config)
            options = {"num_inference_steps": steps, "guidance_scale": guidance, "height": 64, "width": 64}
            generator = torch.Generator("cpu").manual_seed(11)
            (picture,) = pipeline(PROMPT, generator=generator, **options).images
            return np.asarray(picture).astype(int)

        return draw

    @pytest.mark.parametrize(("sampler", "steps", "guidance"), [("LCM", 4, 1.0), ("LCM", 8, 2.0), ("TCD", 4, 1.5)])
    def test_the_picture_is_stock_diffusers_picture(self, run, stock, unet_rows, sampler, steps, guidance):
        events = run(sampler=sampler, steps=steps, guidance=guidance, loras=("lcm",))
        (ours,) = [np.asarray(event.image).astype(int) for event in events if isinstance(event, Image)]
        assert unet_rows == [(1, 1 if guidance <= 1 else 2)] * steps
        assert events[-1].warnings == (f"Approximate: few steps with {sampler}.",)
        assert abs(ours - stock(sampler, steps, guidance)).max() <= 1
        (plain,) = [
            event.image for event in run(sampler=sampler, steps=steps, guidance=guidance) if isinstance(event, Image)
        ]
        assert abs(ours - np.asarray(plain)).max() > 1

    @pytest.mark.parametrize("sampler", ["LCM", "TCD"])
    def test_it_goes_with_shortcuts(self, draw, lcm_lora, sampler):
        quick = {"sampler": sampler, "steps": 4, "guidance": 2.0, "loras": ("lcm",)}
        exact, fast = draw(**quick), draw(**quick, guidance_until=0.5, reuse=2)
        assert 8 < psnr_db(fast[0], exact[0]) < np.inf
