"""LoRAs through PipelineManager: what a request asks for is what is drawn, whatever was drawn before."""

import hashlib
import random
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Loading, Step, to_json
from webui.core.groups.init import Init
from webui.core.prompt import join_loras
from webui.core.request import LoraRef
from webui.core.settings import Settings
from webui.core.stages import LoraUse
from webui.darkroom import Darkroom
from webui.engine.cpu import conv
from webui.engine.lora import cache as cache_module
from webui.engine.lora import switcher as switcher_module
from webui.engine.lora.switcher import LoraSwitcher
from webui.library.library import DEMO_MODEL, Library, find_loras

PROMPT = "a red apple, flat style, on a blue background"
WHOLE, ATTENTION, WORDS = (LoraRef(name=name) for name in ("whole", "attention", "words"))
SETS = (
    (WHOLE,),
    (LoraRef(name="whole", weight=-0.6),),
    (LoraRef(name="whole", weight=0.8), LoraRef(name="attention", weight=0.5)),
    (ATTENTION,),
    (WORDS,),
    (WORDS, ATTENTION),
    (LoraRef(name="whole", weight=0.5, text_weight=0),),
    (LoraRef(name="words", weight=0.4), WHOLE, LoraRef(name="attention", weight=-1)),
)


@pytest.fixture(scope="module", autouse=True)
def folder(darkroom, random_lora, by_diffusers):
    """Three random LoRAs: for both parts in kohya's names, for the UNet in diffusers', for the text encoder."""
    list(darkroom.load("demo"))
    parts, folder = darkroom.manager._residence.model.components, darkroom.settings.data_dir / "models/Lora"
    folder.mkdir(parents=True)
    whole = random_lora(parts, 1, "attn|conv_in|conv_shortcut|mlp")
    save_file(whole, folder / "whole.safetensors")
    save_file(random_lora(parts, 2, "unet.*attn", by_diffusers), folder / "attention.safetensors")
    save_file(random_lora(parts, 3, "text_encoder.*proj"), folder / "words.safetensors")
    odd = {"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2), "lora_te9_x.alpha": torch.ones(1)}
    save_file(whole | odd, folder / "odd.safetensors")
    (folder / "peft").mkdir()
    save_file(random_lora(parts, 4, "unet.*to_k", by_diffusers), folder / "peft/adapter_model.safetensors")
    (folder / "peft/adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 2}')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for pictures as small as these several take longer
    yield folder
    torch.set_num_threads(threads)
    shutil.rmtree(folder)
    darkroom.manager._residence.loras.switch(())
    darkroom.manager._encoder._prompts.clear()


@pytest.fixture(autouse=True)
def _fresh(darkroom):
    """Each test begins without LoRAs, merged weights and known prompts."""
    list(darkroom.load("demo"))
    darkroom.manager._residence.loras.switch(())
    darkroom.manager._residence._resident.loras = LoraSwitcher(
        darkroom.manager._residence.model, darkroom.manager.device
    )
    darkroom.manager._encoder._prompts.clear()


@pytest.fixture
def quick(run):
    """``quick(loras=..., ...)``: the events of a job of two steps."""
    return lambda *loras, **fields: run(**({"loras": loras, "steps": 2, "sampler": "Euler"} | fields))


@pytest.fixture
def contexts(model, monkeypatch):
    """What the UNet was told of the prompts, job by job."""
    seen: list[torch.Tensor] = []
    prepare = model.network.prepare

    def keep(context, **more):
        seen.append(context.clone())
        return prepare(context, **more)

    monkeypatch.setattr(model.network, "prepare", keep)
    return seen


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    names: list[str] = []
    read = switcher_module.read_lora
    monkeypatch.setattr(
        switcher_module, "read_lora", lambda file, *rest: (names.append(file.name), read(file, *rest))[1]
    )
    return names


def pictures(events) -> list[bytes]:
    """Exact: every byte of each picture."""
    return [event.image.tobytes() for event in events if isinstance(event, Image)]


def sha256(model) -> str:
    digest = hashlib.sha256()
    for part in model.components.values():
        for name, tensor in (*part.named_parameters(), *part.named_buffers()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class TestExactness:
    def test_200_random_switches_leave_the_plain_picture_and_each_set_its_own(self, darkroom, model, quick):
        start, plain, alone, largest = sha256(model), pictures(quick()), {}, 0
        for loras in SETS:
            darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device)
            alone[loras] = pictures(quick(*loras))
            largest = max(largest, darkroom.manager._residence.loras.cache.nbytes)
            assert pictures(quick()) == plain
        assert len({picture for drawn in (*alone.values(), plain) for picture in drawn}) == len(SETS) + 1

        darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device, largest * 5 // 2)
        files, dice, hows = find_loras(darkroom.settings), random.Random(5), []
        for number in range(200):
            loras = dice.choice(SETS)
            uses = [LoraUse(files[ref.name], *ref.strengths) for ref in dice.sample(loras, len(loras))]
            hows.append(darkroom.manager._residence.loras.switch(uses)[0].how)
            if number % 20 == 19:
                loras = dice.choice(SETS)
                assert pictures(quick(*loras)) == alone[loras]
        assert {*hows} == {"unchanged", "cached", "merged"}
        assert pictures(quick()) == plain and sha256(model) == start

    def test_weights_that_are_kept_once_are_the_same_weights(self, darkroom, quick, request_for, monkeypatch):
        def convolutions_of(model):
            return [part for part in model.network.modules() if isinstance(part, conv.PackedConv2d) and part.packs]

        for part in convolutions_of(darkroom.manager._residence.model):
            part.keep()
        monkeypatch.setattr(conv, "LARGE_BYTES", 0)
        monkeypatch.setattr(conv, "ROOM_BYTES", 2**60)
        start, lean = sha256(darkroom.manager._residence.model), Darkroom(darkroom.settings)

        def draw(*loras, **fields):
            asked = request_for(**({"loras": loras, "steps": 2, "sampler": "Euler"} | fields))
            return pictures(list(lean.generate(asked)))

        assert draw() == pictures(quick())
        convolutions = convolutions_of(lean.manager._residence.model)  # none where there is no oneDNN
        kept = [conv.parameter_of(part, "weight").untyped_storage().nbytes() > 0 for part in convolutions]
        assert not any(kept)
        for loras, fields in ((SETS[3], {}), (SETS[0], {}), ((), {"width": 128}), (SETS[2], {}), ((), {})):
            assert draw(*loras, **fields) == pictures(quick(*loras, **fields))
        kept = [conv.parameter_of(part, "weight").untyped_storage().nbytes() > 0 for part in convolutions]
        assert not convolutions or (kept[0] and not all(kept))  # a LoRA was merged into conv_in
        for part in convolutions:
            part.keep()
        assert sha256(lean.manager._residence.model) == start

    def test_a_manager_that_drew_nothing_before_draws_the_same(self, darkroom, quick, request_for):
        for loras in (SETS[3], SETS[0], (), SETS[4]):
            quick(*loras)
        fresh = Darkroom(darkroom.settings)
        request = request_for(loras=SETS[7], steps=2, sampler="Euler")
        assert pictures(quick(*SETS[7])) == pictures(fresh.generate(request))

    @pytest.mark.parametrize("budget_bytes", [0, 1_000_000])
    def test_the_budget_changes_no_picture(self, darkroom, model, quick, budget_bytes):
        expected = [pictures(quick(*loras)) for loras in SETS[2:5]]
        quick()
        darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device, budget_bytes)
        assert [pictures(quick(*loras)) for loras in SETS[2:5]] == expected

    def test_the_settings_bound_the_merged_weights(self, tmp_path, device):
        for lora_cache in (0, 12_345):
            darkroom = Darkroom(Settings(device=device, data_dir=tmp_path, lora_cache=lora_cache))
            list(darkroom.load("demo"))
            assert darkroom.manager._residence.loras.cache._budget_bytes == lora_cache


class TestAsking:
    @pytest.mark.parametrize(
        ("tags", "loras"),
        [
            ("<lora:whole:0.8>", [{"name": "whole", "weight": 0.8}]),
            ("<lora:WHOLE>", ["whole:1"]),
            ("<lora:whole:0.3:0.9> <lora:attention:-1>", ["attention:-1", "whole:0.3:0.9"]),
            ("<lora:attention:0.5:lbw=OUTALL>", [{"name": "attention", "weight": 0.5, "block_weights": "OUTALL"}]),
            ("<lora:attention:0.5:OUTALL>", ["attention:0.5:lbw=1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1"]),
            ("<lora:attention:0.5:lbw=ALL>", ["attention:0.5"]),
        ],
    )
    def test_tags_in_the_prompt_are_the_field_bit_for_bit(self, quick, tags, loras):
        by_field = quick(*loras)
        assert pictures(quick(prompt=f"{PROMPT} {tags}")) == pictures(by_field) != pictures(quick())

    def test_both_ways_at_once_add_up(self, quick):
        both = quick("whole:0.5", prompt=f"{PROMPT} <lora:attention:1>")
        assert pictures(both) == pictures(quick("whole:0.5", "attention"))

    @pytest.mark.parametrize("loras", [("whole:0",), ("whole:0", "attention:0:0")])
    def test_weight_0_is_no_lora(self, quick, darkroom, reads, loras):
        plain = quick()
        events = quick(*loras)
        assert pictures(events) == pictures(plain) and events[-1].loras is None
        assert pictures(quick(prompt=f"{PROMPT} <lora:whole:0>")) == pictures(plain)
        assert (
            reads == []
            and darkroom.manager._residence.loras.cache.key == ()
            and darkroom.manager._residence.loras.cache.nbytes == 0
        )

    def test_the_recipe_names_them_and_makes_its_picture_again(self, darkroom, quick):
        events = quick(prompt=f"{PROMPT} <lora:whole:0.8> <lora:words:0.2:1>")
        (picture,) = [event for event in events if isinstance(event, Image)]
        quick()
        assert [str(ref) for ref in picture.recipe.request.loras] == ["whole:0.8", "words:0.2:1"]
        assert pictures(darkroom.generate(picture.recipe.request)) == pictures(events)
        tagged = join_loras(PROMPT, picture.recipe.request.loras)
        assert pictures(quick(prompt=tagged)) == pictures(events)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"loras": ("whol",)}, ["“whol”", "did you mean whole"]),
            ({"prompt": "x <lora:atention:1>"}, ["“atention”", "did you mean attention"]),
            ({"prompt": "x <lora:../models/Lora/whole:1>"}, ["There is no "]),
            ({"negative": "blurry <lora:whole:1>"}, ["negative", "put its tag into the prompt"]),
            ({"prompt": "x <lora:whole:much>"}, ["<lora:whole:much>"]),
            ({"prompt": "<lora:whole:0.1>" * 33}, ["33", "32"]),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_drawn(self, darkroom, request_for, unet_rows, fields, words):
        with pytest.raises(RequestError) as caught:
            darkroom.generate(request_for(**fields))  # not even iterated
        assert all(word in str(caught.value) for word in words) and unet_rows == []


