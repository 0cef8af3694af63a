"""ComfyUI's workflows, as people save them, without the graph that was drawn."""

import json

from webui.core.request import LoraRef

from .graphs import FOX, WORKFLOW, drawn


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
    assert any("“other.safetensors” is not here" in line for line in info.unmapped)


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
