"""Visitors with a browser, by the protocol that the page speaks: no browser is started."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.crowd.journal import Sent
from benchmarks.crowd.visitor import Unexpected, Visitor, check_picture, expect

CONFIG = re.compile(r'window\.gradio_config = JSON\.parse\(("(?:[^"\\]|\\.)*")\);')
STATE = re.compile(r'data-state=\\"(\w+)\\" data-job=\\"(\w*)\\"')
PICTURE = re.compile(r'"url":\s*"[^"]*?(/gradio_api/file=[^"]+)"')
LOOK_S = 2.0  # how often a page asks for its jobs and for health while it is busy
FOR_NOW = re.compile(r"full|limit|at most|wait|later|again|busy", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """What one event of the page sends: its number, the controls whose values go with it, and whether it is queued."""

    number: int
    trigger: int
    names: tuple[str, ...]
    values: tuple[Any, ...]
    is_queued: bool


@dataclass
class Heard:
    """Messages of one event, a line of JSON each; ``is_whole`` says that the last one is its answer."""

    lines: list[str] = field(default_factory=list)
    is_whole: bool = False


class PageMap:
    """The page's events by the control and the deed that start them, read from what the page itself is told."""

    def __init__(self, page: str) -> None:
        found = CONFIG.search(page)
        if found is None:
            raise Unexpected("a page without its configuration")
        config = json.loads(json.loads(found[1]))
        known = {each["id"]: each.get("props", {}) for each in config["components"]}
        self.loads: list[Endpoint] = []
        self.events: dict[tuple[str, str], Endpoint] = {}
        for event in config["dependencies"]:
            names = tuple(str(known.get(k, {}).get("elem_id") or "") for k in event["inputs"])
            values = tuple(known.get(k, {}).get("value") for k in event["inputs"])
            for trigger, deed in event["targets"]:
                endpoint = Endpoint(event["id"], trigger or 0, names, values, event["queue"] is not False)
                if deed == "load" and event["backend_fn"]:
                    self.loads.append(endpoint)
                name = known.get(trigger, {}).get("elem_id")
                if name and event["backend_fn"]:
                    self.events.setdefault((name, deed), endpoint)

    def click(self, name: str) -> Endpoint:
        return self.events[name, "click"]


