"""A job's log: whoever follows sees every picture and the end, and of the rest the newest."""

import asyncio
import contextlib
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages

from webui.core.events import TERMINAL, Cancelled, Done, Failed, Image, Loading, Queued, Step
from webui.core.order import Order
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.jobs.job import LocalJob

pytestmark = pytest.mark.timeout(60)


def make_job(on_cancel=lambda job: None) -> LocalJob:
    return LocalJob([Order(Request(), ())], on_cancel)


def picture(index: int = 0) -> Image:
    return Image(index, PilImages.new("RGB", (8, 8)), Recipe(Request(seed=index)))


def is_step(event) -> bool:
    return isinstance(event, Step)


def test_ids_are_128_bits_of_chance_in_hexadecimal():
    ids = [make_job().id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", job_id) for job_id in ids)
    bits = [format(int(job_id, 16), "0128b") for job_id in ids]
    assert all(300 < sum(word[k] == "1" for word in bits) < 700 for k in range(128)), "a bit hardly ever changes"


def test_events_come_in_order_with_growing_numbers_until_the_end():
    job = make_job()
    followed = job.follow()
    for event in (Queued(1), Loading("x", 0.0), Step(1, 2, 0.1), picture(), Done(1.0)):
        job.publish(event)
        assert next(followed)[1] == event
    assert list(followed) == []
    assert [number for number, _ in job.follow()] == sorted({number for number, _ in job.follow()})


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "queued"),
        ([Queued(2)], "queued"),
        ([Queued(1), Loading("x", 0.5)], "loading"),
        ([Step(1, 9, 0.1)], "running"),
        ([Step(9, 9, 0.1), picture()], "running"),
        ([Done(1.0)], "done"),
        ([Failed("no")], "failed"),
        ([Cancelled()], "cancelled"),
    ],
)
def test_the_state_is_that_of_the_last_event(events, state):
    job = make_job()
    for event in events:
        job.publish(event)
    assert job.state == state
    assert job.ended == (state in ("done", "failed", "cancelled"))


