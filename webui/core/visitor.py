"""Who asks: the owner of this server, or one of those whom it was opened to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Visitor:
    """``id`` is the owner's, or 128 bits of chance that a guest's signed cookie holds. Never shown to anybody else."""

    id: str
    is_owner: bool = False


OWNER = Visitor("owner", is_owner=True)
