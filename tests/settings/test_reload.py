"""Reload.

Calls under way go on as they began, new ones see the new settings, and a bad file changes nothing.
"""

import logging
import os
import signal
import threading

import pytest

import db
import plans
from db import meta
from server import jobs
from tests.client import assert_openai_error
from tests.fake_upstream import DONE, Gate, stream
from tests.providers import TEXT, chunk, error, openai_stream, plain, usage, usage_chunk, words
from tests.stage import (
    LIMIT_S,
    configuration,
    model_config,
    upstream_config,
    wait_until,
    write_config,
)

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000
DEARER = model_config(prices={"input": "4", "cached": "1", "output": "16"})


@pytest.fixture
def reload(relay, fake, monkeypatch):
    """A function: change the configuration and reload; what was wrong with it."""
    monkeypatch.setenv("RELAY_CONFIG", str(relay.config))

    def change(**changes) -> list[str]:
        write_config(relay.config.parent, configuration(relay.config.parent, fake.url, changes))
        return jobs.reload_now(relay.app.extensions["relay"])

    return change


def test_a_stream_under_way_goes_on_at_its_own_price_and_new_calls_see_the_new_settings(
    alice, fake, other_fake, relay, reload
):
    gate = Gate()
    fake.always(stream(*words()[:2], gate, *words()[2:], chunk(finish="stop"), usage_chunk(COUNTS)))
    other_fake.always(plain(COUNTS))
    streamed = alice.chat_stream()
    streamed.next_event()
    assert (
        reload(upstreams=[upstream_config(other_fake.url, api_key="sk-another")], models=[DEARER])
        == []
    )
    after = alice.chat()
    gate.open()
    assert TEXT[-1] in streamed.text() and streamed.body.endswith(DONE)
    costs = [relay.closed_row(each.request_id)["cost"] for each in (streamed, after)]
    assert costs == [COST, 2 * COST]
    assert (
        other_fake.requests[0].headers["authorization"] == "Bearer sk-another"
        and len(fake.requests) == 1
    )
    assert alice.held().wallet == 0 and relay.ledger_is_right()


def test_a_model_that_is_gone_ends_nobodys_stream(alice, fake, relay, reload):
    gate = Gate()
    fake.always(stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS)))
    streamed = alice.chat_stream()
    streamed.next_event()
    assert reload(models=[model_config("another")]) == []
    assert_openai_error(alice.chat(), 404, "model_not_found", "model")
    gate.open()
    streamed.read()
    assert relay.closed_row(streamed.request_id)["outcome"] == "complete"


