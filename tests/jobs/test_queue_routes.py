"""``/api/queue`` and what is asked of a job that waits or is drawn, each visitor for themselves."""

import base64
import io
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages
from starlette.types import Receive, Scope, Send

from webui.api.jobs import jobs_router
from webui.core.events import Step
from webui.core.visitor import OWNER, Visitor, asked_by
from webui.jobs.executor import LocalExecutor
from webui.jobs.protocols import Job
from webui.jobs.visitors import VisitorsExecutor
from webui.workspace.workspace import Workspaces

WAIT_S = 20
SMALL = {"steps": 4, "width": 64, "height": 64}


def picture() -> str:
    buffer = io.BytesIO()
    PilImages.new("RGB", (400, 200), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def visitors(executor: LocalExecutor, settings) -> Iterator[dict[str, TestClient]]:
    """Clients of the owner and of two guests."""
    app = FastAPI()
    app.include_router(jobs_router(VisitorsExecutor(executor), Workspaces(settings.data_dir).here))

    def of(visitor: Visitor) -> TestClient:
        async def asked(scope: Scope, receive: Receive, send: Send) -> None:
            with asked_by(visitor):
                await app({**scope, "visitor": visitor}, receive, send)

        return TestClient(asked)

    yield {visitor.id: of(visitor) for visitor in (OWNER, Visitor("ann"), Visitor("bob"))}


def send(client: TestClient, **fields) -> str:
    answer = client.post("/api/jobs", json={**SMALL, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def told(client: TestClient, *names: str) -> list[tuple]:
    return [tuple(job[name] for name in names) for job in client.get("/api/queue").json()]


def wait_for_end(executor: LocalExecutor, job_id: str) -> Job:
    job = executor.job(job_id)
    assert job and list(job.follow())
    return job


def test_each_sees_their_own_in_the_order_of_their_turns_and_how_many_come_before(executor, engine, visitors):
    engine.hold()
    owner, ann, bob = visitors.values()
    first = send(owner, prompt="the first", repeat=2)
    engine.begun.get(timeout=WAIT_S)
    assert executor.job(first).position is None  # though it has told nothing else yet
    hers = [send(ann, prompt=f"ann {number}", seed=1) for number in range(2)]
    send(bob, prompt="x" * 500, init={"image": picture(), "strength": 0.5})
    engine.let(2)
    next(event for _, event in executor.job(first).follow() if isinstance(event, Step) and event.index == 2)
    assert told(owner, "id", "state", "progress", "ahead", "pictures", "finished") == [
        (first, "running", 0.25, 0, 2, 0)
    ]
    assert told(ann, "id", "ahead", "task", "size") == [
        (hers[0], 1, "txt2img", [64, 64]),
        (hers[1], 2, "txt2img", [64, 64]),
    ]
    (his,) = bob.get("/api/queue").json()
    assert his["task"] == "img2img" and len(his["prompt"]) == 120 and his["preview"] == "start"
    assert owner.get(f"/api/jobs/{first}/preview").content == b"preview 1"
    shown = bob.get(f"/api/jobs/{his['id']}/preview")
    assert shown.headers["content-type"] == "image/jpeg"
    assert PilImages.open(io.BytesIO(shown.content)).size == (64, 64)  # as it is drawn from
    assert ann.get(f"/api/jobs/{hers[0]}/preview").status_code == 404  # there is nothing to see yet
    assert ann.get(f"/api/jobs/{his['id']}/preview").status_code == 404


def test_each_moves_and_skips_their_own(executor, engine, visitors):
    engine.hold()
    owner, ann, bob = visitors.values()
    first = send(owner, repeat=2, seed=1)
    engine.begun.get(timeout=WAIT_S)
    hers = [send(ann, seed=number) for number in range(3)]
    (his,) = [send(bob)]
    moved = ann.post(f"/api/jobs/{hers[2]}/move", json={"before": hers[0]})
    assert moved.status_code == 200 and moved.json()["position"] == 1
    assert [job_id for (job_id,) in told(ann, "id")] == [hers[2], hers[0], hers[1]]
    assert ann.post(f"/api/jobs/{hers[2]}/move", json={"before": None}).status_code == 200
    assert [job_id for (job_id,) in told(ann, "id")] == hers
    for job_id, before, status in (
        *((his, None, 404), ("0" * 32, None, 404)),
        *((hers[0], his, 409), (hers[0], "nothing", 409)),
    ):
        assert ann.post(f"/api/jobs/{job_id}/move", json={"before": before}).status_code == status
    assert owner.post(f"/api/jobs/{first}/move", json={"before": None}).status_code == 409
    assert ann.post(f"/api/jobs/{hers[0]}/move", json={"before": 5}).status_code == 422
    assert ann.post(f"/api/jobs/{first}/skip").status_code == 404
    assert ann.post(f"/api/jobs/{hers[0]}/skip").status_code == 409
    engine.let()
    next(event for _, event in executor.job(first).follow() if isinstance(event, Step))
    assert owner.post(f"/api/jobs/{first}/skip").status_code == 202
    assert engine.begun.get(timeout=WAIT_S).repeat == 2  # the second picture of the same
    engine.go_on()
    assert [picture.index for picture in wait_for_end(executor, first).images] == [1]
