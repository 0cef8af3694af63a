"""The product as people run it: ``python -m webui`` in a process of its own."""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from webui.cli import main

from .forked import Forked

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"steps": 2, "width": 64, "height": 64}
PATIENCE_S = 90  # for what takes a second or two on a machine that is not busy
MAX_STEPS, MAX_REPEAT = 150, 100
ENDLESS = {"steps": MAX_STEPS, "repeat": MAX_REPEAT}  # to be stopped


def wait_for(happened: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Returns the first true value; fails when it does not come."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := happened():
            return value
        time.sleep(0.05)
    pytest.fail(f"waited {timeout_s:.0f} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def webui(
    *arguments: str | Path, env: dict[str, str] | None = None, prefix: Sequence[str] = (), **options: Any
) -> subprocess.Popen[str]:
    """``webui ARGUMENTS`` as a process, its output as text."""
    command = [*prefix, sys.executable, "-m", "webui", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | (env or {}), text=True, **options)


def run_webui(
    *arguments: str | Path, timeout_s: float = 240, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process: Forked | subprocess.Popen[str]
        if env or prefix:
            with out.open("w") as stdout, err.open("w") as stderr:
                process = webui(*arguments, env=env, prefix=prefix, stdout=stdout, stderr=stderr)
        else:
            process = Forked(arguments, out, err, REPOSITORY)
        try:
            status = process.wait(timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(arguments, status, out.read_text("utf-8"), err.read_text("utf-8"))


def run_async(work: Coroutine[Any, Any, None]) -> None:
    """To its end, beside the event loop that Playwright holds here."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, without the seconds that a new one takes to import torch."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def on_a_disk(folder: Path, state: str) -> list[str]:
    """A prefix under which ``folder`` is a disk that is "full" or "read-only", for the process alone.

    Skips, with a warning, where the system lets nobody have a mount of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        reason = "unshare is not permitted here: a full or read-only disk was not tested"
        warnings.warn(pytest.PytestWarning(reason), stacklevel=2)
        pytest.skip(reason)
    script = {
        "full": 'mount -t tmpfs -o size=256k none "$0"; dd if=/dev/zero of="$0/filler" bs=64k 2>/dev/null; exec "$@"',
        "read-only": 'mount -t tmpfs -o ro none "$0"; exec "$@"',
    }
    return ["unshare", "-rm", "sh", "-c", script[state], str(folder)]


class Server:
    """A running server and its data folder. Closing it ends the process."""

    def __init__(
        self, folder: Path, *flags: str | Path, port: int | None = None, disk: str = "", cert: Path | None = None
    ) -> None:
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self._auth: tuple[str, str] | None = None
        if "--auth" in flags:
            user, _, password = str(flags[flags.index("--auth") + 1]).partition(":")
            self._auth = (user, password)
        where = ["--port", str(port or free_port())] if port != 0 else []  # 0: the default port
        device = ("--device", "cpu", "--dtype", "float32")
        arguments = ("serve", "--no-browser", *device, "--data-dir", self.data_dir, *where, *flags)
        self.log.touch()
        self.process: Forked | subprocess.Popen[str]
        if disk:
            with self.log.open("w") as log:
                prefix = on_a_disk(self.data_dir, disk)
                self.process = webui(*arguments, prefix=prefix, stdout=log, stderr=log, start_new_session=True)
        else:
            self.process = Forked(arguments, self.log, self.log, REPOSITORY)
        self.url = wait_for(self._find_url, "the server's address")
        verify = ssl.create_default_context(cafile=cert) if cert else True
        self.client = httpx.Client(base_url=self.url, timeout=60, auth=self._auth, verify=verify, trust_env=False)
        if found := re.search(r"\?owner=(\S+)", self.log.read_text("utf-8")):
            self.client = self.visitor(Authorization=f"Bearer {found[1]}")
        wait_for(self._is_ready, "the model to be loaded")

    def visitor(self, **headers: str) -> httpx.Client:
        """Somebody who has not been here before, and keeps the cookies that they are given."""
        return httpx.Client(base_url=self.url, timeout=60, headers=headers, trust_env=False)

    def _find_url(self) -> str | None:
        said = self.log.read_text("utf-8")
        if self.process.poll() is not None:
            pytest.fail(f"the server ended with {self.process.returncode}:\n{said}")
        return said.partition("Darkroom is at ")[2].partition("\n")[0].strip() if "\n" in said else None

    def _is_ready(self) -> bool:
        try:
            return self.health()["status"] == "ok"
        except httpx.TransportError:
            return False

    def health(self) -> dict[str, Any]:
        return self.client.get("/api/health").json()

    def is_idle(self) -> bool:
        """Nothing is drawn, and what was has ended for whoever asks."""
        health = self.health()
        states = {job["state"] for job in self.client.get("/api/jobs").json()}
        return not health["running"] and not health["waiting"] and not states & {"queued", "loading", "running"}

    def submit(self, **fields: Any) -> str:
        answer = self.client.post("/api/jobs", json=fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def show(self, job_id: str, pictures: bool = False) -> dict[str, Any]:
        return self.client.get(f"/api/jobs/{job_id}", params={"pictures": pictures}).json()

    def cancel(self, job_id: str) -> None:
        self.client.delete(f"/api/jobs/{job_id}")

    def events(self, job_id: str, after: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, object) pairs from the job's event stream."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.client.stream("GET", f"/api/jobs/{job_id}/events", headers=headers, timeout=PATIENCE_S) as stream:
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            for line in stream.iter_lines():
                name, colon, value = line.partition(": ")
                if colon and name:
                    fields[name] = value
                elif not line and "data" in fields:
                    yield int(fields["id"]), json.loads(fields["data"])
                    fields = {}

    def finish(self, job_id: str) -> dict[str, Any]:
        """Waits for the job's end and returns the event that ended it."""
        return list(self.events(job_id))[-1][1]

    def pictures(self) -> list[Path]:
        """Every saved picture, in the order they were saved."""
        return sorted((self.data_dir / "outputs").rglob("*.png"), key=lambda path: path.stat().st_mtime_ns)

    @cached_property
    def step_s(self) -> float:
        """Seconds that one step of the demo model takes now."""
        steps = [body for _, body in self.events(self.submit(steps=6)) if body["event"] == "step"]
        return steps[-1]["seconds"] / steps[-1]["index"]

    def lasting(self, seconds: float) -> dict[str, int]:
        """Fields of a job that takes about as long, whatever the machine: long enough to do something meanwhile."""
        steps = max(8, min(MAX_STEPS, int(seconds / self.step_s)))
        return {"steps": steps, "repeat": max(1, min(MAX_REPEAT, round(seconds / (steps * self.step_s))))}

    def settle(self) -> None:
        """No job runs or waits, once those that tests left behind are stopped."""
        wait_for(self.is_idle, "the last job to end")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status after the signal; that of a kill where it does not end."""
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        if hasattr(self, "client"):
            self.client.close()
