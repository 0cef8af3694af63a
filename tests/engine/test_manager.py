"""PipelineManager: one resident model, and requests turned into streams of events."""

import math
import os
import pickle
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Loading, Step
from webui.core.groups.init import Init
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.core.weight_files import content_hash
from webui.darkroom import Darkroom
from webui.engine.cpu.conv import PackedConv2d
from webui.engine.decode import NotFinite
from webui.engine.families.base import CannotLoad
from webui.library.library import DEMO_MODEL, Library

TWO_EVALUATIONS_A_STEP = ("Heun", "DPM2", "DPM2 a")


def images(events) -> list[Image]:
    return [event for event in events if isinstance(event, Image)]


def steps(events) -> list[Step]:
    return [event for event in events if isinstance(event, Step)]


def hashes(events) -> list[str]:
    return [event.pixels_sha256 for event in images(events)]


@pytest.fixture
def run_until(darkroom, request_for):
    """``run_until(stop, **fields)``: the events of a job that is cancelled at the first event for which ``stop``."""

    def run_until(stop, **fields):
        cancel, events = threading.Event(), []
        for event in darkroom.generate(request_for(**fields), cancel.is_set):
            events.append(event)
            if stop(event):
                cancel.set()
        return events

    return run_until


class TestBatches:
    """Picture k of a batch is the picture of seed + k: of each sampler in ``test_exactness``."""

    def test_repeat_goes_on_with_the_seeds(self, run):
        events = run(seed=40, count=2, repeat=2)
        assert [event.seed for event in images(events)] == [40, 41, 42, 43]
        assert [event.index for event in images(events)] == [0, 1, 2, 3]
        assert hashes(events) == hashes(run(seed=40, count=2)) + hashes(run(seed=42, count=2))
        assert len(set(hashes(events))) == 4

    def test_what_is_finished_is_left_out_and_the_rest_is_as_it_would_have_been(self, darkroom, request_for):
        order = darkroom.plan(request_for(seed=40, count=2, repeat=3, sampler="Euler a"))
        whole, rest = (list(darkroom.manager.draw(replace(order, finished=finished))) for finished in (0, 2))
        assert [(event.index, event.recipe) for event in images(rest)] == [
            (event.index, event.recipe) for event in images(whole)[2:]
        ]
        assert hashes(rest) == hashes(whole)[2:]
        assert steps(rest)[0].index == order.request.steps + 1 and steps(rest)[-1] == replace(
            steps(whole)[-1], seconds=steps(rest)[-1].seconds, preview=steps(rest)[-1].preview
        )

    def test_steps_count_over_all_batches(self, run):
        counted = steps(run(count=2, repeat=3, steps=4))
        assert [step.index for step in counted] == list(range(1, 13))
        assert {step.total for step in counted} == {12}


class TestLibrary:
    def test_folders_are_not_walked_for_each_job(self, darkroom, request_for, monkeypatch):
        monkeypatch.setattr("webui.library.scan.WALK_S", math.inf)  # a minute may be over at any time
        list(darkroom.generate(request_for(steps=1, prompt="a cat <lora:sepia:1>")))
        walked = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: walked.append(str(path)) or scandir(path))
        for seed in range(3):
            list(darkroom.generate(request_for(steps=1, seed=seed, prompt="a cat <lora:sepia:1>")))
        assert not [path for path in walked if path.endswith("loras")]

    def test_a_name_that_several_files_could_have_is_told(self, settings, request_for):
        lora = (DEMO_MODEL / "loras/sepia.safetensors").read_bytes()
        for place in ("a", "b"):
            (settings.data_dir / "models/Lora" / place).mkdir(parents=True)
            (settings.data_dir / "models/Lora" / place / "same.safetensors").write_bytes(lora)
        darkroom = Darkroom(settings)
        told = "2 files are called “same”: Lora/a/same was used, not b/same."
        for name, warnings in (("same", (told,)), ("b\\same.safetensors", ())):
            *_, done = darkroom.generate(request_for(prompt=f"a cat <lora:{name}:1>", steps=1))
            assert done.warnings == warnings


