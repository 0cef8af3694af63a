"""What controls do besides being right: files in every layout, memory plans, what is kept, and what is refused."""

from collections.abc import Iterator

import control_models
import numpy as np
import pytest
import torch
from control_models import guide
from safetensors.torch import load_file, save_file
from weight_formats import as_fp8, as_scaled_fp8, save_small

from webui.core.control_file import read_control
from webui.core.errors import RequestError
from webui.core.events import Loading
from webui.core.files import ControlFile, ModelFile
from webui.core.groups.control import Control
from webui.core.memory import Asked, control_bytes
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import read_header
from webui.darkroom import Darkroom
from webui.engine.controls.reading import ControlLoader
from webui.engine.families.base import CannotLoad
from webui.engine.nets.controlnet import ControlNet
from webui.jobs.memory import tell_memory
from webui.library.checkpoint import read_checkpoint


@pytest.fixture
def loaded(made):
    """``loaded(path, "sd1")``: a control's network, as it is read for a model."""

    def load(path, kind="sd1", dtype=torch.float32):
        model = made.models / kind
        loader = ControlLoader(ControlFile(path.stem, path), ModelFile(kind, model, read_checkpoint(model)), dtype)
        assert sum(loader.read(torch.device("cpu"))) > 0
        return loader.module

    return load


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("kind", ["sd1", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sd2", "sdxl"))])
def test_single_files_under_either_names_are_the_folder(made, loaded, tmp_path, kind):
    net = made.nets[f"net-{kind}"].cpu()
    folder = loaded(made.controls / f"net-{kind}", kind)
    assert same(loaded(control_models.save(tmp_path / "a.safetensors", control_models.to_ldm(net)), kind), folder)
    assert same(loaded(control_models.save(tmp_path / "b.safetensors", dict(net.state_dict())), kind), folder)
    prefixed = control_models.save(tmp_path / "c.safetensors", control_models.to_ldm(net), "control_model.")
    assert same(loaded(prefixed, kind), folder)


@pytest.mark.parametrize("form", ["full_adapter", "light_adapter", "full_adapter_xl"])
@pytest.mark.parametrize("greys", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_adapters_under_either_names_are_the_folder(made, loaded, tmp_path, form, greys):
    kind = "sdxl" if form == "full_adapter_xl" else "sd1"
    net = control_models.adapter(made.pipes[kind].unet, form, greys)
    net.save_pretrained(tmp_path / "folder")
    folder = loaded(tmp_path / "folder", kind)
    original = control_models.save(tmp_path / "a.safetensors", control_models.to_original(net))
    assert same(loaded(original, kind), folder)
    assert same(loaded(control_models.save(tmp_path / "b.safetensors", dict(net.state_dict())), kind), folder)


@pytest.mark.parametrize(
    "form", [*(pytest.param(form, marks=pytest.mark.slow) for form in ("F16", "BF16", "fp8")), "scaled fp8"]
)
def test_small_numbers_are_near_the_whole_ones(made, draw, form):
    name = f"net {form}"
    tensors, path = control_models.to_ldm(made.nets["net-sd1"].cpu()), made.controls / f"{name}.safetensors"
    if form in ("F16", "BF16"):
        control_models.save(path, tensors, dtype=torch.float16 if form == "F16" else torch.bfloat16)
    else:
        save_small(path, tensors, as_fp8 if form == "fp8" else as_scaled_fp8, prefix="")
    off = abs(draw(model="sd1", controls=[(name, {})]) - draw(model="sd1", controls=[("net-sd1", {})]))
    assert off.mean() < (0.5 if form in ("F16", "BF16") else 4)
    assert off.mean() < abs(draw(model="sd1") - draw(model="sd1", controls=[("net-sd1", {})])).mean() / 4


@pytest.mark.parametrize(
    "plan", [*(pytest.param(plan, marks=pytest.mark.slow) for plan in ("offload", "sequential")), "blocks"]
)
def test_every_memory_plan_draws_the_same_bits(made, small_words, draw, device, plan):
    two = [("net-sd1", {}), ("t2i-sd1", {"weight": 0.5}), ("other-sd1", {"end": 0.5})]
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=made.data, memory=plan))
    assert (draw(darkroom, model="sd1", controls=two) == draw(model="sd1", controls=two)).all()
    assert (draw(darkroom, model="sd1") == draw(model="sd1")).all()


def loads(darkroom, *names: str, **fields) -> Iterator[str]:
    uses = tuple(Control(model=name, image=guide()) for name in names)
    quick = {"prompt": "a", "width": 64, "height": 64, "steps": 2, "seed": 1, "sampler": "Euler", "model": "sd1"}
    events = darkroom.generate(Request(**quick | {"controls": uses} | fields))
    return (event.what for event in events if isinstance(event, Loading))


def test_what_was_read_stays_until_room_is_needed(made, room, small_words, device):
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=made.data, model_cache="1GB"))
    assert [what for what in loads(darkroom, "net-sd1") if "net-sd1" in what] == ["Loading net-sd1"]
    assert list(loads(darkroom, "net-sd1")) == []
    assert list(loads(darkroom)) == [] and list(loads(darkroom, "net-sd1")) == []
    assert list(loads(darkroom, "net-sd1", "other-sd1")) == ["Loading other-sd1"]
    need = darkroom.manager._residence._resident.need
    net = darkroom.manager._residence._resident.controls
    assert need.control_bytes == sum(w.nbytes for one in net.values() for w in one.module.parameters())
    told = {"size": (64, 64), "controls": ("net-sd1", "other-sd1")}
    said = tell_memory(Asked("sd1", **told), darkroom.library.snapshot(), [darkroom.manager.room])
    assert said["control_bytes"] == need.control_bytes
    assert said["weight_bytes"] == sum(said["parts"].values()) + need.control_bytes
    whole = control_bytes(ControlFile("lora", made.controls / "lora-sd1.safetensors"), 4)
    assert whole == control_bytes(ControlFile("net", made.controls / "net-sd1"), 4)
    small = Darkroom(Settings(device=device, dtype="float32", data_dir=made.data, model_cache="0"))
    assert list(loads(small, "net-sd1"))[-1] == "Loading net-sd1"
    list(loads(small))
    assert list(loads(small, "net-sd1")) == ["Loading net-sd1"], "nothing was drawn with it meanwhile"


