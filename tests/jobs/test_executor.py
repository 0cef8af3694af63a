"""One device thread: a queue before it, a registry of jobs, a saving thread behind it."""

import os
import threading
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from job_events import WAIT_S, Broken, events_of, request, wait_for
from PIL import Image as PilImages

from webui.api.loras import loras_router
from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Failed, Image, Queued, Step
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.core.visitor import OWNER
from webui.core.work import Batch
from webui.jobs import executor as executors
from webui.jobs import queue, registry, saving
from webui.jobs.executor import LocalExecutor
from webui.jobs.protocols import QueueFull
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.timeout(60)


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
