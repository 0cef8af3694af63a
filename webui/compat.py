"""What libraries do on the way that nobody here needs, kept from them while a context lasts.

Each says for which version it was needed; where a later one does without, it goes. Nothing else in Darkroom puts a
stand-in into the place of a library's own parts.
"""

import asyncio.constants
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import cache, partial
from importlib import import_module
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


@contextmanager
def without_tables_and_shells() -> Iterator[None]:
    """Gradio 6.31, to be imported: takes pandas, 0.3 s, for components that the page has not got, and what its own
    command and pages of other people's are made with, 0.1 s.

    What stands in for them imports them: pandas when something of it is asked for, the others when it is called.
    """

    def find(name: str) -> Any:
        return getattr(import_module("pandas"), name)

    def ask(module: str, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: getattr(import_module(module), name)(*arguments, **options)

    finders = {"pandas": find} | {name: partial(ask, name) for name in ("gradio.cli", "gradio.external")}
    with _in_place_of({name: _made_of(name, finder) for name, finder in finders.items()}):
        yield


def _made_of(name: str, find: Callable[[str], Any]) -> ModuleType:
    """A module whose parts ``find`` finds."""
    module = ModuleType(name)
    vars(module)["__getattr__"] = find
    return module


@contextmanager
def _in_place_of(stand_ins: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Modules by name, None for one that cannot be had, each in the place of one that is not imported yet."""
    new = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules |= new  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in new:
            del sys.modules[name]


def with_few_templates() -> AbstractContextManager[Any]:
    """Gradio 6.31, to be imported: compiles a template for each event of each class, 216, of which 36 differ."""
    import jinja2

    return patch("jinja2.Template", cache(jinja2.Template))


@contextmanager
def without_web_application() -> Iterator[None]:
    """Gradio 6.31, building a page: makes its web application three times, 0.13 s each, before launch makes it, and
    all that the page is made of, 0.07 s, which launch makes anew."""
    with patch("gradio.blocks.App.create_app"), patch("gradio.blocks.Blocks.get_config_file", return_value={}):
        yield


@contextmanager
def with_one_configuration() -> Iterator[None]:
    """Gradio 6.31, launching a page: makes all that it is made of twice, 0.07 s each, the second time to serve it.

    A version that makes it once has it made here afterwards.
    """
    blocks: Any = sys.modules["gradio.blocks"]
    make, done = blocks.Blocks.get_config_file, list[Any]()

    def second(page: Any) -> Any:
        done.append(page)
        return make(page) if len(done) > 1 else {}

    with patch.object(blocks.Blocks, "get_config_file", second):
        yield
    if len(done) == 1:
        done[0].config = make(done[0])


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
    """diffusers 0.42, importing schedulers: takes things that they do not need for what is done here.

    torch's compiler takes a second; diffusers does without where it is missing. scipy's statistics, for one schedule,
    take most of one; scipy imports them itself when they are first used. Reading the lists of files of all packages
    takes 0.2 s, and serves three that are called otherwise than what they install, none of which is ours.
    """
    stand_ins = {"torch._dynamo": None, "scipy.stats": ModuleType("scipy.stats")}
    with _in_place_of(stand_ins), patch("importlib.metadata.packages_distributions", return_value={}):
        yield
