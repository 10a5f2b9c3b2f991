"""Of the threads that serve callers one computes at a time, and nobody waits for one that cannot."""

import socket
import threading
from contextlib import contextmanager

import pytest

import turns as module
from db.connection import connect
from tests.client import CHAT, ask
from tests.fake_upstream import Gate, head
from tests.providers import openai_stream, plain, usage
from tests.stage import LIMIT_S, model_config, upstream_config, wait_until
from turns import Place, Turns, resting, sendall, turns

COUNTS = usage(20, 10)


@pytest.fixture
def forbearing(monkeypatch):
    """Nobody loses patience with a holder: who waited for the world with the turn would stop all."""
    monkeypatch.setattr(module, "PATIENCE_S", 10 * LIMIT_S)


@pytest.fixture
def line(forbearing):
    """A line of its own."""
    return Turns()


@contextmanager
def thread(target, *args):
    """A thread that has ended when the block has."""
    running = threading.Thread(target=target, args=args, daemon=True)
    running.start()
    yield running
    running.join(LIMIT_S)
    assert not running.is_alive()


def in_line(line: Turns, count: int) -> None:
    """Wait until so many stand in the line."""
    wait_until(lambda: len(line._line) >= count)


def took(line: Turns, said: list, name: str) -> None:
    line.take()
    said.append(name)
    line.give()


def test_who_comes_while_another_has_the_turn_gets_it_afterwards_in_the_order_of_coming(line):
    said: list[str] = []
    line.take()
    with thread(took, line, said, "first"):
        in_line(line, 1)
        with thread(took, line, said, "second"):
            in_line(line, 2)
            assert said == []
            assert line.give()
    assert said == ["first", "second"]


def test_nobody_gives_a_turn_that_is_anothers(line):
    line.take()
    found: list[bool] = []
    with thread(lambda: found.append(line.give())):
        pass
    assert found == [False]
    assert line.give()
    assert not line.give()


def test_a_turn_is_free_again_when_nobody_waits(line):
    line.take()
    line.give()
    with thread(took, line, [], "other"):
        pass


def test_a_holder_who_is_held_up_loses_the_turn_to_who_comes(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0)
    line, said = Turns(), []
    line.take()
    with thread(took, line, said, "other"):
        pass
    assert said == ["other"]
    assert not line.give()  # it is gone, and what comes after rests without it


def test_a_holder_who_is_held_up_loses_it_though_nobody_else_comes(forbearing, monkeypatch):
    line, said = Turns(), []
    line.take()
    with thread(took, line, said, "other"):
        in_line(line, 1)
        monkeypatch.setattr(module, "PATIENCE_S", 0)
    assert said == ["other"]


def test_who_is_called_gets_the_turn_that_it_left(line):
    place_of: list[Place] = []
    said: list[str] = []

    def waits() -> None:
        line.take()
        place = Place()
        line.leave(place)
        place_of.append(place)
        line.wait(place)
        said.append("has it" if line.give() else "has none")

    with thread(waits):
        wait_until(lambda: place_of)
        line.take()
        line.call(place_of)
        in_line(line, 1)
        assert said == []  # not while another has it
        line.give()
    assert said == ["has it"]


def test_who_left_no_turn_is_called_at_once_and_gets_none(line):
    place_of: list[Place] = []
    said: list[bool] = []

    def waits() -> None:
        place = Place()
        line.leave(place)
        place_of.append(place)
        line.wait(place)
        said.append(line.give())

    line.take()
    with thread(waits):
        wait_until(lambda: place_of)
        line.call(place_of)
    assert said == [False]
    assert line.give()


def test_who_was_called_and_does_not_leave_again_is_called_with_the_turn_it_has(line):
    """A writer that is called to write, and then cannot even begin."""
    line.take()
    place = Place()
    line.leave(place)
    line.call([place])
    line.wait(place)
    line.call([place])
    line.wait(place)
    assert line.give()


