"""Who writes, and in what order: the server's group commit, and a command's direct way.

Owns transactions: when they begin, what shares one, who is told of a failure. It is handed
connections and functions to run on them, and refuses to know the file, the schema, or SQLite itself
beyond its error codes.

    DatabaseError              the database cannot be used; the message is a sentence for the
    operator
     ├─ StorageError           the disk refuses just now (full, read-only, busy): nothing was
     written, later may do └─ Unusable               this file will not do: damaged, newer than this
     program, not ours, or in use
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from turns import Place, turns

if TYPE_CHECKING:
    from sqlite3 import Connection

log = logging.getLogger("db")
T = TypeVar("T")  # what a write gives back

BATCH_MAX = 256  # jobs in one transaction
WAITING_MAX = 4096  # jobs in the queue; more are refused
PROBE_S = 1  # between looks at a disk that refused
DISK_CODES = {
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    13,
    14,
    15,
    26,
}  # busy, read-only, I/O, full ...: sqlite.org/rescode.html
DAMAGE_CODES = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB


class DatabaseError(Exception):
    """The database cannot be used."""


class StorageError(DatabaseError):
    """The disk or a lock refused the write; nothing of it happened, and it may be tried again."""


class Unusable(DatabaseError):
    """The file cannot serve as this relay's database."""


class GroupWriter:
    """One writes at a time, and for all that wait: whoever comes when nobody is writing, runs all
    waiting jobs in one transaction, and none takes another down. Then the first of those that came
    meanwhile does the same.

    That is group commit without a thread of its own: handing each write to another thread, and the
    answer back, would cost more than the write. A job may be run twice before it counts, and in any
    thread, so it does nothing but write. A caller goes on only after the commit. If the disk
    refuses, every job of the batch hears so, and the next one gets a new connection; while there is
    a problem the disk is probed once a second.

    A commit is synced, unless every job in it has said that it need not be: it then holds through a
    crash of the process, and through a loss of power from the next synced commit on.
    """

    def __init__(self, conn: "Connection | None", reconnect: Callable[[], "Connection"]):
        self.problem: str | None = None
        self._conn = conn
        self._reconnect = reconnect
        self._mode: tuple[Any, ...] = (
            None,
            True,
        )  # a connection, and whether its commits are synced
        self._waiting: deque[_Job] = deque()  # the first of them writes, or will
        self._door, self._closed, self._writing = threading.Lock(), False, False
        self._free = threading.Condition(self._door)

    def write(self, fn: Callable[..., T], args: tuple[Any, ...], synced: bool = True) -> T:
        job = _Job(fn, args, synced)
        with self._door:
            if self._closed:
                raise StorageError("the database is closed")
            if len(self._waiting) >= WAITING_MAX:
                raise StorageError("too many writes are waiting")
            self._waiting.append(job)
            mine, self._writing = not self._writing, True
        if not mine:  # it is done by another, or is called to write
            turns.leave(job.place)
            turns.wait(job.place)
        if not job.done:
            self._write_for_all(job.place)
            turns.wait(job.place)
        if job.error is not None:
            raise job.failure()
        result: T = job.result
        return result

    def refuse(self, why: str) -> None:
        """Write nothing until there is a new connection, which is tried once a second."""
        with self._free:
            self._free.wait_for(lambda: not self._writing)
            self._give_up_connection()
            self._note(StorageError(why))

    def close(self) -> None:
        with self._free:
            self._closed = True
            self._free.wait_for(lambda: not self._writing)
            conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _write_for_all(self, mine: Place) -> None:
        with self._door:
            jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
        try:
            self._commit(jobs, mine)
        finally:
            with self._door:
                following = self._waiting[0] if self._waiting else None
                self._writing = following is not None
                if self._closed:  # else nobody waits
                    self._free.notify_all()
            for job in jobs:
                job.done = True
            turns.call(each.place for each in ([following, *jobs] if following else jobs))

    def _commit(self, jobs: list[Any], mine: Place) -> None:
        changed = False
        try:
            conn = self._conn = self._conn or self._reconnect()
            before = conn.total_changes
            self._sync(conn, any(job.synced for job in jobs))
            if not _together(conn, jobs):
                _apart(conn, jobs)
            turns.leave(mine)  # others compute while the disk works
            if conn.in_transaction:
                conn.execute("COMMIT")
            changed = conn.total_changes != before or jobs[0].fn is _probe
        except BaseException as err:  # nothing of this batch has happened
            for job in jobs:
                job.result, job.error = None, _storage_error(err)
        refused = next((job.error for job in jobs if isinstance(job.error, StorageError)), None)
        if refused:
            self._give_up_connection()  # a new one, next time: who knows what this one remembers
        if refused or changed:
            self._note(refused)  # else nothing was written, and nothing is known of the disk

    def _sync(self, conn: "Connection", synced: bool) -> None:
        """Make this connection's commits synced or not."""
        if (conn, synced) != self._mode:
            conn.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._mode = conn, synced

    def _note(self, refused: Exception | None) -> None:
        before, self.problem = self.problem, str(refused) if refused else None
        if self.problem and self.problem != before:
            log.error("a write was refused: %s", self.problem)
        elif before and not self.problem:
            log.warning("the disk takes writes again")
        if self.problem and not before:
            threading.Thread(target=self._probe_until_well, name="prober", daemon=True).start()

    def _probe_until_well(self) -> None:
        while self.problem and not self._closed:
            time.sleep(PROBE_S)
            with contextlib.suppress(StorageError):
                self.write(_probe, ())

    def _give_up_connection(self) -> None:
        conn, self._conn = self._conn, None
        try:
            if conn is not None:
                conn.close()  # rolls back
        except Exception:
            log.exception("the writer's connection could not be closed")


