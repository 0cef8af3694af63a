"""What went wrong, in one line that names no folder of the machine."""

import pytest

from webui.jobs.trouble import for_people


class Known(Exception):
    """As our own code raises them."""


Known.__module__ = "webui.engine.families.base"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Known("model 'x' cannot be loaded: /models/x\nand a long story"), "model 'x' cannot be loaded: /models/x"),
        (RuntimeError("CUDA out of memory.\nTried to ..."), "RuntimeError: CUDA out of memory."),
        (AssertionError(), "AssertionError: no details"),
        (Known(), "Known: no details"),
        (OSError(13, "Denied", "/home/ann/x.bin"), "PermissionError: [Errno 13] Denied: 'x.bin'"),
        (ValueError(r"a/b is not C:\Users\ann lee\x.bin"), "ValueError: a/b is not x.bin"),
    ],
)
def test_it_is_the_first_line_with_the_kind_and_without_folders(error: Exception, expected: str) -> None:
    assert for_people(error) == expected
