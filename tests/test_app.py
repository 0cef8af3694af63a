"""What the wiring gives folders and their names."""

import os
from pathlib import Path

import pytest

from webui.app import plainly_named

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX users and links")


@posix
def test_guests_see_a_name_that_tells_nothing_and_is_the_same_after_a_restart(tmp_path: Path) -> None:
    folder, below = tmp_path / "ann" / "secret", tmp_path / "tmp"
    folder.mkdir(parents=True)
    below.mkdir()
    link = plainly_named(folder, below)
    assert link.resolve() == folder and "secret" not in str(link.relative_to(below))
    assert plainly_named(folder, below) == link != plainly_named(below, below)
    link.unlink()
    link.symlink_to(tmp_path)  # of an older run, elsewhere
    assert plainly_named(folder, below).resolve() == folder


@posix
def test_a_folder_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    link = plainly_named(tmp_path, tmp_path)
    link.parent.chmod(0o777)
    assert plainly_named(tmp_path, tmp_path) == tmp_path
    link.unlink()
    link.parent.rmdir()
    link.parent.symlink_to(tmp_path)
    assert plainly_named(tmp_path, tmp_path) == tmp_path
