"""Set Darkroom up once, then start it: `python launch.py [command] [options]`.

The first run makes `.venv` beside this file and installs pyproject.toml's dependencies into it under
constraints.txt, with the build of torch that the machine's graphics card needs (webui/setup/). A stamp then says
what was installed, and while it holds there is no pip and no network.

Standard library only, and no syntax newer than Python 3.6, so that an old Python gets far enough to say so.
Everything said here goes to stderr: stdout belongs to the command that is started.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "darkroom-stamp.json"
PIP_LOG = VENV / "install.log"
CONSTRAINTS = ROOT / "constraints.txt"
WHEELS = ROOT / "wheels"

OLDEST_PYTHON = (3, 11)
DISK_GB = 8 if sys.platform == "linux" else 2  # what pip's own index has for Linux comes with CUDA's libraries

# `python -m webui`, but the folder first on sys.path is ours and not the one the user stands in: an A1111
# folder has a webui.py of its own, and plain -m would start that.
HANDOVER = f"""import runpy, sys; sys.path[0] = {str(ROOT)!r}
runpy.run_module("webui", run_name="__main__", alter_sys=True)"""

# Bytecode of our own code, as pip makes it of packages: else the first start does, and every one where Python is told
# to write none. A folder that cannot be written goes without.
COMPILE = [str(PYTHON), "-m", "compileall", "-q", str(ROOT / "webui")]

OWN = """\
launch.py's own:
  --torch auto|cpu|cuda|rocm|xpu   which build of torch; auto, which is the default, looks at the graphics cards
  --offline                        installs from the folder wheels/ beside launch.py
  update                           takes the newest version of this git checkout, and sets it up
  update --back                    goes back to the version before
"""

USAGE = f"""\
usage: python launch.py [--torch BUILD] [--offline] [command] [options]

Starts Darkroom; `python launch.py test` runs its tests. It is not installed yet: the first run makes .venv
beside launch.py and installs into it, which takes a few minutes and about {DISK_GB} GB. Once installed, --help
lists all commands.

{OWN}"""


class SetupError(Exception):
    """The set-up cannot go on; the message is the one line the user gets."""


class NothingThere(SetupError):
    """An index that cannot be reached, or has not got what is needed."""


def say(line):
    print(line, file=sys.stderr, flush=True)


def check_python(version):
    if tuple(version[:2]) < OLDEST_PYTHON:
        needed = "{}.{}".format(*OLDEST_PYTHON)
        raise SetupError(f"Darkroom needs Python {needed} or newer; this is {version[0]}.{version[1]}")


def fingerprint():
    """What an install hangs on: the two files, the venv's Python (pyvenv.cfg holds its version), and this
    folder's path, which the editable install and the venv's scripts contain."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, VENV / "pyvenv.cfg"):
        digest.update(path.read_bytes() + b"\0")
    digest.update(os.fsencode(str(PYTHON.resolve())) + b"\0" + os.fsencode(str(ROOT)))
    return digest.hexdigest()


def read_stamp():
    """What the last install put in: extras, the torch that was asked for and the one that came. Empty where none was
    finished or something changed since."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        torch = installed_torch()
        if stamp["fingerprint"] == fingerprint() and PYTHON.exists() and stamp["torch"] == (torch and torch.version):
            return stamp
    return {}


def write_stamp(extras, asked):
    """An install's last act. The sync keeps a power cut from leaving a stamp that vouches for lost files."""
    if hasattr(os, "sync"):
        os.sync()
    draft = STAMP.with_suffix(".tmp")
    torch = installed_torch()
    stamp = {"fingerprint": fingerprint(), "extras": sorted(extras), "asked": asked, "torch": torch and torch.version}
    draft.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(str(draft), str(STAMP))


def site_packages():
    return [*VENV.glob("lib/python*/site-packages"), *VENV.glob("Lib/site-packages")]


def installed_torch():
    """The build of torch in .venv, read from its files; None where there is none."""
    from webui.setup.torch_builds import read_installed

    return read_installed(site_packages())


def wanted_torch(asked, ask_driver=False):
    """The build of torch for this machine."""
    from webui.setup import cards, torch_builds

    try:
        return torch_builds.choose_build(cards.look(ask_driver), asked)
    except torch_builds.NoBuild as error:
        raise SetupError(str(error)) from None


@contextlib.contextmanager
def install_lock():
    """One install at a time. The system frees the lock when its holders die, however they die."""
    with open(str(ROOT / ".venv.lock"), "a") as file:
        if not try_lock(file):
            say("Another launch.py is installing here; waiting for it to finish.")
            while not try_lock(file):
                time.sleep(0.3)
        yield file


