"""What a change of a LoRA's weight in mid-picture is said to cost."""

from types import SimpleNamespace

import pytest

from benchmarks.__main__ import MIN_STEPS
from benchmarks.lora_steps import BASELINE, OURS, WEIGHTS, _Found, _round, _rows, added_ms, changes
from benchmarks.peers import HERE, Answer, Drawing
from webui.core.request import LoraRef
from webui.engine.speed import graphed


def test_the_weights_take_turns_before_every_second_step():
    assert changes(8, 2) == [(2, WEIGHTS[1]), (4, WEIGHTS[0]), (6, WEIGHTS[1])]


def test_the_fewest_steps_are_enough():
    assert [step for step, _ in changes(MIN_STEPS, 2)] == [2] and changes(MIN_STEPS - 1, 2) == []
    found = _Found()
    _round(SimpleNamespace(draw=lambda _: Answer(1.0, None, [0.1, 0.102])), Drawing(steps=MIN_STEPS), found, True)
    assert found.step == pytest.approx([100.0]) and found.many == pytest.approx([2.0])
    assert found.one == pytest.approx([-2.0])


def test_a_change_is_what_its_step_takes_more_than_those_beside_it():
    drifting = [0.010, 0.020 + 0.003, 0.030, 0.040 + 0.003, 0.050, 0.060 + 0.003]
    assert added_ms(drifting[:5], [2, 4]) == pytest.approx(3.0)
    assert added_ms([0.01, 0.01, 0.015], [3]) == pytest.approx(5.0), "the last has none behind it"


def test_ours_is_asked_for_points_by_steps_and_draws_those_weights(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))  # as the script has it
    from darkroom_worker import _weights

    request = {"steps": 6, "changes": [(2, 0.4), (4, 0.8)]}
    points = _weights(0.8, request)
    assert points == ((0, 0.8), (2, 0.8), (2, 0.4), (4, 0.4), (4, 0.8), (6, 0.8))
    assert LoraRef(name="any", weight=points).weight == points
    assert _weights(0.8, {"steps": 6, "changes": []}) == 0.8


def test_what_the_engine_could_not_compile_or_record_is_no_figure(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    from darkroom_worker import _Heard

    heard = _Heard()
    monkeypatch.setattr(graphed.logger, "handlers", [heard])
    heard.check()
    graphed.logger.warning("The UNet is not recorded and runs as it is: %s", "CUDA out of memory.")
    with pytest.raises(RuntimeError, match=r"not recorded and runs as it is: CUDA out of memory"):
        heard.check()


def test_the_round_in_which_weights_are_new_is_told_apart_and_a_share_of_a_step_is_given():
    cost = {BASELINE: 0.010, OURS: 0.001}
    found = {name: _Found() for name in cost}
    for k in range(3):
        for name, added in cost.items():

            def draw(drawing: Drawing, added=added, k=k) -> Answer:
                at = [step for step, _ in drawing.changes]
                first = 0.5 if k == 0 else 0.0
                return Answer(1.0, None, [0.1 + (added + first) * (step in at) for step in range(1, drawing.steps)])

            _round(SimpleNamespace(draw=draw), Drawing(steps=8, loras=[("a", 0.8)]), found[name], k > 0)
    rows = {row.name: row for row in _rows("label", found, {"ComfyUI": "there is none"})}
    ours = rows[f"label: each of many changes adds, {OURS}"]
    assert ours.samples == pytest.approx([1.0, 1.0]) and ours.ratio == pytest.approx(0.1) and "1.00% of" in ours.note
    assert rows[f"label: a change to weights that are new adds, {OURS}"].samples == pytest.approx([501.0])
    assert "there is none" in rows["label: ComfyUI"].note
