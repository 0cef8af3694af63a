"""``/api/words``: what prompts can be completed with, and lists of tags as they are sent."""

import gzip

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from webui.api.words import words_router
from webui.core.catalog import Catalog
from webui.core.visitor import NOBODY, OWNER
from webui.core.visitor import _asking as asking
from webui.library.library import Library


@pytest.fixture
def client(settings):
    for name, text in {
        "tags/site.csv": "solo,0,9\nhat,0,12,hats\n",
        "tags/broken.csv": "\0",
        "wildcards/colour.txt": "red\ngreen\nblue\nteal\n",
        "embeddings/soft.safetensors": "x",
    }.items():
        path = settings.data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    library = Library(settings)

    class Files:
        def catalog(self, max_age_s=0.0):
            return Catalog.of(library.snapshot(max_age_s))

    app = FastAPI()
    app.include_router(words_router(Files()))
    return TestClient(app)


@pytest.fixture(params=[OWNER, NOBODY], ids=["owner", "guest"])
def visitor(request):
    token = asking.set(request.param)
    yield request.param
    asking.reset(token)


def test_names_and_some_texts_are_told_and_faults_to_the_owner_alone(client, settings, visitor):
    answer = client.get("/api/words")
    told = answer.json()
    assert told["embeddings"] == ["soft"]
    assert told["wildcards"] == [{"name": "colour", "texts": 4, "some": ["red", "green", "blue"]}]
    site = told["tags"][-1]
    assert (site["name"], site["tags"], site["problem"]) == ("site", 2, "")
    broken = [entry["problem"] for entry in told["tags"] if entry["name"] == "broken"]
    assert broken == (["is not text"] if visitor.is_owner else [])
    assert str(settings.data_dir) not in answer.text


def test_who_has_them_already_is_told_so(client):
    for address in ("/api/words", "/api/words/tags?name=site"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert again.headers["etag"] == first.headers["etag"] and "no-cache" in first.headers["cache-control"]


def test_a_list_is_sent_packed_or_plain(client):
    lines = "0\t12\that\thats\n0\t9\tsolo"
    with client.stream("GET", "/api/words/tags?name=site") as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(packed.iter_raw())).decode() == lines
    plain = client.get("/api/words/tags?name=site", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == lines


@pytest.mark.parametrize("name", ["broken", "nope", "../tags/site", "site.csv", "/etc/passwd", ""])
def test_no_other_file_is_sent(client, name):
    assert client.get("/api/words/tags", params={"name": name}).status_code == 404
