"""The UNet against diffusers' own, on small real modules."""

import pytest
import torch
from checkpoints import SMALL_UNET
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import PAGCFGIdentitySelfAttnProcessor2_0, PAGIdentitySelfAttnProcessor2_0
from stock_attention import Nag

from webui.engine.families.base import Steering
from webui.engine.families.latent import UNetBackbone
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Shortcuts

SDXL = SMALL_UNET | {
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "layers_per_block": 2,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
LCM = SMALL_UNET | {"time_cond_proj_dim": 16, "in_channels": 9}


def both(config: dict) -> tuple[UNet2DConditionModel, UNet]:
    """diffusers' module with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**config).eval().requires_grad_(False)
    ours = UNet(theirs.config).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
@pytest.mark.parametrize("config", [SMALL_UNET, SDXL, LCM], ids=["small", "sdxl", "lcm"])
@torch.inference_mode()
def test_prediction_is_diffusers(config: dict, size: tuple[int, int]) -> None:
    theirs, ours = both(config)
    latents, context = torch.randn(3, config.get("in_channels", 4), *size), torch.randn(3, 5, 24)
    timestep, more, told = torch.tensor(321), {}, {}
    if config is SDXL:
        summary, ids = torch.randn(3, 16), torch.randint(0, 1024, (3, 6)).float()
        more = {"added_cond_kwargs": {"text_embeds": summary, "time_ids": ids}}
        told = {"summary": summary, "ids": ids}
    elif config is LCM:
        guidance = torch.randn(3, 16)
        more, told = {"timestep_cond": guidance}, {"guidance": guidance}
    expected = theirs(latents, timestep, context, return_dict=False, **more)[0]
    found = ours(latents, timestep, ours.prepare(context, **told))
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
@pytest.mark.parametrize("config", [SMALL_UNET, SDXL], ids=["small", "sdxl"])
@torch.inference_mode()
def test_what_convolutions_are_given_is_known_before(config: dict, size: tuple[int, int]) -> None:
    ours = UNet(config).eval()
    latents, context = torch.randn(2, 4, *size), torch.randn(6, 5, 24)
    told = {"summary": torch.randn(6, 16), "ids": torch.rand(6, 6)} if config is SDXL else {}
    given: dict[torch.nn.Module, torch.Size] = {}
    for part in ours.modules():
        if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (3, 3):
            part.register_forward_pre_hook(lambda part, args: given.update({part: args[0].shape}))
    for perturbed in (0, 4):
        ours(latents, torch.tensor(9.5), ours.prepare(context, **told, perturbed=perturbed))
        assert dict(ours.convolved(2, 6, *size, perturbed)) == given and len(given) > 10


@pytest.mark.parametrize("config", [SMALL_UNET, SDXL], ids=["small", "sdxl"])
@torch.inference_mode()
def test_further_prompts_share_the_latents(config: dict) -> None:
    _, ours = both(config)
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(4, 5, 24)
    told = {"summary": torch.randn(4, 16), "ids": torch.rand(4, 6)} if config is SDXL else {}
    once = ours(latents, torch.tensor(9.5), ours.prepare(context, **told))
    twice = ours(torch.cat([latents, latents]), torch.tensor(9.5), ours.prepare(context, **told))
    assert torch.allclose(once, twice, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL_UNET, SDXL, LCM], ids=["small", "sdxl", "lcm"])
@torch.inference_mode()
def test_what_several_ask_can_be_asked_at_once(config: dict) -> None:
    _, ours = both(config)
    backbone, counts = UNetBackbone(ours), (1, 2)
    asked = []
    for number, count in enumerate(counts):
        told = [{"context": torch.randn(1, 5, 24)} for _ in range(2)]
        for each in told:
            each |= {"summary": torch.randn(1, 16), "ids": torch.rand(1, 6)} if config is SDXL else {}
            each |= {"guidance": torch.randn(1, 16)} if config is LCM else {}
        shown = torch.randn(count, 5, 8, 8) if config is LCM else None
        (prepared,) = backbone.prepare(told, count, shown)
        asked.append((torch.randn(count, 4, 8, 8), torch.tensor(100.0 * (number + 1)), prepared))
    seen, times, prepared = zip(*asked, strict=True)
    assert prepared[0].form == prepared[1].form
    time = torch.cat([time.expand(count) for time, count in zip(times, counts, strict=True)])
    together = backbone.predict(torch.cat(seen), time, backbone.join(prepared, counts))
    for alone, found in zip(zip(*(backbone.predict(*each) for each in asked), strict=True), together, strict=True):
        assert torch.allclose(found, torch.cat(alone), atol=1e-5)


@torch.inference_mode()
def test_what_differs_in_form_is_not_asked_at_once() -> None:
    _, ours = both(SMALL_UNET)
    backbone, context = UNetBackbone(ours), torch.randn(1, 5, 24)
    (plain,) = backbone.prepare([{"context": context}], 1)
    (longer,) = backbone.prepare([{"context": torch.randn(1, 9, 24)}], 1)
    (guided,) = backbone.prepare([{"context": context}] * 2, 1)
    (steered,) = backbone.steer([{"context": context}], 1, None, Steering(perturbed=True))
    assert len({plain.form, longer.form, guided.form}) == 3 and steered.form is None


def told_of(config: dict, rows: int) -> tuple[dict, dict]:
    """What SDXL is told besides words, for diffusers' module and for ours."""
    if config is not SDXL:
        return {}, {}
    summary, ids = torch.randn(rows, 16), torch.randint(0, 1024, (rows, 6)).float()
    return {"added_cond_kwargs": {"text_embeds": summary, "time_ids": ids}}, {"summary": summary, "ids": ids}


def take(told: dict, rows: list[int]) -> dict:
    return {name: part[rows] for name, part in told.items()}


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("config", [SMALL_UNET, SDXL], ids=["small", "sdxl"])
@torch.inference_mode()
def test_perturbed_answers_are_diffusers(config: dict, guided: bool) -> None:
    theirs, ours = both(config)
    rows = [0, 1, 2, 3, 2, 3] if guided else [0, 1, 0, 1]
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(4, 5, 24)
    told = told_of(config, 4)[1]
    more = take(told, rows)
    more = {"added_cond_kwargs": {"text_embeds": more["summary"], "time_ids": more["ids"]}} if more else {}
    for name, part in theirs.named_modules():
        if name.startswith("mid_block") and name.endswith("attn1"):
            part.processor = PAGCFGIdentitySelfAttnProcessor2_0() if guided else PAGIdentitySelfAttnProcessor2_0()
    expected = theirs(latents[[row % 2 for row in rows]], torch.tensor(321), context[rows], return_dict=False, **more)[
        0
    ]
    asked = rows[:-2]
    prepared = ours.prepare(context[asked], **take(told, asked), perturbed=2)
    for shortcuts in (None, Shortcuts(reuse=2)):
        found = ours(latents, torch.tensor(321), prepared, shortcuts)
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(found[-2:], found[-4:-2], atol=1e-3)
    again = ours(latents, torch.tensor(321), prepared, shortcuts)  # from the features that were kept
    assert torch.allclose(again, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("strengths", [(5.0, 2.5, 0.25), (9.0, 1.2, 1.0), (1.0, 2.5, 0.5)], ids=str)
@pytest.mark.parametrize("config", [SMALL_UNET, SDXL], ids=["small", "sdxl"])
@torch.inference_mode()
def test_what_attention_finds_is_pushed_away_as_in_the_paper(config: dict, strengths: tuple[float, ...]) -> None:
    theirs, ours = both(config)
    latents, context, unwanted = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 24), torch.randn(2, 7, 24)
    more, told = told_of(config, 3)
    plain = theirs(latents, torch.tensor(321), context, return_dict=False, **more)[0]
    nag = Nag(unwanted, *strengths)
    for name, part in theirs.named_modules():
        if name.endswith("attn2"):
            part.processor = nag
    expected = theirs(latents, torch.tensor(321), context, return_dict=False, **more)[0]
    prepared = ours.prepare(context, **told, against=(unwanted, torch.tensor(strengths)))
    found = ours(latents, torch.tensor(321), prepared)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    assert torch.allclose(found, plain, atol=1e-5) == (strengths[0] == 1)
    prepared = ours.prepare(context, **told, perturbed=2, against=(unwanted, torch.tensor(strengths)))
    with_both = ours(latents, torch.tensor(321), prepared)
    assert len(with_both) == 5 and torch.allclose(with_both[:3], found, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("class_embed_type", "timestep", "class_embed_type is 'timestep'"),
        ("resnet_time_scale_shift", "scale_shift", "resnet_time_scale_shift"),
        ("down_block_types", ("AttnDownBlock2D", "DownBlock2D"), "AttnDownBlock2D"),
        ("attention_head_dim", (4, 4, 4), "2 levels"),
    ],
)
def test_what_it_cannot_do_is_refused(setting: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNet(SMALL_UNET | {setting: value})