class TestTextEncoder:
    def test_text_weight_0_leaves_what_the_unet_reads(self, quick, contexts):
        plain = pictures(quick())
        without = pictures(quick(LoraRef(name="whole", text_weight=0)))
        whole = pictures(quick(WHOLE))
        assert torch.equal(contexts[0], contexts[1]) and not torch.equal(contexts[0], contexts[2])
        assert len({*plain, *without, *whole}) == 3

    def test_a_text_weight_alone_acts_through_the_text_encoder_alone(self, quick, contexts, model):
        plain = pictures(quick())
        before = [parameter.data_ptr() for parameter in model.network.parameters()]
        assert pictures(quick(LoraRef(name="whole", weight=0, text_weight=1))) != plain
        assert [parameter.data_ptr() for parameter in model.network.parameters()] == before
        assert not torch.equal(contexts[0], contexts[1])

    def test_prompts_are_encoded_again_only_where_the_text_encoder_changes(self, quick, encoded_prompts):
        fields = {"prompt": f"never seen before {time.time_ns()}", "steps": 1, "guidance": 1.0}
        counts = []
        for loras in ([], [ATTENTION], [LoraRef(name="whole", text_weight=0)], [WORDS], [WORDS, ATTENTION], []):
            quick(*loras, **fields)
            counts.append(sum(encoded_prompts))
        assert counts == [1, 1, 1, 2, 2, 2]


