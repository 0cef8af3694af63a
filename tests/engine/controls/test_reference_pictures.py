"""IP-Adapters against stock diffusers' pipelines, on small random weights in the published layout."""

from collections.abc import Iterator

import diffusers
import numpy as np
import pytest
import torch
from checkpoints import small
from ip_adapter_models import (
    adapter_shapes,
    as_diffusers_takes,
    cross_widths,
    save,
    small_adapter,
    small_encoder,
    write_header,
)
from PIL import Image as PilImages
from transformers import CLIPImageProcessor

from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.nets.clip_vision import ClipVision

SIDE, STEPS, SEED, GUIDANCE, LEVELS = 64, 3, 21, 4.0, 1
PROMPT, NEGATIVE = "a red apple, flat style, on a blue background", "green"
FORMS = ("plain", "plus", "full")
KINDS = ("sd1", "sdxl")


@pytest.fixture(scope="module")
def made(tmp_path_factory, device):
    """The folder of models, and by kind the stock pipeline with what its three adapters are."""
    data = tmp_path_factory.mktemp("data")
    encoder = small_encoder(data / "models/clip_vision/small").to(device)
    sight = {
        "image_encoder": encoder,
        "feature_extractor": CLIPImageProcessor(size=encoder.config.image_size, crop_size=encoder.config.image_size),
    }
    pipes = {}
    for kind in KINDS:
        pipe = small(kind, directory=data / "models/Stable-diffusion" / kind)
        adapters = {form: small_adapter(form, pipe.unet, seed) for seed, form in enumerate(FORMS)}
        for form, adapter in adapters.items():
            save(adapter, data / f"models/ControlNet/{kind}-{form}.safetensors")
        pipes[kind] = pipe.to(device), adapters
    return data, pipes, sight


@pytest.fixture(scope="module")
def darkroom(made, device) -> Iterator[Darkroom]:
    yield Darkroom(Settings(device=device, dtype="float32", data_dir=made[0]))


def picture(number: int = 0) -> PilImages.Image:
    numbers = np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((90, 60), PilImages.Resampling.BICUBIC)


def ask(**fields) -> Request:
    quick = {"prompt": PROMPT, "negative": NEGATIVE, "width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED}
    return Request(**(quick | {"guidance": GUIDANCE, "sampler": "DDIM", "schedule": "Default"} | fields))


def draw(darkroom, **fields) -> np.ndarray:
    events = list(darkroom.generate(ask(**fields)))
    assert isinstance(events[-1], Done)
    return np.asarray(next(event.image for event in events if isinstance(event, Image))).astype(int)


def stock(made, kind: str, forms: dict[str, float], pipeline: str = "", **options) -> np.ndarray:
    """diffusers' picture with these adapters at their weights, each with the picture of its number."""
    pipe, adapters = made[1][kind]
    pipe = (getattr(diffusers, pipeline) if pipeline else type(pipe))(**(pipe.components | made[2]))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    pipe.load_ip_adapter(
        [as_diffusers_takes(adapters[form]) for form in forms], subfolder="", weight_name=[""] * len(forms)
    )
    pipe.set_ip_adapter_scale(list(forms.values()))
    given = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "output_type": "np"}
    given |= {} if pipeline else {"width": SIDE, "height": SIDE}
    pixels = pipe(
        **(given | {"guidance_scale": GUIDANCE} | options),
        ip_adapter_image=[picture(number) for number in range(len(forms))],
        generator=torch.Generator("cpu").manual_seed(SEED),
    ).images[0]
    pipe.unload_ip_adapter()
    return (pixels * 255).round().astype(int)


def controls(kind: str, forms: dict[str, float]) -> list[dict]:
    return [
        {"model": f"{kind}-{form}", "image": picture(number), "weight": weight}
        for number, (form, weight) in enumerate(forms.items())
    ]


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        ("sd1", {"plain": 1.0}),
        ("sd1", {"full": 1.3, "plain": 0.5}),
        ("sdxl", {"plus": 0.6}),
        pytest.param("sd1", {"plus": 1.0, "full": 0.2, "plain": 0.5}, marks=slow),
        pytest.param("sdxl", {"full": 1.0}, marks=slow),
        pytest.param("sdxl", {"plain": 2.0, "plus": 1.0}, marks=slow),
    ],
    ids=str,
)
def test_a_picture_after_a_picture_is_stock_diffusers(darkroom, made, kind, forms):
    theirs = stock(made, kind, forms)
    ours = draw(darkroom, model=kind, controls=controls(kind, forms))
    assert abs(ours - theirs).max() <= LEVELS
    assert abs(ours - draw(darkroom, model=kind)).max() > 10 * LEVELS


@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=slow)])
def test_it_is_stock_diffusers_also_from_a_picture_and_within_a_mask(darkroom, made, masked):
    start, mask = picture(7).resize((SIDE, SIDE)), PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 48))
    forms, options = {"plus": 1.0}, {"image": start, "strength": 1.0 if masked else 0.7}
    options |= {"mask_image": mask, "width": SIDE, "height": SIDE} if masked else {}
    theirs = stock(made, "sd1", forms, f"StableDiffusion{'Inpaint' if masked else 'Img2Img'}Pipeline", **options)
    init = {"image": start, "strength": options["strength"], "mask_blur": 0} | ({"mask": mask} if masked else {})
    ours = draw(darkroom, model="sd1", controls=controls("sd1", forms), init=Init(**init))
    inside = np.asarray(mask) == 255 if masked else np.full((SIDE, SIDE), True)
    assert abs(ours - theirs)[inside].max() <= LEVELS
    assert abs(ours - draw(darkroom, model="sd1", init=Init(**init)))[inside].max() > 10 * LEVELS


