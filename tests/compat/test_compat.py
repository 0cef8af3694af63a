"""What stands in for parts of libraries does what they do."""

import copy
import importlib.metadata
import inspect
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import gradio
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from gradio import networking
from gradio.blocks import Block
from gradio_client import utils
from pydantic import BaseModel, Field, TypeAdapter

from webui import compat


class Shape(BaseModel):
    sides: int = 4


class Told(JSONResponse):
    """Says by which class it was made."""

    def render(self, content: Any) -> bytes:
        return super().render({"told": content})


def make_app(once: bool) -> FastAPI:
    app, router = FastAPI(default_response_class=Told), APIRouter(prefix="/shapes")

    def routes() -> None:
        @router.get("/one")
        def one(sides: int = 3) -> Shape:
            return Shape(sides=sides)

        @router.post("/one")
        async def add(shape: Shape) -> dict[str, int]:
            return {"sides": shape.sides}

        @router.get("/many")
        def many() -> Iterator[Shape]:
            yield Shape()
            yield Shape(sides=5)

        app.include_router(router)
        app.include_router(router, prefix="/more", tags=["more"])
        TestClient(app).get("/nothing")  # the first request makes what is included

    if once:
        with compat.with_routes_made_once():
            routes()
    else:
        routes()
    return app


def test_routes_that_are_made_once_answer_as_those_that_are_made_twice() -> None:
    asked = [
        ("GET", "/shapes/one", None),
        ("GET", "/shapes/one?sides=x", None),
        ("GET", "/more/shapes/one?sides=7", None),
        ("POST", "/shapes/one", {"sides": 6}),
        ("POST", "/shapes/one", {"sides": "six"}),
        ("PUT", "/shapes/one", {}),
        ("GET", "/shapes/many", None),
        ("GET", "/more/shapes/many", None),
        ("GET", "/openapi.json", None),
    ]
    answers = []
    for once in (False, True):
        client = TestClient(make_app(once), raise_server_exceptions=False)
        found = [client.request(method, path, json=body) for method, path, body in asked]
        answers.append([(answer.status_code, answer.headers["content-type"], answer.content) for answer in found])
    assert answers[0] == answers[1]
    assert answers[1][0][2] == b'{"told":{"sides":3}}'


def test_versions_are_those_that_packages_say() -> None:
    names = {found.metadata["Name"] for found in importlib.metadata.distributions()}
    assert len(names) > 50
    assert {name: compat.version(name) for name in names} == {name: importlib.metadata.version(name) for name in names}
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        compat.version("no-such-package")


def test_what_is_asked_later_is_the_thing_itself() -> None:
    part = compat.Asked("json", "JSONDecoder")
    assert part().decode("[1]") == [1]
    assert part.decode is __import__("json").JSONDecoder.decode


def test_the_words_of_events_name_their_component() -> None:
    said = gradio.Textbox.change.__doc__ or ""
    assert "Textbox" in said and "{{" not in said
    with compat.without_templates():
        import jinja2

        told = ("{{ component }} is", "{% if component %}{{ component | upper }}{% endif %}", "{{ other }}")
        assert [jinja2.Template(text).render(component="Box") for text in told] == ["Box is", "BOX", ""]


def test_copies_and_walks_come_to_what_gradios_come_to() -> None:
    class Odd:
        def __init__(self) -> None:
            self.within = [1]

    file = {"path": "a.png", "url": "/file=a.png", "meta": {"_type": "gradio.FileData"}}
    value = {"list": [1, None, {"file": file}, (2, [file])], "text": "x", 3: Odd(), "none": {"url": 4, "path": ""}}

    def change(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"url": f"/root{found['url']}"}

    plain = utils.traverse(value, change, utils.is_file_obj_with_url)
    with compat.with_light_walks():
        assert utils.traverse(value, change, utils.is_file_obj_with_url) == plain
        assert utils.traverse(value, lambda _: 0, lambda part: part == 1)["list"][0] == 0
        copied = gradio.utils.safe_deepcopy(value)
    odd, first = copied.pop(3), value.pop(3)
    assert copied == value == copy.deepcopy(value) and copied["list"][2] is not value["list"][2]
    assert copied["list"][2]["file"] is not file and odd.within == first.within and odd.within is not first.within


def test_components_have_their_server_functions_and_signatures() -> None:
    def every(of: type) -> Iterator[type]:
        yield of
        for below in of.__subclasses__():
            yield from every(below)

    found = {of for of in every(Block) if of.__module__.startswith("gradio.")}
    assert len(found) > 40
    for of in found:
        marked = [name for name in dir(of) if getattr(getattr(of, name, None), "_is_server_fn", False)]
        assert compat._server_functions(of) == marked
    assert any(compat._server_functions(of) for of in found)
    plain = {of: (inspect.signature(of.__init__), inspect.getfullargspec(of.__init__)) for of in found}
    with compat.remembering_classes():
        for _ in range(2):
            looked = {of: (inspect.signature(of.__init__), inspect.getfullargspec(of.__init__)) for of in found}
            assert looked == plain
        with pytest.raises(TypeError):
            inspect.signature(3)  # type: ignore[arg-type]


def test_schemas_are_made_once_and_each_has_its_own() -> None:
    plain = Shape.model_json_schema()
    with compat.remembering_classes():
        Shape.model_json_schema().pop("properties")
        assert Shape.model_json_schema() == plain
        assert Shape.model_json_schema(mode="serialization") is not None
    assert Shape.model_json_schema() == plain


@pytest.mark.parametrize(("status", "is_there"), [(200, True), (302, True), (401, True), (404, False), (500, False)])
def test_the_page_may_take_its_time(monkeypatch: pytest.MonkeyPatch, status: int, is_there: bool) -> None:
    import httpx

    asked: list[dict[str, Any]] = []

    def head(url: str, **options: Any) -> httpx.Response:
        asked.append({"url": url, **options})
        return httpx.Response(status)

    monkeypatch.setattr(networking.httpx, "head", head)
    with gradio.Blocks() as page:
        gradio.HTML()
    page.local_url = "http://127.0.0.1:1/"
    with compat.without_second_looks(page):
        page.get_config_file(), page.get_config_file()
        assert not page._is_running_in_reload_thread
        assert networking.url_ok(page.local_url) == is_there
        assert asked[0]["timeout"] is None
        if is_there:
            assert networking.url_ok("https://elsewhere.example/") and asked[1]["timeout"] == 3


class Late(BaseModel, defer_build=True):
    sides: int = 4


def test_what_checks_a_value_warns_of_nothing_at_the_first_one() -> None:
    kind = Annotated[Late, Field(alias="body")]
    with pytest.warns(UserWarning, match="alias"):
        TypeAdapter(kind).validate_python({"sides": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compat.LateAdapter(kind).validate_python({"sides": 3}) == Late(sides=3)
