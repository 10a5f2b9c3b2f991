"""Streams wait without a thread each, and none stands still for another's."""

import math
import os
import signal
import socket
import ssl
import threading
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace

import pytest

import turns as turning
from db.connection import connect
from relay.upstream import connection, reply
from server import client as clients
from server import streams as module
from server import task as tasks
from server.streams import Streams
from tests.client import CHAT, ask
from tests.fake_upstream import DONE, Gate, stream
from tests.providers import chunk, usage, usage_chunk, words
from tests.stage import LIMIT_S, upstream_config, wait_until
from tests.tls import Secret, certify
from turns import Pause

COUNTS = usage(20, 10)
MANY = {"free": {"calls_at_once": 100, "requests_per_minute": 100}}
END = (chunk(finish="stop"), usage_chunk(COUNTS))


@pytest.fixture
def start(start_relay, person):
    """A function: alice with 10 yuan at a relay of her own."""
    return lambda **changes: person("alice", start_relay(**changes)).given(wallet="10")


@pytest.fixture
def forbearing(monkeypatch):
    """Nobody steps in for who is held up: whoever waits must have said so."""
    monkeypatch.setattr(turning, "PATIENCE_S", 10 * LIMIT_S)
    monkeypatch.setattr(module, "HELD_UP_S", 10 * LIMIT_S)


@contextmanager
def opened(alice, fake, gate, **more):
    """A stream that has said its first words and waits for a gate."""
    fake.next(stream(*words(), gate, *END))
    told = alice.chat_stream(**more)
    told.next_event()
    yield told
    gate.open()
    assert told.read().endswith(DONE)


def paused(alice, count: int = 1) -> None:
    """Wait until so many answers pause."""
    wait_until(lambda: len(alice.relay.server._connections._streams._paused) == count)


def callers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name in ("caller", "streams")]


def test_streams_that_wait_hold_no_thread(start, fake):
    alice, gate = start(server={"threads": 64}, plans=MANY), Gate()
    fake.always(stream(*words(), gate, *END))
    before = len(callers())
    told = [alice.chat_stream() for _ in range(30)]
    for each in told:
        each.next_event()
    assert len(callers()) - before < 10
    gate.open()
    assert all(each.read().endswith(DONE) for each in told)
    assert alice.relay.ledger_is_right()


def test_who_does_not_read_a_stream_holds_up_nobodys(start, fake, forbearing):
    alice, flood = start(), Gate()
    fake.next(stream(*words(), flood, *[chunk("x" * 65536)] * 200, *END))
    slow = alice.send(CHAT, ask(stream=True))
    paused(alice)
    with opened(alice, fake, Gate()):
        paused(alice, 2)
        flood.open()
        waiting = alice.relay.server._connections._streams._paused
        wait_until(lambda: any(each.pause.room for each, _ in [*waiting.values()]))
    slow.close()


def test_who_asks_more_while_a_stream_runs_has_all_of_that_and_no_reset(start, fake):
    """The connection ends with the stream. Closed with bytes unread it would be reset, and a client
    far away could lose the end of its answer."""
    alice, gate = start(), Gate()
    fake.next(stream(*words(), gate, *END))
    sent = alice.send(CHAT, ask(stream=True))
    paused(alice)
    sent.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n")
    gate.open()
    wait_until(lambda: alice.relay.rows("closed_at IS NOT NULL"))
    read = bytearray()
    while piece := sent.sock.recv(65536):
        read += piece
    assert DONE in read and read.endswith(b"0\r\n\r\n")
    sent.close()


def test_who_reads_a_stream_slowly_has_all_of_it(start, fake):
    alice, flood, read = start(), Gate(), bytearray()
    fake.next(stream(*words(), flood, *[chunk("x" * 65536)] * 100, *END))
    slow = alice.send(CHAT, ask(stream=True))
    paused(alice)
    flood.open()
    waiting = alice.relay.server._connections._streams._paused
    wait_until(lambda: any(each.pause.room for each, _ in [*waiting.values()]))
    response = slow.getresponse()
    while piece := response.read1(1000):
        read += piece
    assert read.count(b"x" * 65536) == 100 and read.endswith(DONE)
    assert alice.relay.closed_row()["outcome"] == "complete"


