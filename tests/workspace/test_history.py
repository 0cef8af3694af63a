"""The index of finished pictures: made from the files, lost without loss, quick with ten thousand of them."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo

from webui.core.events import Image
from webui.core.recipe import Recipe, RecipeError, read_picture
from webui.core.request import Request
from webui.workspace import history as history_module
from webui.workspace import picture_files
from webui.workspace.history import Filter, History, Page
from webui.workspace.index import RETRY_S, Index
from webui.workspace.outputs import save_picture
from webui.workspace.picture_files import MAX_INTEGER, describe, local_time

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_PAGE_S = 0.3


class Folder:
    """Outputs and a cache, and pictures of which each is a minute newer than the one before."""

    def __init__(self, root: Path) -> None:
        self.outputs, self.cache = root / "outputs", root / "cache"
        self.made = 0

    def history(self) -> History:
        return History(self.outputs, self.cache)

    def draw(self, prompt: str, file_format: str = "png", **fields) -> Path:
        return self.save(Recipe(Request(prompt=prompt, seed=7, **fields), {"model": {"demo": "0" * 64}}), file_format)

    def save(self, recipe: Recipe, file_format: str = "png") -> Path:
        picture = Image(0, PilImages.new("RGB", (64, 64), "red"), recipe)
        return self.date(save_picture(picture, self.outputs / "txt2img" / "2026-11-25", file_format))

    def date(self, path: Path) -> Path:
        self.made += 1
        os.utime(path, (1_700_000_000 + 60 * self.made,) * 2)
        return path

    def names(self, **wanted) -> list[str]:
        return [picture.path.name for picture in self.history().search(Filter(**wanted)).pictures]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def search(history: History, **wanted: Any) -> Page:
    """With every file read, however long that takes."""
    history.refresh()
    return history.search(Filter(**wanted))


def test_pictures_are_found_by_what_made_them(folder: Folder) -> None:
    apple = folder.draw("a red Apple, 100% ripe", model="one")
    panda = folder.draw("a PANDA in Zürich", "jpeg", model="two", loras=("sepia:0.8", "night:1"))
    sun = folder.draw("a sun", "webp", model="two")
    assert folder.names() == [sun.name, panda.name, apple.name]
    assert folder.names(query="apple RED") == [apple.name]
    assert folder.names(query="zÜrich") == [panda.name]
    assert folder.names(query="100%") == [apple.name] and folder.names(query="%") == [apple.name]
    assert folder.names(query="_") == [] and folder.names(query="a' OR 1=1 --") == []
    assert folder.names(query="00002-7") == [panda.name]
    assert folder.names(model="two") == [sun.name, panda.name] and folder.names(model="tw") == []
    assert folder.names(lora="sepia") == [panda.name] and folder.names(lora="sep") == []
    page = folder.history().search(Filter())
    assert (page.models, page.loras, page.total, page.unread) == (("one", "two"), ("night", "sepia"), 3, 0)
    assert page.pictures[1].loras == ("sepia", "night") and (page.pictures[1].width, page.pictures[1].height) == (
        64,
        64,
    )
    assert read_picture(page.pictures[1].path).request.loras[0].weight == 0.8


def test_pictures_are_found_by_the_loras_in_their_prompts_too(folder: Folder) -> None:
    request = Request(prompt="a [<lora:ink:1>:0.5] cat", seed=7, loras=("sepia:0.8",))
    path = folder.save(Recipe(request, {"lora": {"sepia": "1" * 64, "ink": "2" * 64}}))
    assert folder.names(lora="ink") == folder.names(lora="sepia") == [path.name]
    assert folder.history().search(Filter()).pictures[0].loras == ("sepia", "ink")


def test_days_count_from_the_first_to_the_last(folder: Folder) -> None:
    path = folder.draw("a red apple")
    noon = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))
    os.utime(path, (noon, noon))
    day, before, after = date(2026, 3, 5), date(2026, 3, 4), date(2026, 3, 6)
    assert folder.names(first_day=day, last_day=day) == [path.name]
    assert folder.names(first_day=date.min, last_day=before) == folder.names(first_day=after, last_day=date.max) == []


def test_a_new_a_changed_and_a_removed_file_show_at_once(folder: Folder) -> None:
    history = folder.history()
    assert history.search(Filter()).total == 0
    path = folder.draw("a red apple")
    first = history.search(Filter()).pictures
    assert [picture.prompt for picture in first] == ["a red apple"]
    path.unlink()
    folder.draw("a green apple").rename(path)
    assert [(picture.id, picture.prompt) for picture in history.search(Filter()).pictures] == [
        (first[0].id, "a green apple")
    ]
    path.unlink()
    assert history.search(Filter()).total == 0 and history.find(first[0].id) is None


def test_pages_follow_each_other_without_gap_or_repetition(folder: Folder) -> None:
    drawn = [folder.draw(f"number {number}").name for number in range(7)]
    same_time = time.time()
    for path in folder.outputs.rglob("*.png"):
        os.utime(path, (same_time, same_time))
    history, before, seen = folder.history(), "", []
    for _ in range(3):
        page = history.search(Filter(), before, limit=3)
        seen += [picture.path.name for picture in page.pictures]
        before = page.next
    assert sorted(seen) == sorted(drawn) and before is None
    for cursor in ("nonsense", "9" * 19 + "-" + "0" * 24, "-" + "9" * 19 + "-" + "0" * 24, "1-../../x"):
        assert history.search(Filter(), cursor).total == 7


def test_favourites_survive_the_index(folder: Folder) -> None:
    apple, _ = folder.draw("a red apple"), folder.draw("a panda")
    history = folder.history()
    history.set_favourite(history.search(Filter()).pictures[1], True)
    assert folder.names(favourites=True) == [apple.name]
    assert (folder.outputs / "favourites.txt").read_text() == f"txt2img/2026-11-25/{apple.name}\n"
    for file in folder.cache.iterdir():
        file.unlink()
    assert (
        folder.names(favourites=True)
        == [apple.name]
        == [p.path.name for p in history.search(Filter(favourites=True)).pictures]
    )
    history.set_favourite(history.search(Filter(favourites=True)).pictures[0], False)
    assert folder.names(favourites=True) == []


def test_favourites_of_another_process_are_taken_over(folder: Folder) -> None:
    apple = folder.draw("a red apple")
    one, other = folder.history(), folder.history()
    assert not one.search(Filter(favourites=True)).total
    other.set_favourite(other.search(Filter()).pictures[0], True)
    assert one.search(Filter(favourites=True)).total == 1
    (folder.outputs / "favourites.txt").write_text("../../etc/passwd\n\n")  # by hand
    assert one.search(Filter(favourites=True)).total == 0 and apple.exists()


def test_a_file_is_known_by_its_path_too(folder: Folder, tmp_path: Path) -> None:
    first, second = folder.draw("a cat"), folder.draw("a dog")
    elsewhere, missing = tmp_path / "a.png", folder.outputs / "txt2img" / "none.png"
    ids = folder.history().ids_of([second, first, elsewhere, missing])
    assert ids == {picture.path: picture.id for picture in folder.history().search(Filter()).pictures}
    assert {*ids} == {first, second} and folder.history().ids_of([]) == {}


def test_what_is_deleted_can_be_restored(folder: Folder) -> None:
    path = folder.draw("a red apple")
    data, history = path.read_bytes(), folder.history()
    picture = history.search(Filter()).pictures[0]
    history.set_favourite(picture, True)
    history.delete(picture)
    assert not path.exists() and history.search(Filter()).total == 0 and folder.names(favourites=True) == []
    assert [file.read_bytes() for file in (folder.outputs / ".trash").rglob("*.png")] == [data]
    taken = folder.draw("a red apple", model="another")
    assert taken == path  # its number was free again
    back = History(folder.outputs, folder.cache / "another").restore(picture.id)
    assert (back.id, back.prompt, back.favourite, back.path.read_bytes()) == (picture.id, "a red apple", True, data)
    assert back.path.parent == path.parent and back.path != path and history.find(back.id) is None
    assert [p.model for p in history.search(Filter(favourites=True)).pictures] == ["demo"]
    assert list((folder.outputs / ".trash").iterdir()) == []


def test_what_else_lies_in_the_trash_stays_there(folder: Folder) -> None:
    folder.draw("a red apple")
    history = folder.history()
    picture = history.search(Filter()).pictures[0]
    history.set_favourite(picture, True)
    history.delete(picture)
    trashed = next((folder.outputs / ".trash").rglob("*.png"))
    (trashed.parent / ".DS_Store").touch()
    back = history.restore(picture.id)
    assert (back.path, back.favourite) == (picture.path, True) and picture.path.exists()


@pytest.mark.parametrize("picture_id", ["", "..", "../..", "0" * 24, "\0" * 24, "a" * 23 + "\n"])
def test_ids_are_never_paths(folder: Folder, picture_id: str) -> None:
    folder.draw("a red apple")
    history = folder.history()
    history.delete(history.search(Filter()).pictures[0])
    assert history.find(picture_id) is None and history.restore(picture_id) is None


def test_hostile_and_foreign_files(folder: Folder, tmp_path: Path) -> None:
    place = folder.outputs / "txt2img"
    place.mkdir(parents=True)
    texts = {"nonsense": "{", "newer": json.dumps({"schema": 99}), "deep": "[" * 100_000}
    for name, text in texts.items():
        info = PngInfo()
        info.add_itxt("darkroom", text)
        PilImages.new("RGB", (64, 64)).save(place / f"{name}.png", pnginfo=info)
    PilImages.new("L", (64, 64)).save(place / "foreign.jpg")
    (place / "no picture.png").write_text("<script>alert(1)</script>")
    (place / "empty.png").touch()
    (place / ".hidden.png").write_bytes((place / "foreign.jpg").read_bytes())
    secret = tmp_path / "secret.png"
    PilImages.new("RGB", (64, 64)).save(secret)
    if os.name != "nt":
        (place / "link.png").symlink_to(secret)
        (folder.outputs / "linked").symlink_to(tmp_path)
        (place / "two\nlines.png").write_bytes(secret.read_bytes())
        Path(os.fsdecode(bytes(place) + b"/\xff.png")).write_bytes(secret.read_bytes())
    hostile = '<img src=x onerror=alert(1)> "; DROP TABLE pictures; --'
    folder.draw(hostile, model=hostile)
    history = folder.history()
    shown = {picture.path.stem: picture for picture in history.search(Filter()).pictures}
    ours = shown.pop(next(name for name in shown if name.startswith("00001")))
    assert sorted(shown) == ["deep", "foreign", "newer", "nonsense"]
    assert ours.prompt == ours.model == hostile and folder.names(model=hostile) == [ours.path.name]
    assert read_picture(shown["foreign"].path) is None and folder.names(query="foreign") == ["foreign.jpg"]
    with pytest.raises(RecipeError):
        read_picture(shown["newer"].path)


@pytest.mark.parametrize("harm", ["text", "cut", "other schema"])
def test_a_broken_index_is_made_anew(folder: Folder, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(60):
        folder.draw(f"number {number} {'long ' * 100}")
    history = folder.history()
    history.set_favourite(search(history).pictures[0], True)
    index = folder.cache / "history.sqlite"
    if harm == "other schema":
        with sqlite3.connect(index) as db:
            db.execute("DROP TABLE pictures")
            db.execute("PRAGMA user_version = 77")
        db.close()
    else:
        data = index.read_bytes()
        index.write_bytes(b"this is no index " * 1000 if harm == "text" else data[: len(data) // 2])
    assert search(history).total == 60 and search(history, favourites=True).total == 1
    assert ("is made anew" in caplog.text) == (harm != "other schema")


def test_without_a_folder_for_the_index_it_is_in_memory(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    path = folder.draw("a red apple")
    folder.cache.write_text("a file where the folder should be")
    history = folder.history()
    (picture,) = search(history, query="apple").pictures
    assert picture.path == path and history.find(picture.id) == picture
    history.set_favourite(picture, True)
    folder.draw("a panda")
    assert search(history).total == 2 and search(history, favourites=True).total == 1
    history.delete(picture)
    assert search(history).total == 1
    assert history.restore(picture.id) and search(history, favourites=True).total == 1
    assert caplog.text.count("is kept in memory") == 1


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_full_or_read_only_disk_keeps_nobody_from_the_history(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The index goes on in memory with the ids that pictures had, and back to the disk when that can be written."""
    connect, file, now, troubled = sqlite3.connect, folder.cache / "history.sqlite", [0.0], [trouble]

    def connect_to_trouble(path: Any, **options: Any) -> sqlite3.Connection:
        if path != file or not troubled:
            return connect(path, **options)
        if trouble == "read-only":
            return connect(f"{path.as_uri()}?mode=ro", uri=True, **options)
        db = connect(path, **options)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    folder.draw("a red apple")
    before = search(folder.history()).pictures
    monkeypatch.setattr(sqlite3, "connect", connect_to_trouble)
    history = folder.history()
    history._index = history._reader._index = Index(file, lambda: now[0])
    drawn = [folder.draw(f"number {number} {'long ' * 500}") for number in range(10)]
    found = search(history).pictures
    assert [picture.path for picture in found] == [*drawn[::-1], before[0].path] and found[-1] == before[0]
    history.set_favourite(found[3], True)
    now[0] += RETRY_S
    assert [picture.id for picture in search(history).pictures] == [picture.id for picture in found]
    troubled.clear()
    now[0] += RETRY_S
    again = search(history).pictures
    assert [picture.id for picture in again] == [picture.id for picture in found]
    assert search(folder.history()).pictures == again, "the file is what the index in memory was"
    assert [picture.path for picture in search(folder.history(), favourites=True).pictures] == [drawn[-4]]


