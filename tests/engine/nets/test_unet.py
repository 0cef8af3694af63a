"""The UNet against diffusers' own, on small real modules."""

import pytest
import torch
from checkpoints import SMALL_UNET
from diffusers import UNet2DConditionModel

from webui.engine.nets.unet import UNet

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
    ours(latents, torch.tensor(9.5), ours.prepare(context, **told))
    assert dict(ours.convolved(2, 6, *size)) == given and len(given) > 10


@pytest.mark.parametrize("config", [SMALL_UNET, SDXL], ids=["small", "sdxl"])
@torch.inference_mode()
def test_further_prompts_share_the_latents(config: dict) -> None:
    _, ours = both(config)
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(4, 5, 24)
    told = {"summary": torch.randn(4, 16), "ids": torch.rand(4, 6)} if config is SDXL else {}
    once = ours(latents, torch.tensor(9.5), ours.prepare(context, **told))
    twice = ours(torch.cat([latents, latents]), torch.tensor(9.5), ours.prepare(context, **told))
    assert torch.allclose(once, twice, atol=1e-5)


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
