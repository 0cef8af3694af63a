"""Files that are written whole or not at all, and what is left of those that were not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webui.core import disk
from webui.core.disk import replace_file, sweep, temporary_file

WRITER = """
import os, sys
from pathlib import Path
from webui.core.disk import temporary_file

def wait(_handle):
    print("writing", flush=True)
    sys.stdin.readline()

os.fsync = wait
with temporary_file(Path(sys.argv[1]), b"a picture") as temporary:
    os.link(temporary, Path(sys.argv[1], "picture"))
"""


def leave(folder: Path, name: str = ".saving-abc.tmp", age_s: float = 100.0) -> Path:
    """What a process that was killed left."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"half a pict")
    at_s = disk.STARTED_AT_S - age_s
    os.utime(path, (at_s, at_s))
    return path


def test_left_overs_go_and_all_else_stays(tmp_path):
    gone = [
        leave(tmp_path / place) for place in ("outputs/txt2img/2026-11-25", "outputs", "presets", "outputs/.trash/x")
    ]
    kept = [
        leave(tmp_path / "outputs", ".saving-new.tmp", age_s=-1.0),
        leave(tmp_path / "outputs", "x.saving-abc.tmp"),
        leave(tmp_path / "outputs", ".saving-abc.png"),
        leave(tmp_path / "elsewhere"),
    ]
    linked = tmp_path / "outputs/linked"
    linked.symlink_to(tmp_path / "elsewhere")
    sweep([tmp_path / "outputs", tmp_path / "presets", tmp_path / "not there"])
    assert not [path for path in gone if path.exists()] and all(path.exists() for path in kept)


@pytest.mark.skipif(os.name == "nt", reason="needs the locks of POSIX")
def test_what_another_process_is_writing_stays(repository, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    (path,) = tmp_path.iterdir()
    os.utime(path, (1e9, 1e9))
    sweep([tmp_path])
    assert path.exists()
    process.communicate("go on\n")
    assert process.returncode == 0 and [entry.name for entry in tmp_path.iterdir()] == ["picture"]


def test_a_disk_without_locks_takes_files_all_the_same(tmp_path, monkeypatch):
    if disk.fcntl:
        monkeypatch.setattr(disk.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError("Operation not supported")))
    replace_file(tmp_path / "a/b", b"new")
    assert (tmp_path / "a/b").read_bytes() == b"new" and len(list((tmp_path / "a").iterdir())) == 1
    left = leave(tmp_path)
    sweep([tmp_path])
    assert not left.exists()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_temporary_file_is_whole_while_it_is_there(tmp_path, mode):
    with temporary_file(tmp_path / "new", b"data", mode) as path:
        assert path.read_bytes() == b"data" and (os.name == "nt" or path.stat().st_mode & 0o777 == mode)
    assert not path.exists()
