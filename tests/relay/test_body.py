"""Bodies are read strictly, and sent on as they came."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.body import DEPTH_MAX, inflate, parse
from relay.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "object"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"{", "member name"),
        (b"{}x", "after its end"),
        (b'{"a":1,}', "member"),
        (b'{"a" 1}', "':'"),
        (b'{"a":1 "b":2}', "','"),
        (b'{"a":tru}', "expecting value"),
        (b'{"a":1,"a":2}', "appears twice"),
        (b'{"a":{"b":[{"c":1,"c":1}]}}', "appears twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1e400}', "too large"),
        (b'{"a":' + b"1" * 5000 + b"}", "limit"),
        (b"\xff{}", "UTF-8"),
        (b"\xef\xbb\xbf{}", "object"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'{"a":' * 100_000, "levels"),
        (b"[" * 100_000, "levels"),
        (b'{"a":"\x00"}', "control character"),
    ],
)
def test_it_refuses_a_body_that_two_parsers_could_read_differently(data, why):
    with pytest.raises(BadRequest) as refused:
        parse(data)
    assert why in str(refused.value)


def test_it_reads_nesting_up_to_the_limit_and_brackets_in_strings_do_not_count():
    deep = b'{"a":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}"
    assert "a" in parse(deep)
    with pytest.raises(BadRequest):
        parse(b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}")
    assert parse(b'{"a":"' + b"[" * 1000 + b'"}')["a"] == "[" * 1000


@given(OBJECTS)
def test_it_keeps_the_callers_bytes(members):
    for text in (json.dumps(members), json.dumps(members, ensure_ascii=False, indent=1)):
        try:
            data = text.encode()
            body = parse(data)
        except (UnicodeEncodeError, BadRequest):
            continue  # a lone surrogate
        assert body == members
        assert body.bytes() == data


@given(OBJECTS, OBJECTS, st.sets(st.text()))
def test_changes_are_cut_in_and_all_else_stays(members, changes, drop):
    try:
        body = parse(json.dumps(members, indent=1).encode())
        changed = json.loads(body.bytes(changes, drop))
    except (UnicodeEncodeError, BadRequest):
        return
    assert changed == {
        name: value for name, value in {**members, **changes}.items() if name not in drop
    }


def test_it_leaves_numbers_and_blanks_as_the_caller_wrote_them():
    body = parse(b' { "temperature" : 1.50, "model":"a", "seed": 1E2 } ')
    assert body.bytes({"model": "b"}) == b' { "temperature" : 1.50, "model":"b", "seed": 1E2 } '


BARE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    "encoding, packed",
    [
        ("gzip", gzip.compress(b'{"a":1}', mtime=0)),
        ("GZIP", gzip.compress(b'{"a":1}', mtime=0)),
        ("deflate", zlib.compress(b'{"a":1}')),
        ("deflate", BARE.compress(b'{"a":1}') + BARE.flush()),
        ("identity", b'{"a":1}'),
        ("", b'{"a":1}'),
    ],
)
def test_it_inflates_what_clients_send(encoding, packed):
    assert inflate(packed, encoding, 1000) == b'{"a":1}'


def test_it_stops_inflating_at_the_cap():
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(BodyTooLarge):
        inflate(bomb, "gzip", 1_000_000)
    assert inflate(gzip.compress(bytes(1000)), "gzip", 1000) == bytes(1000)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"nonsense",
        gzip.compress(b"{}" * 100, mtime=0)[:-9],
        gzip.compress(b"{}", mtime=0) + b"more",
    ],
)
def test_it_refuses_what_is_damaged_or_cut_off(packed):
    with pytest.raises(BadRequest):
        inflate(packed, "gzip", 1000)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip"])
def test_it_refuses_encodings_that_it_does_not_read(encoding):
    with pytest.raises(UnsupportedEncoding):
        inflate(b"", encoding, 1000)
