"""kill -9 at random moments under load, and disks that refuse: judged by what callers were told,
not by the log.

Every answer that a caller has read to its end is an acknowledgement, written down outside the
process under test.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from server.http import Server
from tests.client import assert_openai_error
from tests.fake_upstream import DONE, Gate, silence, stream
from tests.providers import openai_stream, plain, usage, usage_chunk, words
from tests.stage import LIMIT_S, ROOT, wait_until, write_config

KILLS = 20
CALLERS = 8
RESTART_S = 3.0  # of the processor: tests beside this one make the clock meaningless
COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000
CREDIT = 1_000


class Load:
    """Callers who call until they are told to stop, and note what was answered completely."""

    def __init__(self, alice):
        self.alice, self.acknowledged, self.odd = alice, [], []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT_S)

    def _call(self, number: int) -> None:
        while not self._over.is_set():
            try:
                answered = self.alice.chat(stream=bool(number % 2))
            except OSError:
                self._over.wait(0.005)  # the server is dead or dying
                continue
            except Exception as error:  # half a head, half a body
                if type(error).__module__ != "http.client":
                    self.odd.append(repr(error))
                continue
            if answered.status != 200:
                self.odd.append(answered.body)
            elif number % 2 == 0 or answered.body.endswith(DONE):
                self.acknowledged.append(answered.request_id)


def by_wish(request):
    return openai_stream(COUNTS) if request.json.get("stream") else plain(COUNTS)


def test_twenty_kills_lose_nothing_and_charge_nothing_twice(start_relay, person, fake):
    fake.always(by_wish)
    chance = random.Random(20261123)
    relay = start_relay(process=True)
    alice = person("alice", relay).given(wallet=str(CREDIT))
    acknowledged, starts_s = [], []
    for _ in range(KILLS):
        with Load(alice) as load:
            wait_until(lambda load=load: load.acknowledged)
            threading.Event().wait(chance.uniform(0.0, 0.3))
            relay.process.kill()
            relay.process.wait(LIMIT_S)
        assert load.odd == []
        acknowledged += load.acknowledged
        relay.start_again()
        starts_s.append(relay.processor_s())
        assert (alice.held().grant, alice.held().quota, alice.held().wallet) == (0, 0, 0)
        assert relay.ledger_is_right()
    assert max(starts_s) < RESTART_S
    charged = {row["id"]: row for row in relay.rows("charged_wallet > 0")}
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= set(charged)
    assert {row["outcome"] for row in charged.values()} == {"complete"}
    assert {row["charged_wallet"] for row in charged.values()} == {COST}
    assert alice.balance().wallet == CREDIT * 10**9 - COST * len(charged)
    assert all(row["closed_at"] for row in relay.rows())
    assert {row["outcome"] for row in relay.rows()} <= {"complete", "interrupted", "client_left"}


def test_calls_cut_by_a_kill_are_visible_and_free(start_relay, person, fake):
    fake.always(stream(*words(), Gate()))
    relay = start_relay(process=True)
    alice = person("alice", relay).given(wallet="10")
    streams = [alice.chat_stream() for _ in range(10)]
    for streamed in streams:
        streamed.next_event()
    assert alice.held().wallet > 0
    relay.end(signal.SIGKILL)
    relay.start_again()
    rows = relay.rows()
    assert [row["outcome"] for row in rows] == 10 * ["interrupted"]
    assert {streamed.request_id for streamed in streams} == {row["id"] for row in rows}
    assert alice.balance().wallet == 10 * 10**9 and alice.held().wallet == 0
    assert relay.ledger_is_right()


def test_an_operators_credit_is_safe_once_acknowledged(relay_process, person):
    """The command line writes beside the server; a kill of the server does not undo it."""
    alice = person("alice", relay_process).given(wallet="3")
    relay_process.end(signal.SIGKILL)
    relay_process.start_again()
    assert alice.balance().wallet == 3 * 10**9 and relay_process.ledger_is_right()


# A disk that is full


def let_files_grow(process, limit: int) -> None:
    """Whatever the process writes beyond `limit` bytes of a file is refused, as on a full disk."""
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def assert_nothing_is_relayed(alice, fake):
    """Calls get 503 and reach no upstream; the process lives."""
    seen = len(fake.requests)
    for _ in range(3):
        answered = alice.chat()
        assert_openai_error(answered, 503, "storage_unavailable")
        assert int(answered.headers["retry-after"]) > 0
    assert len(fake.requests) == seen
    assert alice.relay.client().get("/healthz").status == 200
    assert alice.relay.client().get("/readyz").status == 503


def assert_it_recovers(alice):
    """Without a restart."""
    wait_until(lambda: alice.chat().status == 200)
    assert alice.relay.client().get("/readyz").status == 200
    wait_until(lambda: alice.held().wallet == 0)
    assert alice.relay.ledger_is_right()


def test_files_that_may_not_grow_stop_calls_and_nothing_else(relay_process, person, fake):
    fake.always(by_wish)
    alice = person("alice", relay_process).given(wallet="10")
    assert alice.chat().status == 200
    let_files_grow(relay_process.process, 4096)
    assert_nothing_is_relayed(alice, fake)
    let_files_grow(relay_process.process, resource.RLIM_INFINITY)
    assert_it_recovers(alice)


def test_a_call_that_ends_on_a_full_disk_is_charged_later(relay_process, person, fake):
    gate = Gate()
    fake.always([gate, *plain(COUNTS)])
    alice = person("alice", relay_process).given(wallet="10")
    statuses = []
    caller = threading.Thread(target=lambda: statuses.append(alice.chat().status))
    caller.start()
    fake.wait_for()
    let_files_grow(relay_process.process, 4096)
    gate.open()
    caller.join(LIMIT_S)
    let_files_grow(relay_process.process, resource.RLIM_INFINITY)
    row = relay_process.closed_row()
    assert (row["outcome"], row["charged_wallet"]) == ("complete", COST)
    assert statuses == [200]
    assert alice.balance().wallet == 10 * 10**9 - COST and alice.held().wallet == 0
    assert relay_process.ledger_is_right()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_stops_calls_and_nothing_else(start_relay, person, fake, small_disk):
    fake.always(by_wish)
    relay = start_relay(process=True, database={"path": str(small_disk / "relay.db")})
    alice = person("alice", relay).given(wallet="10")
    assert alice.chat().status == 200
    ballast = small_disk / "ballast"
    fill(ballast)
    wait_until(lambda: alice.chat().status == 503)  # what the log had preallocated is used up first
    assert_nothing_is_relayed(alice, fake)
    ballast.unlink()
    assert_it_recovers(alice)


def test_a_start_on_a_full_disk_serves_what_it_can_and_recovers(
    start_relay, person, fake, small_disk
):
    """It had a call open: what that held goes back as soon as there is room, and none begins before."""
    relay = start_relay(
        process=True,
        database={"path": str(small_disk / "relay.db")},
        backups={"folder": str(small_disk.parent / "backups")},
    )
    alice = person("alice", relay).given(wallet="10")
    fake.next(stream(*words(), done=False, then=silence)).always(plain(usage(20, 10)))
    alice.chat_stream().next_event()
    assert alice.held().wallet > 0
    relay.end(signal.SIGKILL)
    ballast = small_disk / "ballast"
    fill(ballast)
    relay.start_again()
    for path in ("/", "/login", "/healthz"):
        assert relay.client().get(path).status == 200, path
    ready = relay.client().get("/readyz")
    assert ready.status == 503 and "not writable" in ready.json["checks"]["database"]
    assert_nothing_is_relayed(alice, fake)
    assert "Traceback" not in relay.log.read_text()
    ballast.unlink()
    assert_it_recovers(alice)
    assert alice.held().wallet == 0 and relay.ledger_is_right()
    assert next(row["outcome"] for row in relay.rows()) == "interrupted"


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass


# A place that cannot be written


def test_a_folder_that_cannot_be_written_stops_the_start_with_a_plain_reason(tmp_path):
    config = write_config(
        tmp_path, {"database": {"path": "/proc/relay/relay.db"}, "server": {"port": 0}}
    )
    ended = serve(config)
    assert ended.returncode == 1
    assert "/proc/relay" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "content", [b"This is no database. " * 500, b"SQLite format 3\0" + b"\xff" * 8192]
)
def test_a_file_that_is_no_database_stops_the_start_and_stays_as_it_is(tmp_path, content):
    file = tmp_path / "relay.db"
    file.write_bytes(content)
    config = write_config(tmp_path, {"database": {"path": str(file)}, "server": {"port": 0}})
    ended = serve(config)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert file.read_bytes() == content


def test_a_second_server_on_the_same_file_is_refused(relay_process):
    ended = serve(relay_process.config)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert relay_process.client().get("/healthz").status == 200


def test_a_read_only_file_stops_the_start_with_a_plain_reason(people_file, tmp_path):
    file = tmp_path / "relay.db"
    shutil.copyfile(people_file[0], file)
    config = write_config(tmp_path, {"database": {"path": str(file)}, "server": {"port": 0}})
    file.chmod(0o444)
    tmp_path.chmod(0o555)
    ended = serve(config, before=as_anybody())
    tmp_path.chmod(0o755)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "relay.db" in ended.stderr


def as_anybody() -> list[str]:
    """What takes from root the right to write where it may not."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may write everywhere")
    lost = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--inh-caps={lost}", f"--bounding-set={lost}"]


