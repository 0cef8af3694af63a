"""The History tab: its frame is ``static/history.html``, its life is in ``static/history.js``; here a picture is reused
on the other pages."""

import html
import json
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

FRAME = (Path(__file__).resolve().parent / "static" / "history.html").read_text("utf-8")


def build_tab(here: Callable[[], Workspace], benches: Iterable[Workbench], enlarging: Fills) -> None:
    """Lays it out in the open tab; a picture can be reused in each of ``benches``, or be the one that is enlarged."""
    benches = tuple(benches)
    pages = {bench.name: "image" in bench.controls for bench in benches} | {upscale.NAME: True}
    targets = json.dumps(
        [[page, f"Send to {page}" if starts else f"Reuse in {page}"] for page, starts in pages.items()]
    )
    gr.HTML(FRAME.replace("{targets}", html.escape(targets)))
    for bench in benches:
        _add_reuse(here, bench)
    _add_enlarging(here, enlarging)


def _add_reuse(here: Callable[[], Workspace], bench: Workbench) -> None:
    """The page gets the picture's settings, and the picture itself where it begins with one, and comes to the front."""
    fields = tuple(field for field in bench.controls if field in (*FIELDS, "keep_size", "styles"))
    start = bench.controls.get("image")

    def reuse(picture: str, with_seed: bool) -> dict[str, Any]:
        with _page_errors():
            found = _find(here(), picture)
            recipe = read_picture(found.path)
            started = {"image": _serve(found, Path(start.GRADIO_CACHE))} if start else {}
        if recipe is None and not start:
            raise page_error("This picture has no settings from Darkroom.")
        settings = {}
        if recipe:
            catalog, sent = bench.executor.catalog(), start is not None
            values = settings_of(recipe)
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
        raise page_error("This picture is no longer here.")
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
