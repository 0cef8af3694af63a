"""`launch.py update` on real checkouts with a remote beside them; what installs packages is tested with launch.py."""

import subprocess
from pathlib import Path

import pytest

from webui.setup import update as updating
from webui.setup.update import CannotUpdate


def git(folder, *words):
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, version):
    (folder / "version.txt").write_text(version, "utf-8")
    git(folder, "add", "version.txt")
    git(folder, "commit", "-q", "-m", version)
    return git(folder, "rev-parse", "HEAD")


class Checkout:
    """A clone of a repository; what its set-up saw, and whether it goes well."""

    def __init__(self, folder):
        self.source, self.root = folder / "source", folder / "Dark room"
        self.source.mkdir()
        git(self.source, "init", "-q", "-b", "main")
        (self.source / ".gitignore").write_text("/data/\n/.venv/\n", "utf-8")
        git(self.source, "add", ".gitignore")
        self.first = commit(self.source, "1")
        git(folder, "clone", "-q", str(self.source), str(self.root))
        (self.root / "data").mkdir()
        (self.root / "data" / "picture.png").write_text("mine", "utf-8")
        self.said: list[str] = []
        self.set_up_versions: list[str] = []
        self.broken: set[str] = set()

    @property
    def version(self):
        return (self.root / "version.txt").read_text("utf-8")

    def set_up(self):
        self.set_up_versions.append(self.version)
        return self.version not in self.broken

    def update(self):
        updating.update(self.root, self.set_up, self.said.append)

    def go_back(self):
        updating.go_back(self.root, self.set_up, self.said.append)

    def refused(self, what=None):
        """Why it is not done, having seen that nothing has changed."""
        before = git(self.root, "rev-parse", "HEAD")
        with pytest.raises(CannotUpdate) as caught:
            (what or self.update)()
        assert git(self.root, "rev-parse", "HEAD") == before and self.picture == "mine"
        return str(caught.value)

    @property
    def picture(self):
        return (self.root / "data" / "picture.png").read_text("utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_forward_back_and_forward_again(checkout):
    checkout.update()
    assert "This is the newest version" in checkout.said[-1] and checkout.set_up_versions == []
    commit(checkout.source, "2")
    newest = commit(checkout.source, "3")
    checkout.update()
    assert (checkout.version, checkout.set_up_versions) == ("3", ["3"])
    assert f"to {newest[:7]} of 20" in checkout.said[-2] and "update --back" in checkout.said[-1]
    checkout.go_back()
    assert (checkout.version, checkout.set_up_versions) == ("1", ["3", "1"])
    assert checkout.refused(checkout.go_back) == "There is no update to go back from."
    checkout.update()
    assert (checkout.version, checkout.picture) == ("3", "mine")
    assert (
        git(checkout.root, "status", "--porcelain") == "" and git(checkout.root, "branch", "--show-current") == "main"
    )


def test_a_version_that_cannot_be_set_up_is_left_again(checkout):
    commit(checkout.source, "2")
    checkout.broken = {"2"}
    said = checkout.refused()
    assert "The new version could not be set up; the reason is above." in said and "again, as before" in said
    assert (checkout.version, checkout.set_up_versions) == ("1", ["2", "1"])
    assert checkout.refused(checkout.go_back) == "There is no update to go back from."
    checkout.broken = {"1", "2"}
    assert "`python launch.py` finishes its set-up" in checkout.refused()
    checkout.broken = set()
    checkout.update()
    checkout.broken = {"1"}
    assert "The version before could not be set up" in checkout.refused(checkout.go_back)
    assert checkout.version == "2"
    commit(checkout.source, "3")
    checkout.broken = {"3"}
    checkout.refused()
    checkout.go_back()  # from the last update that went well
    assert checkout.version == "1"


def test_what_would_be_lost_is_named(checkout):
    commit(checkout.source, "2")
    (checkout.root / "version.txt").write_text("mine", "utf-8")
    assert checkout.refused().startswith("You have changed version.txt: commit the changes")
    assert checkout.refused(checkout.go_back).startswith("You have changed version.txt")
    assert checkout.version == "mine"


def test_a_file_in_the_way_of_a_new_one_is_kept(checkout):
    (checkout.source / "notes.txt").write_text("theirs", "utf-8")
    git(checkout.source, "add", "notes.txt")
    commit(checkout.source, "2")
    (checkout.root / "notes.txt").write_text("mine", "utf-8")
    assert "would be overwritten" in checkout.refused()
    assert (checkout.root / "notes.txt").read_text("utf-8") == "mine"


def test_commits_of_ones_own_are_kept(checkout):
    own = commit(checkout.root, "mine")
    checkout.update()  # nothing new there
    assert "This is the newest version" in checkout.said[-1]
    (checkout.source / "other.txt").write_text("x", "utf-8")
    git(checkout.source, "add", "other.txt")
    git(checkout.source, "commit", "-q", "-m", "other")
    assert "has commits of its own that origin/main lacks" in checkout.refused()
    assert git(checkout.root, "rev-parse", "HEAD") == own


def test_a_checkout_of_no_branch_is_told_the_way_to_one(checkout):
    git(checkout.root, "switch", "-q", "--detach")
    assert "git switch main" in checkout.refused()


def test_a_remote_that_does_not_answer_is_said(checkout):
    checkout.source.rename(checkout.source.with_name("gone"))
    assert checkout.refused().startswith("The new version could not be fetched: fatal:")


def test_a_folder_without_git_is_said(checkout, tmp_path, monkeypatch):
    for what in (updating.update, updating.go_back):
        with pytest.raises(CannotUpdate, match="is not a git checkout"):
            what(tmp_path, checkout.set_up, checkout.said.append)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotUpdate, match="git is not installed here"):
        checkout.update()
