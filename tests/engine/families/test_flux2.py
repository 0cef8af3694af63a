"""FLUX.2 Klein beside diffusers' own networks and pipeline, with tiny random weights in the published names."""

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.anima_models import write_published
from tests.flux2_models import TRANSFORMER, VAE, make_parts, numbers, published, theirs, vae_state
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.tensor_file import BadFile, Header
from webui.engine.families import flux1, flux2, flux2_vae
from webui.engine.families.family import EncodeOptions, Parts
from webui.engine.families.loading import ModelLoader
from webui.engine.text import qwen, vocabularies
from webui.library.checkpoint import check_header, read_checkpoint, read_part

PROMPTS = ("a red (apple:1.2), flat style", "Ein Füchslein — 東京 😀", "", "line\nbreak <think> x")
SIZES = {"4B": (3_875_544_576, 2560, 7680), "9B": (9_078_581_248, 4096, 12_288)}


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return stock_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def stock_tokenizer(folder: Path) -> Any:
    """transformers' own class on the vocabulary that ships, with what Qwen3 has of its chat form for one question."""
    from transformers import Qwen2TokenizerFast

    shipped = Path(vocabularies.__file__).parent / "vocabulary"
    (folder / "tokenizer.json").write_bytes(gzip.decompress((shipped / "qwen3.json.gz").read_bytes()))
    found = Qwen2TokenizerFast.from_pretrained(folder, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    found.chat_template = (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
        "{%- endif %}"
    )
    return found


def our_parts(stock: dict[str, Any]) -> Parts:
    """As they are loaded: of the encoder what is read."""
    encoder = qwen.make(stock["text_encoder"].config.to_dict(), flux2.LAYERS[-1]).eval()
    encoder.load_state_dict(stock["text_encoder"].model.state_dict(), strict=False)
    modules = {**stock, "backbone": stock["transformer"], "text_encoder": encoder}
    tokenizers = {"text_encoder": vocabularies.shipped("qwen3")}
    return Parts(SimpleNamespace(), modules, torch.device("cpu"), tokenizers)  # type: ignore[arg-type]


@torch.inference_mode()
def test_words_become_what_the_pipeline_makes_of_them(stock: dict[str, Any], tokenizer: Any) -> None:
    from diffusers import Flux2KleinPipeline

    parts = our_parts(stock)
    for prompt in PROMPTS:
        own = flux2.encode(parts, prompt, EncodeOptions())["context"]
        theirs_ = Flux2KleinPipeline._get_qwen3_prompt_embeds(stock["text_encoder"], tokenizer, prompt)
        assert own.shape == (1, 512, 96) and own.isfinite().all()
        assert torch.equal(own, theirs_)
    assert (own - flux2.encode(parts, PROMPTS[0], EncodeOptions())["context"]).abs().max() > 0.1


@torch.inference_mode()
def test_a_prompt_longer_than_512_tokens_is_read_whole_and_one_without_end_is_refused(stock: dict[str, Any]) -> None:
    parts = our_parts(stock)
    assert flux2.encode(parts, "cat " * 520, EncodeOptions())["context"].shape[1] == 521 + 12  # the last space too
    with pytest.raises(RequestError, match="tokens; 4,096 are the most"):
        flux2.encode(parts, "cat " * 5000, EncodeOptions())


def test_names_are_those_that_diffusers_converts_from(stock: dict[str, Any]) -> None:
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

    converted = convert_flux2_transformer_checkpoint_to_diffusers(theirs(stock, ""))
    own = stock["transformer"].state_dict()
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], own[name]) for name in own)


def test_configurations_come_from_shapes(stock: dict[str, Any]) -> None:
    def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    own, ours = shapes(theirs(stock, "x.")), shapes(stock["transformer"].state_dict())
    for names, prefix, found in (("flux", "x.", own), ("diffusers", "", ours)):
        config = flux2.TRANSFORMER.config(SimpleNamespace(names=names), found, prefix)  # type: ignore[arg-type]
        assert config == TRANSFORMER
    for state in (vae_state(stock, ""), vae_state(stock, "", halves=False), stock["vae"].state_dict()):
        config = flux2_vae.config_of(shapes(state), "")
        known = {**stock["vae"].config, "decoder_block_out_channels": VAE["block_out_channels"]}
        for key in VAE.keys() & config.keys() | {"use_quant_conv", "use_post_quant_conv", "decoder_block_out_channels"}:
            assert config[key] == (list(known[key]) if isinstance(config[key], list) else known[key]), key


