"""One device thread: a queue before it, a registry of jobs, a saving thread behind it."""

import asyncio
import errno
import os
import threading
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages

from webui.api.loras import loras_router
from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Cancelled, Done, Failed, Image, Loading, Queued, Step
from webui.core.groups.init import Init
from webui.core.ledger import PARTS, Totals
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.core.visitor import OWNER
from webui.core.work import Batch
from webui.jobs import executor as executors
from webui.jobs import queue, registry, saving, skipping
from webui.jobs.executor import LocalExecutor
from webui.jobs.protocols import QueueFull
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.timeout(60)
WAIT_S = 20


def request(**fields) -> Request:
    return Request(**({"prompt": "a cat", "seed": 5, "steps": 3, "width": 64, "height": 64} | fields))


def events_of(job, after: int = 0) -> list:
    """All that is left of a job, to its end."""
    return [event for _, event in job.follow(after)]


def wait_for(job, kind, **values):
    """The first event of that kind and with these values."""
    for _, event in job.follow():
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in values.items()):
            return event
    raise AssertionError(f"{job.state} without {kind.__name__} {values}")


class TestOneAfterTheOther:
    def test_a_job_is_drawn_saved_and_done(self, executor, settings):
        job = executor.submit(request(count=2))
        events = events_of(job)
        pictures = [event for event in events if isinstance(event, Image)]
        assert [picture.seed for picture in pictures] == [5, 6]
        for picture in pictures:
            assert picture.path.is_file() and picture.path.parent == settings.output_dir("txt2img")
            with PilImages.open(picture.path) as saved:
                assert saved.getpixel((0, 0)) == picture.image.getpixel((0, 0))
                assert saved.info["parameters"] == picture.recipe.infotext()
        assert isinstance(events[-1], Done) and job.state == "done"
        assert job.images == tuple(pictures)

    def test_jobs_never_overlap_and_run_on_one_thread_in_the_order_they_came(self, executor, engine):
        engine.hold()
        first = executor.submit(request(seed=0))
        assert engine.begun.get(timeout=WAIT_S).seed == 0
        jobs = [first, *(executor.submit(request(seed=seed)) for seed in range(1, 8))]
        engine.go_on()
        for job in jobs:
            events_of(job)
        assert engine.most_at_once == 1 and engine.threads == {"device"}
        assert [engine.begun.get_nowait().seed for _ in range(7)] == list(range(1, 8))

    def test_what_is_drawn_is_what_was_planned_when_it_was_sent(self, executor, engine, monkeypatch):
        engine.hold()
        jobs = [executor.submit(request(seed=seed)) for seed in (1, 2)]
        monkeypatch.setattr(executors, "plan_job", lambda *_: pytest.fail("a name was looked up again"))
        engine.go_on()
        for job in jobs:
            assert isinstance(events_of(job)[-1], Done)
            assert engine.begun.get_nowait() is job.request is job.orders[0].request

    def test_jobs_from_many_threads_all_run_once(self, executor, engine):
        jobs, threads = [], []
        for seed in range(20):
            threads.append(threading.Thread(target=lambda seed=seed: jobs.append(executor.submit(request(seed=seed)))))
            threads[-1].start()
        for thread in threads:
            thread.join(WAIT_S)
        for job in jobs:
            assert isinstance(events_of(job)[-1], Done)
        assert sorted(engine.begun.get_nowait().seed for _ in range(20)) == list(range(20))
        assert engine.begun.empty() and engine.most_at_once == 1
        assert len({job.id for job in jobs}) == 20

    def test_the_next_job_draws_while_a_picture_is_still_being_saved(self, executor, engine, monkeypatch):
        may_save, save = threading.Event(), saving.save_picture

        def slow_save(*what):
            may_save.wait(WAIT_S)
            return save(*what)

        monkeypatch.setattr(saving, "save_picture", slow_save)
        first, second = executor.submit(request(seed=1)), executor.submit(request(seed=2))
        assert [engine.ended.get(timeout=WAIT_S).seed for _ in range(2)] == [1, 2]
        assert not first.ended and not second.ended
        may_save.set()
        assert isinstance(events_of(first)[-1], Done) and isinstance(events_of(second)[-1], Done)
        assert all(picture.path.is_file() for picture in first.images + second.images)

    def test_jobs_go_on_with_nobody_following(self, executor, engine):
        job = executor.submit(request(count=2))
        assert engine.ended.get(timeout=WAIT_S).seed == 5
        assert [type(event) for event in events_of(job)[-3:]] == [Image, Image, Done]


