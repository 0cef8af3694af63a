"""What was found in folders, cached until something there changes."""

import os
import threading
from pathlib import Path

import pytest

from webui.core.settings import Settings
from webui.library import scan
from webui.library.library import Library
from webui.library.scan import LOOK_S, WALK_S, Scan, ScanCache

LONG_AGO_NS = 1_700_000_000_123_456_789


class Clock:
    """``now`` in seconds, as the test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def settle(*paths: Path) -> None:
    """As if nothing had been changed for long."""
    for path in paths:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def walks(monkeypatch) -> list[str]:
    """The folders that were read."""
    read: list[str] = []
    for name in ("scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path=".", real=real: read.append(str(path)) or real(path))
    return read


def find_names(root: Path):
    """A ``find``: the path of every file below the folder, by name."""
    return lambda noted: {name: folder / name for folder, _, names in noted.walk(root) for name in names}


def test_what_has_not_changed_is_walked_once(tmp_path, clock, walks):
    for number in range(5):
        (tmp_path / f"folder {number}").mkdir()
        (tmp_path / f"folder {number}/file {number}").touch()
    settle(tmp_path, *tmp_path.iterdir())
    walks.clear()
    cached = ScanCache(find_names(tmp_path), clock)
    first = cached.get()
    assert len(first) == 5 and len(walks) == 6
    for _ in range(50):
        clock.now += 1
        assert cached.get() is cached.get(0) is first
    assert len(walks) == 6


@pytest.mark.parametrize("change", ["a file", "a file below", "a folder", "one gone", "one moved"])
def test_a_change_is_seen_after_a_second_at_the_latest_and_at_once_where_asked_for(tmp_path, clock, change):
    (tmp_path / "below").mkdir()
    (tmp_path / "old").touch()
    settle(tmp_path, tmp_path / "below")
    cached = ScanCache(find_names(tmp_path), clock)
    before = cached.get()
    if change == "a folder":
        (tmp_path / "new folder").mkdir()
    actions = {
        "a file": (tmp_path / "new").touch,
        "a file below": (tmp_path / "below/new").touch,
        "a folder": (tmp_path / "new folder/new").touch,
        "one gone": (tmp_path / "old").unlink,
        "one moved": lambda: (tmp_path / "old").rename(tmp_path / "below/old"),
    }
    actions[change]()
    assert cached.get() is before, "within a second of the last look"
    clock.now += LOOK_S
    after = cached.get()
    assert after == find_names(tmp_path)(Scan()) != before


def test_whoever_asks_for_now_sees_a_change_at_once(tmp_path, clock):
    settle(tmp_path)
    cached = ScanCache(find_names(tmp_path), clock)
    assert not cached.get()
    (tmp_path / "new").touch()
    assert not cached.get() and set(cached.get(0)) == {"new"} == set(cached.get())


def test_a_folder_that_comes_later_is_seen(tmp_path, clock):
    cached = ScanCache(find_names(tmp_path / "later"), clock)
    assert not cached.get()
    (tmp_path / "later").mkdir()
    (tmp_path / "later/new").touch()
    assert set(cached.get(0)) == {"new"}


def test_a_change_that_times_do_not_tell_is_seen_by_reload_and_within_a_minute(tmp_path, clock):
    """As on network disks that change no folder's time."""
    settle(tmp_path)
    cached = ScanCache(find_names(tmp_path), clock)
    assert not cached.get()
    (tmp_path / "new").touch()
    settle(tmp_path)
    assert not cached.get(0)
    cached.invalidate()
    assert set(cached.get()) == {"new"}
    (tmp_path / "newer").touch()
    settle(tmp_path)
    clock.now += WALK_S - 1
    assert set(cached.get()) == {"new"}
    clock.now += 1
    assert set(cached.get()) == {"new", "newer"}


@pytest.mark.parametrize(
    ("age_s", "step_ns", "settled"),
    [(1.0, 1, True), (0.01, 1, False), (-5, 1, False), (1.0, 10**9, False), (5.0, 10**9, True), (-1000, 1, True)],
)
def test_a_folder_that_had_just_changed_is_not_trusted(tmp_path, monkeypatch, clock, age_s, step_ns, settled):
    """Another file in the same tick of the disk's clock, two seconds on some, leaves the same time."""
    now_ns = LONG_AGO_NS // step_ns * step_ns
    monkeypatch.setattr(scan.time, "time", lambda: now_ns / 1e9 + age_s)
    os.utime(tmp_path, ns=(now_ns, now_ns))
    cached = ScanCache(find_names(tmp_path), clock)
    assert not cached.get()
    (tmp_path / "new").touch()
    os.utime(tmp_path, ns=(now_ns, now_ns))
    assert set(cached.get(0)) == (set() if settled else {"new"})


def test_nobody_waits_for_a_look_whom_an_older_answer_serves(tmp_path, clock):
    looking, go_on = threading.Event(), threading.Event()
    answers = [{"old": 1}]

    def find(noted: Scan):
        noted.note(tmp_path)
        if len(answers) > 1:
            looking.set()
            assert go_on.wait(60)
        return answers[-1]

    settle(tmp_path)
    cached = ScanCache(find, clock)
    assert cached.get() == {"old": 1}
    answers.append({"new": 2})
    (tmp_path / "changed").touch()
    clock.now += LOOK_S
    found = []
    threads = [threading.Thread(target=lambda: found.append(cached.get(0))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert looking.wait(60)
    assert cached.get() == {"old": 1}
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == [{"new": 2}] * 3


def test_what_was_found_cannot_be_changed(tmp_path, clock):
    with pytest.raises(TypeError):
        ScanCache(find_names(tmp_path), clock).get()["x"] = 1


# ---- the library ----


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Hugging Face's cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("models", "data/models/Stable-diffusion/below/new.safetensors"),
        ("models", "tree/checkpoints/new.safetensors"),
        ("models", "hub/models--someone--new/snapshots/1/model_index.json"),
        ("loras", "data/models/Lora/below/new.safetensors"),
        ("vaes", "tree/vae/new.pt"),
        ("embeddings", "tree/embeddings/new.safetensors"),
    ],
)
def test_a_new_file_of_each_kind_is_seen(tmp_path, cache, clock, kind, place):
    library = Library(Settings(data_dir=tmp_path / "data", models_dir=(tmp_path / "tree",)), clock)
    before = set(getattr(library.snapshot(), kind))
    make(tmp_path / place)
    after = set(getattr(library.snapshot(max_age_s=0), kind))
    assert {name.removeprefix("someone/") for name in after - before} == {"new"}


@pytest.mark.parametrize("file", ["m.safetensors", "m.yaml"])
def test_a_model_that_is_written_over_in_place_is_another(tmp_path, cache, clock, file):
    folder = tmp_path / "models/Stable-diffusion"
    for name in ("m.safetensors", "m.yaml"):
        settle(make(folder / name))
    settle(folder)
    library = Library(Settings(data_dir=tmp_path), clock)
    first = library.snapshot().models
    assert library.snapshot(0).models is first
    (folder / file).write_bytes(b"another")
    assert library.snapshot(0).models is not first


def test_a_snapshot_stays_what_it_was(tmp_path, cache, clock):
    library = Library(Settings(data_dir=tmp_path), clock)
    first = library.snapshot()
    before = set(first.loras)
    make(tmp_path / "models/Lora/new.safetensors")
    library.reload()
    assert set(library.snapshot().loras) == before | {"new"}
    assert set(first.loras) == before
