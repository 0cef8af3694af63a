"""launch.py as people run it: real processes, real virtual environments and a real pip, on a project small
enough to install in seconds. Its wheels are made here: no network, and no pip settings of this machine."""

import ast
import base64
import hashlib
import importlib.util
import inspect
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def write_wheel(folder, name, version, files, metadata=""):
    """A wheel by hand. The fake setuptools below contains this function too."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text.encode())}\n"
            wheel.writestr(file, text)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path.name


# Builds an editable wheel like the real one. DARKROOM_TEST_HOLD names a folder: the build then says so there
# and waits until it is told to go on, which holds an install in the middle while a test needs that.
BACKEND = f"""
import base64, hashlib, os, time, tomllib, zipfile
from pathlib import Path

{inspect.getsource(write_wheel)}

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if "DARKROOM_TEST_HOLD" in os.environ:
        hold = Path(os.environ["DARKROOM_TEST_HOLD"])
        (hold / f"running-{{os.getpid()}}").touch()
        while not (hold / "go").exists():
            time.sleep(0.05)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = "".join(f"Requires-Dist: {{one}}\\n" for one in project["dependencies"])
    for extra, needs in project["optional-dependencies"].items():
        metadata += f"Provides-Extra: {{extra}}\\n"
        metadata += "".join(f'Requires-Dist: {{one}} ; extra == "{{extra}}"\\n' for one in needs)
    files = {{"darkroom_editable.pth": os.getcwd() + "\\n"}}
    return write_wheel(wheel_directory, "darkroom", "0.1", files, metadata)
"""

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "darkroom"
dependencies = ["film=={film}"]
optional-dependencies = {{ test = ["grain"] }}
"""

WEBUI = """
import importlib.metadata, json, os, sys
installed = {d.name: d.version for d in importlib.metadata.distributions() if d.name in ("film", "grain")}
print(json.dumps({"arguments": sys.argv[1:], "pid": os.getpid(), "cwd": os.getcwd(), "installed": installed}))
sys.exit(7 if "fail" in sys.argv else 0)
"""


def make_project(folder):
    (folder / "webui").mkdir(parents=True)
    (folder / "webui" / "__init__.py").touch()
    (folder / "webui" / "__main__.py").write_text(WEBUI, encoding="utf-8")
    shutil.copy(LAUNCH, folder)
    (folder / "wheels").mkdir()
    backend = {"setuptools/__init__.py": "", "setuptools/build_meta.py": BACKEND}
    write_wheel(folder / "wheels", "setuptools", "999.0", backend)
    for name, version in (("film", "1"), ("film", "2"), ("grain", "1")):
        write_wheel(folder / "wheels", name, version, {f"{name}.py": f"version = {version}\n"})
    (folder / "constraints.txt").write_text("# tested versions\ngrain==1\nsetuptools==999.0\n", encoding="utf-8")
    want_film(folder, 1)
    return folder


