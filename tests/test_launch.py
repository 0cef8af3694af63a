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

from webui.setup import cards
from webui.setup.cards import Card, Machine
from webui.setup.torch_builds import Installed

LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"
SET_UP = LAUNCH.parent / "webui" / "setup"
linux = pytest.mark.skipif(sys.platform != "linux", reason="which builds of torch there are is Linux' own")
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
torch = [d.version for d in importlib.metadata.distributions() if d.name == "torch"]
seen = {"arguments": sys.argv[1:], "pid": os.getpid(), "cwd": os.getcwd(), "installed": installed, "torch": torch}
print(json.dumps(seen))
sys.exit(7 if "fail" in sys.argv else 0)
"""


def make_project(folder):
    (folder / "webui").mkdir(parents=True)
    (folder / "webui" / "__init__.py").touch()
    (folder / "webui" / "__main__.py").write_text(WEBUI, encoding="utf-8")
    shutil.copy(LAUNCH, folder)
    shutil.copytree(SET_UP, folder / "webui" / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "wheels").mkdir()
    backend = {"setuptools/__init__.py": "", "setuptools/build_meta.py": BACKEND}
    write_wheel(folder / "wheels", "setuptools", "999.0", backend)
    for name, version in (("film", "1"), ("film", "2"), ("grain", "1")):
        write_wheel(folder / "wheels", name, version, {f"{name}.py": f"version = {version}\n"})
    (folder / "constraints.txt").write_text("# tested versions\ngrain==1\nsetuptools==999.0\n", encoding="utf-8")
    want_film(folder, 1)
    return folder


def write_torch(folder, tag="", hip=None):
    """A wheel of a torch 2.0 that can only say which build it is."""
    version = f"2.0+{tag}" if tag else "2.0"
    text = f"__version__ = {version!r}\ncuda: Optional[str] = None\nhip: Optional[str] = {hip!r}\n"
    return write_wheel(folder, "torch", version, {"torch/__init__.py": "", "torch/version.py": text})


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


def launch(folder, *arguments, **more):
    """Run to the end; returns exit status, what webui printed (None where it was not reached) and stderr."""
    process = start(folder, *arguments, **more)
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
    told = {"PYTHONDONTWRITEBYTECODE": "1"}  # as it is in many containers
    return folder, launch(folder, "--offline", "generate", "--prompt", "two words", "fail", **told)


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
    compiled = {path.name.partition(".")[0] for path in (folder / "webui").rglob("*.pyc")}
    assert compiled == {path.stem for path in (folder / "webui").rglob("*.py")}  # also what this start did not import


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


@pytest.mark.slow  # that there is a lock has a test above
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


@linux
def test_the_build_of_torch_is_chosen_changed_and_kept(project, tmp_path, request):
    """As asked for, from wheels/ or PyTorch's index where pip's own has none."""
    constraints = project / "constraints.txt"
    before = constraints.read_text(encoding="utf-8")
    request.addfinalizer(lambda: constraints.write_text(before, encoding="utf-8"))
    constraints.write_text("grain==1\nsetuptools==999.0\ntorch==2.0\n", encoding="utf-8")
    want_film(project, 1)
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    (project / "pyproject.toml").write_text(text.replace('"film==1"', '"film==1", "torch"'), encoding="utf-8")
    write_torch(project / "wheels")
    write_torch(project / "wheels", "cpu")
    status, seen, errors = launch(project, "--offline", "--torch", "cpu", "generate")
    assert (status, seen["arguments"], seen["torch"]) == (0, ["generate"], ["2.0+cpu"]), errors

    installed = log_time(project)
    assert launch(project, "--torch=cpu")[2] == launch(project)[2] == ""
    assert log_time(project) == installed

    shelf = tmp_path / "whl" / "rocm7.2" / "torch"
    shelf.mkdir(parents=True)
    wheel = write_torch(shelf, "rocm7.2", hip="7.2")
    (shelf / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>', encoding="utf-8")
    status, seen, errors = launch(project, "--torch", "rocm", DARKROOM_TORCH_INDEX=(tmp_path / "whl").as_uri())
    assert (status, seen["torch"]) == (0, ["2.0+rocm7.2"]), errors
    assert launch(project, "--torch", "cuba")[2].startswith("--torch is one of auto, cpu, cuda, rocm, xpu")


def test_wheels_that_lack_a_build_of_torch_are_told_how_to_get_it(launcher):
    said = launcher.explain("ERROR: No matching distribution found for torch==2.13.0+xpu", offline=True)
    assert "lacks torch==2.13.0+xpu" in said
    assert "--extra-index-url https://download.pytorch.org/whl/xpu torch==2.13.0+xpu pip" in said


@pytest.fixture
def on_windows_with_a_card(monkeypatch):
    machine = Machine("win32", "amd64", (Card("NVIDIA", 0x2684, driver=(580, 88)),))
    monkeypatch.setattr(cards, "look", lambda ask_driver=False: machine)


def test_a_torch_that_cannot_use_the_card_is_told_with_the_command(
    launcher, on_windows_with_a_card, monkeypatch, capsys
):
    for installed, asked, said in (
        (Installed("2.13.0+cpu", "cpu"), "auto", True),
        (Installed("2.13.0+cpu", "cpu"), "cpu", False),  # as it was wanted
        (Installed("2.13.0+cu130", "cuda", 13), "auto", False),
        (None, "auto", False),
    ):
        monkeypatch.setattr(launcher, "installed_torch", lambda installed=installed: installed)
        launcher.warn_of_misfit({"asked": asked})
        line = (
            "This machine has an NVIDIA card that the installed torch 2.13.0+cpu cannot use. "
            "To change it: python launch.py --torch auto\n"
        )
        assert capsys.readouterr().err == (line if said else "")


def test_a_card_whose_torch_cannot_be_had_keeps_nobody_out(launcher, on_windows_with_a_card, monkeypatch, capsys):
    """Where nobody asked for that build by name: pip's own draws, too, only slower."""
    asked_pip = []

    def pip_install(words, lock, offline):
        asked_pip.append(words)
        raise launcher.NothingThere("No package index can be reached")

    monkeypatch.setattr(launcher, "pip_install", pip_install)
    monkeypatch.setattr(launcher, "installed_torch", lambda: None)
    build, pins = launcher.wanted_torch("auto"), ["pip==1", "torch==2.13.0"]
    assert launcher.install_torch(build, "auto", pins, None, False) == []
    assert asked_pip[0][-3:] == ["--index-url", "https://download.pytorch.org/whl/cu130", "torch==2.13.0+cu130"]
    said = capsys.readouterr().err
    assert "Found an NVIDIA card: installing the torch for it (cu130)." in said
    assert "python launch.py --torch auto" in said.splitlines()[-1]
    with pytest.raises(launcher.NothingThere):
        launcher.install_torch(build, "cuda", pins, None, False)
    monkeypatch.setattr(launcher, "installed_torch", lambda: Installed("2.13.0+cu126", "cuda", 12))
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cu130"]
    assert launcher.install_torch(build, "auto", pins, None, False) == index  # it will do
    assert len(asked_pip) == 2


