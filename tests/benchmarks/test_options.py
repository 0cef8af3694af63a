"""What the command line of ``bench`` refuses, and what it hands to workloads and writes."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.__main__ import IN_ANOTHER, WORKLOADS, main
from benchmarks.measure import Options, Row


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "unknown workload 'nothing'"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["queue", "--device", "cuda"], "queue is measured on the CPU alone"),
        (["page", "--size", "sd15"], "page is measured at --size demo alone"),
        (["loading", "--size", "demo"], "loading is measured at --size sd15 alone"),
        (["load", "--size", "sd15"], "load is measured at --size demo alone"),
        (["load", "--visitors", "3"], "--visitors must be at least 4, not 3"),
        (["load", "--minutes", "nan"], "--minutes must be at least 0.1, not nan"),
        (["queue", "--against", "."], "queue is not measured --against another checkout"),
        (["txt2img", "--against", "tests"], "is no checkout of this product"),
        (["txt2img", "--against", ".", "--peers"], "other programs are not measured --against another checkout"),
        (["lora", "--steps", "2"], "lora changes weights in mid-picture: --steps must be at least 3"),
        (["txt2img", "--compiled"], "--compiled is for --device cuda"),
        (["memory", "--size", "sdxl"], "memory is measured at --size demo and sd15 alone"),
        (["txt2img", "--device", "cuda", "--peers"], "other programs are measured on the CPU alone"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments, says, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Runs it with workloads that do nothing; gives what each was asked for, and the JSON."""
    asked: dict[str, Options] = {}

    def stand_in(name: str) -> SimpleNamespace:
        def run(options: Options) -> list[Row]:
            asked[name] = options
            return [Row("threads", "threads", [torch.get_num_threads()])]

        return SimpleNamespace(run=run)

    def bench(*arguments: str) -> tuple[dict[str, Options], dict]:
        file = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--json", str(file)])
        assert main() == 0
        return asked, json.loads(file.read_text())

    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    for name in WORKLOADS:
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", stand_in(name))
    yield bench
    torch.set_num_threads(threads)


def test_what_is_measured_in_this_process_has_the_threads_that_were_asked_for(bench):
    _, found = bench("operators", "--threads", "3")
    assert found["workloads"]["operators"][0]["median"] == 3


def test_each_workload_has_the_size_that_it_is_measured_at(bench, capsys):
    asked, found = bench()
    assert asked.keys() == WORKLOADS.keys() - set(IN_ANOTHER)
    assert {name for name, options in asked.items() if options.size == "sd15"} == {"loading", "quantised"}
    assert found["sizes"]["loading"] == "sd15" and found["sizes"]["queue"] == "demo"
    assert "loading, SD 1.5 size, random weights" in capsys.readouterr().out


def test_what_a_size_leaves_out_is_said(bench, capsys):
    asked, _ = bench("--size", "sd15")
    left_out = [name for name, sizes in WORKLOADS.items() if "sd15" not in sizes and name not in IN_ANOTHER]
    assert "page" in left_out and asked.keys() == WORKLOADS.keys() - set(left_out) - set(IN_ANOTHER)
    assert f"not measured at --size sd15: {', '.join(left_out)}\n" in capsys.readouterr().out


def test_json_has_the_machines_load_and_its_stolen_time(bench, capsys):
    found = bench("memory")[1]
    assert "torch" in found["machine"]
    if sys.platform == "linux":
        assert found["conditions"]["load"] >= 0 and 0 <= found["conditions"]["stolen"] <= 1
        assert "of the processors' time stolen" in capsys.readouterr().out
