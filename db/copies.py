"""Copies of the file: made while others write, and put back behind SQLite's locks.

Refuses to know what the tables mean: where a copy must be judged by the ledger, the judge is handed
in.
"""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from db import lock
from db.connection import connect, said, sqlite3
from db.files import make_file, replacing, sync, temporary
from db.schema import check, migrate, vacuum_into, version_of
from db.writer import Unusable


def restore(
    path: str | Path, source: str | Path, settle: Callable[[Path], list[str]]
) -> Path | None:
    """Put the backup `source` in the database's place; returns where the old one is kept, None if
    there was none.

    `settle` gets the copy before it is used: it ends what was open in it, and names what is wrong
    with it. A server may run: it sees the change like any other. Only a file that SQLite cannot
    open is replaced as a file, which needs the server stopped. Raises Unusable or StorageError, and
    then nothing has changed.
    """
    path, source = Path(path), Path(source)
    with said(f"{source} cannot be restored"):
        make_file(path, empty=False)
        if not source.is_file():
            raise Unusable(f"{source} is no file")
        if path.exists() and path.samefile(source):
            raise Unusable(f"{source} is the database itself")
        with temporary(path) as draft:
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


def _copy_checked(source: Path, draft: Path, settle: Callable[[Path], list[str]]) -> None:
    with closing(connect(source, "ro")) as conn:
        if version_of(conn, source) == 0:
            raise Unusable(f"{source} is empty")
        check(conn, "integrity_check", source)
    vacuum_into(source, draft)
    with closing(connect(draft)) as conn:
        migrate(conn, draft, keep=False)
    if problems := settle(draft):
        raise Unusable(f"the ledger in {source} is wrong: {'; '.join(problems)}")


def _replace_pages(path: Path, draft: Path, kept: Path) -> Path:
    """Overwrite the database's pages in one transaction of its own, behind SQLite's locks."""
    with closing(connect(path)) as live, closing(connect(draft, "ro")) as new:
        version_of(live, path)
        try:
            with replacing(kept) as copy:
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
        sync(path)
    finally:
        os.close(held)
    return kept if existed else None
