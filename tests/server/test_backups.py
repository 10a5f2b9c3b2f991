"""Backups that happen by themselves: when, proved, how many, and what is said when one fails."""

import os
from types import SimpleNamespace

import pytest

import verify
from db import Database, meta
from relay import metrics
from server import backups
from server.backups import Backups, period_s, state
from settings import BackupSettings
from tests.money.ledger_book import ALICE, open_book

DAY_S = 86_400


@pytest.fixture
def relay(tmp_path):
    """A file with money in it, and the rules of backups."""
    book = open_book(tmp_path, writer=False)
    book.give(ALICE, wallet="5")
    yield SimpleNamespace(db=book.db, settings=SimpleNamespace(backups=BackupSettings(keep=3)))
    book.db.close()


@pytest.fixture
def clock(monkeypatch):
    """The time of backups, which a test moves."""
    now = [1_795_000_000.0]
    monkeypatch.setattr(backups.time, "time", lambda: now[0])
    monkeypatch.setattr(backups.time, "monotonic", lambda: now[0])
    return now


def made(relay) -> list:
    """The backups, oldest first, each with the time at which it was made."""
    return sorted((relay.db.path.parent / "backups").glob("*"))


def chore(relay, clock, told=None):
    """One look, after which the newest file is as old as the clock says."""
    keeper = Backups(relay, _teller(told))
    before = set(made(relay))
    keeper()
    for new in set(made(relay)) - before:
        os.utime(new, (clock[0], clock[0]))
    return keeper


def _teller(told):
    return lambda kind, message: told.append((kind, message)) if told is not None else None


def test_one_is_made_at_once_and_then_when_it_is_due(relay, clock):
    chore(relay, clock)
    assert [each.name for each in made(relay)] == ["relay-20261118T110640Z.db"]
    assert made(relay)[0].stat().st_mode & 0o077 == 0
    clock[0] += DAY_S - 1
    chore(relay, clock)
    assert len(made(relay)) == 1
    clock[0] += 1
    chore(relay, clock)
    assert len(made(relay)) == 2


def test_a_backup_holds_everything_and_is_proved(relay, clock):
    chore(relay, clock)
    copy = Database.open_for_command(made(relay)[0])
    assert verify.verify(copy) == []
    assert (
        copy.one("SELECT wallet_balance FROM balances WHERE user_id = ?", (ALICE,))[0] == 5 * 10**9
    )
    copy.close()


def test_the_oldest_go_and_nothing_else_does(relay, clock):
    folder = relay.db.path.parent / "backups"
    folder.mkdir()
    (folder / "mine.db").write_text("mine")
    for _ in range(5):
        chore(relay, clock)
        clock[0] += DAY_S
    names = [each.name for each in made(relay)]
    assert len(names) == 4 and "mine.db" in names
    assert names[1] == "relay-20261120T110640Z.db"


def test_an_operators_own_copies_and_links_in_the_folder_are_left_alone(relay, clock):
    """They have the name that the document's line for cron gives them."""
    folder = relay.db.path.parent / "backups"
    folder.mkdir()
    theirs = ["relay-2026-11-01.db", "relay-latest.db", "relay-before-upgrade.db"]
    (folder / theirs[0]).write_text("theirs")
    (folder / theirs[1]).symlink_to(folder / "no such file")
    (folder / theirs[2]).write_text("theirs")
    for _ in range(5):
        assert state(relay, clock[0]) in ("ok", "none yet")
        chore(relay, clock)
        clock[0] += DAY_S
    assert [each for each in theirs if os.path.lexists(folder / each)] == theirs
    assert len(made(relay)) == len(theirs) + 3


def test_one_that_fails_is_told_and_tried_again_later(relay, clock, monkeypatch):
    told = []
    monkeypatch.setattr(backups, "wrong_with", lambda path: ["alice has too much"])
    keeper = chore(relay, clock, told)
    assert told == [("backup", "No backup could be made: alice has too much")]
    assert state(relay, clock[0]) == "failed: alice has too much"
    keeper()
    assert len(told) == 1
    monkeypatch.setattr(backups, "wrong_with", lambda path: [])
    clock[0] += DAY_S
    keeper()
    assert told[-1] == ("backup", None) and meta.get(relay.db, "backup")["problem"] == ""


def test_a_folder_that_cannot_be_written_is_told(relay, clock):
    told = []
    (relay.db.path.parent / "backups").write_text("a file")
    chore(relay, clock, told)
    assert len(told) == 1 and told[0][0] == "backup" and told[0][1].startswith("No backup")


def test_never_is_never(relay, clock):
    relay.settings.backups = BackupSettings(every="never")
    chore(relay, clock)
    assert made(relay) == [] and state(relay, clock[0]) == "off"
    assert metrics.backup_age._value.get() == -1


def test_the_age_is_in_the_metrics_and_lateness_in_readyz(relay, clock):
    assert state(relay, clock[0]) == "none yet"
    keeper = chore(relay, clock)
    assert state(relay, clock[0]) == "ok" and metrics.backup_age._value.get() == 0
    clock[0] += 2 * DAY_S + 1
    assert state(relay, clock[0]) == f"late: {2 * DAY_S + 1} s old"
    clock[0] -= 9 * DAY_S  # the clock has jumped back: the newest is of the future
    assert keeper.age_s(clock[0]) == 0 and state(relay, clock[0]) == "ok"


@pytest.mark.parametrize(
    ("text", "seconds"), [("never", 0), ("5m", 300), ("12h", 43_200), ("2d", 172_800)]
)
def test_periods_are_read(text, seconds):
    assert period_s(text) == seconds
