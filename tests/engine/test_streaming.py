"""Networks that come to a device block by block: the same bits, the next block under way, and nothing more there."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weight_formats import as_scaled_fp8, save_gguf

from webui.core.memory import Need, Room
from webui.engine import streaming
from webui.engine.streaming import Space, Streamed
from webui.engine.weights import Files, Key, WeightLoader, build_empty

WIDTH, BLOCKS = 64, 6


class Block(nn.Module):
    """As transformers have them: layers, a tensor of its own, and a list of layers within."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.first = nn.Linear(WIDTH, 2 * WIDTH)
        self.to_out = nn.ModuleList([nn.Linear(2 * WIDTH, WIDTH), nn.Identity()])

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given + self.to_out[0](self.first(self.norm(given)).relu()) * self.table


class Network(nn.Module):
    """With a tensor that no layer has, a weight that two layers share, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.Parameter(torch.empty(WIDTH))
        self.into = nn.Linear(WIDTH, WIDTH, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out.weight = self.into.weight
        self.register_buffer("turns", torch.ones(WIDTH))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        given = self.into(given) * self.turns
        for block in self.blocks:
            given = block(given)
        return self.out(given) + self.pad


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = Network().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.normal_().mul_(0.1)
    return made


def weight_bytes(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


def away(network: nn.Module, resting: set[int]) -> int:
    """Bytes of the memory that its weights have elsewhere than where they rest."""
    storages = {storage.data_ptr(): storage for storage in (one.untyped_storage() for one in network.parameters())}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in resting)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9, 2.0, 0.0])
def test_it_computes_the_same_within_its_limit_and_is_left_as_it_was(network, share):
    resting = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in network.state_dict().items()}
    given, limit = torch.randn(3, WIDTH), weight_bytes(network) * share
    with torch.inference_mode():
        expected = network(given)
        space = Space(torch.device("cpu"), limit, stays=share > 0)
        streamed = Streamed(network, space)
        most = 0

        def watch(module: nn.Module, *_: object) -> None:
            nonlocal most
            most = max(most, away(network, resting))
            assert all(one.untyped_storage().data_ptr() not in resting for one in module.parameters(recurse=False))

        hooks = [module.register_forward_hook(watch) for module in network.modules()]
        assert all(torch.equal(network(given), expected) for _ in range(3))
        largest = 2 * WIDTH * WIDTH * 4
        assert 0 < most <= (limit or 2 * (largest + 2**10) + 2**12)
        if 0 < share < 1:
            assert most > limit - 3 * weight_bytes(network.blocks[0]), "as many blocks as fit stay"
        for hook in hooks:
            hook.remove()
        streamed.unhook()
        assert away(network, resting) == 0
        assert torch.equal(network(given), expected)
    after = network.state_dict()
    assert all(
        after[name].data_ptr() == place and torch.equal(after[name], old) for name, (place, old) in before.items()
    )
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_next_block_is_under_way_while_one_computes(network):
    streamed = Streamed(network, Space(torch.device("cpu"), weight_bytes(network) * 0.4))
    resting = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    there = []
    for number, block in enumerate(network.blocks):
        following = network.blocks[(number + 1) % BLOCKS].first.weight
        block.to_out[0].register_forward_hook(
            lambda *_, following=following: there.append(following.untyped_storage().data_ptr() not in resting)
        )
    with torch.inference_mode():
        for _ in range(3):
            network(torch.randn(1, WIDTH))
    assert all(there[: BLOCKS - 1]) and all(there[BLOCKS:][k] for k in range(BLOCKS) if k != BLOCKS - 1)
    streamed.unhook()


def test_two_networks_take_turns(network):
    other = Network().eval().requires_grad_(False)
    space = Space(torch.device("cpu"), weight_bytes(network) * 1.2)
    streams = [Streamed(one, space) for one in (network, other)]
    resting = {parameter.untyped_storage().data_ptr() for one in (network, other) for parameter in one.parameters()}
    with torch.inference_mode():
        for one, idle in ((network, other), (other, network), (network, other)):
            one(torch.randn(1, WIDTH))
            assert away(one, resting) and not away(idle, resting)
        for stream in streams:
            stream.rest()
        assert not away(network, resting)


@pytest.mark.parametrize("form", ["fp8", "gguf"])
@pytest.mark.parametrize("stays", [True, False])
def test_small_weights_come_small(tmp_path, form, stays):
    weights = {f"{k}.weight": torch.randn(64, 64) for k in range(4)} | {"0.bias": torch.randn(64)}
    if form == "fp8":
        stored = {"0.bias": weights.pop("0.bias")}
        for name, weight in weights.items():
            stored |= as_scaled_fp8(name, weight, by_row=True)[0]
        save_file(stored, path := tmp_path / "x.safetensors")
    else:
        save_gguf(path := tmp_path / "x.gguf", weights, "Q8_0")
    network = build_empty(lambda: nn.Sequential(*(nn.Linear(64, 64, bias=k == 0) for k in range(4))))
    list(
        WeightLoader(network, Files([path]), lambda name: iter([Key(name)]), True).read(
            torch.float32, torch.device("cpu")
        )
    )
    given, small = torch.randn(2, 64), weight_bytes(network)
    assert small < 4 * 64 * 64 * 1.3
    resting = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    with torch.inference_mode():
        expected = network(given)
        streamed = Streamed(network, Space(torch.device("cpu"), 0.7 * small, stays))
        assert torch.equal(network(given), expected)
        assert 0 < away(network, resting) <= 0.7 * small
        streamed.unhook()
        assert torch.equal(network(given), expected)


class FakeCard:
    """What of ``torch.cuda`` it asks, written down in the order in which a card would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._on = "compute"
        self.made = 0

    def Stream(self, device):
        return SimpleNamespace(
            wait_event=lambda event: self.told.append(f"copy waits for {event.name}"),
            wait_stream=lambda _: self.told.append("copy waits for all"),
            name="copy",
        )

    def current_stream(self, device):
        return SimpleNamespace(
            wait_event=lambda event: self.told.append(f"compute waits for {event.name}"), name="compute"
        )

    def Event(self):
        self.made += 1
        event = SimpleNamespace(name=f"event {self.made}")
        event.record = lambda stream: self.told.append(f"{event.name} on {stream.name}")
        return event

    def stream(self, stream):
        from contextlib import contextmanager

        @contextmanager
        def on():
            self.told.append("[")
            yield
            self.told.append("]")

        return on()


