"""Guests who come through a tunnel: all from this machine's own address, under a public name, saying what they like.

There is no tunnel here: a proxy of the test's own stands for it.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest

from webui.api.held import GUEST

from .server import SMALL, Server

KEY, NAME = "the-owners-key", "abc.gradio.live"
OWN = ("connection", "transfer-encoding", "content-length", "content-encoding", "host")


class Tunnel(BaseHTTPRequestHandler):
    """Hands everything on under the public name, with whatever the client says of where it came from."""

    target: str

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        sent = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
        sent["Host"] = self.headers.get("X-Test-Host", NAME)
        asked = {"headers": sent, "content": body or None, "timeout": None, "trust_env": False}
        with httpx.stream(self.command, f"{self.target}{self.path}", **asked) as answer:
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in OWN:
                    self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for part in answer.iter_bytes():
                    self.wfile.write(part)
                    self.wfile.flush()

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The server, and the address of the tunnel's end."""
    folder = tmp_path_factory.mktemp("tunnel")
    server = Server(folder, "--guests", "--owner-key", KEY, "--allow-host", NAME)
    handler = type("OfThisServer", (Tunnel,), {"target": server.url.rstrip("/")})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield server, f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        server.close()


@contextlib.contextmanager
def visitor(tunnel: tuple[Server, str], **headers: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tunnel[1], timeout=60, trust_env=False, headers=headers) as client:
        client.get("/")
        yield client


@contextlib.contextmanager
def waiting(server: Server) -> Iterator[None]:
    """Guests' jobs wait, and those who follow one hear nothing of its end."""
    server.client.patch("/api/host", json={"paused": True}).raise_for_status()
    yield
    server.client.patch("/api/host", json={"paused": False}).raise_for_status()


FORGED = ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "::1, 8.8.8.8"}, {"X-Real-IP": "127.0.0.1"})


def test_nothing_is_granted_for_coming_from_this_machine(tunnel):
    for headers in FORGED:
        with visitor(tunnel, **headers) as guest:
            assert guest.post("/sdapi/v1/options", json={"sd_model_checkpoint": "other"}).status_code >= 400
            assert guest.get("/", params={"owner": "guess"}).status_code == 403
    with visitor(tunnel, Authorization=f"Bearer {KEY}") as owner:
        assert owner.get("/api/jobs").status_code == 200


def test_other_names_and_other_sites_are_refused_through_it_too(tunnel):
    with visitor(tunnel) as guest:
        for headers, status in (
            ({"X-Test-Host": "evil.example"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": f"https://{NAME}"}, 403),
            ({"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"}, 202),
        ):
            assert guest.post("/api/jobs", json=SMALL, headers=headers).status_code == status, headers


def test_one_guest_uses_up_nobody_elses_streams(tunnel):
    server, _ = tunnel
    with visitor(tunnel) as ann, visitor(tunnel) as bob, waiting(server), contextlib.ExitStack() as stack:
        jobs = {who: who.post("/api/jobs", json=SMALL).json()["id"] for who in (ann, bob)}

        def follow(who: httpx.Client, **headers: str) -> int:
            opened = who.stream("GET", f"/api/jobs/{jobs[who]}/events", headers=headers)
            return stack.enter_context(opened).status_code

        assert {follow(ann) for _ in range(GUEST.streams)} == {200}
        assert [follow(ann, **headers) for headers in FORGED] == [429] * len(FORGED)
        assert follow(bob) == 200
        for who, job in jobs.items():
            who.delete(f"/api/jobs/{job}")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1100, 2000])
def test_thousands_of_streams_leave_the_server_answering(tunnel, count):
    server, _ = tunnel
    address = urlsplit(server.url)
    with visitor(tunnel) as ann, waiting(server), contextlib.ExitStack() as stack:
        job = ann.post("/api/jobs", json=SMALL).json()["id"]
        cookie = "; ".join(f"{name}={value}" for name, value in ann.cookies.items())
        head = f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n".encode()
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            client.sendall(head)
            clients.append(client)
        said = [client.recv(12).split()[1] for client in clients]
        assert said.count(b"200") == GUEST.streams and said.count(b"429") == count - GUEST.streams
        assert server.health()["status"] == "ok" and ann.get("/").status_code == 200
        ann.delete(f"/api/jobs/{job}")
    assert "Traceback" not in server.log.read_text("utf-8")
