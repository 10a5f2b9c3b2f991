"""Streams that have begun and wait for more: one thread looks after all of them.

An answer that would wait gives a `Pause`, and whoever served it has its thread back. Here its
descriptor waits in an epoll; when more has come, or there is room for more, or the time is up, the
answer goes on where it stopped, in the thread that is on duty. What that one does takes microseconds,
so it computes in turns with calls, as the first of the line. Where an answer makes it wait for the
world (the disk at the end), another thread takes the duty over at once: nobody's stream stands still
for another's.
"""

import functools
import logging
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from turns import Pause, Place, turns

log = logging.getLogger("server")

EVENTS_MAX = 64  # taken at one look
SPAN_S = 0.001  # on end with the turn
STANDBY_MAX = 4  # threads that are kept to take the duty over
THREADS_MIN = 2  # one on duty, and one that sees if it is held up where nobody thought of it
LOOK_S = 0.1  # between its looks, while there are streams
HELD_UP_S = 0.1
COMES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
HAS_ROOM = select.EPOLLOUT | select.EPOLLONESHOT


class Streams:
    """`go_on(client)` is called for each that may go on, and then nothing waits for it any more."""

    def __init__(self, go_on: Callable[[Any], None]):
        self._go_on = go_on
        self._epoll = select.epoll()
        self._bell, self._bell_pull = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_pull.setblocking(False)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._paused: dict[int, tuple[Any, float]] = {}  # by descriptor, and until when
        self._ready: deque[Any] = deque()
        self._due = math.inf  # no pause is over before
        self._looking_until = 0.0  # when the look that runs ends by itself
        self._door = threading.Lock()
        self._on_duty: int | None = None  # a thread
        self._busy_since = math.inf  # with one stream
        self._standby: list[Place] = []
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    def wait(self, client: Any, pause: Pause) -> None:
        """Let a client wait for the end of a pause. The caller has nothing more to do with it."""
        with self._door:
            if pause.fd >= 0 and self._arm(pause):
                self._paused[pause.fd] = client, pause.until
                self._due = min(self._due, pause.until)
            else:
                self._ready.append(client)
                self._due = 0.0
            if self._due < self._looking_until:
                self._ring()
            if not self._threads:
                for _ in range(THREADS_MIN):
                    self._add_thread()

    def _arm(self, pause: Pause) -> bool:
        """Let the next event of a descriptor wake who looks; False if it is closed."""
        for arm in (self._epoll.modify, self._epoll.register):
            try:
                arm(pause.fd, HAS_ROOM if pause.room else COMES)
                return True
            except FileNotFoundError:
                continue  # it is new
            except (OSError, ValueError):  # the latter when we are at our end
                break
        return False

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that go on with streams, or could."""
        with self._door:
            return [*self._threads]

    def stop(self) -> None:
        """End the threads, each when it is done with the stream that it has; who waits, waits for
        ever."""
        with self._door:
            self._stopped = True
            standby, self._standby = self._standby, []
        for place in standby:
            place.called.release()
        self._ring()

    def close(self) -> None:
        """After the end of the threads."""
        for each in (self._epoll, self._bell, self._bell_pull):
            each.close()

    def _ring(self) -> None:
        """Wake who looks."""
        try:
            self._bell_pull.send(b"!")
        except OSError:
            pass  # it rings already

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="streams", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        me = threading.get_ident()
        relief = functools.partial(self._pass_on, me)
        while self._take_duty(me):
            while self._on_duty == me and not self._stopped:
                self._look()
                turns.reliefs[me] = relief
                turns.take(first=True)
                try:
                    self._serve(me)
                finally:
                    turns.reliefs.pop(me, None)
                    turns.give()
        with self._door:
            self._threads.discard(threading.current_thread())

    def _take_duty(self, me: int) -> bool:
        """Wait for the duty; False if this thread is not needed."""
        with self._door:
            if self._stopped:
                return False
            if self._on_duty is None:
                self._on_duty = me
                return True
            if len(self._standby) >= STANDBY_MAX:
                return False
            place = Place()
            self._standby.append(place)
        while not place.called.acquire(timeout=LOOK_S if self._paused else 10 * LOOK_S):
            who = self._on_duty
            if time.monotonic() - self._busy_since > HELD_UP_S:
                self._pass_on(who)
        return not self._stopped

    def _pass_on(self, who: int | None) -> None:
        """If this thread is on duty, it is going to wait: another one is from now on."""
        with self._door:
            if self._on_duty != who:
                return
            self._on_duty, self._busy_since = None, math.inf
            if self._standby:
                place = self._standby.pop()
                self._on_duty = place.thread
                place.called.release()
            elif not self._stopped:
                self._add_thread()

    def _look(self) -> None:
        """Wait until somebody may go on, or a new one comes whose pause is over sooner."""
        with self._door:
            now, self._looking_until = time.monotonic(), 0.0 if self._ready else self._due
            wait_s = max(0, self._looking_until - now) if self._looking_until < math.inf else None
        events = self._epoll.poll(wait_s, EVENTS_MAX)
        with self._door:
            self._looking_until = 0.0
            for fd, _ in events:
                if fd in self._paused:
                    self._ready.append(self._paused.pop(fd)[0])
                elif fd == self._bell.fileno():
                    self._bell.recv(4096)
            if self._due <= time.monotonic():
                self._take_due()

    def _take_due(self) -> None:
        """Those whose pause is over go on though nothing has come."""
        now = time.monotonic()
        for fd, (client, until) in [*self._paused.items()]:
            if until <= now:
                del self._paused[fd]
                self._ready.append(client)
        self._due = min((until for _, until in self._paused.values()), default=math.inf)

    def _serve(self, me: int) -> None:
        """Go on with those that may, for a while."""
        end_at = time.monotonic() + SPAN_S
        while self._ready and self._on_duty == me and (now := time.monotonic()) < end_at:
            self._busy_since = now
            try:
                self._go_on(self._ready.popleft())
            except Exception:
                log.exception("a stream could not go on")
            if self._on_duty == me:
                self._busy_since = math.inf
