"""Cutting a stream into events.

The law of relay/sse.py, and the streams that real providers send.
"""

import itertools
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.wires import sse

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
line_texts = st.sampled_from(
    [
        b"",
        b"data: {}",
        b"data:x",
        b": note",
        b"event: e",
        "data: 你".encode(),
        b"\xef\xbb\xbfdata: 1",
    ]
)
streams = st.lists(st.tuples(line_texts, line_ends).map(b"".join) | st.binary(max_size=4)).map(
    b"".join
)


def events_of(chunks):
    events = sse.Events()
    return [event for chunk in chunks for event in events.feed(chunk)], events.rest()


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_gives_the_same_events_and_joins_back_to_the_input(data, places):
    whole = events_of([data])
    assert events_of(cut(data, places)) == whole
    assert events_of(data[at : at + 1] for at in range(len(data))) == whole
    assert b"".join(whole[0]) + whole[1] == data


@given(st.lists(st.tuples(line_texts.filter(bool), line_ends), min_size=1), line_ends)
def test_an_event_ends_with_its_first_blank_line(lines, last):
    event = b"".join(text + end for text, end in lines) + last
    assume(not (lines[-1][1] == b"\r" and last == b"\n"))  # together they are one line's end
    events, rest = events_of([event, b": next"])
    assert (events, rest) == ([event], b": next")


@pytest.mark.parametrize(
    "stream, expected",
    [
        (b"data: 1\n\ndata: 2\n\n", [b"data: 1\n\n", b"data: 2\n\n"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]),
        (b"data: 1\r\rdata: 2\r\r:", [b"data: 1\r\r", b"data: 2\r\r"]),
        (b"data: 1\n\r\ndata: 2\r\n\n", [b"data: 1\n\r\n", b"data: 2\r\n\n"]),
        (b"\n\ndata: 1\n\n\ndata: 2\n\n", [b"\n", b"\n", b"data: 1\n\n", b"\n", b"data: 2\n\n"]),
        (b": keep-alive\n\ndata: 1\n\n", [b": keep-alive\n\n", b"data: 1\n\n"]),
        (b"data: 1\n", []),
        (b"", []),
    ],
)
def test_it_cuts_at_blank_lines_whatever_ends_the_lines(stream, expected):
    assert events_of([stream])[0] == expected


def test_a_carriage_return_at_the_end_of_a_chunk_waits_for_its_line_feed():
    events = sse.Events()
    assert events.feed(b"data: 1\r\n\r") == []
    assert events.rest()
    assert events.feed(b"\n") == [b"data: 1\r\n\r\n"]
    assert not events.rest()


def test_an_unfinished_event_is_the_rest():
    events, rest = events_of([b"data: 1\n\nda", b"ta: 2"])
    assert (events, rest) == ([b"data: 1\n\n"], b"data: 2")


@pytest.mark.parametrize(
    "chunks", [[b"data: 12345678\n\n"], [b"data: 12345678"], [b"data: 1", b"2345678\r\n\r\n"]]
)
def test_it_refuses_an_event_longer_than_its_limit(chunks):
    events = sse.Events(max_bytes=12)
    with pytest.raises(sse.TooLong):
        for chunk in chunks:
            events.feed(chunk)


def test_many_short_events_may_be_longer_than_the_limit_together():
    assert len(sse.Events(max_bytes=12).feed(b"data: 1\n\n" * 10)) == 10


@pytest.mark.parametrize("size", [1, 4096])
def test_the_time_for_a_large_event_grows_with_its_size_and_not_with_its_square(size):
    def seconds(length):
        event = b"data: " + b"x" * length + b"\n\n"
        started = time.process_time()
        events, _ = events_of(event[at : at + size] for at in range(0, len(event), size))
        assert events == [event]
        return time.process_time() - started

    small = min(seconds(50_000) for _ in range(2))
    large = min(seconds(400_000) for _ in range(2))
    assert large < 24 * small + 0.01  # eight times the size; a square would be 64 times


def test_it_reads_an_event_of_five_megabytes():
    event = b"data: " + b"x" * 5_000_000 + b"\n\n"
    events, rest = events_of(event[at : at + 65_536] for at in range(0, len(event), 65_536))
    assert (events, rest) == ([event], b"")


@pytest.mark.parametrize(
    "event, data",
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),  # Spark
        (b"data: {}\r\n\r\n", b"{}"),
        (b"data: {}\r\r", b"{}"),
        (b"data:  two\n\n", b" two"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"id: 1\nevent: e\ndata: {}\n\n", b"{}"),
        (b": note\ndata: {}\n\n", b"{}"),
        (b"\xef\xbb\xbfdata: {}\n\n", b"{}"),
        (b"data\n\n", b""),
        (b"data: \n\n", b""),
        (b"data: cut", b"cut"),
        (b": keep-alive\n\n", None),
        (b"dataset: 1\n\n", None),
        (b"\n", None),
        (b"", None),
    ],
)
def test_it_reads_the_data_of_an_event(event, data):
    assert sse.data(event) == data


@pytest.mark.parametrize(
    "event, name",
    [
        (b"event: message_start\ndata: {}\n\n", b"message_start"),
        (b"data: {}\r\nevent:ping\r\n\r\n", b"ping"),
        (b"data: event: no\n\n", None),
    ],
)
def test_it_reads_the_type_of_an_event(event, name):
    assert sse.name(event) == name


@given(st.binary().filter(lambda data: b"\r" not in data), st.sampled_from([None, "ping"]))
def test_what_it_frames_it_reads_again(data, name):
    event = sse.frame(data, name)
    assert events_of([event]) == ([event], b"")
    assert sse.data(event) == data
    assert sse.name(event) == (name and name.encode())


@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_passing_lumps_of_whole_events_loses_and_cuts_nothing(data, places):
    events, passed = sse.Events(), []
    for chunk in cut(data, places):
        if lump := events.whole(chunk):
            events.skip(chunk)
            assert lump.endswith(b"\n\n")
            passed.append(lump)
        else:
            passed += events.feed(chunk)
    assert b"".join(passed) + events.rest() == data
