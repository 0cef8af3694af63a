"""What ``deploy/`` tells others to run. No image is built here: the container file's lines run as plain commands."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.server import PATIENCE_S, free_port, wait_for
from webui.cli import make_parser

SPACE_COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="session")
def deploy(repository: Path) -> Path:
    return repository / "deploy"


def lines_of(containerfile: Path) -> Iterator[tuple[str, str]]:
    """Instruction and what it is given, lines that go on joined."""
    text = re.sub(r"\\\n", " ", containerfile.read_text("utf-8"))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()


def test_the_container_file_copies_what_there_is_and_starts_what_the_command_line_knows(deploy, repository):
    lines = list(lines_of(deploy / "Containerfile"))
    copied = [name for instruction, rest in lines if instruction == "COPY" for name in rest.split()[:-1]]
    assert copied and all((repository / name).exists() for name in copied)
    (entry,) = [json.loads(rest) for instruction, rest in lines if instruction == "ENTRYPOINT"]
    shown = entry[2].replace("exec python -m webui", "printf '%s\\n'")
    variables = {"SPACE_HOST": "me-darkroom.hf.space", "SERVE_FLAGS": "--no-auth"}
    told = subprocess.run([*entry[:2], shown, *entry[3:], "--model", "two words"], env=variables, capture_output=True)
    options = make_parser("serve").parse_args(told.stdout.decode().splitlines())
    assert (options.host, options.port, options.no_auth) == ("0.0.0.0", 7860, True)
    assert (options.allow_host, options.model) == (["me-darkroom.hf.space"], "two words")


@pytest.mark.slow
def test_the_container_files_lines_run_as_plain_commands(deploy, repository, tmp_path):
    """Without the image below it, its user, and pip's way to the network: what pip is to install is here already."""
    root, app, data = tmp_path / "root", tmp_path / "app", tmp_path / "data"
    app.mkdir()
    data.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    (site,) = root.glob("lib/python*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    port = str(free_port())
    variables = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "WEBUI_DATA_DIR": str(data)}
    variables |= {
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "TORCH": "cpu",
        "SERVE_FLAGS": f"--port {port} --no-auth",
    }
    variables.pop("PYTHONPATH", None)
    for instruction, rest in lines_of(deploy / "Containerfile"):
        if instruction == "COPY":
            *sources, target = rest.split()
            for source in sources:
                where = app if target == "./" else app / target
                if (repository / source).is_dir():
                    shutil.copytree(repository / source, where, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(repository / source, where)
        elif instruction == "RUN" and "useradd" not in rest:
            subprocess.run(["sh", "-c", rest], cwd=app, env=variables, check=True)
    assert not (app / "webui").exists()  # what runs is what was installed
    command = next(
        json.loads(rest) for instruction, rest in lines_of(deploy / "Containerfile") if instruction == "ENTRYPOINT"
    )
    with subprocess.Popen(command, cwd=app, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert wait_for(lambda: state_of(f"http://127.0.0.1:{port}") == "ok", "the model to be loaded")
            page = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
            assert page.status_code == 200 and "Darkroom" in page.text
            presets = httpx.get(f"http://127.0.0.1:{port}/api/presets", trust_env=False).json()
            assert len(presets) > 5
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert str(site) in subprocess.check_output(
        [root / "bin/python", "-c", "import webui; print(webui.__file__)"], cwd=tmp_path, env=variables, text=True
    )


def state_of(url: str) -> str:
    try:
        return httpx.get(f"{url}/api/health", trust_env=False).json()["status"]
    except httpx.TransportError:
        return "silent"


def test_the_spaces_head_is_what_the_hub_reads(deploy):
    _, head, text = (deploy / "space/README.md").read_text("utf-8").split("---\n", 2)
    said = yaml.safe_load(head)
    assert said["sdk"] == "docker" and {said["colorFrom"], said["colorTo"]} <= SPACE_COLOURS
    assert len(said["short_description"]) <= 60
    assert ("EXPOSE", str(said["app_port"])) in lines_of(deploy / "Containerfile")
    assert "OWNER_KEY" in text and "SERVE_FLAGS" in text


def test_the_notebooks_cells_run(deploy, tmp_path):
    """Its lines as Colab runs them, with a repository and an installer that only say how they were called."""
    notebook = json.loads((deploy / "darkroom.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"code", "markdown"})
    source, content = tmp_path / "source", tmp_path / "content"
    source.mkdir()
    content.mkdir()
    (source / "launch.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n", "utf-8")
    git = ["git", "-C", source, "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text('#!/bin/sh\ntest "$*" = "-qq install -y python3-venv"\n', "utf-8")
    (tools / "apt-get").chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    variables = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    said: list[list[str]] = []
    known, folder = {}, tmp_path
    for cell in notebook["cells"]:
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else ():
            line = line.replace("/content/darkroom", str(content / "darkroom"))
            if line.startswith("%cd "):
                folder = Path(line.removeprefix("%cd "))
            elif line.startswith("!"):
                for name, value in known.items():  # as IPython fills them in
                    line = line.replace(f"${name}", value)
                done = subprocess.run(line[1:], shell=True, cwd=folder, env=variables, capture_output=True, text=True)
                assert done.returncode == 0, f"{line}: {done.stderr}"
                said += [json.loads(done.stdout)] if "launch.py" in line else []
            else:
                for node in ast.parse(line).body:
                    if isinstance(node, ast.Assign):
                        known[node.targets[0].id] = ast.literal_eval(node.value)
                        known["REPOSITORY"] = str(source)
    doctor, serve = said
    assert make_parser("doctor").parse_args(doctor).command == "doctor"
    options = make_parser("serve").parse_args(serve)
    assert options.share and options.no_browser and not options.no_auth
    assert [str(path) for path in options.models_dir] == ["/content/drive/MyDrive/darkroom"]


def test_examples_start_the_server_with_flags_that_it_knows(deploy):
    for name in ("nginx.conf", "Caddyfile"):
        (line,) = re.findall(r"# +python launch\.py (serve .*)", (deploy / name).read_text("utf-8"))
        options = make_parser("serve").parse_args(shlex.split(line))
        assert (options.root_path, options.allow_host) == ("/darkroom", ["example.com"])
