"""A disk that may only be read: what is served meanwhile, and that it ends by itself.

The file system is a small one of its own, which needs root; so does an ext4 that shuts itself off.
"""

import os
import signal
import subprocess
import threading

import pytest

from tests.client import CHAT, ask
from tests.fake_upstream import Gate, silence, stream
from tests.providers import plain, usage, usage_chunk, words
from tests.server.test_crash import (
    COST,
    COUNTS,
    as_anybody,
    assert_it_recovers,
    assert_nothing_is_relayed,
    fill,
    let_files_grow,
    small_disk,
)
from tests.stage import flask, wait_until

__all__ = ["small_disk"]

READ_ONLY = "the file system is read-only"


def remount(folder, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


@pytest.fixture
def relay(start_relay, small_disk):
    """A relay on a file system of its own."""
    return start_relay(
        process=True,
        database={"path": str(small_disk / "relay.db")},
        backups={"every": "never"},
        notices={"webhook": "http://127.0.0.1:9/hook"},
    )


@pytest.fixture
def alice(person, relay):
    return person("alice", relay).given(wallet="10")


def leave(relay) -> None:
    """Close the test's own door to the file: it would keep the disk busy."""
    relay.db.close()
    relay._db = None


def assert_pages_are_served(relay) -> None:
    for path in ("/", "/login", "/docs/", "/healthz", "/metrics"):
        assert relay.client().get(path).status == 200, path


def assert_it_says(relay, why: str) -> None:
    ready = relay.client().get("/readyz")
    assert ready.status == 503 and why in ready.json["checks"]["database"]
    wait_until(lambda: f"disk: The database cannot be written: {relay.database}" in said(relay))
    assert why in said(relay)


def said(relay) -> str:
    return relay.log.read_text()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_start_on_a_read_only_disk_serves_what_it_can_and_recovers(
    relay, alice, fake, small_disk, end
):
    """After a clean end there is no log beside the file, and after a kill there is one."""
    fake.always(plain(COUNTS))
    if end == signal.SIGKILL:
        fake.next(stream(*words(), done=False, then=silence))
        alice.chat_stream().next_event()
    relay.end(end)
    leave(relay)
    remount(small_disk, "ro")
    relay.start_again()
    assert_pages_are_served(relay)
    assert_nothing_is_relayed(alice, fake)
    answered = alice.post("/v1/messages", ask() | {"max_tokens": 9})
    assert (answered.status, answered.json["error"]["type"]) == (503, "overloaded_error")
    assert "cannot record" in answered.json["error"]["message"]
    assert alice.get("/api/v1/models").status == 200
    assert_it_says(relay, READ_ONLY)
    assert "Traceback" not in said(relay)
    remount(small_disk, "rw")
    assert_it_recovers(alice)
    assert str(relay.process.pid) == (small_disk / "relay.db.lock").read_text()
    assert flask(relay.config, "reload").returncode == 0
    if end == signal.SIGKILL:
        assert relay.rows()[0]["outcome"] == "interrupted"


def test_a_start_on_a_full_disk_after_a_clean_end_serves_what_it_can_and_recovers(
    relay, alice, fake, small_disk
):
    fake.always(plain(COUNTS))
    relay.end(signal.SIGTERM)
    leave(relay)
    fill(small_disk / "ballast")
    relay.start_again()
    assert_pages_are_served(relay)
    assert_nothing_is_relayed(alice, fake)
    (small_disk / "ballast").unlink()
    assert_it_recovers(alice)


def test_an_ending_that_was_promised_outlives_a_start_on_a_read_only_disk(
    relay, alice, fake, small_disk
):
    opened = Gate()
    fake.always(stream(*words(), opened, usage_chunk(usage(20, 10))))
    streamed = alice.chat_stream()
    streamed.next_event()
    fill(small_disk / "ballast")
    let_files_grow(relay.process, 4096)
    opened.open()
    assert b"[DONE]" in streamed.read()
    relay.end(signal.SIGKILL)
    (small_disk / "ballast").unlink()
    leave(relay)
    remount(small_disk, "ro")
    relay.start_again()
    assert_it_says(relay, READ_ONLY)
    remount(small_disk, "rw")
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["cost"]) == ("complete", COST)
    assert relay.ledger_is_right() and "1 endings that the disk had not taken" in said(relay)


