"""Controls at the width at which they were published: their headers cost nothing; one whole step with ``-m slow``."""

import json
import struct
from pathlib import Path

import control_models
import diffusers
import pytest
import torch
from checkpoints import write_random
from safetensors.torch import save_file

from webui.core.control_file import read_control
from webui.core.files import ControlFile, ModelFile
from webui.engine.controls.guides import NetControl
from webui.engine.controls.reading import ControlLoader
from webui.library.checkpoint import read_checkpoint

SD1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# SDXL's middle-sized and small ControlNets as diffusers published them: with transformers of no layers, and without.
MIDDLE = SDXL | {"transformer_layers_per_block": (0, 0, 1)}
SMALL = SDXL | {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"}
NETS = {
    "sd15": ("sd15", diffusers.ControlNetModel, SD1, "ControlNet for SD 1.x"),
    "sd21": ("sd21", diffusers.ControlNetModel, SD2, "ControlNet for SD 2.x"),
    "sdxl": ("sdxl", diffusers.ControlNetModel, SDXL, "ControlNet for SDXL"),
    "sdxl-mid": ("sdxl", diffusers.ControlNetModel, MIDDLE, "ControlNet for SDXL"),
    "sdxl-small": ("sdxl", diffusers.ControlNetModel, SMALL, "ControlNet for SDXL"),
    "union": ("sdxl", diffusers.ControlNetUnionModel, SDXL, "ControlNet Union for SDXL, 6 kinds of guides"),
    "t2i": ("sd15", diffusers.T2IAdapter, {}, "T2I-Adapter for SD 1.x"),
    "t2i-xl": (
        "sdxl",
        diffusers.T2IAdapter,
        {"adapter_type": "full_adapter_xl", "downscale_factor": 16},
        "T2I-Adapter",
    ),
}


def write_header(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A file of these shapes in float16, all zeros, which takes no room on the disk."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("models"), {}
    for kind in ("sd15", "sd21", "sdxl"):
        path = folder / f"{kind}.safetensors"
        write_random(path, kind, sparse=True)
        made[kind] = ModelFile(kind, path, read_checkpoint(path))
    return made


@pytest.mark.parametrize("name", NETS)
def test_published_controls_are_known_and_all_of_them_is_found(models, tmp_path, name):
    kind, made_by, config, title = NETS[name]
    with torch.device("meta"):
        net = made_by(**config)
    layouts = [dict(net.state_dict())]
    if made_by is diffusers.T2IAdapter:
        layouts.append(control_models.to_original(net))
    elif made_by is diffusers.ControlNetModel and not name.startswith("sdxl-"):
        layouts.append(control_models.to_ldm(net))
    for number, tensors in enumerate(layouts):
        file = ControlFile(name, write_header(tmp_path / f"{number}.safetensors", tensors))
        assert read_control(file).title.startswith(title)
        loader = ControlLoader(file, models[kind], torch.float16)
        unread = 2 if name == "union" else 0  # thirds of a tensor that change nothing
        numbers = sum(parameter.numel() for parameter in loader.module.parameters())
        assert numbers == net.num_parameters() - unread * (320 * 320 + 320)
        assert loader.nbytes == 2 * numbers and loader.unread == []
        if name == "sd15":
            assert numbers == 361_279_120


@pytest.mark.slow
@torch.inference_mode()
def test_sd_15_s_controlnet_takes_a_step_at_full_size(models, tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.ControlNetModel(**SD1).eval()
    for parameter in theirs.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.02)
    path = tmp_path / "control_v11p_sd15_canny.safetensors"
    tensors = control_models.to_ldm(theirs)
    save_file({f"control_model.{name}": tensor for name, tensor in tensors.items()}, path)
    loader = ControlLoader(ControlFile("canny", path), models["sd15"], torch.float32)
    for _ in loader.read(torch.device("cpu")):
        pass
    picture, latents, context = torch.rand(1, 3, 256, 256), torch.randn(1, 4, 32, 32), torch.randn(2, 77, 768)
    control = NetControl(loader.module, loader.module.see(picture), "balanced", None)
    (prepared,) = control.prepare([[{"context": context[:1]}, {"context": context[1:]}]], 1, True)
    found = control.added(latents, torch.tensor(500.0), prepared, 0.8)
    skips, middle = theirs(latents.repeat(2, 1, 1, 1), 500, context, picture, 0.8, return_dict=False)
    for one, other in zip((*found.skips, found.middle), (*skips, middle), strict=True):
        one = one if len(one) == len(other) else one.repeat(2, 1, 1, 1)
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
