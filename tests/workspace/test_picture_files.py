"""What is known of a picture's file without opening it."""

from datetime import datetime

import pytest

from webui.workspace import picture_files
from webui.workspace.picture_files import MAX_INTEGER, local_time


def test_a_time_that_the_system_cannot_tell_is_told_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Datetime(datetime):
        @classmethod
        def fromtimestamp(cls, *_: object) -> "Datetime":
            raise OSError("Invalid argument")  # Windows, before 1970

    monkeypatch.setattr(picture_files, "datetime", Datetime)
    assert local_time(-MAX_INTEGER).isoformat() == "1677-09-21T00:12:43"
