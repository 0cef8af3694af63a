"""Anima beside diffusers' own blocks and transformers' encoder, with tiny random networks in the published names."""

import gzip
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.anima_models import encoder_state, make_parts, save_apart, theirs, vae_state, write_all
from webui.core.errors import RequestError
from webui.core.files import ModelFile, VaeFile
from webui.engine.families import anima, qwen_image_vae
from webui.engine.families.base import CannotLoad
from webui.engine.families.family import EncodeOptions, Parts
from webui.engine.families.loading import ModelLoader, read_vae
from webui.engine.text import qwen, vocabularies
from webui.engine.weights import Files, WeightLoader
from webui.library.checkpoint import read_checkpoint, read_part

NUMBERS = {"text_encoder": 596_049_920, "text_conditioner": 134_663_680, "backbone": 1_956_405_248, "vae": 44_599_603}
PROMPTS = ("1girl, solo, long hair, masterpiece", "Ein Füchslein — im Wald 東京, 😀  double  space ", "", "line\nbreak")


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))


def stock_tokenizers(folder: Path) -> tuple[Any, Any]:
    """transformers' own classes on the vocabularies that ship."""
    from transformers import Qwen2Tokenizer, T5TokenizerFast

    shipped = Path(vocabularies.__file__).parent / "vocabulary"
    for name in ("qwen3", "t5"):
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_bytes(gzip.decompress((shipped / f"{name}.json.gz").read_bytes()))
    pad = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return Qwen2Tokenizer.from_pretrained(folder / "qwen3", **pad), T5TokenizerFast.from_pretrained(folder / "t5")


def our_parts(stock: dict[str, Any]) -> Parts:
    modules = {**stock, "backbone": stock["transformer"]}
    return Parts(SimpleNamespace(), modules, torch.device("cpu"), {"text_encoder": anima.Words()})  # type: ignore[arg-type]


