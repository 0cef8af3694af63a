"""What libraries do on the way that nobody here needs, kept from them while a context lasts.

Each says for which version it was needed; where a later one does without, it goes. Nothing else in Darkroom puts a
stand-in into the place of a library's own parts.
"""

import asyncio.constants
import importlib.metadata
import inspect
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from copy import deepcopy
from functools import cache, cached_property, partial
from importlib import import_module
from types import FunctionType, ModuleType, NoneType
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
    command, httpx's, and pages of other people's are made with, 0.25 s.

    What stands in for them imports them: pandas when something of it is asked for, the others when it is called. httpx
    0.28 does without its own where that is missing.
    """
    finders: dict[str, Callable[[str], Any]] = {"pandas": partial(_find, "pandas")}
    finders |= {name: partial(Asked, name) for name in CALLED}
    stand_ins = {name: _made_of(name, finder) for name, finder in finders.items()}
    with _in_place_of({**stand_ins, "httpx._main": None}), _hub_that_is_asked():
        yield


CALLED = (
    *("gradio.cli", "gradio.external", "gradio.workflow", "gradio_client.client"),
    "huggingface_hub.utils._telemetry",
)
"""Modules of which Gradio takes functions and classes alone, to call them."""
HUB = (
    *("HfApi", "CommitOperationAdd", "ModelCard", "ModelCardData", "get_token", "whoami", "model_info", "create_repo"),
    *("hf_hub_download", "resolve_revision", "snapshot_download", "upload_folder"),
)
"""What Gradio and diffusers take of huggingface_hub 2.4, to call it: 0.1 s."""


class Asked:
    """A part of a module that is not imported before it is called, or asked for a part of its own."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _find(*self._place)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(_find(*self._place), name)


