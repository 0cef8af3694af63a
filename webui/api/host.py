"""``/api/host`` and the page ``/host``: who is there, what they use, and what the host decides. The owner's alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from fastapi.responses import FileResponse

from webui.api.seen import Seen
from webui.core.hosting import Hosting, Use
from webui.core.visitor import NOBODY, OWNER, Visitor
from webui.jobs.protocols import ENDED, Executor, Job

STATIC = Path(__file__).with_name("static")
PARTS = ("host.js", "host.css")
PROMPT_LETTERS = 120
CHANGES = ("limits", "paused", "closed", "message")


@dataclass(frozen=True)
class Host:
    """What the routes look at. ``sizes`` gives the bytes that each guest keeps, by their ids."""

    hosting: Hosting
    executor: Executor
    seen: Seen
    sizes: Callable[[], Mapping[str, int]]

    def show(self) -> dict[str, Any]:
        """All that the page shows."""
        decided = self.hosting.now
        jobs: dict[str, list[Job]] = {}
        for job in self.executor.jobs(OWNER):
            jobs.setdefault(job.visitor.turn, []).append(job)
        seen, sizes, uses = self.seen.all(), self.sizes(), self.executor.uses()
        ids = dict.fromkeys((*uses, *jobs, *seen, *sizes, *decided.banned))
        guests = [
            {
                "id": guest,
                "name": seen.get(guest, ("", 0))[0],
                "seen_s": round(seen[guest][1]) if guest in seen else None,
                "disk_mb": round(sizes.get(guest, 0) / 2**20, 1),
                "banned": guest in decided.banned,
                **_work(uses.get(guest, Use()), jobs.get(guest, ())),
            }
            for guest in ids
            if guest != OWNER.id
        ]
        return decided.model_dump(exclude={"banned"}) | {
            "guests": sorted(guests, key=lambda guest: (guest["seen_s"] is None, guest["seen_s"])),
            "owner": _work(uses.get(OWNER.id, Use()), jobs.get(OWNER.id, ())),
        }

    def stop(self, whose: Callable[[Visitor], bool]) -> int:
        """Cancels what waits and runs of these visitors; says how many jobs that were."""
        going = [job for job in self.executor.jobs(OWNER) if job.state not in ENDED and whose(job.visitor)]
        for job in going:
            job.cancel()
        return len(going)


def host_router(host: Host) -> APIRouter:
    """The routes of a server with guests."""
    router = APIRouter()

    @router.get("/host", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "host.html", headers={"Cache-Control": "no-cache"})

    @router.get("/host/static/{name}", include_in_schema=False)
    def part(name: str) -> FileResponse:
        if name not in PARTS:
            raise HTTPException(404, "there is no such file")
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})

    @router.get("/api/host")
    def show() -> dict[str, Any]:
        """Limits, what is paused, and each guest with their jobs and what they use."""
        return host.show()

    @router.patch("/api/host")
    def change(values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Any of ``limits`` (an object of some or all), ``paused``, ``closed``, ``message``."""
        if unknown := [name for name in values if name not in CHANGES]:
            raise HTTPException(422, f"{unknown[0][:80]!r} is none of {', '.join(CHANGES)}")
        host.hosting.change(values)
        return host.show()

    @router.post("/api/host/stop")
    def stop_all() -> dict[str, int]:
        """Ends the jobs of all guests."""
        return {"stopped": host.stop(lambda visitor: not visitor.is_owner)}

    @router.post("/api/host/guests/{guest}/stop")
    def stop(guest: str) -> dict[str, int]:
        """Ends one guest's jobs."""
        return {"stopped": host.stop(lambda visitor: visitor.turn == guest)}

    @router.put("/api/host/guests/{guest}/ban")
    def ban(guest: str) -> dict[str, Any]:
        """Shuts a guest out and ends their jobs."""
        if guest in (OWNER.id, NOBODY.id):
            raise HTTPException(422, "only a guest with a cookie can be blocked; take no new guests instead")
        host.hosting.ban(guest)
        host.stop(lambda visitor: visitor.id == guest)
        return host.show()

    @router.delete("/api/host/guests/{guest}/ban")
    def unban(guest: str) -> dict[str, Any]:
        """Lets a guest in again."""
        host.hosting.ban(guest, banned=False)
        return host.show()

    return router


def _work(use: Use, jobs: Sequence[Job]) -> dict[str, Any]:
    going = [job for job in jobs if job.state not in ENDED]
    return {
        "waiting": use.waiting,
        "pictures_this_hour": round(use.pictures, 1),
        "jobs": [
            {
                "id": job.id,
                "state": job.state,
                "position": job.position,
                "prompt": job.request.prompt[:PROMPT_LETTERS],
            }
            for job in going
        ],
        "done": len(jobs) - len(going),
    }
