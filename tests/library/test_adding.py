"""Files from addresses: over real https, cut off, gone on with, changed in between, and refused."""

import hashlib
import itertools
import json
import re
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_certificate
from webui.cli import main
from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.library.adding import incoming, web
from webui.library.adding.additions import Additions
from webui.library.adding.fetching import Fetching, Stopped, find_left_over
from webui.library.adding.incoming import Shelves
from webui.library.adding.sites import find_source, tokens_from
from webui.library.adding.web import Web, WebError, find_public, is_public, token_for
from webui.library.library import DEMO_MODEL, find_loras

LORA = DEMO_MODEL / "loras" / "blueprint.safetensors"
DATA = LORA.read_bytes()
SHA256 = hashlib.sha256(DATA).hexdigest()
CUT_BYTES = 100_000


class Site:
    """A real https server on this machine; ``answers`` are by path, each a function of the handler."""

    def __init__(self, folder: Path) -> None:
        cert, key = make_certificate(folder)
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                site.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        # what is asked for by this very address is let in; all other names are looked at as always
        find = lambda host, port: host if host == "127.0.0.1" else find_public(host, port)  # noqa: E731
        self.web = Web(find=find, context=ssl.create_default_context(cafile=cert))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def site(whole_site: Site) -> Site:
    whole_site.answers.clear()
    whole_site.asked.clear()
    return whole_site


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(Settings(data_dir=tmp_path))


def answer(status: int = 200, data: bytes = b"", **headers: str) -> Callable[[Any], None]:
    def send(handler: Any) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return send


def serve(data: bytes = DATA, etag: str = '"one"', cut: int = 0) -> Callable[[Any], None]:
    """A file as good servers give it: any part of it, as long as it is this version. ``cut``: it ends there."""

    def send(handler: Any) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        first = int(wanted[1]) if wanted and handler.headers.get("If-Range") == etag else 0
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.send_header("ETag", etag)
        handler.end_headers()
        handler.wfile.write(data[first : cut or None])

    return send


def in_turn(*answers: Callable[[Any], None]) -> Callable[[Any], None]:
    """One after the other, the last for all that come later."""
    left = itertools.chain(answers, itertools.repeat(answers[-1]))
    return lambda handler: next(left)(handler)


def fetching(site: Site, shelves: Shelves, path: str = "/blueprint.safetensors", **given: str) -> Fetching:
    return Fetching(shelves, site.web, site.url + path, pause_s=lambda _: 0.0, **given)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_whole_though_the_line_is_cut(site, shelves, tmp_path):
    site.answers["/resolve/blueprint.safetensors"] = answer(302, Location="/cdn?signed=1", X_Linked_Etag=f'"{SHA256}"')
    site.answers["/cdn"] = in_turn(serve(cut=CUT_BYTES), serve())
    one = fetching(site, shelves, "/resolve/blueprint.safetensors")
    place, sha256 = one.run()
    assert (place.kind, place.about, sha256, one.checked_by) == ("LoRA", "a LoRA", SHA256, "Hugging Face")
    assert place.path.read_bytes() == DATA and files(tmp_path) == [tmp_path / "models/Lora/blueprint.safetensors"]
    ranges = [headers.get("range") for path, headers in site.asked if path.startswith("/cdn")]
    assert ranges == [None, f"bytes={CUT_BYTES}-"]
    assert "blueprint" in find_loras(Settings(data_dir=tmp_path))


def test_a_file_that_changed_in_between_comes_anew(site, shelves):
    changed = DATA[:-4] + b"\0\1\2\3"
    site.answers["/blueprint.safetensors"] = in_turn(serve(cut=CUT_BYTES), serve(changed, '"two"'))
    place, sha256 = fetching(site, shelves).run()
    assert place.path.read_bytes() == changed and sha256 == hashlib.sha256(changed).hexdigest()


def test_the_next_server_goes_on_with_what_has_come(site, tmp_path):
    settings = Settings(data_dir=tmp_path, offline=False)
    site.answers["/blueprint.safetensors"] = in_turn(serve(cut=CUT_BYTES), answer(403))
    with pytest.raises(WebError, match="wants a login"):
        fetching(site, Shelves(settings)).run()
    additions = Additions(settings, site.web)
    (left,) = additions.show()
    assert (left["state"], left["name"], left["received_bytes"], left["size_bytes"]) == (
        *("stopped", "blueprint.safetensors"),
        *(CUT_BYTES, len(DATA)),
    )
    site.answers["/blueprint.safetensors"] = serve()
    one = additions.again(left["id"])
    additions._threads.shutdown()
    (told,) = additions.show()
    assert told["state"] == "done" and told["sha256"] == SHA256 and one.place.path.read_bytes() == DATA
    assert [headers.get("range") for _, headers in site.asked][-1] == f"bytes={CUT_BYTES}-"
    additions.remove(one.id)
    assert additions.show() == [] and one.place.path.exists(), "only the line goes"


