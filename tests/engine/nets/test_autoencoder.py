"""Our autoencoders against diffusers' own: same names, same numbers; and in tiles."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.weights import build_empty
from webui.library.library import DEMO_MODEL

CLOSE = 1e-4  # of the range of values, in float32


def config_of(*channels: int, **others) -> dict:
    kinds = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
    return {
        "block_out_channels": list(channels),
        "norm_num_groups": 4,
        **{name: kind * len(channels) for name, kind in kinds.items()},
        **others,
    }


def picture_of(width: int, height: int, rows: int = 1) -> torch.Tensor:
    """Smooth colours with an edge, (rows, 3, height, width) in -1..1."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    colours = torch.stack([(x + y).sin(), (x * y).cos(), torch.where(x > 1.3, 0.5, -0.5)])
    return torch.stack([colours.roll(row, 0) for row in range(rows)])


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() < CLOSE * (theirs.max() - theirs.min()).clamp(min=1)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of pictures in -1..1, in dB."""
    return float(10 * torch.log10(4 / (one.float() - other.float()).square().mean()))


def demo(kind: type):
    """The demo model's autoencoder, read by diffusers or by us."""
    if kind is AutoencoderKL:
        return AutoencoderKL.from_pretrained(DEMO_MODEL / "vae").eval()
    vae = build_empty(lambda: Autoencoder(json.loads((DEMO_MODEL / "vae/config.json").read_text())))
    (file,) = (DEMO_MODEL / "vae").glob("*.safetensors")
    vae.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()}, assign=True)
    return vae


@pytest.mark.parametrize(
    "config",
    [
        config_of(8, 16, layers_per_block=2),
        config_of(8, 8, 12, 16, latent_channels=6),
        config_of(16, 8, 8, layers_per_block=3, use_quant_conv=False, use_post_quant_conv=False),
        config_of(8, mid_block_add_attention=False, scaling_factor=0.5, unknown="ignored"),
        config_of(8, 16, in_channels=4, out_channels=4, use_quant_conv=False),
        {},
    ],
)
@torch.inference_mode()
def test_the_numbers_are_those_of_diffusers_under_its_names(config):
    torch.manual_seed(1)
    known = {name: value for name, value in config.items() if name != "unknown"}
    theirs, ours = AutoencoderKL(**known).eval(), Autoencoder(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    picture = torch.rand(2, theirs.config.in_channels, 32, 40) * 2 - 1
    expected = theirs.encode(picture).latent_dist
    mean, std = ours.encode(picture)
    assert_close(mean, expected.mean)
    assert_close(std, expected.std)
    latents = torch.randn(expected.mean.shape)
    assert_close(ours.decode(latents), theirs.decode(latents).sample)
    assert ours.block_out_channels == tuple(theirs.config.block_out_channels)
    assert ours.latent_channels == theirs.config.latent_channels == mean.shape[1]
    assert ours.scaling_factor == theirs.config.scaling_factor


@torch.inference_mode()
def test_sizes_that_are_no_multiple_of_a_latent_are_encoded_as_diffusers_does():
    theirs = AutoencoderKL(**config_of(8, 8, 8)).eval()
    ours = Autoencoder(config_of(8, 8, 8)).eval()
    ours.load_state_dict(theirs.state_dict())
    for picture in (picture_of(37, 30), picture_of(4, 5, rows=3)):
        assert_close(ours.encode(picture)[0], theirs.encode(picture).latent_dist.mean)


@torch.inference_mode()
def test_the_demo_s_one_draws_what_diffusers_draws_and_in_bfloat16_nearly_so():
    theirs, ours = demo(AutoencoderKL), demo(Autoencoder)
    picture = picture_of(128, 96, rows=2)
    expected, (mean, std) = theirs.encode(picture).latent_dist, ours.encode(picture)
    assert_close(mean, expected.mean)
    assert_close(std, expected.std)
    drawn = ours.decode(mean)
    assert_close(drawn, theirs.decode(mean).sample)
    assert psnr(drawn, picture) > 20, "it is a picture"
    ours.to(torch.bfloat16)
    assert ours.dtype == torch.bfloat16 and ours.device == torch.device("cpu")
    rough = ours.decode(mean.bfloat16())
    assert rough.dtype == torch.bfloat16 and psnr(rough, drawn) > 40


@torch.inference_mode()
def test_the_spread_of_latents_stays_finite():
    vae = Autoencoder(config_of(8, use_quant_conv=False))
    for bias, expected in ((-1e4, torch.exp(torch.tensor(-15.0))), (1e4, torch.exp(torch.tensor(10.0)))):
        vae.encoder.conv_out.bias.data.fill_(bias)
        torch.testing.assert_close(vae.encode(picture_of(8, 8))[1], expected.expand(1, 4, 8, 8))


@torch.inference_mode()
def test_the_tiny_one_draws_what_diffusers_draws():
    torch.manual_seed(2)
    theirs, ours = AutoencoderTiny().eval(), TinyAutoencoder().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for picture in (picture_of(64, 40, rows=2), picture_of(37, 30)):
        mean, std = ours.encode(picture)
        assert_close(mean, theirs.encode(picture).latents)
        assert std.shape == mean.shape and not std.any()
    latents = 4 * torch.randn(2, 4, 5, 6)
    before = latents.clone()
    assert_close(ours.decode(latents), theirs.decode(latents).sample)
    assert torch.equal(latents, before)
    assert (ours.block_out_channels, ours.latent_channels, ours.scaling_factor) == ((64,) * 4, 4, 1.0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"act_fn": "relu"}, "VAE has act_fn 'relu', which is not supported"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "has down_block_types .*Attn.*, which is not supported"),
        (
            {"up_block_types": ["UpDecoderBlock2D"]},
            "has up_block_types \\['UpDecoderBlock2D'\\], which is not supported",
        ),
        ({"norm_num_groups": 3}, "divisible"),
    ],
)
def test_what_it_cannot_do_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        Autoencoder(config_of(8, 16) | wrong)