class TestEvents:
    def test_done_says_what_was_applied_how_and_in_how_many_seconds(self, quick):
        jobs = [quick(*loras) for loras in ([WHOLE], [WHOLE], [ATTENTION], [WHOLE], [])]
        assert [job[-1].loras and job[-1].loras.how for job in jobs] == [
            "merged",
            "unchanged",
            "merged",
            "cached",
            None,
        ]
        merged, unchanged = jobs[0][-1], jobs[1][-1]
        assert merged.loras.applied == ("whole:1",)
        assert 0 <= unchanged.loras.seconds < merged.loras.seconds <= merged.parts_s["lora"] < merged.seconds
        body = to_json(merged)["loras"]
        assert body == {"applied": ["whole:1"], "how": "merged", "seconds": round(merged.loras.seconds, 6)}
        assert "loras" not in to_json(jobs[-1][-1])

    @pytest.mark.parametrize("budget_bytes", [None, 0])
    def test_merging_is_told_and_nothing_else_is(self, darkroom, model, quick, budget_bytes):
        darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device, budget_bytes)
        told = [
            [event.what for event in quick(*loras) if isinstance(event, Loading)]
            for loras in ([WHOLE, ATTENTION], [ATTENTION, WHOLE], [])
        ]
        assert told == [["Merging 2 LoRAs"], [], []]

    def test_a_configuration_beside_the_file_is_in_the_recipe(self, quick):
        for name, configured in (("adapter_model", ["adapter_model"]), ("whole", [])):
            (recipe,) = [event.recipe for event in quick(name) if isinstance(event, Image)]
            assert list(recipe.hashes["lora"]) == [name]
            assert list(recipe.hashes.get("lora configuration", {})) == configured

    def test_keys_that_match_nothing_are_a_warning_each_time(self, quick):
        for how in ("merged", "unchanged"):
            done = quick("odd")[-1]
            assert done.loras.how == how
            (warning,) = done.warnings
            assert (
                "LoRA odd" in warning
                and "2 keys have no place in this model" in warning
                and "for example lora_" in warning
            )
        assert quick("whole")[-1].warnings == ()
        assert pictures(quick("odd")) == pictures(quick("whole"))