def test_a_card_is_told_to_copy_beside_its_work_and_to_wait_where_it_must(network, monkeypatch):
    """Of three blocks in two slots: the third waits for the work with the first; work waits for its block."""
    card = FakeCard()
    streamed = Streamed(network.blocks, Space(torch.device("cpu"), stays=False))
    monkeypatch.setattr(streaming, "SLOTS", 2)
    streamed._backend, streamed._stream = card, card.Stream(None)
    first, second, third, *_ = streamed._units
    for unit in (first, second, third):
        streamed._need(unit)
        card.told.append("work")
    text = " | ".join(card.told)
    work = [k for k, what in enumerate(card.told) if what == "work"]
    copies = [k for k, what in enumerate(card.told) if what == "["]
    assert len(copies) == 1 + 4, "what is always there, the first, and the next of each"
    assert copies[2] < work[0] and copies[3] < work[1], f"the next is copied before the work is given out: {text}"
    before = card.told[copies[3] - 1]
    used = next(what for what in card.told if what.endswith("on compute")).split(" on ")[0]
    assert before == f"copy waits for {used}", text
    for number in range(1, 3):
        assert any(what.startswith("compute waits for") for what in card.told[work[number - 1] : work[number]]), text
    streamed._stream = streamed._backend = None
    streamed.unhook()


@pytest.mark.parametrize(
    ("free", "plan"), [(12, "resident"), (9, "offload"), (6, "blocks"), (1.1, "sequential"), (0.9, None)]
)
def test_the_plan_is_the_first_that_fits_with_what_a_step_takes(free, plan):
    gib = 2**30
    need = Need({"text_encoder": 2 * gib, "backbone": 6 * gib, "vae": gib}, gib // 4, gib // 2)
    assert need.choose(int(free * gib)) == plan
    if plan == "blocks":
        assert need.block_bytes(6 * gib) == math.floor(5.5 * gib / 1.05)
    if plan is None:
        room = Room("cuda", int(free * gib), 2)
        assert need.refusal("x", room) == (
            "Model “x” needs 1.0 GiB of memory on cuda, and 0.9 GiB are free. Steps of this size take 0.5 GiB of that."
            " A smaller picture would fit. Close other programs, or choose a file with smaller weights (fp8, GGUF)."
        )
        fixed = Need({"backbone": 2 * gib}, gib).refusal("x", replace(room, plan="resident"))
        assert fixed.endswith("are free. Close other programs, or use --memory auto.")
