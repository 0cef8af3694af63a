"""Whose turn it is: the least served visitor of the last hour, and of one visitor's jobs the first."""

import itertools
import threading
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.hosting import HOUR_S, PICTURE_COST, Hosting, Limits, Use
from webui.core.visitor import OWNER, Visitor
from webui.jobs import queue
from webui.jobs.budget import FIRST_PICTURES, check
from webui.jobs.protocols import OverBudget, QueueFull
from webui.jobs.queue import CROWD, Queue

WAIT_S = 20
numbers = itertools.count()


@dataclass(frozen=True)
class Sent:
    """A job that does nothing."""

    id: str
    visitor: Visitor
    cost: float = 1.0
    pixel_bytes: int = 0


class Clock:
    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


def make(*clock: Clock, **decisions) -> Queue[Sent]:
    """A queue of a host who lets everybody have as much as they like, but for what ``decisions`` say."""
    return Queue(lambda *_: None, *clock, hosting=hosted(**decisions))


def hosted(limits=(), **decisions) -> Hosting:
    hosting = Hosting()
    hosting.change({"limits": dict.fromkeys(Limits.model_fields, 10**6) | dict(limits), **decisions})
    return hosting


def send(line: Queue[Sent], name: str, count: int = 1, cost: float = 1.0, origin: str = "") -> list[Sent]:
    jobs = [Sent(f"{name} {next(numbers)}", Visitor(name, origin=origin), cost) for _ in range(count)]
    for job in jobs:
        line.put(job)
    return jobs


def turns(line: Queue[Sent]) -> list[str]:
    """Whose jobs are taken, one after the other, until nobody's wait."""
    return [line.take().visitor.id for _ in range(len(line))]


def wait_for_one(line: Queue[Sent]) -> Sent:
    with line.changed:
        while (job := line.take()) is None:
            line.changed.wait()
        return job


def test_one_visitor_s_jobs_come_in_the_order_they_were_sent():
    line = make()
    jobs = send(line, "a", 20)
    assert [line.take() for _ in range(21)] == [*jobs, None]


def test_a_job_is_moved_among_its_visitor_s_own_and_nobody_else_waits_longer():
    line = make()
    (first,) = send(line, "a", cost=2)
    assert line.take() == first
    a, b = send(line, "a", 3), send(line, "b", 2)
    places = {job: place(line, job) for job in b}
    assert line.move(a[2], a[0].id) == [a[2], a[0], a[1]]
    assert line.move(a[0], None) == [a[2], a[1], a[0]]
    assert {job: place(line, job) for job in b} == places
    for job, before in ((a[0], b[0].id), (a[0], "nothing"), (a[0], a[0].id), (first, a[0].id), (first, None)):
        assert line.move(job, before) == []
    line.settle(first, 1.0)
    taken = [line.take() for _ in range(5)]
    assert [job for job in taken if job in a] == [a[2], a[1], a[0]] and [job for job in taken if job in b] == b


def test_of_those_who_share_a_turn_each_moves_their_own():
    line = make()
    jobs = [Sent(str(number), Visitor("xy"[number % 2], is_new=True)) for number in range(4)]
    for job in jobs:
        line.put(job)
    assert line.move(jobs[2], jobs[0].id) == [jobs[2], jobs[0]]
    assert line.move(jobs[3], jobs[0].id) == []
    assert [line.take() for _ in jobs] == [jobs[2], jobs[1], jobs[0], jobs[3]]


def test_ten_of_one_and_one_of_another_the_other_is_second():
    line = make()
    send(line, "many", 10)
    first = line.take()
    send(line, "one")
    assert first.visitor.id == "many" and turns(line)[:2] == ["one", "many"]


def test_somebody_who_sends_500_delays_others_by_the_running_job_alone():
    line = make(limits={"waiting": 100})
    sent = refused = 0
    for _ in range(500):
        try:
            send(line, "greedy")
            sent += 1
        except QueueFull:
            refused += 1
    assert (sent, refused) == (100, 400)
    line.take()  # runs
    for name in ("b", "c", "d"):
        send(line, name)
    assert turns(line)[:4] == ["b", "c", "d", "greedy"]