def test_it_acts_from_start_to_end_and_at_weight_0_is_not_there(darkroom, made):
    (one,) = controls("sd1", {"plain": 1.0})
    without, whole = draw(darkroom, model="sd1"), draw(darkroom, model="sd1", controls=[one])
    late = draw(darkroom, model="sd1", controls=[one | {"start": 0.3}])
    assert abs(late - without).max() > LEVELS and abs(late - whole).max() > LEVELS
    for off in ({"weight": 0}, {"start": 0.5, "end": 0.5}):
        assert (draw(darkroom, model="sd1", controls=[one | off]) == without).all()
    hidden = draw(darkroom, model="sd1", init=Init(image=picture(), strength=1.0), controls=[one | {"image": None}])
    assert abs(hidden - draw(darkroom, model="sd1", init=Init(image=picture(), strength=1.0))).max() > LEVELS


def test_a_picture_is_seen_once_and_the_recipe_has_adapter_and_encoder(darkroom, made, monkeypatch):
    shown = []
    forward = ClipVision.forward
    monkeypatch.setattr(ClipVision, "forward", lambda self, pixels: shown.append(len(pixels)) or forward(self, pixels))
    use = [{"model": "sd1-plus", "image": picture(40), "weight": 0.9}]
    fields = {"model": "sd1", "controls": use, "count": 2}
    events = list(darkroom.generate(ask(**fields)))
    first, second = (event for event in events if isinstance(event, Image))
    assert shown and (np.asarray(first.image) != np.asarray(second.image)).any()
    before = len(shown)
    again = draw(darkroom, **fields, prompt="a green pear")
    assert len(shown) == before, "the second job has what the first one saw"
    assert abs(again - np.asarray(first.image).astype(int)).max() > LEVELS
    alone = draw(darkroom, model="sd1", controls=use)
    assert abs(alone - np.asarray(first.image).astype(int)).max() <= LEVELS
    save(
        dict(made[1]["sd1"][1]["plus"]) | {"image_proj.more": torch.zeros(1)},
        made[0] / "models/ControlNet/more.safetensors",
    )
    for _ in range(2):
        *_, done = darkroom.generate(ask(model="sd1", controls=[{"model": "more", "image": picture()}]))
        said = "Control more: 1 key has no place in its network and did nothing, for example image_proj.more."
        assert done.warnings == (said,)
    hashes = first.recipe.hashes
    assert set(hashes["control"]) == {"sd1-plus"} and set(hashes["image encoder"]) == {"small"}


def test_what_cannot_be_drawn_after_is_refused_by_name(darkroom, made):
    data = made[0]
    plain = made[1]["sd1"][1]["plain"]
    other = plain | {f"ip_adapter.1.to_{part}_ip.weight": torch.zeros(48, 64) for part in "kv"}
    save(other, data / "models/ControlNet/another.safetensors")
    wide = {name: tensor.repeat(1, 2) if name == "image_proj.proj.weight" else tensor for name, tensor in plain.items()}
    save(wide, data / "models/ControlNet/sees-more.safetensors")
    write_header(
        data / "models/ControlNet/ip-adapter_sd15.safetensors",
        adapter_shapes("plain", cross_widths(made[1]["sd1"][0].unet), context=64, sees=1024),
    )
    for name in ("ip-adapter_sdxl", "ip-adapter-faceid_sd15"):
        (data / f"models/ControlNet/{name}.bin").write_bytes(b"PK")
    own = {"model": "sd1-plain", "image": picture()}
    for control, reason in (
        ({"model": "sd1-plain"}, "no picture"),
        (own | {"model": "sdxl-plain"}, "attends to texts|SDXL"),
        (own | {"model": "another"}, "control 1: another is an IP-Adapter for another UNet"),
        (own | {"model": "sees-more"}, "needs the image encoder .* models/clip_vision"),
        (own | {"model": "ip-adapter_sd15"}, "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors in models/clip_vision"),
        (own | {"model": "ip-adapter_sdxl"}, "pickle.*ip-adapter_sdxl.safetensors"),
        (own | {"model": "ip-adapter-faceid_sd15"}, "FaceID"),
        (own | {"preprocessor": "canny"}, "takes no preprocessor"),
        (own | {"mode": "control"}, "no other mode"),
    ):
        with pytest.raises(RequestError, match=reason) as refused:
            darkroom.plan(ask(model="sd1", controls=[control]))
        assert refused.value.field.startswith("controls")


def test_a_second_pass_with_a_model_of_another_kind_is_drawn_after_no_picture(darkroom):
    hires = {"upscaler": "Lanczos", "model": "sdxl"}
    order = darkroom.plan(ask(model="sd1", hires=hires, controls=controls("sd1", {"plain": 1.0})))
    first, second = order.passes
    assert first.references and second.model.name == "sdxl" and not second.references
    assert "The controls of the first pass are left out of the second: sdxl is of another kind." in order.warnings
