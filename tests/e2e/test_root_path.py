"""The page and the API behind a proxy that has them below a path of its own."""

import copy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from .server import SMALL, Server

PREFIX = "/sd"
OWN = ("connection", "transfer-encoding", "content-length", "content-encoding")


class Proxy(BaseHTTPRequestHandler):
    """Hands on what is asked below ``PREFIX`` without it, and nothing else, as nginx's ``proxy_pass`` does."""

    target: httpx.Client
    asked_elsewhere: list[str] = []

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.startswith(f"{PREFIX}/"):
            if self.path != "/favicon.ico":  # which browsers look for by themselves
                self.asked_elsewhere.append(self.path)
            self.send_response(204)
            self.end_headers()
            return
        sent = {name: value for name, value in self.headers.items() if name.lower() not in (*OWN, "host")}
        with self.target.stream(
            self.command, self.path.removeprefix(PREFIX), headers=sent, content=body or None
        ) as answer:
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in OWN:
                    self.send_header(name, value)
            self.end_headers()
            for part in answer.iter_bytes():
                self.wfile.write(part)
                self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxied(start_server) -> Iterator[Server]:
    server = start_server("--root-path", PREFIX)
    with httpx.Client(base_url=server.url, timeout=None, trust_env=False) as target:
        handler = type("OfThisServer", (Proxy,), {"target": target})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            shown = copy.copy(server)
            shown.url = f"http://127.0.0.1:{proxy.server_port}{PREFIX}/"
            yield shown
            proxy.shutdown()


@pytest.mark.slow
def test_a_page_below_a_path_draws_and_shows_its_history(proxied, open_tab):
    tab = open_tab(server=proxied)
    tab.draw(prompt="a red apple", **SMALL)
    tab.page.wait_for_function("document.querySelector('#txt2img-gallery img')?.naturalWidth === 64")
    tab.page.get_by_role("tab", name="History").click()
    tab.page.locator(".history img").first.wait_for()
    assert httpx.get(f"{proxied.url}api/health", trust_env=False).json()["status"] == "ok"
    assert Proxy.asked_elsewhere == []
