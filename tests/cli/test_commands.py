"""A command is a module with flags and a function that runs it; nothing of the others is loaded for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webui.cli import COMMANDS, make_parser

LEAST = {"info": ["a.png"], "upscale": ["a.png"], "grid": ["--x", "steps=1"]}  # what a command cannot do without


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_module_that_runs_it(command: str) -> None:
    options = make_parser(command).parse_args([command, *LEAST.get(command, [])])
    assert options.run.__module__ == f"webui.cli.{command}"


def test_help_lists_every_command_and_loads_none(repository: Path) -> None:
    program = "import sys; from webui.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True)
    *words, modules = done.stdout.splitlines()
    assert [line.split()[0] for line in words if line.startswith("    ")] == list(COMMANDS)
    assert "webui.cli" in modules.split() and not [name for name in modules.split() if name.startswith("webui.cli.")]


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(repository: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "webui", "presets"], cwd=repository, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "")
