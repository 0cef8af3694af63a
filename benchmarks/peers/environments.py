"""A virtual environment for each peer, made once from its pinned requirements.

It lies in ``.bench/<peer>`` and is made anew where ``requirements/<peer>.txt`` has changed.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import HERE, Unavailable

CACHE = HERE.parents[1] / ".bench"


def cache_folder(root: Path = CACHE) -> Path:
    """Where environments and models are kept; git is told there to leave all of it out."""
    root.mkdir(parents=True, exist_ok=True)
    (root / ".gitignore").write_text("*\n", "utf-8")
    return root


def ensure(
    peer: str, root: Path = CACHE, requirements: Path = HERE / "requirements", say: Callable[[str], None] = print
) -> Path:
    """The interpreter of ``peer``'s environment, which is made where it is not there; raises ``Unavailable``.

    pip's cache is left alone: it may hold a build that was made for another processor or with other flags.
    """
    wanted = (requirements / f"{peer}.txt").read_text("utf-8")
    folder, log = cache_folder(root) / peer, root / f"{peer}.log"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made = folder / "requirements.txt"
    if made.is_file() and made.read_text("utf-8") == wanted:
        return python
    say(f"{peer}: making its environment in {folder} (log: {log})")
    with log.open("w", encoding="utf-8") as output:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--no-cache-dir",
                "--no-deps",
                "-r",
                str(requirements / f"{peer}.txt"),
            ],
        ):
            try:
                code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
            except OSError as error:
                raise Unavailable(f"its environment could not be made: {error}") from error
            if code:
                raise Unavailable(f"its environment could not be made: {_last_error(log)}")
    made.write_text(wanted, "utf-8")
    return python


def _last_error(log: Path) -> str:
    """The last line of pip that says what went wrong, else the last line at all."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.lower().startswith("error")), (lines or ["no output"])[-1])