def test_resting_gives_the_turn_and_takes_it_again(forbearing):
    turns.take()
    said: list[str] = []
    with resting(), thread(took, turns, said, "other"):
        pass
    assert said == ["other"]
    assert turns.give()


def test_who_has_no_turn_rests_without_getting_one():
    with resting():
        pass
    assert not turns.give()


def test_what_the_other_side_does_not_take_at_once_is_sent_while_others_compute(forbearing):
    ours, theirs = socket.socketpair()
    data, said = bytes(8 << 20), []
    received = bytearray()

    def reads() -> None:
        took(turns, said, "other")  # which it gets only if the sender rests
        while len(received) < len(data):
            received.extend(theirs.recv(1 << 20))

    turns.take()
    with ours, theirs, thread(reads):
        sendall(ours, data)
    assert received == data
    assert said == ["other"]
    assert turns.give()


# In the house


@pytest.fixture
def start(start_relay, person):
    """A function: alice with 10 yuan at a relay of her own."""
    return lambda **changes: person("alice", start_relay(**changes)).given(wallet="10")


def silent(gate):
    return [gate, *plain(COUNTS)]


def silent_in_its_body(gate):
    (whole,) = [each for each in plain(COUNTS) if isinstance(each, bytes)]
    return [head(200, len(whole)), whole[:20], gate, whole[20:]]


def silent_before_its_first_event(gate):
    return [head(content_type="text/event-stream"), gate, *openai_stream(COUNTS)[1:]]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("script", [silent, silent_in_its_body, silent_before_its_first_event])
def test_a_provider_that_is_silent_holds_up_nobody(start, fake, forbearing, script, streams):
    gate = Gate()
    fake.next(script(gate)).always(plain(COUNTS))
    alice = start()
    call = alice.chat_stream if streams else alice.chat
    with thread(call):
        assert gate.reached.wait(LIMIT_S)
        assert alice.chat().status == 200
        gate.open()


def test_a_provider_that_takes_no_more_of_a_request_holds_up_nobody(start, fake, forbearing):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        upstreams = [
            upstream_config(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", "deaf"),
            upstream_config(fake.url, "fake"),
        ]
        models = [model_config("test-model"), model_config("deaf-model", ("deaf",))]
        fake.always(plain(COUNTS))
        alice = start(upstreams=upstreams, models=models)
        leaving = alice.send(CHAT, ask("x" * (4 << 20), "deaf-model"))
        deaf.settimeout(LIMIT_S)
        line, _ = deaf.accept()
        with line:
            assert line.recv(1)
            assert alice.chat().status == 200
        leaving.close()


def test_who_does_not_read_an_answer_holds_up_nobody(start, fake, forbearing):
    fake.next(plain(COUNTS, "x" * (8 << 20))).always(plain(COUNTS))
    alice = start()
    slow = alice.send(CHAT, ask())
    wait_until(lambda: alice.relay.rows("closed_at IS NOT NULL"))
    assert alice.chat().status == 200
    slow.close()


def test_who_waits_for_another_process_to_write_loses_the_turn(start, fake):
    fake.always(plain(COUNTS))
    alice = start()
    writer = alice.relay.app.extensions["relay"].db._writer
    writing = connect(alice.relay.database)
    writing.execute("BEGIN IMMEDIATE")
    with thread(alice.chat):
        wait_until(lambda: writer._writing)
        assert alice.get("/healthz").status == 200
        assert writer._writing
        writing.execute("ROLLBACK")
    writing.close()


def test_calls_streams_refusals_and_pages_leave_no_turn_behind(start, fake):
    fake.next(plain(COUNTS), openai_stream(COUNTS), head(500, 0)).always(plain(COUNTS))
    alice = start()
    assert alice.chat().status == 200
    stream = alice.chat_stream()
    stream.read()
    stream.leave()
    assert alice.chat(model="nobodys").status == 404
    assert alice.get("/healthz").status == 200
    wait_until(lambda: turns._holder is None)
