"""LoRA files as they are found: every dialect and format means the same; how much memory and time reading takes."""

import functools
import itertools
import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from lora_files import ATTENTION, CONV_IN, NORM, TO_K, Tensors, kohya, lora
from safetensors.torch import load_file
from torch import nn

from webui.engine.lora.deltas import LowRank, merge
from webui.engine.lora.reading import CannotApply

# ---- dialects ----


def transformers_4(component: str, path: str) -> str:
    """The path as files have it: text encoders with one more level, as transformers had it before 5."""
    inner = path.removeprefix("text_model.")
    return path if component == "backbone" or path == "text_projection" else f"text_model.{inner}"


def kohya_name(te: str) -> Callable[[str, str], str]:
    prefixes = {"backbone": "lora_unet", "text_encoder": f"lora_te{te}", "text_encoder_2": "lora_te2"}
    return lambda component, path: f"{prefixes[component]}_{transformers_4(component, path).replace('.', '_')}"


def folder(component: str) -> str:
    """As diffusers calls it."""
    return "unet" if component == "backbone" else component


def processor_name(component: str, path: str) -> str:
    """As diffusers saved attention processors, before it used PEFT; other layers had names like today's."""
    path = transformers_4(component, path)
    for new, old in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")):
        if path.endswith(f"self_attn.{new}"):
            return f"{folder(component)}.{path.removesuffix(new)}{old}_lora"
    for attention in ("attn1.", "attn2."):
        if attention in path:
            return f"{folder(component)}.{path.replace(attention, f'{attention}processor.').removesuffix('.0')}_lora"
    return f"{folder(component)}.{path}.lora"


def peft_name(prefix: str) -> Callable[[str, str], str]:
    return lambda component, path: f"{prefix}{folder(component)}.{transformers_4(component, path)}"


def clip_name(start: str, unet: str, inner: str = "") -> Callable[[str, str], str]:
    """CLIP's encoders by their own names instead of diffusers'."""
    prefixes = {"backbone": unet, "text_encoder": f"{start}clip_l.{inner}", "text_encoder_2": f"{start}clip_g.{inner}"}
    return lambda component, path: f"{prefixes[component]}{transformers_4(component, path)}"


DOWN_UP = ("down.weight", "up.weight")
DIALECTS = {
    "kohya": (kohya_name(""), ".lora_", DOWN_UP),
    "kohya, two text encoders": (kohya_name("1"), ".lora_", DOWN_UP),
    "diffusers": (peft_name(""), ".lora_", ("A.weight", "B.weight")),
    "diffusers before PEFT": (peft_name(""), ".lora.", DOWN_UP),
    "diffusers' linear layers": (peft_name(""), ".lora_linear_layer.", DOWN_UP),
    "attention processors": (processor_name, ".", DOWN_UP),
    "PEFT": (peft_name("base_model.model."), ".lora_", ("A.weight", "B.weight")),
    "PEFT's adapter": (peft_name("base_model.model."), ".lora_", ("A.default.weight", "B.default.weight")),
    "an adapter of any name": (peft_name(""), ".lora_", ("A.my style.weight", "B.my style.weight")),
    "OMI": (clip_name("", "unet."), ".lora_", DOWN_UP),
    "OMI with LoRA's name": (clip_name("lora_", "lora_unet."), ".lora_", DOWN_UP),
    "ComfyUI": (clip_name("text_encoders.", "diffusion_model.", "transformer."), ".lora_", DOWN_UP),
    "OneTrainer for ComfyUI": (clip_name("text_encoders.", "diffusion_model."), ".lora_", ("A.weight", "B.weight")),
    "transformers 5": (lambda component, path: f"{folder(component)}.{path}", ".lora_", ("A.weight", "B.weight")),
}


@dataclass(frozen=True)
class Change:
    """A LoRA over many layers of a model: down, up and the weight they make of the model's, by component and path."""

    components: dict[str, nn.Module]
    layers: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    alpha: float | None


