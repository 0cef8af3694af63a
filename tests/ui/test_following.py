"""What a page follows, one job after the other."""

import asyncio
from types import SimpleNamespace

from webui.core.events import Queued
from webui.core.order import Order
from webui.core.request import Request
from webui.jobs.job import LocalJob
from webui.ui.jobs import Handlers


def test_a_job_that_is_moved_behind_another_is_followed_later(tmp_path):
    job = LocalJob([Order(Request(), ())], lambda _: None)
    handlers = Handlers(SimpleNamespace(job=lambda _: job), lambda _: Request(), (), tmp_path, "")

    async def follow() -> int:
        job.publish(Queued(3))
        updates = handlers.follow(job.id, "queued")
        await anext(updates)
        job.publish(Queued(2))  # one before it has ended
        await anext(updates)
        job.publish(Queued(3))
        return len([update async for update in updates])  # though the job has not ended

    assert asyncio.run(follow()) == 0