@pytest.mark.parametrize("name", ["relay.db", "relay.db.lock", "."])
def test_what_belongs_to_another_user_stops_calls_until_it_is_ours(relay, alice, fake, name):
    fake.always(plain(COUNTS))
    relay.end(signal.SIGTERM)
    leave(relay)
    theirs = relay.database.parent / name
    mode = theirs.stat().st_mode
    os.chown(theirs, 1, 1)
    theirs.chmod(0o755)
    relay.start_again(as_anybody())
    assert_pages_are_served(relay)
    assert_nothing_is_relayed(alice, fake)
    assert_it_says(relay, f"{theirs} belongs to user daemon and may not be written by root")
    theirs.chmod(mode)
    for each in [theirs, *relay.database.parent.iterdir()]:  # as `chown -R` does
        os.chown(each, 0, 0)
    assert_it_recovers(alice)


def test_endings_that_cannot_be_read_are_not_taken_for_none(relay, alice, fake):
    fake.next(stream(*words(), done=False, then=silence)).always(plain(COUNTS))
    streamed = alice.chat_stream()
    streamed.next_event()
    relay.end(signal.SIGKILL)
    kept = relay.database.with_name("relay.db-endings")
    kept.chmod(0)
    relay.start_again(as_anybody())
    assert_nothing_is_relayed(alice, fake)
    ready = relay.client().get("/readyz").json["checks"]["database"]
    assert ready.startswith("not writable: the endings kept in") and str(kept) in ready
    kept.chmod(0o600)
    assert_it_recovers(alice)
    assert relay.row_of(streamed.request_id)["outcome"] == "interrupted"


def test_commands_read_on_a_read_only_disk_and_say_why_they_do_not_write(
    relay, alice, small_disk, tmp_path
):
    relay.end(signal.SIGTERM)
    leave(relay)
    remount(small_disk, "ro")
    assert "10" in flask(relay.config, "balance", "alice").stdout
    assert flask(relay.config, "ledger", "verify").returncode == 0
    assert flask(relay.config, "backup", str(tmp_path / "copy.db")).returncode == 0
    refused = flask(relay.config, "credit", "alice", "--wallet", "1")
    assert refused.returncode == 1 and READ_ONLY in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_backup_on_a_medium_that_may_only_be_read_can_be_restored(
    start_relay, person, small_disk
):
    """One that the relay made itself, and proved."""
    relay = start_relay(process=True, backups={"folder": str(small_disk)})
    wait_until(lambda: "a backup was made" in said(relay))
    (copy,) = small_disk.glob("*.db")
    remount(small_disk, "ro")
    restored = flask(relay.config, "restore", str(copy), "--yes")
    assert restored.returncode == 0, restored.stderr


@pytest.fixture
def failing_disk(tmp_path):
    """An ext4 that becomes read-only when it is told to, as it does by itself after an error."""
    image, folder = tmp_path / "image", tmp_path / "ext4"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    made = subprocess.run(
        f"mkfs.ext4 -q {image} && mount -o loop {image} {folder}", shell=True, capture_output=True
    )
    if made.returncode:
        pytest.skip("no file system in a file may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_shuts_itself_off_stops_calls_and_nothing_else(
    start_relay, person, fake, failing_disk
):
    fake.always(plain(COUNTS))
    relay = start_relay(process=True, database={"path": str(failing_disk / "relay.db")})
    alice = person("alice", relay).given(wallet="10")
    assert alice.chat().status == 200
    gate, got = Gate(), []
    fake.next([gate, *plain(COUNTS)])
    caller = threading.Thread(target=lambda: got.append(alice.post(CHAT, ask()).status))
    caller.start()
    fake.wait_for(2)
    subprocess.run(["mount", "-o", "remount,abort", failing_disk], check=True)
    gate.open()
    caller.join()
    assert got == [200], "it had been paid for"
    assert_nothing_is_relayed(alice, fake)
    assert_pages_are_served(relay)
    assert "not writable" in relay.client().get("/readyz").json["checks"]["database"]
    assert relay.end(signal.SIGTERM) == 0
    relay.start_again()
    assert_pages_are_served(relay)
    assert_nothing_is_relayed(alice, fake)