def test_what_has_come_in_part_can_be_thrown_away(site, tmp_path):
    settings = Settings(data_dir=tmp_path, offline=False)
    site.answers["/blueprint.safetensors"] = in_turn(serve(cut=CUT_BYTES), answer(404))
    with pytest.raises(WebError, match="no such file"):
        fetching(site, Shelves(settings)).run()
    additions = Additions(settings, site.web)
    additions.remove(additions.show()[0]["id"])
    assert files(tmp_path) == []
    with pytest.raises(LookupError):
        additions.remove("0" * 32)


def test_a_stop_leaves_nothing(site, shelves, tmp_path):
    one = fetching(site, shelves)

    def send(handler: Any) -> None:
        serve(cut=CUT_BYTES)(handler)
        one.stop()

    site.answers["/blueprint.safetensors"] = send
    with pytest.raises(Stopped):
        one.run()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (answer(data=b"<!DOCTYPE html><html>Log in</html>", Content_Type="text/html; charset=utf-8"), "a web page"),
        (answer(data=b"<!DOCTYPE html><html>Log in</html>" * 9), "it is a web page; the download may need a login"),
        (answer(data=struct.pack("<Q", 2**30) + b"{" + bytes(300)), "has a header of 1,024 MiB; 16 MiB are allowed"),
        (answer(data=DATA[:5000]), "is cut short"),
        (answer(data=DATA, Content_Encoding="gzip"), "packed"),
        (lambda handler: (handler.send_response(200), handler.end_headers()), "does not say how large"),
        (answer(401), "wants a login for this file"),
        (answer(500), "cannot send the file now"),
        (answer(302, Location="http://127.0.0.1/x"), "Only https addresses are fetched, and http is none"),
        (answer(302, Location="https://localhost/x"), "localhost is .* in a private network: nothing is fetched"),
        (answer(302, Location="/blueprint.safetensors"), "redirects in a circle"),
    ],
)
def test_what_is_no_file_is_refused(site, shelves, tmp_path, sent, reason):
    site.answers["/blueprint.safetensors"] = sent
    with pytest.raises((WebError, RequestError), match=reason):
        fetching(site, shelves).run()
    assert files(tmp_path) == []


def test_another_hash_leaves_nothing(site, shelves, tmp_path):
    site.answers["/blueprint.safetensors"] = serve()
    with pytest.raises(RequestError, match=f"its SHA-256 is {SHA256}, not {'0' * 64}"):
        fetching(site, shelves, sha256="0" * 64).run()
    assert files(tmp_path) == []


def test_a_disk_without_room_and_a_name_that_is_taken(site, shelves, tmp_path, monkeypatch):
    site.answers["/blueprint.safetensors"] = serve()
    with monkeypatch.context() as patch:
        patch.setattr(incoming, "free_bytes", lambda _: 2**30 + 1000)
        with pytest.raises(
            incoming.NoRoom, match="0.1 MB are needed, 1.1 GB are free in .*, and 1.1 GB must stay free"
        ):
            fetching(site, shelves).run()
    assert files(tmp_path) == []
    fetching(site, shelves).run()
    with pytest.raises(incoming.Taken, match="a file of that name already"):
        fetching(site, shelves).run()
    fetching(site, shelves, name="other.safetensors").run()
    assert len(list(find_left_over(shelves))) == 0 and len(files(tmp_path)) == 2


def test_the_server_s_name_for_the_file_is_taken_and_cleaned(site, shelves):
    site.answers["/download/7"] = in_turn(
        lambda handler: (
            *(handler.send_response(200), handler.send_header("Content-Length", str(len(DATA)))),
            handler.send_header("Content-Disposition", 'attachment; filename="../a:b.safetensors"'),
            *(handler.end_headers(), handler.wfile.write(DATA)),
        )
    )
    assert fetching(site, shelves, "/download/7").run()[0].path.name == "_a_b.safetensors"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:1::1",
    ],
)
def test_private_addresses_are_known(address):
    assert not is_public(address)


