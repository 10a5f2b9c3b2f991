"""The only door to the disk: connections, the schema's version, and copies of the file.

Everything that writes goes through `Database.write` (how, is writer.py's). This module refuses to
know what the tables mean: where a copy must be judged by the ledger, the judge is handed in.
"""

import glob
import itertools
import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

try:
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:  # no wheel for this machine: the standard library's
    import sqlite3

from db import lock
from db.lock import serving_pid
from db.migrations import MIGRATIONS, SCHEMA
from db.writer import DatabaseError, DirectWriter, GroupWriter, StorageError, Unusable, is_damage

__all__ = [
    "Database",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "Row",
    "StorageError",
    "Unusable",
    "restore",
    "serving_pid",
]

log = logging.getLogger("db")

APPLICATION_ID = 0x50494E47  # "PING", in the file's header
SAFE_SQLITE = (3, 51, 3)  # older ones can lose a commit in WAL mode (sqlite.org/wal.html)
BUSY_MS = 15_000  # patience with another process that writes
BUSY_PAUSE_S = 0.01  # between two tries where SQLite does not wait by itself
SHARED_READERS = 4  # connections for reads of one row
LEFT_S = 86_400  # a draft that nobody wrote to for so long is nobody's
LOOK_S = 0.5  # how long a look at the free space counts
RESERVE_BYTES_MAX = 32 << 20  # kept free for the ends of calls that have begun, or 5 % if less
NEARLY_FULL = "the disk is nearly full"
MOVED = "the file was removed or replaced while it is in use: put it back, or restore a backup and start again"
BESIDE = (
    "",
    "-wal",
    "-shm",
    "-journal",
    ".lock",
)  # what belongs to a database file, by the end of its name
PRAGMAS = {
    "rw": (
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        "temp_store = MEMORY",
        "cache_size = -8000",
        "journal_size_limit = 67108864",
    ),
    "ro": ("query_only = ON", "cache_size = -512"),
}

Row = sqlite3.Row
Error = sqlite3.Error  # what a read may raise
IntegrityError = sqlite3.IntegrityError  # a law of the schema was broken


