"""The page's functions take files that were uploaded, and no other file of this machine, whatever the request says."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image as PilImages

from webui.core.disk import is_below
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor, asked_by
from webui.jobs.executor import LocalExecutor
from webui.ui import layout
from webui.workspace.workspace import Workspaces

META = {"meta": {"_type": "gradio.FileData"}}
SHAPES: dict[str, Callable[[str], Any]] = {
    "no meta": lambda path: {"path": path},
    "meta": lambda path: {"path": path} | META,
    "a stream": lambda path: {"path": path, "is_stream": True} | META,
    "several": lambda path: [{"path": path}],
    "a root": lambda path: {"root": [{"path": path} | META]},
    "a gallery": lambda path: [{"image": {"path": path}, "caption": None}],
    "an editor": lambda path: {"background": None, "layers": [{"path": path}], "composite": None},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of uploads, and one beside it whose name begins with its own; a picture in each."""
    root = tmp_path_factory.mktemp("page")
    uploads, outside = root / "uploads", root / "uploads-of-others"
    for folder in (uploads / "hash", outside):
        folder.mkdir(parents=True)
        PilImages.new("RGB", (8, 8)).save(folder / "picture.png")
    return uploads, outside


@pytest.fixture(scope="module")
def blocks(folders, tmp_path_factory) -> Iterator[Any]:
    """The whole page, History too, without a server."""
    settings = Settings(device="cpu", data_dir=tmp_path_factory.mktemp("data"))
    executor = LocalExecutor(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folders[0]))
        yield layout.build_page(executor, Workspaces(settings.data_dir).here)
    executor.close()


def send(blocks: Any, payload: Any, kind: str = "", visitor: Visitor = OWNER) -> list[tuple[Any, Any]]:
    """(control, what its function would get or the error) for every input of every function, or those of one kind."""

    async def send_all() -> list[tuple[Any, Any]]:
        answers = []
        for function in blocks.fns.values():
            for index, control in enumerate(function.inputs):
                if kind in ("", control.get_block_name()):
                    inputs = [None] * len(function.inputs)
                    inputs[index] = payload
                    try:
                        got = (await blocks.preprocess_data(function, inputs, None))[index]
                    except Exception as error:
                        got = error
                    answers.append((control, got))
        return answers

    with asked_by(visitor):
        return asyncio.run(send_all())


def assert_refused(answers: list[tuple[Any, Any]], what: Any) -> None:
    for control, got in answers:
        expected = f"{control.label or 'The file'}: only an uploaded file is taken; upload it here first."
        assert getattr(got, "message", got) == expected, (what, got)
    assert len(answers) > 100


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_function_takes_another_file_however_it_is_given(blocks, folders, shape):
    payload = shape(str(folders[1] / "picture.png"))
    assert_refused(send(blocks, payload), payload)


def test_no_function_tells_whether_there_is_such_a_file(blocks, folders, monkeypatch):
    uploads, outside = folders
    monkeypatch.chdir(uploads.parent)
    link, out = uploads / "link.png", uploads / "out"
    link.symlink_to(outside / "picture.png")
    out.symlink_to(outside, target_is_directory=True)
    for path in (
        *(outside / "picture.png", outside / "nothing.png", outside, link, out / "picture.png", out / "nothing.png"),
        *(uploads, uploads / "hash" / ".." / ".." / outside.name / "picture.png", "picture.png", ".", ""),
        *("https://example.com/picture.png", "http://127.0.0.1/x.png", "file:///etc/passwd", "a\0b", "~/x.png"),
        *("https://example.com/../../uploads/hash/picture.png", "uploads/hash/picture.png"),
        *("x" * 5000, "/gradio_api/file=" + str(uploads / "hash" / "picture.png")),
    ):
        assert_refused(send(blocks, {"path": str(path)}), path)


@pytest.mark.parametrize("address", ["https://example.com/a.png", "data:image/png;base64,iVBORw0KGgo=", "/etc/passwd"])
def test_an_address_is_no_upload(blocks, address):
    assert_refused(send(blocks, {"url": address}), address)


def test_what_was_uploaded_reaches_the_functions(blocks, folders):
    path = str(folders[0] / "hash" / "picture.png")
    pictures = [got for _, got in send(blocks, {"path": path, "url": "http://x/y"} | META, "image")]
    assert len(pictures) >= 6 and set(pictures) == {path}
    files = [got for _, got in send(blocks, [{"path": path} | META], "file")]
    assert len(files) >= 2 and all(got == [path] for got in files)


def test_a_folder_of_uploads_behind_a_link_holds_its_files_and_a_circle_of_links_holds_none(folders, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folders[0], target_is_directory=True)
    for folder in (link, folders[0]):
        assert is_below(str(folder / "hash" / "picture.png"), link)
    (tmp_path / "circle").symlink_to("circle")
    assert not is_below(str(tmp_path / "circle" / "x"), tmp_path / "circle")


def test_a_page_is_filled_from_an_upload_alone(blocks, folders):
    fill = next(event.fn for event in blocks.fns.values() if getattr(event.fn, "__name__", "") == "fill")
    ask = {"text": "", "with_seed": False}
    for path in (folders[1] / "picture.png", folders[1] / "nothing.png", "/etc/passwd", "picture.png", "a\0b"):
        with asked_by(OWNER), pytest.raises(gr.Error, match="only an uploaded file is taken"):
            fill(json.dumps(["png info", {"path": str(path), **ask}]))
    with asked_by(OWNER):
        fill(json.dumps(["png info", {"path": str(folders[0] / "hash" / "picture.png"), **ask}]))
