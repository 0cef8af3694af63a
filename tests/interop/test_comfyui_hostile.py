"""Graphs and workflows that nobody draws: whatever is in them, they are read in little work, and no reader fails."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.interop.programs import parse

from .graphs import WORKFLOW, graph, node, sampler
from .test_comfyui import GRAPHS

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
