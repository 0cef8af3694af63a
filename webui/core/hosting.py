"""What the host of a server with guests decides while it runs: limits, pauses, bans, a message to all."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from webui.core.disk import replace_file
from webui.core.errors import RequestError, explain
from webui.core.values import Value
from webui.core.visitor import Visitor

PICTURE_COST = 512 * 512 * 20 * 2 / 1e6
"""Megapixel-evaluations of what limits are counted in: a picture of 512 x 512 px, 20 steps, guided."""
HOUR_S = 3600.0
Count = Annotated[int, Field(ge=0, le=10**9)]

log = logging.getLogger(__name__)


class Limits(Value):
    """What guests may use. Each is of one guest; ``..._in_all`` of all guests together.

    ``waiting``: jobs. ``pictures_an_hour``: of 512 x 512 px with 20 steps, larger ones count as more; what waits
    counts, too. ``upload_mb``: in a day. ``disk_mb``: of finished pictures, start pictures and presets.
    ``closed_tab_s``: how long a page's jobs go on when nobody is there; one in the background asks once a minute.
    """

    waiting: Count = 5
    waiting_in_all: Count = 200
    pictures_an_hour: Count = 150
    pictures_an_hour_in_all: Count = 3000
    upload_mb: Count = 512
    upload_mb_in_all: Count = 4096
    disk_mb: Count = 1024
    disk_mb_in_all: Count = 20480
    closed_tab_s: Count = 120


@dataclass(frozen=True)
class Use:
    """Jobs that wait, their cost in megapixel-evaluations, and (age in seconds, cost) of what the last hour brought."""

    waiting: int = 0
    waiting_cost: float = 0.0
    served: tuple[tuple[float, float], ...] = ()

    @property
    def cost(self) -> float:
        """What it comes to within an hour."""
        return self.waiting_cost + sum(cost for _, cost in self.served)

    @property
    def pictures(self) -> float:
        """The same as limits are counted."""
        return self.cost / PICTURE_COST

    def frees_in_s(self, cost: float) -> float:
        """Until so much of it is more than an hour ago."""
        for age_s, gone in sorted(self.served, reverse=True):
            cost -= gone
            if cost <= 0:
                return HOUR_S - age_s
        return HOUR_S


class Decisions(Value):
    """``paused``: guests' jobs wait. ``closed``: no new guests come in. ``banned`` are ids of visitors."""

    limits: Limits = Limits()
    paused: bool = False
    closed: bool = False
    message: Annotated[str, Field(max_length=500)] = ""
    banned: tuple[str, ...] = ()

    @field_validator("message")
    @classmethod
    def _as_one_line(cls, text: str) -> str:
        return " ".join(text.split())


class Hosting:
    """The decisions that hold now, kept in ``path`` for the next start. Thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._now = _read(path) if path else Decisions()
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    @property
    def now(self) -> Decisions:
        """As they are; another value once they change."""
        return self._now

    def watch(self, wake: Callable[[], None]) -> None:
        """``wake`` is called after each change, by whoever makes it."""
        self._watchers.append(wake)

    def change(self, values: dict[str, Any]) -> Decisions:
        """Sets what ``values`` names, of the limits too; raises RequestError, and then nothing has changed."""
        with self._lock:
            before = self._now.model_dump()
            limits = values.get("limits", {})
            if not isinstance(limits, dict):
                raise RequestError("limits must be an object of names and numbers", field="limits")
            try:
                self._now = Decisions.model_validate(before | values | {"limits": before["limits"] | limits})
            except ValidationError as error:
                raise RequestError(explain(error)) from None
            self._keep()
        for wake in self._watchers:
            wake()
        return self._now

    def ban(self, visitor_id: str, banned: bool = True) -> None:
        """Shuts a guest out, or lets one in again."""
        others = [known for known in self._now.banned if known != visitor_id]
        self.change({"banned": [*others, visitor_id] if banned else others})

    def refusal(self, visitor: Visitor) -> str:
        """Why the visitor may not come in; "" for those who may."""
        if visitor.id in self._now.banned:
            return "The host has closed this server to you."
        if self._now.closed and visitor.is_new:
            return "This server takes no new guests at the moment."
        return ""

    def _keep(self) -> None:
        if self._path is None:
            return
        try:
            replace_file(self._path, self._now.model_dump_json(indent=1).encode())
        except OSError as error:
            log.warning("what the host decided holds for this run: %s", error.strerror)


def _read(path: Path) -> Decisions:
    try:
        return Decisions.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, so the limits are those of a new server: %s", path, error)
    return Decisions()
