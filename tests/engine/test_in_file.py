"""Weights that rest in their file: what layers compute with, what is in memory, and what is said of a lost file."""

import gc
import os
import weakref

import pytest
import torch
from safetensors.torch import save_file
from small_darkrooms import draw, save_models
from torch import nn
from weight_formats import as_fp8, as_int8, as_scaled_fp8, save_gguf

from webui.core import memory
from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.families.loading import ModelLoader
from webui.engine.weights import Files, Key, WeightLoader, build_empty, in_file, loader
from webui.engine.weights.layers import Pair, StoredLayer

CPU = torch.device("cpu")
WORDS, WIDTH = 400, 64


@pytest.fixture(autouse=True)
def from_the_first_byte(monkeypatch):
    for module in (memory, loader):
        monkeypatch.setattr(module, "RESTS_FROM_BYTES", 1)


class Reads(nn.Module):
    """What a text encoder is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH, _weight=torch.empty(WORDS, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.layer = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(self.norm(self.embedding(ids)))
        return out


IDS = torch.tensor([[3, 399, 3, 17]])
FORMS = {
    "float32": lambda name, weight: ({name: weight}, None),
    "bfloat16": lambda name, weight: ({name: weight.bfloat16()}, None),
    "float16": lambda name, weight: ({name: weight.half()}, None),
    "fp8": as_fp8,
    "scaled": lambda name, weight: as_scaled_fp8(name, weight, by_row=True),
    "int8": as_int8,
}


def save(folder, form):
    torch.manual_seed(3)
    plain = {name: torch.randn(tensor.shape) for name, tensor in Reads().state_dict().items()}
    if form == "Q8_0":
        save_gguf(folder / "x.gguf", plain, form)
        return folder / "x.gguf"
    stored = {}
    for name, tensor in plain.items():
        stored |= FORMS[form](name, tensor)[0] if tensor.ndim == 2 else {name: tensor}
    save_file(stored, folder / "x.safetensors")
    return folder / "x.safetensors"


@torch.inference_mode(False)
def load(path, rests, dtype=torch.float32):
    module = build_empty(Reads)
    weights = WeightLoader(module, Files([path]), lambda name: iter([Key(name)]), keeps_small=True)
    if rests:
        weights.leave_in_files(dtype)
    assert sum(weights.read(dtype, CPU)) == weights.file_bytes
    return module, weights


@pytest.mark.parametrize("form", [*FORMS, "Q8_0"])
@torch.inference_mode()
def test_it_computes_as_if_all_were_in_memory(tmp_path, form):
    path = save(tmp_path, form)
    (resident, whole), (resting, rest) = load(path, False), load(path, True)
    expected = resident(IDS)
    assert torch.equal(resting(IDS), expected) and torch.equal(resting(IDS), expected)
    assert isinstance(resting.layer, StoredLayer) == (form not in ("float32", "bfloat16", "float16"))
    assert rest.file_bytes < 0.1 * whole.file_bytes
    assert max(p.untyped_storage().nbytes() for p in resting.parameters()) <= 4 * WORDS, "nothing stays but scales"


@torch.inference_mode()
def test_what_a_lora_makes_of_a_weight_is_computed_with_and_comes_off_bit_for_bit(tmp_path):
    module, _ = load(save(tmp_path, "float16"), True)
    before, resting = module(IDS), module.layer.weight.data
    with in_file.here(module.layer, resting) as own:
        changed = own + 1
    module.layer.weight.data = changed
    states = module.norm(module.embedding(IDS))
    assert torch.equal(module(IDS), nn.functional.linear(states, changed, module.layer.bias))
    module.layer.weight.data = resting
    assert torch.equal(module(IDS), before)


@torch.inference_mode()
def test_a_pair_beside_a_small_weight(tmp_path):
    path = save(tmp_path, "fp8")
    pair = Pair(torch.randn(2 * WIDTH, 2), torch.randn(2, WIDTH))
    modules = [load(path, rests)[0] for rests in (False, True)]
    for module in modules:
        module.layer.change(pair)
    resident, resting = (module(IDS) for module in modules)
    assert torch.equal(resident, resting)
    with in_file.here(modules[1].layer, modules[1].layer.stored) as own:
        assert torch.equal(own.dense(), modules[0].layer.stored.dense())


def test_whoever_reads_a_weight_past_its_layer_gets_no_number(tmp_path):
    for form in ("float32", "bfloat16"):
        module, _ = load(save(tmp_path, form), True)
        assert module.layer.weight.isnan().all() and module.layer.weight.shape == (2 * WIDTH, WIDTH)


def test_a_network_that_nobody_holds_is_let_go_of_at_once(tmp_path):
    module, weights = load(save(tmp_path, "fp8"), True)
    module(IDS)
    layers = [weakref.ref(module.layer), weakref.ref(module.embedding)]
    gc.disable()
    try:
        del module, weights
        assert [layer() for layer in layers] == [None, None]
    finally:
        gc.enable()


@torch.inference_mode()
def test_of_an_embedding_those_rows_are_read_that_are_asked_for(tmp_path, monkeypatch):
    module, _ = load(save(tmp_path, "float32"), True)
    counted, fill = [], in_file.fill
    monkeypatch.setattr(in_file, "fill", lambda file, into, *more: (counted.append(len(into)), fill(file, into, *more)))
    module.embedding(IDS)
    assert counted == [WIDTH] * 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("data"))


def darkroom(tree, **settings):
    return Darkroom(Settings(**({"device": "cpu", "dtype": "float32", "data_dir": tree} | settings)))


def storages(room):
    components = room.manager._residence.model.components
    modules = [module for role, module in components.items() if role.startswith("text")]
    return [weight.untyped_storage().nbytes() for module in modules for weight in module.parameters()]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_pictures_are_the_same_with_loras_on_what_reads_words(tree, tmp_path, random_lora, kind):
    here, resting = (darkroom(tree, memory=plan, models_dir=(tmp_path,)) for plan in ("resident", "auto"))
    assert (draw(here, model=kind) == draw(resting, model=kind)).all()
    (tmp_path / "Lora").mkdir()
    save_file(random_lora(here.manager._residence.model.components), tmp_path / "Lora/all.safetensors")
    plain = draw(here, model=kind)
    for loras in (("all:1",), ("all:-0.5",), (), ("all:1",)):
        one, other = (draw(room, model=kind, prompt="a street", loras=loras) for room in (here, resting))
        assert (one == other).all()
    assert abs(one - plain).max() > 1
    resting.manager._residence.loras.switch(())
    assert sum(storages(resting)) < 0.5 * sum(storages(here)), "norms, positions and biases alone are in memory"


def test_what_is_told_beforehand_is_what_is_taken(tree):
    file = darkroom(tree).catalog().models["sdxl"]
    for plan in ("resident", "auto"):
        room = memory.Room("cpu", 10**12, 4, plan)
        taken = ModelLoader(file, [], torch.float32, memory.rests_in_files("cpu", plan)).part_bytes
        told = memory.need_of(file, [], room).parts
        assert told["backbone"] == pytest.approx(taken["backbone"], rel=0.06)
        assert told["text_encoder_2"] == pytest.approx(taken["text_encoder_2"], rel=0.06 if plan == "resident" else 0.6)
    resident = memory.need_of(file, [], memory.Room("cpu", 10**12, 4, "resident")).parts
    assert told["text_encoder_2"] < 0.8 * resident["text_encoder_2"]


@pytest.mark.parametrize(("lost", "said"), [("changed", "was changed"), ("gone", "No such file")])
def test_a_lost_file_is_named_and_read_anew_when_it_is_there_again(tmp_path, lost, said):
    room = darkroom(save_models(tmp_path))
    expected = draw(room, model="sd1")
    path = tmp_path / "models/Stable-diffusion/sd1/text_encoder/model.safetensors"
    model = room.manager._residence.model
    raw = path.read_bytes()
    path.unlink()
    if lost == "changed":
        path.write_bytes(raw)
        os.utime(path, ns=(1, 1))
    with pytest.raises(RequestError, match=f"model.safetensors.*{said}") as caught:
        model.encode_prompt("new words", 1, {})
    assert caught.value.field == "model"
    path.write_bytes(raw)
    assert (draw(room, model="sd1") == expected).all()