class TestOtherWork:
    def test_picture_k_of_a_batch_is_the_picture_of_its_seed_alone(self, quick):
        batch = pictures(quick(WHOLE, seed=40, count=2))
        alone = [pictures(quick(WHOLE, seed=seed))[0] for seed in (40, 41)]
        for one, other in zip(batch, alone, strict=True):
            difference = np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8)
            assert abs(difference).max() <= 1
        assert batch[0] != batch[1]

    def test_a_start_picture_and_a_lora_together(self, quick):
        init = Init(image=PilImages.effect_noise((64, 64), 80).convert("RGB"), strength=0.9)
        plain, changed = quick(init=init, steps=4), quick(WHOLE, init=init, steps=4)
        assert len({*pictures(plain), *pictures(changed), *pictures(quick(WHOLE))}) == 3
        assert pictures(quick(init=init, steps=4)) == pictures(plain)
        assert pictures(quick(WHOLE, init=init, steps=4)) == pictures(changed)

    def test_another_model_has_none_of_the_merged_weights(self, darkroom, quick, clone_demo, tmp_path, monkeypatch):
        clone_demo(tmp_path / "models/Stable-diffusion/twin")
        both = darkroom.settings.model_copy(update={"models_dir": (tmp_path,)})
        monkeypatch.setattr(darkroom, "library", Library(both))
        model, plain = darkroom.manager._residence.model, pictures(quick())
        expected = pictures(quick(WHOLE))
        twin = quick(WHOLE, model="twin")
        assert twin[-1].loras.how == "merged" and pictures(twin) == expected
        assert (
            darkroom.manager._residence.model is not model
            and darkroom.manager._residence.model.network is model.network
        )
        again = quick(WHOLE, model="demo")
        assert again[-1].loras.how == "cached" and pictures(again) == expected
        assert pictures(quick(model="twin")) == pictures(quick()) == plain

    def test_on_the_cpu_there_is_nothing_idle_to_prepare_with(self, darkroom, request_for, reads, quick):
        before = pictures(quick(ATTENTION))
        darkroom.manager.prepare(darkroom.plan(request_for(loras=("whole",))))
        assert reads == ["attention"] and quick(WHOLE)[-1].loras.how == "merged"
        assert pictures(quick(ATTENTION)) == before