class TestBatch:
    """Several requests of one click are one job."""

    def test_its_requests_are_drawn_in_turn_and_its_pictures_are_numbered_through(self, executor, engine):
        job = executor.submit(Batch(tuple(request(seed=seed, count=seed) for seed in (1, 2, 3))))
        events = events_of(job)
        pictures = [event for event in events if isinstance(event, Image)]
        assert [(picture.index, picture.seed) for picture in pictures] == list(enumerate([1, 2, 3, 3, 4, 5]))
        assert all(picture.path.is_file() for picture in pictures) and isinstance(events[-1], Done)
        assert [engine.begun.get_nowait().seed for _ in range(3)] == [1, 2, 3]
        assert len(executor.jobs(job.visitor)) == 1 and executor.totals().jobs["done"] == 1
        assert sum(events[-1].parts_s.values()) == pytest.approx(events[-1].seconds)
        assert [asked.seed for asked in job.requests] == [1, 2, 3] and job.request == job.requests[0]

    def test_one_that_cannot_be_drawn_keeps_all_from_being_queued(self, executor, engine):
        engine.hold()
        with pytest.raises(RequestError, match="nope"):
            executor.submit(Batch((request(), request(model="nope"))))
        assert executor.status()["waiting"] == 0 and engine.begun.empty() and not executor.jobs(OWNER)

    def test_a_stop_ends_all_of_it_and_keeps_what_is_finished(self, executor, engine):
        engine.hold()
        job = executor.submit(Batch((request(seed=1), request(seed=2), request(seed=3))))
        engine.let(4)
        wait_for(job, Image, index=0)
        job.cancel()
        assert isinstance(events_of(job)[-1], Cancelled) and [picture.seed for picture in job.images] == [1]
        assert engine.begun.qsize() == 2

    def test_a_failure_ends_all_of_it_and_keeps_what_is_finished(self, executor, engine):
        engine.hold()
        job = executor.submit(Batch((request(seed=1), request(seed=2), request(seed=3))))
        engine.let(3)
        wait_for(job, Image, index=0)
        engine.failure = RuntimeError("no memory")
        engine.go_on()
        assert events_of(job)[-1] == Failed("RuntimeError: no memory") and len(job.images) == 1


class TestQueue:
    def test_positions_are_told_and_move_up(self, executor, engine):
        engine.hold()
        jobs = [executor.submit(request()) for _ in range(4)]
        engine.begun.get(timeout=WAIT_S)
        assert [wait_for(job, Queued, position=k).position for k, job in enumerate(jobs[1:], start=1)] == [1, 2, 3]
        assert [job.state for job in jobs[1:]] == ["queued"] * 3
        assert executor.status()["waiting"] == 3 and executor.status()["running"] is True
        jobs[1].cancel()
        assert wait_for(jobs[3], Queued, position=2) and wait_for(jobs[2], Queued, position=1)
        jobs[0].cancel()
        engine.begun.get(timeout=WAIT_S)
        assert wait_for(jobs[3], Queued, position=1)

    def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, executor, engine, monkeypatch):
        monkeypatch.setattr(queue, "MAX_WAITING", 2)
        engine.hold()
        executor.submit(request())
        engine.begun.get(timeout=WAIT_S)
        waiting = [executor.submit(request()) for _ in range(2)]
        with pytest.raises(QueueFull, match="the queue is full: 2 jobs wait"):
            executor.submit(request())
        assert executor.status()["waiting"] == 2
        waiting[0].cancel()
        assert executor.submit(request()).state == "queued"

    def test_loras_are_checked_before_anything_is_queued(self, executor, engine, settings):
        folder = settings.data_dir / "models/Lora"
        folder.mkdir(parents=True)
        (folder / "broken.safetensors").write_text("<html>404 not found</html>")
        engine.hold()
        for prompt, words in (("x <lora:nope:1>", "“nope”"), ("x <lora:broken:1>", "'broken'")):
            with pytest.raises(RequestError, match=words):
                executor.submit(request(prompt=prompt))
        assert executor.status()["waiting"] == 0 and engine.begun.empty()

    @pytest.mark.parametrize("fields", [{"model": "nope"}, {"sampler": "nope"}, {"schedule": "nope"}])
    def test_what_cannot_be_drawn_is_refused_before_it_is_queued(self, executor, engine, fields):
        engine.hold()
        with pytest.raises(RequestError, match="nope") as caught:
            executor.submit(request(**fields))
        assert caught.value.field == next(iter(fields))
        assert executor.status()["waiting"] == 0 and engine.begun.empty()

    def test_names_are_spelled_as_the_catalog_spells_them(self, executor):
        job = executor.submit(request(model="DEMO", sampler="euler karras"))
        assert (job.request.model, job.request.sampler, job.request.schedule) == ("demo", "Euler", "Karras")

    def test_the_catalog_has_models_loras_and_every_sampler_with_its_schedules(self, executor, settings):
        folder = settings.data_dir / "models/Lora"
        folder.mkdir(parents=True)
        (folder / "chalk.safetensors").touch()
        catalog = executor.catalog()
        assert "demo" in catalog.models
        assert catalog.loras["chalk"].path == folder / "chalk.safetensors"
        assert catalog.samplers == {name: row.schedules for name, row in SAMPLERS.items()}