def newcomers(line: Queue[Sent], name: str, count: int, origin: str = "") -> list[Sent]:
    return [job for k in range(count) for job in send(line, f"{name}{k}", origin=origin)]


def place(line: Queue[Sent], job: Sent) -> int:
    return line.positions()[job.id]


@pytest.mark.parametrize("served", range(2))
def test_two_hundred_cookies_keep_no_newcomer_back(served):
    line = make()
    newcomers(line, "cookie", 200)
    for _ in range(served):
        line.take()
    (person,) = send(line, "person")
    assert place(line, person) <= 2
    others = newcomers(line, "other", 10)
    assert max(place(line, job) for job in (person, *others)) <= 2 * 11


def test_newcomers_who_come_without_end_make_nobody_wait_twice_as_long():
    line = make()
    newcomers(line, "before", 40)
    (person,) = send(line, "person")
    first = place(line, person)
    newcomers(line, "after", 500)
    assert place(line, person) <= 2 * 41 and first <= 2


def test_a_few_newcomers_come_in_their_order():
    line = make()
    jobs = newcomers(line, "person", CROWD)
    assert [line.take() for _ in jobs] == jobs


def test_newcomers_take_turns_by_the_address_that_they_come_from():
    line = make()
    newcomers(line, "cookie", 50, origin="one address")
    line.put(owners := Sent("owner's", OWNER))
    near, far = send(line, "near", origin="another"), send(line, "far", origin="a third")
    assert {place(line, job) for job in (owners, *near, *far)} == {2, 3, 4}
    for _ in range(20):
        line.take()
    (late,) = send(line, "late", origin="a fourth")
    assert place(line, late) == 1  # from the first address many were served by now
    assert place(line, send(line, "again", origin="another")[0]) == 2


def test_no_address_fills_the_queue_for_all_others():
    line = make(limits={"waiting": 5, "waiting_in_all": 40})
    newcomers(line, "cookie", 20, origin="one address")
    with pytest.raises(OverBudget, match="20 jobs from your address wait, and 20 are the limit"):
        send(line, "another cookie", origin="one address")
    send(line, "person", origin="another")


def test_a_part_of_what_all_guests_have_is_kept_for_first_jobs():
    limits = Limits(waiting_in_all=40, pictures_an_hour_in_all=400)
    waiting = Use(waiting=30)
    check(limits, PICTURE_COST, Use(), waiting)
    for cost, own in ((PICTURE_COST, Use(1, PICTURE_COST)), ((FIRST_PICTURES + 1) * PICTURE_COST, Use())):
        with pytest.raises(QueueFull, match="30 jobs of all guests wait"):
            check(limits, cost, own, waiting)
    with pytest.raises(QueueFull, match="40 jobs of all guests wait"):
        check(limits, PICTURE_COST, Use(), Use(waiting=40))
    drawn = Use(served=((60.0, 300 * PICTURE_COST),))
    check(limits, PICTURE_COST, Use(), drawn)
    with pytest.raises(QueueFull, match="come back in 59 minutes"):
        check(limits, PICTURE_COST, Use(served=((60.0, PICTURE_COST),)), drawn)


def test_it_is_the_cost_that_counts_not_the_number_of_jobs():
    line = make()
    send(line, "large", 4, cost=10.0)
    send(line, "small", 25, cost=1.0)
    assert Counter(turns(line)[:12]) == {"large": 2, "small": 10}


def test_what_was_served_is_forgotten_after_an_hour():
    clock = Clock()
    line = make(clock)
    send(line, "a", cost=100.0)
    line.take()
    send(line, "a")
    send(line, "b")
    assert line.upcoming().visitor.id == "b"
    clock.now_s += HOUR_S
    assert line.upcoming().visitor.id == "a"  # who came first