def test_a_file_that_changed_is_read_again(made, room, draw):
    path = made.controls / "changing.safetensors"
    control_models.save(path, control_models.to_ldm(made.nets["net-sd1"].cpu()))
    first = draw(model="sd1", controls=[("changing", {})])
    control_models.save(path, control_models.to_ldm(made.nets["other-sd1"].cpu()))
    assert (draw(model="sd1", controls=[("changing", {})]) == draw(model="sd1", controls=[("other-sd1", {})])).all()
    assert abs(first - draw(model="sd1", controls=[("net-sd1", {})])).max() == 0


def test_a_map_is_seen_once_and_a_t2i_adapter_asked_once(made, room, draw, monkeypatch):
    seen = []
    plain = ControlNet.see
    monkeypatch.setattr(ControlNet, "see", lambda net, picture: seen.append(1) or plain(net, picture))
    room.manager._encoder.clear()
    for seed in (1, 2):
        draw(model="sd1", seed=seed, controls=[("net-sd1", {}), ("other-sd1", {})])
    assert len(seen) == 2, "for each network once, whatever the steps and jobs"


def test_terms_batches_schedules_and_shortcuts_go_with_controls(room, draw):
    """AND and a prompt that changes are two half-runs' worth of prompts; a picture is the same alone and in a batch."""
    one = [("net-sd1", {})]
    draw(model="sd1", prompt="a red apple AND a [green:blue:0.5] sky :0.5", controls=one, token_merging=0.5)
    draw(model="sd1", controls=one, reuse=2, prompt="a " * 90)
    second = draw(model="sd1", controls=one, seed=22)
    both = draw(model="sd1", controls=one, count=2)
    assert abs(both - second).max() <= 1
    perturbed = draw(model="sd1", controls=one, pag={"scale": 3.0})
    assert 1 < abs(perturbed - draw(model="sd1", controls=one)).max() < 200
    alone = draw(model="sd1", controls=[("net-sd1", {"mode": "control"})], guidance=1.0)
    assert (alone == draw(model="sd1", controls=[("net-sd1", {"mode": "prompt"})], guidance=1.0)).all()