def try_lock(file):
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: better to go on unlocked than not at all
    return True


def run(command, lock, output=None):
    """Run one step of the set-up; returns its exit status and what it said on stderr.

    The step holds the lock too, so that killing launch.py alone lets no second install in beside a pip that
    is still at work. PIP_USER=0: a `--user` in someone's pip settings cannot work in a virtual environment.
    """
    share_lock = {} if os.name == "nt" else {"pass_fds": [lock.fileno()]}
    child = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "PIP_USER": "0"},
        stdout=sys.stderr.fileno() if output is None else output,
        stderr=subprocess.PIPE,
        **share_lock,
    )
    try:
        errors = child.communicate()[1]
    except BaseException:  # a Ctrl-C reached the child too: it gets the time to clear its downloads away
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)
        child.kill()
        child.wait()
        raise
    return child.returncode, errors.decode("utf-8", "replace")


def ensure_venv(lock):
    """Make .venv, or make it anew where its pip does not run: it is half made, or its base Python is gone."""
    if PYTHON.exists() and run([PYTHON, "-m", "pip", "--version"], lock, subprocess.DEVNULL)[0] == 0:
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "This Python cannot make virtual environments: install its venv package "
            "(on Debian and Ubuntu: sudo apt install python3-venv) and start again."
        )
    base = getattr(sys, "_base_executable", sys.executable)  # not .venv's own: that may be the broken one
    status, errors = run([base, "-m", "venv", "--clear", VENV], lock)
    if status != 0:
        say(errors.strip())
        raise SetupError(explain(errors, False) or f"Could not make the virtual environment {VENV}")


def pip_install(arguments, lock, offline):
    """One `pip install`. Unless --offline, the user's own pip settings choose the index."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--log", PIP_LOG]
    command += ["--no-index", "--find-links", WHEELS] if offline else []
    status, errors = run(command + arguments, lock)
    if status != 0:
        log = PIP_LOG.read_text(encoding="utf-8", errors="replace") if PIP_LOG.exists() else ""
        reason = explain(errors + log, offline)
        if reason is None:
            say(errors.strip())
        kind = (
            NothingThere if re.search("No matching distribution|No package index", f"{errors}{reason}") else SetupError
        )
        raise kind(reason or f"The installation failed; pip's full log is {PIP_LOG}")


def explain(output, offline):
    """The one line for a failure that people can mend themselves; None where pip's own words serve better."""
    from webui.setup import pip_failures

    return pip_failures.explain(output, ROOT, DISK_GB, offline)


def install(extras, asked, offline):
    """Bring .venv up to date with the two files. Each step can be repeated, so a broken run is made good.

    ``asked`` is what --torch says; without it, what it said at the install before.
    """
    from webui.setup.damage import discard_damaged
    from webui.setup.torch_builds import GIGABYTES, read_asked

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if offline and not WHEELS.is_dir():
        raise SetupError(f"--offline installs from {WHEELS}, and there is no such folder.")
    with install_lock() as lock:
        present = read_stamp()
        if is_enough(present, extras, asked):
            return  # the launch.py that we waited for has done it
        asked = asked or read_asked(STAMP)
        build = wanted_torch(asked, ask_driver=True)
        if STAMP.exists():
            say("Bringing .venv up to date.")
        else:
            size = GIGABYTES[build.tag] if build.tag else DISK_GB
            say(f"First run: installing into .venv. This takes a few minutes and about {size} GB.")
        ensure_venv(lock)
        if STAMP.exists():
            STAMP.unlink()  # unfinished from here on
        discard_damaged(site_packages())
        with contextlib.suppress(FileNotFoundError):
            PIP_LOG.unlink()
        # setuptools goes in first so that it can build the editable install from inside .venv. pip's build
        # isolation would ask the index for another copy every time, even when the folder was only moved.
        pins = CONSTRAINTS.read_text(encoding="utf-8").split()
        pip_install([pin for pin in pins if pin.startswith(("pip==", "setuptools=="))], lock, offline)
        index = install_torch(build, asked, pins, lock, offline)
        extras = extras | set(present.get("extras", ()))
        target = str(ROOT) + (f"[{','.join(sorted(extras))}]" if extras else "")
        editable = ["--no-build-isolation", "--constraint", CONSTRAINTS, *index, "--editable", target]
        pip_install(editable, lock, offline)
        run(COMPILE, lock, subprocess.DEVNULL)
        write_stamp(extras, asked)


