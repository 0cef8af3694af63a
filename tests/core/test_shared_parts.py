"""Parts that kinds of models share are known by what network they are, wherever they lie."""

import pytest

from webui.core.checkpoint import Checkpoint
from webui.core.kinds.parts import QWEN3, QWEN_IMAGE_VAE, inner
from webui.core.tensor_file import BadFile, Header
from webui.library.checkpoint import part_of

QWEN = {"embed_tokens.weight": (151_936, 1024), "layers.0.self_attn.q_norm.weight": (128,)}
VAE = {"decoder.middle.0.residual.0.gamma": (384, 1, 1, 1), "conv2.weight": (16, 16, 1, 1, 1)}


def under(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "text_encoders.qwen3_4b.transformer.model."])
def test_a_network_is_found_whatever_its_names_begin_with(prefix: str) -> None:
    shapes = under(prefix, QWEN) | under("vae.", VAE)
    assert (QWEN3.find(shapes), QWEN_IMAGE_VAE.find(shapes)) == (prefix, "vae.")
    found = part_of(Header({}, under(prefix, QWEN)))
    assert found and (found.family, found.parts, found.context_width) == ("Qwen3", ("text_encoder",), 1024)


def test_another_language_model_is_none_of_it() -> None:
    gemma = QWEN | {"embed_tokens.weight": (262_208, 1024)}
    assert QWEN3.find(gemma) is None and part_of(Header({}, gemma)) is None
    assert QWEN3.find(under("un", QWEN)) is None


def test_wan_s_later_autoencoder_is_none_of_it() -> None:
    later = VAE | {"conv2.weight": (48, 48, 1, 1, 1)}
    assert QWEN_IMAGE_VAE.find(later) is None and part_of(Header({}, later)) is None


def test_a_part_with_shapes_that_none_has_is_an_error_of_its_own() -> None:
    clip = ("text_model.encoder.layers.0.layer_norm1.weight", "text_model.embeddings.token_embedding.weight")
    with pytest.raises(BadFile, match="is damaged: its tensors have not the shapes of CLIP"):
        part_of(Header({}, dict.fromkeys(clip, ())))


def test_what_is_within_a_whole_model_is_no_file_of_a_part() -> None:
    own = {
        "net.blocks.0.adaln_modulation_self_attn.1.weight": (256, 2048),
        "net.llm_adapter.blocks.0.cross_attn.k_proj.weight": (1024, 1024),
    }
    whole = own | under("text_encoders.qwen3_06b.transformer.model.", QWEN) | under("vae.", VAE)
    assert part_of(Header({}, whole)) is None
    assert inner(whole, {"text_encoder": QWEN3, "vae": QWEN_IMAGE_VAE}) == {
        "text_encoder": "text_encoders.qwen3_06b.transformer.model.",
        "vae": "vae.",
    }


def made(family: str, parts: tuple[str, ...], width: int) -> Checkpoint:
    return Checkpoint(family, "", parts, in_channels=0, context_width=width, native_px=0)


def test_it_is_lent_where_it_is_as_wide_and_other_parts_within_a_kind() -> None:
    bare = made("Anima", ("text_conditioner", "backbone"), 1024)
    assert made("Qwen3", ("text_encoder",), 1024).lends("text_encoder", bare)
    assert not made("Qwen3", ("text_encoder",), 2560).lends("text_encoder", bare)
    assert made("Qwen-Image's VAE", ("vae",), 0).lends("vae", bare)
    assert made("Anima", ("text_encoder", "vae"), 2560).lends("vae", bare), "whatever it reads words with"
    xl = made("SDXL", ("backbone",), 2048)
    assert made("SDXL", ("text_encoder",), 2048).lends("text_encoder", xl)
    assert not made("SD 1.x", ("text_encoder",), 2048).lends("text_encoder", xl)


def test_what_is_wanted_is_the_file_that_was_published_so_wide() -> None:
    assert QWEN3.wanted(2560) == "Qwen3 4B (qwen_3_4b.safetensors) in models/text_encoders"
    assert QWEN_IMAGE_VAE.wanted(0) == "Qwen-Image's VAE (qwen_image_vae.safetensors) in models/VAE"
