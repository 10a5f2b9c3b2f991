"""The model test.

A token's call made from the browser, through the same spine, under the same limits, and charged.
"""

import json
import re

import pytest

import billing
from members import tokens
from tests.console.member_stage import house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="1")


@pytest.fixture
def browser(home, alice):
    return home.browser(alice)


def asked(text: str = "Hello", model: str = "plain-1", **more) -> dict:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]} | more


def said(answer) -> str:
    """The text of a streamed answer."""
    lines = answer.get_data(as_text=True).split("\n")
    chunks = [
        json.loads(line[6:])
        for line in lines
        if line.startswith("data: ") and line != "data: [DONE]"
    ]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


def row(home, call_id: str):
    return home.db.read().execute("SELECT * FROM requests WHERE id = ?", (call_id,)).fetchone()


def test_an_answer_is_streamed_and_charged_to_the_token(home, alice, browser):
    token = home.token(alice)
    answer = browser.send_json(f"/console/test/{token}", asked())
    assert answer.status_code == 200 and answer.mimetype == "text/event-stream"
    assert said(answer)
    call = row(home, answer.headers["x-request-id"])
    assert (call["token_id"], call["outcome"], call["wire"]) == (token, "complete", "chat")
    assert call["charged_wallet"] == call["cost"] > 0
    assert billing.balances(home.db, alice.id)["balance"].wallet == billing.nano("1") - call["cost"]
    assert billing.verify(home.db) == []


def test_its_cost_is_told_after_the_answer(home, alice, browser):
    answer = browser.send_json(f"/console/test/{home.token(alice)}", asked())
    call_id = answer.headers["x-request-id"]
    answer.get_data()
    told = browser.get(f"/console/usage/{call_id}/cost").get_json()
    assert told["closed"] and told["url"] == f"/console/usage/{call_id}"
    assert re.fullmatch(r"Price ¥\S+ · Wallet: ¥\S+ · \d+ in, \d+ out", told["text"])


def test_the_cost_of_a_call_that_runs_is_not_known_yet(home, alice, browser):
    call_id = home.called(alice, home.token(alice), outcome=None)
    answer = browser.get(f"/console/usage/{call_id}/cost")
    assert answer.status_code == 202 and answer.get_json() == {"closed": False}


def test_who_leaves_pays_for_what_arrived_and_leaves_no_hold(home, alice, browser):
    answer = browser.send_json(
        f"/console/test/{home.token(alice)}", asked("Tell me a long story. " * 50), whole=False
    )
    pieces = answer.iter_encoded()
    next(pieces)
    next(pieces)
    answer.close()
    call = row(home, answer.headers["x-request-id"])
    assert (call["outcome"], call["usage_source"]) == ("client_left", "estimated")
    assert billing.balances(home.db, alice.id)["held"] == billing.Pockets(0, 0, 0)
    assert not home.relay.at_once.running  # its place is free again


@pytest.mark.parametrize(
    "limits, body, status, code",
    [
        ({"models": ["other-2"]}, {}, 403, "model_not_allowed"),
        ({}, {"model": "unheard-of"}, 404, "model_not_found"),
        ({}, {"messages": []}, 400, None),
        ({}, {"temperature": 1, "model": 7}, 400, None),
        (
            {},
            {"messages": [{"role": "user", "content": "word " * 8000}]},
            400,
            "context_length_exceeded",
        ),
    ],
)
def test_what_the_token_may_not_is_refused_in_a_sentence(
    home, alice, browser, limits, body, status, code
):
    answer = browser.send_json(f"/console/test/{home.token(alice, **limits)}", asked() | body)
    assert answer.status_code == status
    assert answer.get_json()["error"]["code"] == code
    assert answer.get_json()["sentence"]


def test_the_sentence_is_in_the_visitors_language(home, alice):
    browser = home.browser(alice, language="zh")
    answer = browser.send_json(f"/console/test/{home.token(alice, models=['other-2'])}", asked())
    assert answer.get_json()["sentence"].startswith("该令牌不能使用此模型。")


