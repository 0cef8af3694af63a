"""Where the seconds went: ledgers add up, and nothing is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.events import Cancelled, Done, Failed, Loading, Queued, Step
from webui.core.ledger import BOUNDS_S, PARTS, SMALL, Totals, balance, shares

seconds = st.floats(0, 1e4, allow_subnormal=False)
ledgers = st.dictionaries(st.sampled_from(PARTS), seconds)


def test_ledgers_are_added_part_by_part_and_other_is_what_they_leave():
    parts_s = balance(10.0, {"queue": 1.0, "load": 2.0}, {"load": 0.5, "steps": 4.0, "new": 1.0, "other": 7.0})
    assert parts_s == dict.fromkeys(PARTS, 0.0) | {"queue": 1.0, "load": 2.5, "steps": 4.0, "new": 1.0, "other": 1.5}
    assert list(parts_s) == [*PARTS[:-1], "new", "other"]


def test_parts_that_overlap_leave_nothing_rather_than_less():
    assert balance(1.0, {"steps": 1.5})["other"] == 0.0


def test_shares_are_the_largest_first_with_the_small_ones_together_at_the_end():
    parts_s = {"queue": 0.0, "load": 1.0, "encode": 0.04, "steps": 8.0, "other": 0.92, "save": 0.04}
    assert shares(parts_s) == [("steps", 8.0), ("load", 1.0), ("other", pytest.approx(1.0))]
    assert shares({"steps": 2.0, "load": 1.0}) == [("steps", 2.0), ("load", 1.0)]
    assert shares({}) == shares({"steps": 0.0}) == []


@given(ledgers)
def test_shares_hold_nearly_everything_and_each_is_worth_its_place(parts_s):
    whole_s, found = sum(parts_s.values()), shares(parts_s)
    assert sum(spent_s for _, spent_s in found) == pytest.approx(whole_s, rel=0.1 * SMALL)
    assert all(spent_s > SMALL * whole_s for part, spent_s in found if part != "other")
    assert len({part for part, _ in found}) == len(found)


def test_totals_count_each_kind_of_event():
    totals = Totals()
    for event in (Queued(1), Loading("x", 0.0), Failed("no"), Cancelled(), Cancelled()):
        totals = totals.plus(event)
    assert totals == Totals(jobs={"done": 0, "failed": 1, "cancelled": 2})
    totals = Totals().plus(Step(2, 4, 0.1), reached=1).plus(Step(1, 4, 0.1), reached=2)  # begun anew: nothing undone
    assert totals == Totals(steps=1)


def test_totals_of_done_jobs_have_their_seconds_by_part_and_by_bound():
    totals = Totals()
    for took_s in (0.25, 0.3, 9999.0):
        totals = totals.plus(Done(took_s, {"steps": took_s / 2, "other": took_s / 2}))
    assert totals.jobs["done"] == 3 and totals.seconds == pytest.approx(9999.55)
    assert totals.within == (1, 1) + (0,) * (len(BOUNDS_S) - 2) + (1,)
    assert totals.parts_s == pytest.approx(dict.fromkeys(PARTS, 0.0) | {"steps": 4999.775, "other": 4999.775})
