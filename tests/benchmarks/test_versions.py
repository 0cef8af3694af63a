"""``--against``: another checkout draws through its own code, and its pictures are told from ours."""

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import pictures, tasks, versions
from benchmarks.measure import Options
from benchmarks.pictures import compare
from benchmarks.tasks import Task
from benchmarks.versions import FORMAT, ours

WORKER = "benchmarks/peers/darkroom_worker.py"


@pytest.fixture
def other(repository: Path, tmp_path: Path) -> Path:
    """A checkout whose own worker draws ours, as far as nobody changes it."""
    folder = tmp_path / "other"
    (folder / WORKER).parent.mkdir(parents=True)
    for name in (WORKER, "benchmarks/peers/worker.py"):
        shutil.copy(repository / name, folder / name)
    (folder / "webui").symlink_to(repository / "webui")
    return folder


def rows(checkout: Path):
    task = Task("txt2img", programs=("darkroom fp32",))
    return compare(task, Options(rounds=1, steps=2, side=64, threads=1, against=checkout))


@pytest.mark.slow
def test_a_checkout_that_draws_the_same_and_one_that_does_not(other: Path, repository: Path) -> None:
    before, now, *_ = rows(other)
    assert (before.name, now.name) == tuple(
        f"txt2img 64 px, 2 steps: darkroom fp32, {when}" for when in ("before", "now")
    )
    assert now.ratio == pytest.approx(now.samples[0] / before.samples[0])
    assert now.note == "(float32; same pixels in all 2 pictures)"
    text = (repository / WORKER).read_text("utf-8")
    (other / WORKER).write_text(
        text.replace('guidance=request["guidance"]', 'guidance=2 * request["guidance"]'), "utf-8"
    )
    _, now, *spent = rows(other)
    assert all(row.samples[0] > 1 for row in spent)  # ms; nothing where the system does not tell
    assert "other pixels in 2 of 2 pictures, by up to " in now.note


def test_only_our_programs_are_compared() -> None:
    assert ours(Task("txt2img"), Options()) == ["darkroom fp32", "darkroom as it starts"]
    assert "darkroom --cuda-graphs" in ours(Task("txt2img"), Options(device="cuda"))


def test_ours_runs_from_this_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path) -> None:
    started = []
    monkeypatch.setattr(tasks, "Worker", lambda *given: started.append(given))
    models = pictures.of_size("demo")
    tasks.own_process("darkroom fp32", "fp32", models, tmp_path, Options())
    (command, _, _, variables) = started[0]
    assert command[1] == str(repository / WORKER) and variables == {"PYTHONPATH": str(repository)}


def test_both_draw_in_the_format_that_is_measured_here(other: Path, monkeypatch) -> None:
    known = other / "known"
    (known / FORMAT).parent.mkdir(parents=True)
    (known / FORMAT).write_text('{"this processor": 2.0}')
    monkeypatch.setattr(versions, "ROOT", known)
    monkeypatch.setattr(versions, "own_process", lambda *given: SimpleNamespace(close=lambda: None))
    checkouts = {versions.NOW: known, versions.BEFORE: other}
    with contextlib.ExitStack() as stack:
        started = versions._start("darkroom fp32", checkouts, pictures.of_size("demo"), Options(), known, stack)
        assert next(started)[0] == versions.NOW and next(started)[0] == versions.BEFORE
        assert (other / FORMAT).read_text() == '{"this processor": 2.0}'
