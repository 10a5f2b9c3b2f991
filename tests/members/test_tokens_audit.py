"""What others do to a member's tokens is in the audit trail; what members do to their own is theirs."""

import pytest

from billing import KeyReused
from members import audit, tokens
from tests.money.ledger_book import ALICE, CAROL, open_book


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


def trail(db):
    """What was done to tokens, oldest first: (action, whose, by whom)."""
    rows = [row for row in audit.trail(db) if row["action"].startswith("token.")]
    return [(row["action"], row["target"], row["by"]) for row in rows[::-1]]


def everything(db, user_id, by):
    made, _ = tokens.mint(db, user_id, "ci", by=by)
    assert tokens.change(db, user_id, made, "cd", by=by)
    assert tokens.rotate(db, user_id, made, by=by)
    assert tokens.revoke(db, made, user_id, by=by)


def test_what_others_do_to_a_members_tokens_is_in_the_trail(book):
    for by, name in ((CAROL, "carol"), (None, None)):
        before = len(trail(book.db))
        everything(book.db, ALICE, by)
        acts = ("token.add", "token.change", "token.rotate", "token.revoke")
        assert trail(book.db)[before:] == [(act, "alice", name) for act in acts]


def test_what_members_do_to_their_own_tokens_is_not_but_for_one_that_administers(book):
    everything(book.db, ALICE, ALICE)
    assert trail(book.db) == []
    tokens.mint(book.db, CAROL, "desk", scope="admin", by=CAROL)
    assert trail(book.db) == [("token.add", "carol", "carol")]


def test_a_secret_is_made_once_for_a_key_and_shown_once(book):
    made, raw = tokens.mint(book.db, ALICE, "ci", by=CAROL, key="k")
    with pytest.raises(tokens.SecretGone, match=rf"API key {made} "):
        tokens.mint(book.db, ALICE, "ci", by=CAROL, key="k")
    with pytest.raises(KeyReused):
        tokens.mint(book.db, ALICE, "another", by=CAROL, key="k")
    assert [each["name"] for each in tokens.tokens(book.db, ALICE)].count("ci") == 1
    second = tokens.rotate(book.db, ALICE, made, by=CAROL, key="r")
    assert second != raw
    with pytest.raises(tokens.SecretGone):
        tokens.rotate(book.db, ALICE, made, by=CAROL, key="r")
    assert tokens.tokens(book.db, ALICE)[0]["hint"].endswith(second[-4:])


def test_a_token_that_is_not_there_uses_no_key_up(book):
    assert tokens.rotate(book.db, ALICE, 999, by=CAROL, key="r") is None
    with pytest.raises(tokens.TokenError):
        tokens.mint(book.db, ALICE, "ci", by=CAROL, key="k", tokens_max=0)
    assert tokens.mint(book.db, ALICE, "ci", by=CAROL, key="k", tokens_max=9)
