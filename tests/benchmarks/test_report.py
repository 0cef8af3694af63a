"""RESULTS.md keeps what was measured before: only a workload that is measured anew is replaced."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import HERE, read_sections, write_sections


def run(*workloads: str, median: float = 1.0, size: str = "demo", machine: str = "Zen 3") -> dict[str, Any]:
    row = {"name": "thing", "unit": "ms", "median": median, "p10": 1.0, "p90": 2.0, "n": 3, "ratio": None}
    tables = {name: [row | {"against": "", "note": "(fp32)"}] for name in workloads}
    about = {"machine": machine, "date": "2026-11-28", "conditions": {"load": 0.5, "stolen": 0.02}}
    return about | {"sizes": dict.fromkeys(workloads, size), "workloads": tables}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes RESULTS.md from these runs, each a file, and gives it back."""
    monkeypatch.setattr(report, "HERE", tmp_path)

    def write(*runs: dict[str, Any]) -> str:
        files = [tmp_path / f"{number}.json" for number in range(len(runs))]
        for file, content in zip(files, runs, strict=True):
            file.write_text(json.dumps(content))
        monkeypatch.setattr(sys, "argv", ["report", *map(str, files)])
        assert report.main() == 0
        return (tmp_path / "RESULTS.md").read_text()

    return write


def headings(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("##")]


def test_files_of_one_day_and_size_are_one_section(write):
    page = write(run("queue", "memory"), run("txt2img"))
    assert headings(page) == ["## 2026-11-28, demo model", "### queue", "### memory", "### txt2img"]
    assert page.count("Zen 3") == 1
    assert "Load 0.50 at the start, 2.0% of the processors' time stolen." in page


def test_a_later_run_replaces_its_own_workload_alone(write):
    write(run("queue", "memory", median=111))
    page = write(run("memory", "load", median=222))
    assert headings(page)[1:] == ["### queue", "### memory", "### load"]
    assert page.count("| thing | 111 ms |") == 1 and page.count("| thing | 222 ms |") == 2


def test_other_sizes_and_machines_are_sections_of_their_own(write):
    write(run("txt2img", median=111))
    page = write(run("txt2img", median=222, size="sd15"), run("txt2img", median=333, machine="Zen 4"))
    assert headings(page)[::2] == [
        "## 2026-11-28, SD 1.5 size, random weights",
        "## 2026-11-28, demo model",
        "## 2026-11-28, demo model",
    ]
    assert all(f"| thing | {median} ms |" in page for median in (111, 222, 333))


def test_one_side_alone_stands_beside_all_of_them(write):
    write(run("txt2img", median=111))
    page = write(run("txt2img", median=222) | {"side": 256})
    assert headings(page)[1:] == ["### txt2img", "### txt2img, 256 px alone"]
    assert "| thing | 111 ms |" in page and "| thing | 222 ms |" in page


def test_where_files_lay_on_the_machine_is_not_told(write):
    refused = {
        "name": "peer",
        "unit": "ms",
        "n": 0,
        "note": "not run: '/home/ann/.bench/demo.safetensors' at http://a/b",
    }
    measured = run("txt2img")
    measured["workloads"]["txt2img"].append(refused)
    assert "| peer | | | | | not run: 'demo.safetensors' at http://a/b |" in write(measured)


def test_what_was_written_earlier_stays_as_it_is():
    page = (HERE / "RESULTS.md").read_text("utf-8")
    sections = read_sections(page)
    assert len(sections) > 1 and write_sections(sections) == page
