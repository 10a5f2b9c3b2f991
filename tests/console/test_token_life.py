"""A token's later life: a new secret, its end, and what is told of requests that were turned away."""

import pytest

from members import accounts, tokens, turned_away
from tests.client import CHAT, ask, assert_openai_error
from tests.providers import plain, usage
from tests.stage import wait_until


@pytest.fixture
def called(fake):
    fake.always(plain(usage(20, 10)))


def token_id(relay, person):
    return tokens.tokens(relay.db, person.id)[0]["id"]


def with_token(relay, raw):
    return relay.client(raw).post(CHAT, ask())


def test_a_new_secret_replaces_the_old_one_and_keeps_the_history(relay, alice, called):
    assert alice.chat().status == 200
    made = token_id(relay, alice)
    raw = tokens.rotate(relay.db, alice.id, made)
    assert with_token(relay, raw).status == 200
    error = assert_openai_error(with_token(relay, alice.token), 401, "invalid_api_key")
    assert "has a new secret" in error["message"]
    (listed,) = tokens.tokens(relay.db, alice.id)
    assert listed["calls"] == 2 and listed["hint"].endswith(raw[-4:])


def test_the_old_secret_may_be_good_for_a_while(relay, alice, called, monkeypatch):
    made = token_id(relay, alice)
    raw = tokens.rotate(relay.db, alice.id, made, keep_s=3600)
    assert {with_token(relay, each).status for each in (raw, alice.token)} == {200}
    third = tokens.rotate(relay.db, alice.id, made, keep_s=3600)
    assert with_token(relay, alice.token).status == 401, "only the one before the last"
    assert {with_token(relay, each).status for each in (raw, third)} == {200}
    relay.db.write(lambda conn: conn.execute("UPDATE tokens SET old_until = 1") and None)
    assert with_token(relay, raw).status == 401


def test_a_large_body_with_the_old_secret_is_read(relay, alice, called):
    tokens.rotate(relay.db, alice.id, token_id(relay, alice), keep_s=3600)
    assert alice.chat("x" * 200_000).status == 200


@pytest.mark.parametrize("end", ["revoked", "expired", "disabled"])
def test_who_holds_a_token_is_told_why_it_works_no_more(relay, alice, called, end):
    made = token_id(relay, alice)
    if end == "revoked":
        tokens.revoke(relay.db, made)
    elif end == "expired":
        relay.db.write(lambda conn: conn.execute("UPDATE tokens SET expires_at = 5") and None)
    else:
        accounts.disable(relay.db, alice.id)
    error = assert_openai_error(alice.chat(), 401, "invalid_api_key")
    assert end in error["message"]
    other = "sk-" + "x" * 43
    guessed = assert_openai_error(with_token(relay, other), 401, "invalid_api_key")
    assert end not in guessed["message"]


def test_what_was_turned_away_is_counted_by_day_and_written_once(start_relay, person, fake):
    fake.always(plain(usage(20, 10)))
    relay = start_relay(plans={"free": {"requests_per_minute": 2}})
    alice = person("alice", relay).given(wallet="10")
    statuses = [alice.chat().status for _ in range(5)]
    assert statuses == [200, 200, 429, 429, 429]
    found = wait_until(lambda: turned_away.of_tokens(relay.db, alice.id, "2000-01-01"))
    made = token_id(relay, alice)
    wait_until(
        lambda: turned_away.of_tokens(relay.db, alice.id, "2000-01-01") == {made: [("rate", 3)]}
    )
    assert found and len(relay.rows()) == 2
    turned_away.forget(relay.db, "2999-01-01")
    assert turned_away.of_tokens(relay.db, alice.id, "2000-01-01") == {}


def test_what_the_disk_refuses_is_counted_later(relay, alice, monkeypatch):
    counts = turned_away.TurnedAway()
    counts.count(alice.id, token_id(relay, alice), "2026-11-27", "rate", 5)

    def refuse(*_):
        raise OSError

    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(type(relay.db), "write", refuse)
        counts.write(relay.db)
    counts.count(alice.id, token_id(relay, alice), "2026-11-27", "rate", 6)
    counts.write(relay.db)
    counts.write(relay.db)
    ((_, (found,)),) = turned_away.of_tokens(relay.db, alice.id, "2026-11-27").items()
    assert found == ("rate", 2)


def test_expired_tokens_are_cleared_away(relay, alice):
    relay.db.write(lambda conn: conn.execute("UPDATE tokens SET expires_at = 5") and None)
    assert tokens.clear_expired(relay.db, alice.id) == 1
    assert tokens.clear_expired(relay.db, alice.id) == 0
    assert tokens.tokens(relay.db, alice.id)[0]["revoked_at"] == 5
