"""The page. Gradio is imported here, before the modules that use it."""

import inspect
from unittest.mock import patch


def _import_gradio() -> None:
    """Without the interface files for code editors, which Gradio 6.31 makes of its classes: half of the time.

    It leaves out those whose source has no file, and so it is told of each of them.
    """
    find_file = inspect.getfile

    def getfile(of: object) -> str:
        if isinstance(of, type) and of.__module__.startswith("gradio."):
            raise OSError("no interface file is wanted")
        return find_file(of)  # type: ignore[arg-type]

    with patch("inspect.getfile", getfile):
        import gradio  # noqa: F401


_import_gradio()