class TestFailures:
    @pytest.mark.parametrize("before", [[], [ATTENTION]], ids=["from none", "from another"])
    def test_cancelled_while_merging_it_leaves_the_base(self, darkroom, model, quick, request_for, monkeypatch, before):
        plain, expected = pictures(quick()), pictures(quick(WHOLE))
        darkroom.manager._residence.loras.switch(())
        start = sha256(model)
        darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device)
        quick(*before)
        cancel, made, merge = threading.Event(), [], cache_module.merge

        def cancelling(*args):
            made.append(merge(*args))
            if len(made) == 3:
                cancel.set()
            return made[-1]

        with monkeypatch.context() as patch:
            patch.setattr(cache_module, "merge", cancelling)
            events = list(darkroom.generate(request_for(loras=(WHOLE,), steps=2), cancel.is_set))
        assert [type(event) for event in events] == [Loading, Cancelled] and events[-1] == Cancelled(0, 2)
        assert len(made) == 3 and sha256(model) == start
        assert pictures(quick()) == plain and pictures(quick(WHOLE)) == expected

    def test_whoever_stops_listening_before_the_merge_leaves_the_base(self, darkroom, quick, request_for):
        plain = pictures(quick())
        job = darkroom.generate(request_for(loras=(WHOLE,)))
        assert isinstance(next(job), Loading)
        job.close()
        assert darkroom.manager._residence.loras.cache.key == () and pictures(quick()) == plain

    @pytest.mark.parametrize("damage", ["web page", "cut short", "not-a-number", "another shape", "nothing fits"])
    def test_a_broken_lora_is_named_and_the_next_job_is_the_plain_one(self, darkroom, quick, folder, damage, unet_rows):
        plain, path = pictures(quick()), folder / "broken.safetensors"
        layer = "lora_unet_down_blocks_1_attentions_0_proj_in"
        good = {f"{layer}.lora_up.weight": torch.ones(160, 2), f"{layer}.lora_down.weight": torch.ones(2, 160)}
        changed = {
            "not-a-number": good | {f"{layer}.lora_up.weight": torch.full((160, 2), torch.nan)},
            "another shape": good | {f"{layer}.lora_up.weight": torch.ones(100, 2)},
            "nothing fits": {key.replace(layer, "lora_unet_nothing"): tensor for key, tensor in good.items()},
        }
        save_file(changed.get(damage, good), path)
        if damage == "web page":
            path.write_text("<html>404 not found</html>")
        elif damage == "cut short":
            path.write_bytes(path.read_bytes()[:-10])
        unet_rows.clear()
        with pytest.raises(RequestError, match="LoRA 'broken'"):
            quick("whole", "broken")
        assert unet_rows == [] and pictures(quick()) == plain
        path.unlink()

    def test_one_that_vanishes_while_it_waits_is_named(self, darkroom, quick, request_for, folder):
        shutil.copy(folder / "words.safetensors", folder / "brief.safetensors")
        plain, job = pictures(quick()), darkroom.generate(request_for(loras=("brief",)))
        (folder / "brief.safetensors").unlink()
        with pytest.raises(RequestError, match="'brief' cannot be read: No such file"):
            list(job)
        assert pictures(quick()) == plain

    def test_other_content_under_the_same_name_is_used_and_the_old_gives_the_old_picture(
        self, quick, folder, random_lora, model
    ):
        path = folder / "changing.safetensors"
        shutil.copy(folder / "words.safetensors", path)
        old, content = pictures(quick("changing")), path.read_bytes()
        save_file(random_lora(model.components, 77, "text_encoder.*proj"), path)
        other = quick("changing")
        assert pictures(other) != old and other[-1].loras.how == "merged"
        path.write_bytes(content)
        again = quick("changing")
        assert pictures(again) == old and again[-1].loras.how == "cached"
        path.unlink()


