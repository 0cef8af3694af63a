"""Who asks: the owner of this server, or one of those whom it was opened to.

``asking`` is known wherever a request is worked on: what stands before all routes sets it, and threads and tasks that
come of the request inherit it. Whatever is asked outside of any request is asked by ``NOBODY``, who may do nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Visitor:
    """``id`` is the owner's, or 128 bits that a guest's signed cookie leads to. Never shown to anybody else.

    ``is_new`` marks one that came without a valid cookie: its id is of this one request, and becomes theirs when they
    come back with the cookie that they were answered with. ``origin`` stands for the address that it came from, ""
    where that is not known: who comes through a tunnel or a proxy of this machine. It tells no visitors apart.
    """

    id: str
    is_owner: bool = False
    is_new: bool = False
    origin: str = field(default="", compare=False)

    @property
    def turn(self) -> str:
        """Under which name its jobs wait: all that come without a cookie share one."""
        return NOBODY.id if self.is_new else self.id


OWNER = Visitor("owner", is_owner=True)
NOBODY = Visitor("nobody", is_new=True)
_asking: ContextVar[Visitor] = ContextVar("asking", default=NOBODY)


def asking() -> Visitor:
    """The visitor whose request is worked on here."""
    return _asking.get()


@contextmanager
def asked_by(visitor: Visitor) -> Iterator[None]:
    """What the block does, it does for this visitor."""
    token = _asking.set(visitor)
    try:
        yield
    finally:
        _asking.reset(token)
