"""A family that is two rows, made here, does all that families do: nothing else of the product knows of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file
from torch import nn

from webui.core import kinds
from webui.core.errors import RequestError
from webui.core.events import Image
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.kinds.kind import Defaults, Kind, Traits
from webui.core.request import LoraRef, Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import families
from webui.engine.families.base import Backbone, Posterior
from webui.engine.families.family import Family, LatentFormat, Part, Spelling

SIDE_PX, STEPS, SHIFT = 64, 4, 3.0
PROMPT = "a red apple"


class Net(nn.Module):
    """Says of noisy latents where they flow to, with words as a colour."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, 4)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv.weight.dtype

    def forward(self, latents, time, context):
        return self.conv(latents) + self.words(context.mean(1))[:, :, None, None] * (1 + time / 1000)


class Spy(Backbone):
    rows: list[int] = []

    def __init__(self, net) -> None:
        self.run = net

    def prepare(self, conditionings, count, shown=None):
        return [[told["context"] for told in conditionings]]

    def predict(self, latents, time, prepared, shortcuts=None):
        self.rows.append(len(prepared))
        return [self.run(latents, time, context).float() for context in prepared]


class Mosaic:
    """Latents are the mean colours of 8 x 8 px, and how bright they are."""

    scale, use_tiling, px_bytes = 8, False, 12

    def __init__(self, vae) -> None:
        self._vae = vae

    def encode(self, picture):
        mean = self._vae.take(nn.functional.avg_pool2d(picture, 8))
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, latents, in_float32=False):
        return nn.functional.interpolate(self._vae.give(latents), scale_factor=8.0).clamp(-1, 1)


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.take, self.give = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)


def encode(parts, text, options):
    ids = torch.tensor([list(text.encode()) or [0]])
    return {"context": parts["text_encoder"](ids)}


def spellings(path, _root):
    yield Spelling(path)
    yield Spelling(f"blocks.{path}")


KIND = Kind(
    name="Toy",
    parts=("text_encoder", "backbone", "vae"),
    latents="Toy",
    recognise=lambda header: TRAITS if "net.conv.weight" in header.shapes else None,
    native_px=SIDE_PX,
    prediction="flow",
    defaults=Defaults(STEPS, 4.0, "Euler"),
    lacks=frozenset({"clip skip", "embeddings", "emphasis"}),
)
TRAITS = Traits((("text_encoder", "words."), ("backbone", "net."), ("vae", "vae.")))
TOY = Family(
    kinds=("Toy",),
    parts=(
        Part(
            "text_encoder", "text encoder", lambda _: nn.Embedding(256, 8), lambda *_: {}, lora_prefixes=("lora_te_",)
        ),
        Part("backbone", "transformer", lambda _: Net(), lambda *_: {}, lora_prefixes=("net_",), spellings=spellings),
        Part("vae", "autoencoder", lambda _: Vae(), lambda *_: {}, changeable=False),
    ),
    latents=LatentFormat(4, ((0.2, 0.1, 0.3),) * 4),
    scheduler=lambda _checkpoint, _said: {"prediction_type": "flow_prediction", "shift": SHIFT},
    encode=encode,
    backbone=lambda parts: Spy(parts["backbone"]),
    autoencoder=lambda parts: Mosaic(parts["vae"]),
    lone_vae=lambda *_: None,
)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(4)
    whole = nn.ModuleDict({"words": nn.Embedding(256, 8), "net": Net(), "vae": Vae()})
    return whole.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory, weights):
    """A darkroom with the model "toy" and LoRAs for it and for SD 1.x; the two rows are all that is registered."""
    patch = pytest.MonkeyPatch()
    patch.setattr("webui.library.checkpoint.KINDS", (*kinds.KINDS, KIND))
    patch.setitem(kinds._BY_NAME, "Toy", KIND)
    patch.setattr(families, "FAMILIES", (*families.FAMILIES, TOY))
    data = tmp_path_factory.mktemp("toy")
    for folder in ("Stable-diffusion", "Lora"):
        (data / "models" / folder).mkdir(parents=True)
    save_file(weights.state_dict(), data / "models/Stable-diffusion/toy.safetensors")
    pair = {"lora_A": torch.ones(1, 8) * 0.3, "lora_B": torch.ones(4, 1)}
    for name, key in (("warm", "net.blocks.words"), ("other", "lora_unet_down_blocks_0_attentions_0_attn2_to_k")):
        tensors = {f"{key}.{end}.weight": tensor for end, tensor in pair.items()}
        save_file(
            tensors | ({"x.alpha": torch.ones(1)} if name == "warm" else {}), data / f"models/Lora/{name}.safetensors"
        )
    other = {"down": torch.ones(4, 768), "up": torch.ones(8, 4)}
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{key}.lora_{end}.weight": one for end, one in other.items()}, data / "models/Lora/other.safetensors")
    yield Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))
    patch.undo()


