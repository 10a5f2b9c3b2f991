"""Where a relay stands: a counter that is away, proxies of a network, who may read the metrics."""

import logging

import pytest

import app as application
from relay import limits
from relay.limits import EnduringLimiter, Memory, Rate
from settings import SettingsError
from tests.client import assert_openai_error
from tests.providers import plain, usage
from tests.settings.test_settings import mistakes
from tests.stage import model_config, wait_until

MINUTE = Rate(2)


class Away(Memory):
    """A storage that can go away."""

    def __init__(self):
        super().__init__()
        self.away, self.asked = False, 0

    def incr(self, *args, **options):
        self.asked += 1
        if self.away:
            raise ConnectionError("redis://10.0.0.5 is away")
        return super().incr(*args, **options)


def test_a_counter_that_is_away_is_replaced_meanwhile_and_told_once(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    there, limiter = Away(), None
    limiter = EnduringLimiter(there)
    with caplog.at_level(logging.WARNING, "relay.limits"):
        assert limiter.count(MINUTE, "a").count == 1 and limiter.problem is None
        there.away = True
        assert [limiter.count(MINUTE, "a").count for _ in range(3)] == [1, 2, 3]
        assert limiter.problem == "ConnectionError" and there.asked == 2
        assert limiter.look(MINUTE, "a").count == 3
        there.away = False
        now[0] += limits.AGAIN_S - 0.1
        limiter.count(MINUTE, "b")
        assert there.asked == 2
        now[0] += 0.2
        assert (
            limiter.count(MINUTE, "b").count == 1 and there.asked == 3 and limiter.problem is None
        )
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "10.0.0.5" not in caplog.text


def test_calls_go_on_while_the_counter_is_away(alice, relay, fake, monkeypatch):
    fake.always(plain(usage(5, 3)))
    inside = relay.app.extensions["relay"]

    def away(*args, **options):
        raise ConnectionError

    monkeypatch.setattr(inside.limiter.storage, "incr", away)
    assert alice.given(wallet="1").chat().status == 200
    assert alice.get("/readyz").json["limits"] == "counted in memory meanwhile"


def test_a_counter_whose_client_is_not_installed_is_a_sentence():
    with pytest.raises(SettingsError, match=r"limits\.storage_uri: .*"):
        application._limiter("rediss+nothing://127.0.0.1")


@pytest.mark.parametrize(
    ("trusted", "network"),
    [
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("10.0.0.0/8, 127.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8", None),
        ("", None),
    ],
)
def test_proxies_are_trusted_by_address_and_network(start_relay, person, trusted, network):
    alice = person("alice", start_relay(server={"trusted_proxy": trusted, "metrics_from": []}))
    nobody = alice.relay.client("sk-" + "x" * 43)
    for _ in range(31):
        answer = nobody.get("/api/v1/models", x_forwarded_for="203.0.113.9")
    assert_openai_error(answer, 429, "rate_limit_exceeded")
    again = nobody.get("/api/v1/models", x_forwarded_for="203.0.113.10")
    assert again.status == (401 if network else 429)


@pytest.mark.parametrize(
    ("networks", "status"), [(["127.0.0.0/8"], 200), (["::1", "10.0.0.0/8"], 404), ([], 404)]
)
def test_metrics_are_read_by_address_and_network(start_relay, person, networks, status):
    alice = person("alice", start_relay(server={"metrics_from": networks}))
    assert alice.get("/metrics").status == status


@pytest.mark.parametrize("text", ["nginx", "10.0.0.0/99", "10.0.0.1,", "10.0.0.1 10.0.0.2"])
def test_what_is_no_network_is_a_mistake(text):
    assert "server.trusted_proxy" in mistakes(server={"trusted_proxy": text})[0]


def test_a_refused_token_and_a_failed_sign_in_have_a_line_for_the_guard(alice, relay, caplog):
    with caplog.at_level(logging.WARNING):
        relay.client("nonsense").get("/api/v1/models")
        wait_until(lambda: "a token was refused, from 127.0.0.1" in caplog.text)
    assert "nonsense" not in caplog.text


# ---- what a provider adds to the input


@pytest.mark.parametrize(
    ("field", "count"), [({}, None), ({"enable_search": True}, 50_000), ({"plugins": []}, 50_000)]
)
def test_what_a_search_of_the_provider_read_is_charged_as_it_counts(
    start_relay, person, fake, field, count
):
    fake.always(plain(usage(50_000, 10)))
    relay = start_relay(models=[model_config(prices={"input": "2", "output": "8", "search": "5"})])
    alice = person("alice", relay).given(wallet="10")
    row = relay.closed_row(alice.chat(**field).request_id)
    assert row["input_tokens"] == count if count else row["usage_note"] == "input_tokens clamped"


# ---- usage by date


def test_usage_is_that_of_the_days_that_are_asked_for(alice, relay, fake):
    fake.always(plain(usage(20, 10)))
    alice.given(wallet="10")
    for _ in range(2):
        relay.closed_row(alice.chat().request_id)
    relay.db.write(
        lambda conn: (
            conn.execute(
                "INSERT INTO daily SELECT user_id, '2020-01-05', token_id, model, calls, refused,"
                " input_tokens, cached_tokens, output_tokens, 5000000, charged_grant, charged_quota,"
                " 5000000, last_at, 0, 0, 0, 0, 0, 0 FROM daily LIMIT 1"
            )
            and None
        )
    )

    def used(query=""):
        return alice.get(f"/v1/dashboard/billing/usage{query}").json

    ever = used()["total_usage"]
    january = used("?start_date=2020-01-01&end_date=2020-01-31")
    assert january["total_usage"] == 0.5 and len(january["daily_costs"]) == 1
    assert used("?start_date=2020-02-01&end_date=2020-02-28")["total_usage"] == 0
    assert used("?start_date=2020-01-01")["total_usage"] == ever > 0.5
    assert alice.get("/v1/dashboard/billing/usage?start_date=soon").status == 400