def test_folders_are_walked_once_for_many_previews_and_jobs(executor, engine, settings, monkeypatch):
    folder = settings.data_dir / "models/Lora"
    content = (DEMO_MODEL / "loras/sepia.safetensors").read_bytes()
    for number in range(20):
        (folder / f"set {number % 4}").mkdir(parents=True, exist_ok=True)
        (folder / f"set {number % 4}/style {number}.safetensors").write_bytes(content)
        (folder / f"set {number % 4}/style {number}.png").write_bytes(b"a picture")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1.7e9, 1.7e9))
    walked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: walked.append(Path(path)) or scandir(path))
    client = TestClient(FastAPI())
    client.app.include_router(loras_router(executor))
    assert len(client.get("/api/loras").json()) == len(executor.catalog().loras)
    assert sorted(path.name for path in walked if folder in path.parents) == ["set 0", "set 1", "set 2", "set 3"]
    walked.clear()
    for number in range(20):
        answer = client.get("/api/loras/preview", params={"name": f"style {number}"})
        assert (answer.status_code, answer.content) == (200, b"a picture")
        events_of(executor.submit(request(loras=({"name": f"style {number}"},))))
    assert not [path for path in walked if folder.parent in path.parents]
    os.utime(folder / "set 1/style 1.safetensors", (1.8e9, 1.8e9))
    (folder / "set 1/new.safetensors").write_bytes(content)
    assert executor.submit(request(loras=({"name": "new"},))).request.loras[0].name == "new"
    (folder / "set 2/newer.safetensors").write_bytes(content)
    assert "newer" in [entry["name"] for entry in client.get("/api/loras").json()]
    os.utime(folder / "set 3", (1.7e9, 1.7e9))
    executor.catalog()
    (folder / "set 3/untold.safetensors").write_bytes(content)
    os.utime(folder / "set 3", (1.7e9, 1.7e9))
    assert "untold" in [entry["name"] for entry in client.get("/api/loras", params={"reload": True}).json()]


class TestSkipping:
    """What is drawn now is left out, and the rest is drawn as it would have been."""

    def test_a_picture_of_several_is_left_out_within_a_step_and_the_others_are_kept(self, executor, engine):
        engine.hold()
        job = executor.submit(request(repeat=4, steps=3))
        engine.let(4)
        wait_for(job, Step, index=4)
        job.skip()
        assert engine.ended.get(timeout=WAIT_S)  # without another step
        engine.go_on()
        last = events_of(job)[-1]
        assert isinstance(last, Done) and last.warnings == ("Picture 2 was skipped.",)
        assert [(picture.index, picture.seed) for picture in job.images] == [(0, 5), (2, 7), (3, 8)]
        assert executor.totals().steps == 10 and executor.totals().jobs["done"] == 1

    def test_a_job_of_one_picture_ends_and_the_next_begins(self, executor, engine):
        engine.hold()
        first, second = executor.submit(request(seed=1)), executor.submit(request(seed=2))
        engine.let()
        wait_for(first, Step, index=1)
        first.skip()
        assert events_of(first)[-1] == Cancelled(1, 3)
        assert [engine.begun.get(timeout=WAIT_S).seed for _ in range(2)] == [1, 2]
        engine.go_on()
        assert isinstance(events_of(second)[-1], Done)

    def test_one_request_of_a_batch_is_left_out(self, executor, engine):
        engine.hold()
        job = executor.submit(Batch(tuple(request(seed=seed) for seed in (1, 2, 3))))
        engine.let(1)
        wait_for(job, Step, index=1, total=9)
        job.skip()
        engine.begun.get(timeout=WAIT_S)
        assert engine.begun.get(timeout=WAIT_S).seed == 2
        engine.let(1)
        wait_for(job, Step, index=4, total=9)
        engine.go_on()
        assert events_of(job)[-1].warnings == ("Picture 1 was skipped.",)
        assert [picture.seed for picture in job.images] == [2, 3]

    def test_what_waits_cannot_be_skipped_and_what_is_stopped_is_not_gone_on_with(self, executor, engine):
        engine.hold()
        first, second = executor.submit(request(seed=1, repeat=2)), executor.submit(request(seed=2))
        engine.begun.get(timeout=WAIT_S)
        second.skip()
        first.skip()
        first.cancel()
        engine.go_on()
        assert isinstance(events_of(first)[-1], Cancelled) and isinstance(events_of(second)[-1], Done)
        assert len(second.images) == 1

    @pytest.mark.parametrize(
        ("skipped", "words"),
        [([], ()), ([2], ("Picture 3 was skipped.",)), ([0, 3, 1], ("Pictures 1, 2 and 4 were skipped.",))],
    )
    def test_what_was_left_out_is_said(self, skipped, words):
        assert skipping.say(skipped) == words and skipping.say(range(9)) == ("9 pictures were skipped.",)


