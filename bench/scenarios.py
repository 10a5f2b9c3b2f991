"""What is measured. Each scenario writes values under labels; the report takes medians of the
rounds.

Targets are measured in turn within each round, so that a slow minute of the machine is slow for all
of them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from bench import load, pages
from bench.load import Job
from bench.relay import Relay
from bench.target import MODEL, Target

MILLION = 1_000_000
IDLE = 1_000  # connections that say nothing
BODY_MIB = 1  # of a large request


@dataclass
class Bench:
    """The servers of one run of the benchmark, and what was found.

    Values[label][target] is a list.
    """

    servers: list  # Relay, LiteLLM
    upstream: Target
    folder: Path
    rounds: int
    quick: bool
    values: dict = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failures: list[str] = field(default_factory=list)
    _full: Relay | None = None

    @property
    def targets(self) -> list[Target]:
        return [self.upstream] + [server.target for server in self.servers]

    def full(self) -> Relay:
        """A relay, stopped, with a million calls in its database; the same for all scenarios."""
        if self._full is None:
            count = MILLION // 20 if self.quick else MILLION
            relay = Relay(self.folder / "full", self.upstream.port, threads=32)
            pages.fill(relay.folder / "relay.db", count)
            relay.target.name, self._full = f"{count:,} rows", relay
        return self._full

    def note(self, label: str, target: Target, value: float | None) -> None:
        self.values[label][target.name].append(value)

    def run_weighed(self, target: Target, **wishes) -> tuple[dict, float | None]:
        """`run`, and the ms of processor time that the target's processes took for it."""
        before = target.cpu_ms() if target.pid else None
        found = self.run(target, **wishes)
        return found, None if before is None else target.cpu_ms() - before

    def run(self, target: Target, **wishes) -> dict:
        """Run a load against a target; what it reports.

        The first failure is kept for the report.
        """
        job = Job(target.port, target.path, target.token, MODEL, headers=target.headers, **wishes)
        found = load.run(job)
        if found["failure"]:
            self.failures.append(f"{target.name}, {wishes}: {found['failure'][:200]}")
        return found


def start(bench: Bench) -> None:
    """From nothing to the first answered call; the last start stays up for the other scenarios."""
    for server in bench.servers:
        for number in range(bench.rounds):
            if number:
                server.stop()
            bench.note("start to first answer, s", server.target, server.start())


def plain(bench: Bench, callers: int, seconds: float) -> None:
    """Whole answers, each caller calling again at once."""
    name = f"{callers} caller{'s' if callers > 1 else ''}"
    for _ in range(bench.rounds):
        for target in bench.targets:
            found, used_ms = bench.run_weighed(target, callers=callers, seconds=seconds)
            bench.note(f"{name}: calls/s", target, found["calls_per_s"])
            if used_ms is not None and found["calls_per_s"]:
                used = used_ms / (found["calls_per_s"] * seconds)
                bench.note(f"{name}: CPU ms a call", target, used)
            bench.note(f"{name}: p50 ms", target, found["p50_ms"])
            bench.note(f"{name}: p99 ms", target, found["p99_ms"])
            bench.note(f"{name}: failed", target, found["failed"])


def streams(bench: Bench, count: int, rate: int, seconds: float) -> None:
    """Streams at a fixed pace: how late their events are, and how many streams end properly."""
    name = f"{count} streams x {rate}/s"
    for _ in range(bench.rounds):
        for target in bench.targets:
            found, used_ms = bench.run_weighed(target, streams=count, rate=rate, seconds=seconds)
            bench.note(f"{name}: completed", target, found["completed"])
            bench.note(f"{name}: event p50 ms", target, found["p50_ms"])
            bench.note(f"{name}: event p99 ms", target, found["p99_ms"])
            note_events(bench, name, target, found, used_ms)


def note_events(bench: Bench, name: str, target: Target, found: dict, used_ms) -> None:
    """The processor time of an event."""
    if used_ms is not None and found["events"]:
        bench.note(f"{name}: CPU us an event", target, used_ms * 1000 / found["events"])


def conversions(bench: Bench, count: int, rate: int, seconds: float) -> None:
    """The same streams as messages and responses, turned from chat on the way.

    Chat's own beside them.
    """
    relay = bench.servers[0].target
    for _ in range(bench.rounds):
        direct = bench.run(bench.upstream, streams=count, rate=rate, seconds=seconds)
        for wire in load.WIRES:
            name = f"{count} {wire} streams x {rate}/s"
            wishes = {"streams": count, "rate": rate, "seconds": seconds, "wire": wire}
            found, used_ms = bench.run_weighed(relay, **wishes)
            bench.note(f"{name}: completed", relay, found["completed"])
            bench.note(f"{name}: event p50 ms", bench.upstream, direct["p50_ms"])
            bench.note(f"{name}: event p50 ms", relay, found["p50_ms"])
            bench.note(f"{name}: event p99 ms", relay, found["p99_ms"])
            note_events(bench, name, relay, found, used_ms)


