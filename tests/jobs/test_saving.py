"""Pictures become files in the order in which they were given; what cannot be saved is still shown."""

import threading
from pathlib import Path

from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs import saving
from webui.jobs.job import LocalJob
from webui.jobs.saving import Saver
from webui.workspace.workspace import Workspaces

WAIT_S = 20


def make_job() -> LocalJob:
    return LocalJob([Order(Request(), ())], lambda _: None)


def make_saver(settings: Settings) -> Saver:
    return Saver(settings, Workspaces(settings.data_dir, settings.out))


def test_they_are_saved_in_order_while_whoever_gave_them_goes_on(settings: Settings, make_picture, monkeypatch) -> None:
    may_save, save = threading.Event(), saving.save_picture
    monkeypatch.setattr(saving, "save_picture", lambda *what: may_save.wait(WAIT_S) and save(*what))
    saver, job, seen = make_saver(settings), make_job(), []
    for index in range(3):
        saver.save(job, make_picture(index=index))
    saver.afterwards(lambda: seen.append(len(job.images)))
    assert job.images == () and seen == []
    may_save.set()
    saver.close()
    assert [picture.index for picture in job.images] == [0, 1, 2] and seen == [3]
    assert all(picture.path.parent == settings.output_dir("txt2img") for picture in job.images)


def test_a_picture_that_cannot_be_saved_says_where_and_why(settings: Settings, make_picture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    saver, job = make_saver(settings.model_copy(update={"out": tmp_path / "file"})), make_job()
    saver.save(job, make_picture())
    saver.close()
    (picture,) = job.images
    assert picture.path is None and picture.warning.startswith(
        f"This picture could not be saved in {tmp_path / 'file'}"
    )


def test_once_closed_nothing_comes_afterwards(settings: Settings) -> None:
    saver, seen = make_saver(settings), []
    saver.close()
    saver.afterwards(lambda: seen.append(True))
    assert seen == []
