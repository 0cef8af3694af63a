"""IP-Adapters and image encoders, known by the headers of the published files."""

from pathlib import Path

import pytest
from ip_adapter_models import (
    PUBLISHED,
    SD15_WIDTHS,
    VIT_BIG_G,
    VIT_H,
    adapter_shapes,
    encoder_shapes,
    write_header,
)

from webui.core.clip_vision_file import SERVES, read_clip_vision
from webui.core.files import ImageEncoderFile
from webui.core.ip_adapter_file import choose_encoder, look
from webui.core.tensor_file import BadFile, read_header


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_are_known(name, tmp_path):
    form, widths, sizes = PUBLISHED[name]
    found = look(
        read_header(write_header(tmp_path / f"{name}.safetensors", adapter_shapes(form, widths, **sizes))).shapes
    )
    assert found and (found.form, found.family) == (form, "SDXL" if "sdxl" in name else "SD 1.x")
    assert tuple(width for _, width in found.widths) == widths
    big = name in ("ip-adapter_sdxl", "ip-adapter_sd15_vit-G")
    assert ("bigG" in found.encoder_line) == big and "models/clip_vision" in found.encoder_line


def test_the_published_image_encoders_are_known_without_a_configuration(tmp_path):
    for sizes, heads in ((VIT_H, 16), (VIT_BIG_G, 16)):
        shape = read_clip_vision(write_header(tmp_path / f"{sizes['width']}.safetensors", encoder_shapes(**sizes)))
        assert (shape.width, shape.projected, shape.layers) == (sizes["width"], sizes["projected"], sizes["layers"])
        assert (shape.heads, shape.activation, shape.side_px, shape.patch_px) == (heads, "gelu", 224, 14)


def test_what_is_none_or_cannot_be_used_is_said_with_the_reason(tmp_path):
    plain = dict(adapter_shapes("plain", SD15_WIDTHS, 768, 1024))
    plus = dict(adapter_shapes("plus", SD15_WIDTHS, 768, 512))
    face = {name: shape for name, shape in plain.items() if "proj.weight" not in name} | {
        "image_proj.proj.0.weight": (1024, 512),
        "image_proj.proj.2.weight": (3072, 1024),
    }
    assert look({"down_blocks.0.weight": (1, 1)}) is None
    for shapes, reason in (
        (face, "FaceID"),
        (plain | {"ip_adapter.0.to_q_lora.down.weight": (128, 320)}, "FaceID"),
        (plain | {"image_proj.perceiver_resampler.proj_in.weight": (768, 1280)}, "FaceID"),
        (plus, "InstantID"),
        ({name: shape for name, shape in plain.items() if "image_proj" in name}, "lacks the keys and values"),
        ({name: shape for name, shape in plain.items() if "ip_adapter" in name}, "lacks what reads a picture"),
        ({name: shape for name, shape in plain.items() if "proj" not in name} | {"image_proj.x": (1,)}, "not known"),
    ):
        with pytest.raises(BadFile, match=reason):
            look(shapes)
    for shapes, reason in (
        (plain, "is an IP-Adapter"),
        (dict(encoder_shapes(**VIT_H | {"width": 999})), "size that is not known"),
        ({**dict(encoder_shapes(**VIT_H)), "visual_projection.weight": ()}, "lacks parts"),
    ):
        with pytest.raises(BadFile, match=reason):
            read_clip_vision(write_header(tmp_path / "wrong.safetensors", iter(shapes.items())))


def test_one_with_an_encoder_of_its_own_has_that_alone_and_that_serves_no_other():
    shapes, encoders = dict(adapter_shapes("plain", SD15_WIDTHS, 768, 256)), {}
    for name, serves in (("a", ""), ("b", "ours"), ("c", "ours")):
        encoders[name] = ImageEncoderFile(name, Path(name), width=32, projected=256, serves=serves)
    chosen = [choose_encoder(look(shapes, metadata), encoders) for metadata in ({}, {SERVES: "ours"}, {SERVES: "lost"})]
    assert chosen == [encoders["a"], encoders["b"], None]