def memory(bench: Bench, count: int = 500, rate: int = 10, seconds: float = 5) -> None:
    """Resident memory before, during and after many slow streams; run first, on fresh processes."""
    for server in bench.servers:
        target = server.target
        idle = target.rss_mib()
        with Weighing(target) as weighing:
            bench.run(target, streams=count, rate=rate, seconds=seconds)
        bench.note("memory idle, MiB", target, idle)
        bench.note(f"memory at {count} streams, MiB", target, weighing.peak_mib)
        bench.note("memory per stream, KiB", target, (weighing.peak_mib - idle) * 1024 / count)
        bench.note("memory after, MiB", target, target.rss_mib())


class Weighing:
    """Watches the resident memory of a target; `peak_mib` is the most that was seen."""

    def __init__(self, target: Target):
        self.target, self.peak_mib, self._over = target, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak_mib = max(self.peak_mib, self.target.rss_mib())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()


def most_events(bench: Bench, count: int = 50) -> None:
    """As many events as go through when the upstream does not wait between them."""
    for _ in range(bench.rounds):
        for target in bench.targets:
            # The peer carries a fiftieth of the others' events; the time of a round is what counts.
            events = 40 if target.name == "litellm" else 500 if bench.quick else 2000
            found, used_ms = bench.run_weighed(
                target, streams=count, rate=0, events=events, seconds=10, ramp_s=0.1
            )
            bench.note("most events/s", target, found["events_per_s"])
            note_events(bench, "most events", target, found, used_ms)


def idle(bench: Bench, seconds: float) -> None:
    """What a call takes while other connections say nothing."""
    for _ in range(bench.rounds):
        for server in bench.servers:
            target = server.target
            with contextlib.ExitStack() as stack:
                for _ in range(IDLE):
                    address = ("127.0.0.1", target.port)
                    stack.enter_context(socket.create_connection(address, 10))
                found, used_ms = bench.run_weighed(target, callers=1, seconds=seconds)
            name = f"beside {IDLE} idle connections"
            bench.note(f"{name}: p50 ms", target, found["p50_ms"])
            if found["calls_per_s"]:
                used = used_ms / (found["calls_per_s"] * seconds)
                bench.note(f"{name}: CPU ms a call", target, used)


def bodies(bench: Bench, seconds: float) -> None:
    """What a call takes whose request is large: the history of an agent."""
    for _ in range(bench.rounds):
        for target in bench.targets:
            size = BODY_MIB << 20
            found, used_ms = bench.run_weighed(target, callers=1, seconds=seconds, body=size)
            name = f"{BODY_MIB} MiB of body"
            bench.note(f"{name}: p50 ms", target, found["p50_ms"])
            if used_ms is not None and found["calls_per_s"]:
                used = used_ms / (found["calls_per_s"] * seconds)
                bench.note(f"{name}: CPU ms a call", target, used)


def rows(bench: Bench) -> None:
    """The cost of a call in an empty file and beside a million request rows, in alternation."""
    empty, full = Relay(bench.folder / "empty", bench.upstream.port, threads=32), bench.full()
    empty.target.name = "no rows"
    try:
        for relay in (empty, full):
            relay.start()
            relay.await_proof()
            bench.run(relay.target, callers=1, seconds=0.5)  # warm caches
        for _ in range(4 if bench.quick else 12):
            for relay in (empty, full):
                found = bench.run(relay.target, callers=1, seconds=1)
                bench.note("call beside rows: p50 ms", relay.target, found["p50_ms"])
    finally:
        empty.stop()
        full.stop()


def console(bench: Bench) -> None:
    """The console's pages beside a million calls: the median of all, and the slowest by name."""
    relay, served = bench.full(), bench.servers[0].target
    try:
        relay.start()
        for who, (found, cpu_ms) in pages.measured(relay.target).items():
            slowest = max(found, key=found.get)
            bench.note(f"pages of {who}: p50 ms", served, median(found.values()))
            bench.note(f"slowest page of {who}: p50 ms ({slowest})", served, found[slowest])
            bench.note(f"CPU ms a page of {who}", served, cpu_ms)
    finally:
        relay.stop()


def all_of(quick: bool) -> dict:
    """The scenarios by name, in the order in which they run; `start` is always run."""
    seconds = 1.5 if quick else 5
    return {
        "start": start,
        "memory": lambda bench: memory(bench, seconds=seconds),
        "plain-1": lambda bench: plain(bench, 1, seconds / 2),
        "plain-32": lambda bench: plain(bench, 32, seconds / 2),
        "streams-100": lambda bench: streams(bench, 100, 50, seconds),
        "streams-300": lambda bench: streams(bench, 300, 50, seconds),
        "streams-500": lambda bench: streams(bench, 500, 10, seconds),
        "streams-1000": lambda bench: streams(bench, 1000, 2, seconds),
        "idle": lambda bench: idle(bench, seconds / 2),
        "bodies": lambda bench: bodies(bench, seconds / 2),
        "conversions": lambda bench: conversions(bench, 300, 50, seconds),
        "most-events": most_events,
        "rows": rows,
        "pages": console,
    }
