"""Generate, Stop, and what a page shows of its jobs.

Generate only sends the job. Which job the page follows, and which wait or have ended, is known to the browser
(``static/jobs.js``), so that a reload finds all of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.errors import RequestError
from webui.core.events import Failed
from webui.core.groups import nest
from webui.core.work import Work
from webui.jobs.protocols import ENDED, Executor, Job, NeedsYes, QueueFull, in_sight
from webui.ui import form, passing, stream
from webui.ui.errors import page_error

IDLE = stream.status_html(None, None, "Ready when you are.")
LOST = "The server was restarted, and this job ended with it. Its settings are kept."
FORGOTTEN = "These pictures are no longer in the server's memory."
PROMPT_LENGTH = 120  # of what the list of jobs shows
LIVE = "live"
ALL = "(...values) => values"

Update = Any


@dataclass(frozen=True)
class Shown:
    """Where a page shows its jobs."""

    gallery: gr.Gallery
    status: gr.HTML
    preview: gr.HTML
    infotext: gr.Textbox

    @property
    def outputs(self) -> list[Any]:
        """What follows a job."""
        return [self.gallery, self.status, self.preview, self.infotext]


@dataclass(frozen=True)
class Handlers:
    """What the page's events ask of the server. ``work`` is as in ``Task``, ``fields`` the names of its values;
    ``empty`` is the preview where there is no job."""

    executor: Executor
    work: Callable[[Mapping[str, Any]], Work]
    fields: tuple[str, ...]
    cache_dir: Path
    empty: str

    async def send(self, *values: Any) -> AsyncIterator[tuple[Update, Update]]:
        """Starts the job; yields what the browser keeps of it, as JSON, and the status.

        The last of the values says how Generate was pressed: "" by a person, "forever" or "live" by a script, which no
        message interrupts. What is live is not saved.
        """
        how = values[-1]
        try:
            job = await asyncio.to_thread(self._start, values[:-1], keep=how != LIVE)
        except (RequestError, QueueFull) as error:
            asks = isinstance(error, NeedsYes)
            yield gr.skip(), stream.yes_html(str(error)) if asks else stream.status_html(_refused(error), None)
            is_shown = isinstance(error, RequestError) and error.field and not asks  # at its field
            if not how and not is_shown:
                raise page_error(f"{error}: see below Generate" if asks else str(error)) from None
        else:
            sent = {"ids": [job.id], "prompt": job.request.prompt[:PROMPT_LENGTH], "how": how}
            yield json.dumps(sent), gr.skip()

    async def draw(self, *values: Any) -> AsyncIterator[tuple[Update, ...]]:
        """Both at once, for programs: starts the job and follows it. Who cancels the call or goes away has it stopped,
        as in A1111's API."""
        try:
            job = await asyncio.to_thread(self._start, values)
        except (RequestError, QueueFull) as error:
            raise page_error(str(error)) from None
        try:
            async for update in self._watch(job):
                yield update
        finally:
            job.cancel()  # one that has ended stays as it is

    async def follow(self, job_id: str, known_as: str) -> AsyncIterator[tuple[Update, ...]]:
        """What there is to see of a job, to its end, or until it is moved back; ``known_as`` is the state that the
        browser last saw."""
        job, was_over = await asyncio.to_thread(self.executor.job, job_id), known_as in ENDED
        if job is None:
            status = IDLE if was_over else stream.status_html(Failed(LOST), None)
            yield _updates(stream.View(status, self.empty, gallery=[]))
            return
        place = inf
        async for update in self._watch(job, is_news=not was_over):
            yield update
            if (job.position or 0) > place:  # it was moved behind another, which the page is to follow first
                return
            place = job.position or place

    def look_back(self, job_id: str) -> tuple[Update, str]:
        """Gallery and infotext of a job that ended before."""
        job = self.executor.job(job_id)
        images = in_sight(job) if job else ()
        items = [item for image in images if job and (item := stream.gallery_item(job, image, self.cache_dir))]
        if not items:
            raise page_error(FORGOTTEN)
        return gr.update(value=items, selected_index=0), images[0].recipe.infotext()

    def cancel(self, job_id: str) -> None:
        """Stops the job."""
        if job := self.executor.job(job_id):
            job.cancel()

    def _start(self, values: Sequence[Any], keep: bool = True) -> Job:
        return self.executor.submit(self.work(nest(dict(zip(self.fields, values, strict=True)))), keep)

    async def _watch(self, job: Job, is_news: bool = True) -> AsyncIterator[tuple[Update, ...]]:
        async for view in stream.watch(job, self.cache_dir):
            yield _updates(view)
            if view.error and is_news:
                raise page_error(view.error)


def _refused(error: RequestError | QueueFull) -> Failed:
    if isinstance(error, QueueFull):
        return Failed(str(error))
    return Failed(str(error), bad_input=True, place=error.field, mend=error.mend)


def wire(
    page: str, handlers: Handlers, inputs: list[Any], buttons: tuple[gr.Button, gr.Button], shown: Shown, js: str | None
) -> None:
    """Wires Generate and Stop, in this order in ``buttons``, and the endpoint ``/<page>``; ``js`` is ``collect_js``."""
    generate, stop = buttons

    async def draw(*values: Any) -> AsyncIterator[tuple[Update, ...]]:
        async for update in handlers.draw(*values):
            yield update

    draw.__signature__ = form.signature(handlers.fields)  # type: ignore[attr-defined]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    sent = gr.Textbox(visible=False)
    passing.box().change(draw, inputs, shown.outputs, api_name=page, show_progress="hidden", concurrency_limit=None)
    how = f"async (...values) => [...(await ({js or ALL})(...values.slice(0, -1))), darkroomMore.how('{page}')]"
    asked = [*inputs, passing.box()]
    sending = generate.click(handlers.send, asked, [sent, shown.status], js=how, trigger_mode="once", **private)
    sending.success(None, [sent], None, js=f"(sent) => darkroomJobs.add('{page}', sent)", **private)
    followed = gr.Button("Follow the next job", elem_id=f"{page}-follow", elem_classes="unseen").click(
        handlers.follow,
        [passing.box(), passing.box()],
        shown.outputs,
        js=f"() => darkroomJobs.next('{page}')",
        **private,
    )
    followed.then(None, None, [shown.gallery], js=f"() => darkroomJobs.ended('{page}', true)", **private)
    followed.failure(None, None, None, js=f"() => darkroomJobs.ended('{page}')", **private)
    gr.Button("Show earlier pictures", elem_id=f"{page}-look-back", elem_classes="unseen").click(
        handlers.look_back,
        [passing.box()],
        [shown.gallery, shown.infotext],
        js=f"() => [darkroomJobs.earlier('{page}')]",
        **private,
    )
    stop.click(
        handlers.cancel, [passing.box()], None, js=f"() => [darkroomJobs.current('{page}')]", queue=False, **private
    )


def _updates(view: stream.View) -> tuple[Update, ...]:
    """Values for gallery, status, preview and infotext; what the view leaves out stays as it is."""
    return (
        gr.skip() if view.gallery is None else view.gallery,
        gr.skip() if view.status is None else view.status,
        gr.skip() if view.preview is None else view.preview,
        gr.skip() if view.infotext is None else view.infotext,
    )
