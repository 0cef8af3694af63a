"""The newest version of a git checkout, and the way back to the one before. Data, and files git does not know, stay."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

BEFORE = "refs/darkroom/before-update"
"""The commit to go back to; as a reference of its own, so that git keeps it."""

SHOWN = 5


class CannotUpdate(Exception):
    """Nothing was changed, or it was changed back; the message says why."""


def update(root: Path, set_up: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Moves the checkout to the newest commit of its branch's remote and sets it up, or leaves it as it was.

    ``set_up`` installs what the version that is there then needs, and says whether that went well. Raises CannotUpdate.
    """
    _check(root)
    upstream = _ask(root, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    if not upstream:
        raise CannotUpdate(
            "This checkout follows no branch of another repository: `git switch main` takes it back to one."
        )
    _do(root, "The new version could not be fetched", "fetch", "--quiet")
    old, new = _commit(root, "HEAD"), _commit(root, upstream)
    if old == new or _is_ancestor(root, new, old):
        say(f"This is the newest version: {_name(root, old)}.")
        return
    if not _is_ancestor(root, old, new):
        raise CannotUpdate(
            f"This checkout has commits of its own that {upstream} lacks: "
            "bring the two together with git, or make a new clone."
        )
    _do(root, "The new version does not fit over this checkout", "merge", "--quiet", "--ff-only", new)
    earlier = _ask(root, "rev-parse", "--verify", "--quiet", BEFORE)
    _do(root, "The version before could not be noted", "update-ref", BEFORE, old)
    say(f"From {_name(root, old)} to {_name(root, new)}. Setting it up.")
    if not set_up():
        _git(root, "update-ref", *([BEFORE, earlier] if earlier else ["-d", BEFORE]))
        _return(root, old, "The new version could not be set up", set_up)
    say("Updated. CHANGELOG.md says what is new; `python launch.py update --back` goes back.")


def go_back(root: Path, set_up: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Moves the checkout to where the last update began, with its set-up. Raises CannotUpdate."""
    _check(root)
    old = _ask(root, "rev-parse", "--verify", "--quiet", BEFORE)
    if not old:
        raise CannotUpdate("There is no update to go back from.")
    here = _commit(root, "HEAD")
    if not _is_ancestor(root, old, here):
        raise CannotUpdate(f"This checkout no longer comes from {_name(root, old)}: use git to go there.")
    _do(root, "The version before could not be restored", "reset", "--quiet", "--keep", old)
    say(f"Back to {_name(root, old)}. Setting it up.")
    if not set_up():
        _return(root, here, "The version before could not be set up", set_up)
    _do(root, "The update could not be forgotten", "update-ref", "-d", BEFORE)
    say("Done. `python launch.py update` takes the newest version again.")


def _return(root: Path, commit: str, what: str, set_up: Callable[[], bool]) -> None:
    """To the version that worked, with its set-up; always raises CannotUpdate."""
    _do(root, what, "reset", "--quiet", "--keep", commit)
    if set_up():
        raise CannotUpdate(f"{what}; the reason is above. This is {_name(root, commit)} again, as before.")
    raise CannotUpdate(
        f"{what}, and neither could {_name(root, commit)}, which is in place again: "
        "`python launch.py` finishes its set-up when what is named above is mended."
    )


def _check(root: Path) -> None:
    """That there is a checkout, and nothing in it that would be lost."""
    if not (root / ".git").exists():
        raise CannotUpdate(
            f"{root} is not a git checkout, so it cannot be updated: get the new version as you got this one."
        )
    try:
        said = _git(root, "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        raise CannotUpdate("git is not installed here, or not on the PATH: install it and start again.") from None
    if said.returncode:
        raise CannotUpdate(f"git cannot read this checkout: {_first_line(said)}")
    if changed := [line[3:] for line in said.stdout.splitlines()]:
        named = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
        raise CannotUpdate(f"You have changed {named}: commit the changes, or `git stash` them, and start again.")


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {
        name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, env={**own, "LC_ALL": "C"}, stdout=-1, stderr=-1, encoding="utf-8", errors="replace")


def _do(root: Path, failure: str, *words: str) -> None:
    said = _git(root, *words)
    if said.returncode:
        raise CannotUpdate(f"{failure}: {_first_line(said)}")


def _ask(root: Path, *words: str) -> str:
    said = _git(root, *words)
    return said.stdout.strip() if said.returncode == 0 else ""


def _commit(root: Path, name: str) -> str:
    return _ask(root, "rev-parse", "--verify", f"{name}^{{commit}}")


def _is_ancestor(root: Path, old: str, new: str) -> bool:
    return _git(root, "merge-base", "--is-ancestor", old, new).returncode == 0


def _name(root: Path, commit: str) -> str:
    """For people: ``1a2b3c4 of 2026-11-29``."""
    return _ask(root, "show", "--no-patch", "--format=%h of %cs", commit)


def _first_line(said: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    return next(
        (line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "git says nothing"
    )
