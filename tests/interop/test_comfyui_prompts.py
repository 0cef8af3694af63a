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
