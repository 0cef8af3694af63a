"""LoraSwitcher: files and weights in, a model out that depends on nothing else, bit for bit."""

import copy
import hashlib
import json
import random
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import nn

from webui.core.request import LoraRef
from webui.core.stages import LoraUse
from webui.engine.families.sdxl import STABLE_DIFFUSION_XL
from webui.engine.lora import cache as cache_module
from webui.engine.lora import switcher as switcher_module
from webui.engine.lora.reading import CannotApply
from webui.engine.lora.switcher import LoraSwitcher

CPU = torch.device("cpu")
PLENTY = 2**40
ATTENTION = r"attn\d?\.(to_|\w_proj)"
SETS = tuple(
    tuple(names.split())
    for names in (
        "whole",
        "whole:-0.6",
        "whole:0.8 attention:0.5",
        "attention words:0:1",
        "words:0.9:0 rows:0.7",
        "rows products:0.5 attention:-1",
        "products",
        "turned:0.8 whole:0.5 products:-0.5",
        "whole:1 attention:1 words:1 rows:1 products:1 turned:1",
    )
)

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=["demo", "sdxl"])
def parts(request) -> dict[str, nn.Module]:
    """The embedded model, and a small SDXL."""
    return request.getfixturevalue(f"{request.param}_parts")


@pytest.fixture(scope="module")
def stock_parts(parts, request) -> dict[str, nn.Module]:
    """diffusers' and transformers' modules of the same."""
    return request.getfixturevalue("stock_sdxl_parts" if "text_encoder_2" in parts else "stock_demo_parts")


