"""Qwen-Image beside diffusers' own pipeline and transformers' encoder, with tiny networks in the published names."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.anima_models import write_published
from tests.engine.families.test_anima import stock_tokenizers
from tests.qwen_image_models import (
    STYLES,
    encoder_state,
    make_parts,
    pipeline,
    published,
    save_folder,
    transformer_state,
)
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.tensor_file import BadFile
from webui.engine.families import qwen_image
from webui.engine.families.family import EncodeOptions, Parts
from webui.engine.families.loading import ModelLoader
from webui.engine.lora.names import ModuleIndex
from webui.engine.text import qwen
from webui.engine.text.vocabularies import shipped
from webui.engine.weights import build_empty
from webui.library.checkpoint import read_checkpoint, read_part

PROMPTS = (
    "a fox in the snow, (masterpiece:1.2)",
    "Ein Füchslein — im Wald 東京, 😀  double  space ",
    "",
    "\nline\nbreak",
)


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def pipe(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer, _ = stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))
    return pipeline(stock, tokenizer)


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.fixture(scope="module")
def parts(stock: dict[str, Any]) -> Parts:
    """The half that reads alone, as our network of it."""
    config = qwen_image.TEXT_ENCODER.config(None, shapes(encoder_state(stock)), "model.")  # type: ignore[arg-type]
    words = build_empty(lambda: qwen_image.TEXT_ENCODER.make(config))
    words.load_state_dict(stock["text_encoder"].model.language_model.state_dict(), assign=True)
    modules = {"text_encoder": words, "backbone": stock["transformer"], "vae": stock["vae"]}
    return Parts(SimpleNamespace(), modules, torch.device("cpu"), {"text_encoder": shipped("qwen3")})  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_words_become_what_diffusers_makes_of_them(parts: Parts, pipe: Any, prompt: str) -> None:
    with torch.inference_mode():
        own = qwen_image.encode(parts, prompt, EncodeOptions())["context"]
        states, mask = pipe.encode_prompt(prompt)

    assert mask is None and own.shape == states.shape and own.isfinite().all()
    assert (own - states).abs().max() < 2e-6


def test_a_prompt_longer_than_the_transformer_has_places_is_refused(parts: Parts) -> None:
    with torch.inference_mode():
        assert qwen_image.encode(parts, "cat " * 1200, EncodeOptions())["context"].shape[1] > 1200
    with pytest.raises(RequestError, match="the prompt has 4,0.. tokens; 4,032 are the most"):
        qwen_image.encode(parts, "cat " * 4050, EncodeOptions())


def test_what_stands_around_a_prompt_is_what_was_published(pipe: Any) -> None:
    assert pipe.prompt_template_encode == f"{qwen.BEFORE}{{}}{qwen.BEHIND}"
    assert pipe.prompt_template_encode_start_idx == qwen.NOT_TOLD


def test_configurations_come_from_shapes(stock: dict[str, Any]) -> None:
    found = qwen_image.TRANSFORMER.config(None, shapes(transformer_state(stock, "x.")), "x.")  # type: ignore[arg-type]
    assert found == {key: stock["transformer"].config[key] for key in found}
    made: Any = build_empty(lambda: qwen_image.TRANSFORMER.make(found))
    assert made.config == {**stock["transformer"].config}
    assert torch.equal(made.pos_embed.pos_freqs, stock["transformer"].pos_embed.pos_freqs)


def test_every_program_s_name_of_a_module_is_found(stock: dict[str, Any]) -> None:
    index = ModuleIndex({"backbone": stock["transformer"]}, [qwen_image.TRANSFORMER])
    for path, module in stock["transformer"].named_modules():
        if isinstance(module, torch.nn.Linear):
            for style, name in STYLES.items():
                assert index.find(name(path)) == (("backbone", path, None),), style


def test_the_transformer_is_asked_as_diffusers_asks_it(stock: dict[str, Any], pipe: Any) -> None:
    backbone = qwen_image.QwenImageBackbone(stock["transformer"])
    generator = torch.Generator().manual_seed(3)
    contexts = [torch.randn(1, tokens, 128, generator=generator) for tokens in (9, 9, 5)]
    latents = torch.randn(2, 16, 8, 6, generator=generator)
    with torch.inference_mode():
        prepared = backbone.prepare([{"context": context} for context in contexts], 2)
        told = [row for each in prepared for row in backbone.predict(latents, torch.tensor(620.0), each)]
        for output, context in zip(told, contexts, strict=True):
            room = torch.cat([context, torch.randn(1, 4, 128)], dim=1).repeat(2, 1, 1)
            alone = stock["transformer"](
                hidden_states=pipe._pack_latents(latents, 2, 16, 8, 6),
                timestep=torch.full((2,), 0.62),
                encoder_hidden_states=room,
                encoder_hidden_states_mask=(torch.arange(room.shape[1]) < context.shape[1]).expand(2, -1),
                img_shapes=[[(1, 4, 3)]] * 2,
                return_dict=False,
            )[0]
            assert (output - pipe._unpack_latents(alone, 64, 48, 8)[:, :, 0]).abs().max() < 2e-5
    assert [len(each.told["context"]) for each in prepared] == [4, 2]
    assert (told[0] - told[1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("sign", "named"),
    [
        ("__index_timestep_zero__", "Qwen-Image-Edit"),
        ("time_text_embed.addition_t_embedding.weight", "Qwen-Image-Layered"),
        ("txt_in.text_norm.weight", "Qwen-Image 2.1"),
    ],
)
def test_others_of_its_kind_are_refused_by_name(stock: dict[str, Any], tmp_path: Path, sign: str, named: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file(
        transformer_state(stock, "model.diffusion_model.") | {f"model.diffusion_model.{sign}": torch.ones(1)}, path
    )
    with pytest.raises(BadFile, match=f"is {named}; of its kind Qwen-Image is what draws here"):
        read_checkpoint(path)


def test_a_folder_says_what_it_is_for(stock: dict[str, Any], tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "edit", stock, "QwenImageEditPlusPipeline")
    with pytest.raises(BadFile, match="is Qwen-Image-Edit"):
        read_checkpoint(folder)
    (folder / "model_index.json").write_text('{"_class_name": "QwenImagePipeline"}')
    assert read_checkpoint(folder).family == "Qwen-Image"
    config = folder / "transformer/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"zero_cond_t": True}))
    with pytest.raises(BadFile, match="is Qwen-Image-Edit"):
        read_checkpoint(folder)


def test_the_published_files_are_known_and_all_of_them_is_found(tmp_path: Path) -> None:
    paths = {
        folder: write_published(tmp_path / folder / "published.safetensors", shapes, sparse=True)
        for folder, shapes in published().items()
    }
    whole = paths.pop("diffusion_models")
    checkpoint = read_checkpoint(whole)
    assert (checkpoint.family, checkpoint.native_px, checkpoint.context_width) == ("Qwen-Image", 1328, 3584)
    assert (checkpoint.dtype, checkpoint.missing_parts) == ("BF16", ("text_encoder", "vae"))
    lenders = [ModelFile(path.parent.name, path, read_part(path)) for path in paths.values()]
    loader = ModelLoader(ModelFile("whole", whole, checkpoint), lenders, torch.bfloat16)
    numbers = {role: sum(part.numel() for part in module.parameters()) for role, module in loader.modules.items()}
    assert numbers == {"backbone": 20_430_401_088, "text_encoder": 7_070_619_136, "vae": 44_599_603}
    assert not any("did nothing" in warning for warning in loader.warnings)
