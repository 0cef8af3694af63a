"""What libraries do on the way that nobody here needs, kept from them while a context lasts.

Each says for which version it was needed; where a later one does without, it goes. Nothing else in Darkroom puts a
stand-in into the place of a library's own parts.
"""

import asyncio.constants
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from types import ModuleType
from typing import Any
from unittest.mock import patch


def without_interface_files() -> AbstractContextManager[Any]:
    """Gradio 6.31, to be imported: makes interface files for code editors of its classes, half of the import's time.

    It leaves out those whose source has no file, and so it is told of each of them.
    """
    find_file = inspect.getfile

    def getfile(of: object) -> str:
        if isinstance(of, type) and of.__module__.startswith("gradio."):
            raise OSError("no interface file is wanted")
        return find_file(of)  # type: ignore[arg-type]

    return patch("inspect.getfile", getfile)


def without_web_application() -> AbstractContextManager[Any]:
    """Gradio 6.31, building a page: makes its web application three times, 0.13 s each, before launch makes it."""
    return patch("gradio.blocks.App.create_app")


@contextmanager
def with_connections(make: Callable[..., Any]) -> Iterator[None]:
    """uvicorn 0.54, started by Gradio 6.31, which hands on none of its options: ``make`` makes what a client talks to.

    asyncio waits a minute for a client to agree on a cipher, and nothing of ours sees it until then.
    """
    with patch.dict("uvicorn.config.HTTP_PROTOCOLS", {"auto": make}):
        asyncio.constants.SSL_HANDSHAKE_TIMEOUT = 10.0
        yield


@contextmanager
def noting_tunnel_trouble() -> Iterator[list[str]]:
    """Why there is no public link, once the block has tried. Gradio 6.31 keeps the reason, and prints guesses."""
    networking: Any = sys.modules["gradio.networking"]
    reasons: list[str] = []
    set_up = networking.setup_tunnel

    def note(*arguments: Any, **options: Any) -> str:
        try:
            address: str = set_up(*arguments, **options)
            return address
        except Exception as error:
            told = (str(reason).strip() for reason in (error, error.__cause__) if reason)
            reasons.extend(line.splitlines()[0].rstrip(".") for line in told if line)
            raise

    with patch.object(networking, "setup_tunnel", note), redirect_stdout(io.StringIO()):
        yield reasons


@contextmanager
def without_compiler_and_statistics() -> Iterator[None]:
    """diffusers 0.42, importing schedulers: takes two things that they do not need for what is done here.

    torch's compiler takes a second; diffusers does without where it is missing. scipy's statistics, for one schedule,
    take most of one; scipy imports them itself when they are first used.
    """
    stand_ins: dict[str, Any] = {"torch._dynamo": None, "scipy.stats": ModuleType("scipy.stats")}
    absent = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules |= absent
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