@torch.inference_mode()
def test_pictures_become_latents_and_latents_pictures_as_in_diffusers(stock: dict[str, Any]) -> None:
    from diffusers import Flux2KleinPipeline as Pipeline

    vae = flux2_vae.PatchedAutoencoder(stock["vae"].config).eval()
    vae.load_state_dict({key: value for key, value in stock["vae"].state_dict().items() if "num_batches" not in key})
    own, picture = flux2_vae.Flux2Autoencoder(vae, torch.device("cpu")), torch.rand(1, 3, 64, 48) * 2 - 1
    latents = own.encode(picture).sample(lambda shape: pytest.fail("nothing is drawn"))
    packed = Pipeline._encode_vae_image(SimpleNamespace(vae=stock["vae"], _patchify_latents=Pipeline._patchify_latents), picture, None)  # fmt: skip # noqa: E501
    statistics = stock["vae"].bn
    spread = torch.sqrt(statistics.running_var.view(1, -1, 1, 1) + stock["vae"].config.batch_norm_eps)
    unpacked = Pipeline._unpatchify_latents(packed * spread + statistics.running_mean.view(1, -1, 1, 1))
    decoded = stock["vae"].decode(unpacked, return_dict=False)[0]

    assert own.scale == 8 and latents.shape == (1, 32, 8, 6)
    assert (latents - Pipeline._unpatchify_latents(packed)).abs().max() < 1e-4
    assert (own.decode(latents) - decoded).abs().max() < 1e-4
    assert own.decode(own.encode(torch.zeros(1, 3, 72, 40)).mean).shape == (1, 3, 72, 40), "half a patch"


@torch.inference_mode()
def test_the_transformer_is_asked_as_diffusers_asks_it(stock: dict[str, Any]) -> None:
    from diffusers import Flux2KleinPipeline as Pipeline

    backbone, generator = flux2.Flux2Backbone(stock["transformer"]), torch.Generator().manual_seed(3)
    contexts = [torch.randn(1, 9, 96, generator=generator) for _ in range(2)]
    latents = torch.randn(2, 32, 8, 6, generator=generator)
    (prepared,) = backbone.prepare([{"context": context} for context in contexts], 2)
    told = backbone.predict(latents, torch.tensor(620.0), prepared)
    packed = Pipeline._patchify_latents(latents)
    for output, context in zip(told, contexts, strict=True):
        alone = stock["transformer"](
            hidden_states=Pipeline._pack_latents(packed),
            encoder_hidden_states=context.repeat(2, 1, 1),
            timestep=torch.full((2,), 0.62),
            img_ids=Pipeline._prepare_latent_ids(packed),
            txt_ids=Pipeline._prepare_text_ids(context.repeat(2, 1, 1)),
            return_dict=False,
        )[0]
        expected = Pipeline._unpatchify_latents(alone.transpose(1, 2).reshape(packed.shape))
        assert (output - expected).abs().max() < 1e-5
    assert (told[0] - told[1]).abs().max() > 1e-3
    assert backbone.predict(latents[..., :7, :5], torch.tensor(620.0), prepared)[0].shape == (2, 32, 7, 5)


def test_the_shift_is_the_pipelines(stock: dict[str, Any]) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    for tokens, steps in ((16, 4), (4096, 4), (4096, 50), (6400, 4)):
        mu = compute_empirical_mu(tokens, steps)
        assert flux2.shift({}, tokens, steps) == pytest.approx(torch.tensor(mu).exp().item(), rel=1e-6)
    assert flux2.shift({"use_dynamic_shifting": False, "shift": 2.5}, 16, 4) == 2.5


@pytest.mark.parametrize("size", SIZES)
def test_the_published_files_are_known_and_all_of_them_is_found(tmp_path: Path, size: str) -> None:
    shapes = published(size)
    paths = {folder: write_published(tmp_path / folder / "x.safetensors", shapes[folder], True) for folder in shapes}
    count, width, context = SIZES[size]
    checkpoint = read_checkpoint(paths["diffusion_models"])
    assert (checkpoint.family, checkpoint.native_px, checkpoint.context_width) == ("FLUX.2 Klein", 1024, width)
    assert (checkpoint.dtype, checkpoint.prediction) == ("BF16", "flow")
    assert checkpoint.missing_parts == ("text_encoder", "vae")
    lenders = [ModelFile(folder, paths[folder], read_part(paths[folder])) for folder in ("text_encoders", "VAE")]
    loader = ModelLoader(ModelFile("whole", paths["diffusion_models"], checkpoint), lenders, torch.bfloat16)
    assert loader.part_bytes["backbone"] // 2 == numbers(shapes["diffusion_models"]) == count
    assert loader.modules["backbone"].config.joint_attention_dim == context  # type: ignore[union-attr]
    assert len(loader.modules["text_encoder"].layers) == 27  # type: ignore[arg-type]
    assert loader.part_bytes["text_encoder"] < 0.8 * 2 * numbers(shapes["text_encoders"])
    assert not [line for line in loader.warnings if "matches nothing" in line or "match nothing" in line]


def test_what_cannot_be_drawn_with_is_said(stock: dict[str, Any]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs(stock, "").items()}
    with pytest.raises(BadFile, match="is FLUX.2 dev, whose words Mistral reads"):
        check_header(Header({}, shapes | {"guidance_in.in_layer.weight": (32, 32)}))
    config = stock["text_encoder"].config.to_dict() | {"num_hidden_layers": 24}
    with pytest.raises(BadFile, match="has a text encoder of 24 layers, of which the 27th is to be read"):
        flux2.TEXT_ENCODER.make(config)


def test_float16_is_bfloat16_where_it_would_overflow() -> None:
    for part in (flux2.TEXT_ENCODER, flux2.TRANSFORMER, flux1.T5_ENCODER, flux1.TRANSFORMER):
        assert part.dtype({}, torch.float16) == torch.bfloat16 and part.dtype({}, torch.float32) == torch.float32