class TestNextJob:
    """While one job is drawn, the engine may make ready what the next one needs."""

    def test_it_is_announced_once_at_the_second_step(self, executor, engine):
        engine.hold()
        jobs = [executor.submit(request(seed=seed, steps=4)) for seed in range(3)]
        engine.let()
        wait_for(jobs[0], Step, index=1)
        assert engine.prepared.empty()
        engine.let()
        assert engine.prepared.get(timeout=WAIT_S) == jobs[1].request
        engine.go_on()
        for job in jobs:
            assert isinstance(events_of(job)[-1], Done)
        assert engine.prepared.get_nowait() == jobs[2].request and engine.prepared.empty()
        assert engine.threads == {"device"}

    @pytest.mark.parametrize("waiting", [0, 1], ids=["nothing waits", "what waited was cancelled"])
    def test_without_a_next_job_there_is_nothing_to_announce(self, executor, engine, waiting):
        engine.hold()
        job = executor.submit(request())
        for _ in range(waiting):
            executor.submit(request()).cancel()
        engine.go_on()
        assert isinstance(events_of(job)[-1], Done) and engine.prepared.empty()

    @pytest.mark.parametrize("failure", [RequestError("LoRA 'x' is broken"), RuntimeError("out of memory"), OSError()])
    def test_a_preparation_that_fails_harms_neither_job(self, executor, engine, failure):
        engine.failure_to_prepare = failure
        engine.hold()
        jobs = [executor.submit(request(seed=seed)) for seed in range(2)]
        engine.go_on()
        for job in jobs:
            assert [type(event) for event in events_of(job)[-2:]] == [Image, Done]
        assert engine.prepared.get_nowait() == jobs[1].request