class DirectWriter:
    """A command's way of writing: one transaction a job, behind SQLite's lock.

    Threads take turns.
    """

    def __init__(self, conn: "Connection | None", refused: str | None = None):
        self.problem = refused
        self._conn, self._lock = conn, threading.Lock()

    def write(self, fn: Callable[..., T], args: tuple[Any, ...], synced: bool = True) -> T:
        with self._lock:
            if self._conn is None:
                raise StorageError(self.problem or "the database is closed")
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                result = fn(self._conn, *args)
                self._conn.execute("COMMIT")
            except BaseException as err:
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")
                self.problem = str(err) if is_storage(err) else self.problem
                raise _storage_error(err) if is_storage(err) else err
            self.problem = None
            return result

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()


class _Job:
    __slots__ = ("args", "done", "error", "fn", "place", "result", "synced")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], synced: bool = True):
        self.fn, self.args, self.synced = fn, args, synced
        self.place, self.done = Place(), False
        self.result: Any = None
        self.error: BaseException | None = None

    def failure(self) -> BaseException:
        """What it failed with, which the job forgets: they would hold each other."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def run(self, conn: "Connection") -> bool:
        """Do it; whether it went well. Raises if the disk undid the whole transaction."""
        try:
            self.result, self.error = self.fn(conn, *self.args), None
            return True
        except BaseException as err:
            if not conn.in_transaction:
                raise
            self.result, self.error = None, _storage_error(err) if is_storage(err) else err
            return False


def _together(conn: "Connection", jobs: list[Any]) -> bool:
    """Begin a transaction with all jobs; False, and nothing done, if one of several failed.

    That is rare.
    """
    conn.execute("BEGIN IMMEDIATE")
    for job in jobs:
        if not job.run(conn):
            conn.execute("ROLLBACK")
            return len(jobs) == 1
    return True


def _apart(conn: "Connection", jobs: list[Any]) -> None:
    """Begin a transaction with all jobs, each with a savepoint, so that one can be undone alone.

    It costs a sixth more.
    """
    conn.execute("BEGIN IMMEDIATE")
    for job in jobs:
        conn.execute("SAVEPOINT job")
        if not job.run(conn):
            conn.execute("ROLLBACK TO job")
        conn.execute("RELEASE job")


def _probe(conn: "Connection") -> None:
    """Write a page and change nothing."""
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    conn.execute(f"PRAGMA user_version = {version}")


def is_storage(err: BaseException) -> bool:
    """Whether it is the disk or a lock that speaks, and not a law of the schema or a mistake in a
    statement."""
    return _code(err) in DISK_CODES


def is_damage(err: BaseException) -> bool:
    """Whether the file itself is broken."""
    return _code(err) in DAMAGE_CODES


def _code(err: BaseException) -> int:
    return (getattr(err, "sqlite_errorcode", None) or 0) & 0xFF


def _storage_error(err: BaseException) -> StorageError:
    return StorageError(str(err) or type(err).__name__)
