"""What the owner and guests are known by."""

import json

import pytest

from webui.core.keys import Keys, read_keys
from webui.core.visitor import NOBODY, OWNER, Visitor, asked_by, asking

KEYS = Keys("open sesame", b"secret")


def test_a_guests_cookie_is_taken_and_no_other_one():
    token = KEYS.new_token()
    guest = KEYS.guest(token)
    assert guest and not guest.is_owner and not guest.is_new and len(guest.id) == 32
    assert guest.id not in token and token.partition(".")[0] not in guest.id
    assert KEYS.guest(token) == guest != KEYS.guest(KEYS.new_token())
    chance, _, signature = token.partition(".")
    forged = (
        *("", ".", chance, f"{chance}.", f"{chance}.{'0' * 64}", f".{signature}", f"{guest.id}.{signature}"),
        *(f"{'0' * 32}.{signature}", token[:-1], f"{token}0", token.upper(), "é.é", f"{chance}.{signature}."),
        Keys("open sesame", b"another secret").new_token(),
    )
    for other in forged:
        assert KEYS.guest(other) is None, other


def test_the_owner_has_the_key_or_the_cookie_that_it_was_exchanged_for():
    cookies = {KEYS.owner_cookie: KEYS.owner_token}
    assert KEYS.find_owner("Bearer open sesame", {}) is OWNER
    assert KEYS.find_owner("bearer  open sesame ", {}) is OWNER
    assert KEYS.find_owner("", cookies) is OWNER
    assert "sesame" not in KEYS.owner_token
    for authorization in ("", "Bearer", "Bearer ", "Bearer open", "Basic open sesame", "open sesame", "Bearer é"):
        assert KEYS.find_owner(authorization, {}) is None
    for value in ("", "open sesame", KEYS.new_token(), KEYS.owner_token[:-1], "é"):
        assert KEYS.find_owner("", {KEYS.owner_cookie: value}) is None
    changed = Keys("another key", KEYS.secret)
    assert changed.find_owner("", cookies) is None, "a key that was changed ends the owner's sessions"
    assert changed.guest(KEYS.new_token()), "and nobody else's"


def test_what_stands_for_an_address_does_not_tell_it_and_is_none_for_this_machine():
    here = ("", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "unix", "a.example", "1.2.3.4.5")
    assert {KEYS.origin(address) for address in here} == {""}
    known = KEYS.origin("192.0.2.7")
    assert known == KEYS.origin("::ffff:192.0.2.7") and "192" not in known
    assert known not in (KEYS.origin("192.0.2.8"), Keys("open sesame", b"another secret").origin("192.0.2.7"))
    assert KEYS.origin("2001:db8::1") == KEYS.origin("2001:db8::ffff:0:0:2") != KEYS.origin("2001:db8:0:1::1")
    assert KEYS.origin("fe80::1%eth0") == KEYS.origin("fe80::1")


def test_a_name_is_a_visitor_that_no_cookie_can_be():
    ann = KEYS.named_guest("ann")
    assert ann == KEYS.named_guest("ann") != KEYS.named_guest("bob")
    assert ann != Keys("", b"other").named_guest("ann")


def test_who_comes_without_a_cookie_waits_with_all_others_who_do():
    first, second = (KEYS.guest(KEYS.new_token(), is_new=True) for _ in range(2))
    assert first and second and first.id != second.id
    assert first.turn == second.turn == NOBODY.turn
    known = Visitor(first.id)
    assert known.turn == known.id != first.turn


def test_who_asks_is_known_in_the_block_alone():
    assert asking() is NOBODY and not NOBODY.is_owner
    with asked_by(OWNER):
        with asked_by(Visitor("a")):
            assert asking() == Visitor("a")
        assert asking() is OWNER
    assert asking() is NOBODY


def test_keys_are_kept_and_a_given_one_goes_before(tmp_path):
    path = tmp_path / "data" / "keys.json"
    keys = read_keys(path)
    assert len(keys.owner_key) >= 32 and len(keys.secret) == 32
    assert read_keys(path) == keys
    assert path.stat().st_mode & 0o077 == 0
    given = read_keys(path, "mine")
    assert given == Keys("mine", keys.secret) and read_keys(path) == keys
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner_key": "a"}', json.dumps({"owner_key": "a", "secret": "x"})])
def test_keys_that_cannot_be_read_are_made_anew(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    keys = read_keys(path)
    assert len(keys.secret) == 32 and read_keys(path) == keys


def test_keys_that_cannot_be_kept_hold_for_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert len(read_keys(tmp_path / "file" / "keys.json").secret) == 32
    assert "cannot be kept" in caplog.text
