"""``/api/history`` for many pictures at a time, and for boards; what its routes have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from webui.api.visitors import Asking
from webui.api.zips import Zips
from webui.core.errors import RequestError
from webui.core.visitor import Visitor
from webui.workspace import marks
from webui.workspace.history import HistoryError, Picture
from webui.workspace.picture_files import local_time
from webui.workspace.search import Filter
from webui.workspace.workspace import Workspace

MAX_IDS = 100_000
MAX_ID_CHARACTERS = 24
GUESTS_ZIP_PICTURES, GUESTS_ZIP_BYTES = 1000, 2**30

Text = Annotated[str, Query(max_length=1000)]
Here = Callable[[], Workspace]
Id = Annotated[str, Field(max_length=MAX_ID_CHARACTERS)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
BoardName = Annotated[str, Field(max_length=1000)]


def _wanted(
    query: Text = "",
    model: Text = "",
    lora: Text = "",
    first_day: Annotated[date | None, Query(alias="from")] = None,
    last_day: Annotated[date | None, Query(alias="to")] = None,
    favourites: bool = False,
    board: Text = "",
    kind: Literal["", "txt2img", "img2img", "inpaint", "upscale", "grid"] = "",
    order: Literal["newest", "oldest", "prompt", "largest"] = "newest",
) -> Filter:
    return Filter(query, model, lora, first_day, last_day, favourites, board, kind, order)


Wanted = Annotated[Filter, Depends(_wanted)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pictures(_Body):
    """Pictures by their ids; those that are not there are left out."""

    pictures: Ids


class Marking(Pictures):
    """What becomes of them: favourites or not, on a board, off a board."""

    favourite: bool | None = None
    add_to: BoardName = ""
    take_from: BoardName = ""


class Board(_Body):
    """A board by its name."""

    name: BoardName


class Renaming(Board):
    """What it is to be called."""

    to: BoardName


@contextmanager
def answered() -> Iterator[None]:
    """What the history cannot do now, as 503."""
    try:
        yield
    except HistoryError as error:
        raise HTTPException(503, str(error)) from None


def entry(picture: Picture) -> dict[str, Any]:
    """A picture as lists have it."""
    return {
        "id": picture.id,
        "name": picture.path.name,
        "made_at": local_time(picture.mtime_ns).isoformat(),
        "size_bytes": picture.size_bytes,
        "width": picture.width,
        "height": picture.height,
        "prompt": picture.prompt,
        "model": picture.model,
        "loras": picture.loras,
        "favourite": picture.favourite,
    }


def add_many(router: APIRouter, here: Here, zips: Zips) -> None:
    """Deleting, bringing back, marking and downloading many pictures."""

    @router.post("/delete")
    @answered()
    def delete(body: Pictures) -> dict[str, list[str]]:
        """Into the trash: ``restore`` brings them back."""
        workspace = here()
        deleted = workspace.history.delete_all(workspace.history.find_all(body.pictures))
        for picture in deleted:
            workspace.thumbnails.forget(picture.path, picture.mtime_ns, picture.size_bytes)
        return {"deleted": [picture.id for picture in deleted]}

    @router.post("/restore")
    @answered()
    def restore(body: Pictures) -> dict[str, list[str]]:
        return {"restored": [picture.id for picture in here().history.restore_all(body.pictures)]}

    @router.post("/marks")
    @answered()
    def mark(body: Marking) -> dict[str, list[str]]:
        """Those that are there; a board that is named has to be there."""
        history = here().history
        found = history.find_all(body.pictures)
        for board, has_it in ((body.add_to, True), (body.take_from, False)):
            if board and found:
                history.mark(found, board, has_it)
        if body.favourite is not None and found:
            history.mark(found, marks.FAVOURITE, body.favourite)
        return {"marked": [picture.id for picture in found]}

    @router.post("/zip")
    @answered()
    def download(visitor: Asking, pictures: Annotated[str, Form(max_length=25 * MAX_IDS)]) -> StreamingResponse:
        """The pictures of these ids, commas between them, as a form sends them: a browser keeps it while it comes."""
        history = here().history
        found = history.find_all(pictures.split(","))
        if not found:
            raise HTTPException(404, "there is no picture with these ids")
        size_bytes = sum(picture.size_bytes for picture in found)
        if not visitor.is_owner and (len(found) > GUESTS_ZIP_PICTURES or size_bytes > GUESTS_ZIP_BYTES):
            most = f"{GUESTS_ZIP_PICTURES:,} pictures and {GUESTS_ZIP_BYTES // 2**30} GB"
            raise RequestError(f"a zip has up to {most}; choose fewer", field="pictures")
        return zips.answer(visitor, ((one.path, history.name_of(one)) for one in found), "pictures.zip")


def add_boards(router: APIRouter, here: Here) -> None:
    """Boards: which there are, new ones, other names, fewer."""

    @router.get("/boards")
    @answered()
    def boards() -> dict[str, Any]:
        """How many pictures there are in all, of the favourites, of grids, and on each board."""
        found = here().history.overview()
        named = [{"name": name, "pictures": count} for name, count in found.boards.items()]
        return {
            "pictures": found.pictures,
            "favourites": found.favourites,
            "grids": found.grids,
            "boards": named,
            "problem": found.problem,
        }

    @router.put("/boards")
    @answered()
    def add(visitor: Asking, body: Board) -> dict[str, str]:
        """A new one, under the name as it is kept."""
        name = marks.read_name(body.name)
        _check_stays(visitor)
        here().history.change_marks(marks.adding_board(name))
        return {"name": name}

    @router.patch("/boards")
    @answered()
    def rename(visitor: Asking, body: Renaming) -> dict[str, str]:
        name = marks.read_name(body.to)
        _check_stays(visitor)
        here().history.change_marks(marks.renaming_board(body.name, name))
        return {"name": name}

    @router.delete("/boards")
    @answered()
    def remove(visitor: Asking, name: Text) -> dict[str, str]:
        """The board alone: its pictures stay."""
        _check_stays(visitor)
        here().history.change_marks(marks.removing_board(name))
        return {"removed": name}


def _check_stays(visitor: Visitor) -> None:
    """A folder is made for those alone who find it again."""
    if visitor.is_new:
        raise HTTPException(404, "visitors without a cookie have no boards")
