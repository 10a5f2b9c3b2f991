"""A file for what must not be lost when the disk is full."""

import os
import struct

import pytest

from db import Spare
from db.spare import BYTES, HEAD

RECORDS = [b"one", b"two" * 100, b"\x00\xff" * 9]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db-endings"


def test_records_are_found_again_in_their_order(path):
    first = Spare(path)
    assert all(map(first.keep, RECORDS)) and first.kept() == RECORDS
    again = Spare(path)
    assert again.kept() == RECORDS
    assert again.keep(b"more") and Spare(path).kept() == [*RECORDS, b"more"]


def test_what_was_cleared_is_gone_and_its_place_is_used_again(path):
    spare = Spare(path)
    assert all(map(spare.keep, RECORDS))
    spare.clear()
    assert spare.kept() == [] == Spare(path).kept()
    assert spare.keep(b"x") and Spare(path).kept() == [b"x"], "nothing of before comes back"


def test_its_place_is_taken_beforehand_and_never_more(path):
    spare, record = Spare(path), b"r" * 1000
    assert path.stat().st_size == BYTES and path.stat().st_blocks * 512 >= BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    kept = 0
    while spare.keep(record):
        kept += 1
    assert path.stat().st_size == BYTES and len(Spare(path).kept()) == kept
    assert kept == (BYTES - HEAD.size) // (len(record) + HEAD.size)


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 100])
def test_a_record_that_was_half_written_is_none(path, cut):
    spare = Spare(path)
    assert spare.keep(b"whole") and spare.keep(b"h" * 200)
    place = HEAD.size + 5 + cut
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\0" * (BYTES - place))
    assert Spare(path).kept() == [b"whole"]


def test_a_length_that_lies_ends_the_records(path):
    spare = Spare(path)
    assert spare.keep(b"whole")
    with path.open("r+b") as file:
        file.seek(HEAD.size + 5)
        file.write(struct.pack(">II", 2**31, 7))
    assert Spare(path).kept() == [b"whole"]


def test_where_there_is_no_room_nothing_is_kept_and_nothing_fails(tmp_path):
    spare = Spare(tmp_path / "no such folder" / "x")
    assert not spare.keep(b"x") and spare.kept() == []
    spare.clear()
    spare.close()


def test_one_that_was_closed_keeps_nothing(path):
    spare = Spare(path)
    assert spare.keep(b"x") and not spare.keep(b"")
    spare.close()
    assert not spare.keep(b"y") and os.path.exists(path) and Spare(path).kept() == [b"x"]