@pytest.fixture(scope="session")
def make_change(demo_parts, sdxl_parts) -> Callable[[str, float | None], Change]:
    """``make_change("demo", alpha)``: over every third linear or convolution layer, of another rank each time."""
    models = {"demo": demo_parts, "sdxl": sdxl_parts}

    @functools.cache
    def make(model: str, alpha: float | None) -> Change:
        torch.manual_seed(4)
        layers = {}
        for component, root in models[model].items():
            found = [entry for entry in root.named_modules() if isinstance(entry[1], nn.Linear | nn.Conv2d)]
            for path, module in found[::3]:
                out, inside, *kernel = module.weight.shape
                rank = 1 + len(layers) % 5
                down, up = 0.1 * torch.randn(rank, inside, *kernel), 0.1 * torch.randn(out, rank, *[1] * len(kernel))
                scale = 1.0 if alpha is None else alpha / rank
                delta = LowRank(up.flatten(1), down.flatten(1), scale)
                layers[component, path] = down, up, merge(module.weight, [(delta, 1.0)])
        return Change(models[model], layers, alpha)

    return make


@pytest.fixture
def check_dialect(write_lora, merge_file) -> Callable[..., None]:
    """Checks that a change so written gives the same weights, bit for bit."""

    def check(change: Change, name_of, middle: str, endings: tuple[str, str], component: str | None = None) -> None:
        tensors, expected = {}, {}
        for place, (down, up, weight) in change.layers.items():
            if component in (None, place[0]):
                name = name_of(*place)
                tensors |= {f"{name}{middle}{endings[0]}": down, f"{name}{middle}{endings[1]}": up}
                if change.alpha is not None:
                    tensors[f"{name}.alpha"] = torch.tensor(change.alpha)
                expected[*place, "weight"] = weight
        merged = merge_file(write_lora(tensors), change.components)
        assert merged.keys() == expected.keys()
        assert all(torch.equal(merged[place], expected[place]) for place in expected)

    return check


@pytest.mark.parametrize("model", ["demo", "sdxl"])
@pytest.mark.parametrize(
    ("dialect", "alpha"), [*((dialect, None) for dialect in DIALECTS), ("kohya", 3.0), ("diffusers before PEFT", 3.0)]
)
def test_every_dialect_gives_the_same_weights(make_change, check_dialect, model, dialect, alpha):
    check_dialect(make_change(model, alpha), *DIALECTS[dialect])


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize(
    ("prefix", "flat", "middle", "endings"),
    [
        ("lora_unet_", True, ".lora_", DOWN_UP),
        ("diffusion_model.", False, ".lora_", ("A.weight", "B.weight")),
        ("model.diffusion_model.", False, ".lora_", DOWN_UP),
    ],
)
def test_stability_s_block_names_give_the_same_weights(
    stock_sdxl_parts, stability_paths, make_change, check_dialect, prefix, flat, middle, endings, alpha
):
    names = {path: name for name, path in stability_paths(stock_sdxl_parts["backbone"]).items()}
    assert "input_blocks.4.1.transformer_blocks.0.attn2.to_k" in names.values()

    def name_of(_component: str, path: str) -> str:
        return prefix + (names[path].replace(".", "_") if flat else names[path])

    check_dialect(make_change("sdxl", alpha), name_of, middle, endings, component="backbone")


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_names_without_a_component_mean_the_unet(make_change, check_dialect, prefix):
    check_dialect(make_change("demo", None), lambda _, path: prefix + path, ".lora_", DOWN_UP, component="backbone")


