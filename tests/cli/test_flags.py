"""Flags that several commands share, as settings."""

from pathlib import Path

import pytest

from webui.cli import make_parser
from webui.cli.flags import read_settings

DRAWING = {"serve": [], "generate": ["--prompt", "a"], "verify": ["a.png"], "info": ["a.png"], "doctor": []}


@pytest.mark.parametrize("command", DRAWING)
def test_cpu_kernels_are_in_use_unless_they_are_not_wanted(command: str, tmp_path: Path) -> None:
    given = [command, *DRAWING[command], "--data-dir", str(tmp_path)]
    for more, expected in (([], True), (["--no-cpu-kernels"], False)):
        assert read_settings(make_parser(command).parse_args(given + more)).cpu_kernels is expected
