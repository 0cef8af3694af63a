"""ComfyUI's graphs of many shapes: what is asked for is found, and what else they did is said."""

import json
from typing import Any

import pytest

from .graphs import FOX, graph, node, sampler

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


def test_of_several_saved_pictures_it_is_said_which_is_read(read) -> None:
    body = graph(n30=sampler(seed=1), n31=node("VAEDecode", samples=["30", 0]), n32=node("SaveImage", images=["31", 0]))
    info = read(prompt=json.dumps(body))
    assert info.values["seed"] == 77
    assert "its graph saves several pictures; that of node 9 is read" in info.unmapped
    body["31"]["inputs"]["samples"] = ["3", 0]
    assert not any("several pictures" in line for line in read(prompt=json.dumps(body)).unmapped)


def test_the_workflow_says_which_output_is_which(read) -> None:
    body = graph(
        n3=sampler(positive=["30", 1], negative=["30", 2]),
        n30=node("SomebodysEncoder", positive=["6", 0], negative=["7", 0]),
    )
    outputs = [{"name": name} for name in ("latent", "positive", "negative")]
    workflow = {"nodes": [{"id": 30, "type": "SomebodysEncoder", "outputs": outputs}], "links": []}
    info = read(prompt=json.dumps(body), workflow=json.dumps(workflow))
    assert (info.values["prompt"], info.values["negative"]) == ("a fox", "ugly")


def test_a_graph_in_json_of_civitais_generator_is_helped_by_what_stands_beside_it(read) -> None:
    said = {"prompt": "a hare", "negativePrompt": "fog", "seed": 3, "resources": [{"modelVersionId": 202}]}
    body = {**graph(n3=sampler(seed=["50", 0])), "extra": {"airs": []}, "extraMetadata": json.dumps(said)}
    info = read(parameters=json.dumps(body))
    assert (info.values["prompt"], info.values["seed"]) == ("a fox", 3)
    assert any("202" in line for line in info.unmapped)
