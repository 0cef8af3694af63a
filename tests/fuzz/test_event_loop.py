"""Pictures are read, written and hashed off the event loop, whatever is asked: it has everybody's answers to give."""

import asyncio
import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PilImages
from PIL import ImageFile

from tests.fuzz import inputs
from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.jobs.executor import LocalExecutor
from webui.ui import png_info, stream
from webui.ui.verify import verify

WORK = [
    (PilImages.Image, "save"),
    (PilImages.Image, "tobytes"),
    (PilImages.Image, "convert"),
    (ImageFile.ImageFile, "load"),
]


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of a picture was worked on there."""
    seen: list[str] = []

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            if asyncio._get_running_loop() is not None:
                seen.append(name)
            return work(*args, **options)

        return act

    for owner, name in WORK:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    return seen


PICTURE = inputs.picture(size=(64, 64))
TEXT = base64.b64encode(PICTURE).decode("ascii")


async def _finished(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    job: str = (await client.post("/api/jobs", json=body)).json()["id"]
    async with client.stream("GET", f"/api/jobs/{job}/events") as events:
        said = [line async for line in events.aiter_lines()]
    assert any('"event": "image"' in line for line in said) and any('"event": "done"' in line for line in said), said
    return job


def test_the_watch_sees_what_is_done_there(on_the_loop: list[str]) -> None:
    async def work() -> None:
        PilImages.new("RGB", (8, 8)).tobytes()

    asyncio.run(work())
    assert on_the_loop == ["tobytes"]


def test_routes(app: Any, on_the_loop: list[str]) -> None:
    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as client:
            init = {"image": TEXT, "mask": TEXT, "strength": 0.5}
            job = await _finished(client, {"steps": 1, "seed": 1, "init": init})
            drawn = {"steps": 1, "width": 64, "height": 64}
            for method, path, options in (
                ("GET", f"/api/jobs/{job}?pictures=true", {}),
                ("GET", f"/api/jobs/{job}/images/0", {}),
                ("POST", "/api/info", {"content": PICTURE}),
                ("POST", "/sdapi/v1/png-info", {"json": {"image": TEXT}}),
                ("POST", "/sdapi/v1/img2img", {"json": drawn | {"init_images": [TEXT], "mask": TEXT}}),
            ):
                answer = await client.request(method, path, **options)
                assert answer.status_code == 200, (path, answer.text)

    asyncio.run(ask())
    assert on_the_loop == []


def test_a_picture_is_shown_without_what_it_began_with_unless_asked(app: Any) -> None:
    async def ask() -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as client:
            job = await _finished(client, {"steps": 1, "init": {"image": TEXT, "strength": 0.4}})
            ways = (f"/api/jobs/{job}", f"/api/jobs/{job}?pictures=true")
            return [(await client.get(way)).json()["request"]["init"] for way in ways]

    without, with_pictures = asyncio.run(ask())
    assert "image" not in without and without["strength"] == 0.4
    assert PilImages.open(io.BytesIO(base64.b64decode(with_pictures["image"]))).size == (64, 64)


def test_pages(executor: LocalExecutor, tmp_path: Path, on_the_loop: list[str]) -> None:
    request = Request(steps=1, seed=3, width=64, height=64)
    drawn = Image(0, PilImages.new("RGB", (64, 64), (0, 0, 0)), Recipe(request, {"model": {"demo": "0" * 16}}))
    path = tmp_path / "made.png"
    drawn.save(path)

    async def follow() -> None:
        job = executor.submit(request, keep=False)
        views = [view async for view in stream.watch(job, tmp_path / "cache")]
        assert views[-1].gallery
        assert [status async for status in verify(executor, drawn.image, drawn.recipe, lambda _: None)]
        assert [status async for status in png_info._verify(str(path), executor, lambda _: None)]

    asyncio.run(follow())
    assert on_the_loop == []