def test_who_takes_nothing_of_a_stream_for_a_minute_has_left(start, fake, monkeypatch):
    monkeypatch.setattr(clients, "UNREAD_S", 0.05)
    alice, flood = start(), Gate()
    fake.next(stream(*words(), flood, *[chunk("x" * 65536)] * 200, *END))
    slow = alice.send(CHAT, ask(stream=True))
    paused(alice)
    flood.open()
    assert alice.relay.closed_row()["outcome"] == "client_left"
    slow.close()


@pytest.mark.parametrize("signals", [1, 2])
def test_the_end_closes_the_calls_of_who_does_not_read(start_relay, person, fake, signals):
    relay = start_relay(process=True, server={"drain_s": 1})
    alice = person("alice", relay).given(wallet="10")
    fake.always(stream(*words(), *[chunk("x" * 65536)] * 200, *END))
    slow = [alice.send(CHAT, ask(stream=True)) for _ in range(4)]
    for each in slow:
        each.sock.recv(1)
    for _ in range(signals):
        relay.process.send_signal(signal.SIGTERM)
    relay.process.wait(LIMIT_S)
    rows = relay.rows()
    # Who reads nothing may have room for the word that it is cut.
    assert len(rows) == 4 and {row["outcome"] for row in rows} <= {"client_left", "upstream_cut"}
    assert all(row["output_tokens"] for row in rows)


def test_a_stream_without_a_pause_holds_up_nobodys(start, fake, forbearing):
    def endless(line) -> None:
        while True:
            line.send(b'data: {"choices": [{"index": 0, "delta": {"content": "more"}}]}\n\n' * 20)

    alice, first = start(), Gate()
    fake.next(stream(*words(), first, endless))
    flooded = alice.chat_stream()
    flooded.next_event()
    first.open()
    read = threading.Thread(target=lambda: exhausted(flooded), daemon=True)
    read.start()
    with opened(alice, fake, Gate()):
        pass
    alice.relay.app.extensions["relay"].sender.cut_all()
    read.join(LIMIT_S)
    assert not read.is_alive()


def exhausted(told) -> None:
    with suppress(OSError, ValueError, AttributeError):
        told.read()


def test_an_end_that_waits_for_another_process_to_write_holds_up_nobodys_stream(start, fake):
    alice, ends, goes_on = start(), Gate(), Gate()
    fake.next(stream(*words(), ends, *END))
    ending = alice.chat_stream()
    ending.next_event()
    fake.next(stream(*words(), goes_on, chunk("more"), Gate()))
    other = alice.chat_stream()
    other.next_event()
    writer = alice.relay.app.extensions["relay"].db._writer
    writing = connect(alice.relay.database)
    writing.execute("BEGIN IMMEDIATE")
    try:
        ends.open()
        wait_until(lambda: writer._writing)
        goes_on.open()
        while b"more" not in other.next_event():
            pass
        assert writer._writing
    finally:
        writing.execute("ROLLBACK")
        writing.close()
    assert ending.read().endswith(DONE)
    other.leave()


@pytest.mark.parametrize("wire", ["messages", "responses"])
def test_pauses_are_no_events_of_a_turned_stream(start, fake, monkeypatch, wire):
    """What a wire makes of silence is made once in SILENCE_S, however often the answer pauses."""
    alice, gates = start(), [Gate() for _ in range(5)]
    fake.next(stream(*[step for gate in gates for step in (*words(), gate)], *END))
    body = ask(stream=True) | {"max_tokens": 50}
    if wire == "responses":
        body = {"model": "test-model", "input": "Hello", "stream": True}
    told = alice.open("POST", f"/api/v1/{wire}", body)
    for gate in gates:
        assert gate.reached.wait(LIMIT_S)
        gate.open()
    said = told.read()
    assert b"ping" not in said and b"keep-alive" not in said
    assert (b"message_stop" if wire == "messages" else b"response.completed") in said


def test_silence_is_told_to_who_waits_though_nothing_comes(start, fake, monkeypatch):
    monkeypatch.setattr(reply, "SILENCE_S", 0.05)
    with opened(start(), fake, Gate()) as told:
        for _ in range(3):
            while told.next_event() != b": keep-alive\n\n":
                pass


# TLS: what has come may be a part of a record, or more than one


