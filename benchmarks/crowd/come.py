"""``python -m benchmarks.crowd.come``: all visitors, in a process of their own. Reads what to do and writes the journal
as JSON, on stdin and stdout."""

import asyncio
import json
import random
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.crowd.browsers import PageVisitor
from benchmarks.crowd.journal import Journal
from benchmarks.crowd.programs import ApiVisitor, SdapiVisitor
from benchmarks.crowd.visitor import Visitor

WAYS: tuple[type[Visitor], ...] = (PageVisitor, ApiVisitor, PageVisitor, SdapiVisitor)
"""Half of all come with a browser."""
FLOODS = 2
"""Of all visitors over ``/api``: the first keeps its cookie, the second none."""


@dataclass(frozen=True)
class Plan:
    """Who comes. The same ``seed`` gives the same visitors and the same chance; what they meet is the server's."""

    url: str
    visitors: int
    seconds: float
    seed: int = 2026
    with_floods: bool = True


async def come(plan: Plan) -> Journal:
    """All of them at once, until each has done its last thing."""
    journal = Journal()
    lives: list[Coroutine[Any, Any, None]] = []
    floods = FLOODS if plan.with_floods else 0
    for k in range(plan.visitors):
        way, chance = WAYS[k % len(WAYS)], random.Random(f"{plan.seed} {k}")
        number = 1 + k + 1000 * (plan.seed % 100)
        if way is ApiVisitor and floods:
            flooding = ApiVisitor(number, plan.url, journal, chance, keeps_cookies=floods == FLOODS)
            lives.append(flooding.flood(plan.seconds))
            floods -= 1
        else:
            keeps_cookies = way is not SdapiVisitor or bool(k % 3)
            lives.append(way(number, plan.url, journal, chance, keeps_cookies).live(plan.seconds))
    await asyncio.gather(*lives)
    return journal


def main() -> int:
    plan = Plan(**json.load(sys.stdin))
    json.dump(asyncio.run(come(plan)).to_json(), sys.stdout)
    return 0


def as_json(plan: Plan) -> str:
    """What ``main`` reads."""
    return json.dumps(asdict(plan))


if __name__ == "__main__":
    sys.exit(main())
