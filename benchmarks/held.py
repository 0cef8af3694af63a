"""What one visitor can hold of a server: how long ``/api/health`` takes while somebody asks for the most they may.

Pictures of 24 megapixels as start pictures, masks and PNG info, rectangles to their limit, a large job looked at again
and again, slow requests, and 1,100 and 2,000 event streams. Whoever asks for health is a process of its own.
"""

import base64
import contextlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image as PilImages

from benchmarks.coldstart import LIMIT_S, ROOT, wait_for_page
from benchmarks.load import pulse
from benchmarks.measure import Options, Row

SIDES = (6000, 4000)  # px: the largest picture that is read
TIMES = 6
RECTANGLES = "\n".join(["0, 0, 6000, 4000"] * 200)
SLOW = 150
LONG = {"prompt": "a red apple", "steps": 150, "repeat": 100}


def run(options: Options) -> list[Row]:
    """One row for each thing that can be asked, beside the server at rest."""
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(_serve(stack.enter_context(tempfile.TemporaryDirectory())))
        with httpx.Client(base_url=url, timeout=LIMIT_S, trust_env=False) as client:
            attacker = Attacker(client)
            rest = Row("at rest", "ms", _measure(url, lambda: threading.Event().wait(3.0)))
            rows.append(rest)
            for name, attack in attacker.attacks.items():
                with pulse(url) as answers_ms:
                    attack()
                found = sorted(answers_ms)
                note = f"p99 {found[int(0.99 * len(found))]:.0f} ms, most {found[-1]:.0f} ms"
                rows.append(Row(name, "ms", answers_ms, note=note))
            for count in (1100, 2000):
                rows.append(Row(f"{count} event streams", "ms", attacker.streams(url, count)))
    return rows


def _measure(url: str, act: Callable[[], Any]) -> list[float]:
    with pulse(url) as answers_ms:
        act()
    return answers_ms


class Attacker:
    """One who asks for the most that is taken, several times at once."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._large = _encode("RGBA", (200, 30, 40, 120))
        self._text = base64.b64encode(self._large).decode("ascii")
        self._mask = base64.b64encode(_encode("L", 255)).decode("ascii")
        self.attacks: dict[str, Callable[[], None]] = {
            f"{TIMES} start pictures of 24 MP with masks": self._jobs,
            f"{TIMES} PNG infos of 24 MP": self._infos,
            f"{4 * TIMES} looks at a job of 24 MP": self._looks,
            f"inpaint: 24 MP, {RECTANGLES.count(chr(10)) + 1} rectangles": self._rectangles,
            f"{SLOW} silent sockets, half heads and half bodies each": self._slow,
        }

    def _jobs(self) -> None:
        init = {"image": self._text, "mask": self._mask, "strength": 0.5}
        body = {"prompt": "x", "steps": 1, "width": 64, "height": 64, "init": init}
        _at_once(TIMES, lambda: self._draw(body))

    def _draw(self, body: dict[str, Any]) -> None:
        answer = self._client.post("/api/jobs", json=body)
        if answer.status_code not in (429, 503):  # which is a bound at work
            self._end(answer.raise_for_status().json()["id"])

    def _infos(self) -> None:
        send = lambda: self._client.post("/api/info", content=self._large).raise_for_status()  # noqa: E731
        _at_once(TIMES, send)

    def _looks(self) -> None:
        init = {"image": self._text, "strength": 0.5}
        body = {"prompt": "x", "steps": 1, "width": 64, "height": 64, "init": init}
        job = self._client.post("/api/jobs", json=body).raise_for_status().json()["id"]
        look = lambda: self._client.get(f"/api/jobs/{job}?pictures=true").raise_for_status()  # noqa: E731
        _at_once(4 * TIMES, look)
        self._end(job)

    def _rectangles(self) -> None:
        uploaded = self._client.post("/gradio_api/upload", files={"files": ("a.png", self._large)}).json()[0]
        named = {"image": {"path": uploaded, "meta": {"_type": "gradio.FileData"}}, "rectangles": RECTANGLES}
        told = self._client.get("/gradio_api/info").json()["named_endpoints"]["/inpaint"]["parameters"]
        data = [named.get(one["parameter_name"], one.get("parameter_default")) for one in told]
        for one, value in zip(told, range(len(data)), strict=True):
            if one["parameter_name"] in ("width", "height"):
                data[value] = 64
            if one["parameter_name"] == "steps":
                data[value] = 1
        data[[one["parameter_name"] for one in told].index("keep_size")] = False

        def draw() -> None:
            event = self._client.post("/gradio_api/call/inpaint", json={"data": data}).raise_for_status().json()
            answer = self._client.get(f"/gradio_api/call/inpaint/{event['event_id']}").text
            if "event: complete" not in answer and "try again later" not in answer:  # which is a bound at work
                raise RuntimeError(answer[-300:])

        _at_once(TIMES, draw)

    def _slow(self) -> None:
        at = urlsplit(str(self._client.base_url))
        begun = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with contextlib.ExitStack() as stack:
            for part in (b"", begun, begun + b"Content-Length: 9000\r\n\r\n{"):
                for _ in range(SLOW):
                    stack.enter_context(_socket(at.hostname or "", at.port or 0, part))
            threading.Event().wait(3.0)

    def streams(self, url: str, count: int) -> list[float]:
        """Milliseconds of health while so many follow one job."""
        at = urlsplit(url)
        job = self._client.post("/api/jobs", json=LONG).raise_for_status().json()["id"]
        head = f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(_socket(at.hostname or "", at.port or 0, head))
            answers_ms = _measure(url, lambda: threading.Event().wait(5.0))
            self._client.delete(f"/api/jobs/{job}")
        return answers_ms

    def _end(self, job: str) -> None:
        with self._client.stream("GET", f"/api/jobs/{job}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["event"] == "failed":
                    raise RuntimeError(line)


@contextlib.contextmanager
def _serve(data_dir: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--port", str(port), "--data-dir", data_dir]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for_page(url)
            while httpx.get(f"{url}/api/health", trust_env=False).json()["status"] == "loading":
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


@contextlib.contextmanager
def _socket(host: str, port: int, part: bytes) -> Iterator[None]:
    with socket.create_connection((host, port)) as client:
        client.sendall(part)
        yield


def _encode(mode: str, colour: Any) -> bytes:
    buffer = io.BytesIO()
    PilImages.new(mode, SIDES, colour).save(buffer, "PNG")
    return buffer.getvalue()


def _at_once(count: int, act: Callable[[], Any]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
