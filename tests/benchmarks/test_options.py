"""What the command line of ``bench`` refuses."""

import sys

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "unknown workload 'nothing'"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["queue", "--device", "cuda"], "queue is measured on the CPU alone"),
        (["txt2img", "--device", "cuda", "--peers"], "other programs are measured on the CPU alone"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments, says, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err
