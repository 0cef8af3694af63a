"""What a host decides: it holds at once, is kept for the next start, and is refused by name where it makes no sense."""

import pytest

from webui.core.errors import RequestError
from webui.core.hosting import PICTURE_COST, Hosting, Limits, Use
from webui.core.visitor import NOBODY, OWNER, Visitor


def test_a_new_server_has_limits_and_lets_guests_in(tmp_path):
    hosting = Hosting(tmp_path / "hosting.json")
    assert hosting.now.limits == Limits() and hosting.refusal(Visitor("a")) == hosting.refusal(NOBODY) == ""


def test_what_is_decided_holds_after_the_next_start(tmp_path):
    path = tmp_path / "hosting.json"
    hosting = Hosting(path)
    hosting.change({"limits": {"waiting": 2}, "paused": True, "message": "Back\n at  noon"})
    hosting.ban("a")
    again = Hosting(path).now
    assert again.limits == Limits(waiting=2) and again.paused and again.message == "Back at noon"
    assert again.banned == ("a",)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"limits": {"waiting": -1}}, "limits.waiting"),
        ({"limits": {"waiting": True}}, "limits.waiting"),
        ({"limits": {"nothing": 1}}, "limits.nothing"),
        ({"limits": [1]}, "limits must be an object"),
        ({"paused": "perhaps"}, "paused"),
        ({"message": "x" * 501}, "message"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_and_changes_nothing(values, words):
    hosting = Hosting()
    before = hosting.now
    with pytest.raises(RequestError, match=words):
        hosting.change({"closed": True} | values)
    assert hosting.now == before


def test_who_is_shut_out_is_told_and_may_come_in_again():
    hosting, guest = Hosting(), Visitor("a")
    hosting.ban("a")
    hosting.ban("a")
    assert "closed this server to you" in hosting.refusal(guest) and hosting.now.banned == ("a",)
    assert not hosting.refusal(Visitor("b")) and not hosting.refusal(OWNER)
    hosting.ban("a", banned=False)
    assert not hosting.refusal(guest)


def test_a_closed_server_keeps_the_guests_it_has():
    hosting = Hosting()
    hosting.change({"closed": True})
    assert "no new guests" in hosting.refusal(Visitor("a", is_new=True))
    assert not hosting.refusal(Visitor("a")) and not hosting.refusal(OWNER)


def test_whoever_watches_is_told_of_each_change():
    hosting, seen = Hosting(), []
    hosting.watch(lambda: seen.append(hosting.now.paused))
    hosting.change({"paused": True})
    hosting.change({"paused": False})
    assert seen == [True, False]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"limits": {"waiting": -5}}'])
def test_a_file_that_cannot_be_read_gives_the_limits_of_a_new_server(tmp_path, caplog, text):
    path = tmp_path / "hosting.json"
    path.write_text(text)
    assert Hosting(path).now.limits == Limits() and "cannot be read" in caplog.text


def test_a_disk_that_takes_nothing_does_not_keep_the_host_from_deciding(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    hosting = Hosting(tmp_path / "file" / "hosting.json")
    hosting.change({"paused": True})
    assert hosting.now.paused and "holds for this run" in caplog.text


def test_use_counts_what_waits_and_says_when_it_ends():
    use = Use(waiting=1, waiting_cost=PICTURE_COST, served=((100.0, 3.0), (2000.0, 5.0)))
    assert use.pictures == pytest.approx(1 + 8 / PICTURE_COST)
    assert use.frees_in_s(4.0) == 1600 and use.frees_in_s(6.0) == 3500 and use.frees_in_s(9.0) == 3600
