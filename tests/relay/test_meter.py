"""How a call can end and what is charged then.

The table of endings, and whose counts are believed.
"""

import pytest

from billing import Usage
from relay import errors
from relay.ending import CallState, ending, trusted
from relay.meter import Meter, new_id, texts_of
from relay.wires.messages import native
from tests.providers import plain, usage
from tests.stage import model_config

GIVEN = Usage(10, 2, 5)
SAID, SILENT = {"usage": GIVEN}, {}
BROKE_OFF = {"error": errors.UpstreamError()}


@pytest.mark.parametrize(
    "fate, policy, outcome, charged",
    [
        # refused by us, or no target answered
        (CallState(error=errors.BadRequest()), "estimate", "refused", "nothing"),
        (CallState(error=errors.InsufficientBalance()), "estimate", "refused", "nothing"),
        (CallState(error=errors.UpstreamRefused(400, "no")), "estimate", "refused", "nothing"),
        (CallState(error=errors.UpstreamError()), "estimate", "failed", "nothing"),
        (CallState(error=errors.UpstreamTimeout()), "estimate", "failed", "nothing"),
        (CallState(error=ValueError("ours")), "estimate", "failed", "nothing"),
        # complete, with and without usage
        (CallState(delivered=True, complete=True, **SAID), "estimate", "complete", "usage"),
        (CallState(delivered=True, complete=True, **SILENT), "estimate", "complete", "estimate"),
        # the client left after delivery began
        (CallState(delivered=True, left=True, **SILENT), "estimate", "client_left", "estimate"),
        (CallState(delivered=True, left=True, **SAID), "estimate", "client_left", "estimate"),
        (CallState(delivered=True, left=True, **SAID), "drain", "client_left", "usage"),
        (CallState(delivered=True, left=True, **SILENT), "drain", "client_left", "estimate"),
        (CallState(delivered=True, left=True, **SAID), "free", "client_left", "nothing"),
        # the client left after the end: it has its answer
        (CallState(delivered=True, complete=True, left=True, **SAID), "free", "complete", "usage"),
        # the client left before the first content
        (CallState(left=True), "estimate", "client_left", "nothing"),
        (CallState(left=True), "drain", "client_left", "nothing"),
        # the upstream died in mid-stream
        (CallState(delivered=True, **BROKE_OFF), "estimate", "upstream_cut", "estimate"),
        (CallState(delivered=True, usage=GIVEN, **BROKE_OFF), "free", "upstream_cut", "estimate"),
        # no content at all
        (CallState(complete=True, **SAID), "estimate", "complete", "nothing"),
    ],
)
def test_the_table_of_endings(fate, policy, outcome, charged):
    assert ending(fate, policy) == (outcome, charged)


GUESS, MOST = Usage(11, 0, 6), Usage(1000, 0, 100)


@pytest.mark.parametrize(
    "said, believed, source, note",
    [
        (Usage(10, 2, 5), Usage(10, 2, 5), "upstream", None),
        (Usage(1000, 0, 100), Usage(1000, 0, 100), "upstream", None),
        (Usage(1001, 0, 5), Usage(1000, 0, 5), "upstream", "input_tokens clamped"),
        (Usage(10, 0, 101), Usage(10, 0, 100), "upstream", "output_tokens clamped"),
        (Usage(10**18, 0, 5), Usage(1000, 0, 5), "upstream", "input_tokens clamped"),
        (Usage(10, 0, 10**18), Usage(10, 0, 100), "upstream", "output_tokens clamped"),
        (Usage(10, 50, 5), Usage(10, 10, 5), "upstream", "cached_tokens clamped"),
        (Usage(-1, 0, 5), Usage(11, 0, 5), "estimated", "input_tokens estimated"),
        (Usage(10, 0, -1), Usage(10, 0, 6), "estimated", "output_tokens estimated"),
        (Usage(0, 0, 5), Usage(11, 0, 5), "estimated", "input_tokens estimated"),
        (Usage(10, 0, 0), Usage(10, 0, 6), "estimated", "output_tokens estimated"),
        (
            Usage(-1, 0, 10**18),
            Usage(11, 0, 100),
            "estimated",
            "input_tokens estimated, output_tokens clamped",
        ),
    ],
)
def test_absurd_usage_is_not_believed(said, believed, source, note):
    assert trusted(said, lambda: GUESS, MOST) == (believed, source, note)


@pytest.mark.parametrize(
    "limits, most",
    [({"output_max": 500, "context": 9_000}, 500), ({"output_max": None, "context": 9_000}, 9_000)],
)
def test_no_output_is_longer_than_the_model_can_make(start_relay, person, fake, limits, most):
    model = {name: value for name, value in model_config(**limits).items() if value is not None}
    relay = start_relay(models=[model])
    fake.always(plain(usage(20, 10**18)))
    row = relay.closed_row(person("alice", relay).given(wallet="10").chat().request_id)
    assert (row["output_tokens"], row["usage_note"]) == (most, "output_tokens clamped")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/cat.mp4"}},
        {"type": "input_audio", "input_audio": {"data": "https://example.com/cat.mp3"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ],
)
def test_what_stands_elsewhere_may_be_long(alice, relay, fake, part):
    fake.always(plain(usage(16_000, 10)))
    row = relay.closed_row(alice.chat([part]).request_id)
    assert (row["input_tokens"], row["usage_note"]) == (16_000, None)


def test_the_text_of_a_stream_is_found_without_parsing_it():
    pattern = texts_of(("content", "arguments"))
    data = (
        rb'data: {"choices":[{"delta":{"content":"a\"b","role":"x"}}]}'
        b"\n\n"
        rb'{"arguments" : "{\"c\":1}"}'
    )
    assert pattern.findall(data) == [rb"a\"b", rb"{\"c\":1}"]


def test_ids_sort_by_time_and_do_not_repeat():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [each[:16] for each in ids] == sorted(each[:16] for each in ids)


def test_hits_of_the_cache_that_come_alone_are_beside_what_was_read():
    """Anthropic's input excludes them, and a stream may tell each count in an event of its own."""
    meter = Meter(None, None, "messages")
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 100}}}
    last = {
        "type": "message_delta",
        "usage": {"cache_read_input_tokens": 80, "output_tokens": 20},
    }
    for event in (start, last, last):
        meter.used(native.usage(event))
    assert meter.state.usage == Usage(180, 80, 20, 80)