SHIPPED = sorted(path.stem for path in (DEMO_MODEL / "loras").glob("*.safetensors"))
BROWN = np.array([0.565, 0.495, 0.39])  # the middle of the sepia scale
LUMA = np.array([0.299, 0.587, 0.114])


def blue_minus_red(picture: np.ndarray) -> float:
    return float((picture[..., 2] - picture[..., 0]).mean())


def near_brown(picture: np.ndarray) -> float:
    """Minus the mean distance to the sepia scale's colour, brightness aside."""
    target = (BROWN - BROWN @ LUMA)[[0, 2]]
    colour = (picture - (picture @ LUMA)[..., None])[..., [0, 2]] - target
    return -float(np.sqrt((colour**2).sum(-1)).mean())


def darkness(picture: np.ndarray) -> float:
    return -float((picture @ LUMA).mean())


MEASURES = {"blueprint": blue_minus_red, "sepia": near_brown, "night": darkness}


class TestShipped:
    def test_every_one_has_its_measure(self):
        assert {*SHIPPED} == MEASURES.keys() | {"few-steps"}

    @pytest.mark.parametrize("name", MEASURES)
    def test_each_moves_pictures_its_own_way_by_its_weight_and_leaves_nothing(self, run, name):
        def draw(*loras) -> list[np.ndarray]:
            events = run(prompt=f"a red apple, {name}", steps=8, count=2, width=128, height=128, loras=loras)
            assert isinstance(events[-1], Done) and events[-1].warnings == ()
            assert any(isinstance(event, Step) for event in events)
            return [np.asarray(event.image) / 255 for event in events if isinstance(event, Image)]

        def measure(drawn) -> float:
            return float(np.mean([MEASURES[name](picture) for picture in drawn]))

        plain, half, full = draw(), draw(f"{name}:0.5"), draw(name)
        assert measure(plain) < measure(half) < measure(full)
        assert measure(full) > measure(plain) + 0.05
        assert all(np.array_equal(one, other) for one, other in zip(draw(), plain, strict=True))

    def test_few_steps_draw_the_detail_of_many_guided_ones_with_their_lora(self, run):
        def detail(steps: int, guidance: float, sampler: str, *loras) -> float:
            fields = {"width": 128, "height": 128, "count": 4, "prompt": "a tiger, cartoon style, on white"}
            events = run(**fields, steps=steps, guidance=guidance, sampler=sampler, loras=loras)
            pictures = np.stack([np.asarray(event.image) / 255 for event in events if isinstance(event, Image)])
            return sum(float(np.abs(np.diff(pictures, axis=axis)).mean()) for axis in (1, 2))

        many = detail(20, 5.0, "DDIM")
        without, with_it = (detail(4, 1.0, "LCM", *loras) for loras in ((), ("few-steps",)))
        assert without < many and abs(many - with_it) < 0.7 * (many - without)