def test_times_that_the_index_cannot_hold_are_the_nearest_it_can(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few disks hold them, so these are made up from the files' own."""
    old, new = folder.draw("a red apple"), folder.draw("a panda")
    middle_ns = (old.stat().st_mtime_ns + new.stat().st_mtime_ns) // 2

    def identify(state: os.stat_result) -> tuple[int, int]:
        far_ns = (state.st_mtime_ns - middle_ns) * 10**10
        return picture_files_identify(SimpleNamespace(st_mtime_ns=far_ns, st_size=state.st_size))

    picture_files_identify = picture_files.identify
    monkeypatch.setattr(picture_files, "identify", identify)
    monkeypatch.setattr(history_module, "identify", identify)
    history = folder.history()
    found = search(history).pictures
    assert [(picture.path, picture.mtime_ns) for picture in found] == [(new, MAX_INTEGER), (old, -MAX_INTEGER)]
    assert [local_time(picture.mtime_ns).year for picture in found] == [2262, 1677]
    assert folder.names(last_day=date(1700, 1, 1)) == [old.name]
    history.delete(found[1])
    restored = history.restore(found[1].id)
    assert restored == found[1]


def test_two_processes_share_the_index(folder: Folder) -> None:
    for number in range(120):
        folder.draw(f"number {number}")
    code = (
        "import sys; from pathlib import Path; from webui.workspace.history import History, Filter\n"
        "history = History(Path(sys.argv[1]), Path(sys.argv[2])); history.refresh()\n"
        "print(sorted(picture.id for picture in history.search(Filter(), limit=500).pictures))"
    )
    command = [sys.executable, "-c", code, folder.outputs, folder.cache]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said[0] == said[1] and said[0].count("'") == 240


def test_a_file_that_is_gone_is_no_picture(folder: Folder) -> None:
    path, history = folder.draw("a red apple"), folder.history()
    picture = history.search(Filter()).pictures[0]
    path.unlink()
    assert history.find(picture.id) is None


def test_files_that_are_slow_to_read_do_not_hold_up_the_first_page(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        folder.draw(f"number {number}")
    asks, shown = threading.current_thread(), threading.Event()

    def read_slowly(*file: Any) -> dict[str, Any]:
        """Behind the first page only when that has been seen."""
        assert threading.current_thread() is asks or shown.wait(60)
        return describe(*file)

    monkeypatch.setattr("webui.workspace.reader.describe", read_slowly)
    monkeypatch.setattr("webui.workspace.reader.LOOK_S", 0.0)
    history = folder.history()
    first = history.search(Filter())
    assert first.unread and first.pictures[0].prompt == "number 11"
    shown.set()
    while history.search(Filter()).unread:
        time.sleep(0.05)
    assert history.search(Filter()).total == 12


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_pictures_are_quick(folder: Folder, count: int) -> None:
    first = folder.draw("number 0 of many", loras=("sepia:1",))
    data = first.read_bytes()
    for number in range(1, count):
        place = folder.outputs / "txt2img" / f"day-{number // 1000}"
        place.mkdir(exist_ok=True)
        (place / f"{number:05d}.png").write_bytes(data)
    history = folder.history()
    started = time.thread_time()
    assert sum(path.stat().st_size > 0 for path in folder.outputs.rglob("*.png")) == count
    listing_s = time.thread_time() - started  # a busy machine takes longer for this too
    assert _seconds(history, clock=time.thread_time) < max(FIRST_PAGE_S, 2 * listing_s)  # from no index at all
    newest = folder.draw("the newest")
    os.utime(newest)
    assert history.search(Filter()).pictures[0].prompt == "the newest"
    while history.search(Filter()).unread:
        time.sleep(0.2)
    assert history.search(Filter()).total == count + 1
    for wanted in (Filter(), Filter("many"), Filter(lora="sepia", favourites=True), Filter("nothing like it")):
        assert _seconds(history, wanted, time.thread_time) < FIRST_PAGE_S


def _seconds(history: History, wanted: Filter | None = None, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of waiting, or with the thread's clock of work: what else runs on the machine is not its doing."""
    started = clock()
    history.search(wanted or Filter())
    return clock() - started
