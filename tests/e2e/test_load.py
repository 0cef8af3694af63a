"""The visitors of ``bench load`` against the real server, each doing all that it does."""

import asyncio
import random

import httpx
import pytest

from benchmarks.crowd import visitor
from benchmarks.crowd.browsers import PageMap, PageVisitor
from benchmarks.crowd.journal import Journal
from benchmarks.crowd.programs import ApiVisitor, SdapiVisitor
from benchmarks.crowd.promises import find_pictures
from benchmarks.crowd.visitor import Visitor
from benchmarks.load import measure

from .server import run_async

AT_ONCE = (0.0, 0.0)


def test_who_comes_without_a_browser_reads_what_the_page_is_told(server):
    page = PageMap(httpx.get(server.url).text)
    drawing = page.click("txt2img-generate")
    assert page.loads and drawing.is_queued and "txt2img-prompt" in drawing.names


@pytest.mark.slow
def test_visitors_of_each_way_do_all_that_they_do(server, monkeypatch):
    for name in ("AWAY_S", "CHANGE_OF_MIND_S"):
        monkeypatch.setattr(visitor, name, AT_ONCE)
    journal = Journal()

    async def do_all(who: Visitor) -> None:
        for deed in who.deeds:
            await getattr(who, deed)()
        await who.client.aclose()

    async def come() -> None:
        ways = (PageVisitor, ApiVisitor, SdapiVisitor)
        crowd = [way(k, server.url, journal, random.Random(k)) for k, way in enumerate(ways, start=9000)]
        programs = ApiVisitor(9009, server.url, journal, random.Random(9), keeps_cookies=False)
        cookies = ApiVisitor(9010, server.url, journal, random.Random(9))
        await asyncio.gather(*map(do_all, crowd), programs.flood(seconds=0.05), cookies.flood(seconds=0.05))

    run_async(come())
    server.settle()
    pictures = find_pictures(server.data_dir)
    stayed = [job for job in journal.jobs if not job.is_forsaken]
    assert journal.troubles == []
    assert {job.way for job in stayed} == {"page", "api", "sdapi"} and {job.state for job in stayed} == {"done"}
    assert all(len(pictures[job.seed]) == 1 for job in journal.jobs if job.state == "done")
    assert journal.deeds["reloads"] == journal.deeds["uploads"] == 1 and journal.deeds["disconnects"] >= 1


@pytest.mark.slow
def test_a_short_load_is_judged():
    rows = {row.name: row for row in measure(visitors=8, seconds=10, rest_s=3)}
    judged = {name: row.note for name, row in rows.items() if row.holds is False}
    assert rows["jobs accepted"].samples[0] >= 8
    judged.pop("/api/health", None)  # a busy machine is no defect
    assert judged == {}
