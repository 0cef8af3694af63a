"""The pictures of a job, as a page's gallery has them.

One is named as the browser names it: the job's id and the picture's place in the gallery, such as ``3f…/0``.
"""

from pathlib import Path

from webui.jobs.protocols import Executor, find_picture
from webui.ui import stream

find = find_picture


def chosen_js(page: str) -> str:
    """JavaScript that gives a handler the name of the picture that is chosen on the page, in place of its first
    value."""
    return f"(...values) => [darkroom.chosenPicture('{page}'), ...values.slice(1)]"


def find_file(executor: Executor, chosen: str, cache_dir: Path) -> str | None:
    """The served PNG of the picture, or None where there is none."""
    found = find(executor, chosen)
    item = stream.gallery_item(*found, cache_dir) if found else None
    return item[0] if item else None