@pytest.mark.parametrize("jump_s", [-1e9, -3600.0, -1.0, 1.0, 1e9])
def test_a_clock_that_jumps_loses_no_job_and_blocks_nobody_for_longer_than_an_hour(jump_s):
    clock = Clock()
    line = make(clock)
    send(line, "served", 3, cost=50.0)
    line.take()
    send(line, "other", 40, cost=1.0)
    clock.now_s += jump_s
    before = turns(line)
    assert Counter(before) == {"served": 2, "other": 40}
    send(line, "served")
    send(line, "other", 5)
    clock.now_s += HOUR_S
    assert turns(line)[0] == "served"


def test_a_job_that_was_stopped_counts_by_what_was_drawn_of_it():
    line = make()
    send(line, "a", cost=100.0)
    line.settle(line.take(), 0.01)
    send(line, "b", cost=2.0)
    line.settle(line.take(), 1.0)
    send(line, "b")
    send(line, "a")
    assert turns(line) == ["a", "b"]


def test_a_job_that_was_taken_back_never_comes():
    line = make()
    first, second, third = send(line, "a", 3)
    assert line.drop(second) and not line.drop(second)
    assert line.positions() == {first.id: 1, third.id: 2}
    assert line.take() == first and not line.drop(first)
    assert line.take() == third and line.take() is None


def test_places_are_told_when_they_change_and_only_then():
    told: list[tuple[str, int]] = []
    line = Queue(lambda job, place: told.append((job.id, place)))
    a, b = send(line, "a", 2)
    assert told == [(a.id, 1), (b.id, 2)]
    told.clear()
    (c,) = send(line, "c")  # nobody was served yet: after a's first it is c's turn
    assert told == [(b.id, 3), (c.id, 2)] or told == [(c.id, 2), (b.id, 3)]
    told.clear()
    assert line.take() == a
    assert sorted(told) == sorted([(c.id, 1), (b.id, 2)])


def test_nobody_fills_the_queue_for_all_and_what_was_accepted_is_never_refused(monkeypatch):
    monkeypatch.setattr(queue, "MAX_WAITING", 2)
    line = make(limits={"waiting": 2, "waiting_in_all": 6})
    send(line, "a", 2)
    with pytest.raises(OverBudget, match="2 of your jobs wait") as refusal:
        send(line, "a")
    assert refusal.value.again_s
    send(line, "b", 2)
    for name in "cd":
        send(line, name)
    with pytest.raises(QueueFull, match="6 jobs of all guests wait"):
        send(line, "e")
    owners = [Sent(f"owner's {k}", OWNER) for k in range(3)]
    for job in owners[:2]:
        line.put(job)
    with pytest.raises(QueueFull, match="2 jobs wait"):
        line.put(owners[2])
    line.put(Sent("kept", Visitor("a")), accepted=True)
    assert len(line) == 9 and Counter(turns(line)) == {"a": 3, "b": 2, "c": 1, "d": 1, "owner": 2}


def test_a_guest_has_so_many_pictures_an_hour_and_is_told_when_to_come_back():
    clock = Clock()
    line = make(clock, limits={"pictures_an_hour": 10})
    with pytest.raises(OverBudget, match="the work of 11 pictures .* 10 an hour are the limit"):
        send(line, "a", cost=11 * PICTURE_COST)
    send(line, "a", cost=6 * PICTURE_COST)
    line.settle(line.take(), 0.5)  # 3 of them were drawn
    clock.now_s += 600
    send(line, "a", 2, cost=3 * PICTURE_COST)
    with pytest.raises(OverBudget, match="10 pictures an hour.* come back in 50 minutes") as refusal:
        send(line, "a", cost=2 * PICTURE_COST)
    assert refusal.value.again_s == HOUR_S - 600
    send(line, "b", cost=10 * PICTURE_COST)  # others have their own
    clock.now_s += HOUR_S - 600
    send(line, "a", cost=4 * PICTURE_COST)


def test_all_guests_together_have_so_much_and_the_owner_none_of_it():
    clock = Clock()
    line = make(clock, limits={"pictures_an_hour_in_all": 10})
    line.put(Sent("owner's", OWNER, 50 * PICTURE_COST))
    send(line, "a", cost=8 * PICTURE_COST)
    with pytest.raises(QueueFull, match="all guests together .* come back in 60 minutes"):
        send(line, "b", cost=3 * PICTURE_COST)
    send(line, "b", cost=2 * PICTURE_COST)


