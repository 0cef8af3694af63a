"""ComfyUI's graphs of many shapes: what is asked for is found, and what cannot be told is said, never guessed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.request import LoraRef
from webui.interop.programs import parse

from .graphs import graph, node, sampler

FOX: dict[str, Any] = {"prompt": "a fox", "negative": "ugly", "seed": 77, "steps": 12, "width": 384, "height": 512}
FOX |= {"guidance": 4.5, "sampler": "Euler a", "schedule": "Karras"}
CUSTOM = node(
    "SamplerCustom",
    add_noise=True,
    noise_seed=77,
    cfg=4.5,
    model=["4", 0],
    positive=["6", 0],
    negative=["7", 0],
    sampler=["20", 0],
    sigmas=["21", 0],
    latent_image=["5", 0],
)
ADVANCED = node(
    "SamplerCustomAdvanced",
    noise=["22", 0],
    guider=["23", 0],
    sampler=["20", 0],
    sigmas=["21", 0],
    latent_image=["5", 0],
)
PARTS = {
    "n20": node("KSamplerSelect", sampler_name="euler_ancestral"),
    "n21": node("BasicScheduler", scheduler="karras", steps=12, denoise=1.0, model=["4", 0]),
    "n22": node("RandomNoise", noise_seed=77),
}
GRAPHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (graph(), FOX),
    "advanced": (
        graph(
            n3=node(
                "KSamplerAdvanced",
                add_noise="enable",
                noise_seed=5,
                **{name: value for name, value in sampler()["inputs"].items() if name not in ("seed", "denoise")},
            )
        ),
        FOX | {"seed": 5},
    ),
    "custom": (graph(n3=CUSTOM, **PARTS), FOX),
    "custom advanced": (
        graph(
            n3=ADVANCED, n23=node("CFGGuider", cfg=4.5, model=["4", 0], positive=["6", 0], negative=["7", 0]), **PARTS
        ),
        FOX,
    ),
    "basic guider": (
        graph(
            n3=ADVANCED,
            n23=node("BasicGuider", model=["4", 0], conditioning=["24", 0]),
            n24=node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
            n7=None,
            **PARTS,
        ),
        FOX | {"guidance": 1.0, "negative": None},
    ),
    "named by its kind": (
        graph(n3=CUSTOM, **PARTS | {"n20": node("SamplerEulerAncestral", eta=1.0, s_noise=1.0)}),
        FOX,
    ),
    "split sigmas": (
        graph(
            n3=CUSTOM | {"inputs": CUSTOM["inputs"] | {"sigmas": ["30", 0]}},
            n30=node("SplitSigmas", sigmas=["21", 0], step=5),
            **PARTS,
        ),
        FOX,
    ),
    "ControlNet by slot": (
        graph(
            n3=sampler(positive=["32", 0], negative=["32", 1]),
            n32=node(
                "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["33", 0], strength=1
            ),
            n33=node("ControlNetLoader", control_net_name="lines"),
        ),
        FOX,
    ),
    "ControlNet the other way round": (
        graph(
            n3=sampler(positive=["32", 1], negative=["32", 0]),
            n32=node(
                "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["33", 0], strength=1
            ),
        ),
        FOX | {"prompt": "ugly", "negative": "a fox"},
    ),
    "three ControlNets": (
        graph(
            n3=sampler(positive=["32", 0], negative=["32", 1]),
            n32=node("ControlNetApplySD3", positive=["34", 0], negative=["34", 1], control_net=["33", 0], vae=["4", 2]),
            n34=node("ControlNetApplyAdvanced", positive=["35", 0], negative=["35", 1], control_net=["33", 0]),
            n35=node("InpaintModelConditioning", positive=["6", 0], negative=["7", 0], vae=["4", 2], pixels=["36", 0]),
        ),
        FOX,
    ),
    "old ControlNet": (
        graph(
            n3=sampler(positive=["32", 0]),
            n32=node("ControlNetApply", conditioning=["6", 0], control_net=["33", 0], image=["34", 0], strength=1),
        ),
        FOX,
    ),
    "a loader that encodes": (
        graph(
            n3=node("KSampler (Efficient)", **sampler(model=["4", 0], positive=["4", 1], negative=["4", 2])["inputs"]),
            n4=node(
                "Efficient Loader",
                ckpt_name="x.safetensors",
                positive="a fox",
                negative=["40", 0],
                clip_skip=-2,
                empty_latent_width=384,
                empty_latent_height=512,
            ),
            n40=node("PrimitiveString", value="ugly"),
        ),
        FOX | {"clip_skip": 2},
    ),
    "pipe": (
        graph(
            n3=node(
                "easy kSampler",
                pipe=["40", 0],
                steps=12,
                cfg=4.5,
                seed=77,
                sampler_name="euler_ancestral",
                scheduler="karras",
                denoise=1.0,
            ),
            n40=node(
                "easy fullLoader",
                ckpt_name="x",
                positive="a fox",
                negative="ugly",
                empty_latent_width=384,
                empty_latent_height=512,
            ),
        ),
        FOX,
    ),
    "zeroed negative": (
        graph(n3=sampler(negative=["23", 0]), n23=node("ConditioningZeroOut", conditioning=["6", 0])),
        FOX | {"negative": ""},
    ),
    "chained": (
        graph(
            n3=sampler(positive=["23", 0]),
            n23=node("ConditioningConcat", conditioning_from=["24", 0], conditioning_to=["6", 0]),
            n24=node("CLIPTextEncode", text="in snow", clip=["4", 1]),
        ),
        FOX | {"prompt": "a fox BREAK in snow"},
    ),
    "mixed": (
        graph(
            n3=sampler(positive=["23", 0]),
            n23=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["24", 0]),
            n24=node("CLIPTextEncode", text="in snow", clip=["4", 1]),
        ),
        FOX | {"prompt": "a fox, in snow"},
    ),
    "an area": (
        graph(
            n3=sampler(positive=["23", 0]),
            n23=node("ConditioningSetArea", conditioning=["6", 0], width=64, height=64, x=0, y=0, strength=1.0),
        ),
        FOX,
    ),
    "SDXL's encoder": (
        graph(n6=node("CLIPTextEncodeSDXL", text_g="a fox", text_l="fox, snow", width=1024, clip=["4", 1])),
        FOX,
    ),
    "FLUX's encoder": (
        graph(n6=node("CLIPTextEncodeFlux", clip_l="fox", t5xxl="a fox", guidance=3.5, clip=["4", 1])),
        FOX,
    ),
    "Qwen's encoder": (graph(n6=node("TextEncodeQwenImageEdit", prompt="a fox", clip=["4", 1], vae=["4", 2])), FOX),
    "text from elsewhere": (
        graph(
            n6=node("CLIPTextEncode", text=["22", 0], clip=["4", 1]),
            n22=node("PrimitiveStringMultiline", value="a fox"),
        ),
        FOX,
    ),
    "text through a reroute": (
        graph(
            n6=node("CLIPTextEncode", text=["22", 0], clip=["4", 1]),
            n22=node("Reroute", **{"": ["24", 0]}),
            n24=node("ShowText|pysssss", text=["25", 0], text_0="an old fox"),
            n25=node("Text Multiline", text="a fox"),
        ),
        FOX,
    ),
    "joined text": (
        graph(
            n6=node("CLIPTextEncode", text=["22", 0], clip=["4", 1]),
            n22=node("StringConcatenate", string_a="a", string_b=["24", 0], delimiter=" "),
            n24=node("String Literal", string="fox"),
        ),
        FOX,
    ),
    "text of many parts": (
        graph(
            n6=node("CLIPTextEncode", text=["22", 0], clip=["4", 1]),
            n22=node("Text Concatenate", text_b="snow ", text_a=" a fox", delimiter=", ", clean_whitespace="true"),
        ),
        FOX | {"prompt": "a fox, snow"},
    ),
    "one text of several": (
        graph(n6=node("CLIPTextEncode", text=["22", 2]), n22=node("Text String", text="a", text_b="b", text_c="a fox")),
        FOX,
    ),
    "a text under another name": (
        graph(n6=node("CLIPTextEncode", text=["22", 0]), n22=node("DF_Text_Box", Text="a fox")),
        FOX,
    ),
    "wildcards that were drawn": (
        graph(n6=node("ImpactWildcardEncode", wildcard_text="a {fox|cat}", populated_text="a fox", model=["4", 0])),
        FOX,
    ),
    "a switch by number": (
        graph(
            n3=sampler(positive=["30", 0]),
            n30=node("ImpactSwitch", select=2, input1=["7", 0], input2=["6", 0], sel_mode=False),
        ),
        FOX,
    ),
    "a switch by truth": (
        graph(
            n6=node("CLIPTextEncode", text=["30", 0], clip=["4", 1]),
            n30=node("ComfySwitchNode", switch=True, on_true=["31", 0], on_false=["32", 0]),
            n31=node("PrimitiveString", value="a fox"),
            n32=node("PrimitiveString", value="a cat"),
        ),
        FOX,
    ),
    "the first that is there": (
        graph(n3=sampler(positive=["30", 0]), n30=node("Any Switch (rgthree)", any_02=["6", 0])),
        FOX,
    ),
    "numbers from elsewhere": (
        graph(
            n3=sampler(seed=["30", 0], steps=["31", 0], cfg=["32", 0], latent_image=["5", 0]),
            n30=node("Seed (rgthree)", seed=77),
            n31=node("PrimitiveInt", value=12),
            n32=node("FloatConstant", value="4.5"),
            n5=node("EmptyLatentImage", width=["33", 0], height=["34", 0], batch_size=1),
            n33=node("INTConstant", value=384),
            n34=node("Int Literal", int=512),
        ),
        FOX,
    ),
    "a size in words": (
        graph(n5=node("SDXL Empty Latent Image (rgthree)", dimensions=" 384 x 512  (portrait)", batch_size=1)),
        FOX,
    ),
    "a size of a list beside numbers": (
        graph(n5=node("CR Aspect Ratio", width=64, height=64, aspect_ratio="SD1.5 - 3:4 portrait 384x512")),
        FOX,
    ),
    "a linked size of a list, swapped": (
        graph(
            n5=node("EmptyLatentImage", width=["33", 0], height=["33", 1], batch_size=1),
            n33=node("CR SDXL Aspect Ratio", width=64, height=64, aspect_ratio="4:3 512x384", swap_dimensions="On"),
        ),
        FOX,
    ),
    "a size that the list leaves to the numbers": (
        graph(n5=node("easy fullLoader", resolution="width x height", empty_latent_width=384, empty_latent_height=512)),
        FOX,
    ),
    "a pipe with another prompt put in": (
        graph(
            n3=node(
                "ImpactKSamplerBasicPipe",
                basic_pipe=["31", 0],
                **{
                    name: value
                    for name, value in sampler()["inputs"].items()
                    if name not in ("model", "positive", "negative")
                },
            ),
            n30=node("ToBasicPipe", model=["4", 0], clip=["29", 0], positive=["28", 0], negative=["7", 0]),
            n31=node("EditBasicPipe", basic_pipe=["30", 0], positive=["6", 0]),
            n29=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["4", 1]),
            n28=node("CLIPTextEncode", text="a wolf", clip=["29", 0]),
        ),
        FOX | {"clip_skip": 2},
    ),
    "sides by names that only say so": (
        graph(
            n3=sampler(positive=["30", 0], negative=["30", 1]),
            n30=node("CR Apply Multi-ControlNet", base_positive=["6", 0], base_negative=["7", 0], switch="On"),
        ),
        FOX,
    ),
    "a node with a sampler's and a schedule's name": (
        graph(
            n3=sampler(sampler_name=["30", 3], scheduler=["30", 4]),
            n30=node("Input Parameters (Image Saver)", seed=1, sampler="euler_ancestral", scheduler="karras"),
        ),
        FOX,
    ),
    "a switch that a linked truth value sets": (
        graph(
            n3=sampler(positive=["30", 0]),
            n30=node("ComfySwitchNode", switch=["31", 0], on_true=["6", 0], on_false=["7", 0]),
            n31=node("PrimitiveBoolean", value=True),
        ),
        FOX,
    ),
    "texts that a linked number chooses of": (
        graph(
            n6=node("CLIPTextEncode", text=["30", 0]),
            n30=node("ImpactSwitch", select=["31", 0], input1="a wolf", input2="a fox"),
            n31=node("PrimitiveInt", value=2),
        ),
        FOX,
    ),
    "a saver that is told the settings": (
        {
            "1": node("Image Saver", images=["8", 0], positive="x", steps=1, cfg=1, seed_value=1, sampler_name="x"),
            **graph(n9=None),
        },
        FOX,
    ),
    "parts, one of them null": (
        graph(
            n6=node("CLIPTextEncode", text=["30", 0]),
            n30=node("CR Combine Prompt", part1="a", part2="fox", part3=None, part4="", separator=" "),
        ),
        FOX,
    ),
    "contexts with another prompt put in": (
        graph(
            n3=sampler(model=["32", 1], positive=["32", 4], negative=["32", 5]),
            n30=node("Context (rgthree)", model=["4", 0], positive=["28", 0], negative=["7", 0]),
            n31=node("Context (rgthree)", base_ctx=["30", 0], positive=["6", 0]),
            n32=node("Context Switch (rgthree)", ctx_02=["31", 0], ctx_03=["30", 0]),
            n28=node("CLIPTextEncode", text="a wolf"),
        ),
        FOX,
    ),
    "names with colons": (
        {
            **{name: found for name, found in graph().items() if name not in ("3", "6")},
            "12:3": sampler(positive=["12:6", 0]),
            "12:6": graph()["6"],
            "8": node("VAEDecode", samples=["12:3", 0], vae=["4", 2]),
        },
        FOX,
    ),
    "one beside it": (
        {
            "1": sampler(seed=1, steps=1, positive=["70", 0], latent_image=["71", 0]),
            "70": node("CLIPTextEncode", text="unused"),
            "71": node("EmptyLatentImage", width=64, height=64),
            **graph(),
        },
        FOX,
    ),
    "a second pass": (
        graph(
            n8=node("VAEDecode", samples=["30", 0], vae=["4", 2]),
            n30=sampler(seed=1, steps=5, denoise=0.5, latent_image=["31", 0]),
            n31=node("LatentUpscale", samples=["3", 0], width=768, height=1024, upscale_method="bilinear"),
        ),
        FOX | {"strength": None},
    ),
    "a second pass over pixels": (
        graph(
            n9=node("SaveImage", images=["30", 0]),
            n30=node("UltimateSDUpscale", image=["8", 0], upscale_by=2, **sampler(latent_image=None, seed=1)["inputs"]),
        ),
        FOX,
    ),
    "a picture to start from": (
        graph(
            n3=sampler(latent_image=["30", 0], denoise=0.6),
            n30=node("VAEEncode", pixels=["31", 0], vae=["4", 2]),
            n31=node("ImageScale", image=["32", 0], width=384, height=512, upscale_method="lanczos"),
            n32=node("LoadImage", image="cat.png"),
        ),
        FOX | {"strength": 0.6},
    ),
    "only shown": (graph(n9=node("PreviewImage", images=["8", 0])), FOX),
    "saved by a custom node": (graph(n9=node("Image Saver", images=["8", 0], path="x")), FOX),
    "not saved": (graph(n9=None), FOX),
    "clip skip": (
        graph(
            n6=node("CLIPTextEncode", text="a fox", clip=["30", 0]),
            n30=node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=-2),
        ),
        FOX | {"clip_skip": 2},
    ),
    "an autoencoder of its own": (
        graph(n8=node("VAEDecode", samples=["3", 0], vae=["30", 0]), n30=node("VAELoader", vae_name="sharp.pt")),
        FOX | {"vae": "sharp"},
    ),
    "a model that is named elsewhere": (
        graph(n4=node("CheckpointLoaderSimple", ckpt_name=["30", 0]), n30=node("CheckpointSelector", ckpt_name="demo")),
        FOX | {"model": "demo"},
    ),
    "through a changed model": (
        graph(
            n3=sampler(model=["30", 0]),
            n30=node("FreeU_V2", model=["4", 0], b1=1.1, b2=1.2, s1=0.9, s2=0.2),
            n4=node("CheckpointLoaderSimple", ckpt_name="demo.safetensors"),
        ),
        FOX | {"model": "demo"},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_say_what_was_asked_for(read, name: str) -> None:
    body, expected = GRAPHS[name]
    info = read(prompt=json.dumps(body))
    assert info.program == "ComfyUI"
    assert {field: info.values.get(field) for field in expected} == expected, info.unmapped


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
    assert any("'sd/other.safetensors' is not here" in line for line in info.unmapped)


def test_loras_are_in_the_order_in_which_they_are_put_in(read) -> None:
    body = graph(
        n3=sampler(model=["41", 0]),
        n41=node("LoraLoader", lora_name="blueprint", strength_model=1, strength_clip=1, model=["40", 0]),
        n40=node("LoraLoader", lora_name="night", strength_model=0.5, strength_clip=0.5, model=["4", 0]),
    )
    assert [ref.name for ref in read(prompt=json.dumps(body)).values["loras"]] == ["night", "blueprint"]


UNTOLD: dict[str, tuple[dict[str, Any], str]] = {
    "random words": (
        graph(
            n6=node("CLIPTextEncode", text=["30", 0], clip=["4", 1]),
            n30=node("DPRandomGenerator", text="a {fox|cat}", seed=3, autorefresh="Yes"),
        ),
        "node 30 (DPRandomGenerator)",
    ),
    "a language model": (
        graph(n6=node("CLIPTextEncode", text=["30", 0]), n30=node("OllamaGenerate", prompt="say fox", model="llama")),
        "node 30 (OllamaGenerate)",
    ),
    "styles": (
        graph(
            n6=node("CLIPTextEncode", text=["30", 0]),
            n30=node("easy stylesSelector", styles="fooocus", positive="a fox", select_styles="sketch"),
        ),
        "node 30 (easy stylesSelector)",
    ),
    "a switch that a sum sets": (
        graph(
            n3=sampler(positive=["30", 0]),
            n30=node("ImpactSwitch", select=["31", 0], input1=["6", 0], input2=["7", 0]),
            n31=node("CompareInt", value=2, other=3),
        ),
        "node 3 (KSampler)",
    ),
    "words put before it": (
        graph(n6=node("CLIPTextEncode", text=["30", 0]), n30=node("AddTextPrefix", prefix="best", text="fox")),
        "node 30 (AddTextPrefix)",
    ),
    "itself": (graph(n6=node("CLIPTextEncode", text=["6", 0], clip=["4", 1])), "node 6 (CLIPTextEncode)"),
    "nothing": (graph(n3=sampler(positive=None)), "node 3 (KSampler)"),
    "what is not there": (graph(n3=sampler(positive=["99", 0])), "node 3 (KSampler)"),
    "one unknown of two": (
        graph(
            n3=sampler(positive=["30", 0]),
            n30=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["31", 0]),
            n31=node("CLIPTextEncode", text=["32", 0]),
            n32=node("Florence2Run", image=["33", 0], task="caption"),
        ),
        "node 32 (Florence2Run)",
    ),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_a_prompt_that_cannot_be_told_is_left_out_and_said(read, name: str) -> None:
    body, reason = UNTOLD[name]
    info = read(prompt=json.dumps(body))
    assert "prompt" not in info.values and info.values["negative"] == "ugly"
    assert any(reason in line for line in info.unmapped), info.unmapped


def test_what_else_the_graph_did_is_listed(read) -> None:
    body = graph(
        n3=sampler(positive=["32", 0], negative=["32", 1], model=["34", 0], steps=["35", 0]),
        n32=node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["33", 0]),
        n33=node("ControlNetLoader", control_net_name="lines.safetensors"),
        n34=node("FreeU_V2", model=["4", 0], b1=1.1),
        n35=node("MathExpression", expression="a*2", a=6),
        n9=node("SaveImage", images=["30", 0]),
        n30=node("FaceDetailer", image=["8", 0], **sampler(latent_image=None, denoise=0.4)["inputs"]),
    )
    info = read(prompt=json.dumps(body))
    text = "\n".join(info.unmapped)
    for part in ("ControlNet: lines.safetensors", "changed on its way by FreeU_V2", "steps: comes from another node"):
        assert part in text
    assert "another sampler, node 30 (FaceDetailer): sampler_name euler_ancestral, steps 12, denoise 0.4" in text
    assert "steps" not in info.values and info.values["prompt"] == "a fox"


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


def test_of_several_saved_pictures_it_is_said_which_is_read(read) -> None:
    body = graph(n30=sampler(seed=1), n31=node("VAEDecode", samples=["30", 0]), n32=node("SaveImage", images=["31", 0]))
    info = read(prompt=json.dumps(body))
    assert info.values["seed"] == 77
    assert "its graph saves several pictures; that of node 9 is read" in info.unmapped
    body["31"]["inputs"]["samples"] = ["3", 0]
    assert not any("several pictures" in line for line in read(prompt=json.dumps(body)).unmapped)


def test_words_keep_the_meaning_that_they_have_there(read) -> None:
    text = "(a fox:1.2), [snow], embedding:nice.pt, (embedding:bad:0.9) <lora:blueprint:1>"
    info = read(prompt=json.dumps(graph(n6=node("CLIPTextEncode", text=text))))
    assert info.values["prompt"] == r"(a fox:1.2), \[snow\], nice, (bad:0.9)"
    assert "loras" not in info.values and any("does nothing in ComfyUI" in line for line in info.unmapped)


def test_the_workflow_says_which_output_is_which(read) -> None:
    body = graph(
        n3=sampler(positive=["30", 1], negative=["30", 2]),
        n30=node("SomebodysEncoder", positive=["6", 0], negative=["7", 0]),
    )
    outputs = [{"name": name} for name in ("latent", "positive", "negative")]
    workflow = {"nodes": [{"id": 30, "type": "SomebodysEncoder", "outputs": outputs}], "links": []}
    info = read(prompt=json.dumps(body), workflow=json.dumps(workflow))
    assert (info.values["prompt"], info.values["negative"]) == ("a fox", "ugly")


def drawn(name: int, kind: str, values: list[Any], inputs: dict[str, int], **more: Any) -> dict[str, Any]:
    """A node of a workflow; inputs by the numbers of their links."""
    slots = [{"name": slot, "type": more.get("type", "X"), "link": link} for slot, link in inputs.items()]
    rest = {"mode": more.get("mode", 0), "outputs": [{"name": "out", "type": more.get("type", "X")}]}
    return {"id": name, "type": kind, "widgets_values": values, "inputs": slots, **rest}


WORKFLOW = {
    "nodes": [
        drawn(
            3,
            "KSampler",
            [77, "fixed", 12, 4.5, "euler_ancestral", "karras", 1.0],
            {"model": 1, "positive": 2, "negative": 3, "latent_image": 4},
        ),
        drawn(4, "CheckpointLoaderSimple", ["other.safetensors"], {}),
        drawn(5, "EmptyLatentImage", [384, 512, 1], {}),
        drawn(6, "CLIPTextEncode", ["a fox"], {"clip": 5}),
        drawn(7, "CLIPTextEncode", ["ugly"], {"clip": 6}),
        drawn(8, "VAEDecode", [], {"samples": 7, "vae": 8}),
        drawn(9, "SaveImage", ["x"], {"images": 9}),
        drawn(10, "LoraLoader", ["blueprint", 1.0, 1.0], {"model": 10}, mode=4, type="MODEL"),
        drawn(11, "KSampler", [1, "fixed", 1, 1.0, "euler", "normal", 1.0], {"positive": 3}, mode=2),
    ],
    "links": [
        *([1, 10, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "X"], [3, 7, 0, 3, 2, "X"], [4, 5, 0, 3, 3, "X"]),
        *([5, 4, 1, 6, 0, "X"], [6, 4, 1, 7, 0, "X"], [7, 3, 0, 8, 0, "X"], [8, 4, 2, 8, 1, "X"], [9, 8, 0, 9, 0, "X"]),
        [10, 4, 0, 10, 0, "MODEL"],
    ],
}


def test_a_workflow_alone_is_read_past_what_is_muted_and_bypassed(read) -> None:
    info = read(workflow=json.dumps(WORKFLOW))
    assert {field: info.values.get(field) for field in FOX} == FOX, info.unmapped
    assert info.program == "ComfyUI" and "loras" not in info.values
    assert not any("sampler" in line for line in info.unmapped)


def test_links_of_a_workflow_that_are_not_drawn_are_followed(read) -> None:
    body = json.loads(json.dumps(WORKFLOW))
    by_id = {entry["id"]: entry for entry in body["nodes"]}
    for slot in by_id[3]["inputs"]:
        slot["type"] = "MODEL" if slot["name"] == "model" else "X"
        slot["link"] = {"model": None, "positive": 20, "negative": None}.get(slot["name"], slot["link"])
    by_id[4]["outputs"] = [{"name": "MODEL", "type": "MODEL"}]
    body["nodes"] += [
        drawn(20, "SetNode", ["words"], {"X": 21}),
        drawn(21, "GetNode", ["words"], {}),
        drawn(22, "Anything Everywhere", [], {"anything": 22}),
        drawn(23, "Prompts Everywhere", [], {"+": None, "-": 23}),
    ]
    body["links"] += [[20, 21, 0, 3, 1, "X"], [21, 6, 0, 20, 0, "X"], [22, 4, 0, 22, 0, "*"], [23, 7, 0, 23, 1, "*"]]
    info = read(workflow=json.dumps(body))
    assert {field: info.values.get(field) for field in FOX} == FOX, info.unmapped
    assert any("'other.safetensors' is not here" in line for line in info.unmapped)


def test_a_workflow_s_list_of_loras_is_read(read) -> None:
    body = json.loads(json.dumps(WORKFLOW))
    for entry in body["nodes"]:
        if entry["id"] == 10:
            row = {"on": True, "lora": "blueprint.safetensors", "strength": 0.8, "strengthTwo": None}
            entry |= {"type": "Power Lora Loader (rgthree)", "mode": 0, "widgets_values": [{}, row, {}, ""]}
    assert read(workflow=json.dumps(body)).values["loras"] == (LoraRef(name="blueprint", weight=0.8),)


def test_a_subgraph_is_read_in_its_place(read) -> None:
    inner = {
        "id": "uuid",
        "inputs": [{"name": "words"}],
        "outputs": [{"name": "conditioning"}],
        "nodes": [
            {
                "id": 1,
                "type": "CLIPTextEncode",
                "inputs": [{"name": "text", "link": 20, "widget": {"name": "text"}}],
                "widgets_values": ["old"],
            }
        ],
        "links": [
            {"id": 20, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 21, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }
    nodes = [entry for entry in WORKFLOW["nodes"] if entry["id"] != 6]
    nodes += [drawn(6, "uuid", [], {"words": 30}), drawn(12, "PrimitiveString", ["a fox"], {})]
    links = [*WORKFLOW["links"], [30, 12, 0, 6, 0, "STRING"]]
    body = {"nodes": nodes, "links": links, "definitions": {"subgraphs": [inner]}}
    assert read(workflow=json.dumps(body)).values["prompt"] == "a fox"
    nodes[-2]["inputs"] = [{"name": "words", "link": None, "widget": {"name": "words"}}]
    nodes[-2]["widgets_values"] = ["a hare"]
    assert read(workflow=json.dumps(body)).values["prompt"] == "a hare"


def test_a_graph_in_json_of_civitais_generator_is_helped_by_what_stands_beside_it(read) -> None:
    said = {"prompt": "a hare", "negativePrompt": "fog", "seed": 3, "resources": [{"modelVersionId": 202}]}
    body = {**graph(n3=sampler(seed=["50", 0])), "extra": {"airs": []}, "extraMetadata": json.dumps(said)}
    info = read(parameters=json.dumps(body))
    assert (info.values["prompt"], info.values["seed"]) == ("a fox", 3)
    assert any("202" in line for line in info.unmapped)


HEAVY: dict[str, dict[str, Any]] = {
    "a chain with a fan into it": graph(
        n6=node("X", text=["c0", 0]),
        **{f"c{k}": node("X", text=[f"c{k + 1}", 0]) for k in range(300)},
        **{f"f{k}": node("CLIPTextEncode", text="a", clip=["c0", 0]) for k in range(690)},
        c300=node("X", **{f"f{k}": [f"f{k}", 0] for k in range(690)}),
    ),
    "texts that double": graph(
        n6=node("CLIPTextEncode", text=["d0", 0]),
        **{f"d{k}": node("StringConcatenate", string_a=[f"d{k + 1}", 0], string_b=[f"d{k + 1}", 0]) for k in range(90)},
        d90=node("PrimitiveString", value="ab"),
    ),
    "prompts that double": graph(
        n6=node("ConditioningCombine", conditioning_1=["d0", 0], conditioning_2=["d0", 1]),
        **{
            f"d{k}": node("ConditioningCombine", conditioning_1=[f"d{k + 1}", 0], conditioning_2=[f"d{k + 1}", 1])
            for k in range(300)
        },
        d300=node("CLIPTextEncode", text="x"),
    ),
    "a circle of switches": graph(
        n6=node("CLIPTextEncode", text=["s0", 0]),
        **{f"s{k}": node("Switch", select=1, input1=[f"s{(k + 1) % 500}", 0]) for k in range(500)},
    ),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_graph_that_is_woven_to_cost_much_costs_little(monkeypatch, read, name: str) -> None:
    """Work is counted in links followed: for any graph less than so many for each of its nodes and links."""
    from webui.interop.comfyui import graph as module

    steps = [0]
    linked = module.Graph.linked

    def count(self: Any, value: Any) -> Any:
        steps[0] += 1
        return linked(self, value)

    monkeypatch.setattr(module.Graph, "linked", count)
    info = read(prompt=json.dumps(HEAVY[name]))
    assert "prompt" not in info.values and info.values["negative"] == "ugly"
    assert steps[0] < 20_000


def test_more_than_can_be_followed_is_said(read) -> None:
    links = {k: {f"latent{j}": [f"n{(k + j * 13 + 1) % 900}", 0] for j in range(60)} for k in range(900)}
    dense = {f"n{k}": sampler(latent_image=None, **links[k]) for k in range(900)}
    info = read(prompt=json.dumps({**dense, **graph(n9=node("SaveImage", images=["n0", 0]))}))
    assert info.program == "ComfyUI" and not info.values
    assert any("too large to be followed" in line for line in info.unmapped)


def test_subgraphs_within_themselves_end(read) -> None:
    itself = {"id": "S", "nodes": [{"id": 1, "type": "S"}, {"id": 2, "type": "S"}], "links": []}
    wide = [
        {"id": f"W{k}", "nodes": [{"id": j, "type": f"W{k + 1}"} for j in range(40)], "links": []} for k in range(15)
    ]
    wide.append({"id": "W15", "nodes": [], "links": []})
    for kind, subgraphs in (("S", [itself]), ("W0", wide)):
        body = {"nodes": [{"id": 1, "type": kind}], "links": [], "definitions": {"subgraphs": subgraphs}}
        assert any("subgraphs" in line for line in read(workflow=json.dumps(body)).unmapped)


LINKS = st.tuples(
    st.sampled_from([*(str(k) for k in range(3, 10)), *(str(k) for k in range(20, 45))]), st.integers(0, 3)
)
VALUES = LINKS.map(list) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES |= st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=4), st.integers(), max_size=2)
INPUTS = [
    "text",
    "model",
    "positive",
    "negative",
    "latent_image",
    "steps",
    "seed",
    "lora_name",
    "lora_1",
    "loras",
    "select",
]
INPUTS += [
    "input1",
    "conditioning",
    "clip",
    "samples",
    "images",
    "sampler_name",
    "ckpt_name",
    "lora_stack",
    "sigmas",
    "guider",
]
KINDS = ["KSampler", "Reroute", "ImpactSwitch", "StringConcatenate", "ConditioningConcat", "SaveImage", "", "VAEDecode"]


@given(name=st.sampled_from([*GRAPHS]), data=st.data())
def test_whatever_is_in_a_graph_no_reader_fails(name: str, data: Any) -> None:
    body = json.loads(json.dumps(GRAPHS[name][0]))
    for _ in range(data.draw(st.integers(1, 6))):
        changed = body[data.draw(st.sampled_from([*body]))]
        if data.draw(st.booleans()):
            changed["inputs"][data.draw(st.sampled_from([*changed["inputs"], *INPUTS]))] = data.draw(VALUES)
        else:
            changed["class_type"] = data.draw(st.sampled_from(KINDS) | VALUES)
    found = parse({"prompt": json.dumps(body)})
    assert found.program == "ComfyUI" and (found.values or found.unmapped)


@given(data=st.data())
def test_whatever_is_in_a_workflow_no_reader_fails(data: Any) -> None:
    body = json.loads(json.dumps(WORKFLOW))
    for _ in range(data.draw(st.integers(1, 6))):
        changed = data.draw(st.sampled_from(body["nodes"]))
        changed[data.draw(st.sampled_from([*changed]))] = data.draw(VALUES)
    body["links"] += data.draw(st.lists(VALUES | st.lists(st.integers(-20, 12), min_size=3, max_size=6), max_size=4))
    assert parse({"workflow": json.dumps(body), "prompt": json.dumps(graph())}).program == "ComfyUI"
    assert parse({"workflow": json.dumps(body)}).program == "ComfyUI"
