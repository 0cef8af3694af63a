"""A closed tab's job of a guest ends after a while; the owner's goes on."""

from types import SimpleNamespace

from webui.core.visitor import OWNER, Visitor
from webui.jobs.attendance import Attendance

ANN, BOB = Visitor("ann"), Visitor("bob")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_job(name: str, visitor: Visitor) -> SimpleNamespace:
    job = SimpleNamespace(id=name, visitor=visitor, state="queued", is_followed=False)

    def cancel() -> None:
        job.state = "cancelled"

    job.cancel = cancel
    return job


def test_the_jobs_of_who_went_away_end_after_the_grace_period_and_no_others():
    clock = Clock()
    attendance = Attendance(lambda: 60.0, clock)
    running, waiting, other, owners = (
        make_job(name, visitor) for name, visitor in (("1", ANN), ("2", ANN), ("3", BOB), ("4", OWNER))
    )
    running.is_followed = True
    for job in (running, waiting, other, owners):
        attendance.expect(job)
    clock.now_s += 59
    attendance.see(BOB)
    attendance.stop_abandoned()
    clock.now_s += 59
    attendance.see(BOB)
    attendance.stop_abandoned()
    assert running.state == waiting.state == "queued", "who follows one of their jobs is there"
    running.is_followed = False  # the tab is closed
    clock.now_s += 59
    attendance.see(BOB)
    attendance.stop_abandoned()
    assert running.state == waiting.state == "queued", "a reload takes a moment"
    clock.now_s += 1
    attendance.stop_abandoned()
    assert running.state == waiting.state == "cancelled"
    assert other.state == owners.state == "queued"
    clock.now_s += 3600
    attendance.stop_abandoned()
    assert other.state == "cancelled" and owners.state == "queued"


def test_a_reload_in_time_keeps_them():
    clock = Clock()
    attendance, job = Attendance(lambda: 60.0, clock), make_job("1", ANN)
    attendance.expect(job)
    for _ in range(5):
        clock.now_s += 59
        attendance.see(ANN)
        attendance.stop_abandoned()
    assert job.state == "queued"
