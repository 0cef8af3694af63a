"""Whether a guest's job is within the limits, by what they, and all guests, were served and wait for."""

from webui.core.hosting import PICTURE_COST, Limits, Use
from webui.jobs.protocols import OverBudget, QueueFull

AGAIN_S = 60
KEPT = 4
"""One part in so many of what all guests have is kept for the first jobs of those who have nothing yet."""
FIRST_PICTURES = 8
"""The work of such a job, at most."""
HAIR = 1e-6  # sums of floating point numbers
MEASURE = "of 512 x 512 px and 20 steps, or as much in other sizes"


def check(limits: Limits, cost: float, own: Use, everybody: Use) -> None:
    """Raises OverBudget where the guest would use more than their share, QueueFull where all guests together would."""
    if own.waiting >= limits.waiting:
        raise OverBudget(f"{own.waiting} of your jobs wait, and that is the most: come back when one is done", AGAIN_S)
    is_first = own.cost <= HAIR and cost <= FIRST_PICTURES * PICTURE_COST
    waiting_in_all = _room(limits.waiting_in_all, is_first)
    pictures_in_all = _room(limits.pictures_an_hour_in_all, is_first)
    if everybody.waiting >= waiting_in_all:
        raise QueueFull(f"the queue is full: {everybody.waiting} jobs of all guests wait; try again later", AGAIN_S)
    most = limits.pictures_an_hour * PICTURE_COST
    if cost > most:
        raise OverBudget(
            f"this is the work of {cost / PICTURE_COST:.0f} pictures {MEASURE}, and {limits.pictures_an_hour} "
            "an hour are the limit: make it smaller, or ask for fewer"
        )
    if (over := own.cost + cost - most) > HAIR:
        again_s = own.frees_in_s(over)
        limit = f"{limits.pictures_an_hour} pictures an hour, {MEASURE}, are the limit for one guest"
        raise OverBudget(f"{limit}: come back in {_minutes(again_s)}", round(again_s))
    if (over := everybody.cost + cost - pictures_in_all * PICTURE_COST) > HAIR:
        again_s = everybody.frees_in_s(over)
        limit = "all guests together have had what this server gives in an hour"
        raise QueueFull(f"{limit}: come back in {_minutes(again_s)}", round(again_s))


def check_origin(limits: Limits, waiting: int) -> None:
    """Raises OverBudget where so many jobs of guests from one address wait that they would fill the queue."""
    if waiting >= (most := max(limits.waiting_in_all // 2, min(limits.waiting, limits.waiting_in_all))):
        raise OverBudget(f"{waiting} jobs from your address wait, and {most} are the limit: come back later", AGAIN_S)


def _room(limit: int, is_first: bool) -> int:
    return limit if is_first else limit - limit // KEPT


def check_disk(limits: Limits, own_bytes: int, all_bytes: int) -> None:
    """Raises OverBudget, or QueueFull, where what a guest keeps, or all guests do, is as much as it may be."""
    own_mb, all_mb = own_bytes // 2**20, all_bytes // 2**20
    if own_mb >= limits.disk_mb:
        raise OverBudget(f"your pictures take {own_mb} MB here, and {limits.disk_mb} MB are the limit: delete some")
    if all_mb >= limits.disk_mb_in_all:
        raise QueueFull(f"the guests' pictures take {all_mb} MB, and {limits.disk_mb_in_all} MB are the limit")


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
