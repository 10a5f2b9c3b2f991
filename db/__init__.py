"""The only door to the disk.

Everything that writes goes through `Database.write` (how, is writer.py's). This package refuses to
know what the tables mean.
"""

import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from db import copies, lock
from db.connection import Connection, Row, connect, reason, said, sqlite3
from db.files import BESIDE, READ_ONLY, hindrance, identity, make_file, replacing
from db.lock import serving_pid
from db.migrations import SCHEMA
from db.schema import migrate, newest, vacuum_into, version_of
from db.spare import Spare
from db.writer import DatabaseError, DirectWriter, GroupWriter, StorageError, Unusable

__all__ = [
    "SCHEMA",
    "Connection",
    "Database",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "Row",
    "Spare",
    "StorageError",
    "Unusable",
    "connect",
    "restore",
    "serving_pid",
]

log = logging.getLogger("db")
T = TypeVar("T")

SAFE_SQLITE = (3, 51, 3)  # older ones can lose a commit in WAL mode (sqlite.org/wal.html)
SHARED_READERS = 4  # connections for reads of one row
LOOK_S = 0.5  # how long a look at the free space counts
RESERVE_BYTES_MAX = 32 << 20  # kept free for the ends of calls that have begun, or 5 % if less
SPARE_PAGES = 256  # unused pages that no file gives back: a megabyte
STEP = 200  # pages given back at a time
NEARLY_FULL = "the disk is nearly full"
MOVED = "the file was removed or replaced while it is in use: put it back, or restore a backup and start again"

Error = sqlite3.Error  # what a read may raise
IntegrityError = sqlite3.IntegrityError  # a law of the schema was broken


class _Shared:
    """A reading connection that threads take in turns."""

    __slots__ = ("conn", "turn")

    def __init__(self, conn: sqlite3.Connection):
        self.conn, self.turn = conn, threading.Lock()


