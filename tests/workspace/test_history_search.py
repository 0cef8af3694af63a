"""Pictures are found by words and settings, in every order; on boards; many at a time."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image as PilImages

from tests.workspace.test_history import Folder
from webui.core.errors import RequestError
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.workspace import marks
from webui.workspace.history import Filter, HistoryError
from webui.workspace.search import read_query


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, str]]:
    """Four pictures, by what they are called here."""
    folder = Folder(tmp_path_factory.mktemp("history"))
    names = {
        "apple": folder.draw(
            "a red apple",
            steps=12,
            guidance=4.5,
            sampler="Euler a",
            schedule="Karras",
            model="Ünïque",
            negative="Blurry",
        ),
        "panda": folder.draw("Panda <lora:night:0.5>", steps=20, loras=("Ink Wash:1",)),
        "start": folder.save(
            Recipe(Request(prompt="an owl", seed=2**53 - 1, steps=30), start={"image": "0" * 64, "strength": 0.3})
        ),
    }
    foreign = folder.outputs / "txt2img" / "foreign.png"
    PilImages.new("RGB", (96, 64)).save(foreign)
    names["foreign"] = folder.date(foreign)
    return folder, {name: path.name for name, path in names.items()}


QUERIES = {
    "seed:7": "apple panda",
    "seed:9007199254740991": "start",
    "steps>15": "panda start",
    "steps>=20": "panda start",
    "steps:<20": "apple",
    "steps:10-20": "apple panda",
    "cfg:4.5": "apple",
    "guidance=5": "panda start",
    "size:64x64": "apple panda start",
    "size:96×64": "foreign",
    "width:96": "foreign",
    'sampler:"euler A"': "apple",
    "sampler:dpm": "panda start",
    "schedule:karras": "apple",
    "model:ünï": "apple",
    "lora:ink": "panda",
    "negative:blur": "apple",
    "strength<0.5": "start",
    "kind:img2img": "start",
    "kind:txt2img apple": "apple",
    "APPLE steps:12": "apple",
    '"red apple"': "apple",
    '"apple red"': "",
    "<lora:night:0.5>": "panda",
    "steps:": "apple panda start foreign",
    "colour:red": "",
    "foreign": "foreign",
}


@pytest.mark.parametrize("query", QUERIES)
def test_settings_are_looked_for_beside_words(drawn, query: str) -> None:
    folder, names = drawn
    assert set(folder.names(query=query)) == {names[name] for name in QUERIES[query].split()}


@pytest.mark.parametrize(
    "query", ["steps:many", "size:512", "kind:drawing", "seed:-1", "cfg>4-5", "seed:99999999999999999999"]
)
def test_what_is_not_understood_is_said(query: str) -> None:
    name = query.partition(":")[0].partition(">")[0]
    with pytest.raises(RequestError, match=f"^{name} "):
        read_query(query)


@pytest.mark.parametrize("query", ["'", '"', "a:b:c", "steps", ":", "<>", "%_\\", "lora:" + "x" * 500, "a " * 500])
def test_whatever_is_typed_is_a_question(drawn, query: str) -> None:
    assert isinstance(drawn[0].names(query=query), list)


def test_orders_pages_and_days(drawn) -> None:
    folder, names = drawn
    history = folder.history()
    newest = [names[name] for name in ("foreign", "start", "panda", "apple")]
    assert folder.names() == newest and folder.names(order="oldest") == newest[::-1]
    assert folder.names(order="prompt") == [names[name] for name in ("apple", "start", "panda", "foreign")]
    assert folder.names(order="largest")[0] == names["foreign"]
    page = history.search(Filter(), limit=2, offset=1)
    assert [picture.path.name for picture in page.pictures] == newest[1:3] and page.total == 4
    first = history.search(Filter(order="oldest"))
    assert sum(count for _, count in first.days) == 4 and first.days == tuple(sorted(first.days))
    assert history.search(Filter()).days == first.days[::-1] and history.search(Filter(order="prompt")).days == ()
    ids = history.ids(Filter())
    assert [picture.path.name for picture in history.find_all(ids)] == newest and history.ids(Filter(), 1, 2) == ids[
        1:3
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_boards_are_named_collections_that_outlive_the_index(folder: Folder) -> None:
    apple, panda, _ = folder.draw("a red apple"), folder.draw("a panda"), folder.draw("an owl")
    history = folder.history()
    _, second, first = history.search(Filter()).pictures
    for name in ("Stickers", "Night"):
        history.change_marks(marks.adding_board(name))
    history.mark([first, second], "Stickers", True)
    history.mark([first], "Night", True)
    assert folder.names(board="Stickers") == [panda.name, apple.name] and folder.names(board="Night") == [apple.name]
    kept = json.loads((folder.outputs / "boards.json").read_text())
    assert kept["Night"] == [f"txt2img/2026-11-25/{apple.name}"]
    for file in folder.cache.iterdir():
        file.unlink()
    assert folder.names(board="Stickers") == [panda.name, apple.name]
    history.change_marks(marks.renaming_board("Night", "Day"))
    history.mark(history.search(Filter(board="Stickers")).pictures[:1], "Stickers", False)
    found = history.overview()
    assert (found.pictures, found.favourites, found.boards) == (3, 0, {"Day": 1, "Stickers": 1})
    history.change_marks(marks.removing_board("Stickers"))
    assert folder.history().overview().boards == {"Day": 1} and folder.names() != []


def test_a_board_keeps_what_is_deleted_and_brought_back(folder: Folder) -> None:
    for number in range(4):
        folder.draw(f"number {number}")
    history = folder.history()
    history.change_marks(marks.adding_board("Stickers"))
    pictures = history.search(Filter()).pictures
    history.mark(pictures[:3], "Stickers", True)
    gone = history.delete_all(pictures[1:3])
    assert [picture.id for picture in gone] == [picture.id for picture in pictures[1:3]]
    assert history.search(Filter(board="Stickers")).total == 1 and history.search(Filter()).total == 2
    back = history.restore_all([picture.id for picture in gone] + ["0" * 24])
    assert {picture.id for picture in back} == {picture.id for picture in gone}
    assert folder.history().search(Filter(board="Stickers")).total == 3


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x07b"])
def test_names_that_boards_cannot_have(name: str) -> None:
    with pytest.raises(RequestError):
        marks.read_name(name)


def test_boards_that_are_not_there_or_there_already(folder: Folder) -> None:
    folder.draw("a red apple")
    history = folder.history()
    (picture,) = history.search(Filter()).pictures
    history.change_marks(marks.adding_board("Stickers"))
    for change in (marks.adding_board("stickers"), marks.renaming_board("x", "y"), marks.removing_board("")):
        with pytest.raises(RequestError):
            history.change_marks(change)
    with pytest.raises(RequestError, match="no board 'Night'"):
        history.mark([picture], "Night", True)
    history.change_marks(marks.renaming_board("Stickers", "STICKERS"))
    assert list(history.overview().boards) == ["STICKERS"]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "[" * 100_000])
def test_a_file_of_boards_that_is_broken_is_left_alone(folder: Folder, text: str) -> None:
    folder.draw("a red apple")
    (folder.outputs / "boards.json").write_text(text)
    history = folder.history()
    (picture,) = history.search(Filter()).pictures
    assert "boards.json" in history.overview().problem
    history.set_favourite(picture, True)
    assert folder.names(favourites=True) == [picture.path.name]
    for change in (marks.adding_board("Stickers"), marks.removing_board("Stickers")):
        with pytest.raises(HistoryError, match="boards.json"):
            history.change_marks(change)
    history.delete(picture)
    assert (folder.outputs / "boards.json").read_text() == text and history.restore(picture.id).favourite


def test_folders_in_which_nothing_came_or_went_are_not_looked_into(folder: Folder) -> None:
    path = folder.draw("a red apple")
    past = path.parent.stat().st_mtime - 3600
    for place in (path.parent, path.parent.parent, folder.outputs):
        os.utime(place, (past, past))
    history = folder.history()
    assert history.search(Filter()).total == 1
    PilImages.new("RGB", (32, 32)).save(path)  # in its place, as some programs do
    assert history.search(Filter()).pictures[0].width == 64
    history.refresh(thorough=True)
    assert history.search(Filter()).pictures[0].width == 32
    folder.draw("a panda")
    assert history.search(Filter()).total == 2
