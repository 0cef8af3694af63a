"""Where a job's time went, and the totals of all."""

import threading
import time

import pytest
from job_events import WAIT_S, events_of, request, wait_for
from PIL import Image as PilImages

from webui.core.events import Cancelled, Done, Failed, Image, Loading, Step
from webui.core.groups.init import Init
from webui.core.ledger import PARTS, Totals
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs import saving
from webui.jobs.executor import LocalExecutor

pytestmark = pytest.mark.timeout(60)


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


def test_the_ledger_of_real_jobs_adds_up_to_the_time_they_took(settings: Settings):
    start = Init(image=PilImages.new("RGB", (200, 150), (20, 160, 60)), strength=0.8)
    executor = LocalExecutor(settings)
    try:
        asked = [Request(seed=1, steps=5), Request(seed=1, steps=5, count=2, init=start)]
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