class TestRepeatability:
    def test_the_same_seed_twice_is_the_same_picture_bit_for_bit(self, run):
        assert hashes(run(sampler="DPM++ SDE")) == hashes(run(sampler="DPM++ SDE"))

    def test_another_seed_prompt_or_guidance_is_another_picture(self, run):
        pictures = [run(), run(seed=12), run(prompt="a green leaf"), run(guidance=9), run(negative="red")]
        assert len({hashes(events)[0] for events in pictures}) == len(pictures)

    def test_a_picture_does_not_depend_on_what_was_drawn_before(self, run, tmp_path, request_for):
        run(sampler="Euler a", count=3, prompt="something else", guidance=1, width=128)
        warm = run()
        fresh = list(Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path)).generate(request_for()))
        assert hashes(warm) == hashes(fresh)

    def test_seed_minus_1_draws_a_seed_and_tells_it(self, run):
        one, other = images(run(seed=-1, steps=2))[0], images(run(seed=-1, steps=2))[0]
        assert one.seed >= 0 and one.seed != other.seed
        assert hashes(run(seed=one.seed, steps=2)) == [one.pixels_sha256]

    def test_the_recipe_makes_its_picture_again(self, darkroom, run):
        for picture in images(run(seed=-1, count=2, sampler="dpm++ 2m karras", negative="blurry")):
            assert picture.recipe.request.count == picture.recipe.request.repeat == 1
            assert (picture.recipe.request.sampler, picture.recipe.request.schedule) == ("DPM++ 2M", "Karras")
            (again,) = images(darkroom.generate(picture.recipe.request))
            difference = np.asarray(again.image).astype(int) - np.asarray(picture.image)
            assert abs(difference).max() <= 1


class TestWork:
    """Nothing is computed that need not be."""

    def test_guidance_of_1_runs_no_unconditional_branch(self, run, unet_rows):
        run(guidance=1.0, count=3, steps=4, negative="blurry")
        assert unet_rows == [(3, 3)] * 4

    @pytest.mark.parametrize("guidance", [0.0, 0.99, 1.01])
    def test_any_other_guidance_runs_both_branches_in_one_call_with_the_latents_once(self, run, unet_rows, guidance):
        run(guidance=guidance, count=3, steps=4, sampler="Euler")
        assert unet_rows == [(3, 6)] * 4

    def test_at_guidance_1_the_negative_prompt_changes_nothing(self, run):
        assert hashes(run(guidance=1, negative="red")) == hashes(run(guidance=1, negative=""))

    def test_a_prompt_is_encoded_once(self, run, encoded_prompts):
        fields = {"prompt": f"never seen before {time.time_ns()}", "negative": f"nor this {time.time_ns()}", "steps": 1}
        run(**fields)
        assert sum(encoded_prompts) == 2
        run(**fields, seed=5, width=128, sampler="Euler")
        run(**fields, guidance=1.0)
        assert sum(encoded_prompts) == 2, "the text encoder was asked again"
        run(**(fields | {"clip_skip": 2}))
        assert sum(encoded_prompts) == 4, "another text layer was not read"

    def test_the_model_is_loaded_once_and_stays(self, darkroom, run):
        model, unet = darkroom.manager._residence.model, darkroom.manager._residence.model.network
        events = run(prompt="one") + run(prompt="two", width=128)
        assert not any(isinstance(event, Loading) for event in events)
        assert darkroom.manager._residence.model is model and darkroom.manager._residence.model.network is unet
        assert darkroom.manager.model_name == "demo"

    def test_weights_are_put_in_order_once_a_size_and_a_warm_up_changes_no_picture(self, settings, request_for, run):
        darkroom = Darkroom(settings)
        list(darkroom.load("demo"))
        unet = darkroom.manager._residence.model.network
        convolutions = [part for part in unet.modules() if isinstance(part, PackedConv2d) and part.packs]

        def draw(**fields):
            before = [part._packed for part in convolutions]
            events = list(darkroom.generate(request_for(**fields)))
            return hashes(events), [part._packed is one for part, one in zip(convolutions, before, strict=True)]

        darkroom.manager.warm_up(darkroom.plan(request_for(steps=1, reuse=2)))
        first, kept = draw(width=128, height=72)
        assert first == hashes(run(width=128, height=72)) and not any(kept)
        assert draw(width=128, height=72) == (first, [True] * len(convolutions))
        draw(width=64, height=64)
        assert draw(width=128, height=72) == (first, [False] * len(convolutions))

    def test_another_model_is_loaded_when_it_is_asked_for_and_both_stay(
        self, settings, clone_demo, darkroom, run, monkeypatch
    ):
        clone_demo(settings.data_dir / "models/Stable-diffusion/twin", own=("unet",))
        monkeypatch.setattr(darkroom, "library", Library(settings))
        loads = []
        for name in ("demo", "twin", "TWIN", "demo"):
            loads.append(any(isinstance(event, Loading) for event in run(model=name, steps=1)))
            assert darkroom.manager.model_name == name.lower()
        assert loads == [False, True, False, False]

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_a_step_is_one_evaluation_or_two_and_steps_count_as_asked(self, run, unet_rows, sampler):
        counted = steps(run(sampler=sampler, steps=5, guidance=1))
        assert counted[-1].index == counted[-1].total == 5
        assert [step.index for step in counted] == sorted(step.index for step in counted)
        assert len(unet_rows) == len(counted)
        expected = {name: 9 for name in TWO_EVALUATIONS_A_STEP} | {"PNDM": 6}
        assert len(unet_rows) == expected.get(sampler, 5)