def install_torch(build, asked, pins, lock, offline):
    """Bring in the build of torch that was chosen, where another one is there or pip's own index has not got it.

    Returns what pip has to be told for the rest, since some of what a build needs is beside it alone.
    """
    from webui.setup.torch_builds import INDEX, pip_words, serves

    versions = [pin[len("torch==") :] for pin in pins if pin.startswith("torch==")]
    if not versions:
        return []
    index = ["--extra-index-url", f"{INDEX}/{build.tag}"] if build.tag and not offline else []
    there = installed_torch()
    if there and serves(there, build) or not there and not build.tag:
        return index
    if build.note:
        say(build.note + ".")
    if build.card:
        say(f"Found an {build.card} card: installing the torch for it{f' ({build.tag})' if build.tag else ''}.")
    try:
        patience = ["--timeout", "30", "--retries", "2"] if asked == "auto" else []  # there is another way to go on
        pip_install([*patience, *pip_words(build, versions[0], offline)], lock, offline)
    except NothingThere as error:
        if asked != "auto":
            raise
        say(error)
        say("Going on with the torch that can be had, without the card. `python launch.py --torch auto` tries again.")
        return []
    return index


def is_enough(stamp, extras, asked):
    """Whether what the stamp vouches for has these extras, and the torch that --torch asks for."""
    if not stamp or not extras <= set(stamp["extras"]):
        return False
    if asked is None:
        return True
    from webui.setup.torch_builds import serves

    torch = installed_torch()
    return asked == stamp["asked"] and (torch is None or serves(torch, wanted_torch(asked)))


def warn_of_misfit(stamp):
    """Say where the installed torch cannot use the card that is there, and what changes it."""
    from webui.setup.torch_builds import describe_misfit, serves

    torch, wanted = installed_torch(), wanted_torch(stamp.get("asked", "auto"))
    if torch and wanted.card and not serves(torch, wanted):
        say(describe_misfit(torch, wanted) + ". To change it: python launch.py --torch auto")
    elif wanted.note:
        say(wanted.note + ".")


def update(arguments, offline):
    """`launch.py update [--back]`.

    The set-up is done by another launch.py, that of the version that is there by then. It lists the presets, as
    every version can, which shows that the version starts.
    """
    from webui.setup.update import CannotUpdate, go_back, update

    if arguments not in ([], ["--back"]):
        raise SetupError(f"update takes --back and nothing else, not {' '.join(arguments)}")
    if offline and not arguments:
        raise SetupError("An update asks the network for the new version: leave out --offline.")

    def set_up():
        command = [sys.executable, str(ROOT / "launch.py"), *(["--offline"] if offline else []), "presets"]
        is_set_up = subprocess.call(command, stdout=subprocess.DEVNULL) == 0
        if is_set_up:
            subprocess.call(COMPILE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return is_set_up

    try:
        (go_back if arguments else update)(ROOT, set_up, say)
    except CannotUpdate as error:
        raise SetupError(str(error)) from None
    return 0


def hand_over(arguments):
    """Become webui in the venv, so that signals and the exit status are its own."""
    command = [str(PYTHON), "-c", HANDOVER, *arguments]
    if os.name != "nt":
        os.execv(command[0], command)
    child = subprocess.Popen(command)  # exec on Windows would return to the prompt while webui still runs
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child got it as well, and decides how to end
            continue


def take_option(arguments, name):
    """The value of ``--name VALUE`` or ``--name=VALUE``, and the arguments without it; None where it is not there."""
    for index, argument in enumerate(arguments):
        if argument == name:
            if index + 1 == len(arguments):
                raise SetupError(f"{name} needs a value")
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
        if argument.startswith(name + "="):
            return argument[len(name) + 1 :], arguments[:index] + arguments[index + 1 :]
    return None, arguments


def main(arguments):
    offline = "--offline" in arguments
    arguments = [argument for argument in arguments if argument != "--offline"]
    try:
        check_python(sys.version_info)
        sys.path.insert(0, str(ROOT))  # not there where Python was told to be safe
        asked, arguments = take_option(arguments, "--torch")
        if arguments[:1] == ["update"]:
            return update(arguments[1:], offline)
        extras = {"test"} if arguments[:1] in (["test"], ["bench"]) else set()  # bench draws with peers
        stamp = read_stamp()
        if not stamp and {"-h", "--help"} & set(arguments):
            print(USAGE, end="")
            return 0
        if arguments[:1] in (["-h"], ["--help"]):  # what webui says of itself follows
            print(OWN, flush=True)
        if not is_enough(stamp, extras, asked):
            install(extras, asked, offline)
            stamp = read_stamp()
        warn_of_misfit(stamp)
    except SetupError as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the next run finishes the installation.")
        return 130
    except OSError as error:  # a folder that cannot be written, a full disk
        say(explain(str(error), offline) or f"Could not set up {VENV}: {error}")
        return 1
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # nothing that is started fetches anything either
    return hand_over(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
