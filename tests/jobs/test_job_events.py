"""A job's events: whoever follows it has them all, whenever they begin."""

import asyncio
import threading

import pytest
from job_events import WAIT_S, events_of, request

from webui.core.events import Done, Image, Step

pytestmark = pytest.mark.timeout(60)


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
