"""Jobs on disk: whole after whatever happens to process, disk and file."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from webui.core.visitor import OWNER, Visitor
from webui.jobs import store as stores
from webui.jobs.store import Kept, KeptPicture, Store, Taken

GUEST = Visitor("0123", is_owner=False)


def kept(number: int, **changes) -> Kept:
    return Kept(**({"id": f"job {number}", "visitor": OWNER, "state": "queued", "work": "[]"} | changes))


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "data/queue.sqlite3")
    yield store
    store.close()


def again(store: Store) -> Store:
    """As the next process finds it."""
    store.close()
    return Store(store.path)


def test_a_job_comes_back_as_it_was_put(store):
    job = kept(
        1,
        visitor=GUEST,
        state="running",
        work='[{"prompt": "ein Käse \\u2028 🧀"}]',
        files={"/models/a.safetensors": 7},
        pictures=(KeptPicture(0, "/outputs/1.png", "ab" * 32),),
        unclean=2,
        unclean_at=1,
    )
    store.put([job, kept(2)])
    following = again(store)
    assert list(following.find("job 1")) == [job] and not following.find("nobody's")
    following.close()


def test_unfinished_jobs_come_in_the_order_they_were_sent_whatever_changed_last(store):
    store.put([kept(number) for number in range(5)])
    store.put([kept(0, state="running")])
    store.put([kept(3, state="cancelled", end={"event": "cancelled"})])
    assert [job.id for job in again(store).unfinished()] == ["job 0", "job 1", "job 2", "job 4"]


def test_a_new_order_is_kept_and_moves_no_other(store):
    store.put([kept(number) for number in range(5)])
    store.reorder(["job 4", "job 1", "job 3", "no job"])
    store.put([kept(1, state="running"), kept(5)])
    found = again(store)
    assert [job.id[-1] for job in found.unfinished()] == ["0", "4", "2", "1", "3", "5"]
    found.close()


def test_the_newest_are_listed_by_visitor(store):
    store.put([kept(number, visitor=GUEST if number % 2 else OWNER) for number in range(8)])
    assert [job.id for job in store.of(GUEST.id, 2)] == ["job 5", "job 7"]
    assert len(store.of(None, 100)) == 8


def test_old_jobs_that_ended_are_forgotten_and_no_other(store, monkeypatch):
    monkeypatch.setattr(stores, "KEPT_ENDED", 20)
    store.put([kept(0), kept(1, state="running")])
    for number in range(2, 200):
        store.put([kept(number, state="done", end={"event": "done"})])
    assert [job.id for job in store.unfinished()] == ["job 0", "job 1"]
    assert 20 <= len(store.of(None, 1000)) <= 26 and store.find("job 199") and not store.find("job 100")


def test_a_row_of_another_version_takes_no_other_with_it(store):
    store.put([kept(1), kept(2)])
    store._connection.execute("update jobs set job = json_set(job, '$.unheard_of', 1) where id = 'job 1'")
    assert [job.id for job in store.unfinished()] == ["job 2"]


def test_what_was_half_done_is_taken_back(store):
    store.put([kept(1)])
    with pytest.raises(sqlite3.Error):
        store.put([kept(2), kept(3, state=None)])
    assert [job.id for job in store.unfinished()] == ["job 1"]


def test_a_second_server_does_not_get_in_until_the_first_has_ended(store):
    store.put([kept(1)])
    second = Store(store.path)
    with pytest.raises(Taken, match="another Darkroom"):
        second.unfinished()
    script = (
        f"import sys; from webui.jobs.store import *; from pathlib import Path; Store(Path({str(store.path)!r})).open()"
    )
    other = subprocess.run([sys.executable, "-c", script], cwd=os.getcwd(), capture_output=True, text=True)
    assert "Taken: another Darkroom" in other.stderr
    store.close()
    assert len(second.unfinished()) == 1 and second.start == store.start + 1
    second.close()


def test_a_folder_that_vanishes_is_noticed_and_a_new_one_begun(store):
    store.put([kept(1)])
    assert store.open() is False
    shutil.rmtree(store.path.parent)
    assert store.open() is True
    assert not store.unfinished()
    store.path.parent.rename(store.path.parent.with_name("away"))
    store.path.parent.write_text("a file in its place")
    with pytest.raises(OSError):
        store.put([kept(2)])
    store.path.parent.unlink()
    store.path.parent.with_name("away").rename(store.path.parent)
    store.put([kept(2)])
    assert [job.id for job in store.unfinished()] == ["job 2"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_damaged_is_put_aside(tmp_path, content):
    path = tmp_path / "queue.sqlite3"
    path.write_bytes(content)
    store = Store(path)
    try:
        store.put([kept(1)])
    except sqlite3.DatabaseError:
        assert (tmp_path / "queue.sqlite3.damaged").read_bytes() == content
        store.put([kept(1)])
    assert len(store.unfinished()) == 1
    store.close()


def test_a_newer_version_s_file_is_left_alone(store):
    store.put([kept(1)])
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute("pragma user_version = 99")
    database.close()
    with pytest.raises(OSError, match="newer version"):
        store.unfinished()
    assert not list(store.path.parent.glob("*.damaged"))
