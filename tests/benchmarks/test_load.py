"""How what many visitors met is judged, on journals that are made up."""

import os
from pathlib import Path

import pytest

from benchmarks.crowd.journal import NOBODY, Journal, Sent
from benchmarks.crowd.promises import Server, find_pictures, judge, let_past

MIB = 2**20
QUIET = Server(400 * MIB, 500 * MIB, 510 * MIB, 600 * MIB, 20, 22, 60, tracebacks=0)


def job(seed: int, visitor: str = "page-1.0", at: float = 0.0, state: str = "done", **more) -> Sent:
    return Sent(seed, visitor, more.pop("way", "page"), at, at + 0.1, state, **more)


def broken(journal: Journal, pictures: dict, server: Server = QUIET, health_ms=(1.0,) * 200) -> set[str]:
    """The names of the promises that do not hold."""
    answers_ms = {"server": health_ms, "nothing": [1.0] * len(health_ms)}
    return {row.name for row in judge(journal, pictures, server, answers_ms, 4) if row.holds is False}


def test_all_is_well_where_each_job_has_its_picture():
    stopped = job(3, at=2, state="cancelled", is_forsaken=True)
    left = job(4, at=3, state="left", is_forsaken=True, way="sdapi", visitor=NOBODY)
    journal = Journal([job(1), job(2, at=1), stopped, left, job(5, at=4, state="refused")])
    assert broken(journal, {1: [0.5], 2: [1.5], 4: [3.5]}) == set()


@pytest.mark.parametrize(
    ("jobs", "pictures", "name"),
    [
        ([job(1)], {}, "jobs lost"),
        ([job(1, state="sent")], {1: [0.5]}, "jobs lost"),
        ([job(1, state="cancelled")], {}, "jobs lost"),
        ([job(1, state="forgotten")], {1: [0.5]}, "jobs lost"),
        ([job(1, state="failed")], {}, "jobs that failed"),
        ([job(1)], {1: [0.5, 0.6]}, "jobs doubled"),
        ([job(1), job(2, state="refused")], {1: [0.5], 2: [0.7]}, "jobs drawn that were refused"),
    ],
)
def test_what_is_lost_doubled_or_drawn_against_its_word_is_named(jobs, pictures, name):
    assert broken(Journal(jobs), pictures) == {name}


def test_an_answer_that_nobody_should_get_is_named():
    assert broken(Journal([job(1)], ["page-1.0: draw: 500"]), {1: [0.5]}) == {"answers that nobody should get"}


def test_a_newcomer_waits_for_the_running_job_alone():
    greedy = [job(k, "api-2.0", at=0, way="api", is_flood=True) for k in range(1, 6)]
    newcomer = job(9, "page-9.0", at=1.0)
    ends = {k: [0.9 + 0.5 * (k - 1)] for k in range(1, 6)}  # 0.9, 1.4, 1.9 ...
    fair, unfair = ends | {9: [1.5]}, ends | {9: [2.6]}
    assert let_past(newcomer, greedy, fair) == 0  # what ended at 1.4 was being drawn or saved when it came
    assert let_past(newcomer, greedy, unfair) == 1
    (name,) = broken(Journal([*greedy, newcomer]), unfair)
    assert name.startswith("jobs of others let past")
    assert broken(Journal([*greedy, newcomer]), fair) == set()


def test_other_newcomers_may_be_before_a_newcomer():
    others = [job(k, f"page-{k}.0", at=0.1 * k) for k in range(1, 6)]
    newcomer = job(9, "page-9.0", at=1.0)
    assert let_past(newcomer, [*others, newcomer], {k: [2.0 + k] for k in range(1, 6)} | {9: [9.0]}) == 0


@pytest.mark.parametrize(
    ("server", "health_ms", "name"),
    [
        (QUIET, [1.0] * 90 + [150.0] * 10, "/api/health"),
        (Server(400 * MIB, 500 * MIB, 551 * MIB, 600 * MIB, 20, 22, 60, 0), [1.0, 2.0], "memory afterwards"),
        (
            Server(400 * MIB, 500 * MIB, 500 * MIB, 600 * MIB, 20, 31, 60, 0),
            [1.0, 2.0],
            "files and sockets open afterwards",
        ),
        (
            Server(400 * MIB, 500 * MIB, 500 * MIB, 600 * MIB, 20, 20, 61, 0),
            [1.0, 2.0],
            "files and sockets open at most",
        ),
        (
            Server(400 * MIB, 500 * MIB, 500 * MIB, 600 * MIB, 20, 20, 60, 1),
            [1.0, 2.0],
            "tracebacks in the server's log",
        ),
    ],
)
def test_what_the_process_promises_is_judged(server, health_ms, name):
    assert broken(Journal([job(1)]), {1: [0.5]}, server, health_ms) == {name}


def test_a_picture_is_found_by_its_seed_once_whatever_links_there_are(tmp_path: Path, make_picture):
    for seed, name in ((7, "a.png"), (7, "b.png"), (8, "deep/c.png")):
        make_picture(seed=seed, prompt="Seed: 99, a cat\nSteps: 3").save(path_in(tmp_path, name))
    os.link(tmp_path / "deep/c.png", path_in(tmp_path, "cache/shown.png"))
    found = find_pictures(tmp_path)
    assert {seed: len(times) for seed, times in found.items()} == {7: 2, 8: 1}


def path_in(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_journal_comes_back_from_json_as_it_was():
    journal = Journal([job(1)], ["a"])
    journal.refuse(journal.send(2, "x", "api"), "full")
    journal.deeds["reloads"] += 1
    assert Journal.from_json(journal.to_json()) == journal
