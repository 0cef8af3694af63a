"""Visitors that are programs: over ``/api`` and over A1111's ``/sdapi``."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx

from benchmarks.crowd.journal import Sent
from benchmarks.crowd.visitor import Visitor, check_picture, expect

ENDS = ("done", "failed", "cancelled")
CALL_S = 900.0  # of A1111's clients, which wait for the picture: without a cookie behind all others who have none
FOLLOWED = 16  # jobs at once, of those that one visitor floods the queue with


class ApiVisitor(Visitor):
    """Sends to ``/api/jobs`` and follows the events; resumes them where the connection broke."""

    way = "api"
    deeds = {"draw": 45, "rework": 20, "cancel": 12, "resume": 13, "leave": 10}

    async def draw(self) -> None:
        await self._draw()

    async def rework(self) -> None:
        """From a start picture of its own."""
        await self._draw(init={"image": self.picture_text(), "strength": 0.6})

    async def cancel(self) -> None:
        """Changes its mind while the job waits or is drawn."""
        job, job_id = await self._send()
        if job_id is None:
            return
        await self.change_mind()
        job.is_forsaken = True
        expect(await self.client.delete(f"/api/jobs/{job_id}"), 202)
        await self._follow(job, job_id)

    async def resume(self) -> None:
        """Loses the connection in the middle of the events and goes on after the last that came."""
        job, job_id = await self._send()
        if job_id is not None:
            last = await self._follow(job, job_id, at_most=self.chance.randint(1, 4))
            await self._follow(job, job_id, after=last)
            await self._fetch(job, job_id)

    async def leave(self) -> None:
        """Goes away without a word and asks later what has become of the job."""
        job, job_id = await self._send()
        if job_id is None:
            return
        job.is_forsaken = True
        await self._follow(job, job_id, at_most=1)
        await self.away()
        answer = expect(await self.client.get(f"/api/jobs/{job_id}"), 200, 404)
        state = answer.json()["state"] if answer.status_code == 200 else "forgotten"
        self.journal.tell(job, state)

    async def flood(self, seconds: float) -> None:
        """As many jobs as are taken, always. Without a cookie it cannot ask what becomes of them."""
        ends_at = asyncio.get_running_loop().time() + seconds
        following: set[asyncio.Task[None]] = set()
        while asyncio.get_running_loop().time() < ends_at:
            await self.heed("flood", self._add_to_flood(following))
            if len(following) >= FOLLOWED:
                _, following = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*following)
        await self.client.aclose()

    async def _add_to_flood(self, following: set[asyncio.Task[None]]) -> None:
        job, job_id = await self._send(is_flood=True)
        if job_id is not None and self.keeps_cookies:
            following.add(asyncio.create_task(self.heed("flood", self._follow(job, job_id))))
        elif job_id is not None:
            job.is_forsaken, job.state = True, "left"

    async def _draw(self, **more: Any) -> None:
        job, job_id = await self._send(**more)
        if job_id is not None:
            await self._follow(job, job_id)
            await self._fetch(job, job_id)

    async def _send(self, is_flood: bool = False, **more: Any) -> tuple[Sent, str | None]:
        job = self.new_job(is_flood)
        answer = await self.client.post("/api/jobs", json=self.request(job) | more)
        job.answered_at = time.time()
        if await self.refused(job, answer):
            return job, None
        return job, expect(answer, 202).json()["id"]

    async def _follow(self, job: Sent, job_id: str, after: int = 0, at_most: int = 0) -> int:
        """The number of the last event; the job's state where it ended. ``at_most`` events, then it hangs up."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        last = after
        async with self.client.stream("GET", f"/api/jobs/{job_id}/events", headers=headers) as stream:
            if stream.status_code != 200:
                await stream.aread()
                expect(stream)
            seen = 0
            async for number, event in _events(stream):
                last, seen = number, seen + 1
                if event["event"] in ENDS:
                    self.journal.tell(job, event["event"])
                if seen == at_most:
                    self.journal.deeds["disconnects"] += 1
                    break
        return last

    async def _fetch(self, job: Sent, job_id: str) -> None:
        if job.state == "done":
            check_picture(expect(await self.client.get(f"/api/jobs/{job_id}/images/0")).content, job.seed)


class SdapiVisitor(Visitor):
    """Sends what A1111's clients send, whose answer waits for the picture. It names no job."""

    way = "sdapi"
    deeds = {"draw": 50, "rework": 25, "hang_up": 15, "look": 10}

    async def draw(self) -> None:
        await self._draw("txt2img")

    async def rework(self) -> None:
        """From a start picture of its own."""
        await self._draw("img2img", init_images=[self.picture_text()], denoising_strength=0.6)

    async def hang_up(self) -> None:
        """Goes away before the answer."""
        job = self.new_job()
        job.is_forsaken, job.state = True, "left"
        with contextlib.suppress(httpx.TimeoutException):
            limit = httpx.Timeout(60.0, read=self.chance.uniform(0.05, 1.0))
            answer = await self.client.post("/sdapi/v1/txt2img", json=self._body(job), timeout=limit)
            await self._take(job, answer)
        self.journal.deeds["disconnects"] += 1

    async def look(self) -> None:
        """What such programs ask at their start, and again and again."""
        for name in ("sd-models", "samplers", "options", "progress"):
            expect(await self.client.get(f"/sdapi/v1/{name}"))

    async def _draw(self, task: str, **more: Any) -> None:
        job = self.new_job()
        call = self.client.post(f"/sdapi/v1/{task}", json=self._body(job) | more, timeout=CALL_S)
        asking = asyncio.create_task(call)
        while not (await asyncio.wait([asking], timeout=1.5))[0]:
            expect(await self.client.get("/sdapi/v1/progress?skip_current_image=true"))
        await self._take(job, await asking)

    async def _take(self, job: Sent, answer: httpx.Response) -> None:
        job.answered_at = time.time()
        if not await self.refused(job, answer):
            check_picture(base64.b64decode(expect(answer).json()["images"][0]), job.seed)
            job.state = "done"

    def _body(self, job: Sent) -> dict[str, Any]:
        return self.request(job) | {"save_images": True}


async def _events(stream: httpx.Response) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    number = 0
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            body = json.loads(value)
        elif not line and number:
            yield number, body