class Database:
    """One file. `writer=True` is the server's way (a writer thread), False a command's (it writes
    directly).

    Opening makes the file if there is none, and brings an older schema up to date. Raises Unusable,
    StorageError.
    """

    def __init__(self, path: str | Path, writer: bool = True):
        self.path = Path(path)
        self._local = threading.local()
        self._readers: weakref.WeakSet[Any] = (
            weakref.WeakSet()
        )  # one whose thread ends goes, and is closed
        self._lock_file: int | None = None
        self._serving = False
        self._reads_only = False  # since it was opened
        self._looked_at = -LOOK_S
        conn, refused = self._opened_or_why()
        if writer and sqlite3.sqlite_version_info < SAFE_SQLITE:
            log.warning(
                "SQLite %s is older than 3.51.3, which mended a rare loss of commits; "
                "install pysqlite3 where it has a wheel",
                sqlite3.sqlite_version,
            )
        self._identity = identity(self.path)
        with said(f"{self.path} cannot be read"):
            self._shared = [
                _Shared(connect(self.path, "ro")) for _ in range(SHARED_READERS if writer else 1)
            ]
        self._writer: GroupWriter | DirectWriter
        if writer:
            self._writer = GroupWriter(conn, self._opened_again)
            self._reads_only = refused is not None
            if refused:
                self._writer.refuse(refused)
        else:
            self._writer = DirectWriter(conn, refused)

    @classmethod
    def open_for_command(cls, path: str | Path) -> "Database":
        """The database as a command opens it, beside a server that may run."""
        return cls(path, writer=False)

    def read(self) -> sqlite3.Connection:
        """This thread's reading connection.

        Fetch all rows at once: an open cursor keeps the WAL from shrinking.
        """
        conn = getattr(self._local, "conn", None)
        if conn is None:
            with said(f"{self.path} cannot be read"):
                conn = self._local.conn = connect(self.path, "ro")
                self._readers.add(conn)
        return conn

    def one(self, sql: str, values: Any = ()) -> Any:
        """The first row of a short query, or None.

        Threads take turns on a few shared connections: a hundred relaying threads with one each
        would hold ten megabytes for the sake of a read of twenty microseconds.
        """
        shared = self._shared[threading.get_ident() // 4096 % len(self._shared)]
        with shared.turn:
            return shared.conn.execute(sql, values).fetchone()

    def write(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(conn, *args)` in a transaction; its result, once that is synced to the disk.

        What `fn` raises undoes its own writes only and comes back here. Raises StorageError.
        """
        return self._writer.write(fn, args)

    def write_admitting(self, fn: Callable[..., T], *args: Any) -> T:
        """`write` for what begins something: refused while the disk is so full that its end might
        not fit.

        It is not synced by itself: what has begun ends with the process, and so with the machine.
        Its end is.
        """
        now = time.monotonic()
        if now - self._looked_at > LOOK_S:
            if obstacle := self._obstacle():
                raise StorageError(obstacle)
            self._looked_at = now
        return self._writer.write(fn, args, synced=False)

    def tables(self) -> Any:
        """This thread's reading connection with the conveniences of sqlite-utils, loaded only when
        asked for."""
        from sqlite_utils import Database as Tables  # 15 MB that a relaying process need not hold

        return Tables(self.read(), recursive_triggers=False)

    @property
    def healthy(self) -> bool:
        """Whether the disk took the last write, and has room for more."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """Why the disk refused the last write, or would refuse one soon."""
        return self._writer.problem or self._obstacle()

    def serve_lock(self) -> None:
        """Be the one server of this file until `close`, or, where the disk takes no lock, one that
        only reads until it does. Raises Unusable if another is."""
        self._serving = True
        try:
            self._lock_file = lock.lock(self.path)
        except OSError as err:
            if isinstance(self._writer, GroupWriter):
                self._reads_only = True
                self._writer.refuse(self._sentence("served", err))

    def backup(self, target: str | Path) -> None:
        """Write a consistent, compact copy to `target`, whole or not at all, while others read and
        write."""
        target = Path(target)
        if os.path.realpath(target) in {os.path.realpath(self.path) + end for end in BESIDE}:
            raise StorageError(f"{target} is the database itself")
        if target.exists() and not target.is_file():  # /dev/stdout would be a file from then on
            raise StorageError(f"the backup {target} cannot be written: that is no file")
        with said(f"the backup {target} cannot be written"), replacing(target) as draft:
            vacuum_into(self.path, draft)

    def shrink(self) -> int:
        """Give unused pages back to the disk, in steps so small that nobody waits for one; returns
        how many.

        A twentieth of the file stays, for what comes next. A file made before version 1.1 keeps its
        pages until it is restored from a backup: SQLite changes that of new files only.
        """
        given = 0
        while (free := self._unused_pages()) and (gone := self.write(_give_back, min(free, STEP))):
            given += gone
        return given

    def _unused_pages(self) -> int:
        """How many more pages are unused than are kept for what comes."""
        row = self.one(
            "SELECT freelist_count - max(?, page_count / 20) FROM pragma_freelist_count, pragma_page_count",
            (SPARE_PAGES,),
        )
        return max(0, row[0]) if row else 0

    def close(self) -> None:
        """Finish what waits, close all connections, and let the next server in."""
        for conn in [*self._readers, *(each.conn for each in self._shared)]:
            conn.close()
        self._writer.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _obstacle(self) -> str | None:
        """Why nothing should begin now."""
        try:
            moved = identity(self.path) != self._identity
            disk = os.statvfs(self.path.parent)
        except OSError:
            return MOVED
        if moved:
            return MOVED
        if disk.f_flag & os.ST_RDONLY:
            return READ_ONLY
        needed = min(RESERVE_BYTES_MAX, disk.f_blocks * disk.f_frsize // 20)
        return NEARLY_FULL if disk.f_bavail * disk.f_frsize < needed else None

    def _opened_or_why(self) -> tuple[Connection | None, str | None]:
        """A connection that writes, or why there is none though the file can be read. Raises
        Unusable, or StorageError where it cannot even be read."""
        try:
            with said(f"{self.path} cannot be opened"):
                make_file(self.path)
                conn = connect(self.path)
                migrate(conn, self.path)
                return conn, None
        except StorageError as err:
            refused = StorageError(self._sentence("opened", err.__cause__ or err))
            try:
                with closing(connect(self.path, "ro")) as reader:
                    if version_of(reader, self.path) == newest():
                        return None, str(refused)
            except sqlite3.Error:
                pass
            raise refused from err

    def _opened_again(self) -> Connection:
        """A new connection that writes, once the disk takes what a server needs."""
        if why := hindrance(self.path):  # SQLite would open it, to read
            raise StorageError(f"{self.path} cannot be written: {why}")
        try:
            if self._serving and self._lock_file is None:
                self._lock_file = lock.lock(self.path)
            return self._opened_anew() if self._reads_only else connect(self.path)
        except (OSError, sqlite3.Error) as err:
            raise StorageError(self._sentence("written", err)) from err

    def _opened_anew(self) -> Connection:
        """A connection that writes, after all that were opened to read are gone: they may believe
        that nobody writes, and share what lies beside the file as they found it."""
        self._local = threading.local()
        gc.unfreeze()  # a server looks no more at what its start made, and readers are among it
        gc.collect()  # the standard library's connections lie in circles with their statements
        with ExitStack() as turns:
            for each in self._shared:
                turns.enter_context(each.turn)
                each.conn.close()
            try:
                conn = connect(self.path)
                self._reads_only = False
            finally:
                for each in self._shared:
                    each.conn = connect(self.path, "ro")
        return conn

    def _sentence(self, done: str, err: BaseException) -> str:
        """Why the file cannot be written, opened or served."""
        with suppress(OSError):
            return f"{self.path} cannot be {done}: {hindrance(self.path) or reason(err)}"
        return f"{self.path} cannot be {done}: {reason(err)}"


def _give_back(conn: sqlite3.Connection, pages: int) -> int:
    """Give so many pages back, one a statement: the standard library's sqlite3 stops such a one at
    its first page."""
    before = _free_pages(conn)
    for _ in range(pages):
        conn.execute("PRAGMA incremental_vacuum(1)").fetchall()
    return before - _free_pages(conn)


def _free_pages(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA freelist_count").fetchone()[0])


def restore(
    path: str | Path, source: str | Path, settle: Callable[[Database], list[str]]
) -> Path | None:
    """Put the backup `source` in the database's place, as `copies.restore` does; `settle` gets the
    copy open, as a command opens it."""

    def judge(draft: Path) -> list[str]:
        with closing(Database.open_for_command(draft)) as copy:
            return settle(copy)

    return copies.restore(path, source, judge)