class TestFollowing:
    def test_many_followers_see_the_same_pictures_and_the_same_end(self, executor, engine):
        engine.hold()
        job, seen = executor.submit(request(count=3)), []
        threads = [threading.Thread(target=lambda: seen.append(events_of(job))) for _ in range(6)]
        for thread in threads:
            thread.start()
        engine.go_on()
        for thread in threads:
            thread.join(WAIT_S)
        kept = [[event for event in events if isinstance(event, Image | Done)] for events in seen]
        assert len(kept) == 6 and all(events == kept[0] for events in kept)
        assert [type(event) for event in kept[0]] == [Image] * 3 + [Done]

    def test_a_quick_follower_sees_every_step(self, executor, engine):
        engine.hold()
        job, seen = executor.submit(request(steps=5)), []
        for _, event in job.follow():
            if isinstance(event, Step):
                seen.append((event.index, event.preview))
            if not isinstance(event, Image | Done):
                engine.let()
        assert seen == [(1, b"preview 1"), (2, b"preview 1"), (3, b"preview 3"), (4, b"preview 3"), (5, b"preview 5")]

    def test_steps_count_through_the_pictures_of_a_prompt_that_is_drawn_for_each(self, executor, engine):
        engine.hold()
        job, seen = executor.submit(request(steps=2, count=3, prompt="{a|b}")), []
        for _, event in job.follow():
            if isinstance(event, Step):
                seen.append((event.index, event.total))
            if not isinstance(event, Image | Done):
                engine.let()
        assert seen == [(step, 6) for step in range(1, 7)]
        assert [picture.index for picture in job.images] == [0, 1, 2]

    def test_a_follower_that_stands_still_misses_steps_but_no_picture_and_not_the_end(self, executor, engine):
        engine.hold()
        job = executor.submit(request(steps=50, count=2))
        followed = job.follow()
        engine.let()
        while not isinstance(next(followed)[1], Step):
            pass
        engine.go_on()
        events_of(job)  # another one, that is quick
        assert [type(event) for _, event in followed] == [Image, Image, Done]

    def test_following_resumes_after_the_number_seen_last(self, executor):
        job = executor.submit(request(count=3))
        entries = list(job.follow())
        pictures = [number for number, event in entries if isinstance(event, Image)]
        assert list(job.follow(after=pictures[0])) == [entry for entry in entries if entry[0] > pictures[0]]
        assert list(job.follow())[-1] == entries[-1]

    def test_async_followers_on_one_loop_and_one_that_leaves_early(self, executor, engine):
        engine.hold()
        job = executor.submit(request(count=2))

        async def follow():
            return [event async for _, event in job.follow_async()]

        async def glance():
            async for _, event in job.follow_async():
                if isinstance(event, Step):
                    return event

        async def main():
            tasks = [asyncio.create_task(follow()) for _ in range(3)]
            glancing = asyncio.create_task(glance())
            engine.let()
            step = await asyncio.wait_for(glancing, WAIT_S)
            tasks[0].cancel()
            engine.go_on()
            found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT_S)
            return step, found

        step, (stopped, *found) = asyncio.run(main())
        assert step.index == 1 and isinstance(stopped, asyncio.CancelledError)
        assert all([type(event) for event in events[-3:]] == [Image, Image, Done] for events in found)
        assert job.state == "done"


class TestCancel:
    def test_a_waiting_job_ends_at_once_and_never_runs(self, executor, engine):
        engine.hold()
        running, waiting = executor.submit(request(seed=1)), executor.submit(request(seed=2))
        engine.begun.get(timeout=WAIT_S)
        waiting.cancel()
        assert waiting.state == "cancelled" and events_of(waiting) == [Cancelled()]
        engine.go_on()
        assert isinstance(events_of(running)[-1], Done)
        assert isinstance(events_of(executor.submit(request(seed=3)))[-1], Done)
        assert engine.begun.get_nowait().seed == 3, "the cancelled job was run"

    def test_a_running_job_stops_before_its_next_step_and_the_next_is_unharmed(self, executor, engine):
        engine.hold()
        first, second = executor.submit(request(steps=9)), executor.submit(request(seed=2, count=2))
        engine.let(2)
        wait_for(first, Step, index=2)
        first.cancel()
        assert events_of(first)[-1] == Cancelled(2, 9) and first.images == ()
        engine.go_on()
        assert [type(event) for event in events_of(second)[-3:]] == [Image, Image, Done]
        assert engine.most_at_once == 1

    def test_a_loading_job_stops(self, executor, engine):
        engine.hold()
        engine.slow_to_load = True
        job = executor.submit(request())
        assert wait_for(job, Loading).what == "a large model" and job.state == "loading"
        job.cancel()
        assert events_of(job)[-1] == Cancelled(0, 3)

    def test_a_job_that_ended_stays_as_it_is(self, executor):
        job = executor.submit(request())
        events = events_of(job)
        job.cancel()
        assert job.state == "done" and events_of(job)[-1] == events[-1]

    def test_cancelling_twice_is_once(self, executor, engine):
        engine.hold()
        job = executor.submit(request())
        job.cancel()
        job.cancel()
        assert [type(event) for event in events_of(job)] == [Cancelled]


class Broken(Exception):
    pass


