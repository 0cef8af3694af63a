"""Many pictures at a time, boards and zips over HTTP: within the workspace of who asks, and bounded for guests."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages

from webui.api import history_many
from webui.api.errors import ERROR_ANSWERS
from webui.api.history import history_router
from webui.api.zips import Zips, zipped
from webui.core.compared import differing
from webui.core.events import Image
from webui.core.groups.hires import Hires
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.visitor import OWNER, Visitor, asked_by
from webui.workspace.outputs import save_picture
from webui.workspace.workspace import Workspaces

ANN, BOB, NEW = Visitor("a" * 32), Visitor("b" * 32), Visitor("c" * 32, is_new=True)
Client = Callable[[Visitor], TestClient]


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path)


@pytest.fixture
def as_visitor(workspaces: Workspaces) -> Client:
    """A client of who asks, over one server."""
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))
    app.include_router(history_router(workspaces.here, Zips()))

    def client(visitor: Visitor) -> TestClient:
        async def asked(scope: Any, receive: Any, send: Any) -> None:
            scope["visitor"] = visitor
            with asked_by(visitor):
                await app(scope, receive, send)

        return TestClient(asked)

    return client


def draw(workspaces: Workspaces, visitor: Visitor, *prompts: str) -> None:
    for prompt in prompts:
        picture = Image(0, PilImages.new("RGB", (64, 64)), Recipe(Request(prompt=prompt, seed=7)))
        save_picture(picture, workspaces.of(visitor).output_dir("txt2img"))


def ids(client: TestClient, **query: Any) -> list[str]:
    client.get("/api/history")
    return client.get("/api/history/ids", params=query).json()["ids"]


def test_many_are_deleted_brought_back_and_marked(workspaces: Workspaces, as_visitor: Client) -> None:
    draw(workspaces, ANN, "one", "two", "three")
    ann = as_visitor(ANN)
    all_of_them = ids(ann)
    some = all_of_them[:2]
    assert ann.post("/api/history/delete", json={"pictures": [*some, "0" * 24]}).json() == {"deleted": some}
    assert ids(ann) == all_of_them[2:]
    assert set(ann.post("/api/history/restore", json={"pictures": some}).json()["restored"]) == set(some)
    assert set(ids(ann)) == set(all_of_them)
    assert ann.post("/api/history/marks", json={"pictures": some, "favourite": True}).json() == {"marked": some}
    assert set(ids(ann, favourites=True)) == set(some)
    page = ann.get("/api/history", params={"order": "oldest", "offset": 1, "limit": 1}).json()
    assert page["total"] == 3 and len(page["pictures"]) == 1 and page["days"] == []
    assert [count for _, count in ann.get("/api/history").json()["days"]] == [3]


def test_boards_come_and_go(workspaces: Workspaces, as_visitor: Client) -> None:
    draw(workspaces, ANN, "one", "two")
    ann = as_visitor(ANN)
    one, _ = ids(ann)
    assert ann.put("/api/history/boards", json={"name": "  Night   series "}).json() == {"name": "Night series"}
    assert ann.put("/api/history/boards", json={"name": "night series"}).status_code == 422
    assert ann.post("/api/history/marks", json={"pictures": [one], "add_to": "Night series"}).is_success
    assert ids(ann, board="Night series") == [one]
    answer = ann.patch("/api/history/boards", json={"name": "Night series", "to": "../../etc <b>"})
    assert answer.json() == {"name": "../../etc <b>"}
    told = ann.get("/api/history/boards").json()
    assert told["boards"] == [{"name": "../../etc <b>", "pictures": 1}] and told["pictures"] == 2
    assert ann.delete("/api/history/boards", params={"name": "../../etc <b>"}).is_success
    assert ann.delete("/api/history/boards", params={"name": "../../etc <b>"}).status_code == 422
    assert len(ids(ann)) == 2 and ann.get("/api/history/boards").json()["boards"] == []


def test_nobody_reaches_anothers(workspaces: Workspaces, as_visitor: Client, tmp_path: Path) -> None:
    draw(workspaces, ANN, "hers")
    ann, bob = as_visitor(ANN), as_visitor(BOB)
    hers = ids(ann)
    ann.put("/api/history/boards", json={"name": "Hers"})
    for route, body in (("delete", {}), ("restore", {}), ("marks", {"favourite": True}), ("marks", {"add_to": "Hers"})):
        found = bob.post(f"/api/history/{route}", json={"pictures": hers, **body}).json()
        assert [*found.values()] == [[]], route
    assert bob.post("/api/history/zip", data={"pictures": hers[0]}).status_code == 404
    assert bob.get(f"/api/history/{hers[0]}/differences/{hers[0]}").status_code == 404
    assert bob.get("/api/history/boards").json()["boards"] == [] and ids(bob, board="Hers") == []
    assert ids(ann) == hers
    assert as_visitor(NEW).put("/api/history/boards", json={"name": "x"}).status_code == 404
    assert not (tmp_path / "visitors" / NEW.id).exists(), "nothing is kept for who will not come back"


def test_a_zip_has_the_pictures_and_is_bounded_for_guests(
    workspaces: Workspaces, as_visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for visitor in (ANN, OWNER):
        draw(workspaces, visitor, "one", "two", "three")
    ann, owner = as_visitor(ANN), as_visitor(OWNER)
    some = ids(ann)[:2]
    answer = ann.post("/api/history/zip", data={"pictures": ",".join(some)})
    assert answer.headers["content-disposition"] == 'attachment; filename="pictures.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    pictures = workspaces.of(ANN).history.find_all(some)
    names = {f"txt2img/{one.path.parent.name}/{one.path.name}": one.path.read_bytes() for one in pictures}
    assert archive.testzip() is None and {name: archive.read(name) for name in archive.namelist()} == names
    monkeypatch.setattr(history_many, "GUESTS_ZIP_PICTURES", 1)
    assert ann.post("/api/history/zip", data={"pictures": ",".join(some)}).status_code == 422
    assert owner.post("/api/history/zip", data={"pictures": ",".join(ids(owner))}).is_success


def test_a_zip_is_never_whole_in_memory_and_ends_where_nobody_reads_on(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(5 * 2**20))
    pieces = [len(piece) for piece in zipped([(large, "a.png"), (tmp_path / "gone.png", "b.png"), (large, "c.png")])]
    assert max(pieces) < 2**20 + 1000 and sum(pieces) > 10 * 2**20
    zips = Zips()
    answers = [zips.answer(ANN, [(large, "a.png")], "x.zip") for _ in range(2)]
    with pytest.raises(Exception, match="on their way"):
        zips.answer(ANN, [], "x.zip")
    zips.answer(BOB, [], "x.zip")
    answers.pop()
    zips.answer(ANN, [], "x.zip")


@pytest.mark.parametrize("query", [{"query": "steps:many"}, {"order": "random"}, {"before": "1-2", "order": "oldest"}])
def test_what_is_not_understood_is_said(as_visitor: Client, query: dict[str, str]) -> None:
    answer = as_visitor(OWNER).get("/api/history", params=query)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(
        ("steps takes", "order must be", "before goes")
    )


def test_two_pictures_settings_differ_in(workspaces: Workspaces, as_visitor: Client) -> None:
    one = Recipe(Request(prompt="a cat", seed=1, width=64, height=64, loras=("night:0.8",)))
    other = Recipe(Request(prompt="a cat", seed=2, width=96, height=64, hires=Hires(strength=0.4), steps=30))
    found = {name: (left, right) for name, left, right in differing(one, other)}
    assert found["LoRA night"] == ("0.8", "–") and found["Seed"] == ("1", "2") and found["Steps"] == ("20", "30")
    assert found["Size"] == ("64 × 64", "96 × 64") and found["Hires fix: strength"] == ("–", "0.4")
    assert "Prompt" not in found and "Sampler" not in found and differing(one, one) == []
    enlarged = Recipe(Request(prompt="a cat", seed=1, loras=("night:0.8",)))  # it has no size of its own
    assert differing(one, enlarged) == [("Size", "64 × 64", "–")]
    foreign = replace(one, pictures={"controls.1.image": "0" * 64, "x": "1" * 64})
    assert differing(one, foreign) == [("Controls 1: image", "–", "0" * 12), ("x ", "–", "1" * 12)]
    draw(workspaces, OWNER, "a cat", "a dog")
    owner = as_visitor(OWNER)
    first, second = ids(owner)
    told = owner.get(f"/api/history/{first}/differences/{second}").json()
    assert told == {"differences": [{"name": "Prompt", "one": "a dog", "other": "a cat"}], "problem": ""}
