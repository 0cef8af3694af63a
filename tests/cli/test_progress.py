"""What a terminal, or a file in its place, is told of a job."""

import json

from webui.cli.progress import print_json, print_progress
from webui.core.events import Done, Loading, Step

COST = (
    "The memory for LoRAs (--lora-cache) is too small for all sets of this job: 2 merges in the middle of each picture."
)
EVENTS = (Loading("Merging 1 LoRA", 0.0), Loading(COST, 0.0), Step(1, 1, 0.1), Done(1.0, {}, (COST, "Another line.")))


def test_what_is_said_before_the_first_step_is_printed_at_once_and_only_once(capsys) -> None:
    def events():
        for event in EVENTS:
            if isinstance(event, Step):
                assert f"webui: {COST}\n" in capsys.readouterr().err
            yield event

    assert print_progress(events()) == 0
    rest = capsys.readouterr().err
    assert COST not in rest and "webui: Another line.\n" in rest


def test_as_json_it_comes_before_the_steps_and_again_among_the_warnings(capsys) -> None:
    assert print_json(iter(EVENTS)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["what"] == COST and lines[-1]["warnings"] == [COST, "Another line."]