def test_a_file_for_the_text_encoder_alone_changes_it_alone(read, write_lora):
    name = "lora_te_text_model_encoder_layers_1_mlp_fc1"
    weights = read(write_lora(kohya(name, 384, 192)))
    assert list(weights.deltas) == [("text_encoder", "encoder.layers.1.mlp.fc1", "weight")]
    assert weights.unmatched == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_float_type_is_kept_as_it_is_and_merged_by_value(demo_parts, read, write_lora, dtype):
    tensors = kohya(TO_K, 160, 192, dtype=dtype) | {f"{TO_K}.alpha": torch.tensor(2.0, dtype=dtype)}
    weights = read(write_lora(tensors))
    down, up = (tensors[f"{TO_K}.lora_{part}.weight"] for part in ("down", "up"))
    assert weights.nbytes == down.nbytes + up.nbytes
    base = demo_parts["backbone"].get_submodule(f"{ATTENTION}.attn2.to_k").weight
    merged = merge(base, [(*weights.deltas.values(), 1.0)])
    torch.testing.assert_close(merged, (base.double() + 0.5 * up.double() @ down.double()).float())


def test_without_alpha_the_rank_is_taken_whatever_its_size(read, write_lora):
    for rank, dtype in itertools.product((1, 4, 16), (torch.float32, torch.float16)):
        file = write_lora(kohya(TO_K, 160, 192, rank=rank, dtype=dtype), name=f"{rank}{dtype}")
        assert next(iter(read(file).deltas.values())).scale == 1.0


@pytest.mark.parametrize("metadata", ["", "{", "[]", "7", "null", "[" * 10**5, '{"unet.lora_alpha": "x"}', '"x"'])
def test_a_broken_note_of_the_alpha_is_no_note(read, write_lora, metadata):
    file = write_lora(kohya(TO_K, 160, 192), {"lora_adapter_metadata": metadata})
    assert next(iter(read(file).deltas.values())).scale == 1.0


def test_keys_without_a_use_are_reported_each_and_exactly(read, write_lora):
    unmatched = [
        "lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight",
        "lora_unet_down_blocks_9_attentions_0_proj_in.alpha",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
        f"{CONV_IN}.alpha",  # scales nothing
        "emb_params",
        "<script>",
        "💥",
    ]
    unknown = [f"{TO_K}.lora_sideways.weight", f"{TO_K}.weight", f"unet.{ATTENTION}.attn1.to_q.vera_lambda_d"]
    others = {key: torch.ones(2, 2) for key in (*unmatched, *unknown)}
    weights = read(write_lora(kohya(TO_K, 160, 192) | others))
    assert sorted(weights.unmatched) == sorted(unmatched) and sorted(weights.unknown) == sorted(unknown)
    assert list(weights.deltas) == [("backbone", f"{ATTENTION}.attn2.to_k", "weight")]
    no_place, no_ending = weights.warnings
    assert no_place.startswith("7 keys have no place in this model and did nothing, for example ")
    assert no_ending.startswith("3 keys do nothing, though this model has the modules: the ending ")
    for name in (" .lora_sideways.weight", " .weight", " .vera_lambda_d (VeRA)"):
        assert name in no_ending