@pytest.fixture
def files(parts, random_lora, write_lora, request, by_diffusers):
    """A LoRA for much in kohya's names (Stability's own for SDXL's UNet), and five for a part in a format each."""
    name = {}
    if "text_encoder_2" in parts:
        stock = request.getfixturevalue("stock_sdxl_parts")
        paths = request.getfixturevalue("stability_paths")(stock["backbone"])
        name = {"name": lambda part, path: kohya(part, {path: name for name, path in paths.items()}.get(path, path))}

    def kohya(part: str, path: str) -> str:
        prefix = {"backbone": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
        return f"{prefix}_{path.replace('.', '_')}"

    tensors = {
        "whole": random_lora(parts, 1, r"attn|conv_in|conv_shortcut|mlp", **name),
        "attention": random_lora(parts, 2, ATTENTION, by_diffusers),
        "words": random_lora(parts, 3, r"^text_encoder.*proj", by_diffusers),
        "rows": random_lora(parts, 4, r"up_blocks.*(to_q|conv_shortcut)", form="dora"),
        "products": random_lora(parts, 5, r"down_blocks.*(to_v|conv_shortcut)", form="loha"),
        "turned": random_lora(parts, 6, r"(mid_block|down_blocks).*(to_v|conv1|conv_shortcut)", form="oft"),
    }
    return {name: write_lora(own, name=name) for name, own in tensors.items()}


@pytest.fixture
def make_switcher(parts) -> Callable[..., LoraSwitcher]:
    return lambda budget_bytes=PLENTY: LoraSwitcher(
        SimpleNamespace(components=parts, family=STABLE_DIFFUSION_XL, kind=""), CPU, budget_bytes
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Handing tensors as small as these to several threads takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def now(parts) -> Callable[[], State]:
    """Every parameter and buffer."""
    return lambda: {
        f"{part}.{name}": tensor.detach()
        for part, module in parts.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.fixture
def state(now) -> Callable[[], State]:
    """Copies of them."""
    return lambda: {name: tensor.clone() for name, tensor in now().items()}


@pytest.fixture
def output(parts) -> Callable[[], bytes]:
    """What the text encoders and the UNet say, as bytes."""
    unet, texts = parts["backbone"], [part for name, part in parts.items() if name != "backbone"]
    generator = torch.Generator().manual_seed(7)
    latents, tokens = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([[48, 3, 1, 4, 15, 49]])
    own = {"context": torch.randn(1, 5, sum(part.hidden_size for part in texts), generator=generator)}
    if len(texts) > 1:
        own |= {"summary": torch.randn(1, texts[1].hidden_size, generator=generator), "ids": torch.full((1, 6), 64.0)}

    @torch.inference_mode()
    def output() -> bytes:
        said = [unet(latents, torch.tensor(500), unet.prepare(**own))]
        said += [tensor for part in texts for tensor in part(tokens, -1, True) if tensor is not None]
        assert all(tensor.isfinite().all() for tensor in said)
        return b"".join(tensor.numpy().tobytes() for tensor in said)

    return output


def sha256(state: State) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def same(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def uses(files, *texts: str) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(files[ref.name], *ref.strengths) for ref in map(LoraRef.model_validate, texts))


class TestExactness:
    def test_200_random_switches_leave_nothing_behind_and_no_set_depends_on_those_before(
        self, make_switcher, files, now, state, output
    ):
        start, first, dice = sha256(now()), output(), random.Random(4)
        alone, largest = {}, 0
        for wanted in SETS:
            fresh = make_switcher()
            fresh.switch(uses(files, *wanted))
            alone[wanted], largest = (state(), output()), max(largest, fresh.cache.nbytes)
            fresh.switch(())
        assert len({said for _, said in alone.values()} | {first}) == len(SETS) + 1

        walking, hows = make_switcher(largest * 5 // 2), []
        for number in range(200):
            wanted = dice.choice(SETS)
            shuffled = dice.sample(wanted, len(wanted))
            hows.append(walking.switch(uses(files, *shuffled))[0].how)
            assert walking.cache.nbytes <= largest * 5 // 2
            assert same(now(), alone[wanted][0])
            assert number % 10 or output() == alone[wanted][1]
        assert {*hows} == {"unchanged", "cached", "merged"}

        walking.switch(())
        assert sha256(now()) == start and output() == first

    def test_the_same_lora_twice_counts_with_the_sum_and_minus_one_takes_one_back(self, make_switcher, files, state):
        switcher, start = make_switcher(), sha256(state())
        switcher.switch(uses(files, "whole:0.25", "whole:0.5:0.5"))
        twice = state()
        assert switcher.switch(uses(files, "whole:0.75"))[0].how == "unchanged" and same(state(), twice)
        for texts in (("whole:-1",), ("whole:1",), ("whole:1", "whole:-1")):
            switcher.switch(uses(files, *texts))
        assert switcher.cache.key == () and sha256(state()) == start

    def test_two_stacked_loras_are_what_peft_merges(
        self, make_switcher, parts, stock_parts, random_lora, write_lora, by_diffusers
    ):
        files, reference = {}, copy.deepcopy(stock_parts["backbone"])
        only = r"attn1.to_[qv]$|attn2.to_k|ff.net.2|proj_in|conv_in|conv_shortcut|samplers.0.conv"
        layers = [name for name, _ in reference.named_modules() if re.search(only, name)]
        for adapter, strength in (("one", 0.8), ("two", 0.5)):
            tensors = random_lora({"backbone": parts["backbone"]}, ord(adapter[0]), only, by_diffusers)
            files[adapter] = write_lora(tensors, name=adapter)
            config = LoraConfig(r=4, lora_alpha=4 * strength, target_modules=layers)
            if adapter == "one":
                adapted = get_peft_model(reference, config, adapter_name=adapter)
            else:
                adapted.add_adapter(adapter, config)
            own = {f"base_model.model.{key.removeprefix('unet.')}": tensor for key, tensor in tensors.items()}
            report = set_peft_model_state_dict(adapted, own, adapter_name=adapter)
            assert not report.unexpected_keys
        expected = dict(adapted.merge_and_unload(adapter_names=["one", "two"]).named_parameters())
        switcher = make_switcher()
        switcher.switch(uses(files, "one:0.8", "two:0.5"))
        found = {name: parameter.clone() for name, parameter in parts["backbone"].named_parameters()}
        switcher.switch(())
        assert found.keys() == expected.keys() and len(layers) > 15
        for name, tensor in found.items():
            assert (tensor - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max(), name
        changed = [name for name, base in parts["backbone"].named_parameters() if not torch.equal(base, found[name])]
        assert len(changed) == len(layers)


class TestWork:
    @pytest.fixture
    def parts(self, demo_parts):
        return demo_parts

    @pytest.fixture
    def reads(self, monkeypatch) -> list[str]:
        """The files that were read so far."""
        names: list[str] = []
        read = switcher_module.read_lora
        monkeypatch.setattr(
            switcher_module, "read_lora", lambda file, *rest: (names.append(file.name), read(file, *rest))[1]
        )
        return names

    def test_a_file_is_read_once_whatever_is_merged_of_it(self, make_switcher, files, reads):
        switcher = make_switcher(0)
        hows = [
            switcher.switch(uses(files, *texts))[0].how
            for texts in (["words"], ["words"], ["words:0.5", "rows"], ["words"], ["rows"])
        ]
        assert hows == ["merged", "unchanged", "merged", "merged", "merged"] and sorted(reads) == ["rows", "words"]

    def test_a_file_too_large_to_remember_is_read_again_only_to_merge(self, make_switcher, files, reads, monkeypatch):
        monkeypatch.setattr(switcher_module, "READ_BYTES", 10)
        switcher = make_switcher()
        for texts in (["words"], ["rows"], ["words"], ["words:2"]):
            switcher.switch(uses(files, *texts))
        assert reads == ["words", "rows", "words"]

    def test_a_set_that_is_there_needs_no_merging(self, make_switcher, files):
        for budget_bytes in (PLENTY, 0):
            switcher = make_switcher(budget_bytes)
            assert switcher.must_merge(uses(files, "words")) and not switcher.must_merge(())
            switcher.switch(uses(files, "words"))
            assert not switcher.must_merge(uses(files, "words"))
            switcher.switch(())
            assert switcher.must_merge(uses(files, "words")) is (budget_bytes == 0)

    def test_a_prepared_set_is_cached(self, make_switcher, files, state):
        switcher = make_switcher()
        switcher.switch(uses(files, "words"))
        before = state()
        assert switcher.prepare(uses(files, "rows", "words")) is True and same(state(), before)
        assert switcher.switch(uses(files, "words", "rows"))[0].how == "cached"
        switcher.switch(())


class TestFiles:
    @pytest.fixture
    def parts(self, demo_parts):
        return demo_parts

    @pytest.fixture(autouse=True)
    def _base_stays(self, state):
        before = sha256(state())
        yield
        assert sha256(state()) == before

    def test_one_content_under_two_names_is_one_lora(self, make_switcher, files, write_lora, random_lora, parts):
        switcher = make_switcher()
        files["copy"] = write_lora(random_lora(parts, 4, r"up_blocks.*(to_q|conv_shortcut)", form="dora"), name="copy")
        switcher.switch(uses(files, "rows"))
        assert switcher.switch(uses(files, "copy"))[0].how == "unchanged"
        assert switcher.switch(uses(files, "copy:0.5", "rows:0.5"))[0].how == "unchanged"
        switcher.switch(())

    def test_other_content_under_the_same_name_is_another_lora(
        self, make_switcher, files, write_lora, random_lora, parts, state
    ):
        switcher, only = make_switcher(), r"^text_encoder.*proj"
        switcher.switch(uses(files, "words"))
        before = state()
        old = files["words"].path.read_bytes()
        write_lora(random_lora(parts, 99, only), name="words")
        assert switcher.switch(uses(files, "words"))[0].how == "merged" and not same(state(), before)
        files["words"].path.write_bytes(old)
        assert switcher.switch(uses(files, "words"))[0].how == "cached" and same(state(), before)
        switcher.switch(())

    def test_another_configuration_of_peft_s_beside_it_makes_it_another_lora(self, make_switcher, write_lora, state):
        ends = {"A": torch.ones(2, 4, 3, 3), "B": torch.ones(64, 2, 1, 1)}
        files = {"x": write_lora({f"unet.conv_in.lora_{end}.weight": tensor for end, tensor in ends.items()}, name="x")}
        switcher, found = make_switcher(), []
        for alpha in (2, 4, None):
            config = files["x"].path.with_name("adapter_config.json")
            config.unlink(missing_ok=True)
            if alpha:
                config.write_text(json.dumps({"peft_type": "LORA", "lora_alpha": alpha}))
            switcher.switch(uses(files, "x"))
            found.append(state()["backbone.conv_in.weight"])
        switcher.switch(())
        base = state()["backbone.conv_in.weight"]
        torch.testing.assert_close(found[1] - base, 2 * (found[0] - base))
        assert torch.equal(found[2], found[0])

    def test_keys_without_a_place_are_told_each_time_with_an_example(
        self, make_switcher, write_lora, random_lora, parts
    ):
        tensors = random_lora(parts, 3, r"to_q")
        (up, *_) = tensors.values()
        files = {"odd": write_lora(tensors | {"lora_unet_nowhere.lora_up.weight": up}, name="odd")}
        switcher = make_switcher()
        for _ in range(2):
            _, (warning,) = switcher.switch(uses(files, "odd"))
            assert "LoRA odd: 1 key has no place in this model" in warning and "lora_unet_nowhere" in warning
        assert switcher.switch(())[1] == []

    @pytest.mark.parametrize("damage", ["gone", "cut short", "changed while it is read", "of other shapes"])
    def test_a_file_that_cannot_be_used_is_named_and_leaves_the_base(
        self, make_switcher, files, write_lora, damage, monkeypatch
    ):
        switcher, path = make_switcher(), files["words"].path
        switcher.switch(uses(files, "rows"))
        if damage == "gone":
            path.unlink()
        elif damage == "cut short":
            path.write_bytes(path.read_bytes()[:-100])
        elif damage == "changed while it is read":
            read = switcher_module.read_lora

            def read_and_change(file, *rest):
                weights = read(file, *rest)
                path.write_bytes(path.read_bytes() + b"more")
                return weights

            monkeypatch.setattr(switcher_module, "read_lora", read_and_change)
        else:
            key = "unet.conv_in.lora_{}.weight"
            write_lora({key.format("A"): torch.ones(2, 7), key.format("B"): torch.ones(9, 2)}, name="words")
        with pytest.raises(CannotApply, match="^LoRA 'words' "):
            switcher.switch(uses(files, "words", "rows"))
        monkeypatch.undo()
        assert switcher.switch(uses(files, "rows"))[0].how in ("cached", "unchanged")
        switcher.switch(())

    def test_stopped_between_two_tensors_it_leaves_the_base(self, make_switcher, files, state, monkeypatch):
        switcher, before, made = make_switcher(), state(), []
        merge = cache_module.merge
        monkeypatch.setattr(cache_module, "merge", lambda *args: (made.append(1), merge(*args))[1])

        def check() -> None:
            if len(made) == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            switcher.switch(uses(files, "whole"), check)
        assert len(made) == 5 and same(state(), before) and switcher.text_key == ()
