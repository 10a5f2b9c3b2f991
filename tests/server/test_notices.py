"""Notices: what administrators hear of, once, and by which way."""

import json
import logging
import signal
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from db import Database, meta
from server import outbox
from server.notices import Notices
from settings import Hook
from tests.fake_upstream import FakeUpstream, answer
from tests.money.ledger_book import ALICE, BOB, open_book
from tests.providers import ERRORS, error, plain
from tests.stage import upstream_config, wait_until


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path, writer=False)
    yield book
    book.db.close()


@pytest.fixture
def told(caplog):
    """A function: what was told since the last time."""

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "notices"]
        caplog.clear()
        return found

    caplog.set_level(logging.WARNING, "notices")
    return since


def rules(wallet="5", grant=1000, webhook=""):
    return SimpleNamespace(
        notices=SimpleNamespace(webhook=webhook, hooks=(), wallet_below=wallet, grant_below=grant),
        site=SimpleNamespace(name="Team"),
    )


@pytest.fixture
def look(book):
    """A function that looks at the pockets, as a chore does."""
    return lambda **changes: Notices(rules(**changes), post=None).look_at_pockets(book.db)


# Pockets that run low


def test_a_wallet_that_falls_under_its_threshold_is_told_of_once(book, look, told):
    book.give(ALICE, wallet="5.00")
    look()
    assert told() == []
    book.give(ALICE, wallet="-0.01")
    look()
    assert told() == ["pocket_low: The wallet of alice holds 4.99 yuan."]
    book.give(ALICE, wallet="-1")
    look()
    look()
    assert told() == []


def test_a_wallet_that_was_filled_again_can_be_told_of_again(book, look, told):
    book.give(ALICE, wallet="4")
    look()
    book.give(ALICE, wallet="10")
    look()
    told()
    book.give(ALICE, wallet="-10")
    look()
    assert told() == ["pocket_low: The wallet of alice holds 4.00 yuan."]


def test_each_pocket_of_each_member_is_told_of_by_itself(book, look, told):
    for person in (ALICE, BOB):
        book.give(person, wallet="1", grant=10)
    look()
    assert sorted(told()) == [
        "pocket_low: The grant of alice holds 10 tokens.",
        "pocket_low: The grant of bob holds 10 tokens.",
        "pocket_low: The wallet of alice holds 1.00 yuan.",
        "pocket_low: The wallet of bob holds 1.00 yuan.",
    ]


def test_a_pocket_that_never_held_anything_has_not_fallen(book, look, told):
    look()
    book.give(ALICE, grant=2000)
    look()
    assert told() == []


def test_a_wallet_below_zero_is_told_of(book, look, told):
    book.give(ALICE, wallet="1")
    book.give(ALICE, wallet="-1.50")
    look(wallet="0.000000001")
    assert told() == ["pocket_low: The wallet of alice holds -0.50 yuan."]


def test_without_thresholds_nothing_is_looked_at(book, look, told):
    book.give(ALICE, wallet="1", grant=1)
    book.give(ALICE, wallet="-1")
    look(wallet="0", grant=0)
    assert told() == []


def test_members_who_are_switched_off_are_nobodys_news(book, look, told):
    book.give(ALICE, wallet="1")
    book.db.write(
        lambda conn: (
            conn.execute("UPDATE users SET disabled_at = 1 WHERE id = ?", (ALICE,)) and None
        )
    )
    look()
    assert told() == []


# The webhook, over real sockets


@pytest.fixture
def hook():
    with FakeUpstream() as listener:
        yield listener.always(answer(b"", 204))


@pytest.fixture
def relay(start_relay, hook, fake):
    return start_relay(
        site={"name": "Team"},
        notices={"webhook": hook.url + "/hook"},
        upstreams=[upstream_config(fake.url)],
    )


def test_a_webhook_gets_what_the_log_gets(relay, hook, told):
    relay.app.extensions["relay"].notices.tell("upstream", "Upstream 甲 rests.")
    sent = hook.wait_for()
    assert (sent.method, sent.path, sent.headers["content-type"]) == (
        "POST",
        "/v1/hook",
        "application/json",
    )
    assert sent.json | {"at": 0} == {
        "site": "Team",
        "kind": "upstream",
        "message": "Upstream 甲 rests.",
        "at": 0,
    }
    assert sent.json["at"] > 1_700_000_000_000
    assert told() == ["upstream: Upstream 甲 rests."]


@pytest.mark.parametrize(
    "name", ["dashscope key", "zhipu arrears", "deepseek balance", "moonshot quota"]
)
def test_administrators_hear_of_a_key_that_is_refused_and_of_its_recovery(
    alice, fake, relay, hook, name
):
    fake.always(error(name))
    for _ in range(5):
        alice.chat()
    assert len(fake.requests) == 1, "it rests"
    notice = hook.wait_for(1)
    assert "refuses the key" in notice.json["message"] and "fake" in notice.json["message"]
    assert b"sk-upstream-secret" not in notice.raw
    assert notice.json["message"].endswith(ERRORS[name][1]["error"]["message"])
    relay.app.extensions["relay"].sender.health.wake()
    fake.always(plain())
    assert alice.chat().status == 200
    assert "answers again" in hook.wait_for(2).json["message"]
    assert len(hook.requests) == 2