Broken.__module__ = "webui.engine.families.base"


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "expected"),
        [
            (Broken("model 'x' cannot be loaded: no file\nand a long story"), "model 'x' cannot be loaded: no file"),
            (RuntimeError("CUDA out of memory.\nTried to ..."), "RuntimeError: CUDA out of memory."),
            (AssertionError(), "AssertionError: no details"),
            (MemoryError(), "MemoryError: no details"),
        ],
    )
    def test_an_exception_in_the_engine_ends_the_job_with_one_clear_line_and_the_next_runs(
        self, executor, engine, failure, expected
    ):
        engine.failure = failure
        job = executor.submit(request())
        assert events_of(job)[-1] == Failed(expected) and job.state == "failed"
        engine.failure = None
        assert isinstance(events_of(executor.submit(request()))[-1], Done)

    def test_bad_input_found_late_is_the_caller_s_fault(self, executor, engine):
        engine.failure = RequestError("clip_skip 12 is more than this model's 2 text layers", "clip_skip")
        last = events_of(executor.submit(request()))[-1]
        assert last == Failed("clip_skip 12 is more than this model's 2 text layers", bad_input=True)

    def test_an_engine_that_just_ends_is_a_failure(self, executor, engine):
        engine.silent = True
        assert isinstance(events_of(executor.submit(request()))[-1], Failed)

    @pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), ValueError("bad text")])
    def test_a_picture_that_cannot_be_saved_is_shown_with_a_warning(self, executor, monkeypatch, failure, settings):
        def full(*_):
            raise failure

        monkeypatch.setattr(saving, "save_picture", full)
        job = executor.submit(request(count=2))
        *_, done = events_of(job)
        assert len(job.images) == 2 and all(picture.path is None for picture in job.images)
        assert [picture.image.getpixel((0, 0)) for picture in job.images] == [(0, 0, 0), (1, 0, 0)]
        for text in (job.images[0].warning, *done.warnings):
            assert str(settings.output_dir("txt2img")) in text and (failure.args[-1]) in text
        assert len(done.warnings) == 1 and isinstance(done, Done)

    def test_an_output_folder_that_is_a_file_is_such_a_case(self, make_executor, tmp_path, settings):
        (tmp_path / "file").touch()
        executor = make_executor(settings.model_copy(update={"out": tmp_path / "file"}))
        job = executor.submit(request())
        assert events_of(job)[-1].warnings and job.images[0].warning and job.state == "done"


class TestMemory:
    def test_old_jobs_are_forgotten_beyond_a_number_and_the_newest_are_kept(self, executor, monkeypatch):
        monkeypatch.setattr(registry, "KEPT_JOBS", 3)
        jobs = []
        for seed in range(6):
            jobs.append(executor.submit(request(seed=seed)))
            events_of(jobs[-1])
        executor.close()  # the last one is tidied up after behind its end
        assert [executor.job(job.id) is job for job in jobs] == [False] * 3 + [True] * 3
        assert isinstance(events_of(jobs[0])[-1], Done), "whoever holds a job can still read it"

    def test_old_jobs_are_forgotten_beyond_the_memory_of_their_pictures_but_never_the_last(self, executor, monkeypatch):
        monkeypatch.setattr(registry, "KEPT_PIXEL_BYTES", 1)
        jobs = [executor.submit(request(seed=seed)) for seed in range(4)]
        for job in jobs:
            events_of(job)
        executor.close()
        assert [executor.job(job.id) is job for job in jobs] == [False, False, False, True]

    def test_waiting_and_running_jobs_are_never_forgotten(self, executor, engine, monkeypatch):
        monkeypatch.setattr(registry, "KEPT_JOBS", 1)
        events_of(executor.submit(request()))
        engine.hold()
        jobs = [executor.submit(request()) for _ in range(5)]
        jobs[2].cancel()
        assert all(executor.job(job.id) is job for job in jobs if not job.ended)

    def test_jobs_cancelled_in_the_queue_do_not_pile_up(self, executor, engine, monkeypatch):
        monkeypatch.setattr(registry, "KEPT_JOBS", 3)
        engine.hold()
        running = executor.submit(request())
        engine.begun.get(timeout=WAIT_S)
        jobs = [executor.submit(request()) for _ in range(20)]
        for job in jobs:
            job.cancel()
        assert sum(executor.job(job.id) is not None for job in jobs) == 3
        assert executor.job(running.id) is running

    def test_an_unknown_id_is_no_job(self, executor):
        assert executor.job("0" * 32) is None and executor.job("") is None


