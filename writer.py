"""Who writes, and in what order: the server's one writer thread, and a command's direct way.

Owns transactions: when they begin, what shares one, who is told of a failure. It is handed connections and functions
to run on them, and refuses to know the file, the schema, or SQLite itself beyond its error codes.

    DatabaseError              the database cannot be used; the message is a sentence for the operator
     ├─ StorageError           the disk refuses just now (full, read-only, busy): nothing was written, later may do
     └─ Unusable               this file will not do: damaged, newer than this program, not ours, or in use
"""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("db")

BATCH_MAX = 256                    # jobs in one transaction
WAITING_MAX = 4096                 # jobs in the queue; more are refused
PROBE_S = 1                        # between looks at a disk that refused
DISK_CODES = {5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26}    # busy, read-only, I/O, full ...: sqlite.org/rescode.html
DAMAGE_CODES = {11, 26}            # SQLITE_CORRUPT, SQLITE_NOTADB


class DatabaseError(Exception):
    """The database cannot be used."""


class StorageError(DatabaseError):
    """The disk or a lock refused the write; nothing of it happened, and it may be tried again."""


class Unusable(DatabaseError):
    """The file cannot serve as this relay's database."""


class GroupWriter:
    """The one thread that writes: it runs all jobs that wait in one transaction, and none takes another down.

    A job may be run twice before it counts, so it does nothing but write. A caller is released only after the commit.
    If the disk refuses, every job of the batch hears so, and the thread goes on with a new connection; while there is
    a problem it probes the disk once a second.

    A commit is synced, unless every job in it has said that it need not be: it then holds through a crash of the
    process, and through a loss of power from the next synced commit on.
    """

    def __init__(self, conn, reconnect: Callable):
        self.problem: str | None = None
        self._conn, self._reconnect = conn, reconnect
        self._mode: tuple = (None, True)
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._door, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def write(self, fn: Callable, args: tuple, synced: bool = True):
        if self._queue.qsize() >= WAITING_MAX:
            raise StorageError("too many writes are waiting")
        job = _Job(fn, args, synced)
        with self._door:
            if self._closed:
                raise StorageError("the database is closed")
            self._queue.put(job)
        job.done.acquire()
        if job.error is not None:
            raise job.error
        return job.result

    def close(self) -> None:
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (jobs := self._gather()) is not None:
            self._commit(jobs)
            for job in jobs:
                job.done.release()
        if self._conn is not None:
            self._conn.close()

    def _gather(self) -> list | None:
        """What waits, at least one job; after a problem a probe, if none comes for a second; None at the end."""
        try:
            jobs = [self._queue.get(timeout=PROBE_S if self.problem else None)]
        except queue.Empty:
            return [_Job(_probe, ())]
        while jobs[-1] is not None and len(jobs) < BATCH_MAX and not self._queue.empty():
            jobs.append(self._queue.get_nowait())
        if jobs[-1] is None and len(jobs) > 1:
            self._queue.put(jobs.pop())            # the end is for the next turn; nothing comes after it
        return jobs if jobs[-1] is not None else None

    def _commit(self, jobs: list) -> None:
        changed = False
        try:
            conn = self._conn = self._conn or self._reconnect()
            before = conn.total_changes
            self._sync(conn, any(job.synced for job in jobs))
            if not _together(conn, jobs):
                _apart(conn, jobs)
            changed = conn.total_changes != before or jobs[0].fn is _probe
        except BaseException as err:               # nothing of this batch has happened
            for job in jobs:
                job.result, job.error = None, _storage_error(err)
        refused = next((job.error for job in jobs if isinstance(job.error, StorageError)), None)
        if refused:
            self._give_up_connection()             # a new one, next time: who knows what this one remembers
        if refused or changed:
            self._note(refused)                    # else nothing was written, and nothing is known of the disk

    def _sync(self, conn, synced: bool) -> None:
        """Make this connection's commits synced or not."""
        if (conn, synced) != self._mode:
            conn.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._mode = conn, synced

    def _note(self, refused: Exception | None) -> None:
        problem = str(refused) if refused else None
        if problem and problem != self.problem:
            log.error("a write was refused: %s", problem)
        elif self.problem and not problem:
            log.warning("the disk takes writes again")
        self.problem = problem

    def _give_up_connection(self) -> None:
        conn, self._conn = self._conn, None
        try:
            if conn is not None:
                conn.close()                       # rolls back
        except Exception:
            log.exception("the writer's connection could not be closed")


class DirectWriter:
    """A command's way of writing: one transaction a job, behind SQLite's lock. Threads take turns."""

    def __init__(self, conn):
        self.problem: str | None = None
        self._conn, self._turn = conn, threading.Lock()

    def write(self, fn: Callable, args: tuple, synced: bool = True):
        with self._turn:
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
        self._conn.close()


class _Job:
    __slots__ = ("fn", "args", "synced", "done", "result", "error")

    def __init__(self, fn: Callable, args: tuple, synced: bool = True):
        self.fn, self.args, self.synced = fn, args, synced
        self.done = threading.Lock()
        self.done.acquire()
        self.result = self.error = None

    def run(self, conn) -> bool:
        """Do it; whether it went well. Raises if the disk undid the whole transaction."""
        try:
            self.result, self.error = self.fn(conn, *self.args), None
            return True
        except BaseException as err:
            if not conn.in_transaction:
                raise
            self.result, self.error = None, _storage_error(err) if is_storage(err) else err
            return False


def _together(conn, jobs: list) -> bool:
    """All jobs in one transaction; False, and nothing done, if one of several failed. That is rare."""
    conn.execute("BEGIN IMMEDIATE")
    for job in jobs:
        if not job.run(conn):
            conn.execute("ROLLBACK")
            return len(jobs) == 1
    conn.execute("COMMIT")
    return True


def _apart(conn, jobs: list) -> None:
    """All jobs in one transaction, each with a savepoint, so that one can be undone alone. It costs a sixth more."""
    conn.execute("BEGIN IMMEDIATE")
    for job in jobs:
        conn.execute("SAVEPOINT job")
        if not job.run(conn):
            conn.execute("ROLLBACK TO job")
        conn.execute("RELEASE job")
    conn.execute("COMMIT")


def _probe(conn) -> None:
    """Write a page and change nothing."""
    version, = conn.execute("PRAGMA user_version").fetchone()
    conn.execute(f"PRAGMA user_version = {version}")


def is_storage(err: BaseException) -> bool:
    """Whether it is the disk or a lock that speaks, and not a law of the schema or a mistake in a statement."""
    return _code(err) in DISK_CODES


def is_damage(err: BaseException) -> bool:
    """Whether the file itself is broken."""
    return _code(err) in DAMAGE_CODES


def _code(err: BaseException) -> int:
    return (getattr(err, "sqlite_errorcode", None) or 0) & 0xFF


def _storage_error(err: BaseException) -> StorageError:
    return StorageError(str(err) or type(err).__name__)
