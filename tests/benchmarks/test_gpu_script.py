"""``benchmarks/gpu.sh`` without a card: its parts, what it keeps of them, and the one about exactness on the CPU."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import needed

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is bash's")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(repository: Path, tmp_path: Path) -> Run:
    """``script("exact-float32", LIMIT_S=1)``: how it ended; its state is kept in the test's own folder."""

    def run(*parts: str, **variables: object) -> subprocess.CompletedProcess[str]:
        wanted = {"KEEP": tmp_path / "kept", "PYTHON": sys.executable, "DEVICE": "cpu", "QUICK": 1, "WORKERS": 0}
        settings = {name: str(value) for name, value in (wanted | variables).items()}
        command = ["bash", str(repository / "benchmarks/gpu.sh"), *parts]
        return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=280)

    return run


@pytest.mark.slow
def test_a_part_that_ended_well_is_not_run_again_and_one_that_took_too_long_is(script, tmp_path) -> None:
    late = script("exact-float32", LIMIT_S=0.2)
    assert late.returncode == 1 and "timed out" in script("list").stdout
    (tmp_path / "kept/state/install").write_text("ok, earlier\n")
    for name in _parts(script) - {"install", "exact-float32"}:
        (tmp_path / "kept/state" / name).write_text("ok, earlier\n")
    done = script(OUT=tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert "6 requests on cpu in float32" in done.stdout and "in a new process: the same pixels" in done.stdout
    assert done.stdout.count("== ") == 1  # the others were not run
    with tarfile.open(tmp_path / "out/gpu-results.tar.gz") as archive:
        assert {"results/exact-float32.json", "logs/exact-float32.txt", "state/install"} <= {*archive.getnames()}
    assert "exact-float32: ok" in (tmp_path / "out/gpu-summary.txt").read_text()
    again = script()
    assert again.returncode == 0 and "== " not in again.stdout


def test_a_part_that_fails_is_said_to_and_the_next_is_run(script, tmp_path) -> None:
    done = script("speed-previews", "suite-cuda", PYTHON="false")
    assert done.returncode == 1
    assert [line.split(",")[0] for line in done.stdout.splitlines() if line.startswith("failed")] == ["failed"] * 2


def test_what_only_a_card_can_show_is_not_said_to_have_ended_well_without_one(script, tmp_path) -> None:
    nothing = tmp_path / "python"
    nothing.write_text("#!/bin/sh\nexit 0\n")  # pytest, where all is skipped
    nothing.chmod(0o755)
    done = script("suite-cuda", PYTHON=nothing)
    assert done.returncode == 0 and "nothing was drawn: all of it needs an NVIDIA card" in done.stdout
    assert (tmp_path / "kept/state/suite-cuda").read_text().startswith("nothing ran, ")


def test_without_an_environment_nothing_else_is_tried(script) -> None:
    done = script("install", "exact-float32", PYTHON="false")
    assert done.returncode == 1 and "exact" not in done.stdout


def test_a_part_that_there_is_not(script) -> None:
    done = script("install", "nothing")
    assert done.returncode == 2 and "no part nothing; there are: install exact-float16" in done.stderr


def test_no_part_is_begun_that_is_not_expected_to_end_in_time(script, tmp_path) -> None:
    done = script("exact-float16", "speed-previews", BUDGET_S=5)
    assert done.returncode == 0 and done.stdout.count("not begun, for it is expected to take") == 2
    assert not [*(tmp_path / "kept/state").iterdir()]


def test_what_matters_most_fits_quarter_of_an_hour(script) -> None:
    sums_s = [int(re.search(r"(\d+) s with all before", line)[1]) for line in script("list").stdout.splitlines()]
    names = [line.split()[0] for line in script("list").stdout.splitlines()]
    assert sums_s == sorted(sums_s) and sums_s[names.index("speed-txt2img")] <= 15 * 60 - 100


def test_every_part_that_is_named_is_written(script, repository) -> None:
    text = (repository / "benchmarks/gpu.sh").read_text("utf-8")
    assert all(f"\npart_{name.replace('-', '_')}()" in text for name in _parts(script))


def test_the_engine_needs_no_page_and_what_is_there_stays_as_it_is(tmp_path) -> None:
    needed.main(tmp_path)
    wanted, pins = ((tmp_path / name).read_text().split("\n") for name in ("requirements.txt", "constraints.txt"))
    assert any(line.startswith("diffusers>=") for line in wanted) and "pytest" in wanted
    assert not any(needed.name_of(line) in ("gradio", "gradio-client", "playwright") for line in wanted)
    assert not any(line.startswith(("torch==", "pytest==")) for line in pins)  # both are there, or this would not run


def _parts(script: Run) -> set[str]:
    return {line.split()[0] for line in script("list").stdout.splitlines()}
