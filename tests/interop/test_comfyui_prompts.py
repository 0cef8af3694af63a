"""Prompts in ComfyUI's graphs: a text that cannot be told is left out and said, never guessed."""

import json
from typing import Any

import pytest

from .graphs import graph, node, sampler

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


def test_words_keep_the_meaning_that_they_have_there(read) -> None:
    text = "(a fox:1.2), [snow], embedding:nice.pt, (embedding:bad:0.9) <lora:blueprint:1>"
    info = read(prompt=json.dumps(graph(n6=node("CLIPTextEncode", text=text))))
    assert info.values["prompt"] == r"(a fox:1.2), \[snow\], nice, (bad:0.9)"
    assert "loras" not in info.values and any("does nothing in ComfyUI" in line for line in info.unmapped)


def area(link: str, x: float, width: float, strength: float = 1.0, kind: str = "ConditioningSetAreaPercentage"):
    return node(kind, conditioning=[link, 0], x=x, y=0, width=width, height=1 if width <= 1 else 512, strength=strength)


def both(one: str, other: str):
    return node("ConditioningCombine", conditioning_1=[one, 0], conditioning_2=[other, 0])


HEN = {"n30": node("CLIPTextEncode", text="a hen", clip=["4", 1]), "n31": node("CLIPTextEncode", text="snow")}


def test_prompts_by_area_are_regions_beside_the_one_for_everything(read):
    """A strength s beside 1 is s / (1 + s) of the place; pixels are of the picture of 384 x 512 px."""
    areas = {"n32": area("6", 0, 0.5, 3.0), "n33": area("30", 192, 192, kind="ConditioningSetArea")}
    body = graph(n3=sampler(positive=["34", 0]), n34=both("35", "31"), n35=both("32", "33"), **HEN, **areas)
    info = read(prompt=json.dumps(body))
    assert info.values["prompt"] == "snow"
    fox, hen = info.values["regions"]
    assert (fox.box, fox.prompt, fox.weight) == ((0, 0, 0.5, 1), "a fox", 0.75)
    assert (hen.box, hen.prompt, hen.weight, hen.feather) == ((0.5, 0, 1, 1), "a hen", 0.5, round(64 / 384, 4))
    assert any("areas of prompts: here each prompt is asked about the whole picture" in line for line in info.unmapped)


def test_areas_that_cover_everything_need_no_prompt_beside_them_and_others_are_no_regions(read):
    whole = {"n32": area("6", 0, 0.5), "n33": area("30", 0.5, 0.5), "n34": both("32", "33")}
    info = read(prompt=json.dumps(graph(n3=sampler(positive=["34", 0]), **HEN, **whole)))
    assert info.values["prompt"] == "" and [region.weight for region in info.values["regions"]] == [1, 1]
    for other in ({"n33": area("30", 0.6, 0.4)}, {"n33": area("30", 0.5, 0.5, 2.0)}, {"n33": area("32", ["9", 0], 1)}):
        info = read(prompt=json.dumps(graph(n3=sampler(positive=["34", 0]), **HEN, **whole | other)))
        assert "regions" not in info.values and "a fox" in info.values["prompt"]
        assert any("uses a part of it only in some places" in line for line in info.unmapped)


def test_what_guides_beside_guidance_is_read_from_the_nodes_that_change_the_model(read):
    nodes = {
        "n40": node("PerturbedAttentionGuidance", model=["41", 0], scale=2.5),
        "n41": node("RescaleCFG", model=["42", 0], multiplier=0.6),
        "n42": node("NAGuidance", model=["4", 0], nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5),
    }
    info = read(prompt=json.dumps(graph(n3=sampler(model=["40", 0]), **nodes)))
    assert (info.values["pag.scale"], info.values["guidance_rescale"]) == (2.5, 0.6)
    assert info.values["pag"] is True and "nag" not in info.values
    said = " ".join(info.unmapped)
    assert "model: changed on its way by NAGuidance" in said and "RescaleCFG: of a model that predicts noise" in said


def test_nag_is_read_from_samplers_that_have_it(read):
    nag = {"nag_scale": 4.0, "nag_tau": 2.0, "nag_alpha": 0.25, "nag_sigma_end": 0.0, "nag_negative": ["31", 0]}
    for cfg, negative in ((1.0, "snow"), (4.5, "ugly")):
        kind = node("KSamplerWithNAG", **{**sampler(cfg=cfg)["inputs"], **nag})
        info = read(prompt=json.dumps(graph(n3=kind, **HEN)))
        held = [info.values[f"nag.{name}"] for name in ("scale", "tau", "alpha")]
        assert [*held, info.values["negative"]] == [4, 2, 0.25, negative]
        assert ("NAG's own negative prompt: snow" in info.unmapped) == (cfg != 1)