@pytest.fixture
def draw(toy):
    def draw(**fields) -> np.ndarray:
        Spy.rows.clear()
        request = Request(**{"model": "toy", "prompt": PROMPT, "seed": 7} | fields)
        (picture,) = [event.image for event in toy.generate(request) if isinstance(event, Image)]
        return np.asarray(picture).astype(np.int16)

    return draw


def by_hand(weights, guidance):
    """Euler over flow, as in its equation."""
    parts = SimpleNamespace(**{name: weights[name] for name in ("words", "net", "vae")})
    told = [parts.words(torch.tensor([list(text.encode()) or [0]])) for text in (PROMPT, "")]
    latents = torch.randn(1, 4, SIDE_PX // 8, SIDE_PX // 8, generator=torch.Generator().manual_seed(7))
    even = np.linspace(1, 1 / STEPS, STEPS)
    sigmas = [*(SHIFT * even / (1 + (SHIFT - 1) * even)).tolist(), 0.0]
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        flow, without = (parts.net(latents, torch.tensor(sigma * 1000), context) for context in told)
        latents = latents + (following - sigma) * (without + guidance * (flow - without))
    picture = nn.functional.interpolate(parts.vae.give(latents), scale_factor=8.0).clamp(-1, 1)
    return ((picture[0] / 2 + 0.5) * 255).round().permute(1, 2, 0).numpy().astype(np.int16)


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_it_draws_what_its_equation_says_with_what_suits_it(draw, weights, guidance):
    drawn = draw(guidance=guidance) if guidance == 1 else draw()
    assert drawn.shape == (SIDE_PX, SIDE_PX, 3) and len(Spy.rows) == STEPS
    assert set(Spy.rows) == {1 if guidance == 1 else 2}
    with torch.no_grad():
        assert abs(drawn - by_hand(weights, guidance)).max() <= 1


@pytest.mark.parametrize("sampler", ["Heun", "DPM++ 2M", "UniPC", "LCM"])
def test_other_samplers_draw_it(draw, sampler):
    assert draw(sampler=sampler, steps=6).std() > 0


def test_loras_go_on_and_off_bit_for_bit(draw):
    plain, warm = draw(), draw(loras=(LoraRef(name="warm", weight=1.0),))
    assert not np.array_equal(plain, warm) and np.array_equal(plain, draw())
    moving = draw(prompt=f"{PROMPT}<lora:warm:0@0,1@1>")
    assert not np.array_equal(moving, plain) and not np.array_equal(moving, warm)


def test_it_begins_with_pictures_keeps_what_no_mask_covers_and_draws_again_larger(draw):
    start = PilImages.new("RGB", (SIDE_PX, SIDE_PX), "navy")
    mask = PilImages.new("L", start.size, 0)
    mask.paste(255, (0, 0, 32, 64))
    nearly = draw(init=Init(image=start, strength=0.3), steps=10)
    assert nearly.shape == (SIDE_PX, SIDE_PX, 3)
    painted = draw(init=Init(image=start, mask=mask, strength=1.0))
    assert (painted[:, 48:] == np.asarray(start)[:, 48:]).all() and painted[:, :24].std() > 0
    assert draw(hires=Hires(upscaler="Latent", scale=2)).shape == (128, 128, 3)


def test_what_it_cannot_do_is_refused_by_its_name(toy, draw):
    for fields, field, reason in (
        ({"clip_skip": 2}, "clip_skip", "Toy, as 'toy' is, has no clip skip"),
        ({"sampler": "Euler a"}, "sampler", "'Euler a' cannot draw with 'toy', which predicts flow; .*Euler"),
        ({"schedule": "Karras"}, "schedule", "“Karras” does not go with 'toy'"),
        ({"prediction": "v"}, "prediction", "Toy, as 'toy' is, has no choice of prediction"),
        ({"refiner": "demo"}, "refiner", "is SD 1.x and cannot go on with the latents of Toy"),
    ):
        with pytest.raises(RequestError, match=reason) as caught:
            toy.plan(Request(model="toy", **fields))
        assert caught.value.field == field
    with pytest.raises(RequestError, match="'other' is made for SD 1.x, but this model is Toy"):
        draw(loras=(LoraRef(name="other", weight=1.0),))
    (order,) = [toy.plan(Request(model="toy", prompt="a (red:1.4) apple"))]
    assert "Toy has no emphasis: brackets are plain words." in order.warnings


def test_its_recipe_is_verified(toy):
    request = Request(model="toy", prompt=PROMPT, seed=3)
    first, again = ([event for event in toy.generate(request) if isinstance(event, Image)][0] for _ in range(2))
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert first.recipe.request.prediction == "auto"
