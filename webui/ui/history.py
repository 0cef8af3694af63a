"""The History tab: its frame here, its life in ``static/history.js``, and reusing a picture on the other pages."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from webui.core.images import ImageError
from webui.core.recipe import RecipeError, read_picture
from webui.core.visitor import asking
from webui.ui import fills
from webui.ui.errors import page_error
from webui.ui.fills import Fills
from webui.ui.pages import upscale
from webui.ui.workbench import FIELDS, Workbench, settings_of
from webui.workspace.history import HistoryError, Picture
from webui.workspace.served import served_dir
from webui.workspace.workspace import Workspace

FRAME = """
<div class="history panel">
  <div class="history-tools" role="search">
    <input type="search" data-field="query" placeholder="Search prompts" aria-label="Search prompts and file names">
    <select data-field="model" aria-label="Model"></select>
    <select data-field="lora" aria-label="LoRA"></select>
    <label>From <input type="date" data-field="from"></label>
    <label>to <input type="date" data-field="to"></label>
    <button type="button" data-act="favourites" aria-pressed="false">★ Favourites</button>
  </div>
  <p class="panel-note history-note" role="status">Looking for pictures ...</p>
  <p class="history-undo" role="status" hidden><span></span> <button type="button">Undo</button></p>
  <ul class="history-found" aria-label="Pictures, newest first"></ul>
  <button type="button" class="history-more" data-act="more" hidden>More</button>
  <p class="history-workspace" hidden>
    <span></span>
    <a href="./api/workspace/export" download>Export all</a>
    <button type="button" data-act="ask-clear">Delete all</button>
    <button type="button" data-act="clear" hidden>Yes, delete all that is mine here</button>
  </p>
  <dialog class="history-view" aria-label="Picture">
    <div class="history-actions">
      <button type="button" data-act="previous" aria-label="Newer picture">←</button>
      <button type="button" data-act="next" aria-label="Older picture">→</button>
      <button type="button" data-act="favourite" aria-pressed="false" title="F">★ Favourite</button>
      <button type="button" data-act="compare">Compare</button>
      {targets}
      <label class="history-seed"><input type="checkbox" data-act="with-seed"> With seed</label>
      <a data-act="download">Download</a>
      <button type="button" data-act="delete" title="Delete">Delete</button>
      <button type="button" data-act="close" aria-label="Close">✕</button>
    </div>
    <img alt="">
    <p class="history-facts"></p>
    <pre class="history-infotext" tabindex="0" aria-label="Settings of this picture"></pre>
  </dialog>
  <dialog class="history-compare" aria-label="Two pictures">
    <div class="history-actions">
      <label>Wipe <input type="range" min="0" max="100" value="50"></label>
      <button type="button" data-act="close" aria-label="Close">✕</button>
    </div>
    <div class="history-stage"><img alt=""><img alt=""></div>
    <p class="history-facts"></p>
  </dialog>
</div>
"""
TARGET = '<button type="button" data-act="reuse" data-page="{page}">{words} {page}</button>'


def build_tab(here: Callable[[], Workspace], benches: Iterable[Workbench], enlarging: Fills) -> None:
    """Lays it out in the open tab; a picture can be reused in each of ``benches``, or be the one that is enlarged."""
    benches = tuple(benches)
    words = {bench.name: "Send to" if "image" in bench.controls else "Reuse in" for bench in benches}
    words[upscale.NAME] = "Send to"
    gr.HTML(FRAME.format(targets="".join(TARGET.format(page=page, words=words[page]) for page in words)))
    for bench in benches:
        _add_reuse(here, bench)
    _add_enlarging(here, enlarging)


def _add_reuse(here: Callable[[], Workspace], bench: Workbench) -> None:
    """The page gets the picture's settings, and the picture itself where it begins with one, and comes to the front."""
    fields = tuple(field for field in bench.controls if field in (*FIELDS, "keep_size"))
    start = bench.controls.get("image")

    def reuse(picture: str, with_seed: bool) -> dict[str, Any]:
        with _page_errors():
            found = _find(here(), picture)
            recipe = read_picture(found.path)
            started = {"image": _serve(found, Path(start.GRADIO_CACHE))} if start else {}
        if recipe is None and not start:
            raise page_error("This picture has no settings of ours.")
        settings = {}
        if recipe:
            catalog, sent = bench.executor.catalog(), start is not None
            values = settings_of(recipe.request)
            settings = fills.from_picture(values, fields, catalog, with_seed=with_seed, keep_texts=sent, as_start=sent)
        return {"tabs": gr.Tabs(selected=bench.name), **settings, **started}

    bench.fills.add("history", reuse)


def _add_enlarging(here: Callable[[], Workspace], enlarging: Fills) -> None:
    """The page that enlarges gets the picture itself, and comes to the front."""

    def send(picture: str, with_seed: bool) -> dict[str, Any]:
        with _page_errors():
            served = _serve(_find(here(), picture), Path(enlarging.places["image"].GRADIO_CACHE))
        return {"tabs": gr.Tabs(selected=upscale.NAME), "image": served}

    enlarging.add("history", send)


def _find(workspace: Workspace, picture_id: str) -> Picture:
    if (picture := workspace.history.find(picture_id)) is None:
        raise page_error("This picture is not here any more.")
    return picture


@contextmanager
def _page_errors() -> Iterator[None]:
    """What is wrong with a picture becomes the page's error message."""
    try:
        yield
    except RecipeError as error:
        raise page_error(f"This picture cannot be reused: {error}") from None
    except ImageError as error:
        raise page_error(f"This picture {error}") from None
    except HistoryError as error:
        raise page_error(f"This picture cannot be used: {error}") from None
    except OSError as error:
        raise page_error(f"This picture cannot be read: {error.strerror}") from None


def _serve(picture: Picture, cache_dir: Path) -> str:
    """A copy in the folder of what pages show, under the picture's secret id; raises OSError."""
    served = served_dir(cache_dir, asking()) / picture.id / picture.path.name
    served.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(picture.path, served)
    return str(served)
