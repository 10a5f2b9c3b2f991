"""`python -m tests.soak.run`: many streams and random faults for a long time: what grows, and is
the money right?

Starts `python app.py` with three providers that fail at random (`faulty`), and callers that stream,
leave, vanish, dawdle, ask nonsense and run out of money, while the settings are reloaded. After
each round everybody rests, the process is weighed and every call of the round is judged (`oracle`).
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import billing
import verify
from bench.target import free_port, launch, resident_kib
from db import Database
from members import accounts, tokens
from tests.soak import oracle
from tests.soak.faulty import Provider
from tests.soak.oracle import Call

ROUND_S = 30
RELOAD_S = 3
WARM_UP_CALLS = 25_000  # until then SQLite's page cache fills, some 9 MB of the file
GROWTH_MAX_MIB = 8
GROWTH_MAX_DESCRIPTORS = 5
PATIENCE_S = 60
THREADS = 66  # 50 calls: who returns too early may find no place
CONFIG = """
[server]
port = {port}
threads = {threads}

[database]
path = "{folder}/relay.db"

[plans.free]
requests_per_minute = 100000000

"""
MODEL = """
[[models]]
id = "{name}"
output_max = 8192
routes = [ {routes} ]
prices = {prices}
"""
MODELS = [f"soak-{number}" for number in range(8)]  # all alike: a seat's calls take them in turn
UPSTREAM = """
[[upstreams]]
name = "{name}"
base_url = "http://127.0.0.1:{port}/v1"
api_keys = ["sk-soak-{name}-1", "sk-soak-{name}-2"]
calls_at_once = 30
connect_s = 4
first_byte_s = 4
idle_s = 4
drain_s = 1
on_disconnect = "{policy}"
"""
POLICIES = {"p0": "estimate", "p1": oracle.DRAIN, "p2": oracle.FREE}
WIRES = {
    "chat": ("/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
    "messages": (
        "/messages",
        lambda text: {"messages": [{"role": "user", "content": text}], "max_tokens": 100},
    ),
    "responses": ("/responses", lambda text: {"input": text}),
}
PEOPLE = {
    "alice": 6,
    "bob": 3,
    "dora": 1,
}  # and their shares of the callers; dora is always short of money
KINDS = {"patient": 78, "leaving": 12, "vanishing": 5, "nonsense": 4, "stranger": 1}
NONSENSE = (
    b'{"model": "soak-0"',
    b'{"model": "nobody", "messages": [], "input": "", "max_tokens": 1}',
    b'{"model": 5}',
    b"[]",
    b'{"model": "soak-0", "stream": "yes", "max_tokens": 1}',
    b"\xff\xfe",
)


class Soak:
    """The providers, the relay and its callers; `problems` is what was found."""

    def __init__(self, folder: Path, seed: int, callers: int):
        self.folder, self.seed, self.port = folder, seed, free_port()
        self.providers = [
            Provider(name, seed + number).start() for number, name in enumerate(POLICIES)
        ]
        self.numbers = itertools.count()
        self.models = [itertools.cycle(MODELS) for _ in range(callers)]
        self.calls: list[Call] = []
        self.last_id = ""
        self.weights: list[
            tuple[float, int]
        ] = []  # (MiB, descriptors) after each round that was warm
        self.counted: Counter = Counter()
        self.problems: list[str] = []
        self.write_config()
        self.db = Database(folder / "relay.db", writer=False)
        self.people = {
            name: accounts.add(self.db, name, f"{name} has a long password").id for name in PEOPLE
        }
        for name, amount in (("alice", 10**15), ("bob", 10**15)):
            billing.credit(self.db, self.people[name], "wallet", amount)
        billing.credit(self.db, self.people["bob"], "grant", 500_000)
        names = [name for name, share in PEOPLE.items() for _ in range(share)]
        self.seats = [
            (name, *tokens.mint(self.db, self.people[name], f"seat {seat}", calls_at_once=2))
            for seat, name in zip(range(callers), itertools.cycle(names), strict=False)
        ]

    def write_config(self, without: str | None = None, more: str = "") -> None:
        there = [each for each in self.providers if each.name != without]
        routes = ", ".join(f'{{ upstream = "{each.name}", model = "m" }}' for each in there)
        text = CONFIG.format(port=self.port, folder=self.folder, threads=THREADS) + more
        text += "".join(
            MODEL.format(name=name, routes=routes, prices=oracle.PRICES) for name in MODELS
        )
        text += "".join(
            UPSTREAM.format(name=each.name, port=each.port, policy=POLICIES[each.name])
            for each in there
        )
        (self.folder / "config.toml").write_text(text)

    def start(self) -> None:
        self.process = launch(
            [sys.executable, "app.py"],
            self.folder / "relay.log",
            RELAY_CONFIG=str(self.folder / "config.toml"),
        )
        until(self.answers, 60, "the relay did not start")

    def answers(self) -> bool:
        try:
            return b"ok" in self.get("/healthz")
        except OSError:
            return False

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def round(self, number: int, seconds: float) -> None:
        """Let them call for so long, then rest until nothing is open; weigh and judge."""
        end_at = time.monotonic() + seconds
        callers = [
            threading.Thread(
                target=self.keep_calling,
                args=(random.Random(f"{self.seed} {number} {seat}"), seat, end_at),
            )
            for seat in range(len(self.seats))
        ]
        for caller in callers:
            caller.start()
        for turn in itertools.count():
            threading.Event().wait(max(0, min(RELOAD_S, end_at - time.monotonic())))
            if time.monotonic() >= end_at:
                break
            self.reload(turn)
        for caller in callers:
            caller.join()
        until(
            lambda: b"relay_calls_in_flight 0.0" in self.get("/metrics"),
            PATIENCE_S,
            "calls stay in flight",
        )
        weight = resident_kib(self.process.pid) / 1024, self.descriptors()
        self.judge()
        if self.counted["calls"] > WARM_UP_CALLS:
            self.weights.append(weight)
        print(
            f"{time.strftime('%H:%M:%S')} round {number + 1}: {self.counted['calls']:,} calls, {weight[0]:.1f} MiB, "
            f"{weight[1]} descriptors, {len(self.problems)} problems",
            flush=True,
        )

    def reload(self, turn: int) -> None:
        """By turns all providers, one less, and a file that cannot be read.

        And dora gets some money.
        """
        self.write_config(*((), ("p2",), (None, "nonsense"))[turn % 3])
        self.process.send_signal(signal.SIGHUP)
        billing.credit(self.db, self.people["dora"], "wallet", 50_000_000)
        began = time.monotonic()
        self.get("/healthz")
        self.counted["slowest /healthz, ms"] = max(
            self.counted["slowest /healthz, ms"], round((time.monotonic() - began) * 1000)
        )

    def descriptors(self) -> int:
        """Open ones, without the connections kept to providers.

        How many there are is their luck.
        """
        ports = {f":{each.port:04X}" for each in self.providers}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        kept = {f"socket:[{line[9]}]" for line in lines if line[2][-5:] in ports}
        folder = Path(f"/proc/{self.process.pid}/fd")
        return sum(os.readlink(each) not in kept for each in folder.iterdir())

    def keep_calling(self, rng: random.Random, seat: int, end_at: float) -> None:
        while time.monotonic() < end_at:
            call = self.new_call(rng, seat)
            try:
                make(call, self.port, self.seats[seat][2], rng)
            except (OSError, http.client.HTTPException) as err:
                self.problems.append(f"{call}: {type(err).__name__} {err}")

    def new_call(self, rng: random.Random, seat: int) -> Call:
        member, token_id, _ = self.seats[seat]
        kind = "poor" if member == "dora" else rng.choices(list(KINDS), list(KINDS.values()))[0]
        name, wire = f"soak-{next(self.numbers):07d}", rng.choice(list(WIRES))
        call = Call(
            name,
            kind,
            wire,
            kind == "leaving" or rng.random() < 0.7,
            f"{name}: tell me of 记账",
            token_id,
            next(self.models[seat]),
        )
        self.calls.append(call)
        return call

    def judge(self) -> None:
        """Hold this round's calls against its rows, and forget them."""
        rows = [
            dict(row)
            for row in self.db.read()
            .execute("SELECT * FROM requests WHERE id > ? ORDER BY id", (self.last_id,))
            .fetchall()
        ]
        attempts = {each.name: each.attempts.copy() for each in self.providers}
        self.problems += oracle.judge(self.calls, rows, attempts, POLICIES)
        self.counted.update(f"ended {row['outcome']}" for row in rows)
        self.counted.update(f"answered {call.status or 'nobody'}" for call in self.calls)
        self.counted["calls"] += len(self.calls)
        self.counted["attempts"] += sum(len(json.loads(row["attempts"])) for row in rows)
        self.last_id = rows[-1]["id"] if rows else self.last_id
        self.calls.clear()
        for each in self.providers:
            each.attempts.clear()

    def calm(self) -> None:
        """When the storm is over everybody is served, by every provider."""
        self.write_config()
        self.process.send_signal(signal.SIGHUP)
        until(
            lambda: self.get("/readyz").count(b'"ok"') >= 3 + len(self.providers),
            PATIENCE_S,
            "no reload",
        )
        for each in self.providers:
            each.calm = True
        billing.credit(self.db, self.people["dora"], "wallet", 10**10)
        for seat, (_, token_id, token) in enumerate(self.seats):
            call = Call(
                f"soak-{next(self.numbers):07d}",
                "patient",
                "chat",
                bool(seat % 2),
                "",
                token_id,
                "soak-0",
            )
            make(call, self.port, token, random.Random(0))
            if call.status != 200:
                self.problems.append(f"after the storm: {call}")
        idle = [each.name for each in self.providers if not each.attempts]
        if idle and len(self.seats) >= 30:
            self.problems.append(f"after the storm nobody is sent to {idle}")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(PATIENCE_S):
            self.problems.append(f"the relay ended with status {self.process.returncode}")
        self.problems += verify.verify(self.db)
        (held,) = self.db.one("SELECT sum(grant_held + quota_held + wallet_held) FROM balances")
        (still_open,) = self.db.one("SELECT count(*) FROM requests WHERE closed_at IS NULL")
        if held or still_open:
            self.problems.append(f"{still_open} calls are open and {held} is held")
        log = (self.folder / "relay.log").read_text()
        if "Traceback" in log:
            self.problems.append(f"the log has {log.count('Traceback')} tracebacks")
        if "sk-soak-" in log:
            self.problems.append("a provider's key is in the log")
        self.judge_growth()

    def judge_growth(self) -> None:
        """Of the rounds that were warm the second half weighs no more than the first."""
        half = len(self.weights) // 2
        early, late = self.weights[:half], self.weights[half:]
        if not early:
            return
        for index, most, what in (
            (0, GROWTH_MAX_MIB, "MiB"),
            (1, GROWTH_MAX_DESCRIPTORS, "descriptors"),
        ):
            more = min(each[index] for each in late) - min(each[index] for each in early)
            if more > most:
                self.problems.append(f"the process has grown by {more:.1f} {what}")