def git(folder, *words):
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@posix
@pytest.mark.slow
def test_an_update_is_installed_and_one_that_cannot_be_is_taken_back(tmp_path):
    """With the remote as a folder beside it: film 2 is in wheels/, film 3 is not."""
    folder, remote, author = make_project(tmp_path / "darkroom"), tmp_path / "remote", tmp_path / "author"
    (folder / ".gitignore").write_text("/.venv/\n/.venv.lock\n/data/\n__pycache__/\n", encoding="utf-8")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", str(remote))
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "film 1")
    git(folder, "push", "-q", "-u", "origin", "main")
    git(tmp_path, "clone", "-q", str(remote), str(author))
    (folder / "data").mkdir()
    (folder / "data" / "picture.png").write_text("mine", encoding="utf-8")

    def publish(film):
        want_film(author, film)
        git(author, "commit", "-q", "-a", "-m", f"film {film}")
        git(author, "push", "-q")

    def run(*words):
        """The new version's set-up has its packages from a folder, since no index is asked here."""
        status, _, errors = launch(folder, *words, PIP_NO_INDEX="1", PIP_FIND_LINKS=(folder / "wheels").as_uri())
        return status, errors

    assert launch(folder, "--offline")[1]["installed"] == {"film": "1"}
    publish(2)
    status, errors = run("update")
    assert (status, errors.splitlines()[0][:5], "Updated." in errors) == (0, "From ", True), errors
    assert launch(folder)[1]["installed"] == {"film": "2"}
    publish(3)
    status, errors = run("update")
    assert status == 1 and "film==3" in errors and "again, as before." in errors.splitlines()[-1]
    assert launch(folder)[1]["installed"] == {"film": "2"}
    assert run("update", "--back")[0] == 0
    assert launch(folder)[1]["installed"] == {"film": "1"}
    assert (folder / "data" / "picture.png").read_text(encoding="utf-8") == "mine"


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
    assert "--torch auto|cpu|cuda|rocm|xpu" in run.stdout and "update --back" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["launch.py"]


def test_update_says_why_it_cannot_be_done(tmp_path):
    """Before anything is installed; the update itself is tested with webui/setup."""
    shutil.copy(LAUNCH, tmp_path)
    shutil.copytree(SET_UP, tmp_path / "webui" / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    for words, said in (
        (["update"], "is not a git checkout"),
        (["update", "--back"], "is not a git checkout"),
        (["--offline", "update"], "leave out --offline"),
        (["update", "now"], "update takes --back and nothing else, not now"),
    ):
        run = subprocess.run([sys.executable, "launch.py", *words], cwd=tmp_path, capture_output=True, text=True)
        assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1) and said in run.stderr
    assert not (tmp_path / ".venv").exists()


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