class TestEvents:
    def test_a_job_is_steps_then_pictures_then_done(self, run):
        events = run(count=2, steps=3)
        assert [type(event).__name__ for event in events] == ["Step"] * 3 + ["Image"] * 2 + ["Done"]

    def test_a_first_job_says_that_it_loads_what(self, settings, request_for):
        first = next(Darkroom(settings).generate(request_for(steps=1)))
        assert first == Loading("Loading demo", 0.0)

    def test_a_picture_has_its_size_and_recipe(self, run, darkroom):
        (picture,) = images(run(width=128, height=72, steps=1))
        assert picture.image.size == (128, 72) and picture.image.mode == "RGB"
        request = picture.recipe.request
        assert (request.width, request.height, request.seed, request.model) == (128, 72, 11, "demo")
        assert picture.recipe.model_hash == content_hash(darkroom.manager._residence.model.file)
        assert picture.path is None and picture.warning == ""

    def test_done_says_where_the_seconds_went(self, settings, request_for):
        darkroom, started = Darkroom(settings), time.perf_counter()
        done = list(darkroom.generate(request_for(steps=8, count=2)))[-1]
        measured_s = time.perf_counter() - started
        assert {"load", "encode", "steps", "previews", "decode"} <= set(done.parts_s)
        assert all(seconds >= 0 for seconds in done.parts_s.values())
        assert 0 < sum(done.parts_s.values()) <= 1.001 * done.seconds <= 1.01 * measured_s
        assert all(done.parts_s[part] > 0 for part in ("load", "encode", "steps", "decode"))
        again = list(darkroom.generate(request_for(steps=8, count=2)))[-1]
        assert again.parts_s["load"] < done.parts_s["load"]
        assert again.warnings == ()

    def test_a_prompt_of_any_length_is_drawn_without_a_warning(self, run):
        long = ", ".join(["a red apple"] * 60)
        for fields in ({"prompt": long}, {"prompt": long, "negative": long}, {"prompt": "x", "negative": long}):
            events = run(steps=1, **fields)
            assert events[-1].warnings == () and len(images(events)) == 1

    def test_forms_of_either_prompt_that_are_not_done_are_a_warning_once(self, run):
        forms = {"prompt": "an apple ${hue}", "negative": "${hue}, a blur AND a hand"}
        assert run(**forms, steps=1, repeat=2)[-1].warnings == (
            "${hue} (a variable) is not supported here and is read as plain words.",
            "AND (several prompts in one) is not supported here and is read as plain words.",
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "field", "words"),
        [
            ({"sampler": "Eulr"}, "sampler", "“Eulr”"),
            ({"schedule": "Quadratic"}, "schedule", "“Quadratic”"),
            ({"sampler": "PNDM", "schedule": "Karras"}, "schedule", "“Karras” does not go with PNDM"),
            ({"model": "nope"}, "model", "“nope”"),
            ({"model": "../demo"}, "model", "“../demo”"),
            ({"loras": ({"name": "x"},)}, "loras", "LoRA"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused_at_once(self, darkroom, request_for, fields, field, words):
        with pytest.raises(RequestError) as caught:
            darkroom.generate(request_for(**fields))  # not even iterated
        assert caught.value.field == field and words in str(caught.value)

    def test_too_much_clip_skip_is_refused_before_any_event(self, darkroom, request_for):
        events = []
        with pytest.raises(RequestError, match="clip_skip 12"):
            for event in darkroom.generate(request_for(clip_skip=12)):
                events.append(event)
        assert events == []

    @pytest.mark.parametrize("sampler", ["LCM", "TCD"])
    def test_more_steps_than_a_sampler_has_are_refused_by_name_before_any_step(self, darkroom, request_for, sampler):
        events = []
        with pytest.raises(RequestError, match=f"steps 51 does not work with sampler '{sampler}'"):
            for event in darkroom.generate(request_for(sampler=sampler, steps=51)):
                events.append(event)
        assert events == []

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_numbers_that_are_none_end_in_an_error_and_no_picture(self, darkroom, request_for, broken_output, number):
        broken_output(number)
        events = []
        with pytest.raises(NotFinite, match="not-a-number"):
            for event in darkroom.generate(request_for(count=2)):
                events.append(event)
        assert not images(events) and not isinstance(events[-1], Done)

    def test_the_job_after_a_failed_one_is_unharmed(self, run, darkroom, request_for, broken_output, monkeypatch):
        expected = hashes(run())
        broken_output(math.nan)
        with pytest.raises(NotFinite):
            list(darkroom.generate(request_for()))
        monkeypatch.undo()
        assert hashes(run()) == expected


class TestOrders:
    """What a worker gets is all that it needs, wherever and whenever it gets it."""

    @pytest.fixture
    def twin(self, tmp_path, clone_demo):
        """A darkroom with a second model, ``twin``, and the file of its UNet."""
        folder = clone_demo(tmp_path / "models/Stable-diffusion/twin", own=("unet",))
        darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))
        return darkroom, folder / "unet/diffusion_pytorch_model.safetensors"

    @pytest.mark.parametrize(
        "fields",
        [
            {"loras": ("night:0.8",), "count": 2, "sampler": "Euler a", "repeat": 2},
            {"refiner": "demo", "refiner_at": 0.5, "negative": "blurry"},
            {"init": Init(image=PilImages.effect_noise((64, 64), 90), strength=0.7), "guidance_until": 0.5},
        ],
    )
    def test_an_order_that_travelled_draws_the_same_bits(self, darkroom, request_for, fields):
        order = darkroom.plan(request_for(**fields))
        expected = list(darkroom.manager.draw(order))
        again = list(darkroom.manager.draw(pickle.loads(pickle.dumps(order))))
        assert hashes(again) == hashes(expected) and len(set(hashes(expected))) == order.request.image_count
        assert [event.recipe for event in images(again)] == [event.recipe for event in images(expected)]

    @pytest.mark.parametrize("role", ["model", "refiner"])
    def test_a_model_that_was_changed_meanwhile_is_refused_by_name_before_it_is_loaded(self, twin, request_for, role):
        darkroom, file = twin
        order = darkroom.plan(request_for(**{"steps": 2, "refiner_at": 0.5, role: "twin"}))
        file.write_bytes(file.read_bytes() + b"more")
        events = []
        with pytest.raises(CannotLoad, match="model 'twin': twin was changed after this was asked for; ask again"):
            events += darkroom.manager.draw(order)
        assert events == [] and darkroom.manager.model_name is None

    def test_so_it_is_where_the_old_one_is_still_loaded(self, twin, request_for):
        darkroom, file = twin
        order = darkroom.plan(request_for(model="twin", steps=1))
        assert images(darkroom.manager.draw(order))
        file.touch()
        with pytest.raises(CannotLoad, match="'twin'"):
            list(darkroom.manager.draw(order))
        assert images(darkroom.generate(request_for(model="twin", steps=1)))

    @pytest.mark.parametrize("what", ["a part", "all of it"])
    def test_a_model_that_is_gone_is_named(self, twin, request_for, what):
        darkroom, file = twin
        order = darkroom.plan(request_for(model="twin", steps=1))
        if what == "a part":
            file.unlink()
        else:
            shutil.rmtree(file.parents[1])
        with pytest.raises(CannotLoad, match="model 'twin': twin (was changed|cannot be read: No such file)"):
            list(darkroom.manager.draw(order))

    def test_a_lender_that_was_changed_meanwhile_is_named(self, tmp_path, clone_demo, request_for):
        folder = clone_demo(tmp_path / "models/Stable-diffusion/whole", own=("vae",))
        shutil.copy(DEMO_MODEL / "unet/diffusion_pytorch_model.safetensors", folder.parent / "bare.safetensors")
        darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))
        order = darkroom.plan(request_for(model="bare", steps=1))
        others = [file for file in order.stages[0].lenders if file.name == "whole"]
        order = replace(order, stages=(replace(order.stages[0], lenders=tuple(others)),))
        (folder / "vae/diffusion_pytorch_model.safetensors").touch()
        with pytest.raises(CannotLoad, match="model 'whole': whole was changed"):
            list(darkroom.manager.draw(order))