def test_administrators_hear_of_a_model_that_a_provider_does_not_serve(alice, fake, relay, hook):
    fake.always(error("ark model"))
    for _ in range(3):
        assert alice.chat().status == 404
    assert "does not serve upstream-model" in hook.wait_for().json["message"]
    assert len(hook.requests) == 1 and len(fake.requests) == 3


def test_a_webhook_that_fails_is_tried_again_and_calls_do_not_wait_for_it(
    alice, fake, relay, hook, monkeypatch
):
    monkeypatch.setattr(outbox, "PAUSE_S", 0.01)
    hook.next(answer(b"", 500), answer(b"", 302, location=hook.url + "/elsewhere"))
    fake.always(plain())
    relay.app.extensions["relay"].notices.tell("upstream", "one")
    assert alice.chat().status == 200
    assert [json.loads(hook.wait_for(number).body)["message"] for number in (1, 2, 3)] == 3 * [
        "one"
    ]
    assert {request.path for request in hook.requests} == {"/v1/hook"}, "no redirect is followed"


def test_an_outage_of_a_hook_loses_nothing_and_keeps_the_order(relay, hook, monkeypatch, told):
    monkeypatch.setattr(outbox, "PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "PAUSE_MAX_S", 0.02)
    hook.next(*6 * [answer(b"", 500)])
    for message in ("first", "second"):
        relay.app.extensions["relay"].notices.tell("upstream", message)
    took = [hook.wait_for(number).json["message"] for number in (7, 8)]
    assert took == ["first", "second"] and len(hook.requests) == 8
    assert sum("did not take" in each for each in told()) == 6


def test_a_hook_that_is_down_holds_up_no_other(start_relay, fake, hook):
    with FakeUpstream() as dead:
        dead.always(answer(b"", 500))
        hooks = [{"url": each.url + "/hook", "level": "info"} for each in (dead, hook)]
        relay = start_relay(notices={"hooks": hooks}, upstreams=[upstream_config(fake.url)])
        for message in ("first", "second"):
            relay.app.extensions["relay"].notices.tell("upstream", message)
        assert [hook.wait_for(number).json["message"] for number in (1, 2)] == ["first", "second"]
        assert len(dead.requests) == 1, "it rests"


def test_what_a_hook_has_not_taken_outlives_the_relay(start_relay, person, hook, fake):
    relay = start_relay(process=True, notices={"webhook": hook.url + "/hook"})
    hook.always(answer(b"", 500))
    fake.always(error("deepseek balance"))
    assert person("alice", relay).given(wallet="10").chat().status == 502
    hook.wait_for()
    assert wait_until(lambda: "refuses" in str(meta.get(relay.db, outbox.KEPT)))
    assert hook.url not in str(meta.get(relay.db, outbox.KEPT))
    relay.end(signal.SIGKILL)
    hook.always(answer(b"", 204))
    seen = len(hook.requests)
    relay.start_again()
    assert "refuses" in hook.wait_for(seen + 1).json["message"]
    assert wait_until(lambda: meta.get(relay.db, outbox.KEPT) == [])


def test_what_was_told_before_the_house_was_in_order_is_not_forgotten(tmp_path):
    with closing(Database(tmp_path / "relay.db")) as db:
        here, now = Hook(url="https://here.example/"), time.time_ns() // 1_000_000
        meta.put(db, outbox.KEPT, [(outbox._mark(here), {"message": "earlier", "at": now})])
        took: list[str] = []
        ready = threading.Event()

        def send(hook, notice) -> bool:
            ready.wait(60)
            took.append(notice["message"])
            return True

        box = outbox.Outbox(lambda: [here], send)
        box.put([here], {"message": "the disk is full", "at": now})
        for _ in range(2):
            box.begin(db)
        ready.set()
        assert wait_until(lambda: len(took) == 2 and meta.get(db, outbox.KEPT) == [])
        assert sorted(took) == ["earlier", "the disk is full"]


def test_what_is_a_week_old_or_of_a_hook_that_is_gone_is_no_news(tmp_path):
    with closing(Database(tmp_path / "relay.db")) as db:
        here, gone = Hook(url="https://here.example/"), Hook(url="https://gone.example/")
        now = time.time_ns() // 1_000_000
        kept = [
            (outbox._mark(gone), {"message": "gone", "at": now}),
            (outbox._mark(here), {"message": "old", "at": now - outbox.KEPT_MS - 1000}),
            (outbox._mark(here), {"message": "new", "at": now - outbox.KEPT_MS + 60_000}),
        ]
        meta.put(db, outbox.KEPT, kept)
        took, done = [], threading.Event()

        def send(hook, notice) -> bool:
            took.append(notice["message"])
            done.set()
            return True

        outbox.Outbox(lambda: [here], send).begin(db)
        assert done.wait(60) and wait_until(lambda: meta.get(db, outbox.KEPT) == [])
        assert took == ["new"]


def test_many_notices_do_not_pile_up_without_end(told, monkeypatch):
    monkeypatch.setattr(outbox, "WAITING_MAX", 3)
    over = threading.Event()
    busy = Notices(rules(webhook="http://127.0.0.1:9/"), post=lambda *_: over.wait(60))
    for number in range(10):
        busy.tell("upstream", str(number))
    assert [notice["message"] for _, notice in busy.outbox._waiting] == ["7", "8", "9"]
    over.set()
    assert sum("too many notices" in each for each in told()) == 7
