"""Set Darkroom up once, then start it: `python launch.py [command] [options]`.

The first run makes `.venv` beside this file and installs pyproject.toml's dependencies into it under
constraints.txt. A stamp then says what was installed, and while it holds there is no pip and no network.

Standard library only, and no syntax newer than Python 3.6, so that an old Python gets far enough to say so.
Everything said here goes to stderr: stdout belongs to the command that is started.
"""

import contextlib
import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
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
DISK_GB = 8 if sys.platform == "linux" else 2  # Linux gets torch with CUDA's libraries

# `python -m webui`, but the folder first on sys.path is ours and not the one the user stands in: an A1111
# folder has a webui.py of its own, and plain -m would start that.
HANDOVER = f"""import runpy, sys; sys.path[0] = {str(ROOT)!r}
runpy.run_module("webui", run_name="__main__", alter_sys=True)"""

USAGE = f"""\
usage: python launch.py [--offline] [command] [options]

Starts Darkroom; `python launch.py test` runs its tests. It is not installed yet: the first run makes .venv
beside launch.py and installs into it, which takes a few minutes and about {DISK_GB} GB. With --offline it
installs from the folder wheels/ beside launch.py. Once installed, --help lists all commands.
"""


class SetupError(Exception):
    """The set-up cannot go on; the message is the one line the user gets."""


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


def installed_extras():
    """The extras that the last install put in; None where none was finished or something changed since."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        if stamp["fingerprint"] == fingerprint() and PYTHON.exists():
            return set(stamp["extras"])
    return None


def write_stamp(extras):
    """An install's last act. The sync keeps a power cut from leaving a stamp that vouches for lost files."""
    if hasattr(os, "sync"):
        os.sync()
    draft = STAMP.with_suffix(".tmp")
    draft.write_text(json.dumps({"fingerprint": fingerprint(), "extras": sorted(extras)}), encoding="utf-8")
    os.replace(str(draft), str(STAMP))


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


def discard_damaged():
    """Forget packages that an interrupted install left incomplete: pip sees their dist-info folder and would
    call them satisfied. In a whole one RECORD exists, and each file it names has the size it names."""
    for site in [*VENV.glob("lib/python*/site-packages"), VENV / "Lib" / "site-packages"]:
        leftovers = list(site.glob("~*"))  # where pip keeps the old files while it replaces a package
        for folder in leftovers + [info for info in site.glob("*.dist-info") if not is_whole(info)]:
            shutil.rmtree(str(folder), ignore_errors=True)


def is_whole(info):
    try:
        with open(str(info / "RECORD"), newline="", encoding="utf-8") as record:
            sizes = {info.parent / name: int(size) for name, _, size in csv.reader(record) if size}
        return all(os.path.getsize(str(path)) == size for path, size in sizes.items())
    except (OSError, ValueError):
        return False


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
        raise SetupError(reason or f"The installation failed; pip's full log is {PIP_LOG}")


def explain(output, offline):
    """The one line for a failure that people can mend themselves; None where pip's own words serve better."""

    def find(pattern):
        found = re.search(pattern, output, re.IGNORECASE)
        return found and found.group(1)

    if find(r"(No space left on device|not enough space on the disk|disk quota exceeded)"):
        return (
            f"The disk is full: this needs about {DISK_GB} GB in {ROOT}, "
            "and room for downloads in the temporary folder (set TMPDIR to choose another)."
        )
    missing = find(r"No matching distribution found for ([^\s;]+)")
    if offline and missing:
        return (
            f"{WHEELS} lacks {missing}: on a connected computer of the same kind run `python -m pip download "
            "--dest wheels --constraint constraints.txt pip setuptools .` in this folder, and bring wheels/."
        )
    if find(r"(connection error|connection broken|timed out|ConnectionReset|ProxyError|SSLError)"):
        index = find(r"Could not fetch URL (\S+?)/?:? ") or find(r"(https?://[^\s'\",]+)") or "pip's index"
        return (
            f"No package index can be reached (asked {index}): connect to the network and start again, "
            f"or put the packages into {WHEELS} and start with --offline."
        )
    if missing:
        python = "{}.{}".format(*sys.version_info[:2])
        return f"The package index has no {missing} for Python {python} on this system; see {PIP_LOG}"
    return None


def install(extras, offline):
    """Bring .venv up to date with the two files. Each step can be repeated, so a broken run is made good."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if offline and not WHEELS.is_dir():
        raise SetupError(f"--offline installs from {WHEELS}, and there is no such folder.")
    with install_lock() as lock:
        present = installed_extras()
        if present is not None and extras <= present:
            return  # the launch.py that we waited for has done it
        if STAMP.exists():
            say("Bringing .venv up to date.")
            STAMP.unlink()  # unfinished from here on
        else:
            say(f"First run: installing into .venv. This takes a few minutes and about {DISK_GB} GB.")
        ensure_venv(lock)
        discard_damaged()
        with contextlib.suppress(FileNotFoundError):
            PIP_LOG.unlink()
        # setuptools goes in first so that it can build the editable install from inside .venv. pip's build
        # isolation would ask the index for another copy every time, even when the folder was only moved.
        pins = CONSTRAINTS.read_text(encoding="utf-8").split()
        pip_install([pin for pin in pins if pin.startswith(("pip==", "setuptools=="))], lock, offline)
        extras = extras | (present or set())
        target = str(ROOT) + (f"[{','.join(sorted(extras))}]" if extras else "")
        editable = ["--no-build-isolation", "--constraint", CONSTRAINTS, "--editable", target]
        pip_install(editable, lock, offline)
        write_stamp(extras)


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


def main(arguments):
    offline = "--offline" in arguments
    arguments = [argument for argument in arguments if argument != "--offline"]
    extras = {"test"} if arguments[:1] in (["test"], ["bench"]) else set()  # bench draws with peers
    try:
        check_python(sys.version_info)
        present = installed_extras()
        if present is None and {"-h", "--help"} & set(arguments):
            print(USAGE, end="")
            return 0
        if present is None or not extras <= present:
            install(extras, offline)
    except SetupError as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the next run finishes the installation.")
        return 130
    except OSError as error:  # a folder that cannot be written, a full disk
        say(explain(str(error), offline) or f"Could not set up {VENV}: {error}")
        return 1
    return hand_over(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
