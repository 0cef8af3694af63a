"""What a server with many visitors promises, judged by their journal, the files that it wrote and its process."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from PIL import Image as PilImages

from benchmarks.crowd.journal import NOBODY, Journal, Sent
from benchmarks.measure import Row, compared

HEALTH_MS = 100.0
MEMORY_RATIO = 1.10
FILES_A_VISITOR = 10  # open at most: a page has a stream, an upload, a picture and what it asks by itself
FILES_LEFT = 10  # open more than before, once all have gone
BEGUN_BEFORE = 2  # jobs whose pictures may be saved after another was accepted: one is drawn, one is being saved
SEED = re.compile(r"\bSeed: (\d+),")

Pictures = Mapping[int, Sequence[float]]
"""By seed, when each file of it was written."""


@dataclass(frozen=True)
class Server:
    """What was seen of the server's process: memory at rest in bytes, and files and sockets that it had open."""

    memory_at_start: int
    memory_before: int
    memory_after: int
    memory_peak: int
    files_before: int
    files_after: int
    files_peak: int
    tracebacks: int


def find_pictures(folder: Path) -> Pictures:
    """All that were saved, by the seed that each was drawn with. The page shows them under further links."""
    files = {path.stat().st_ino: path for path in folder.rglob("*.png")}
    found: dict[int, list[float]] = {}
    for path in files.values():
        with PilImages.open(path) as picture:
            told = SEED.findall(str(picture.info.get("parameters", "")))
        if told:  # the settings come after the prompt
            found.setdefault(int(told[-1]), []).append(path.stat().st_mtime)
    return found


def judge(
    journal: Journal, pictures: Pictures, server: Server, health_ms: Mapping[str, Sequence[float]], visitors: int
) -> Iterator[Row]:
    """A row for each promise; ``health_ms`` are answers of the "server" and of one that does "nothing"."""
    accepted = [job for job in journal.jobs if job.state != "refused"]
    yield Row("jobs accepted", "jobs", [len(accepted)], note=_deeds(journal))
    if refused := len(journal.jobs) - len(accepted):
        said = "; ".join(f"{count} x {why}" for why, count in journal.refusals.most_common(4))
        yield Row("jobs refused", "jobs", [refused], note=said)
    yield _none("jobs lost", [job.seed for job in accepted if _is_lost(job, pictures)])
    yield _none("jobs that failed", [job.seed for job in accepted if job.state == "failed"])
    doubled = [job.seed for job in accepted if len(pictures.get(job.seed, ())) > 1]
    yield _none("jobs doubled", doubled)
    refused_seeds = [job.seed for job in journal.jobs if job.state == "refused" and job.seed in pictures]
    yield _none("jobs drawn that were refused", refused_seeds)
    yield _none("answers that nobody should get", journal.troubles)
    yield _none("tracebacks in the server's log", ["a traceback"] * server.tracebacks)
    yield from _fairness(accepted, pictures)
    yield from _health(health_ms)
    yield from _process(server, visitors)


def promise(name: str, unit: str, samples: Sequence[float], holds: bool, limit: str, more: str = "") -> Row:
    """A row that says whether the promise holds."""
    note = f"{'holds' if holds else 'DOES NOT HOLD'}: {limit}{f'; {more}' if more else ''}"
    return Row(name, unit, samples, note=note, holds=holds)


def let_past(newcomer: Sent, jobs: Iterable[Sent], pictures: Pictures) -> int:
    """How many jobs of visitors who had been served already were begun while the newcomer's first job waited.

    There is one device, and pictures are saved in their order, while the next one is drawn. So of those that were saved
    between the newcomer's job being accepted and its own picture, the first may have been drawn already and the second
    been running; the others were begun afterwards.
    """
    drawn_at = pictures[newcomer.seed][0]
    ends = sorted((pictures[job.seed][0], job.visitor) for job in jobs if pictures.get(job.seed))
    first_end = {visitor: at for at, visitor in reversed(ends)}
    between = [(at, visitor) for at, visitor in ends if newcomer.answered_at < at < drawn_at]
    return sum(first_end[visitor] < at for at, visitor in between[BEGUN_BEFORE:] if visitor != newcomer.visitor)