def test_an_error_says_nothing_twice(home, alice, browser):
    answer = browser.send_json(
        f"/console/test/{home.token(alice)}",
        asked() | {"messages": [{"role": "user", "content": "word " * 8000}]},
    ).get_json()
    assert answer["sentence"].count("context limit") == 1 and "5,000" in answer["sentence"].replace(
        "5000", "5,000"
    )


def test_empty_pockets_are_refused_before_any_model_is_asked(home):
    bob = home.member("bob")
    answer = home.browser(bob).send_json(f"/console/test/{home.token(bob)}", asked())
    assert (
        answer.status_code == 402 and answer.get_json()["error"]["code"] == "insufficient_balance"
    )
    assert answer.get_json()["sentence"] == (
        "Your balances do not cover this request. They hold 0 tokens, ¥0.00 of quota and ¥0.00 in the wallet."
    )
    free = home.browser(bob).send_json(f"/console/test/{home.token(bob)}", asked(model="gratis-3"))
    assert free.status_code == 200 and said(free)
    assert (
        "Not charged"
        not in home.browser(bob)
        .get(f"/console/usage/{free.headers['x-request-id']}/cost")
        .get_json()["text"]
    )


def test_the_tokens_rate_counts_and_is_the_same_as_its_programs(home, alice, browser):
    token, raw = tokens.mint(home.db, alice.id, "slow", rpm=2)
    program = home.app.test_client()
    for _ in range(2):
        assert browser.send_json(f"/console/test/{token}", asked()).status_code == 200
    answer = browser.send_json(f"/console/test/{token}", asked())
    assert answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 60
    assert (
        program.post(
            "/api/v1/chat/completions", json=asked(), headers={"Authorization": f"Bearer {raw}"}
        ).status_code
        == 429
    )


def test_a_token_that_is_no_longer_good_makes_no_calls(home, alice, browser):
    token = home.token(alice)
    tokens.revoke(home.db, token)
    answer = browser.send_json(f"/console/test/{token}", asked())
    assert answer.status_code == 404
    assert "cannot be used any more" in answer.get_json()["error"]["message"]
    assert not home.db.read().execute("SELECT 1 FROM requests").fetchall()


def test_a_call_needs_the_pages_own_token_and_a_session(home, alice, browser):
    path = f"/console/test/{home.token(alice)}"
    assert browser.client.post(path, json=asked()).status_code == 400
    assert browser.send_json(path, asked(), **{"Sec-Fetch-Site": "cross-site"}).status_code == 400
    visitor = home.browser()
    assert visitor.send_json(path, asked()).status_code == 401
    assert not home.db.read().execute("SELECT 1 FROM requests").fetchall()


def test_a_session_alone_is_no_key_to_the_api(home, alice, browser):
    home.token(alice)
    assert browser.send_json("/api/v1/chat/completions", asked()).status_code == 401


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff", b"[]", b'{"a": 1, "a": 2}']
)
def test_garbage_is_refused_as_json(home, alice, browser, data):
    answer = browser.client.post(
        f"/console/test/{home.token(alice)}",
        data=data,
        headers={"X-CSRFToken": browser.csrf(), "Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.get_json()["error"]["message"]


def test_a_fault_of_ours_shows_no_details(home, alice, browser, monkeypatch):
    monkeypatch.setattr("console.member.playground.place", lambda *given: {}["secret-detail"])
    answer = browser.send_json(f"/console/test/{home.token(alice)}", asked())
    assert answer.status_code == 500 and "secret-detail" not in answer.get_data(as_text=True)
    assert not home.relay.at_once.running


def test_the_page_says_that_it_is_charged_and_offers_only_what_can_be_used(home, alice, browser):
    assert "Create an API key first" in browser.read("/console/test")
    home.token(alice, "bound", models=["other-2"])
    gone = home.token(alice, "gone")
    tokens.revoke(home.db, gone)
    html = browser.page("/console/test")
    assert "charged like any other" in html and "needs JavaScript" in html
    assert ">bound<" in html and ">gone<" not in html
    assert 'data-models="[&#34;other-2&#34;]"' in html


def test_the_script_never_makes_html_of_what_a_model_says(home):
    script = home.app.test_client().get("/static/playground.js").get_data(as_text=True)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser", script
    )
