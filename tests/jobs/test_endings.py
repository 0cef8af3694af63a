"""How jobs end that are not drawn to their end: cancelled, failed, closed with the server."""

import errno
import threading

import pytest
from job_events import WAIT_S, Broken, events_of, request, wait_for

from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Cancelled, Done, Failed, Image, Loading, Step
from webui.jobs import saving
from webui.jobs.protocols import QueueFull

pytestmark = pytest.mark.timeout(60)


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


class TestLog:
    @pytest.mark.parametrize("known", [True, False])
    def test_a_known_reason_is_one_line_and_any_other_has_its_traceback(self, executor, engine, caplog, known):
        error = Broken if known else KeyError
        engine.failure = error("the text encoder is too small")
        failed = events_of(executor.submit(request()))[-1]
        assert "the text encoder is too small" in failed.message
        (record,) = [record for record in caplog.records if "failed after" in record.getMessage()]
        assert (record.levelname, bool(record.exc_info)) == (("WARNING", False) if known else ("ERROR", True))


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
