"""Connections to a file, with our settings, and the words for what goes wrong with them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:  # pysqlite3 is the standard library's module with a newer SQLite
    import sqlite3 as sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:  # no wheel for this machine: the standard library's
        import sqlite3

from db.writer import StorageError, Unusable, is_damage, is_storage

BUSY_MS = 15_000  # patience with another process that writes
BUSY_PAUSE_S = 0.01  # between two tries where SQLite does not wait by itself
PRAGMAS = {
    "rw": (
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        "temp_store = MEMORY",
        "cache_size = -8000",
        "journal_size_limit = 67108864",
    ),
    "ro": ("query_only = ON", "cache_size = -512", "schema_version"),  # the last reads the file
}

# Each value of these would otherwise be asked, by exceptions, how it wants to be bound.
sqlite3.register_adapter(type(None), dict[None, None]().get)  # None, without a call of Python's
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(bool, int)

Row = sqlite3.Row
Connection = sqlite3.Connection


class _Connection(sqlite3.Connection):
    """SQLite's own, but weak references to it can be held."""


def connect(path: str | Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection with our settings: `rw`, or `ro`, which neither writes nor checkpoints.

    Even to read, SQLite wants to make a file beside the one in WAL mode. Where the disk does not let
    it, a file with an empty log is read as it stands, in the belief that nobody writes.
    """
    try:
        return _connect(path, mode)
    except sqlite3.Error as err:
        refused_by_disk = is_storage(err) and not is_damage(err)
        if mode != "ro" or not refused_by_disk or has_log(Path(path)):
            raise
    return _connect(path, mode, "&immutable=1")


def has_log(path: Path) -> bool:
    """Whether something was written that is not in the file itself yet."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _connect(path: str | Path, mode: str, more: str = "") -> _Connection:
    conn = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}{more}",
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
            conn.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        conn.close()
        raise
    conn.row_factory = Row
    return conn


def _use_wal(conn: sqlite3.Connection) -> None:
    """Set the journal mode.

    While others do so with the same new file, SQLite refuses at once instead of waiting, and so do
    we, for a try is cheap.
    """
    end_at = time.monotonic() + BUSY_MS / 1000
    conn.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            let_shrink(conn)
            conn.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end_at:
                raise
        time.sleep(BUSY_PAUSE_S)
    conn.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


def let_shrink(conn: sqlite3.Connection) -> None:
    """Let a new file, or a copy that is about to be made, give unused pages back. Without effect on
    a file that has tables."""
    if conn.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:  # else it would be written again
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")


@contextmanager
def said(what: str) -> Iterator[None]:
    """Say what was being done when SQLite or the system refused."""
    try:
        yield
    except sqlite3.Error as err:
        raise (Unusable if is_damage(err) else StorageError)(f"{what}: {err}") from err
    except OSError as err:
        raise StorageError(f"{what}: {reason(err)}") from err


def reason(err: BaseException) -> str:
    """Why, in the system's or SQLite's words."""
    return getattr(err, "strerror", None) or str(err)
