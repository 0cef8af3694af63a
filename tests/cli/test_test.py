"""``webui test``: every check is run, and each that fails makes all of it fail."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from webui.cli import test as command

CHECKS = ["ruff check", "ruff format --check", "mypy", "pytest --collect-only -q", "pytest -n"]
PYTHON = """#!/bin/sh
echo "$2 $3 $4 " >> {log}
case "$2 $3 $4 " in "{failing}"*) exit 3;; esac
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``run("mypy")``: the exit status where that check fails, and the checks that were begun."""

    def run(failing: str, *arguments: str) -> tuple[int, list[str]]:
        log, python = tmp_path / "log", tmp_path / "python"
        python.write_text(PYTHON.format(log=log, failing=failing))
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        return command.run(Namespace(remaining=arguments)), log.read_text().splitlines()

    return run


def test_all_checks_are_run(run) -> None:
    status, begun = run("none")
    assert status == 0 and len(begun) == len(CHECKS)
    assert all(any(line.startswith(check) for line in begun) for check in CHECKS)


@pytest.mark.parametrize("failing", ["mypy", "pytest -n"])
def test_types_and_tests_are_both_heard_of(run, failing) -> None:
    status, begun = run(failing)
    assert status == 3 and len(begun) == len(CHECKS)


def test_lint_ends_it_at_once(run) -> None:
    assert run("ruff check") == (3, ["ruff check  "])


def test_with_arguments_it_is_pytest_alone(run) -> None:
    assert run("pytest -k", "-k", "prompt") == (3, ["pytest -k prompt "])
