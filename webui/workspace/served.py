"""Where the files are that pages show, and that were uploaded to them: each visitor's apart."""

from pathlib import Path

from webui.core.visitor import NOBODY, Visitor

GUESTS = "guests"


def served_dir(folder: Path, visitor: Visitor) -> Path:
    """The visitor's part of the folder. The owner may see all of it.

    Programs that keep no cookie share one: there the names of files are as hard to guess as a cookie.
    """
    if visitor.is_owner:
        return folder
    return folder / GUESTS / (NOBODY.id if visitor.is_new else visitor.id)
