"""Krea 2 beside diffusers' own pipeline and transformers' encoder, with tiny random networks in the published names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.anima_models import write_published
from tests.engine.families.test_anima import stock_tokenizers
from tests.krea2_models import LAYERS, STYLES, encoder_state, make_parts, pipeline, published, theirs
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.engine.families import krea2
from webui.engine.families.family import EncodeOptions, Parts
from webui.engine.families.loading import ModelLoader
from webui.engine.lora.names import ModuleIndex
from webui.engine.text import qwen
from webui.engine.text.vocabularies import shipped
from webui.engine.weights import Files, WeightLoader, build_empty
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
    return pipeline(stock, tokenizer=tokenizer)


def our_parts(stock: dict[str, Any]) -> Parts:
    """The text half alone, filled by our loader from the names of the file that sees too."""
    words = build_empty(lambda: qwen.make(krea2.TEXT_ENCODER.config(None, shapes(encoder_state(stock, "")), PREFIX)))
    words.load_state_dict(stock["text_encoder"].language_model.state_dict(), assign=True)
    modules = {"text_encoder": words, "backbone": stock["transformer"], "vae": stock["vae"]}
    return Parts(SimpleNamespace(), modules, torch.device("cpu"), {"text_encoder": shipped("qwen3")})  # type: ignore[arg-type]


PREFIX = "language_model."


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_words_become_what_diffusers_makes_of_them(stock: dict[str, Any], pipe: Any, prompt: str) -> None:
    with torch.inference_mode():
        own = krea2.encode(our_parts(stock), prompt, EncodeOptions())["context"]
        states, mask = pipe.get_text_hidden_states(prompt, device=torch.device("cpu"))

    assert own.shape[1:] == (mask.sum(), 3, 32) and own.isfinite().all()
    assert (own - states[mask][None]).abs().max() < 2e-6


def test_a_prompt_longer_than_diffusers_reads_is_read_whole_and_one_without_end_is_refused(
    stock: dict[str, Any],
) -> None:
    parts = our_parts(stock)
    with torch.inference_mode():
        assert krea2.encode(parts, "cat " * 700, EncodeOptions())["context"].shape[1] > 700
    with pytest.raises(RequestError, match="tokens; 4,096 are the most"):
        krea2.encode(parts, "cat " * 5000, EncodeOptions())


def test_layers_are_those_that_were_published() -> None:
    from diffusers import Krea2Pipeline

    made = Krea2Pipeline(*[None] * 5)
    assert tuple(krea2.taps(12)) == made.config.text_encoder_select_layers
    assert tuple(krea2.taps(3)) == LAYERS
    assert len(shipped("qwen3").encode(qwen.BEFORE).ids) == qwen.NOT_TOLD == made.prompt_template_encode_start_idx
    assert (made.prompt_template_encode_prefix, made.prompt_template_encode_suffix) == (qwen.BEFORE, qwen.BEHIND)


def test_names_are_those_that_diffusers_converts_from(stock: dict[str, Any]) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_krea2_lora_to_diffusers
    from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers

    converted = convert_krea2_transformer_checkpoint_to_diffusers(theirs(stock, "model.diffusion_model."))
    for name, tensor in stock["transformer"].state_dict().items():
        assert torch.equal(converted.pop(name), tensor), name
    assert not converted
    linear = [path for path, layer in stock["transformer"].named_modules() if isinstance(layer, torch.nn.Linear)]
    lora = {f"diffusion_model.{krea2.krea_name(path)}.lora_A.weight": torch.zeros(1) for path in linear}
    assert _convert_non_diffusers_krea2_lora_to_diffusers(lora).keys() == {
        f"transformer.{path}.lora_A.weight" for path in linear
    }


@pytest.mark.parametrize("names", ["krea", "diffusers"])
def test_configurations_come_from_shapes(stock: dict[str, Any], names: str) -> None:
    state = (
        theirs(stock, "x.") if names == "krea" else {f"x.{k}": v for k, v in stock["transformer"].state_dict().items()}
    )
    found = krea2.TRANSFORMER.config(SimpleNamespace(names=names), shapes(state), "x.")  # type: ignore[arg-type]
    assert found == {key: stock["transformer"].config[key] for key in found}
    assert krea2.TRANSFORMER.make(found).config == {**stock["transformer"].config}


def test_every_program_s_name_of_a_module_is_found(stock: dict[str, Any]) -> None:
    index = ModuleIndex({"backbone": stock["transformer"]}, [krea2.TRANSFORMER])
    for path, module in stock["transformer"].named_modules():
        if isinstance(module, torch.nn.Linear):
            for style, name in STYLES.items():
                assert index.find(name(path)) == (("backbone", path, None),), style
    begin = "transformer_blocks.1.attn"
    assert index.find(f"transformer.{begin}.to_qkv") == (
        ("backbone", f"{begin}.to_q", (0, 64)),
        ("backbone", f"{begin}.to_k", (64, 96)),
        ("backbone", f"{begin}.to_v", (96, 128)),
    )


def test_the_transformer_is_asked_as_diffusers_asks_it(stock: dict[str, Any], pipe: Any) -> None:
    backbone = krea2.Krea2Backbone(stock["transformer"])
    generator = torch.Generator().manual_seed(3)
    contexts = [torch.randn(1, tokens, 3, 32, generator=generator) for tokens in (9, 9, 5)]
    latents = torch.randn(2, 16, 8, 6, generator=generator)
    packed = pipe._pack_latents(latents, 2, 16, 8, 6)
    with torch.inference_mode():
        prepared = backbone.prepare([{"context": context} for context in contexts], 2)
        told = [row for each in prepared for row in backbone.predict(latents, torch.tensor(620.0), each)]
        for output, context in zip(told, contexts, strict=True):
            room = torch.cat([context, torch.randn(1, 4, 3, 32)], dim=1).repeat(2, 1, 1, 1)
            alone = stock["transformer"](
                hidden_states=packed,
                timestep=torch.full((2,), 0.62),
                encoder_hidden_states=room,
                encoder_attention_mask=(torch.arange(room.shape[1]) < context.shape[1]).expand(2, -1),
                position_ids=pipe.prepare_position_ids(room.shape[1], 4, 3, torch.device("cpu")),
                return_dict=False,
            )[0]
            assert (output - pipe._unpack_latents(alone, 64, 48)[:, :, 0]).abs().max() < 2e-5
    assert [len(each.told["context"]) for each in prepared] == [4, 2]
    assert (told[0] - told[1]).abs().max() > 1e-2


def test_what_must_not_be_rounded_is_read_whole(stock: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(theirs(stock, ""), tmp_path / "krea2.safetensors")
    files = Files([tmp_path / "krea2.safetensors"])
    config = krea2.TRANSFORMER.config(SimpleNamespace(names="krea"), files.shapes, "")  # type: ignore[arg-type]
    module = build_empty(lambda: krea2.TRANSFORMER.make(config))
    loader = WeightLoader(module, files, lambda name: krea2.TRANSFORMER.keys(name, module, "krea", ""))
    for _ in loader.read(torch.bfloat16, torch.device("cpu")):
        pass
    whole = {name for name, parameter in module.named_parameters() if parameter.dtype == torch.float32}

    assert whole == {name for name, _ in module.named_parameters() if "norm" in name}
    assert module.dtype == torch.bfloat16
    assert loader.nbytes(torch.bfloat16) == sum(parameter.nbytes for parameter in module.parameters())
    assert krea2.TRANSFORMER.dtype({}, torch.float16) == torch.bfloat16


def test_the_published_files_are_known_and_all_of_them_is_found(tmp_path: Path) -> None:
    paths = {
        folder: write_published(tmp_path / folder / "published.safetensors", shapes, sparse=True)
        for folder, shapes in published().items()
    }
    whole = paths.pop("diffusion_models")
    checkpoint = read_checkpoint(whole)
    assert (checkpoint.family, checkpoint.native_px, checkpoint.context_width) == ("Krea 2", 1024, 2560)
    assert (checkpoint.dtype, checkpoint.missing_parts) == ("BF16", ("text_encoder", "vae"))
    lenders = [ModelFile(path.parent.name, path, read_part(path)) for path in paths.values()]
    loader = ModelLoader(ModelFile("whole", whole, checkpoint), lenders, torch.bfloat16)
    numbers = {role: sum(part.numel() for part in module.parameters()) for role, module in loader.modules.items()}
    assert numbers == {"backbone": 12_820_073_036, "text_encoder": 4_022_468_096, "vae": 44_599_603}
    assert not any("did nothing" in warning for warning in loader.warnings)