def want_film(folder, version):
    """Asks for another dependency, and for an install by differing from every text so far."""
    text = PYPROJECT.format(film=version) + f"# {time.time_ns()}\n"
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def environment(**more):
    """No pip settings of this machine's, and an index where nobody answers: no network is ever needed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    return {**kept, **pip, "PYTHONUTF8": "1", **more}


def start(folder, *arguments, **more):
    command = [sys.executable, str(folder / "launch.py"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(command, env=environment(**more), start_new_session=True, cwd=folder.parent, **pipes)


def launch(folder, *arguments):
    """Run to the end; returns exit status, what webui printed (None where it was not reached) and stderr."""
    process = start(folder, *arguments)
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    return process.returncode, json.loads(output) if output else None, errors


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def log_time(folder):
    return (folder / ".venv" / "install.log").stat().st_mtime_ns


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """One project installed by its first run, in a folder whose name has what paths can have."""
    parent = tmp_path_factory.mktemp("launch")
    (parent / "webui.py").write_text("raise SystemExit('the webui.py of the current folder was run')")
    folder = make_project(parent / "Dark room's dünkel 暗室")
    return folder, launch(folder, "--offline", "generate", "--prompt", "two words", "fail")


@pytest.fixture
def project(first_run):
    """The project, installed; tests may change it as long as an install mends it again."""
    return first_run[0]


@pytest.fixture
def hold(tmp_path):
    """A folder through which a test holds an install in the middle."""
    folder = tmp_path / "hold"
    folder.mkdir()
    yield folder
    (folder / "go").touch()  # a failed test leaves no install waiting for ever


def is_held(folder, number=1):
    return lambda: len(list(folder.glob("running-*"))) == number


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_run_installs_and_hands_over(first_run):
    folder, (status, seen, errors) = first_run
    assert errors.startswith("First run: installing")
    assert status == 7  # webui's own
    assert seen["arguments"] == ["generate", "--prompt", "two words", "fail"]
    assert Path(seen["cwd"]) == folder.parent  # relative paths on the command line stay what they were
    assert seen["installed"] == {"film": "1"}
    assert not list((folder / ".venv").glob("*.tmp"))


def test_later_runs_start_without_pip_and_with_little_work(project):
    launch(project, "--offline")
    before = log_time(project)
    python = project / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def seconds(command):
        """Of the processor: a busy machine takes no more of them."""
        began = os.times()
        subprocess.run(command, cwd=project, env=environment(), check=True, capture_output=True)
        ended = os.times()
        return ended.children_user + ended.children_system - began.children_user - began.children_system

    through = statistics.median(seconds([sys.executable, "launch.py"]) for _ in range(5))
    direct = statistics.median(seconds([str(python), "-m", "webui"]) for _ in range(5))
    assert through - direct < 0.5  # promised: 0.2, measured: 0.04 on an idle machine
    status, _, errors = launch(project)
    assert (status, errors) == (0, "")
    assert log_time(project) == before


@posix
def test_webui_takes_the_place_of_the_launcher(project):
    """The same process: signals, the terminal and the exit status need no passing on."""
    launch(project, "--offline")
    process = start(project)
    assert json.loads(process.communicate(timeout=60)[0])["pid"] == process.pid


def test_the_test_extra_is_added_once_and_stays(project):
    want_film(project, 1)
    assert "grain" in launch(project, "--offline", "test", "-k", "x")[1]["installed"]
    before = log_time(project)
    assert launch(project)[0] == launch(project, "test")[0] == 0
    assert log_time(project) == before


def test_changed_dependencies_are_installed(project):
    want_film(project, 2)
    status, seen, errors = launch(project, "--offline")
    assert (status, seen["installed"]["film"]) == (0, "2")
    assert errors.startswith("Bringing .venv up to date.")


@posix
def test_killed_install_is_finished_by_the_next_run(project, hold):
    want_film(project, 1)
    process = start(project, "--offline", DARKROOM_TEST_HOLD=str(hold))
    wait_until(is_held(hold))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (site,) = (project / ".venv").glob("lib/python*/site-packages")
    # what a kill in the middle of copying leaves: the folder that pip goes by, but files cut short or missing
    (info,) = site.glob("film-*.dist-info")
    (info / "RECORD").unlink(missing_ok=True)
    (site / "film.py").write_text("")
    status, seen, errors = launch(project, "--offline")
    assert (status, seen["installed"]["film"]) == (0, "1")
    assert errors.startswith("First run: installing")
    assert (site / "film.py").read_text() == "version = 1\n"


@posix
def test_second_launch_waits_for_the_first(project, hold):
    want_film(project, 1)
    first = start(project, "--offline", "first", DARKROOM_TEST_HOLD=str(hold))
    wait_until(is_held(hold))
    second = start(project, "--offline", "second", DARKROOM_TEST_HOLD=str(hold))
    said = second.stderr.readline()
    assert "waiting" in said and second.poll() is None
    (hold / "go").touch()
    output, errors = second.communicate(timeout=60)
    assert json.loads(output)["arguments"] == ["second"] and errors == ""
    assert json.loads(first.communicate(timeout=60)[0])["arguments"] == ["first"]
    assert is_held(hold, 1)(), "both installed"


@posix
def test_orphaned_pip_still_holds_the_lock(project, hold):
    """kill -9 of launch.py alone leaves pip at work: the next run must not install beside it."""
    want_film(project, 1)
    first = start(project, "--offline", DARKROOM_TEST_HOLD=str(hold))
    wait_until(is_held(hold))
    first.kill()
    second = start(project, "--offline", "second", DARKROOM_TEST_HOLD=str(hold))
    assert "waiting" in second.stderr.readline()
    assert is_held(hold, 1)()
    (hold / "go").touch()
    assert json.loads(second.communicate(timeout=60)[0])["arguments"] == ["second"]
    first.communicate(timeout=60)


@posix
def test_ctrl_c_during_the_install(project, hold):
    want_film(project, 1)
    process = start(project, "--offline", DARKROOM_TEST_HOLD=str(hold))
    wait_until(is_held(hold))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "Interrupted; the next run finishes the installation."
    assert "Traceback" not in errors
    assert launch(project, "--offline")[0] == 0


@posix
def test_moved_folder_and_unreachable_index(project, tmp_path):
    """A copy puts itself right without any index; what it lacks gets one line, with and without --offline."""
    launch(project, "--offline")
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    status, seen, _ = launch(moved)
    assert status == 0
    python = [moved / ".venv/bin/python", "-c", "import webui; print(webui.__file__)"]
    found = subprocess.run(python, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8")
    assert found.stdout.startswith(str(moved))

    (moved / "constraints.txt").write_text("setuptools==1000.0\n")
    status, seen, errors = launch(moved)
    assert (status, seen) == (1, None)
    (line,) = [one for one in errors.splitlines()[1:] if not one.startswith("Looking in")]
    assert line.startswith("No package index can be reached (asked http://127.0.0.1:9/simple/setuptools)")

    status, seen, errors = launch(moved, "--offline")
    assert (status, seen) == (1, None)
    assert "lacks setuptools==1000.0" in errors.splitlines()[-1]

    shutil.rmtree(moved / "wheels")
    status, seen, errors = launch(moved, "--offline")
    assert (status, seen) == (1, None)
    assert errors.count("\n") == 1 and "no such folder" in errors


@posix
def test_half_made_environment_is_made_anew(project):
    launch(project, "--offline")
    python = project / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    status, seen, errors = launch(project, "--offline")
    assert (status, seen["installed"]) == (0, {"film": "1"}), errors


def test_help_before_the_first_run_installs_nothing(tmp_path):
    shutil.copy(LAUNCH, tmp_path)
    run = subprocess.run([sys.executable, "launch.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "the first run makes .venv" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["launch.py"]


def test_old_python_is_told_so(launcher):
    ast.parse(LAUNCH.read_text(encoding="utf-8"), feature_version=(3, 7))  # it gets as far as the check
    for version in ((3, 8, 18, "final", 0), (2, 7, 18, "final", 0)):
        with pytest.raises(launcher.SetupError) as caught:
            launcher.check_python(version)
        assert str(caught.value) == f"Darkroom needs Python 3.11 or newer; this is {version[0]}.{version[1]}"
    launcher.check_python((3, 11, 0, "final", 0))
    launcher.check_python((4, 0, 0, "final", 0))


def test_python_without_ensurepip_is_told_what_to_install(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "PYTHON", tmp_path / "no-python")
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(launcher.SetupError, match="sudo apt install python3-venv"):
        launcher.ensure_venv(None)


@pytest.mark.parametrize(
    "output, line",
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "The disk is full",
        ),
        ("[WinError 112] There is not enough space on the disk", "The disk is full"),
        (
            "WARNING: Retrying after connection broken by 'ProxyError('Cannot connect')': /simple/x/",
            "No package index",
        ),
        (
            "Could not fetch URL https://a/simple/x/: There was a problem: SSLError(1)",
            "asked https://a/simple/x)",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "The package index has no torch==2.13.0"),
    ],
)
def test_failures_people_can_mend_get_one_line(launcher, output, line):
    said = launcher.explain(output, offline=False)
    assert line in said and "\n" not in said


def test_other_failures_keep_pips_own_words(launcher):
    assert launcher.explain("ERROR: Failed building wheel for film", offline=False) is None