def test_a_lora_on_the_model_leaves_the_control_alone(made, room, draw, random_lora):
    folder = made.data / "models/Lora"
    folder.mkdir(exist_ok=True)
    draw(model="sd1")
    lora = random_lora(room.manager._residence.model.components, only="attn")
    save_file(lora, folder / "change.safetensors")
    list(loads(room, "lora-sd1"))
    before = {n: t.clone() for n, t in next(iter(_nets(room))).state_dict().items()}
    draw(model="sd1", prompt="a <lora:change:1>", controls=[("lora-sd1", {})])
    fresh = Darkroom(room.settings)
    list(loads(fresh, "lora-sd1", prompt="a <lora:change:1>"))
    for darkroom in (room, fresh):
        net = next(iter(_nets(darkroom))).state_dict()
        assert all(torch.equal(net[name], tensor) for name, tensor in before.items())


def _nets(darkroom):
    return (one.module for one in darkroom.manager._residence._resident.controls.values())


def test_keys_that_have_no_place_are_said(made, loaded, room, tmp_path):
    """Once a job, for each kind of file; what only marks a file, or is read otherwise, is none of them."""
    net, adapter = control_models.to_ldm(made.nets["net-sd1"].cpu()), control_models.to_original(made.nets["t2i-sd1"])
    lora = load_file(made.controls / "lora-sd1.safetensors")
    model = ModelFile("sd1", made.models / "sd1", read_checkpoint(made.models / "sd1"))
    for tensors, prefix in ((net, "control_model."), (net, ""), (adapter, "adapter."), (lora, "")):
        for more in ({}, {"input_blocks.1.0.nothing.up": torch.zeros(2)}):
            path = control_models.save(tmp_path / "a.safetensors", tensors | more, prefix)
            assert ControlLoader(ControlFile("a", path), model, torch.float32).unread == list(more)
    control_models.save(made.controls / "more.safetensors", net | {"a.b": torch.zeros(1), "c.d": torch.zeros(1)})
    for _ in range(2):
        use = Control(model="more", image=guide())
        *_, done = room.generate(Request(prompt="a", width=64, height=64, steps=1, model="sd1", controls=(use,)))
        said = "Control more: 2 keys have no place in its network and did nothing, for example a.b."
        assert [line for line in done.warnings if "no place" in line] == [said]


def test_what_is_wrong_with_a_file_is_said_by_name(made, loaded, tmp_path):
    tensors = control_models.to_ldm(made.nets["net-sd1"].cpu())
    short = {name: tensor for name, tensor in tensors.items() if "middle_block.1" not in name}
    del short["zero_convs.0.0.bias"]
    with pytest.raises(
        CannotLoad, match=r"control 'short' cannot be used: short.safetensors lacks zero_convs.0.0.bias"
    ):
        loaded(control_models.save(tmp_path / "short.safetensors", short))
    with pytest.raises(CannotLoad, match="net-sd1 is a ControlNet for SD 1.x; the model sdxl is SDXL"):
        loaded(made.controls / "net-sd1", "sdxl")
    lora = load_file(made.controls / "lora-sd1.safetensors")
    lora["input_blocks.1.0.in_layers.2.up"] = torch.zeros(3, 3)
    with pytest.raises(CannotLoad, match="in_layers.2.up and .down in shapes that do not fit"):
        loaded(control_models.save(tmp_path / "lora.safetensors", lora))


def test_a_union_is_told_which_map_it_is_shown(made, room, draw):
    plain = draw(model="sdxl", controls=[("union-sdxl", {})])
    canny = draw(model="sdxl", controls=[("union-sdxl", {"preprocessor": "canny"})])
    assert np.abs(plain - canny).max() > 1
    for made_by, field in ({"preprocessor": "tile"}, "preprocessor"), ({"kind": "inpaint"}, "kind"):
        with pytest.raises(RequestError, match="union-sdxl knows 6 kinds of map, and (tile|inpaint) is none") as error:
            draw(model="sdxl", controls=[("union-sdxl", made_by)])
        assert error.value.field == f"controls.1.{field}"
    assert read_control(ControlFile("u", made.controls / "union-sdxl.safetensors")).form == "ControlNet Union"
    assert read_header(made.controls / "union-sdxl.safetensors").shapes