class TestCancel:
    @pytest.mark.parametrize("sampler", ["DPM++ 2M", "Heun", "Euler a", "PNDM"])
    def test_it_acts_before_the_next_evaluation_and_skips_the_decode(
        self, run_until, unet_rows, decoded_pictures, sampler
    ):
        events = run_until(lambda event: isinstance(event, Step) and event.index == 2, sampler=sampler, steps=8)
        assert events[-1] == Cancelled(2, 8)
        assert 0 < sum(events[-1].parts_s.values()) <= 1.001 * events[-1].seconds
        assert len(unet_rows) == len(steps(events)) and steps(events)[-1].index == 2
        assert decoded_pictures == [] and not images(events)

    def test_the_next_job_is_the_same_as_ever(self, run, run_until):
        expected = hashes(run(sampler="DPM++ 2M SDE", count=2))
        run_until(lambda event: isinstance(event, Step) and event.index == 3, sampler="DPM++ 2M SDE", count=2)
        assert hashes(run(sampler="DPM++ 2M SDE", count=2)) == expected

    def test_before_the_first_step_nothing_is_computed(self, darkroom, request_for, unet_rows, encoded_prompts):
        assert list(darkroom.generate(request_for(prompt="unheard of"), lambda: True)) == [Cancelled(0, 6)]
        assert unet_rows == [] and encoded_prompts == []

    def test_between_two_pictures_the_second_is_not_decoded(self, run_until, decoded_pictures):
        events = run_until(lambda event: isinstance(event, Image), count=3)
        assert len(images(events)) == len(decoded_pictures) == 1
        assert events[-1] == Cancelled(6, 6)

    def test_between_two_batches_the_second_is_not_begun(self, run_until, unet_rows):
        events = run_until(lambda event: isinstance(event, Image), repeat=2, sampler="Euler")
        assert events[-1] == Cancelled(6, 12) and len(unet_rows) == 6

    def test_while_loading_it_leaves_no_half_loaded_model(self, settings, request_for, run):
        darkroom, cancel, events = Darkroom(settings), threading.Event(), []
        for event in darkroom.generate(request_for(), cancel.is_set):
            events.append(event)
            cancel.set()
        assert [type(event) for event in events] == [Loading, Cancelled]
        assert darkroom.manager.model_name is None
        assert hashes(darkroom.generate(request_for())) == hashes(run())

    def test_while_loading_another_model_the_one_before_stays(self, settings, clone_demo, darkroom, run, monkeypatch):
        clone_demo(settings.data_dir / "models/Stable-diffusion/twin", own=("unet",))
        run(steps=1)
        monkeypatch.setattr(darkroom, "library", Library(settings))
        answers = iter([False, True])  # the second part of the model is not loaded any more
        loading = darkroom.load("twin", lambda: next(answers, True))
        with pytest.raises(Exception) as caught:
            list(loading)
        assert type(caught.value).__name__ == "Stopped"
        assert darkroom.manager.model_name == "demo"

    def test_whoever_stops_listening_stops_the_work(self, darkroom, request_for, run, unet_rows):
        expected = hashes(run())
        unet_rows.clear()
        job = darkroom.generate(request_for())
        for event in job:
            if isinstance(event, Step):
                break
        job.close()
        assert len(unet_rows) == 1
        assert hashes(run()) == expected