class PageVisitor(Visitor):
    """A person with the page open in a tab."""

    way = "page"
    deeds = {"draw": 40, "rework": 18, "stop": 12, "reload": 14, "leave": 8, "go_for_good": 8}

    page: PageMap | None = None
    session = ""

    async def draw(self) -> None:
        await self._draw("txt2img")

    async def rework(self) -> None:
        """From a start picture that is uploaded first."""
        await self._open()
        await self._draw("img2img", image=await self._upload(), keep_size=False)

    async def stop(self) -> None:
        """Presses Stop while the job waits or is drawn."""
        job, job_id = await self._generate("txt2img")
        if job_id is None:
            return
        following = asyncio.create_task(self._follow(job, job_id, "txt2img"))
        await self.change_mind()
        job.is_forsaken = True
        await self._run(self._map.click("txt2img-stop"), [job_id])
        await following

    async def reload(self) -> None:
        """Loads the page again in the middle of a job, which goes on."""
        job, job_id = await self._generate("txt2img")
        if job_id is None:
            return
        await self._follow(job, job_id, "txt2img", at_most=self.chance.randint(1, 6))
        self.session = ""
        await self._open()
        self.journal.deeds["reloads"] += 1
        await self._see_end(job, job_id, "txt2img")

    async def leave(self) -> None:
        """Closes the tab in the middle of a job, and opens it again later."""
        job, job_id = await self._generate("txt2img")
        if job_id is None:
            return
        job.is_forsaken = True
        await self._follow(job, job_id, "txt2img", at_most=self.chance.randint(1, 6))
        self.session = ""
        await self.away()
        await self._open()
        self.journal.tell(job, await self._ask(job_id))

    async def go_for_good(self) -> None:
        """Closes the tab in the middle of a job; whoever comes next has never been here."""
        job, job_id = await self._generate("txt2img")
        if job_id is not None:
            job.is_forsaken, job.state = True, "left"
            await self._follow(job, job_id, "txt2img", at_most=self.chance.randint(1, 6))
        self.session = ""
        await self.come_anew()
        await self._draw("txt2img")

    @property
    def _map(self) -> PageMap:
        assert self.page is not None
        return self.page

    async def _open(self) -> None:
        """The page, and what it asks by itself when it is opened; nothing where it is open."""
        if self.session:
            return
        answer = expect(await self.client.get("/"))
        PageVisitor.page = self.page or await asyncio.to_thread(PageMap, answer.text)
        self.session = f"{self.chance.getrandbits(48):x}"
        expect(await self.client.get("/api/health"))
        for endpoint in self._map.loads:
            values = ["" if value is None else value for value in endpoint.values]
            await (self._call if endpoint.is_queued else self._run)(endpoint, values)

    async def _draw(self, task: str, **more: Any) -> None:
        job, job_id = await self._generate(task, **more)
        if job_id is not None:
            await self._see_end(job, job_id, task)

    async def _generate(self, task: str, **more: Any) -> tuple[Sent, str | None]:
        """Presses Generate: the job, and its id unless it was refused."""
        await self._open()
        job = self.new_job()
        endpoint = self._map.click(f"{task}-generate")
        wanted = {f"{task}-{name}": value for name, value in (self.request(job) | more).items()}
        pairs = zip(endpoint.names, endpoint.values, strict=True)
        outcome = await self._call(endpoint, [wanted.get(name, value) for name, value in pairs])
        job.answered_at = time.time()
        if not outcome["success"]:
            why = str(outcome["output"].get("error"))
            if not FOR_NOW.search(why):
                raise Unexpected(f"Generate was refused: {why}")
            self.journal.refuse(job, f"page: {why}")
            await asyncio.sleep(2)
            return job, None
        return job, json.loads(outcome["output"]["data"][0])["ids"][0]

    async def _see_end(self, job: Sent, job_id: str, task: str) -> None:
        """Follows it to its end, as a page that was opened again does, and looks at its picture."""
        url = await self._follow(job, job_id, task)
        if job.state == "done":
            check_picture(expect(await self.client.get(url)).content, job.seed)

    async def _follow(self, job: Sent, job_id: str, task: str, at_most: int = 0) -> str:
        """The address of the picture where there is one; the job's state where it ended."""
        looking = asyncio.create_task(self._look(job_id))
        try:
            heard = await self._listen(self._map.click(f"{task}-follow"), [job_id, "queued"], at_most)
        finally:
            looking.cancel()
        if not heard.is_whole:
            if not at_most:
                raise Unexpected(f"the stream of a job broke off: {heard.lines[-1:]}")
            self.journal.deeds["disconnects"] += 1
            return ""
        said = "\n".join(heard.lines)
        states = [state for state, told in STATE.findall(said) if told == job_id]
        if not states:
            raise Unexpected(f"nothing was told of a job that was sent: {said[-200:]}")
        self.journal.tell(job, states[-1])
        urls = PICTURE.findall(said)
        if job.state == "done" and not urls:
            raise Unexpected("a job that is done, without a picture")
        return urls[-1] if urls else ""

    async def _look(self, job_id: str) -> None:
        """What a busy page asks beside the stream."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._ask(job_id)
            await self.client.get("/api/health")

    async def _ask(self, job_id: str) -> str:
        found = expect(await self.client.get("/api/jobs", params={"id": job_id})).json()
        return str(found[0]["state"]) if found else "forgotten"

    async def _upload(self) -> dict[str, Any]:
        files = {"files": ("start.png", self.picture_file(), "image/png")}
        (path,) = expect(await self.client.post("/gradio_api/upload", files=files)).json()
        self.journal.deeds["uploads"] += 1
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    async def _run(self, endpoint: Endpoint, values: list[Any]) -> None:
        expect(await self.client.post("/gradio_api/run/predict", json=self._body(endpoint, values)))

    async def _call(self, endpoint: Endpoint, values: list[Any]) -> dict[str, Any]:
        """The last message of a queued event."""
        heard = await self._listen(endpoint, values)
        if not heard.is_whole:
            raise Unexpected(f"event {endpoint.number} ended without an answer: {heard.lines[-1:]}")
        message: dict[str, Any] = json.loads(heard.lines[-1])
        return message

    def _body(self, endpoint: Endpoint, values: list[Any]) -> dict[str, Any]:
        body = {"data": values, "event_data": None, "fn_index": endpoint.number, "trigger_id": endpoint.trigger}
        return body | {"session_hash": self.session}

    async def _listen(self, endpoint: Endpoint, values: list[Any], at_most: int = 0) -> Heard:
        """What is told of a queued event; after ``at_most`` messages it hangs up."""
        expect(await self.client.post("/gradio_api/queue/join", json=self._body(endpoint, values)))
        heard = Heard()
        query = {"session_hash": self.session}
        async with self.client.stream("GET", "/gradio_api/queue/data", params=query) as stream:
            if stream.status_code != 200:
                await stream.aread()
                expect(stream)
            async for line in stream.aiter_lines():
                if line.startswith("data:") and '"close_stream"' not in line:
                    heard.lines.append(line.removeprefix("data:").strip())
                    heard.is_whole = '"process_completed"' in line
                    if len(heard.lines) == at_most and not heard.is_whole:
                        break
        return heard
