"""Rerank: which documents answer a query best, charged by what was read for it."""

import pytest

from tests.fake_upstream import answer
from tests.stage import model_config, upstream_config

RERANK = "/api/v1/rerank"
ASK = {"model": "sorter", "query": "Which?", "documents": ["one", "two", "three"]}
RESULTS = [{"index": 2, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]


@pytest.fixture
def alice(start_relay, person, fake):
    models = [
        model_config("sorter", kind="embeddings", prices={"input": "2"}),
        model_config("talker"),
    ]
    upstream = upstream_config(fake.url, speaks=["chat", "rerank"])
    return person("alice", start_relay(upstreams=[upstream], models=models)).given(wallet="10")


def results(**more) -> dict:
    return {"id": "r1", "results": RESULTS} | more


ANSWERS = {
    "Jina's": results(usage={"total_tokens": 50}),
    "Model Studio's": {"output": {"results": RESULTS}, "usage": {"total_tokens": 50}},
    "Voyage's": {"object": "list", "data": RESULTS, "usage": {"total_tokens": 50}},
    "SiliconFlow's": results(meta={"tokens": {"input_tokens": 50, "output_tokens": 0}}),
    "Cohere's": results(meta={"billed_units": {"input_tokens": 50, "search_units": 1}}),
}


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
@pytest.mark.parametrize("whose", ANSWERS)
def test_results_come_in_one_shape_and_are_charged_by_their_usage(alice, fake, whose, prefix):
    fake.always(answer(ANSWERS[whose]))
    got = alice.post(prefix + "/rerank", ASK | {"top_n": 2})
    assert got.status == 200 and got.json["results"] == RESULTS
    assert got.json["usage"]["total_tokens"] == 50 and "output" not in got.json
    assert fake.requests[0].path == "/v1/rerank"
    assert fake.requests[0].json == ASK | {"top_n": 2, "model": "upstream-model"}
    row = alice.relay.closed_row(got.request_id)
    assert (row["wire"], row["cost"], row["usage_source"]) == ("rerank", 50 * 2000, "upstream")


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {"total_tokens": 0}}])
def test_without_a_count_what_was_read_is_estimated(alice, fake, usage):
    fake.always(answer(results(**usage)))
    row = alice.relay.closed_row(alice.post(RERANK, ASK).request_id)
    assert row["usage_source"] == "estimated" and row["cost"] > 0


def test_the_documents_come_along_if_they_are_asked_for(alice, fake):
    fake.always(answer(results(usage={"total_tokens": 50})))
    documents = ["one", {"text": "two"}, {"text": "three"}]
    got = alice.post(RERANK, ASK | {"documents": documents, "return_documents": True}).json
    assert [each["document"] for each in got["results"]] == [{"text": "three"}, {"text": "one"}]


@pytest.mark.parametrize(
    "changes, param",
    [
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": ["x"] * 2049}, "documents"),
        ({"documents": ["one", ""]}, "documents[1]"),
        ({"documents": [{"text": 5}]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"model": "talker"}, "model"),
    ],
)
def test_what_is_no_request_is_refused_by_its_place(alice, fake, changes, param):
    refused = alice.post(RERANK, ASK | changes)
    assert (refused.status, refused.json["error"]["param"]) == (400, param)
    assert not fake.requests


@pytest.mark.parametrize(
    "said",
    [
        {"results": []},
        {"results": [{"index": 3, "relevance_score": 1}]},
        {"results": [{"index": -1}]},
        {"results": ["one"]},
        {"code": 500, "msg": "no"},
        {},
    ],
)
def test_an_answer_that_ranks_nothing_of_ours_is_the_providers_failure(alice, fake, said):
    fake.always(answer(said))
    refused = alice.post(RERANK, ASK)
    assert refused.status == 502 and not alice.relay.closed_row(refused.request_id)["cost"]


def test_an_answer_that_is_of_no_use_keeps_no_place_and_no_connection(start_relay, person, fake):
    """With one call at once a place that is not given back is the provider's last."""
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=["rerank"], calls_at_once=1)],
        models=[model_config("sorter", kind="embeddings")],
    )
    alice = person("alice", relay).given(wallet="10")
    fake.next(answer(results() | {"results": []}), answer(results() | {"results": ["one"]}))
    fake.always(answer(results()))
    assert [alice.post(RERANK, ASK).status for _ in range(3)] == [502, 502, 200]
    assert not relay.app.extensions["relay"].sender._watcher._lines


def test_the_demo_ranks_what_is_alike_first(start_relay, person):
    relay = start_relay(
        upstreams=[], models=[model_config("sorter", (), kind="embeddings", prices={"input": "2"})]
    )
    alice = person("alice", relay).given(wallet="10")
    ask = ASK | {"query": "the tide tables", "documents": ["cats", "tide tables of the sea", "x"]}
    got = alice.post(RERANK, ask).json
    assert got["results"][0]["index"] == 1 and len(got["results"]) == 3