class TestClose:
    def test_it_cancels_all_and_takes_no_more(self, executor, engine):
        engine.hold()
        jobs = [executor.submit(request(steps=150)) for _ in range(3)]
        engine.begun.get(timeout=WAIT_S)
        executor.close()
        assert [events_of(job)[-1] for job in jobs] == [Cancelled(0, 150), Cancelled(), Cancelled()]
        assert engine.ended.get_nowait() and engine.begun.empty()
        with pytest.raises(QueueFull, match="shutting down"):
            executor.submit(request())

    def test_it_waits_for_the_last_file(self, executor, engine):
        job = executor.submit(request(count=3))
        engine.ended.get(timeout=WAIT_S)
        executor.close()
        assert len(job.images) == 3 and all(picture.path.is_file() for picture in job.images)

    def test_a_device_that_does_not_answer_keeps_neither_it_nor_the_followers_waiting(self, executor, engine):
        engine.hold()
        engine.deaf = True
        job, seen = executor.submit(request()), []
        engine.begun.get(timeout=WAIT_S)
        follower = threading.Thread(target=lambda: seen.extend(events_of(job)))
        follower.start()
        executor.close(timeout_s=0.2)
        follower.join(WAIT_S)
        assert [type(event) for event in seen if isinstance(event, TERMINAL)] == [Cancelled]
        engine.go_on()
        engine.ended.get(timeout=WAIT_S)
        executor._crew._threads[0].join(WAIT_S)
        assert job.state == "cancelled"

    def test_closing_twice_is_once(self, executor):
        executor.close()
        executor.close()


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class TestLedger:
    def test_its_parts_are_all_there_and_sum_to_the_whole_time(self, executor, engine):
        started = time.perf_counter()
        done = events_of(executor.submit(request()))[-1]
        assert tuple(done.parts_s) == PARTS
        assert sum(done.parts_s.values()) == pytest.approx(done.seconds)
        assert 0 < done.seconds <= time.perf_counter() - started

    def test_the_engine_s_parts_are_kept(self, executor, engine):
        engine.parts_s = {"load": 2.0, "steps": 3.0}
        done = events_of(executor.submit(request()))[-1]
        assert done.parts_s["steps"] == 3.0 and 2.0 <= done.parts_s["load"] < 3.0 and done.parts_s["other"] == 0.0

    def test_a_job_that_failed_or_was_stopped_has_them_too(self, executor, engine):
        engine.parts_s = {"load": 2.0, "steps": 3.0}
        engine.failure = RuntimeError("the device is gone")
        failed = events_of(executor.submit(request()))[-1]
        engine.failure = None
        engine.hold()
        running, waiting = executor.submit(request()), executor.submit(request())
        engine.begun.get(timeout=WAIT_S)
        engine.begun.get(timeout=WAIT_S)
        waiting.cancel()
        running.cancel()
        stopped, dropped = events_of(running)[-1], events_of(waiting)[-1]
        assert isinstance(failed, Failed) and isinstance(stopped, Cancelled) and isinstance(dropped, Cancelled)
        for end in (failed, stopped, dropped):
            assert tuple(end.parts_s) == PARTS and end.seconds > 0
        assert failed.parts_s["steps"] == stopped.parts_s["steps"] == 3.0
        assert dropped.parts_s["queue"] == pytest.approx(dropped.seconds)
        assert executor.totals().seconds == 0.0  # which is of jobs that were done

    def test_waiting_for_another_job_is_waiting(self, clock, executor, engine):
        engine.hold()
        executor.submit(request())
        engine.begun.get(timeout=WAIT_S)
        second = executor.submit(request())
        clock.now_s += 10
        engine.go_on()
        done = events_of(second)[-1]
        assert (done.parts_s["queue"], done.parts_s["load"], done.seconds) == (10, 0, 10)

    def test_waiting_for_the_first_model_is_loading(self, clock, executor, engine, monkeypatch):
        loading, go = threading.Event(), threading.Event()

        def load(*_):
            loading.set()
            go.wait(WAIT_S)
            yield Loading("demo", 0.0)

        monkeypatch.setattr(engine, "load", load)
        executor.warm_up()
        assert loading.wait(WAIT_S)
        job = executor.submit(request())
        clock.now_s += 10
        go.set()
        done = events_of(job)[-1]
        assert (done.parts_s["load"], done.parts_s["queue"], done.seconds) == (10, 0, 10)

    @pytest.mark.parametrize("in_time", [True, False], ids=["while it is drawn", "after it was drawn"])
    def test_of_saving_only_what_the_job_waited_for_is_counted(self, clock, executor, engine, monkeypatch, in_time):
        saved, drawn, save = threading.Event(), threading.Event(), saving.save_picture
        afterwards = executor._saver.afterwards

        def note_the_end(act):
            afterwards(act)
            if act.func == executor._finish:
                drawn.set()

        def slow_save(*what):
            assert in_time or drawn.wait(WAIT_S)
            clock.now_s += 10
            path = save(*what)
            saved.set()
            return path

        def events(asked, cancelled, *_):
            yield Image(0, PilImages.new("RGB", (64, 64)), Recipe(asked))
            if in_time:
                saved.wait(WAIT_S)
            yield Done(0.0)

        monkeypatch.setattr(saving, "save_picture", slow_save)
        monkeypatch.setattr(executor._saver, "afterwards", note_the_end)
        monkeypatch.setattr(engine, "_events", events)
        done = events_of(executor.submit(request()))[-1]
        assert (done.parts_s["save"], done.seconds) == (0 if in_time else 10, 10)