class Between:
    """Hands the bytes of a connection on; `halve` keeps back half of what comes next until a gate
    is opened."""

    def __init__(self, port: int):
        self.listener, self.to, self.gate = socket.create_server(("127.0.0.1", 0)), port, None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                gate, half = self.gate if answers else None, len(data) // 2
                if gate is not None:
                    self.gate = None
                    target.sendall(data[:half])
                    gate.reached.set()
                    gate.opened.wait(LIMIT_S)
                    data = data[half:]
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Half:
    """What `Between` keeps back."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()


@pytest.fixture
def secret(tmp_path):
    with Secret(certify(tmp_path)) as upstream:
        yield upstream


@pytest.fixture
def between(start, secret, monkeypatch):
    """A provider behind TLS, whom the relay trusts, and what stands between them."""
    context = ssl.create_default_context(cafile=secret.certificate)
    monkeypatch.setattr(connection, "_trust", lambda: context)
    found = Between(secret.port)
    yield found
    found.listener.close()


def test_half_a_record_holds_up_nobodys_stream(start, fake, secret, between, forbearing):
    alice = start(
        upstreams=[upstream_config(f"https://127.0.0.1:{between.port}/v1")],
    )
    first, second, half = Gate(), Gate(), Half()
    secret.next(stream(*words(), first, *END)).next(stream(*words(), second, *END))
    halved, other = alice.chat_stream(), alice.chat_stream()
    halved.next_event()
    other.next_event()
    between.gate = half
    first.open()
    assert half.reached.wait(LIMIT_S)
    second.open()
    assert other.read().endswith(DONE)
    half.opened.set()
    assert halved.read().endswith(DONE)


def test_events_longer_than_records_arrive_whole_at_once(start, secret, between, monkeypatch):
    monkeypatch.setattr(reply, "SILENCE_S", 10 * LIMIT_S)
    place = f"https://127.0.0.1:{between.port}/v1"
    alice = start(upstreams=[upstream_config(place, idle_s=10 * LIMIT_S)])
    gate = Gate()
    secret.next(stream(*words(), gate, *[chunk("x" * 50_000)] * 3, *END))
    told = alice.chat_stream()
    told.next_event()
    gate.open()
    said = told.read()
    assert said.count(b"x" * 50_000) == 3 and said.endswith(DONE)


def test_what_is_left_of_a_record_waits_for_nothing_more(start, secret, between, monkeypatch):
    """It has been taken from the kernel: no descriptor tells of it."""
    monkeypatch.setattr(reply, "SILENCE_S", 10 * LIMIT_S)
    place = f"https://127.0.0.1:{between.port}/v1"
    alice = start(upstreams=[upstream_config(place, idle_s=10 * LIMIT_S)])
    first, second = Gate(), Gate()
    secret.next(stream(*words(), first, chunk("x" * 5000), second, *END))
    told = alice.chat_stream()
    told.next_event()
    paused(alice)
    first.open()
    assert second.reached.wait(LIMIT_S)
    while b"x" * 5000 not in told.next_event():
        pass
    second.open()
    assert told.read().endswith(DONE)


def test_a_look_at_what_has_come_changes_nothing_of_a_socket(secret):
    context = ssl.create_default_context(cafile=secret.certificate)
    plain = socket.create_connection(("127.0.0.1", secret.port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
        sock.settimeout(7)
        assert connection.come(sock, 100) is None
        assert sock.gettimeout() == 7


# Who has left


def test_what_is_read_on_for_who_has_left_is_waited_for(start, fake, monkeypatch):
    """Nobody serves it any more who could wait elsewhere: pauses would follow one another for ever."""
    made: list[Pause] = []

    class Noted(Pause):
        @classmethod
        def made(cls, *where):
            made.append(Pause.made(*where))
            return made[-1]

    alice = start(upstreams=[upstream_config(fake.url, on_disconnect="drain", drain_s=LIMIT_S)])
    gate, end = Gate(), Gate()
    fake.next(stream(*words(), gate, chunk("more"), end, *END))
    told = alice.chat_stream()
    told.next_event()
    monkeypatch.setattr(reply, "Pause", Noted)
    told.reset()
    lines = alice.relay.app.extensions["relay"].sender._watcher._lines
    wait_until(lambda: all(line.left for line in lines))
    gate.open()
    assert end.reached.wait(LIMIT_S)
    row_open = alice.relay.rows("closed_at IS NULL")
    end.open()
    assert alice.relay.closed_row(told.request_id)["outcome"] == "client_left"
    assert row_open and len(made) < 10


# By itself


def ended(streams: Streams) -> None:
    streams.stop()
    for each in streams.threads:
        each.join(LIMIT_S)
    streams.close()
    assert not streams.threads


def test_an_answer_that_has_much_to_say_lets_others_go_on_now_and_then(monkeypatch):
    monkeypatch.setattr(tasks, "SPAN_S", 0)
    pieces = [b"first", Pause.made(5, 9.0), b"second", b"third"]
    told: list[bytes] = []
    channel = SimpleNamespace(write_soon=told.append, push=lambda: None)
    task = tasks.Task(channel, SimpleNamespace(version="1.1", command="GET", headers={}))
    task.complete = task.wrote_header = task.pauses = True
    task._answer, task._pieces = pieces, iter(pieces)
    for said, fd in ((1, -1), (1, 5), (2, -1), (3, -1)):
        task._write_on()
        assert len(told) == said and task.pause.fd == fd
    task._write_on()
    assert task.pause is None


def test_who_was_relieved_already_takes_nobodys_duty_away_when_it_waits_again():
    over, same = threading.Event(), []

    def goes_on(client: object) -> None:
        if client == "held up":
            over.wait(LIMIT_S)
            duty = streams._on_duty
            with turning.resting():
                same.append(streams._on_duty == duty)
        else:
            over.set()

    streams = Streams(goes_on)
    streams.wait("held up", Pause.made())
    streams.wait("other", Pause.made())
    wait_until(lambda: same)
    assert same == [True]
    ended(streams)


@pytest.fixture
def found():
    """Who went on, and the streams."""
    went: list[object] = []
    streams = Streams(went.append)
    yield went, streams
    ended(streams)


def test_who_waits_for_something_goes_on_once_when_it_comes(found):
    went, streams = found
    ours, theirs = socket.socketpair()
    with ours, theirs:
        streams.wait("one", Pause.made(ours.fileno(), math.inf))
        streams.wait("other", Pause.made())
        wait_until(lambda: "other" in went)
        assert went == ["other"]
        theirs.send(b"!")
        wait_until(lambda: len(went) == 2)
        streams.wait("third", Pause.made())
        wait_until(lambda: len(went) == 3)
        assert went == ["other", "one", "third"]


def test_who_waits_for_nothing_goes_on_when_its_time_is_up(found):
    went, streams = found
    ours, theirs = socket.socketpair()
    with ours, theirs:
        streams.wait("long", Pause.made(ours.fileno(), math.inf))
        wait_until(lambda: streams._looking_until == math.inf)
        streams.wait("short", Pause.made(theirs.fileno(), 0.001))
        wait_until(lambda: went)
        assert went == ["short"]


def test_who_waits_for_what_is_closed_goes_on_to_find_that_out(found):
    went, streams = found
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    streams.wait("it", Pause.made(fd, math.inf))
    wait_until(lambda: went == ["it"])


def test_a_stream_that_breaks_takes_no_other_with_it():
    went: list[object] = []

    def goes_on(client: object) -> None:
        if client == "broken":
            raise RuntimeError("broken")
        went.append(client)

    streams = Streams(goes_on)
    streams.wait("broken", Pause.made())
    streams.wait("whole", Pause.made())
    wait_until(lambda: went == ["whole"])
    ended(streams)


@pytest.mark.parametrize("says_so", [True, False])
def test_who_waits_keeps_nobody_for_long_whether_it_was_thought_of_or_not(says_so, monkeypatch):
    if says_so:  # then others go on at once, and nobody needs to notice
        monkeypatch.setattr(module, "HELD_UP_S", 10 * LIMIT_S)
    went: list[object] = []
    over = threading.Event()

    def goes_on(client: object) -> None:
        if client == "waits":
            with turning.resting() if says_so else nullcontext():
                over.wait(LIMIT_S)
        went.append(client)

    streams = Streams(goes_on)
    for each in ("waits", "other", "third"):
        streams.wait(each, Pause.made())
    wait_until(lambda: went == ["other", "third"])
    over.set()
    wait_until(lambda: len(went) == 3)
    ended(streams)


def test_who_may_always_go_on_keeps_nobody_from_it():
    """The look at what has come is not only for when nobody may go on."""
    went: list[str] = []
    over = threading.Event()

    def goes_on(client: str) -> None:
        went.append(client)
        if client == "endless" and not over.is_set():
            streams.wait(client, Pause.made())

    streams = Streams(goes_on)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        streams.wait("endless", Pause.made())
        streams.wait("other", Pause.made(ours.fileno(), math.inf))
        theirs.send(b"!")
        wait_until(lambda: "other" in went)
        over.set()
        ended(streams)
