"""A step with a control: a ControlNet, a T2I-Adapter, an IP-Adapter, beside stock diffusers' own and a step without.

The demo model in float32 with random controls of its own size, of which diffusers and this product have the same
weights. Ways take turns in one process; what is counted is processor time from the first step's end to the last one's,
as the page draws, with its previews, and without them.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image as PilImages
from PIL.Image import Image as PilImage
from safetensors.torch import save_file

from benchmarks.measure import Options, Row, compared
from webui.core.events import Image, Step
from webui.core.groups.control import Control
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine import preview
from webui.library.library import DEMO_MODEL

ALLOWED = 1.02
"""Of diffusers' own step with a ControlNet, what ours may take."""
PROMPT = "a red apple, flat style, on a blue background"
STEPS, SIDE = 20, 128
SEES, TOKENS = 32, 4
"""How wide the summary is that the IP-Adapter takes of a picture, and how many tokens it makes of it."""
Way = Callable[[], tuple[float, PilImage]]
"""Draws a picture: processor seconds of a step, and the picture."""


def run(options: Options) -> list[Row]:
    """Each way once to warm up, then in turns."""
    torch.set_num_threads(options.threads)
    steps, side = options.steps or STEPS, options.side or SIDE
    with tempfile.TemporaryDirectory() as folder:
        ways = _make_ways(Path(folder), steps, side)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        pictures: dict[str, PilImage] = {}
        for k in range(options.rounds + 1):
            for name, draw in ways.items():
                seconds, pictures[name] = draw()
                if k:
                    samples[name].append(seconds * 1000)
    rows = []
    for what in ("no control", "ControlNet", "T2I-Adapter", "IP-Adapter"):
        theirs = Row(f"{what}: step, diffusers", "ms", samples[f"{what}, diffusers"])
        rows.append(theirs)
        for way in ("darkroom, previews off", "darkroom"):
            own, far = f"{what}, {way}", _difference(pictures[f"{what}, {way}"], pictures[f"{what}, diffusers"])
            row = compared(f"{what}: step, {way}", "ms", samples[own], theirs, max_difference=far)
            holds = row.ratio is not None and row.ratio <= ALLOWED if what == "ControlNet" else None
            rows.append(compared(row.name, "ms", row.samples, theirs, max_difference=far, holds=holds))
    return rows


def _difference(one: PilImage, other: PilImage) -> float:
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def _make_ways(data: Path, steps: int, side: int) -> Mapping[str, Way]:
    """What is measured, by the rows' names."""
    stock = diffusers.StableDiffusionPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32, local_files_only=True)
    parts, controls = stock.components, data / "models/ControlNet"
    net, adapter = _control_net(parts["unet"]), _adapter(parts["unet"])
    net.save_pretrained(controls / "net")
    said = {"modelspec.architecture": "darkroom-demo/t2i-adapter"}
    save_file(adapter.state_dict(), controls / "adapter.safetensors", said)
    style, encoder = _ip_adapter(parts["unet"]), _image_encoder()
    save_file(style, controls / "style.safetensors")
    encoder.save_pretrained(data / "models/clip_vision/encoder")
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))
    plain = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    off = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipes = {
        "no control": (diffusers.StableDiffusionPipeline(**plain, **off), {}),
        "ControlNet": (
            diffusers.StableDiffusionControlNetPipeline(**plain, **off, controlnet=net),
            {"image": _map(side)},
        ),
        "T2I-Adapter": (
            diffusers.StableDiffusionAdapterPipeline(**plain, **off, adapter=adapter),
            {"image": _map(side)},
        ),
        "IP-Adapter": (_after_a_picture({**plain, **off}, style, encoder), {"ip_adapter_image": _map(side)}),
    }
    ways: dict[str, Way] = {}
    for what, (pipe, more) in pipes.items():
        own = {"ControlNet": "net", "T2I-Adapter": "adapter", "IP-Adapter": "style"}.get(what)
        request = Request(
            prompt=PROMPT,
            model="demo",
            width=side,
            height=side,
            steps=steps,
            seed=7,
            guidance=5.0,
            sampler="DDIM",
            schedule="Default",
            controls=(Control(model=own, image=_map(side)),) if own else (),
        )
        ways[f"{what}, diffusers"] = _theirs(pipe, steps, side, more)
        for previews in (False, True):
            name = f"{what}, darkroom" + ("" if previews else ", previews off")
            ways[name] = _ours(darkroom, request, previews)
    return ways


