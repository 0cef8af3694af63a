"""What a control file is, told by the names and shapes that are published, and what is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from ip_adapter_models import adapter_shapes, write_header
from safetensors.torch import save_file

from webui.core.checkpoint import Checkpoint
from webui.core.control_file import ControlKind, control_of, misfit, read_control
from webui.core.files import ControlFile, ModelFile
from webui.core.tensor_file import BadFile, Header

DEEP = "transformer_blocks.0.attn2.to_k"
LDM = {
    "control_model.input_hint_block.0.weight": (16, 3, 3, 3),
    "control_model.zero_convs.0.0.weight": (320, 320, 1, 1),
    "control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    f"control_model.input_blocks.1.1.{DEEP}.weight": (320, 768),
}
OURS = {
    "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": (320, 320, 1, 1),
    "conv_in.weight": (320, 4, 3, 3),
    "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
}
XL = {"add_embedding.linear_1.weight": (1280, 2816)}
LORA = {
    "lora_controlnet": (0,),
    "input_hint_block.0.weight": (16, 3, 3, 3),
    "zero_convs.0.0.weight": (320, 320, 1, 1),
    "input_blocks.0.0.up": (320, 36),
    f"input_blocks.4.1.{DEEP}.down": (128, 2048),
}
ADAPTER = {
    "conv_in.weight": (320, 192, 3, 3),
    "body.0.block1.weight": (320, 320, 3, 3),
    "body.0.block2.weight": (320, 320, 1, 1),
}


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (LDM, ControlKind("ControlNet", "SD 1.x", 768, 320, "ldm")),
        ({key.removeprefix("control_model."): shape for key, shape in LDM.items()},) * 1
        + (ControlKind("ControlNet", "SD 1.x", 768, 320, "ldm"),),
        (LDM | {f"control_model.input_blocks.1.1.{DEEP}.weight": (320, 1024)},) * 1
        + (ControlKind("ControlNet", "SD 2.x", 1024, 320, "ldm"),),
        (
            OURS | {f"down_blocks.0.attentions.0.{DEEP}.weight": (320, 768)},
            ControlKind("ControlNet", "SD 1.x", 768, 320),
        ),
        (
            OURS | XL | {f"down_blocks.1.attentions.0.{DEEP}.weight": (640, 2048)},
            ControlKind("ControlNet", "SDXL", 2048, 320),
        ),
        (OURS | XL, ControlKind("ControlNet", "SDXL", 0, 320)),  # the small ones of diffusers attend to nothing
        (
            OURS | {f"down_blocks.1.attentions.0.{DEEP}.weight": (160, 192), "task_embedding": (6, 320)} | XL,
            ControlKind("ControlNet Union", "SDXL", 192, 320, "diffusers", "6 kinds of guides", kinds=6),
        ),
        (LORA, ControlKind("Control-LoRA", "SDXL", 2048, 320, "ldm")),
        (ADAPTER, ControlKind("T2I-Adapter", "SD 1.x", 0, 320, "ldm")),
        (
            {"adapter.conv_in.weight": (320, 768, 3, 3), "adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
            ControlKind("T2I-Adapter", "SDXL", 0, 320),
        ),
        (
            {
                "body.0.in_conv.weight": (80, 192, 1, 1),
                "body.0.body.0.block1.weight": (80, 80, 3, 3),
                "body.0.out_conv.weight": (320, 80, 1, 1),
            },
            ControlKind("T2I-Adapter", "SD 1.x", 0, 320, "ldm", "light"),
        ),
        (
            dict(adapter_shapes("plain", (320,), 768, 1024)),
            ControlKind("IP-Adapter", "SD 1.x", 768, 0, "ldm", attentions=(320,)),
        ),
        (
            dict(adapter_shapes("plus", (640,), 2048, 1280, 1280)),
            ControlKind("IP-Adapter", "SDXL", 2048, 0, "ldm", "plus", (640,)),
        ),
    ],
)
def test_each_is_known_by_its_tensors(shapes, kind):
    assert control_of(Header({}, shapes)) == kind


def test_an_adapter_may_say_what_it_is_for():
    shapes = {"conv_in.weight": (64, 256, 3, 3), "body.0.resnets.0.block1.weight": (64, 64, 3, 3)}
    kinds = [
        control_of(Header({"modelspec.architecture": said}, shapes))
        for said in ("darkroom-demo/t2i-adapter", "stable-diffusion-xl-v1-base/t2i-adapter", "darkroom-demo/lora", "")
    ]
    assert [kind.family for kind in kinds] == ["SD 1.x", "SDXL", "SDXL", "SDXL"]
    modes = [control_of(Header({"darkroom.mode": said}, shapes)).mode for said in ("control", "softer")]
    assert modes == ["control", "balanced"]


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"lllite_unet_x.conditioning1.0.weight": (16, 3, 4, 4)}, "is a ControlNet-LLLite, which cannot be used"),
        (
            {"controlnet_blocks.0.weight": (1, 1), "transformer_blocks.0.attn.to_q.weight": (1, 1)},
            "is a ControlNet for FLUX.1",
        ),
        ({"controlnet_blocks.0.weight": (1,), "double_blocks.0.img_mod.lin.weight": (1,)}, "a ControlNet for FLUX.1;"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "is a checkpoint, a whole model"),
        ({"lora_unet_x.lora_down.weight": (4, 4)}, "is a LoRA; it belongs in the folder for LoRAs"),
        ({"image_proj.proj.weight": (1, 1), "ip_adapter.1.to_k_ip.weight": (1, 4096)}, "an IP-Adapter whose layout is"),
        ({"some.weight": (4, 4)}, "is no control: no ControlNet"),
        ({"input_hint_block.0.weight": (16, 3, 3, 3)}, "is damaged"),
        (LDM | {"difference": (0,)}, "holds only differences"),
    ],
)
def test_what_is_none_says_why(shapes, said):
    with pytest.raises(BadFile, match=said):
        control_of(Header({}, shapes))


def test_a_folder_of_diffusers_is_read_and_kept_apart_from_others(tmp_path):
    shapes = OURS | {f"down_blocks.0.attentions.0.{DEEP}.weight": (320, 768)}
    save_file(
        {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}, tmp_path / "a.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    assert read_control(ControlFile("folder", tmp_path)).title == "ControlNet for SD 1.x"
    (tmp_path / "a.safetensors").rename(tmp_path / "a.bin")
    with pytest.raises(BadFile, match="only as a pickle"):
        read_control(ControlFile("folder", tmp_path))
    with pytest.raises(BadFile, match="is a pickle"):
        read_control(ControlFile("x", tmp_path / "x.pth", problem="is a pickle"))


def test_one_for_another_model_is_named_with_both():
    model = ModelFile("demo-xl", Path("xl.safetensors"), Checkpoint("SDXL", "ldm", ("backbone",), 4, 2048, 1024))
    said = misfit("control_v11p_sd15_canny", ControlKind("ControlNet", "SD 1.x", 768), model)
    assert said == "control_v11p_sd15_canny is a ControlNet for SD 1.x; the model demo-xl is SDXL"
    assert misfit("a", ControlKind("ControlNet", "SDXL", 2048), model) == ""
    assert "it attends to texts 4,096 wide" in misfit("a", ControlKind("IP-Adapter", "", 4096), model)
    assert "it attends to texts 192 wide; those of demo-xl are 2,048 wide" in misfit(
        "a", ControlKind("IP-Adapter", "SDXL", 192), model
    )


def test_an_ip_adapter_for_another_unet_is_named_with_the_model(tmp_path):
    """Under either names a UNet's cross-attentions are told in the order of its files: down, up, middle."""
    file = tmp_path / "unet.safetensors"
    model = ModelFile("small", file, Checkpoint("SD 1.x", "ldm", ("backbone",), 4, 768, 1024))
    ours = {"mid_block.attentions.0": 64, "up_blocks.0.attentions.1": 32, "up_blocks.0.attentions.0": 48}
    ours |= {"down_blocks.10.attentions.0": 24, "down_blocks.2.attentions.0": 16}
    theirs = {"middle_block.1": 64, "output_blocks.10.1": 32, "output_blocks.2.1": 48}
    theirs |= {"input_blocks.10.1": 24, "input_blocks.2.1": 16}
    for names in (ours, {f"model.diffusion_model.{place}": width for place, width in theirs.items()}):
        write_header(file, ((f"{place}.{DEEP}.weight", (width, 768)) for place, width in names.items()))
        kinds = [
            control_of(Header({}, dict(adapter_shapes("plain", widths, context=768, sees=1024))))
            for widths in ((16, 24, 48, 32, 64), (16, 24, 32, 48, 64), (16, 24))
        ]
        assert misfit("style", kinds[0], model) == ""
        for kind in kinds[1:]:
            said = "style is an IP-Adapter for another UNet: its layers do not fit those of small"
            assert misfit("style", kind, model) == said
