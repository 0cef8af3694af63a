"""Rescaled guidance, perturbed attention, the negative prompt in attention: as diffusers and the papers draw them."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from stock_attention import Nag as StockNag

from webui.core.groups.init import Init
from webui.core.groups.nag import Nag
from webui.core.groups.pag import Pag
from webui.engine.guide import Branch, guide, perturb, rescale
from webui.workspace.preset import read_preset
from webui.workspace.presets import SHIPPED

SEED, STEPS, SIDE_PX = 11, 4, 64
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green, blurry"
QUICK = {"steps": STEPS, "sampler": "Euler", "negative": NEGATIVE}


@pytest.fixture
def stock(stock_parts):
    """``stock(kind, count, ...)``: what a pipeline of diffusers draws; its pictures as levels."""

    def draw(kind="StableDiffusionPipeline", count=1, **options):
        scheduler = diffusers.EulerDiscreteScheduler.from_config(stock_parts["scheduler"].config)
        parts = {**stock_parts, "scheduler": scheduler}
        pipeline = getattr(diffusers, kind)(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator("cpu").manual_seed(SEED + k) for k in range(count)]
        options = {"guidance_scale": 5.0, "negative_prompt": NEGATIVE, "height": SIDE_PX, "width": SIDE_PX} | options
        options |= {"num_inference_steps": STEPS, "num_images_per_prompt": count, "generator": generators}
        before = dict(pipeline.unet.attn_processors)
        try:
            return [np.asarray(picture).astype(np.int16) for picture in pipeline(PROMPT, **options).images]
        finally:
            pipeline.unet.set_attn_processor(before)

    return draw


def assert_same(ours, theirs):
    """Within 1 of 255 levels in every channel of every pixel."""
    assert [mine.shape for mine in ours] == [other.shape for other in theirs]
    assert max(abs(mine - other).max() for mine, other in zip(ours, theirs, strict=True)) <= 1
    assert all(mine.std() > 1 for mine in ours), "a picture of one colour shows nothing"


@pytest.fixture(scope="module")
def plain(draw):
    """What is drawn with none of it."""
    return draw(**QUICK)[0]


def test_rescaled_guidance_is_stock_diffusers_picture(draw, plain, stock):
    ours = draw(**QUICK, guidance_rescale=0.7, count=2)
    assert_same(ours, stock(guidance_rescale=0.7, count=2))
    assert abs(ours[0] - plain).max() > 1


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"pag": Pag(), "count": 2}, {"count": 2}),
        ({"pag": Pag(scale=4.5), "guidance": 1.0}, {"pag_scale": 4.5, "guidance_scale": 1.0}),
        ({"pag": Pag(adaptive=0.005), "guidance_rescale": 0.5}, {"pag_adaptive_scale": 0.005, "guidance_rescale": 0.5}),
    ],
    ids=["batch", "without guidance", "fading, rescaled"],
)
def test_perturbed_attention_is_stock_diffusers_picture(draw, plain, stock, fields, options):
    ours = draw(**QUICK | fields)
    assert_same(ours, stock("StableDiffusionPAGPipeline", **options))
    assert abs(ours[0] - plain).max() > 1


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_negative_prompt_in_attention_is_the_paper_s(draw, stock, stock_parts, guidance):
    with torch.inference_mode():
        tokens = stock_parts["tokenizer"](NEGATIVE, padding="max_length", return_tensors="pt").input_ids
        unwanted = stock_parts["text_encoder"](tokens.to(stock_parts["text_encoder"].device))[0]
    unet = stock_parts["unet"]
    before, nag = dict(unet.attn_processors), StockNag(unwanted.expand(2, -1, -1), 4.0, 2.5, 0.5)
    unet.set_attn_processor({name: nag if ".attn2." in name else own for name, own in before.items()})
    try:
        theirs = stock(guidance_scale=guidance, count=2)
    finally:
        unet.set_attn_processor(before)
    ours = draw(**QUICK, guidance=guidance, nag=Nag(scale=4.0), count=2)
    assert_same(ours, theirs)
    assert abs(ours[0] - draw(**QUICK, guidance=guidance)[0]).max() > 1
    assert abs(ours[0] - draw(**QUICK | {"negative": ""}, guidance=guidance, nag=Nag(scale=4.0))[0]).max() > 1


def test_what_is_turned_down_to_nothing_changes_not_one_bit(draw, plain, unet_rows):
    off = draw(**QUICK, guidance_rescale=0.0, pag=Pag(scale=0.0), nag=Nag(scale=1.0))[0]
    assert (off == plain).all() and set(unet_rows) == {(1, 2)}
    assert (draw(**QUICK, nag=Nag(alpha=0.0))[0] == plain).all()


BOTH = {"pag": Pag(), "nag": Nag(), "guidance_rescale": 0.3}


def test_a_picture_of_a_batch_is_what_it_is_alone(draw):
    both = draw(**QUICK | BOTH, count=2)
    assert_same(both[1:], draw(**QUICK | BOTH, seed=SEED + 1))


def test_terms_are_pushed_each_for_its_own_weight(draw):
    """A prompt that is said twice by half is the prompt."""
    twice = draw(**QUICK | BOTH, prompt=f"{PROMPT} :0.5 AND {PROMPT} :0.5")
    assert_same(twice, draw(**QUICK | BOTH, prompt=PROMPT))


def test_prompts_of_several_lengths_and_over_time(draw):
    """What needs several forwards, and spans, is drawn as what needs one."""
    words = ", ".join(["a red apple"] * 40)
    one = draw(**QUICK | BOTH, prompt=words, guidance=3.0)
    assert_same(draw(**QUICK | BOTH, prompt=f"[{words}:{words}:0.5]", guidance=3.0), one)


def test_it_ends_with_guidance(draw, unet_rows):
    draw(**QUICK | BOTH, guidance_until=0.5)
    assert unet_rows == [(1, 2)] * 2 + [(1, 1)] * 2
    assert_same(draw(**QUICK | BOTH, guidance_until=0.0), draw(**QUICK, guidance=1.0))


def test_with_shortcuts_and_a_start_picture_it_is_drawn_too(draw):
    start = Init(image=PilImages.effect_noise((SIDE_PX, SIDE_PX), 90).convert("RGB"), strength=0.75)
    plain = draw(**QUICK, reuse=2, token_merging=0.5, init=start)[0]
    found = draw(**QUICK | BOTH, reuse=2, token_merging=0.5, init=start)[0]
    assert abs(found - plain).max() > 1 and found.std() > 1


# ---- the maths by hand ----

U, C, D, P, Q = torch.randn(5, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
LEFT = torch.zeros(1, 1, 8, 8)
LEFT[..., :4] = 1


def test_perturbed_terms_count_where_and_as_much_as_their_own():
    branches = [Branch({}, area=LEFT), Branch({}, 0.5, 1 - LEFT)]
    found = perturb(guide(U, [C, D], branches, 3.0), [C, D], [P, Q], branches, 2.0)
    expected = U + 3 * (LEFT * (C - U) + 0.5 * (1 - LEFT) * (D - U)) + 2 * (LEFT * (C - P) + 0.5 * (1 - LEFT) * (D - Q))
    torch.testing.assert_close(found, expected)
    assert perturb(U, [], [], [], 2.0) is U


def test_rescaled_guidance_has_the_spread_of_the_prompt_s_own_answer():
    guided = guide(U, [C], [Branch({})], 7.0)
    found = rescale(guided, C, 1.0)
    torch.testing.assert_close(found.std(dim=(1, 2, 3)), C.std(dim=(1, 2, 3)))
    torch.testing.assert_close(rescale(guided, C, 0.25), 0.25 * found + 0.75 * guided)


def test_a_forecast_counts_as_many_rows_as_the_network_answers_with(darkroom, request_for, model, unwritten):
    """With a region, which is one more prompt, and each prompt's answer perturbed."""
    answered: list[int] = []

    def count(_module, args) -> None:
        answered.append(len(args[2].attended[-1].keys))

    hook = model.network.register_forward_pre_hook(count)
    region = {"box": (0, 0, 0.5, 1), "prompt": "a panda"}
    for more in ({}, {"regions": (region,)}, {"regions": (region,), "pag": Pag()}, {"guidance": 1, "pag": Pag()}):
        request = request_for(**{"steps": 1, "sampler": "Euler"} | more)
        darkroom.draw(request)
        assert answered.pop() == darkroom.plan(request).passes[0].rows and not answered
    hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strong-guidance", "out-of-nothing", "anything-but-yellow"])
def test_a_preset_that_shows_one_of_them_is_another_picture_without_it(darkroom, name):
    request = read_preset((SHIPPED / f"{name}.toml").read_bytes(), name).request()
    without = request.model_copy(update={"guidance_rescale": 0.0, "pag": None, "nag": None})
    pictures = [np.asarray(darkroom.draw(asked)[0].image).astype(int) for asked in (request, without)]
    assert abs(pictures[0] - pictures[1]).mean() > 5