def _is_lost(job: Sent, pictures: Pictures) -> bool:
    """Done without its picture, or without an end though its visitor stayed."""
    if job.state == "done":
        return not pictures.get(job.seed)
    return not job.is_forsaken and job.state != "failed"


def _fairness(accepted: Sequence[Sent], pictures: Pictures) -> Iterator[Row]:
    drawn = [job for job in accepted if pictures.get(job.seed)]
    firsts: dict[str, Sent] = {}
    for job in sorted(accepted, key=lambda job: job.sent_at):
        firsts.setdefault(job.visitor, job)
    newcomers = [
        job
        for visitor, job in firsts.items()
        # programs have no cookie when they send their first, so that the server takes them for nobody then
        if job.way == "page" and visitor != NOBODY and job in drawn and job.answered_at
    ]
    past = [float(let_past(job, drawn, pictures)) for job in newcomers]
    if past:
        name = "jobs of others let past a newcomer's first, but the running one"
        yield promise(name, "jobs", past, max(past) == 0, "none", f"the most are {max(past):.0f}")
    for name, is_flood in (("wait of who sends one job at a time", False), ("wait of who floods", True)):
        waits = [pictures[job.seed][0] - job.sent_at for job in drawn if job.is_flood == is_flood]
        if waits:
            yield Row(name, "s", waits)


def _health(answers_ms: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    p99 = {name: quantiles(answers, n=100, method="inclusive")[98] for name, answers in answers_ms.items()}
    told = {name: f"p99 is {p99[name]:.0f} ms, the slowest {max(answers_ms[name]):.0f} ms" for name in answers_ms}
    nothing = Row(
        "a server that does nothing", "ms", answers_ms["nothing"], note=f"the machine's part: {told['nothing']}"
    )
    yield nothing
    limit, answers = f"p99 below {HEALTH_MS:.0f} ms", answers_ms["server"]
    judged = promise("/api/health", "ms", answers, p99["server"] < HEALTH_MS, limit, told["server"])
    yield compared(judged.name, judged.unit, answers, nothing, judged.note, holds=judged.holds)


def _process(server: Server, visitors: int) -> Iterator[Row]:
    mib = 2**20
    yield Row("memory at the start, before anything was drawn", "MiB", [server.memory_at_start / mib])
    before = Row("memory before", "MiB", [server.memory_before / mib])
    yield before
    yield Row("memory at most", "MiB", [server.memory_peak / mib])
    ratio = server.memory_after / server.memory_before
    judged = promise("memory afterwards", "MiB", [], ratio <= MEMORY_RATIO, f"at most {MEMORY_RATIO} of before")
    after = [server.memory_after / mib]
    yield compared(judged.name, judged.unit, after, before, judged.note, holds=judged.holds)
    most = server.files_before + FILES_A_VISITOR * visitors
    limit = f"at most {FILES_A_VISITOR} a visitor more than the {server.files_before} before"
    peak = server.files_peak
    yield promise("files and sockets open at most", "files", [peak], peak <= most, limit)
    left, limit = server.files_after, f"at most {FILES_LEFT} more than before"
    yield promise("files and sockets open afterwards", "files", [left], left <= server.files_before + FILES_LEFT, limit)


def _none(name: str, found: Sequence[object]) -> Row:
    some = ", ".join(str(each) for each in found[:3])
    return promise(name, "", [len(found)], not found, "none", some)


def _deeds(journal: Journal) -> str:
    names = ("disconnects", "cancels", "reloads", "uploads")
    deeds = journal.deeds
    counts = {"cancels": deeds["page: stop"] + deeds["api: cancel"]}
    return ", ".join(f"{counts.get(name, deeds[name])} {name}" for name in names)
