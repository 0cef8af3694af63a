"""WeightCache: exact, does no work that is not due, keeps to its budget, and survives whatever fails half way."""

import hashlib
import random
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from webui.engine.lora import cache as cache_module
from webui.engine.lora.cache import WeightCache
from webui.engine.lora.deltas import Difference, LowRank, merge
from webui.engine.lora.reading import LoraWeights
from webui.engine.lora.sets import SetKey, set_key

SIDE, LAYERS = 16, 6
TENSOR_BYTES = 4 * SIDE * SIDE
PLENTY = 1000 * TENSOR_BYTES


def keyed(loras) -> SetKey:
    """A set of LoRAs without weights by block."""
    return set_key((*lora, None) for lora in loras)


A, B, AB, ABC, D = (
    keyed((name, strength, strength) for name, strength in entries)
    for entries in (
        [("a", 1.0)],
        [("b", 0.5)],
        [("a", 1.0), ("b", 0.5)],
        [("a", 1.0), ("b", 0.5), ("c", -0.7)],
        [("d", 2.0)],
    )
)
SETS = (A, B, AB, ABC, D, keyed([("a", -1.0, 0.0)]), keyed([("c", 0.3, 0.9)]), keyed([("d", 1, 1), ("b", 1, 0)]))


class Stop(Exception):
    pass