def test_a_slow_follower_misses_steps_but_no_picture_and_not_the_end():
    job = make_job()
    followed = job.follow()
    job.publish(Step(1, 300, 0.1))
    assert next(followed)[1].index == 1
    for index in range(2, 301):
        job.publish(Step(index, 300, 0.1))
        if index % 100 == 0:
            job.publish(picture(index // 100 - 1))
    job.publish(Done(1.0))
    rest = [event for _, event in followed]
    assert [event.index for event in rest if isinstance(event, Image)] == [0, 1, 2]
    assert rest[-1] == Done(1.0)
    assert len(rest) < 10


def test_the_newest_preview_wins_and_is_not_lost_to_a_step_without_one():
    job = make_job()
    followed = job.follow()
    for index, preview in ((1, b"old"), (2, None), (3, b"new"), (4, None), (5, None)):
        job.publish(Step(index, 9, 0.1, preview))
    assert next(followed)[1] == Step(5, 9, 0.1, b"new")


def test_memory_does_not_grow_with_steps():
    job = make_job()
    for index in range(10_000):
        job.publish(Step(index, 10_000, 0.1, b"x" * 1000))
    assert len(list(job._log)) == 1


def test_following_from_a_number_goes_on_after_it():
    job = make_job()
    for event in (Queued(1), Step(1, 1, 0.1), picture(0), picture(1), picture(2), Done(1.0)):
        job.publish(event)
    entries = list(job.follow())
    for position, (number, _) in enumerate(entries[:-1]):
        assert list(job.follow(after=number)) == entries[position + 1 :]


def test_following_from_the_end_or_beyond_ends_at_once():
    """As a browser does that reconnects with the number it saw last."""
    job = make_job()
    job.publish(picture())
    job.publish(Done(1.0))

    async def follow_async(after):
        return [entry async for entry in job.follow_async(after)]

    for after in (2, 3, 99):
        assert list(job.follow(after)) == []
        assert asyncio.run(asyncio.wait_for(follow_async(after), 10)) == []


def test_after_the_end_nothing_is_added():
    job = make_job()
    job.publish(Done(1.0))
    job.publish(picture())
    job.publish(Cancelled())
    assert [event for _, event in job.follow()] == [Done(1.0)]
    assert job.images == () and job.state == "done"


def test_cancelling_raises_the_flag_and_tells_the_executor():
    told = []
    job = make_job(told.append)
    assert not job.is_cancelled()
    job.cancel()
    assert job.is_cancelled() and told == [job]


events = st.one_of(
    st.builds(Queued, st.integers(1, 9)),
    st.just(Loading("x", 0.0)),
    st.builds(Step, st.integers(1, 20), st.just(20), st.just(0.1), st.none() | st.binary(min_size=1, max_size=2)),
    st.builds(picture, st.integers(0, 9)),
)
ends = st.sampled_from([Done(1.0), Failed("no"), Cancelled()])


@given(
    published=st.lists(events | ends, max_size=30).flatmap(lambda some: ends.map(lambda end: [*some, end])),
    reads=st.lists(st.integers(0, 3), min_size=31, max_size=31),
    resume_at=st.integers(0, 30),
)
def test_whatever_happens_and_however_slow_the_reader_it_sees_all_pictures_and_one_end(published, reads, resume_at):
    job, seen, accepted = make_job(), [], []
    followed = job.follow()
    for count, event in zip(reads, published, strict=False):
        if not (accepted and isinstance(accepted[-1], TERMINAL)):
            accepted.append(event)
        job.publish(event)
        for _ in range(count):
            if not seen or seen[-1][0] < len(accepted):  # something is unread: this does not wait
                seen.append(next(followed, None) or seen.pop())
    seen += list(followed)
    numbers, read = [number for number, _ in seen], [event for _, event in seen]
    assert numbers == sorted(set(numbers))
    assert sum(isinstance(event, TERMINAL) for event in read) == 1 and read[-1] == accepted[-1]
    assert [one for one in read if isinstance(one, Image)] == [one for one in accepted if isinstance(one, Image)]
    assert job.images == tuple(one for one in accepted if isinstance(one, Image))
    assert list(job.follow(resume_at)) == [entry for entry in job.follow() if entry[0] > resume_at]


def publish_all(job: LocalJob, steps: int = 2000, pictures: int = 5) -> None:
    for index in range(1, steps + 1):
        job.publish(Step(index, steps, 0.1))
        if index % (steps // pictures) == 0:
            job.publish(picture(index // (steps // pictures) - 1))
    job.publish(Done(1.0))


def test_many_threads_that_follow_at_once_all_see_the_same_pictures_and_the_end():
    job, seen = make_job(), {}
    ready = threading.Barrier(9)

    def follow(name):
        ready.wait()
        seen[name] = [event for _, event in job.follow() if not is_step(event)]

    threads = [threading.Thread(target=follow, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    publish_all(job)
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8
    assert all([getattr(event, "index", None) for event in one] == [0, 1, 2, 3, 4, None] for one in seen.values())
    assert not job._watchers, "a watcher was left behind"


def test_async_followers_see_every_picture_and_the_end_from_a_publishing_thread():
    job = make_job()

    async def follow():
        return [event async for _, event in job.follow_async() if not is_step(event)]

    async def main():
        tasks = [asyncio.create_task(follow()) for _ in range(5)]
        await asyncio.sleep(0)  # they are waiting now
        thread = threading.Thread(target=publish_all, args=(job,))
        thread.start()
        found = await asyncio.wait_for(asyncio.gather(*tasks), 30)
        thread.join()
        return found

    for one in asyncio.run(main()):
        assert [getattr(event, "index", None) for event in one] == [0, 1, 2, 3, 4, None]
    assert not job._watchers


def test_an_async_follower_resumes_after_a_number():
    job = make_job()
    for event in (picture(0), picture(1), Done(1.0)):
        job.publish(event)

    async def main():
        return [number async for number, _ in job.follow_async(after=1)]

    assert asyncio.run(main()) == [2, 3]


def test_an_async_follower_that_leaves_or_is_cancelled_ends_its_watch_and_not_the_job():
    job = make_job()

    async def follow_to_the_end():
        return [event async for _, event in job.follow_async()]

    async def main():
        leaving = job.follow_async()
        job.publish(Step(1, 9, 0.1))
        await anext(leaving)
        await leaving.aclose()
        stopped, stays = asyncio.create_task(follow_to_the_end()), asyncio.create_task(follow_to_the_end())
        await asyncio.sleep(0)
        stopped.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopped
        job.publish(picture())
        job.publish(Done(1.0))
        return await asyncio.wait_for(stays, 30)

    assert [type(event) for event in asyncio.run(main())] == [Step, Image, Done]
    assert not job.is_cancelled() and job.state == "done"
    assert not job._watchers


def test_a_follower_s_event_loop_that_is_gone_does_not_disturb_the_job():
    job = make_job()
    loop = asyncio.new_event_loop()
    followed = job.follow_async()
    job.publish(Step(1, 9, 0.1))
    loop.run_until_complete(anext(followed))
    loop.close()
    job.publish(picture())
    job.publish(Done(1.0))
    assert [type(event) for _, event in job.follow()] == [Image, Done]


def test_a_follower_that_stops_listening_ends_its_watch():
    job = make_job()
    job.publish(Step(1, 9, 0.1))
    followed = job.follow()
    next(followed)
    assert len(job._watchers) == 1
    followed.close()
    assert not job._watchers
