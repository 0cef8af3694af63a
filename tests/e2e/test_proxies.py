"""The page below a path of a site, with the proxies and their examples from ``deploy/``, over TLS."""

import getpass
import random
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.crowd import visitor
from benchmarks.crowd.browsers import PageVisitor
from benchmarks.crowd.journal import Journal
from tests.certificates import make_certificate

from .server import REPOSITORY, SMALL, Server, free_port, run_async, wait_for

FLAGS = ("--guests", "--no-auth", "--root-path", "/darkroom", "--allow-host", "127.0.0.1")


def nginx(example: str, target: str, port: int, folder: Path) -> list[str]:
    cert, key = make_certificate(folder)
    for pattern, ours in (
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"/etc/ssl/example\.com\.pem", str(cert)),
        (r"/etc/ssl/example\.com\.key", str(key)),
        (r"http://127\.0\.0\.1:7860/", target),
    ):
        example, times = re.subn(pattern, ours, example)
        assert times == 1, pattern
    paths = "access_log off;" + "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {getpass.getuser()};"  # else a worker started by root may not write where it keeps bodies
    main = f"daemon off; {user} pid {folder}/pid; error_log stderr; events {{}} http {{ {paths}\n{example}\n}}"
    (folder / "nginx.conf").write_text(main, "utf-8")
    return ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(example: str, target: str, port: int, folder: Path) -> list[str]:
    cert, key = make_certificate(folder)
    for pattern, ours in (
        (r"^example\.com \{", f"https://127.0.0.1:{port} {{\n\ttls {cert} {key}"),
        (r"127\.0\.0\.1:7860", target.removeprefix("http://").strip("/")),
    ):
        example, times = re.subn(pattern, ours, example, flags=re.MULTILINE)
        assert times == 1, pattern
    quiet = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(quiet + example, "utf-8")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


PROXIES: dict[str, tuple[str, Callable[[str, str, int, Path], list[str]]]] = {
    "nginx": ("nginx.conf", nginx),
    "caddy": ("Caddyfile", caddy),
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all proxies stand before."""
    server = Server(tmp_path_factory.mktemp("behind"), *FLAGS)
    yield server
    server.close()


@pytest.fixture(params=PROXIES)
def site(request, behind: Server, tmp_path: Path) -> Iterator[str]:
    """The address of the page behind the proxy. Skips where the proxy is not installed."""
    example, write = PROXIES[request.param]
    if shutil.which(request.param) is None:
        reason = f"no {request.param} on PATH (on Debian: apt install {request.param}): deploy/{example} was NOT tested"
        warnings.warn(pytest.PytestWarning(reason), stacklevel=1)
        pytest.skip(reason)
    port = free_port()
    text = (REPOSITORY / "deploy" / example).read_text("utf-8")
    command = write(text, behind.url, port, tmp_path)
    variables = {"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    url = f"https://127.0.0.1:{port}/darkroom"
    try:
        wait_for(lambda: answers(url) or process.poll() is not None, f"{request.param} to answer")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health", verify=False, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_visitor_draws_uploads_stops_and_reloads_below_the_path(site, behind, monkeypatch):
    for name in ("AWAY_S", "CHANGE_OF_MIND_S"):
        monkeypatch.setattr(visitor, name, (0.0, 0.0))
    journal = Journal()

    async def come() -> None:
        person = PageVisitor(9100, site, journal, random.Random(1))
        person.client = httpx.AsyncClient(base_url=site, verify=False, timeout=90, trust_env=False)
        for deed in ("draw", "rework", "stop", "reload"):
            await getattr(person, deed)()
        await person.client.aclose()

    run_async(come())
    assert [job.state for job in journal.jobs if not job.is_forsaken] == ["done"] * 3


def test_large_uploads_pass_and_events_come_as_they_happen(site, behind):
    with httpx.Client(base_url=site, verify=False, timeout=90, trust_env=False, follow_redirects=True) as client:
        upload = client.post("/gradio_api/upload", files={"files": ("large.png", bytes(5 * 2**20), "image/png")})
        assert upload.status_code == 200 and str(behind.data_dir) not in upload.text
        assert client.get("").status_code == 200  # without the slash behind the path
        job_id = client.post("/api/jobs", json={"prompt": "a red apple", **SMALL, "steps": 60}).json()["id"]
        with client.stream("GET", f"/api/jobs/{job_id}/events") as stream:
            states = (line for line in stream.iter_lines() if line.startswith("data:"))
            assert '"event": "done"' not in next(states).replace('":"', '": "')
            state = client.get(f"/api/jobs/{job_id}").json()["state"]
            assert state in ("queued", "loading", "running")
