"""The command line as people run it: real processes, real files, real signals."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import httpx
import pytest
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file

from webui.library.library import DEMO_MODEL

from .server import REPOSITORY, SMALL, Server, on_a_disk, run_here, run_webui, webui

FIELDS = ("--prompt", "a red apple", "--steps", "2", "--width", "64", "--height", "64")
CPU = ("--device", "cpu", "--dtype", "float32")


def pixels_sha256(path: str | Path) -> str:
    return hashlib.sha256(PilImages.open(path).convert("RGB").tobytes()).hexdigest()


def objects(out: str) -> list[dict]:
    """One JSON object a line, and nothing else."""
    return [json.loads(line) for line in out.splitlines()]


# generate


def test_generate_writes_the_picture_it_names_and_draws_it_again(tmp_path):
    plain = run_webui("generate", *FIELDS, *CPU, "--seed", "7", "--out", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    [path] = plain.stdout.splitlines()
    assert list((tmp_path / "plain").iterdir()) == [Path(path)]
    text = PilImages.open(path).text["parameters"]
    assert text.startswith("a red apple\nSteps: 2, Sampler: DPM++ 2M,")
    assert "Seed: 7, Size: 64x64," in text

    told = run_webui("generate", *FIELDS, *CPU, "--seed", "7", "--json", "--data-dir", tmp_path / "data")
    assert (told.returncode, told.stderr) == (0, "")
    events = objects(told.stdout)
    assert {"event": "step", "index": 2, "total": 2}.items() <= _only(events, "step")[-1].items()
    [image] = _only(events, "image")
    assert Path(image["path"]).is_relative_to(tmp_path / "data" / "outputs" / "txt2img")
    assert image["seed"] == 7
    assert image["pixels_sha256"] == pixels_sha256(image["path"]) == pixels_sha256(path)
    assert events[-1]["event"] == "done" and events[-1]["seconds"] > 0
    assert re.search(r"^Done in \d+\.\d s: \w+ \d+\.\d\d s, ", plain.stderr, re.M)
    assert sum(events[-1]["parts_s"].values()) == pytest.approx(events[-1]["seconds"], abs=0.01)


def _only(events: list[dict], kind: str) -> list[dict]:
    return [event for event in events if event["event"] == kind]


BAD_INPUT = [
    (("generate", "--prompt", "a", "--steps", "0"), "steps", "must be at least 1"),
    (("generate", "--prompt", "a", "--guidance", "-1"), "guidance", "must be at least 0"),
    (("generate", "--prompt", "a", "--width", "63"), "width", "multiple of 8 from 64 to 2048, such as 64"),
    (("generate", "--prompt", "a", "--seed", "abc"), "seed", "must be a whole number, not 'abc'"),
    (("generate", "--prompt", "a", "--sampler", "Oiler"), "sampler “Oiler”", "did you mean Euler"),
    (("generate", "--prompt", "a", "--model", "nothing"), "no model “nothing”", "There is only demo"),
    (("generate", "--prompt", "a" * 100_000), "prompt", "at most 8000 characters long; it has 100,000"),
    (("generate", "--prompt", "a", "--bogus", "1"), "--bogus", "unknown argument"),
    (("generate",), "--prompt", "required"),
    (("generate", "--prompt", "7" * 4_801), "prompt", "it comes to more than 64 chunks"),
    (("generate", "--prompt", "a", "--device", "abacus"), "--device", "abacus"),
    (("generate", "--prompt", "a", "--init", "/nowhere/at/all.png"), "init", "/nowhere/at/all.png"),
    (
        ("generate", "--prompt", "a", "--lora-cache", "much"),
        "lora_cache",
        "must be a size, such as 2GB or 512MB, not 'much'",
    ),
    (("paint",), "paint", "invalid choice"),
    (("serve", "--port", "0"), "port", "at least 1"),
    (("serve", "--port", "many"), "--port", "many"),
    (("serve", "--host", "203.0.113.7", "--no-auth"), "--host 203.0.113.7", "is not an address of this machine"),
    (("serve", "--auth", "nocolon"), "--auth", "USER:PASS"),
    (("serve", "--auth", "a:b", "--auth", "a:c"), "--auth", "'a' twice"),
    (("serve", "--guests", "--owner-key", "a b"), "owner_key", "must be printable ASCII without blanks"),
    (("serve", "--auth", "a:b", "--no-auth"), "--no-auth", "give one of them"),
    (("serve", "--allow-host", "http://a.example/"), "allow_host", "bare host name"),
    (("serve", "--bogus"), "--bogus", "unknown argument"),
]


@pytest.mark.parametrize(("arguments", "name", "reason"), BAD_INPUT, ids=[" ".join(b[0])[:44] for b in BAD_INPUT])
def test_bad_input_is_one_line_and_status_2(arguments, name, reason, tmp_path):
    ended = run_webui(*arguments, "--data-dir", tmp_path / "data", timeout_s=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert name in line and reason in line
    assert len(line) < 400
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [("generate", "--prompt", "a"), ("serve",), ("doctor",)], ids=" ".join)
def test_a_data_folder_that_is_a_file_is_bad_input(command, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file/below"):
        ended = run_here(*command, "--data-dir", place)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"webui: --data-dir '{place}' cannot be used: {tmp_path / 'file'} is not a folder\n"


def test_a_model_that_lacks_a_part_is_bad_input_in_one_line(tmp_path):
    folder = tmp_path / "data/models/Stable-diffusion/less"
    shutil.copytree(DEMO_MODEL, folder)
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, file)
    ended = run_here("generate", *FIELDS, *CPU, "--data-dir", tmp_path / "data", "--model", "less")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "webui: model 'less' cannot be loaded: less lacks decoder.conv_out.bias\n"


def test_bad_input_is_told_in_json_too(tmp_path):
    ended = run_webui("generate", "--prompt", "a", "--steps", "0", "--json", timeout_s=60)
    assert ended.returncode == 2
    [event] = objects(ended.stdout)
    assert event["event"] == "failed" and event["message"].startswith("steps must be at least 1")


def test_a_folder_for_pictures_that_is_none_is_told_before_anything_is_drawn(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    ended = run_here("generate", *FIELDS, *CPU, "--out", file / "below")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"webui: --out {str(file / 'below')!r} cannot be used: {file} is not a folder\n"


def test_a_disk_that_is_only_read_is_told_before_anything_is_drawn(tmp_path):
    disk = tmp_path / "disk"
    prefix = on_a_disk(disk, "read-only")
    for place in (("--out", disk / "pictures"), ("--data-dir", disk)):
        ended = run_webui("generate", *FIELDS, *CPU, *place, prefix=prefix)
        assert (ended.returncode, ended.stdout) == (2, "")
        told = f"nothing could be saved: {disk} cannot be written to; choose another folder: --out DIR"
        assert ended.stderr == f"webui: {told}\n"


@pytest.mark.slow
def test_a_full_disk_is_status_1_and_leaves_no_half_file(tmp_path):
    disk = tmp_path / "disk"
    prefix = [*on_a_disk(disk, "full"), "sh", "-c", '"$@"; status=$?; ls -A "$0"; exit $status', str(disk)]
    ended = run_webui("generate", *FIELDS, *CPU, "--out", disk, "--json", prefix=prefix)
    assert ended.returncode == 1
    *told, left = ended.stdout.splitlines()
    assert left == "filler"
    events = objects("\n".join(told))
    [image] = _only(events, "image")
    assert image["path"] is None
    assert "No space left on device" in image["warning"]
    assert re.fullmatch("[0-9a-f]{64}", image["pixels_sha256"])
    assert image["warning"] in events[-1]["warnings"]


@pytest.mark.parametrize("moment", [pytest.param("loading", marks=pytest.mark.slow), "step"])
def test_ctrl_c_ends_in_one_line_and_status_130(moment, tmp_path):
    big = ("--steps", "150", "--width", "256", "--height", "256")
    arguments = ("generate", "--prompt", "a", *big, *CPU, "--json", "--data-dir", tmp_path / "data")
    process = webui(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        assert any(json.loads(line)["event"] == moment for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    assert (process.returncode, err) == (130, "webui: interrupted\n")
    assert not list(tmp_path.rglob("*.png"))


# doctor


def test_doctor_says_what_is_here(tmp_path):
    ended = run_webui("doctor", "--data-dir", tmp_path / "data")
    assert (ended.returncode, ended.stderr) == (0, "")
    for fact in (
        "Darkroom ",
        "Python 3.",
        "torch ",
        "diffusers ",
        "gradio ",
        "Device: ",
        "Models: demo",
        "All is well",
    ):
        assert fact in ended.stdout
    assert str(tmp_path / "data") in ended.stdout


def test_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path):
    ended = run_webui("doctor", "--data-dir", tmp_path / "data", "--model", "absent", "--models-dir", tmp_path / "none")
    assert ended.returncode == 1
    assert "PROBLEM  model 'absent' is not found\n   mend  " in ended.stdout
    assert f"PROBLEM  --models-dir {tmp_path / 'none'} is not a folder\n   mend  " in ended.stdout
    assert "2 to mend" in ended.stdout


# serve


def test_a_taken_port_is_refused_with_the_next_free_one(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_webui("serve", "--no-browser", "--port", str(port), "--data-dir", tmp_path, timeout_s=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    offer = re.search(rf"port {port} is already in use; (\d+) is free: --port (\d+)$", line)
    assert offer and offer[1] == offer[2] and int(offer[1]) > port


def test_a_taken_default_port_moves_on_and_ctrl_c_stops_a_busy_server(start_server):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 7860))
            taken.listen()
        except OSError:
            pass  # somebody else has it already
        server = start_server(port=0)
        said = server.log.read_text()
    moved = re.match(r"Port 7860 is already in use; using (\d+)\.\nDarkroom is at http://127\.0\.0\.1:(\d+)/\n", said)
    assert moved and moved[1] == moved[2] != "7860"
    _assert_stops(server, signal.SIGINT)


def test_sigterm_stops_a_busy_server(start_server):
    _assert_stops(start_server(), signal.SIGTERM)


def _assert_stops(server: Server, number: int) -> None:
    """While a job runs, one waits, and somebody watches."""
    running, _ = server.submit(steps=150, width=256, height=256), server.submit(**SMALL)
    watch = server.events(running)
    assert next(body for _, body in watch if body["event"] == "step")
    assert server.stop(number) == 0
    assert "Traceback" not in server.log.read_text()
    with pytest.raises((httpx.TransportError, StopIteration)):
        while True:
            next(watch)


# offline

LOGGED_LOOKUPS = """
import os, socket
def log(name):
    with open(os.environ["LOOKUPS"], "a") as file:
        file.write(f"{os.getpid()} {name}\\n")
