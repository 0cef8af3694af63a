"""``/api/finders``: what can find parts of a picture, for the page's rows of details and for scripts."""

from fastapi import APIRouter

from webui.core.names import FINDERS
from webui.jobs.protocols import Executor


def finders_router(executor: Executor) -> APIRouter:
    """The route over one executor."""
    router = APIRouter(prefix="/api/finders")

    @router.get("")
    def finders(reload: bool = False) -> list[str]:
        """Names that a detail can have: those that are no files first, then the files that are not refused already."""
        if reload:
            executor.reload()
        return [*FINDERS, *(name for name, file in executor.catalog().finders.items() if not file.problem)]

    return router
