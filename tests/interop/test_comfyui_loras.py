"""LoRAs in ComfyUI's graphs: with their strengths, in their order, and those that cannot be told are said."""

import json
from typing import Any

import pytest

from webui.core.request import LoraRef

from .graphs import graph, node, sampler

BLUEPRINT = LoraRef(name="blueprint", weight=0.8)
LORAS: dict[str, tuple[dict[str, Any], list[LoraRef]]] = {
    "Efficient Loader": (
        node(
            "Efficient Loader",
            ckpt_name="sd/other.safetensors",
            lora_name="blueprint.safetensors",
            lora_model_strength=0.8,
            lora_clip_strength=0.6,
        ),
        [LoraRef(name="blueprint", weight=0.8, text_weight=0.6)],
    ),
    "tags in a linked text": (
        node("LoraTagLoader", text=["56", 0], model=["4", 0]),
        [BLUEPRINT],
    ),
    "tags in a list": (
        node("ttN pipeLoader_v2", ckpt_name="sd/other.safetensors", loras="<lora:blueprint:0.8>"),
        [BLUEPRINT],
    ),
    "a loader behind a prompt's node": (
        node("Power Prompt (rgthree)", prompt="a fox", opt_model=["57", 0]),
        [BLUEPRINT],
    ),
    "one strength by its full name": (
        node("NunchakuLoraLoader", lora_name="blueprint.safetensors", lora_strength=0.8, model=["4", 0]),
        [LoraRef(name="blueprint", weight=0.8)],
    ),
    "numbers within the names": (
        node(
            "ttN loader",
            ckpt_name="sd/other.safetensors",
            lora1_name="blueprint.safetensors",
            lora1_model_strength=0.8,
            lora1_clip_strength=0.6,
            lora2_name="None",
        ),
        [LoraRef(name="blueprint", weight=0.8, text_weight=0.6)],
    ),
    "a simple stack of numbers within the names": (
        node("LoraLoaderModelOnly", model=["4", 0], optional_lora_stack=["55", 0]),
        [LoraRef(name="blueprint", weight=0.8)],
    ),
    "loader": (
        node("LoraLoader", lora_name="blueprint.safetensors", strength_model=0.8, strength_clip=0.6, model=["4", 0]),
        [LoraRef(name="blueprint", weight=0.8, text_weight=0.6)],
    ),
    "only the model": (
        node("LoraLoaderModelOnly", lora_name="x/blueprint.safetensors", strength_model=0.8, model=["4", 0]),
        [LoraRef(name="blueprint", weight=0.8, text_weight=0.0)],
    ),
    "linked strength and name": (
        node("LoraLoader", lora_name=["50", 0], strength_model=["51", 0], strength_clip=["51", 0], model=["4", 0]),
        [BLUEPRINT],
    ),
    "with its picture": (
        node(
            "LoraLoader|pysssss",
            lora_name={"content": "blueprint.safetensors", "image": None},
            strength_model=0.8,
            strength_clip=0.8,
            model=["4", 0],
        ),
        [BLUEPRINT],
    ),
    "rgthree's": (
        node(
            "Power Lora Loader (rgthree)",
            PowerLoraLoaderHeaderWidget={"type": "x"},
            lora_1={"on": True, "lora": "blueprint.safetensors", "strength": 0.8},
            lora_2={"on": False, "lora": "night.safetensors", "strength": 1},
            model=["4", 0],
        ),
        [BLUEPRINT],
    ),
    "a stack on the way": (
        node("CR Apply LoRA Stack", lora_stack=["52", 0], model=["4", 0], clip=["4", 1]),
        [BLUEPRINT],
    ),
    "a stack of many": (
        node(
            "LoRA Stacker",
            input_mode="simple",
            lora_count=1,
            lora_name_1="blueprint.safetensors",
            lora_wt_1=0.8,
            model_str_1=0.1,
            clip_str_1=0.1,
            lora_name_2="night.safetensors",
            lora_wt_2=1.0,
            model=["4", 0],
        ),
        [BLUEPRINT],
    ),
    "LoRA Manager's": (
        node(
            "Lora Loader (LoraManager)",
            loras={
                "__value__": [
                    {"name": "blueprint", "strength": 0.8, "active": True},
                    {"name": "night", "active": False},
                ]
            },
            model=["4", 0],
        ),
        [BLUEPRINT],
    ),
    "as tags": (node("LoraTagLoader", text="<lora:blueprint:0.8>", model=["4", 0], clip=["4", 1]), [BLUEPRINT]),
    "named elsewhere": (
        node("LoraLoader", lora_name=["53", 0], strength_model=0.8, strength_clip=0.8, model=["4", 0]),
        [BLUEPRINT],
    ),
    "of a strength that cannot be told": (
        node("LoraLoader", lora_name="blueprint", strength_model=["54", 0], strength_clip=0.8, model=["4", 0]),
        [],
    ),
    "without strength": (
        node("LoraLoader", lora_name="blueprint.safetensors", strength_model=0, strength_clip=0, model=["4", 0]),
        [],
    ),
}