def make(call: Call, port: int, token: str, rng: random.Random) -> None:
    """One call, and what its caller does with the answer."""
    path, asked = WIRES[call.wire]
    body = json.dumps(
        {"model": call.model, "stream": call.streamed, **asked(f"{call.prompt or call.name}")}
    ).encode()
    if call.kind == "nonsense":
        body = rng.choice(NONSENSE)
    token = "sk-" + "x" * 43 if call.kind == "stranger" else token
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(
        "POST",
        f"/api/v1{path}",
        body,
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    if call.kind == "vanishing":
        threading.Event().wait(rng.random() * 0.2)
        return leave(connection, connection.sock, rng)
    sock = connection.sock
    response = connection.getresponse()
    call.status, call.request_id = response.status, response.getheader("x-request-id")
    leaves_after, dawdles = rng.randint(1, 10), rng.random() < 0.02 and rng.randint(1, 5)
    for pieces in itertools.count(1):
        piece = response.read1(65536)
        call.body += piece
        if not piece or (call.kind == "leaving" and pieces == leaves_after):
            break
        if pieces <= dawdles:
            threading.Event().wait(rng.random())
    return leave(response, sock, rng) if piece else connection.close()


def leave(connection, sock: socket.socket, rng: random.Random) -> None:
    """Close in the middle, as a tool does (FIN) or as a broken network does (RST)."""
    if rng.random() < 0.5:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until(found, seconds: float, problem: str) -> None:
    end_at = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end_at:
            raise RuntimeError(problem)
        threading.Event().wait(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=50, help="callers at once")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is random")
    parser.add_argument(
        "--folder", type=Path, help="where the files are kept (a temporary one by default)"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    soak, seconds = Soak(folder.resolve(), options.seed, options.streams), options.minutes * 60
    rounds = max(1, round(seconds / ROUND_S))
    try:
        soak.start()
        for number in range(rounds):
            soak.round(number, seconds / rounds)
        soak.calm()
        soak.end()
    finally:
        soak.process.kill()
        soak.process.wait()
    for problem in soak.problems[:20]:
        print(f"WRONG: {problem}")
    print(*(f"{value:8,} {name}" for name, value in sorted(soak.counted.items())), sep="\n")
    print(f"{len(soak.problems)} problems, seed {options.seed}, files in {folder}")
    return bool(soak.problems)


if __name__ == "__main__":
    sys.exit(main())