BAD = {
    "no TOML": "models = [",
    "an unknown key": 'databse = { path = "x" }\n',
    "a wrong value": "server = { port = 99999999 }\n",
    "a route to nowhere": 'models = [{ id = "m", routes = [{ upstream = "nobody", model = "m" }] }]\n',
    "another encoding": b'site = { name = "\xff" }\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_changes_nothing_and_says_why(alice, fake, relay, reload, caplog, name):
    fake.always(plain(COUNTS))
    text = BAD[name]
    relay.config.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = relay.app.extensions["relay"].settings
    mistakes = jobs.reload_now(relay.app.extensions["relay"])
    assert mistakes and all(mistake in caplog.text for mistake in mistakes)
    assert relay.app.extensions["relay"].settings is before
    assert alice.chat().status == 200


def test_a_file_that_is_gone_changes_nothing(alice, fake, relay, reload):
    fake.always(plain(COUNTS))
    relay.config.unlink()
    assert "cannot be read" in jobs.reload_now(relay.app.extensions["relay"])[0]
    assert alice.chat().status == 200


def test_limits_hold_at_the_next_call(alice, fake, reload):
    fake.always(plain(COUNTS))
    assert alice.chat().headers["x-ratelimit-limit-requests"] == "60000"
    reload(plans={"free": {"requests_per_minute": 1, "input_tokens_max": 1_000_000}})
    statuses = [alice.chat().status for _ in range(3)]
    assert statuses == [200, 429, 429]


def test_calls_at_once_are_counted_across_a_reload(alice, fake, reload):
    gate = Gate()
    fake.next(stream(*words(), gate, chunk(finish="stop"))).always(plain(COUNTS))
    streamed = alice.chat_stream()
    streamed.next_event()
    reload(
        plans={
            "free": {"requests_per_minute": 100, "input_tokens_max": 100_000, "calls_at_once": 1}
        }
    )
    assert alice.chat().status == 429
    gate.open()
    streamed.read()
    assert wait_until(lambda: alice.chat().status == 200)


def test_what_rested_is_tried_again_at_once(alice, fake, relay, reload):
    fake.next(error("deepseek balance")).always(plain(COUNTS))
    assert_openai_error(alice.chat(), 502, "upstream_account")
    assert_openai_error(alice.chat(), 502, "upstream_account")
    assert len(fake.requests) == 1
    reload()
    assert alice.chat().status == 200


def test_what_holds_only_from_the_next_start_is_said(relay, reload, caplog):
    with caplog.at_level(logging.WARNING, "jobs"):
        assert reload(server={"threads": 100, "metrics_from": ["10.0.0.1"]}) == []
    (line,) = [each.getMessage() for each in caplog.records if "started again" in each.getMessage()]
    assert "server.threads" in line and "metrics_from" not in line


def test_no_call_notices_a_reload(alice, fake, relay, reload):
    """Many reloads under load, each to other upstreams, limits and prices."""
    fake.always(
        lambda request: openai_stream(COUNTS) if request.json.get("stream") else plain(COUNTS)
    )
    over, statuses = threading.Event(), []

    def call():
        while not over.is_set():
            streamed = alice.chat_stream() if len(statuses) % 2 else None
            statuses.append(
                alice.chat().status if streamed is None else streamed.read().endswith(DONE) and 200
            )

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for number in range(20):
        name = f"upstream-{number}"
        assert (
            reload(
                upstreams=[upstream_config(fake.url, name, api_key=f"sk-{number}")],
                models=[model_config(upstreams=[name])],
            )
            == []
        )
    over.set()
    for caller in callers:
        caller.join(LIMIT_S)
    assert statuses and set(statuses) == {200}
    assert alice.held().wallet == 0 and relay.ledger_is_right()


def test_the_picture_of_the_upstreams_is_kept_for_the_command_line(alice, fake, relay, reload):
    inside = relay.app.extensions["relay"]
    bulletin = jobs.Bulletin(inside)
    fake.always(error("deepseek balance"))
    alice.chat()
    bulletin()
    (seen,) = meta.get(relay.db, "upstreams")
    assert (seen["name"], seen["state"], seen["keys_usable"], seen["last_error"]) == (
        "fake",
        "refused",
        0,
        "upstream_account",
    )
    assert seen["at"] > 1_700_000_000_000 and "sk-upstream-secret" not in str(seen)
    reload(
        upstreams=[upstream_config(fake.url, "renamed")],
        models=[model_config(upstreams=["renamed"])],
    )
    bulletin()
    assert [each["name"] for each in meta.get(relay.db, "upstreams")] == ["renamed"]


# By signal, in a process of its own


def test_sighup_reloads_and_a_bad_file_leaves_the_process_as_it_was(
    start_relay, person, fake, tmp_path
):
    relay = start_relay(process=True)
    alice = person("alice", relay).given(wallet="10")
    gate = Gate()
    fake.next(stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS))).always(
        plain(COUNTS)
    )
    streamed = alice.chat_stream()
    streamed.next_event()
    pid = db.serving_pid(relay.database)
    assert pid == relay.process.pid

    port = {"port": relay.port}
    write_config(tmp_path, configuration(tmp_path, fake.url, {"server": port, "models": [DEARER]}))
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: "the settings were reloaded" in relay.log.read_text())
    assert relay.closed_row(alice.chat().request_id)["cost"] == 2 * COST

    write_config(tmp_path, configuration(tmp_path, fake.url, {"server": port, "modells": []}))
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: "the settings were not reloaded" in relay.log.read_text())
    assert "modells" in relay.log.read_text()
    assert relay.closed_row(alice.chat().request_id)["cost"] == 2 * COST

    gate.open()
    assert streamed.read().endswith(DONE)
    assert relay.closed_row(streamed.request_id)["cost"] == COST


def test_the_process_that_serves_a_file_is_known_while_it_does(relay_process):
    assert db.serving_pid(relay_process.database) == relay_process.process.pid
    assert relay_process.end(signal.SIGTERM) == 0
    assert db.serving_pid(relay_process.database) is None
    assert db.serving_pid(relay_process.database.with_name("another.db")) is None


def test_a_plan_that_members_hold_does_not_vanish_without_a_word(alice, relay, reload, caplog):
    caplog.set_level(logging.WARNING)
    team = {"price": "10", "quota": "20", "requests_per_minute": 600}
    assert reload(plans={"team": team}) == []
    plans.give_plan(relay.db, alice.id, "team", quota=5, days=3)
    assert reload(plans={"team": team}) == [] and "team (held by 1)" not in caplog.text
    assert reload() == []
    assert caplog.text.count("no such plan any more: team (held by 1)") == 1
    assert reload() == [] and caplog.text.count("team (held by 1)") == 1, "told once"
    assert alice.balance().quota == 5
    plans.end_all(relay.db, alice.id)
    assert reload() == []