@torch.no_grad()
def their_context(stock: dict[str, Any], tokenizers: tuple[Any, Any], prompt: str) -> torch.Tensor:
    """What diffusers' first two blocks make of a prompt."""
    from diffusers.modular_pipelines.anima.before_denoise import AnimaTextConditioningStep
    from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep

    components = SimpleNamespace(
        **stock, tokenizer=tokenizers[0], t5_tokenizer=tokenizers[1], _execution_device=torch.device("cpu")
    )
    read = AnimaTextEncoderStep.encode_prompt(components, prompt, prepare_unconditional_embeds=False)
    return AnimaTextConditioningStep._condition_prompt_embeds(
        components,
        *(read[name] for name in ("qwen_prompt_embeds", "qwen_attention_mask", "t5_input_ids", "t5_attention_mask")),
        device=torch.device("cpu"),
        conditioning_dtype=torch.float32,
        output_dtype=torch.float32,
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_words_become_what_diffusers_makes_of_them(
    stock: dict[str, Any], tokenizers: tuple[Any, Any], prompt: str
) -> None:
    with torch.inference_mode():
        own = anima.encode(our_parts(stock), prompt, EncodeOptions())["context"]

    assert own.shape == (1, 512, 32) and own.isfinite().all()
    assert torch.equal(own, their_context(stock, tokenizers, prompt))


def test_a_weight_multiplies_what_the_words_say_and_nothing_else(stock: dict[str, Any]) -> None:
    parts = our_parts(stock)
    with torch.inference_mode():
        plain, one, more = (
            anima.encode(parts, text, EncodeOptions())["context"][0]
            for text in ("a red cat", "a (red:1.0) cat", "a (red:1.5) cat")
        )
    ids = parts.tokenizers["text_encoder"].t5.encode("a red cat").tokens

    assert torch.equal(plain, one)
    assert torch.equal(more[ids.index("▁red")], plain[ids.index("▁red")] * 1.5)
    assert [torch.equal(row, other) for row, other in zip(more, plain, strict=True)].count(False) == 1


def test_a_prompt_longer_than_512_tokens_is_read_whole_and_one_without_end_is_refused(stock: dict[str, Any]) -> None:
    with torch.inference_mode():
        assert anima.encode(our_parts(stock), "cat " * 700, EncodeOptions())["context"].shape[1] > 700
    with pytest.raises(RequestError, match="tokens; 4,096 are the most"):
        anima.Words().read("cat " * 5000)


def test_names_are_those_that_diffusers_converts_from(stock: dict[str, Any]) -> None:
    from diffusers import AutoencoderKLQwenImage
    from diffusers.loaders.single_file_utils import (
        convert_cosmos_transformer_checkpoint_to_diffusers,
        convert_wan_vae_to_diffusers,
    )

    bare = {name: tensor for name, tensor in theirs(stock, "net.").items() if "llm_adapter" not in name}
    assert (
        convert_cosmos_transformer_checkpoint_to_diffusers(dict(bare)).keys()
        == stock["transformer"].state_dict().keys()
    )
    with torch.device("meta"):
        published = AutoencoderKLQwenImage()
    assert convert_wan_vae_to_diffusers(vae_state({"vae": published}, "")).keys() == published.state_dict().keys()


def test_configurations_come_from_shapes(stock: dict[str, Any]) -> None:
    def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    own: Any = SimpleNamespace(names="cosmos")
    found = {
        "transformer": anima.TRANSFORMER.config(own, shapes(theirs(stock, "net.")), "net."),
        "text_conditioner": anima.TEXT_CONDITIONER.config(own, shapes(theirs(stock, "")), "llm_adapter."),
        "vae": qwen_image_vae.config(shapes(vae_state(stock, "vae.")), "vae."),
    }
    for name, config in found.items():
        for key, value in config.items():
            known = stock[name].config[key]
            assert value == (tuple(known) if isinstance(value, tuple) else known), f"{name}: {key}"
    encoder = qwen.config(shapes(encoder_state(stock, "model.")), "model.")
    assert {key: getattr(stock["text_encoder"].config, key) for key in encoder if key != "rope_parameters"} == {
        key: value for key, value in encoder.items() if key != "rope_parameters"
    }
    assert stock["text_encoder"].config.rope_parameters == encoder["rope_parameters"]


def test_the_transformer_is_asked_as_diffusers_asks_it(stock: dict[str, Any]) -> None:
    backbone = anima.CosmosBackbone(stock["transformer"])
    generator = torch.Generator().manual_seed(3)
    contexts = [torch.randn(1, 512, 32, generator=generator) for _ in range(2)]
    latents = torch.randn(2, 16, 8, 6, generator=generator)
    with torch.inference_mode():
        (prepared,) = backbone.prepare([{"context": context} for context in contexts], 2)
        told = backbone.predict(latents, torch.tensor(620.0), prepared)
        for output, context in zip(told, contexts, strict=True):
            alone = stock["transformer"](
                hidden_states=latents[:, :, None],
                timestep=torch.full((2,), 0.62),
                encoder_hidden_states=context.repeat(2, 1, 1),
                padding_mask=torch.zeros(1, 1, 64, 48),
                return_dict=False,
            )[0]
            assert (output - alone[:, :, 0]).abs().max() < 1e-5
    assert (told[0] - told[1]).abs().max() > 1e-3


@pytest.mark.parametrize("names", ["wan", "diffusers"])
def test_pictures_become_latents_and_latents_pictures_as_in_diffusers(stock, tmp_path, names):
    from diffusers.modular_pipelines.anima.encoders import encode_vae_image

    state = vae_state(stock, "") if names == "wan" else dict(stock["vae"].state_dict())
    save_file(state, tmp_path / "vae.safetensors")
    vae, files = stock["vae"], Files([tmp_path / "vae.safetensors"])
    network = qwen_image_vae.make(qwen_image_vae.config(files.shapes, ""))
    loader = WeightLoader(network, files, lambda name: qwen_image_vae.keys(name, network, names, ""))
    assert list(loader.read(torch.float32, torch.device("cpu")))
    own = qwen_image_vae.QwenImageAutoencoder(network.eval(), torch.device("cpu"))
    picture = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        latents = own.encode(picture).sample(lambda shape: pytest.fail("nothing is drawn"))
        stock_latents = encode_vae_image(picture, vae, torch.Generator(), torch.device("cpu"), torch.float32)
        mean, std = (
            torch.tensor(numbers).view(1, 16, 1, 1, 1) for numbers in (vae.config.latents_mean, vae.config.latents_std)
        )
        decoded = vae.decode(stock_latents * std + mean, return_dict=False)[0]

    assert own.scale == 8
    assert torch.allclose(latents, stock_latents[:, :, 0], atol=1e-6)
    assert torch.allclose(own.decode(latents), decoded[:, :, 0], atol=1e-5)
    assert torch.equal(own.decode(latents), own.decode(latents, in_float32=True))


def test_the_published_files_are_known_and_all_of_them_is_found(tmp_path: Path) -> None:
    paths = write_all(tmp_path, sparse=True)
    whole, words, pixels = (paths[folder] for folder in ("diffusion_models", "text_encoders", "VAE"))
    checkpoint = read_checkpoint(whole)
    assert (checkpoint.family, checkpoint.native_px, checkpoint.context_width) == ("Anima", 1024, 1024)
    assert (checkpoint.dtype, checkpoint.prediction, checkpoint.missing_parts) == (
        "BF16",
        "flow",
        ("text_encoder", "vae"),
    )
    lenders = [ModelFile(path.parent.name, path, read_part(path)) for path in (words, pixels)]
    loader = ModelLoader(ModelFile("whole", whole, checkpoint), lenders, torch.bfloat16)
    assert {role: nbytes // 2 for role, nbytes in loader.part_bytes.items()} == NUMBERS
    assert loader._loaders["backbone"].module.config.num_attention_heads == 16


@pytest.mark.parametrize("missing", ["model.layers.0.mlp.up_proj.weight", ""])
def test_a_lender_that_cannot_be_read_is_named_and_not_the_model_that_borrows(stock, tmp_path, missing):
    file = save_apart(tmp_path, stock)
    words = tmp_path / "text_encoders/qwen_3_tiny.safetensors"
    save_file({name: part for name, part in encoder_state(stock, "model.").items() if name != missing}, words)
    pixels = tmp_path / "VAE/qwen_image_tiny.safetensors"
    lenders = [ModelFile(path.stem, path, read_part(path)) for path in (words, pixels)]
    with pytest.raises(CannotLoad, match="^model 'tiny' cannot be loaded: qwen_3_tiny.safetensors "):
        loader = ModelLoader(ModelFile("tiny", file, read_checkpoint(file)), lenders, torch.float32)
        os.truncate(words, words.stat().st_size - 9)
        list(loader.read(lambda _: torch.device("cpu")))


def test_an_autoencoder_of_another_build_is_refused(stock, tmp_path):
    later = vae_state(stock, "") | {"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}
    save_file(later, tmp_path / "wan2.2_vae.safetensors")
    checkpoint = read_checkpoint(save_apart(tmp_path, stock))
    file = VaeFile("wan2.2_vae", tmp_path / "wan2.2_vae.safetensors")
    with pytest.raises(CannotLoad, match="holds no VAE of Qwen-Image's kind, which Anima needs"):
        read_vae(file, checkpoint, torch.float32, torch.device("cpu"))