def _find(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


@contextmanager
def _hub_that_is_asked() -> Iterator[None]:
    """huggingface_hub, which finds what is asked of it in its modules, with ``HUB`` left for later."""
    hub = vars(import_module("huggingface_hub"))
    with patch.dict(hub, {name: Asked("huggingface_hub", name) for name in HUB if name not in hub}):
        yield


def _made_of(name: str, find: Callable[[str], Any]) -> ModuleType:
    """A module whose parts ``find`` finds."""
    module = ModuleType(name)
    vars(module)["__getattr__"] = find
    return module


def _instead(of: Any, name: str, stand_in: Any) -> AbstractContextManager[Any]:
    """A part of a module or class that a later version may have no more: nothing is exchanged then."""
    return patch.object(of, name, stand_in) if hasattr(of, name) else nullcontext()


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


def without_templates() -> AbstractContextManager[Any]:
    """Gradio 6.31, to be imported: compiles a template for each event of each class, 216, in which one name stands."""
    import jinja2

    template = jinja2.Template

    class Plain:
        def __init__(self, text: str) -> None:
            self._text = text

        def render(self, **names: str) -> str:
            text = self._text
            for name, value in names.items():
                text = text.replace(f"{{{{ {name} }}}}", value)
            return template(self._text).render(names) if "{{" in text or "{%" in text else text

    return patch("jinja2.Template", Plain)


def with_models_made_late() -> AbstractContextManager[Any]:
    """pydantic 2.14, of which classes are made: makes what checks their values at once, and not when they are used
    first. Of FastAPI's and Gradio's most never are: 0.15 s."""
    from pydantic import BaseModel

    return patch.dict(BaseModel.model_config, {"defer_build": True})


def with_one_list_of_certificates() -> AbstractContextManager[Any]:
    """httpx 0.28, of which clients are made: reads the list of those who vouch for servers for each anew, 0.02 s."""
    module: Any = import_module("httpx._transports.default")
    make: Any = getattr(module, "create_ssl_context", None)
    return _instead(module, "create_ssl_context", cache(make)) if make else nullcontext()


@contextmanager
def remembering_classes() -> Iterator[None]:
    """Gradio 6.31, building a page or launching one: looks at the parameters of its classes' functions, at all that
    the classes have, and at the forms of their values, anew for each of hundreds of components: 0.25 s."""
    from pydantic import BaseModel

    make_schema = vars(BaseModel)["model_json_schema"].__func__
    make_once = cache(make_schema)

    def json_schema(of: type[BaseModel], *more: Any, **options: Any) -> Any:
        return make_schema(of, *more, **options) if more or options else deepcopy(make_once(of))

    with (
        patch("inspect.signature", _remembering(inspect.signature)),
        patch("inspect.getfullargspec", _remembering(inspect.getfullargspec)),
        patch("gradio.components.base.dir", _server_functions, create=True),
        patch.object(BaseModel, "model_json_schema", classmethod(json_schema)),
    ):
        yield


def _remembering(look: Callable[..., Any]) -> Callable[..., Any]:
    """``look`` at a function, whose answer is known the second time it is asked of it alone."""
    known: dict[object, Any] = {}

    def remembered(of: Any, *more: Any, **options: Any) -> Any:
        if more or options or not isinstance(of, FunctionType):
            return look(of, *more, **options)
        if of not in known:
            known[of] = look(of)
        return known[of]

    return remembered


@cache
def _server_functions(of: type) -> list[str]:
    """What a component's class has that Gradio's ``server`` has marked."""
    return [name for name in dir(of) if hasattr(inspect.getattr_static(of, name), "_is_server_fn")]


@contextmanager
def with_routes_made_once() -> Iterator[None]:
    """FastAPI 0.165, given routes: makes each twice, the second time when the first request comes to it; makes at once
    what checks the values of each; and imports pydantic's first version to see whether they are of its classes. 0.2 s.
    """
    routing: Any = import_module("fastapi.routing")
    first = ModuleType("pydantic.v1")  # None is of them where nobody else has imported it
    vars(first)["BaseModel"] = type("BaseModel", (), {})
    make: Any = getattr(routing, "_populate_api_route_state", None)
    with (
        _in_place_of({"pydantic.v1": first}),
        _instead(import_module("fastapi._compat.v2"), "TypeAdapter", LateAdapter),
        _instead(routing, "_populate_api_route_state", partial(_make_again, make)),
    ):
        yield


class LateAdapter:
    """pydantic's ``TypeAdapter``, made when something is asked of it."""

    def __init__(self, kind: Any, **options: Any) -> None:
        self._asked = kind, options

    @cached_property
    def _made(self) -> Any:
        from pydantic import TypeAdapter

        kind, options = self._asked
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as FastAPI does: of a field of a function it needs the kind alone
            made = TypeAdapter(kind, **options)
            made.rebuild(raise_errors=False)  # else what was deferred is made, and warned of, at the first value
            return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def _make_again(make: Callable[..., None], route: Any, path: str, endpoint: Any, **told: Any) -> None:
    """A route that is taken over as it is has what it had, but for what it is told."""
    known = getattr(route, "original_route", None)
    same = ("dependencies", "responses", "methods", "response_model", "name", "generate_unique_id_function")
    if (
        known is None
        or (path, endpoint) != (known.path, known.endpoint)
        or any(told[name] != getattr(known, name) for name in same)
        or known.is_json_stream
        or known.is_sse_stream
    ):
        make(route, path, endpoint, **told)
        return
    vars(route).update({name: getattr(known, name) for name in vars(route) if hasattr(known, name)} | told)


@contextmanager
def with_light_walks() -> Iterator[None]:
    """Gradio 6.31, making the document of a page: copies all that the page is made of, and goes through it for files,
    in 60,000 calls of functions, 0.1 s."""
    utils: Any = sys.modules["gradio_client.utils"]
    is_file, walk = utils.is_file_obj_with_url, utils.traverse

    def traverse(value: Any, change: Callable[..., Any], is_root: Callable[..., bool]) -> Any:
        return _changed(value, change, is_file) if is_root is is_file else walk(value, change, is_root)

    with _instead(utils, "traverse", traverse), _instead(sys.modules["gradio.utils"], "safe_deepcopy", _copy):
        yield


PLAIN = (str, int, float, bool, NoneType)


def _copy(value: Any) -> Any:
    """A copy of a value as JSON has them, and of others."""
    kind = type(value)
    if kind is dict:
        return {key: each if type(each) in PLAIN else _copy(each) for key, each in value.items()}
    if kind is list:
        return [each if type(each) in PLAIN else _copy(each) for each in value]
    return value if kind in PLAIN else deepcopy(value)


def _changed(value: Any, change: Callable[..., Any], is_file: Callable[..., bool]) -> Any:
    """A value as JSON has them, with what ``change`` makes of its files."""
    if isinstance(value, dict):
        if "url" in value and is_file(value):
            return change(value)
        return {key: each if type(each) in PLAIN else _changed(each, change, is_file) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [each if type(each) in PLAIN else _changed(each, change, is_file) for each in value]
    return value


@contextmanager
def without_web_application() -> Iterator[None]:
    """Gradio 6.31, building a page: makes its web application three times, 0.13 s each, before launch makes it, and
    all that the page is made of, 0.07 s, which launch makes anew."""
    with patch("gradio.blocks.App.create_app"), patch("gradio.blocks.Blocks.get_config_file", return_value={}):
        yield


@contextmanager
def without_second_looks(page: Any) -> Iterator[None]:
    """Gradio 6.31, launching a page: makes all that it is made of twice, 0.07 s each, the second time to serve it;
    imports its own command, 0.1 s, to see whether that reloads the page; and gives up where the page takes longer than
    3 s: it is made then, which may take a busy machine so long.

    A version that makes once what the page is made of has it made here, before the page is asked for.
    """
    blocks, networking = sys.modules["gradio.blocks"], sys.modules["gradio.networking"]
    make, is_there, done = blocks.Blocks.get_config_file, networking.url_ok, list[Any]()

    def second(page: Any) -> Any:
        done.append(page)
        return make(page) if len(done) > 1 else {}

    def complete() -> None:
        if len(done) == 1:
            done[0].config = second(done[0])

    def url_ok(url: str) -> bool:
        if url != page.local_url:
            return bool(is_there(url))
        complete()
        answer = networking.httpx.head(url, timeout=None, verify=False)  # it is this very server
        return bool(answer.status_code < 400 or answer.status_code == 401)

    with (
        patch.object(blocks.Blocks, "get_config_file", second),
        _instead(blocks.Blocks, "_is_running_in_reload_thread", False),
        patch.object(networking, "url_ok", url_ok),
    ):
        yield
    complete()


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
    takes 0.2 s, and serves three that are called otherwise than what they install, none of which is ours. What it
    fetches files with takes 0.15 s, and reading all that packages say of themselves, for their versions, 0.1 s.
    """
    stand_ins = {
        "torch._dynamo": None,
        "scipy.stats": ModuleType("scipy.stats"),
        "requests": _made_of("requests", partial(_find, "requests")),
    }
    with (
        _in_place_of(stand_ins),
        _hub_that_is_asked(),
        patch("importlib.metadata.packages_distributions", return_value={}),
        patch("importlib.metadata.version", version),
    ):
        yield


def version(name: str) -> str:
    """Of a package, as ``importlib.metadata`` tells it, which reads the text beside it as a letter."""
    head = (importlib.metadata.distribution(name).read_text("METADATA") or "").partition("\n\n")[0]
    said = re.search(r"^Version: *(.*?) *$", head, re.MULTILINE)
    return said[1] if said else importlib.metadata.distribution(name).version