class TestTotals:
    def test_they_count_jobs_by_outcome_with_pictures_steps_and_seconds(self, executor, engine):
        assert executor.totals() == Totals()
        ends = [events_of(executor.submit(request(steps=3, count=2)))[-1] for _ in range(2)]
        engine.failure = RuntimeError("no")
        events_of(executor.submit(request(steps=4)))
        engine.failure = None
        engine.hold()
        running, waiting = executor.submit(request(steps=9)), executor.submit(request())
        engine.let(2)
        wait_for(running, Step, index=2)
        waiting.cancel()
        running.cancel()
        events_of(running)
        totals = executor.totals()
        assert totals.jobs == {"done": 2, "failed": 1, "cancelled": 2}
        assert (totals.pictures, totals.steps) == (4, 3 + 3 + 4 + 2)
        assert totals.seconds == pytest.approx(sum(end.seconds for end in ends)) and sum(totals.within) == 2
        assert sum(totals.parts_s.values()) == pytest.approx(totals.seconds)


class TestLog:
    @pytest.mark.parametrize("known", [True, False])
    def test_a_known_reason_is_one_line_and_any_other_has_its_traceback(self, executor, engine, caplog, known):
        error = Broken if known else KeyError
        engine.failure = error("the text encoder is too small")
        failed = events_of(executor.submit(request()))[-1]
        assert "the text encoder is too small" in failed.message
        (record,) = [record for record in caplog.records if "failed after" in record.getMessage()]
        assert (record.levelname, bool(record.exc_info)) == (("WARNING", False) if known else ("ERROR", True))


class TestStatus:
    def test_it_is_loading_then_ok(self, executor, engine):
        engine.model_name = None
        assert executor.status()["status"] == "loading"
        engine.model_name = "demo"
        assert executor.status() == {
            "status": "ok",
            "device": "a fake device",
            "model": "demo",
            "models": ["demo"],
            "memory": "nowhere",
            "waiting": 0,
            "running": False,
        }

    def test_a_failed_warm_up_is_told_and_jobs_still_run(self, executor, engine):
        engine.failure, engine.model_name = Broken("model 'x' cannot be loaded: no file"), None
        executor.warm_up()
        while executor.status()["status"] == "loading":
            time.sleep(0.005)
        assert executor.status()["status"] == "degraded"
        assert executor.status()["trouble"] == "model 'x' cannot be loaded: no file"
        engine.failure = None
        assert isinstance(events_of(executor.submit(request()))[-1], Done)


def test_the_real_engine_draws_and_saves_through_it(settings: Settings):
    executor = LocalExecutor(settings)
    try:
        executor.warm_up()
        job = executor.submit(request(steps=2, count=2))
        events = events_of(job)
        assert [type(event) for event in events[-3:]] == [Image, Image, Done]
        assert all(picture.path.is_file() and picture.image.size == (64, 64) for picture in job.images)
        assert executor.status()["status"] == "ok" and executor.status()["model"] == "demo"
        late = executor.submit(request(clip_skip=12))
        assert events_of(late)[-1].bad_input and "clip_skip 12" in events_of(late)[-1].message
    finally:
        executor.close()


def test_the_ledger_of_real_jobs_adds_up_to_the_time_they_took(settings: Settings):
    start = Init(image=PilImages.new("RGB", (200, 150), (20, 160, 60)), strength=0.8)
    executor = LocalExecutor(settings)
    try:
        asked = [Request(seed=1, steps=20), Request(seed=1, steps=20, count=2, init=start)]
        submitted = [(time.perf_counter(), executor.submit(one)) for one in asked]
        ends = []
        for started, job in submitted:
            done = events_of(job)[-1]
            assert 0 < done.seconds <= time.perf_counter() - started
            assert done.parts_s["other"] >= 0
            assert sum(done.parts_s.values()) == pytest.approx(done.seconds)
            assert all(done.parts_s[part] > 0 for part in ("steps", "decode", "save", "encode"))
            ends.append(done)
        assert ends[1].parts_s["queue"] > ends[0].parts_s["steps"], "the second waits for the first"
    finally:
        executor.close()
