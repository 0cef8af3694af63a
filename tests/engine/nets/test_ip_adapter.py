"""What IP-Adapters are made of against diffusers and transformers, on small random weights in their real classes."""

import diffusers
import numpy as np
import pytest
import torch
from checkpoints import SMALL_UNET
from ip_adapter_models import HEAD, as_diffusers_takes, small_adapter, small_encoder
from PIL import Image as PilImages
from transformers import CLIPImageProcessor

from webui.core.clip_vision_file import read_clip_vision
from webui.core.ip_adapter_file import look
from webui.engine.controls.image_encoder import image_encoder, shown
from webui.engine.nets.ip_adapter import IpAdapterNet
from webui.engine.nets.transformer import Attention

CLOSE = 1e-5


def photo(width: int, height: int) -> PilImages.Image:
    numbers = np.random.default_rng(3).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((width, height), PilImages.Resampling.BICUBIC)


@torch.inference_mode()
def test_an_image_encoder_sees_what_transformers_does(tmp_path):
    for number, config in enumerate(({}, {"hidden_act": "quick_gelu", "image_size": 42})):
        folder = tmp_path / str(number)
        theirs, shape = small_encoder(folder, **config), read_clip_vision(folder)
        loader = image_encoder(folder)
        assert list(loader.read(torch.float32, torch.device("cpu")))
        for size in ((70, 33), (31, 90), (42, 42)):
            side = shape.side_px
            pixels = CLIPImageProcessor(size=side, crop_size=side)(photo(*size), return_tensors="pt").pixel_values
            assert torch.allclose(shown(photo(*size), shape), pixels, atol=1e-6)
        expected = theirs(pixels, output_hidden_states=True)
        found = loader.module(pixels)
        assert torch.allclose(found.summary, expected.image_embeds, atol=CLOSE)
        assert torch.allclose(found.hidden, expected.hidden_states[-2], atol=CLOSE)
        assert found.hidden.std() > 0.1 and not torch.allclose(found.hidden, expected.hidden_states[-1], atol=0.01)


def test_a_picture_is_brought_to_the_encoder_s_square_as_it_is_asked_for(tmp_path):
    small_encoder(tmp_path)
    shape = read_clip_vision(tmp_path)
    wide = PilImages.new("RGB", (84, 28), "white")
    wide.paste("black", (0, 0, 28, 28))
    middle, whole, squeezed = (
        shown(wide, shape, resize)[0, 0] > 0 for resize in ("crop and resize", "resize and fill", "just resize")
    )
    assert middle.all()
    assert not whole[:9].any() and not whole[19:].any() and whole[14, 14] and not whole[14, 2]
    assert not squeezed[:, :8].any() and squeezed[:, 11:].all()


@pytest.mark.parametrize("form", ["plain", "plus", "full"])
@torch.inference_mode()
def test_tokens_of_a_picture_are_diffusers(form):
    theirs = diffusers.UNet2DConditionModel(**SMALL_UNET)
    adapter = small_adapter(form, theirs)
    theirs._load_ip_adapter_weights([as_diffusers_takes(adapter)])
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.items()}
    told = look(shapes)
    assert told and (told.form, told.context) == (form, SMALL_UNET["cross_attention_dim"])
    ours = IpAdapterNet(told.form, dict(told.widths), shapes)
    ours.load_state_dict(adapter, strict=True)
    seen = torch.randn((2, told.sees) if form == "plain" else (2, 5, told.sees))
    expected = theirs.encoder_hid_proj([seen[:, None]])[0][:, 0]
    assert torch.allclose(ours.image_proj(seen), expected, atol=CLOSE) and expected.std() > 0.1
    keys, values = ours(seen)[1]
    assert keys.shape == values.shape == (*expected.shape[:2], told.widths[1][1])
    assert torch.allclose(keys, expected @ adapter["ip_adapter.3.to_k_ip.weight"].T, atol=1e-4)


@torch.inference_mode()
def test_what_is_attended_to_beside_the_prompt_is_added_row_by_row():
    attention = Attention(2 * HEAD, 24, heads=2).eval()
    tokens, context = torch.randn(2, 6, 2 * HEAD), torch.randn(2, 5, 24)
    keys, values = torch.randn(2, 3, 2 * HEAD), torch.randn(2, 3, 2 * HEAD)
    prompt = attention.attend_to(context)
    alone = attention(tokens, prompt)
    assert torch.equal(alone, attention(tokens, prompt._replace(further=())))
    none = attention(tokens, prompt.with_further(keys, values * 0))
    assert torch.allclose(alone, none, atol=CLOSE)
    both = attention(tokens, prompt.with_further(keys, values).with_further(keys, 2 * values))
    thrice = attention(tokens, prompt.with_further(keys, 3 * values))
    assert torch.allclose(both, thrice, atol=1e-4) and not torch.allclose(both, alone, atol=0.1)
    again = attention.attend_to(torch.cat([context, context[1:]])).with_further(keys, values)
    rows = attention(torch.cat([tokens, tokens[1:]]), again)
    assert torch.allclose(rows[2], rows[1], atol=CLOSE)
