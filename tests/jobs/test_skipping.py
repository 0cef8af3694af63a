"""Skipping: what is drawn now is left out, and the rest is drawn as it would have been."""

import pytest
from job_events import WAIT_S, events_of, request, wait_for

from webui.core.events import Cancelled, Done, Step
from webui.core.work import Batch
from webui.jobs import skipping

pytestmark = pytest.mark.timeout(60)


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
