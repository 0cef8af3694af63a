"""Jobs for the tests here, and how their events are waited for."""

from webui.core.request import Request

WAIT_S = 20


def request(**fields) -> Request:
    return Request(**({"prompt": "a cat", "seed": 5, "steps": 3, "width": 64, "height": 64} | fields))


def events_of(job, after: int = 0) -> list:
    """All that is left of a job, to its end."""
    return [event for _, event in job.follow(after)]


def wait_for(job, kind, **values):
    """The first event of that kind and with these values."""
    for _, event in job.follow():
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in values.items()):
            return event
    raise AssertionError(f"{job.state} without {kind.__name__} {values}")


class Broken(Exception):
    """What the engine raises for a model that it cannot use, as its module tells."""


Broken.__module__ = "webui.engine.families.base"