class Database:
    """One file. `writer=True` is the server's way (a writer thread), False a command's (it writes
    directly).

    Opening makes the file if there is none, and brings an older schema up to date. Raises Unusable,
    StorageError.
    """

    def __init__(self, path: str | Path, writer: bool = True):
        self.path = Path(path)
        self._local = threading.local()
        self._readers: weakref.WeakSet = (
            weakref.WeakSet()
        )  # one whose thread ends goes, and is closed
        self._lock_file: int | None = None
        self._looked_at = -LOOK_S
        with _said(f"{self.path} cannot be opened"):
            make_file(self.path)
            self._identity = _identity(self.path)
            conn = connect(self.path)
            migrate(conn, self.path)
        if writer and sqlite3.sqlite_version_info < SAFE_SQLITE:
            log.warning(
                "SQLite %s is older than 3.51.3, which mended a rare loss of commits; "
                "install pysqlite3 where it has a wheel",
                sqlite3.sqlite_version,
            )
        with _said(f"{self.path} cannot be read"):
            self._shared = [
                (connect(self.path, "ro"), threading.Lock())
                for _ in range(SHARED_READERS if writer else 1)
            ]
        self._writer = (
            GroupWriter(conn, lambda: connect(self.path)) if writer else DirectWriter(conn)
        )

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
            with _said(f"{self.path} cannot be read"):
                conn = self._local.conn = connect(self.path, "ro")
                self._readers.add(conn)
        return conn

    def one(self, sql: str, values=()) -> sqlite3.Row | None:
        """The first row of a short query.

        Threads take turns on a few shared connections: a hundred relaying threads with one each
        would hold ten megabytes for the sake of a read of twenty microseconds.
        """
        conn, turn = self._shared[threading.get_ident() // 4096 % len(self._shared)]
        with turn:
            return conn.execute(sql, values).fetchone()

    def write(self, fn: Callable, *args):
        """Run `fn(conn, *args)` in a transaction; its result, once that is synced to the disk.

        What `fn` raises undoes its own writes only and comes back here. Raises StorageError.
        """
        return self._writer.write(fn, args)

    def write_admitting(self, fn: Callable, *args):
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

    def tables(self):
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
        """Be the one server of this file until `close`. Raises Unusable if another is."""
        self._lock_file = lock.lock(self.path)
        os.pwrite(self._lock_file, str(os.getpid()).encode(), 0)

    def backup(self, target: str | Path) -> None:
        """Write a consistent, compact copy to `target`, whole or not at all, while others read and
        write."""
        target = Path(target)
        if os.path.realpath(target) in {os.path.realpath(self.path) + end for end in BESIDE}:
            raise StorageError(f"{target} is the database itself")
        with _said(f"the backup {target} cannot be written"), _draft(target) as draft:
            vacuum_into(self.path, draft)

    def close(self) -> None:
        """Finish what waits, close all connections, and let the next server in."""
        for conn in [*self._readers, *(conn for conn, _ in self._shared)]:
            conn.close()
        self._writer.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _obstacle(self) -> str | None:
        """Why nothing should begin now."""
        try:
            moved = _identity(self.path) != self._identity
            disk = os.statvfs(self.path.parent)
        except OSError:
            return MOVED
        needed = min(RESERVE_BYTES_MAX, disk.f_blocks * disk.f_frsize // 20)
        return MOVED if moved else NEARLY_FULL if disk.f_bavail * disk.f_frsize < needed else None


class _Connection(sqlite3.Connection):
    """SQLite's own, but weak references to it can be held."""


def connect(path: str | Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection with our settings: `rw`, or `ro`, which neither writes nor checkpoints."""
    conn = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        factory=_Connection,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
    )
    try:
        if mode == "rw":
            _use_wal(conn)
        for pragma in PRAGMAS[mode]:
            conn.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        conn.close()
        raise
    conn.row_factory = Row
    return conn


def _use_wal(conn: sqlite3.Connection) -> None:
    """Set the journal mode.

    While others do so with the same new file, SQLite refuses at once instead of waiting.
    """
    end_at = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end_at:
                raise
        time.sleep(BUSY_PAUSE_S)


def migrate(conn: sqlite3.Connection, path: Path, keep: bool = True) -> None:
    """Make the schema in an empty file, or bring an older one up to date.

    `keep` a copy of it beside the file.
    """
    version = version_of(conn, path)
    if version == len(MIGRATIONS) + 1:
        return
    if version and keep:
        with _draft(path.with_name(f"{path.name}.version-{version}")) as draft:
            vacuum_into(path, draft)
    conn.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(conn, path)  # another process may have been first
        for step in MIGRATIONS[version - 1 :] if version else (_create,):
            step(conn)
        conn.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def version_of(conn: sqlite3.Connection, path: Path) -> int:
    """The version of the schema in the file; 0 if it is empty.

    Raises Unusable if it is not ours or too new.
    """
    ours, version, objects = conn.execute(
        "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_application_id AS a, pragma_user_version AS v"
    ).fetchone()
    if ours != APPLICATION_ID and (ours or version or objects):
        raise Unusable(f"{path} is a database, but not one of this relay")
    if version > len(MIGRATIONS) + 1:
        raise Unusable(
            f"{path} was written by a newer relay (schema {version}; this one knows"
            f" {len(MIGRATIONS) + 1})"
        )
    return version


def vacuum_into(source: Path, target: Path) -> None:
    """Copy a database, compact, as of one moment, into the empty file `target`, and check the copy."""
    with closing(connect(source, "ro")) as conn:
        conn.execute("PRAGMA query_only = OFF")
        conn.execute("VACUUM INTO ?", (str(target),))
    with closing(connect(target, "ro")) as conn:
        version_of(conn, target)
        _check(conn, "quick_check", target)


def restore(
    path: str | Path, source: str | Path, settle: Callable[[Database], list[str]]
) -> Path | None:
    """Put the backup `source` in the database's place; returns where the old one is kept, None if
    there was none.

    `settle` gets the copy before it is used: it ends what was open in it, and names what is wrong
    with it. A server may run: it sees the change like any other. Only a file that SQLite cannot
    open is replaced as a file, which needs the server stopped. Raises Unusable or StorageError, and
    then nothing has changed.
    """
    path, source = Path(path), Path(source)
    with _said(f"{source} cannot be restored"):
        make_file(path, empty=False)
        if path.exists() and path.samefile(source):
            raise Unusable(f"{source} is the database itself")
        with _temporary(path) as draft:
            _copy_checked(source, draft, settle)
            kept = _free_name(
                path.with_name(f"{path.name}.before-restore-{time.strftime('%Y%m%dT%H%M%S')}")
            )
            try:
                return _replace_pages(path, draft, kept)
            except (sqlite3.Error, Unusable):
                return _replace_file(path, draft, kept)


def _free_name(path: Path) -> Path:
    """This name, or the first of path-2, path-3 ... that no file has."""
    names = itertools.chain(
        [path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    )
    return next(name for name in names if not name.exists())


def _copy_checked(source: Path, draft: Path, settle: Callable[[Database], list[str]]) -> None:
    with closing(connect(source, "ro")) as conn:
        if version_of(conn, source) == 0:
            raise Unusable(f"{source} is empty")
        _check(conn, "integrity_check", source)
    vacuum_into(source, draft)
    with closing(connect(draft)) as conn:
        migrate(conn, draft, keep=False)
    with closing(Database.open_for_command(draft)) as copy:
        if problems := settle(copy):
            raise Unusable(f"the ledger in {source} is wrong: {'; '.join(problems)}")


def _replace_pages(path: Path, draft: Path, kept: Path) -> Path:
    """Overwrite the database's pages in one transaction of its own, behind SQLite's locks."""
    with closing(connect(path)) as live, closing(connect(draft, "ro")) as new:
        version_of(live, path)
        try:
            with _draft(kept) as copy:
                vacuum_into(path, copy)
        except (sqlite3.Error, Unusable):  # damaged inside: keep its bytes as they are
            for end in ("", "-wal"):
                if path.with_name(path.name + end).exists():
                    shutil.copy(path.with_name(path.name + end), kept.with_name(kept.name + end))
        new.backup(live)
    return kept


def _replace_file(path: Path, draft: Path, kept: Path) -> Path | None:
    """Put the file itself in place of one that is missing or cannot be opened."""
    held = lock.lock(path)
    try:
        existed = path.exists()
        for end in ("", "-wal", "-shm"):
            if path.with_name(path.name + end).exists():
                os.rename(path.with_name(path.name + end), kept.with_name(kept.name + end))
        os.rename(draft, path)
        _sync(path)
    finally:
        os.close(held)
    return kept if existed else None


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one that takes its name."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def make_file(path: Path, empty: bool = True) -> None:
    """See that the folder is there and the file, if any, is for this user's eyes only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if empty:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if path.exists() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _create(conn: sqlite3.Connection) -> None:
    """Run models.sql, statement by statement, in the transaction that is open."""
    statement = ""
    for line in SCHEMA.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            conn.execute(statement)
            statement = ""
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _check(conn: sqlite3.Connection, pragma: str, path: Path) -> None:
    found = [row[0] for row in conn.execute(f"PRAGMA {pragma}(5)")]
    if found != ["ok"]:
        raise Unusable(f"{path} is damaged: {'; '.join(found)}")


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say what was being done when SQLite or the system refused."""
    try:
        yield
    except sqlite3.Error as err:
        raise (Unusable if is_damage(err) else StorageError)(f"{what}: {err}") from err
    except OSError as err:
        raise StorageError(f"{what}: {err.strerror or err}") from err


@contextmanager
def _temporary(beside: Path) -> Iterator[Path]:
    """An empty file, mode 600, that is gone afterwards unless it was moved.

    A killed process' go a day later.
    """
    for left in beside.parent.glob(f"{glob.escape(beside.name)}.????????.tmp*"):
        with suppress(OSError):  # somebody else was quicker
            if time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink()
    handle, name = tempfile.mkstemp(prefix=f"{beside.name}.", suffix=".tmp", dir=beside.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        for end in BESIDE:
            Path(name + end).unlink(missing_ok=True)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file to fill, which takes `target`'s name once it is whole and on the disk."""
    with _temporary(target) as draft:
        yield draft
        _sync(draft)
        os.replace(draft, target)
        _sync(target)


def _sync(path: Path) -> None:
    """Make a file, and its name in its folder, survive a loss of power."""
    for each in (path, path.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
