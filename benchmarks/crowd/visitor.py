"""What every visitor has: a client of its own, chance of its own, and habits that the three ways in share."""

import asyncio
import base64
import io
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

import httpx
from PIL import Image as PilImages

from benchmarks.crowd.journal import NOBODY, Journal, Sent

PATIENCE_S = 120.0
THINK_S = (0.5, 6.0)
AWAY_S = (1.0, 40.0)
CHANGE_OF_MIND_S = (0.0, 1.5)
LONGEST_WAIT_S = 5.0  # after a refusal, whatever it says: whoever is in a hurry comes back sooner
SIDE_PX = 64
UPLOAD_PX = 160
THINGS = ("a red apple", "a panda", "a lighthouse at night", "two green pears", "a blue bird, flat style")


class Unexpected(Exception):
    """An answer that no visitor should get."""


class Visitor(ABC):
    """One person or program. ``name`` is new for each; without ``keeps_cookies`` the server cannot tell who it is."""

    way: str
    deeds: dict[str, int]
    """What it does, by how often."""

    def __init__(self, number: int, url: str, journal: Journal, chance: random.Random, keeps_cookies: bool = True):
        self.number, self.journal, self.chance, self.keeps_cookies = number, journal, chance, keeps_cookies
        self.lives = 0
        self._url, self._sent = url, 0
        self.client = self._new_client()

    @property
    def name(self) -> str:
        """Under which the server counts what it does."""
        return f"{self.way}-{self.number}.{self.lives}" if self.keeps_cookies else NOBODY

    async def live(self, seconds: float) -> None:
        """Comes, does one thing after the other, thinks in between."""
        ends_at = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(self.chance.uniform(0, min(seconds / 5, 30)))
        while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
            deed = self.chance.choices([*self.deeds], [*self.deeds.values()])[0]
            await self.heed(deed, getattr(self, deed)())
            self.journal.deeds[f"{self.way}: {deed}"] += 1
            await asyncio.sleep(min(self.chance.uniform(*THINK_S), max(left_s, 0)))
        await self.client.aclose()

    async def heed(self, deed: str, doing: Coroutine[Any, Any, object]) -> None:
        """Does it; what goes wrong is a trouble, and life goes on."""
        try:
            await doing
        except (httpx.HTTPError, Unexpected, TimeoutError, ValueError, LookupError) as error:
            what = f"{deed}: {type(error).__name__}: {error}"
            self.journal.troubles.append(f"{time.strftime('%X')} {self.name}: {what}"[:300])

    async def come_anew(self) -> None:
        """Somebody else, who was never here."""
        await self.client.aclose()
        self.client, self.lives = self._new_client(), self.lives + 1

    async def away(self) -> None:
        """As long as somebody is away who closed the tab."""
        await asyncio.sleep(self.chance.uniform(*AWAY_S))

    async def change_mind(self) -> None:
        """As long as it takes from Generate to Stop."""
        await asyncio.sleep(self.chance.uniform(*CHANGE_OF_MIND_S))

    def new_job(self, is_flood: bool = False) -> Sent:
        """With a seed that no other job has."""
        self._sent += 1
        return self.journal.send(self.number * 100_000 + self._sent, self.name, self.way, is_flood)

    def request(self, job: Sent) -> dict[str, Any]:
        """A small picture, under names that the page and ``/api/jobs`` share."""
        asked = {"prompt": self.chance.choice(THINGS), "seed": job.seed, "steps": self.chance.randint(2, 5)}
        return asked | {"width": SIDE_PX, "height": SIDE_PX}

    def picture_file(self) -> bytes:
        """A PNG that nobody has sent before."""
        buffer = io.BytesIO()
        noise = self.chance.randbytes(3 * UPLOAD_PX**2)
        PilImages.frombytes("RGB", (UPLOAD_PX, UPLOAD_PX), noise).save(buffer, "PNG")
        return buffer.getvalue()

    def picture_text(self) -> str:
        return base64.b64encode(self.picture_file()).decode("ascii")

    async def refused(self, job: Sent, answer: httpx.Response) -> bool:
        """Whether the job was refused for now; then it has waited as long as it was told to."""
        if answer.status_code not in (429, 503):
            return False
        self.journal.refuse(job, f"{answer.status_code} {answer.json().get('detail')}")
        told_s = float(answer.headers.get("retry-after", LONGEST_WAIT_S))
        await asyncio.sleep(min(told_s, LONGEST_WAIT_S))
        return True

    def _new_client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_S, trust_env=False, follow_redirects=True)
        if not self.keeps_cookies:
            client.event_hooks["request"].append(_drop_cookies)
        return client

    @abstractmethod
    async def draw(self) -> None:
        """Asks for a picture and waits for it."""


async def _drop_cookies(request: httpx.Request) -> None:
    request.headers.pop("cookie", None)


def expect(answer: httpx.Response, *statuses: int) -> httpx.Response:
    """The answer, where its status is one of these."""
    if answer.status_code not in (statuses or (200,)):
        raise Unexpected(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:120]}")
    return answer


def check_picture(png: bytes, seed: int) -> None:
    """Raises Unexpected where it is not the picture of that seed."""
    picture = PilImages.open(io.BytesIO(png))
    picture.load()
    if picture.size != (SIDE_PX, SIDE_PX) or f"Seed: {seed}," not in picture.info.get("parameters", ""):
        raise Unexpected(f"a picture of {picture.size} that is not the one of seed {seed}")