def test_limits_hold_as_soon_as_the_host_changes_them():
    hosting = hosted(limits={"waiting": 1})
    line = Queue(lambda *_: None, hosting=hosting)
    send(line, "a")
    with pytest.raises(OverBudget):
        send(line, "a")
    hosting.change({"limits": {"waiting": 2}})
    send(line, "a")


def test_paused_guests_wait_and_the_owner_does_not():
    hosting = hosted(paused=True)
    line = Queue(lambda *_: None, hosting=hosting)
    (guests,) = send(line, "a")
    line.put(owners := Sent("owner's", OWNER))
    assert line.take() == owners and line.take() is None and line.upcoming() is None
    assert line.positions() == {guests.id: 1}
    hosting.watch(line.wake)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(wait_for_one(line)))
    thread.start()
    hosting.change({"paused": False})
    thread.join(WAIT_S)
    assert taken == [guests]


def test_start_pictures_that_wait_are_counted(monkeypatch):
    monkeypatch.setattr(queue, "MAX_PIXEL_BYTES", 100)
    monkeypatch.setattr(queue, "MAX_PIXEL_BYTES_IN_ALL", 150)
    line = make()
    first = Sent("1", Visitor("a"), pixel_bytes=80)
    line.put(first)
    line.put(Sent("2", Visitor("a")))
    with pytest.raises(QueueFull, match="start pictures of jobs that wait"):
        line.put(Sent("3", Visitor("a"), pixel_bytes=30))
    with pytest.raises(QueueFull, match="start pictures of jobs that wait"):
        line.put(Sent("4", Visitor("b"), pixel_bytes=80))
    line.put(Sent("5", Visitor("b"), pixel_bytes=70))
    line.put(Sent("owner's", OWNER, pixel_bytes=100))  # guests leave the owner room
    line.drop(first)
    line.put(Sent("6", Visitor("a"), pixel_bytes=80))


def test_a_closed_queue_gives_back_what_waits_and_takes_no_more():
    line = make()
    jobs = send(line, "a", 3)
    assert line.close() == jobs and line.take() is None
    with pytest.raises(QueueFull, match="shutting down"):
        send(line, "a")


def test_one_is_picked_of_all_whose_turn_can_come():
    line = make()
    first, second, third = send(line, "a", 3)
    assert line.take(lambda jobs: list(jobs)[1]) is second
    assert line.take(lambda jobs: None) is None
    assert [line.take(), line.take()] == [first, third]


def test_whoever_waits_is_told_of_a_job():
    line, taken = make(), []
    thread = threading.Thread(target=lambda: taken.append(wait_for_one(line)))
    thread.start()
    jobs = send(line, OWNER.id)
    thread.join(WAIT_S)
    assert taken == jobs


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.01, 50)), max_size=60))
def test_every_job_is_taken_once_and_nobody_is_far_ahead_while_others_wait(sent):
    line = make()
    jobs = [Sent(str(number), Visitor(name), cost) for number, (name, cost) in enumerate(sent)]
    for job in jobs:
        line.put(job)
    places = line.positions()
    taken = [line.take() for _ in jobs]
    assert sorted(taken, key=lambda job: int(job.id)) == jobs
    assert places == {job.id: place for place, job in enumerate(taken, start=1)}
    largest = max((cost for _, cost in sent), default=0.0)
    served = Counter()
    for position, job in enumerate(taken):
        served[job.visitor.id] += job.cost
        for other in {later.visitor.id for later in taken[position + 1 :]}:
            assert served[job.visitor.id] <= served[other] + largest + 1e-6


def test_jobs_from_many_threads_are_all_taken_once():
    line, taken = make(), []

    def take() -> None:
        for _ in range(100):
            taken.append(wait_for_one(line))

    takers = [threading.Thread(target=take) for _ in range(3)]
    senders = [threading.Thread(target=send, args=(line, name, 50)) for name in "abcdef"]
    for thread in takers + senders:
        thread.start()
    for thread in takers:
        thread.join(WAIT_S)
    assert len(taken) == 300 == len({job.id for job in taken}) and not len(line)