def test_nothing_but_parameters_is_held_and_none_takes_memory_before_it_is_read():
    for vae in (build_empty(lambda: Autoencoder(config_of(8, 16))), build_empty(TinyAutoencoder)):
        assert not list(vae.buffers())
        assert {parameter.device.type for parameter in vae.parameters()} == {"meta"}


def stub(encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> Autoencoder:
    """Four levels, so 8 pixels a latent, with other networks and tiles of 16 latents."""
    vae = Autoencoder(config_of(4, 4, 4, 4, use_quant_conv=False, use_post_quant_conv=False))
    vae.encoder, vae.decoder = encoder or vae.encoder, decoder or vae.decoder
    vae.tile_latents, vae.use_tiling = 16, True
    return vae


@pytest.mark.parametrize("size", [(16, 17), (17, 16), (28, 29), (5, 60), (40, 41), (64, 33)])
def test_tiles_of_what_sees_only_its_own_place_are_the_whole(size):
    sides = []
    up, down = nn.Upsample(scale_factor=8), nn.AvgPool2d(8)
    for network in (up, down):
        network.register_forward_pre_hook(lambda module, args: sides.append((module, args[0].shape[-2:])))
    vae, latents = stub(down, up), torch.randn(2, 3, *size)
    torch.testing.assert_close(vae.decode(latents), functional.interpolate(latents, scale_factor=8))
    for odd in (0, 5):
        picture = torch.randn(2, 8, 8 * size[0] + odd, 8 * size[1] + odd)
        torch.testing.assert_close(vae.encode(picture)[0], functional.avg_pool2d(picture, 8)[:, :4])
    assert len(sides) > 3
    assert all(max(shape) <= (16 if module is up else 128) for module, shape in sides)


def test_a_tile_fades_into_the_next_over_a_quarter_of_its_side():
    class Flat(nn.Module):
        level = 0.0

        def forward(self, latents):
            self.level = 1.0 - self.level  # every other tile is white
            return torch.full((1, 3, 8 * latents.shape[-2], 8 * latents.shape[-1]), self.level)

    drawn = stub(decoder=Flat()).decode(torch.randn(1, 4, 40, 40))
    assert drawn.min() == 0 and drawn.max() == 1
    steps = torch.cat([drawn.diff(dim=2).flatten(), drawn.diff(dim=3).flatten()]).abs()
    assert steps.max() < 1.2 / 32


@torch.inference_mode()
def test_the_demo_s_one_draws_nearly_the_same_in_tiles():
    vae = demo(Autoencoder)
    picture = picture_of(200, 136)
    whole, _ = vae.encode(picture)
    drawn = vae.decode(whole)
    vae.tile_latents, vae.use_tiling = 16, True
    tiled, std = vae.encode(picture)
    assert tiled.shape == std.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()
    again = vae.decode(whole)
    assert again.shape == drawn.shape
    assert (again - drawn).abs().mean() < 0.05
    assert not torch.equal(again, drawn), "it was done in tiles"
    vae.tile_latents = 64
    assert torch.equal(vae.decode(whole), drawn), "what fits into one tile is left whole"


@torch.inference_mode()
def test_the_tiny_one_works_in_tiles_in_any_size():
    torch.manual_seed(2)
    vae, picture = TinyAutoencoder(), picture_of(205, 139)
    whole, drawn = vae.encode(picture)[0], vae.decode(latents := torch.randn(1, 4, 18, 26))
    vae.tile_latents, vae.use_tiling = 16, True
    tiled, again = vae.encode(picture)[0], vae.decode(latents)
    assert tiled.shape == whole.shape and again.shape == drawn.shape
    assert (tiled - whole).abs().mean() < 0.05 * whole.std()
    assert (again - drawn).abs().mean() < 0.05 * drawn.std()
