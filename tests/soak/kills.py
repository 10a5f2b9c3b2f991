"""`python -m tests.soak.kills`: a relay that is killed again and again, often while its disk is full.

Its database lies on a small file system of its own (a tmpfs, which needs root) that fills and empties
at random, while callers ask, stream and leave. After each kill it is started again on whatever disk
there is. At the end there is room: then no answer that was read whole may be without its charge, no
hold may be left, and the ledger must prove itself.
"""

from __future__ import annotations

import argparse
import http.client
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

import billing
import verify
from db import Database
from members import accounts, tokens
from tests.client import Client, ask
from tests.fake_upstream import FakeUpstream, stream
from tests.providers import chunk, plain, usage, usage_chunk
from tests.stage import Relay, configuration, free_port, wait_until, write_config

DISK_MB, KILL_MB = 24, 0.2  # of the file system: as it begins, and more for what each life writes
CALLERS = 8
LIFE_S = (0.02, 0.8)  # of a process, once it answers
FULL = 0.4  # of the starts are on a full disk
COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000


def answer(request):
    """A whole answer or a stream, as it is asked for."""
    if not request.json.get("stream"):
        return plain(COUNTS)
    return stream(chunk(content="Sunny."), chunk(finish="stop"), usage_chunk(COUNTS))


@contextmanager
def small_disk(folder: Path, kills: int):
    """A file system of its own at this folder, with room for the calls of so many lives. Raises
    CalledProcessError where that is not allowed."""
    folder.mkdir()
    size = f"size={DISK_MB + round(kills * KILL_MB)}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class Callers:
    """Threads that ask until they are told to stop; `whole` are the ids of the answers that were read
    to their end."""

    def __init__(self, port: int, raw: str):
        self._port, self._raw = port, raw
        self.whole: list[str] = []
        self.counted: Counter = Counter()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed),))
            for seed in range(CALLERS)
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _ask(self, dice: random.Random) -> None:
        client = Client(self._port, self._raw)
        while not self._over.is_set():
            try:
                streamed = dice.random() < 0.5
                with_stream = client.open("POST", "/api/v1/chat/completions", ask(stream=streamed))
                if dice.random() < 0.1:
                    with_stream.leave()
                    continue
                body = with_stream.read()
                good = with_stream.status == 200 and not with_stream.broken
                if good and (b"[DONE]" in body or not streamed):
                    self.whole.append(with_stream.request_id)
                self.counted[
                    with_stream.status if good or with_stream.status != 200 else "cut"
                ] += 1
                with_stream.leave()
            except (OSError, http.client.HTTPException):
                self.counted["no relay"] += 1
                self._over.wait(0.02)


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def prepared(folder: Path, disk: Path, url: str) -> tuple[Relay, str]:
    """A relay that has not started, and the token of a rich member."""
    changes = {
        "database": {"path": str(disk / "relay.db")},
        "server": {"port": free_port(), "drain_s": 1},
        "backups": {"every": "never"},
    }
    config = configuration(folder, url, changes)
    with closing(Database(disk / "relay.db", writer=False)) as database:
        alice = accounts.add(database, "alice", "alice has a long password").id
        billing.credit(database, alice, "wallet", billing.nano("100000"), "top_up", "soak")
        raw = tokens.mint(database, alice, "soak")[1]
    path = write_config(folder, config)
    relay = Relay(config["server"]["port"], path, disk / "relay.db", log=folder / "relay.log")
    return relay, raw


def judged(relay: Relay, whole: list[str]) -> list[str]:
    """What is wrong at the end, with room on the disk and nothing running."""
    found = verify.verify(relay.db)
    rows = {row["id"]: row for row in relay.rows()}
    for call in whole:
        row = rows.get(call)
        if row is None or row["cost"] != COST or row["outcome"] != "complete":
            found.append(f"{call} was read whole and is {row and (row['outcome'], row['cost'])}")
    found += [f"{call} is still open" for call, row in rows.items() if not row["closed_at"]]
    return found


def run(kills: int, seed: int) -> list[str]:
    """So many lives of a relay; what is wrong afterwards."""
    dice = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as name,
        small_disk(Path(name) / "disk", kills) as disk,
        FakeUpstream() as fake,
    ):
        fake.always(answer)
        relay, raw = prepared(Path(name), disk, fake.url)
        ballast, callers = disk / "ballast", Callers(relay.port, raw)
        try:
            for number in range(kills):
                ballast.unlink(missing_ok=True)
                if number and dice.random() < FULL:  # the first start makes secret.key
                    fill(ballast)
                relay.start_again()
                time.sleep(dice.uniform(*LIFE_S))
                if dice.random() < FULL:
                    fill(ballast)
                    time.sleep(dice.uniform(*LIFE_S))
                relay.end(signal.SIGKILL)
                if number % 50 == 49:
                    print(f"{number + 1} kills, {len(callers.whole)} whole answers", flush=True)
        finally:
            callers.stop()
        ballast.unlink(missing_ok=True)
        relay.start_again()
        wait_until(lambda: relay.client(raw).chat().status == 200)
        wait_until(lambda: not relay.rows("closed_at IS NULL"))
        relay.end(signal.SIGTERM)
        print(dict(callers.counted), f"{len(callers.whole)} read whole")
        found = judged(relay, callers.whole)
        relay.stop()
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    problems = run(asked.kills, asked.seed)
    for problem in problems[:20]:
        print("WRONG:", problem)
    print(f"{asked.kills} kills, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
