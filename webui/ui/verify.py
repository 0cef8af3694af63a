"""The Verify button: draws a picture again and says whether it is the same."""

import asyncio
import base64
import html
import io
from collections.abc import AsyncIterator, Callable

from PIL.Image import Image as PilImage

from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Failed, Image
from webui.core.recipe import Recipe, RecipeError
from webui.core.sheet_verdict import draw_again
from webui.core.verdict import Verdict
from webui.jobs.protocols import Executor, QueueFull
from webui.ui.stream import MIN_INTERVAL_S, status_html

WORDS = {
    "identical": "Identical: redrawn, every pixel matches.",
    "equal": "Equal: redrawn, it differs no more than the changed environment explains"
    " (by up to {levels} of 255 levels): {reasons}.",
    "different": "Different: redrawn, it is another picture (by up to {levels} of 255 levels): {reasons}.",
}


async def verify(
    executor: Executor, picture: PilImage, recipe: Recipe, find_start: Callable[[str], PilImage | None]
) -> AsyncIterator[str]:
    """Status lines as HTML while it is drawn, then the verdict; where they differ, with both pictures side by side."""
    try:
        again = await asyncio.to_thread(lambda: draw_again(recipe, executor.catalog(), find_start))
        job = await asyncio.to_thread(executor.submit, again.work, keep=False)
    except (RecipeError, RequestError, QueueFull) as error:
        reason = f"This picture cannot be verified: {error}" if isinstance(error, RecipeError) else str(error)
        yield status_html(Failed(reason), None)
        return
    async for _, event in job.follow_async():
        if isinstance(event, Image):
            continue
        if isinstance(event, Done):
            break
        yield status_html(event, job)
        if isinstance(event, Failed | Cancelled):
            return
        await asyncio.sleep(MIN_INTERVAL_S)
    verdict = await asyncio.to_thread(again.judge, picture, job.images)
    yield await asyncio.to_thread(verdict_html, verdict)


def verdict_html(verdict: Verdict) -> str:
    """The verdict for people, every text escaped."""
    reasons = "; ".join(verdict.reasons) or "nothing that the recipe knows of has changed"
    text = WORDS[verdict.outcome].format(levels=verdict.max_difference, reasons=reasons)
    shown = ""
    if verdict.comparison and verdict.outcome != "identical":
        buffer = io.BytesIO()
        verdict.comparison.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        shown = (
            '<img class="comparison" alt="The picture, the one drawn again, and their difference"'
            f' src="data:image/png;base64,{data}">'
        )
    mark = f'data-outcome="{verdict.outcome}"'
    return (
        f'<div class="status" data-state="done" data-job="" {mark}>'
        f'<span class="status-text">{html.escape(text)}</span></div>{shown}'
    )