def test_of_one_weight_in_two_dialects_the_second_is_reported(read, write_lora):
    twice = kohya(TO_K, 160, 192) | {
        f"unet.{ATTENTION}.attn2.to_k.lora_A.weight": torch.ones(4, 192),
        f"unet.{ATTENTION}.attn2.to_k.lora_B.weight": torch.ones(160, 4),
    }
    weights = read(write_lora(twice))
    assert len(weights.unmatched) == 2 and len(weights.deltas) == 1


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_bias_of_peft_s_is_a_difference_times_the_scale(demo_parts, merge_file, write_lora, alpha):
    name, (down, up), bias = f"unet.{ATTENTION}.attn2.to_out.0", lora(160, 160), torch.randn(160)
    tensors = {f"{name}.lora_A.x.weight": down, f"{name}.lora_B.x.weight": up, f"{name}.lora_B.x.bias": bias}
    tensors |= {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
    merged = merge_file(write_lora(tensors), demo_parts)
    assert [kind for _, _, kind in merged] == ["weight", "bias"]
    base = demo_parts["backbone"].get_submodule(f"{ATTENTION}.attn2.to_out.0").bias
    expected = base + bias * (1.0 if alpha is None else alpha / 4)
    torch.testing.assert_close(merged["backbone", f"{ATTENTION}.attn2.to_out.0", "bias"], expected)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_set_weight_is_the_weight_itself(demo_parts, merge_file, write_lora, strength):
    wanted = torch.randn(64)
    merged = merge_file(write_lora({f"{NORM}.set_weight": wanted}), demo_parts, strength)
    base = demo_parts["backbone"].conv_norm_out.weight
    torch.testing.assert_close(merged["backbone", "conv_norm_out", "weight"], base + (wanted - base) * strength)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_by_value_alphas_too(demo_parts, merge_file, write_lora, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in kohya(TO_K, 160, 192).items()}
    tensors[f"{TO_K}.alpha"] = torch.tensor(3.0).to(dtype)
    exact = {key: tensor.float() for key, tensor in tensors.items()}
    merged, expected = (merge_file(write_lora(own), demo_parts) for own in (tensors, exact))
    assert len(merged) == 1 and all(torch.equal(merged[place], expected[place]) for place in expected)


@pytest.mark.parametrize("ending", ["lora_up.weight_scale", "lora_up.scale_weight"])
@pytest.mark.parametrize("rows", [1, 160])
def test_float8_with_a_scale_is_multiplied_by_it(demo_parts, merge_file, write_lora, ending, rows):
    tensors = kohya(TO_K, 160, 192)
    scale, up = torch.rand(rows) + 0.5, f"{TO_K}.lora_up.weight"
    small = tensors | {up: tensors[up].to(torch.float8_e4m3fn), f"{TO_K}.{ending}": scale}
    exact = tensors | {up: small[up].float() * scale[:, None]}
    merged, expected = (merge_file(write_lora(own), demo_parts) for own in (small, exact))
    assert len(merged) == 1 and all(torch.equal(merged[place], expected[place]) for place in expected)


def test_a_format_of_small_numbers_that_is_not_known_is_named(read, write_lora):
    tensors = kohya(TO_K, 160, 192) | {f"{TO_K}.lora_up.weight_scale_2": torch.ones(1)}
    with pytest.raises(CannotApply, match="is quantized as nvfp4, which is not known here"):
        read(write_lora(tensors))


def test_embeddings_in_the_file_are_read_and_notes_about_them_are_no_warning(read, write_lora):
    vectors = torch.randn(2, 192)
    bundled = {"bundle_emb.zorb.string_to_param.*": vectors, "bundle_emb.zorb.string_to_token.*": torch.tensor(265)}
    weights = read(write_lora(kohya(TO_K, 160, 192) | bundled))
    (embedding,) = weights.embeddings
    assert embedding.name == "zorb" and embedding.rows == 2 and weights.warnings == ()
    assert torch.equal(embedding.vectors["text_encoder"], vectors)
    other = read(write_lora(kohya(TO_K, 160, 192) | {"bundle_emb.zorb.clip_l": vectors}, name="other"))
    assert torch.equal(other.embeddings[0].vectors["text_encoder"], vectors)
    assert other.embeddings[0].content_hash != embedding.content_hash
    assert read(write_lora({"bundle_emb.zorb.clip_l": vectors}, name="alone")).deltas == {}
    left = read(write_lora({"bundle_emb.zorb.clip_l": vectors, "bundle_emb.zorb.clip_l_out": vectors}, name="out"))
    assert left.unmatched == ("bundle_emb.zorb.clip_l_out",)


def test_a_header_whose_metadata_is_null_is_read(read, write_lora):
    file = write_lora(kohya(TO_K, 160, 192))
    length = struct.unpack("<Q", file.path.read_bytes()[:8])[0]
    header = json.loads(file.path.read_bytes()[8 : 8 + length]) | {"__metadata__": None}
    text = json.dumps(header).encode()
    file.path.write_bytes(struct.pack("<Q", len(text)) + text + file.path.read_bytes()[8 + length :])
    assert len(read(file).deltas) == 1


# ---- memory and time ----


def held(value: object) -> Iterator[torch.Tensor]:
    """The tensors in a delta."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from held(part)
    elif hasattr(value, "__dataclass_fields__"):
        for part in vars(value).values():
            yield from held(part)


def every_format() -> Tensors:
    """One module of each format, and keys for no module."""

    def keys(path: str, **shapes: tuple[int, ...]) -> Tensors:
        name = f"lora_unet_{path.replace('.', '_')}"
        return {f"{name}.{key.replace('__', '.')}": torch.randn(shape) for key, shape in shapes.items()}

    at = f"{ATTENTION}.attn"
    loha = {"hada_w1_a": (160, 4), "hada_w1_b": (4, 160), "hada_w2_a": (160, 4), "hada_w2_b": (4, 160)}
    return {
        **keys(f"{at}2.to_k", lora_down__weight=(4, 192), lora_up__weight=(160, 4), dora_scale=(160, 1)),
        **keys("conv_in", lora_down__weight=(2, 4, 1, 1), lora_mid__weight=(2, 2, 3, 3), lora_up__weight=(64, 2, 1, 1)),
        **keys(f"{at}1.to_q", **loha),
        **keys(f"{at}1.to_k", lokr_w1=(8, 8), lokr_w2_a=(20, 2), lokr_w2_b=(2, 20)),
        **keys(f"{at}1.to_v", weight=(160,)),
        **keys("conv_norm_out", w_norm=(64,), b_norm=(64,)),
        **keys("time_embedding.linear_1", diff=(256, 64), diff_b=(256,)),
        **keys("time_embedding.linear_2", oft_blocks=(32, 8, 8), rescale=(256, 1)),
        **keys("down_blocks.1.resnets.0.conv1", oft_blocks=(5, 16, 10, 10)),
        **keys(f"{at}2.to_q", oft_R__weight=(20, 28)),
        **keys(f"{at}2.to_v", a1__weight=(192, 4), a2__weight=(4, 192), b1__weight=(160, 4), b2__weight=(4, 192)),
        **keys(f"{at}2.to_out.0", p_layer__weight=(160, 4), q_layer__weight=(4, 160), lambda_layer=(1, 4)),
        **keys("mid_block.resnets.0.norm1", set_weight=(224,)),
        **keys("nowhere", lora_down__weight=(64, 4096)),
    } | {f"lora_unet_{at.replace('.', '_')}1_to_v.on_input": torch.tensor(0)}


def test_no_more_memory_is_held_than_the_matching_tensors_are_large(read, write_lora):
    file = write_lora(every_format())
    weights = read(file)
    tensors = load_file(file.path)
    expected = sum(t.nbytes for key, t in tensors.items() if "nowhere" not in key and "on_input" not in key)
    assert len(weights.unmatched) == 1 and len(weights.deltas) == 15
    kept = [tensor for delta in weights.deltas.values() for tensor in held(delta)]
    assert weights.nbytes == expected
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == expected


def test_what_was_read_is_not_the_file_s_memory(read, write_lora):
    file = write_lora(every_format())
    kept = [tensor for delta in read(file).deltas.values() for tensor in held(delta)]
    before = [tensor.clone() for tensor in kept]
    size_bytes = file.path.stat().st_size
    with file.path.open("r+b") as open_file:  # in place: the same pages that a memory map would show
        open_file.write(b"\xff" * size_bytes)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(kept, before, strict=True))


def test_a_file_of_twenty_thousand_tensors_is_read_in_seconds(read, write_lora):
    tensors = {f"lora_unet_x_{number}.lora_up.weight": torch.ones(1, 1) for number in range(19_998)}
    file = write_lora(tensors | kohya(TO_K, 160, 192))
    start = time.thread_time()
    weights = read(file)
    assert time.thread_time() - start < 10  # about one second
    assert len(weights.unmatched) == 19_998 and len(weights.deltas) == 1