def logged(function):
    def wrapper(host, *rest, **named):
        log(host)
        return function(host, *rest, **named)
    return wrapper
log("started")
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, logged(getattr(socket, name)))
"""
INSIDE = """
import fcntl, socket, struct, sys
from pathlib import Path
with socket.socket() as any_socket:  # a namespace of its own begins with its loopback down
    up = struct.pack("16sh", b"lo", 0x1 | 0x40)
    if sys.argv[3] == "alone":
        fcntl.ioctl(any_socket, 0x8914, up)
from tests.e2e.server import SMALL, Server, run_webui
drawn = run_webui("generate", "--prompt", "a", "--steps", "1", "--width", "64", "--height", "64", "--device", "cpu",
                  "--out", sys.argv[1])
assert drawn.returncode == 0, drawn.stderr
server = Server(Path(sys.argv[2]))
try:
    job = server.submit(**SMALL)
    assert server.finish(job)["event"] == "done"
    assert server.client.get("/").status_code == 200
    assert server.client.get(f"/api/jobs/{job}/images/0").content[:4] == b"\\x89PNG"
    assert server.stop() == 0
finally:
    server.close()
"""


@pytest.mark.slow
def test_generate_and_serve_work_without_a_network_and_look_no_name_up(tmp_path):
    alone = shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
    if not alone:
        reason = "unshare is not permitted here: only look-ups were watched, the network was NOT taken away"
        warnings.warn(pytest.PytestWarning(reason), stacklevel=1)
    (tmp_path / "sitecustomize.py").write_text(LOGGED_LOOKUPS)
    (tmp_path / "server").mkdir()
    lookups = tmp_path / "lookups"
    ended = subprocess.run(
        [
            *(["unshare", "-rn"] if alone else []),
            *(sys.executable, "-c", INSIDE, tmp_path / "pictures", tmp_path / "server", "alone" if alone else "beside"),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "LOOKUPS": str(lookups)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr + (tmp_path / "server" / "server.log").read_text()
    asked = [line.split(maxsplit=1) for line in lookups.read_text().splitlines()]
    assert len({process for process, name in asked if name == "started"}) >= 3  # this script, generate, serve
    local = {"started", "127.0.0.1", "localhost", "::1", "None"}
    assert any(name == "127.0.0.1" for _, name in asked)  # the watch works
    assert not [name for _, name in asked if name not in local]


def test_version_and_help():
    version = run_webui("--version", timeout_s=60)
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(r"Darkroom \d+\.\d+\.\d+\S*\n", version.stdout)
    for command in ("generate", "serve", "doctor"):
        shown = run_webui(command, "--help", timeout_s=60)
        assert shown.returncode == 0 and f"usage: webui {command}" in shown.stdout


def test_a_terminal_without_the_letters_of_a_name_gets_it_all_the_same(tmp_path):
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "x.toml").write_text('name = "кот"\n[fields]\nsteps = 4\n', "utf-8")
    done = run_webui("presets", "--data-dir", tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "\\u043a\\u043e\\u0442\t" in done.stdout, done.stderr