def test_public_addresses_are_known():
    assert is_public("8.8.8.8") and is_public("2606:4700::1111") and is_public("64:ff9b::808:808")


def test_only_https_without_a_password_is_an_address():
    for url in ("http://x/y", "ftp://x/y", "https:///x", "https://me:secret@x/y", "https://x/a b", "https://[x/y"):
        with pytest.raises(WebError) as told:
            web.check_address(url)
        assert "secret" not in str(told.value)


def test_a_token_goes_to_its_own_host_alone():
    tokens = tokens_from({"HF_TOKEN": "hf", "CIVITAI_API_TOKEN": " c ", "OTHER": "x"})
    assert token_for(tokens, "huggingface.co", 443) == {"Authorization": "Bearer hf"}
    assert token_for(tokens, "civitai.com", 443) == {"Authorization": "Bearer c"}
    for host, port in (("cdn-lfs.huggingface.co", 443), ("huggingface.co", 8443), ("huggingface.co.evil.com", 443)):
        assert token_for(tokens, host, port) == {}


class Told:
    """A site's API."""

    def __init__(self, **texts: Any) -> None:
        self.texts = texts

    def read_text(self, url: str) -> str:
        found = next((text for end, text in self.texts.items() if url.endswith(end.replace("_", "/"))), None)
        if found is None:
            raise WebError("no answer")
        return json.dumps(found)


def test_pages_of_sites_mean_their_files():
    version = {"files": [{"name": "a.safetensors", "hashes": {"SHA256": "AB" * 32}}, {"name": "b", "hashes": None}]}
    told = Told(**{"model-versions_5": version, "v1_models_3": {"modelVersions": [{"id": 5}, {"id": 4}]}})
    page = "https://huggingface.co/me/it/blob/main/sub/a.safetensors"
    assert find_source(page, told).url == "https://huggingface.co/me/it/resolve/main/sub/a.safetensors"
    assert find_source("https://x.org/a?b=1#c", told).url == "https://x.org/a?b=1"
    file = "https://civitai.com/api/download/models/5"
    for url in ("https://civitai.com/models/3/name", "https://civitai.com/models/3?modelVersionId=5", file):
        source = find_source(url, told)
        assert (source.url, source.sha256("a.safetensors")) == (file, "ab" * 32)
    assert find_source(f"{file}?type=Model", Told()).sha256("a") == "", "the site need not say it"
    for url in ("https://huggingface.co/me/it", "https://civitai.com/user/x"):
        with pytest.raises(WebError, match="copy"):
            find_source(url, told)


def test_a_file_of_this_machine_gets_a_second_name_or_is_copied(tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path / "data", offline=True)
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(DATA)
    ones = [(additions := Additions(settings)).add(str(mine))]
    additions._threads.shutdown()  # when it is done
    assert ones[0].place.path.stat().st_ino == mine.stat().st_ino

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("webui.library.adding.additions.os.link", refuse)
    additions = Additions(settings)
    ones += [additions.add(f'"{mine}"', name="copy.safetensors"), additions.add(str(mine).replace("mine", "./mine"))]
    additions._threads.shutdown()
    copy, again = ones[1:]
    assert copy.state == "done" and copy.place.path.read_bytes() == DATA and copy.sha256 == SHA256
    assert again.state == "failed" and "of that name already" in again.problem and again.field_ == "name"
    for source, reason in (
        (tmp_path, "is a folder; start Darkroom with --models-dir"),
        (tmp_path / "no.safetensors", "No such file"),
        ("a.safetensors", "Give the whole path"),
        ("https://x.org/a.safetensors", "Nothing is fetched: this server was started with --offline"),
        ("", "Give the path of a file, or an https address"),
        (DEMO_MODEL / "README.md", "are .safetensors files"),
    ):
        with pytest.raises(RequestError, match=reason):
            additions.add(str(source))


def test_the_command_adds_and_lists(tmp_path, capsys, site):
    data = ("--data-dir", str(tmp_path))
    assert main(["models", "add", str(LORA), *data, "--sha256", SHA256]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "models/Lora/blueprint.safetensors") and SHA256 in said.err
    assert main(["models", "add", str(LORA), *data]) == 1
    assert main(["models", "add", "https://x.org/a.safetensors", *data, "--offline"]) == 2
    assert "Nothing is fetched" in capsys.readouterr().err
    assert main(["models", *data]) == 0
    assert capsys.readouterr().out.startswith("demo\t")