def serve(config: Path, before: list[str] | tuple = ()) -> subprocess.CompletedProcess:
    """`python app.py` with a configuration that should not serve."""
    return subprocess.run(
        [*before, sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"RELAY_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize(
    "host, said", [("127.0.0.1", "in use"), ("no.such.host.invalid", "host"), ("1.2.3.4", "assign")]
)
def test_an_address_that_cannot_be_listened_on_is_named(relay, host, said):
    settings = relay.app.extensions["relay"].settings
    there = msgspec.structs.replace(settings.server, host=host, port=relay.port)
    with pytest.raises(OSError, match=f"{host}:{relay.port} .*{said}"):
        Server(relay.app, msgspec.structs.replace(settings, server=there))


def test_an_answer_that_a_full_disk_did_not_take_is_charged_after_a_kill(
    start_relay, person, fake, small_disk
):
    """Whoever has read the whole answer is charged, though the process never wrote it to the ledger."""
    opened = Gate()
    whole = stream(*words(), opened, usage_chunk(usage(20, 10)))
    relay = start_relay(process=True, database={"path": str(small_disk / "relay.db")})
    alice = person("alice", relay).given(wallet="10")
    fake.always(whole)
    streamed = alice.chat_stream()
    streamed.next_event()
    fill(small_disk / "ballast")
    let_files_grow(relay.process, 4096)
    opened.open()
    assert b"[DONE]" in streamed.read()
    relay.end(signal.SIGKILL)
    (small_disk / "ballast").unlink()
    relay.start_again()
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["cost"]) == ("complete", 20 * 2_000 + 10 * 8_000)
    assert relay.ledger_is_right() and "are written now" in relay.log.read_text()