@pytest.mark.parametrize("name", LORAS)
def test_loras_are_taken_with_their_strengths(read, name: str) -> None:
    loader, expected = LORAS[name]
    body = graph(
        n3=sampler(model=["40", 0]),
        n40=loader,
        n50=node("PrimitiveString", value="blueprint.safetensors"),
        n51=node("PrimitiveFloat", value=0.8),
        n53=node("LoRA Selector", lora_name="blueprint.safetensors"),
        n56=node("PrimitiveString", value="a fox <lora:blueprint:0.8>"),
        n57=node("LoraLoader", lora_name="blueprint", strength_model=0.8, strength_clip=0.8, model=["4", 0]),
        n55=node(
            "easy loraStack",
            toggle=True,
            mode="simple",
            num_loras=1,
            lora_1_name="blueprint.safetensors",
            lora_1_strength=0.8,
            lora_1_model_strength=0.3,
            lora_2_name="sketch.safetensors",
            lora_2_strength=0.5,
        ),
        n54=node("MathExpression", expression="a*2", a=0.4),
        n52=node(
            "CR LoRA Stack",
            switch_1="On",
            lora_name_1="blueprint.safetensors",
            model_weight_1=0.8,
            clip_weight_1=0.8,
            switch_2="Off",
            lora_name_2="night.safetensors",
            model_weight_2=1.0,
            clip_weight_2=1.0,
        ),
    )
    info = read(prompt=json.dumps(body))
    assert list(info.values.get("loras", ())) == expected, info.unmapped
    assert any("“sd/other.safetensors” is not here" in line for line in info.unmapped)


def test_loras_are_in_the_order_in_which_they_are_put_in(read) -> None:
    body = graph(
        n3=sampler(model=["41", 0]),
        n41=node("LoraLoader", lora_name="blueprint", strength_model=1, strength_clip=1, model=["40", 0]),
        n40=node("LoraLoader", lora_name="night", strength_model=0.5, strength_clip=0.5, model=["4", 0]),
    )
    assert [ref.name for ref in read(prompt=json.dumps(body)).values["loras"]] == ["night", "blueprint"]


def test_a_lora_of_the_text_encoder_alone_is_said(read) -> None:
    inputs = {"lora_name": "blueprint.safetensors", "strength_model": 0.8, "strength_clip": 0.8, "model": ["4", 0]}
    body = graph(
        n6=node("CLIPTextEncode", text="a fox", clip=["41", 0]),
        n40=node("LoraLoader", **inputs, clip=["4", 1]),
        n41=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["40", 1]),
    )
    info = read(prompt=json.dumps(body))
    assert info.values["clip_skip"] == 2 and "loras" not in info.values
    assert any("changes the text encoder alone" in line for line in info.unmapped)
    body["3"]["inputs"]["model"] = ["40", 0]
    info = read(prompt=json.dumps(body))
    assert info.values["loras"] == (BLUEPRINT,) and not any("text encoder" in line for line in info.unmapped)
