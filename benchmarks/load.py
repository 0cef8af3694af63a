"""Many visitors at once on the embedded model, through the real server: what it promises of them, held or not.

Half of them speak the page's protocol, half ``/api`` and ``/sdapi``; they draw, upload, stop, reload, lose their
connection and go away; two of them flood the queue. Pictures are small, so that the queue moves. Visitors are a process
of their own, and so is what asks for ``/api/health``.
"""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.coldstart import ROOT, wait_for_page
from benchmarks.crowd.come import Plan, as_json
from benchmarks.crowd.journal import Journal
from benchmarks.crowd.promises import Server, find_pictures, judge
from benchmarks.measure import Options, Row

OWNER_KEY = "key-of-the-benchmark"
WARM_SHARE = 0.2  # of the time, with the same crowd, until all that is kept has been kept once
REST_S = 30.0  # after the last job has ended, until memory and files are looked at
LOOK_S = 0.5
PATIENCE_S = 300.0


def run(options: Options) -> list[Row]:
    """One run of ``--minutes`` with ``--visitors``, after a shorter one that warms everything up."""
    return measure(options.visitors, 60 * options.minutes, min(REST_S, 6 * options.minutes))


def measure(visitors: int, seconds: float, rest_s: float) -> list[Row]:
    """The rows of ``judge``; "before" is at rest after the shorter run."""
    with tempfile.TemporaryDirectory() as folder, _serve(Path(folder)) as server:
        memory_at_start = server.memory()
        _send(Plan(server.url, visitors, WARM_SHARE * seconds, seed=1))
        server.rest(rest_s)
        memory_before, files_before = server.memory(), server.files()
        with server.watched() as peaks, pulses(server.url) as health_ms:
            journal = _send(Plan(server.url, visitors, seconds))
            server.wait_until_idle()
        server.rest(rest_s)
        seen = Server(
            memory_at_start=memory_at_start,
            memory_before=memory_before,
            memory_after=server.memory(),
            memory_peak=peaks.memory,
            files_before=files_before,
            files_after=server.files(),
            files_peak=peaks.files,
            tracebacks=server.log.read_text("utf-8", "replace").count("Traceback (most recent call last)"),
        )
        pictures = find_pictures(server.data_dir)
        return list(judge(journal, pictures, seen, health_ms, visitors))


@dataclass
class Peaks:
    """The most that was seen so far."""

    memory: int = 0
    files: int = 0


@dataclass
class Running:
    """A server of this benchmark's own."""

    url: str
    data_dir: Path
    log: Path
    process: psutil.Process
    owner: httpx.Client = field(repr=False)

    def memory(self) -> int:
        """Resident, in bytes."""
        return int(self.process.memory_info().rss)

    def files(self) -> int:
        """Open files and sockets."""
        return int(self.process.num_fds())

    def is_idle(self) -> bool:
        health = self.owner.get("/api/health").raise_for_status().json()
        return not health["running"] and not health["waiting"]

    def wait_until_idle(self) -> None:
        """Until nothing waits or is drawn; raises TimeoutError."""
        deadline = time.perf_counter() + PATIENCE_S
        while not self.is_idle():
            if time.perf_counter() > deadline:
                raise TimeoutError(f"jobs still wait {PATIENCE_S:.0f} s after the last visitor")
            time.sleep(LOOK_S)

    def rest(self, seconds: float) -> None:
        """Once it is idle, so long again."""
        self.wait_until_idle()
        time.sleep(seconds)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Peaks]:
        """The most of memory and files, looked at twice a second."""
        peaks, is_over = Peaks(), threading.Event()

        def look() -> None:
            while not is_over.wait(LOOK_S):
                peaks.memory, peaks.files = max(peaks.memory, self.memory()), max(peaks.files, self.files())

        watching = threading.Thread(target=look, daemon=True)
        watching.start()
        try:
            yield peaks
        finally:
            is_over.set()
            watching.join()


@contextlib.contextmanager
def _serve(folder: Path) -> Iterator[Running]:
    """A server for guests, whose owner is this benchmark."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--port", str(port)]
    command += ["--data-dir", str(folder / "data"), "--guests", "--no-auth", "--owner-key", OWNER_KEY]
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    as_owner = {"Authorization": f"Bearer {OWNER_KEY}"}
    try:
        wait_for_page(url)
        with httpx.Client(base_url=url, timeout=60, trust_env=False, headers=as_owner) as owner:
            while owner.get("/api/health").json()["status"] == "loading":
                time.sleep(LOOK_S)
            yield Running(url, folder / "data", log, psutil.Process(process.pid), owner)
    finally:
        process.terminate()
        process.wait(30)


def _send(plan: Plan) -> Journal:
    """What the visitors of the plan met."""
    command = [sys.executable, "-m", "benchmarks.crowd.come"]
    found = subprocess.run(command, cwd=ROOT, input=as_json(plan), check=True, stdout=subprocess.PIPE, text=True)
    return Journal.from_json(json.loads(found.stdout))


@contextlib.contextmanager
def pulse(url: str) -> Iterator[list[float]]:
    """Milliseconds that ``/api/health`` took, which are there at the end."""
    own_ms: list[float] = []
    with pulses(url) as answers_ms:
        yield own_ms
    own_ms += answers_ms["server"]


@contextlib.contextmanager
def pulses(url: str) -> Iterator[dict[str, list[float]]]:
    """Those of the "server", and beside them those of one that does "nothing", which are the machine's doing."""
    answers_ms: dict[str, list[float]] = {}
    command = [sys.executable, "-m", "benchmarks.crowd.pulse", url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
        try:
            yield answers_ms
        finally:
            said, _ = asking.communicate("")
            if asking.returncode:
                raise RuntimeError("the process that asks for health ended")
            answers_ms |= json.loads(said)
