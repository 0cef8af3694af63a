"""``python -m benchmarks.needed FOLDER``: what the engine, its tests and benchmarks need, as two files for pip.

``requirements.txt`` is pyproject.toml's list without the page's packages and a developer's tools; ``constraints.txt``
has the pins of what is not there yet, so that a torch that suits the machine stays, and what came with it.
"""

import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (
    *("gradio", "gradio-client", "webuiapi", "playwright"),
    *("mypy", "ruff", "sd-parsers", "types-cachetools", "types-pyyaml"),
)


def main(folder: Path) -> None:
    """Writes both files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted: list[str] = project["dependencies"] + project["optional-dependencies"]["test"]
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[:1].isalnum()]
    present = {name_of(found.name) for found in distributions()}
    _write(folder / "requirements.txt", [line for line in wanted if name_of(line) not in LEFT_OUT])
    _write(folder / "constraints.txt", [line for line in pins if name_of(line) not in present])


def name_of(line: str) -> str:
    """The package that a requirement is about, as pip compares names; empty for anything else."""
    found = re.match(r"[A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