def _theirs(pipe: Any, steps: int, side: int, more: Mapping[str, Any]) -> Way:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)

    ends: list[float] = []

    def note(*_: Any) -> dict[str, Any]:
        ends.append(time.process_time())
        return {}

    def draw() -> tuple[float, PilImage]:
        ends.clear()
        given = {"num_inference_steps": steps, "guidance_scale": 5.0, "width": side, "height": side, **more}
        given |= {"generator": torch.Generator("cpu").manual_seed(7)}
        if "adapter" in pipe.components:
            given |= {"callback": note}
        else:
            given |= {"callback_on_step_end": note}
        picture = pipe(PROMPT, **given).images[0]
        return (ends[-1] - ends[0]) / (len(ends) - 1), picture

    return draw


def _ours(darkroom: Darkroom, request: Request, previews: bool) -> Way:
    def draw() -> tuple[float, PilImage]:
        ends, picture = [], None
        with _budget(preview.BUDGET if previews else 0.0):
            for event in darkroom.generate(request):
                if isinstance(event, Step):
                    ends.append(time.process_time())
                elif isinstance(event, Image):
                    picture = event.image
        assert picture
        return (ends[-1] - ends[0]) / (len(ends) - 1), picture

    return draw


@contextmanager
def _budget(share: float) -> Iterator[None]:
    """What previews may take of the time."""
    before, preview.BUDGET = preview.BUDGET, share
    try:
        yield
    finally:
        preview.BUDGET = before


def _control_net(unet: Any) -> Any:
    torch.manual_seed(1)
    made = diffusers.ControlNetModel.from_unet(unet)
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return made.eval().requires_grad_(False)


def _adapter(unet: Any) -> Any:
    torch.manual_seed(2)
    channels = list(unet.config.block_out_channels)
    made: Any = diffusers.T2IAdapter(channels=channels, adapter_type="full_adapter_xl", downscale_factor=16)
    return made.eval().requires_grad_(False)


def _image_encoder() -> Any:
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    torch.manual_seed(3)
    size: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**size, patch_size=14, projection_dim=SEES)).eval()


def _ip_adapter(unet: Any) -> dict[str, torch.Tensor]:
    """A plain one in the published layout; its numbers for each cross-attention go down, up and then the middle."""
    generator, context = torch.Generator().manual_seed(4), unet.config.cross_attention_dim
    modules = dict(unet.named_modules())
    names = (name.removesuffix(".processor") for name in unet.attn_processors if ".attn2." in name)
    shapes = {"image_proj.proj.weight": (TOKENS * context, SEES), "image_proj.proj.bias": (TOKENS * context,)}
    for number, name in enumerate(names):
        for part in ("k", "v"):
            shapes[f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight"] = (modules[name].to_q.out_features, context)
    made = {key: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for key, shape in shapes.items()}
    return made | {"image_proj.norm.weight": torch.ones(context), "image_proj.norm.bias": torch.zeros(context)}


def _after_a_picture(parts: Mapping[str, Any], adapter: Mapping[str, torch.Tensor], encoder: Any) -> Any:
    """A pipeline with the adapter, in a UNet of its own: loading puts other processors into it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    own = {**parts, "unet": copy.deepcopy(parts["unet"]), "image_encoder": encoder}
    pipe: Any = diffusers.StableDiffusionPipeline(**own | {"feature_extractor": CLIPImageProcessorPil()})
    given: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in adapter.items():
        part, _, name = key.partition(".")
        given[part][name] = tensor
    pipe.load_ip_adapter([given], subfolder="", weight_name=[""])
    pipe.set_ip_adapter_scale(1.0)
    return pipe


def _map(side: int) -> PilImage:
    """White lines on black."""
    levels = np.zeros((side, side, 3), np.uint8)
    levels[side // 4 : side // 4 + 3], levels[:, side // 3 : side // 3 + 3] = 255, 255
    return PilImages.fromarray(levels)
