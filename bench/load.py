"""The load of the benchmark: callers in a process of their own, on raw connections.

`run(job)` starts that process and returns its result. A job says where to call and what: `callers`
callers who each call again as soon as they are answered, for `seconds`; or `streams` streams of
`rate` events a second. Latencies are milliseconds. An event's delay is the time from the upstream's
stamp to its arrival here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field

TAIL = 64  # bytes of a stream kept between two reads: a stamp or an end mark may be cut in two
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CONNECT_PAUSE_S = 0.05


@dataclass(frozen=True)
class Wire:
    """How a stream is asked for on a wire, where an event's stamp stands, and what tells a good
    end."""

    path: str
    stamp: re.Pattern
    end: bytes


WIRES = {
    "chat": Wire("/chat/completions", re.compile(rb'"content":"@(\d+)@'), b"[DONE]"),
    "messages": Wire("/messages", re.compile(rb'"text":"@(\d+)@'), b'"message_stop"}'),
    "responses": Wire("/responses", re.compile(rb'"delta":"@(\d+)@'), b"event: response.completed"),
}


@dataclass
class Job:
    port: int
    path: str
    token: str
    model: str
    seconds: float
    callers: int = 0
    streams: int = 0
    rate: int = 0  # events a second; 0: as fast as they come
    events: int = 0  # per stream; 0: what `seconds` and `rate` make
    ramp_s: float = 1.0  # the streams start one after the other within this time
    wire: str = "chat"
    body: int = 0  # bytes of text that a call brings along
    headers: dict[str, str] = field(default_factory=dict)
    grace_s: float = (
        20.0  # streams that are still incomplete this long after their time have failed
    )


def request(job: Job, content: str, stream: bool) -> bytes:
    """The bytes of one call."""
    asked = {"messages": [{"role": "user", "content": content}], "max_tokens": 64}
    if job.wire == "responses":
        asked = {"input": content, "max_output_tokens": 64}
    payload = json.dumps(
        {"model": job.model, **asked} | ({"stream": True} if stream else {})
    ).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
    path = job.path.replace(WIRES["chat"].path, WIRES[job.wire].path)
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {job.token}\r\n"
        f"Content-Type: application/json\r\n{more}Content-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload


class Caller(asyncio.Protocol):
    """Calls, waits for the whole answer, calls again; reconnects when the server closes."""

    def __init__(self, job: Job, wanted: bytes, latencies: array, failures: list):
        self.job, self.wanted, self.latencies, self.failures = job, wanted, latencies, failures

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.call()

    def call(self) -> None:
        self.received, self.started = b"", time.monotonic_ns()
        self.transport.write(self.wanted)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = LENGTH.search(head)
        if len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
            return
        self.latencies.append(time.monotonic_ns() - self.started)
        if not head.startswith(b"HTTP/1.1 200"):
            self.failures.append(self.received[:300].decode("utf-8", "replace"))
        self.call()


async def calls(job: Job) -> dict:
    """Run the callers for the time of the job."""
    loop, latencies, failures = asyncio.get_running_loop(), array("q"), []
    text = "Say something nice about relays. "
    wanted = request(job, text * max(1, job.body // len(text)), stream=False)
    until, closed = time.monotonic() + job.seconds, 0

    async def caller():
        nonlocal closed
        while time.monotonic() < until:
            try:
                transport, _ = await loop.create_connection(
                    lambda: Caller(job, wanted, latencies, failures), "127.0.0.1", job.port
                )
            except OSError:
                await asyncio.sleep(CONNECT_PAUSE_S)
                continue
            while time.monotonic() < until and not transport.is_closing():
                await asyncio.sleep(min(0.05, max(until - time.monotonic(), 0)))
            closed += transport.is_closing()
            transport.abort()

    await asyncio.gather(*(caller() for _ in range(job.callers)))
    return {
        "calls_per_s": len(latencies) / job.seconds,
        "failed": len(failures),
        "reconnected": closed,
        "failure": failures[0] if failures else None,
    } | percentiles(latencies)


class Listener(asyncio.Protocol):
    """One stream: counts its events and notes their delays."""

    def __init__(self, wire: Wire, wanted: bytes, delays: array, over: asyncio.Future):
        self.wire, self.wanted, self.delays, self.over = wire, wanted, delays, over
        self.first, self.tail, self.events, self.complete = b"", b"", 0, False

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.wanted)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.first:
            self.first = data[:300]
        data = self.tail + data
        end = 0
        for found in self.wire.stamp.finditer(data):
            self.delays.append(now - int(found[1]))
            self.events += 1
            end = found.end()
        self.tail = data[max(end, len(data) - TAIL) :]
        if self.wire.end in data[end:]:
            self.complete = True
            self.transport.abort()

    def connection_lost(self, _) -> None:
        if not self.over.done():
            self.over.set_result(self.complete)


async def streams(job: Job) -> dict:
    """Run the streams of the job; those that fail to end in time are cut and counted."""
    loop, delays = asyncio.get_running_loop(), array("q")
    events = job.events or int(job.seconds * job.rate)
    wanted = request(job, f"events={events} rate={job.rate}", stream=True)
    listeners: list[Listener] = []

    async def stream(number: int) -> bool:
        await asyncio.sleep(job.ramp_s * number / job.streams)
        listener = Listener(WIRES[job.wire], wanted, delays, loop.create_future())
        listeners.append(listener)
        try:
            await loop.create_connection(lambda: listener, "127.0.0.1", job.port)
            return await asyncio.wait_for(listener.over, job.ramp_s + job.seconds + job.grace_s)
        except OSError:  # TimeoutError is one
            return False

    started = time.monotonic()
    ended = await asyncio.gather(*(stream(number) for number in range(job.streams)))
    took = time.monotonic() - started
    complete = [fine and each.events == events for fine, each in zip(ended, listeners, strict=True)]
    broken = [each.first.decode("utf-8", "replace") for each in listeners if each.events != events]
    return {
        "completed": sum(complete),
        "asked": job.streams,
        "events": len(delays),
        "events_per_s": len(delays) / took,
        "failure": broken[0] if broken else None,
    } | percentiles(delays)


def percentiles(nanoseconds: array) -> dict:
    """Median and 99th percentile in milliseconds; None without any value."""
    ordered = sorted(nanoseconds)
    if not ordered:
        return {"p50_ms": None, "p99_ms": None}
    return {
        "p50_ms": ordered[len(ordered) // 2] / 1e6,
        "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e6,
    }


def run(job: Job) -> dict:
    """Run a job in a process of its own; RuntimeError with its last words if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=job.ramp_s + job.seconds + job.grace_s + 60,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def main() -> None:
    job = Job(**json.load(sys.stdin))
    gc.freeze()
    gc.disable()
    print(json.dumps(asyncio.run(streams(job) if job.streams else calls(job))))


if __name__ == "__main__":
    main()