class Reader:
    """LoRAs a to d, on layers that overlap: a 0 to 2, b 3 to 5, c all of them, d 4 and the text encoder's layer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails_for = ""
        generator = torch.Generator().manual_seed(1)
        touched = {"a": range(3), "b": range(3, 6), "c": range(6), "d": [4]}
        self._weights = {
            name: {("backbone", f"layer{k}", "weight"): low_rank(generator) for k in layers}
            for name, layers in touched.items()
        }
        self._weights["d"]["text_encoder", "layer0", "weight"] = low_rank(generator)
        self._weights["d"]["backbone", "layer0", "bias"] = Difference(torch.randn(SIDE, generator=generator))

    def __call__(self, content_hash: str) -> LoraWeights:
        self.asked.append(content_hash)
        if content_hash == self.fails_for:
            raise Stop
        return LoraWeights(self._weights[content_hash], ())


def low_rank(generator: torch.Generator) -> LowRank:
    return LowRank(torch.randn(SIDE, 2, generator=generator), torch.randn(2, SIDE, generator=generator), 0.5)


@pytest.fixture
def parts() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    unet = nn.ModuleDict({f"layer{k}": nn.Linear(SIDE, SIDE) for k in range(LAYERS)} | {"norm": nn.BatchNorm1d(SIDE)})
    text_encoder = nn.ModuleDict({"layer0": nn.Linear(SIDE, SIDE)})
    return {"backbone": unet.requires_grad_(False), "text_encoder": text_encoder.requires_grad_(False)}


@pytest.fixture
def read() -> Reader:
    return Reader()


@pytest.fixture
def in_place() -> bool:
    return False


@pytest.fixture
def make_cache(parts, in_place) -> Callable[..., WeightCache]:
    return lambda budget_bytes=PLENTY, host_bytes=0: WeightCache(parts, budget_bytes, host_bytes, None, in_place)


both_ways = pytest.mark.parametrize("in_place", [False, True], ids=["swapped", "in place"])


@pytest.fixture
def merged(monkeypatch) -> list[torch.Tensor]:
    """Every tensor that was computed so far."""
    made: list[torch.Tensor] = []

    def counted(*args):
        made.append(merge(*args))
        return made[-1]

    monkeypatch.setattr(cache_module, "merge", counted)
    return made


@pytest.fixture
def digests(make_cache, read, digest) -> Mapping[tuple, str]:
    """What the model is with each set, computed from the base by a cache that never saw another set."""
    found = {(): digest()}
    for key in SETS:
        fresh = make_cache()
        fresh.switch(key, read)
        found[key] = digest()
        fresh.switch((), read)
    assert len(set(found.values())) == len(SETS) + 1
    read.asked.clear()
    return found


@pytest.fixture
def digest(parts) -> Callable[[], str]:
    """SHA-256 of every parameter and buffer."""

    def digest() -> str:
        sha = hashlib.sha256()
        for part in parts.values():
            for name, tensor in part.state_dict().items():
                sha.update(name.encode() + tensor.numpy().tobytes())
        return sha.hexdigest()

    return digest


@pytest.fixture
def pointers(parts) -> Callable[[], dict[str, int]]:
    """Where each parameter's numbers are in memory."""
    return lambda: {
        f"{part}.{name}": parameter.data_ptr()
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


class Operations(TorchDispatchMode):
    """Every tensor operation, those that allocate memory included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, _types, args=(), kwargs=None):
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


class TestKey:
    def test_order_does_not_matter_and_a_lora_named_twice_counts_with_the_sum(self):
        assert keyed([("b", 1, 1), ("a", 2, 0)]) == keyed([("a", 2, 0), ("b", 1, 1)])
        assert keyed([("a", 0.5, 0.25), ("b", 1, 1), ("a", 0.25, 0)]) == keyed([("b", 1, 1), ("a", 0.75, 0.25)])

    def test_what_adds_up_to_nothing_is_no_lora(self):
        assert keyed([("a", 1, 1), ("a", -1, -1), ("b", 0, 0)]) == ()
        assert keyed([("a", 0, 0.5)]) == (("a", 0, 0.5, None),)


@both_ways
class TestExactness:
    @pytest.mark.parametrize(("sets_bytes", "host_bytes"), [(PLENTY, 0), (17, 0), (17, 12), (3, 8), (0, 0)])
    def test_after_any_walk_a_set_has_the_bits_it_has_alone(
        self, make_cache, read, digest, digests, sets_bytes, host_bytes
    ):
        cache, dice = make_cache(sets_bytes * TENSOR_BYTES, host_bytes * TENSOR_BYTES), random.Random(2)
        for _ in range(200):
            key = dice.choice((*SETS, ()))
            cache.switch(key, read)
            assert cache.key == key and digest() == digests[key]
        cache.switch((), read)
        assert digest() == digests[()]

    @pytest.mark.parametrize(("sets_bytes", "host_bytes"), [(PLENTY, 0), (17, 0), (11, 12), (9, 5), (3, 8), (0, 0)])
    def test_the_merges_of_a_walk_are_known_before(self, make_cache, read, merged, sets_bytes, host_bytes):
        cache, dice = make_cache(sets_bytes * TENSOR_BYTES, host_bytes * TENSOR_BYTES), random.Random(3)
        for _ in range(60):
            walk = dice.choices((*SETS, ()), k=dice.randrange(1, 9))
            before, installed = len(merged), cache.key
            expected = cache.merges(walk, read)
            assert len(merged) == before and cache.key == installed, "nothing is done"
            assert expected == sum(cache.switch(key, read)[0] == "merged" for key in walk)

    def test_the_base_comes_back_as_the_very_same_memory(self, make_cache, read, pointers):
        before, cache = pointers(), make_cache()
        for key in (A, D, ABC, ()):
            cache.switch(key, read)
        assert pointers() == before

    def test_in_place_no_parameter_ever_moves(self, make_cache, read, pointers, in_place):
        before, cache, moved = pointers(), make_cache(), False
        for key in (A, D, ABC):
            cache.switch(key, read)
            moved = moved or pointers() != before
        assert moved != in_place

    def test_no_set_before_the_first(self, make_cache):
        assert make_cache().key == () and make_cache().text_key == () and make_cache().nbytes == 0

    def test_a_lora_without_text_weight_leaves_the_text_encoder(self, make_cache, read, parts):
        cache, before = make_cache(), parts["text_encoder"]["layer0"].weight.clone()
        cache.switch(keyed([("d", 1.0, 0.0)]), read)
        assert torch.equal(parts["text_encoder"]["layer0"].weight, before) and cache.text_key == ()
        cache.switch(keyed([("d", 0.0, 0.7), ("a", 1, 1)]), read)
        assert not torch.equal(parts["text_encoder"]["layer0"].weight, before)
        assert cache.text_key == (("d", 0.7),), "a does nothing to the text encoder"


class TestWork:
    """Nothing is computed, read or touched that need not be."""

    @pytest.mark.parametrize("budget_bytes", [PLENTY, 0])
    def test_the_same_set_again_does_nothing(self, make_cache, read, merged, pointers, monkeypatch, budget_bytes):
        cache = make_cache(budget_bytes)
        assert cache.switch(ABC, read)[0] == "merged"
        read.asked.clear(), merged.clear()
        before = pointers()
        monkeypatch.setattr(cache, "_put", lambda *_: pytest.fail("a parameter was touched"))
        with Operations() as operations:
            how, seconds = cache.switch(ABC, read, check=lambda: pytest.fail("there is nothing to stop"))
        assert (how, operations.names, read.asked, merged, pointers()) == ("unchanged", [], [], [], before)
        assert seconds >= 0
        assert ABC in cache

    @pytest.mark.parametrize("key", [A, ABC, ()])
    def test_a_kept_set_is_installed_without_a_single_tensor_operation(self, make_cache, read, digest, digests, key):
        cache = make_cache()
        for earlier in (key, D):
            cache.switch(earlier, read)
        read.asked.clear()
        nbytes = cache.nbytes
        with Operations() as operations:
            assert cache.switch(key, read)[0] == "cached"
        assert operations.names == [] and read.asked == [] and cache.nbytes == nbytes
        assert digest() == digests[key]

    def test_a_new_set_computes_the_tensors_it_touches_once_each(self, make_cache, read, merged, pointers):
        cache, before = make_cache(), pointers()
        cache.switch(A, read)
        assert len(merged) == 3 and read.asked == ["a"]
        moved = {name for name, pointer in pointers().items() if pointer != before[name]}
        assert moved == {f"backbone.layer{k}.weight" for k in range(3)}

    def test_what_another_set_has_already_is_shared_and_not_computed(self, make_cache, read, merged, pointers):
        cache = make_cache()
        cache.switch(A, read)
        with_a = pointers()
        cache.switch(AB, read)
        assert len(merged) == 6, "only the layers of b are new"
        changed = {name for name, pointer in pointers().items() if pointer != with_a[name]}
        assert changed == {f"backbone.layer{k}.weight" for k in range(3, 6)}
        assert cache.nbytes == 6 * TENSOR_BYTES, "shared tensors count once"
        cache.switch(B, read)
        assert len(merged) == 6 and cache.nbytes == 6 * TENSOR_BYTES

    def test_another_strength_is_another_tensor(self, make_cache, read, merged):
        cache = make_cache()
        cache.switch(A, read)
        cache.switch(keyed([("a", 0.5, 0.5)]), read)
        assert len(merged) == 6

    def test_a_cached_switch_touches_only_what_differs(self, make_cache, read, monkeypatch):
        cache, touched = make_cache(), []
        for key in (A, AB):
            cache.switch(key, read)
        put = cache._put
        monkeypatch.setattr(cache, "_put", lambda place, tensor: touched.append(place[1]) or put(place, tensor))
        cache.switch(A, read)
        assert sorted(touched) == ["layer3", "layer4", "layer5"]


class TestBudget:
    @pytest.mark.parametrize("host_bytes", [0, 9 * TENSOR_BYTES])
    def test_it_holds_at_every_moment_of_a_walk(self, make_cache, read, monkeypatch, host_bytes):
        budget_bytes = 15 * TENSOR_BYTES  # two and a half sets of six
        cache, dice, alive = make_cache(budget_bytes, host_bytes), random.Random(3), []

        def check() -> None:
            alive[:] = [(memory, nbytes) for memory, nbytes in alive if not memory.expired()]
            assert max(cache.nbytes, sum(nbytes for _, nbytes in alive)) <= budget_bytes
            assert cache_module.nbytes_of(cache._on_host.values()) <= host_bytes

        def watched(*args):
            tensor = merge(*args)
            alive.append((StorageWeakRef(tensor.untyped_storage()), tensor.nbytes))
            check()
            return tensor

        monkeypatch.setattr(cache_module, "merge", watched)
        hows = []
        for _ in range(200):
            if dice.random() < 0.3:
                cache.prepare(dice.choice(SETS), read)
            hows.append(cache.switch(dice.choice((*SETS, ())), read, check)[0])
            check()
        assert {*hows} == {"unchanged", "cached", "merged"} and max(hows.count(how) for how in {*hows}) < 150

    def test_the_least_recently_used_goes_first(self, make_cache, read):
        cache = make_cache(8 * TENSOR_BYTES)
        for key in (A, B, D, A):  # 3 + 3 + 2 tensors and a bias: d pushes a out, then a pushes b out
            cache.switch(key, read)
        assert [key in cache for key in (A, B, D)] == [True, False, True]
        for key in (D, B):
            cache.switch(key, read)
        assert [key in cache for key in (A, B, D)] == [False, True, True]

    def test_using_it_again_unchanged_counts_as_use(self, make_cache, read):
        cache = make_cache(7 * TENSOR_BYTES)
        cache.switch(A, read)
        assert cache.prepare(B, read)
        for key in (A, D):
            cache.switch(key, read)
        assert [key in cache for key in (A, B, D)] == [True, False, True]

    @pytest.mark.parametrize("tensors", [0, 5])
    def test_a_set_larger_than_all_of_it_is_used_and_not_kept(self, make_cache, read, merged, digest, digests, tensors):
        cache = make_cache(tensors * TENSOR_BYTES)
        assert cache.switch(ABC, read)[0] == "merged" and digest() == digests[ABC]
        assert cache.nbytes == 6 * TENSOR_BYTES
        cache.switch((), read)
        assert cache.nbytes == 0 and digest() == digests[()]
        merged.clear()
        assert cache.switch(ABC, read)[0] == "merged" and digest() == digests[ABC] and len(merged) == 6

    def test_what_must_leave_goes_to_host_memory_and_comes_back_equal(self, make_cache, read, merged, digest, digests):
        cache = make_cache(6 * TENSOR_BYTES, 12 * TENSOR_BYTES)
        for key in (A, D):
            cache.switch(key, read)
        cache.switch(ABC, read)  # as large as all of the budget
        merged.clear(), read.asked.clear()
        for key in (A, D, A):
            assert cache.switch(key, read)[0] == "cached" and digest() == digests[key]
            assert cache.nbytes <= 6 * TENSOR_BYTES
        assert merged == [] and read.asked == []

    def test_host_memory_is_bounded_and_forgets_the_oldest(self, make_cache, read):
        cache = make_cache(6 * TENSOR_BYTES, 5 * TENSOR_BYTES)
        for key in (A, B, ABC):  # a and b leave together; there is room for one
            cache.switch(key, read)
        assert [key in cache for key in (A, B, ABC)] == [False, True, True]
        assert cache_module.nbytes_of(cache._on_host.values()) <= 5 * TENSOR_BYTES


def _fail_reading(_cache, read, _monkeypatch):
    read.fails_for = "b"


def _fail_checking(_cache, _read, _monkeypatch):
    calls = iter([None, None, Stop])

    def check():
        if error := next(calls, None):
            raise error

    return check


def _fail_merging(error):
    def fail(_cache, _read, monkeypatch):
        calls = iter([False, False, True])

        def broken(*args):
            if next(calls, False):
                raise error
            return merge(*args)

        monkeypatch.setattr(cache_module, "merge", broken)

    return fail


def _fail_installing(cache, _read, monkeypatch):
    calls, put = iter([False] * 4 + [True]), cache._put

    def broken(*args):
        if next(calls, False):
            raise KeyboardInterrupt
        put(*args)

    monkeypatch.setattr(cache, "_put", broken)


@both_ways
class TestFailures:
    @pytest.mark.parametrize("before", [(), A, D], ids=["from nothing", "from a part of it", "from another set"])
    @pytest.mark.parametrize(
        ("fail", "error"),
        [
            (_fail_reading, Stop),
            (_fail_checking, Stop),
            (_fail_merging(RuntimeError("out of memory")), RuntimeError),
            (_fail_merging(KeyboardInterrupt()), KeyboardInterrupt),
            (_fail_installing, KeyboardInterrupt),
        ],
        ids=["read", "check", "merge", "interrupted merge", "interrupted install"],
    )
    @pytest.mark.parametrize("budget_bytes", [PLENTY, 0])
    def test_whatever_fails_half_way_leaves_the_base_and_the_next_switch_works(
        self, make_cache, read, digest, digests, monkeypatch, before, fail, error, budget_bytes
    ):
        cache = make_cache(budget_bytes)
        cache.switch(before, read)
        with monkeypatch.context() as patch, pytest.raises(error):
            check = fail(cache, read, patch)
            cache.switch(ABC, read, *([check] if check else []))
        assert digest() == digests[()] and cache.key == () and cache.text_key == ()
        read.fails_for = ""
        for key in (ABC, before, D):
            cache.switch(key, read)
            assert digest() == digests[key]

    def test_a_failing_preparation_leaves_what_is_installed(self, make_cache, read, digest, digests):
        cache = make_cache()
        cache.switch(A, read)
        read.fails_for = "b"
        with pytest.raises(Stop):
            cache.prepare(ABC, read)
        assert cache.key == A and digest() == digests[A] and ABC not in cache


class TestPrepare:
    def test_a_prepared_set_is_cached_and_equal_and_nothing_changes_before(
        self, make_cache, read, merged, digest, digests, pointers
    ):
        cache = make_cache()
        cache.switch(A, read)
        before = pointers()
        merged.clear()
        assert cache.prepare(ABC, read) is True
        assert cache.key == A and pointers() == before and len(merged) == 6
        read.asked.clear()
        assert cache.switch(ABC, read)[0] == "cached" and digest() == digests[ABC]
        assert read.asked == [] and len(merged) == 6

    @pytest.mark.parametrize("installed", [A, ABC], ids=["kept", "too large to keep"])
    def test_it_is_refused_before_computing_where_it_does_not_fit_beside_the_installed_one(
        self, make_cache, read, merged, digest, digests, installed
    ):
        cache = make_cache(4 * TENSOR_BYTES)
        cache.switch(installed, read)
        merged.clear()
        assert cache.prepare(B, read) is False and merged == []
        assert cache.key == installed and B not in cache and digest() == digests[installed]
        assert cache.switch(B, read)[0] == "merged" and digest() == digests[B]

    def test_it_pushes_out_others_but_never_the_installed_one(self, make_cache, read):
        cache = make_cache(7 * TENSOR_BYTES)
        for key in (D, A, B):
            cache.switch(key, read)
        assert [key in cache for key in (D, A, B)] == [False, True, True]
        cache.switch(A, read)
        assert cache.prepare(D, read) is True
        assert [key in cache for key in (D, A, B)] == [True, True, False]
        assert cache.prepare(B, read) is True, "d was not used, a is in use"
        assert [key in cache for key in (D, A, B)] == [False, True, True]
        assert [cache.switch(key, read)[0] for key in (B, A)] == ["cached", "cached"]

    @pytest.mark.parametrize("key", [(), A], ids=["nothing", "the installed one"])
    def test_what_is_there_needs_none(self, make_cache, read, merged, key):
        cache = make_cache(0)
        cache.switch(A, read)
        merged.clear()
        assert cache.prepare(key, read) is True and merged == []
