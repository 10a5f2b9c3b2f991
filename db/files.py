"""The file of a database as a file: who may read it, what lies beside it, and drafts that take its
name once they are whole.
"""

import glob
import os
import pwd
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_S = 86_400  # a draft that nobody wrote to for so long is nobody's
# What belongs to a database file, by the end of its name.
BESIDE = ("", "-wal", "-shm", "-journal", ".lock")
READ_ONLY = "the file system is read-only"


def make_file(path: Path, empty: bool = True) -> None:
    """See that the folder is there and the file, if any, is for this user's eyes only.

    One that is there is not opened: to close it would take away the locks that SQLite holds on it in
    this process (sqlite.org/howtocorrupt.html, 2.2).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if empty:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if path.exists() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def hindrance(path: Path) -> str | None:
    """Why this process may not write a file that is there, or beside it; None if nothing is in the
    way."""
    if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        return READ_ONLY
    for each in (path.parent, *(path.with_name(path.name + end) for end in BESIDE)):
        if each.exists() and not os.access(each, os.W_OK):
            owner, ours = each.stat().st_uid, os.geteuid()
            return f"{each} belongs to user {_name(owner)} and may not be written by {_name(ours)}"
    return None


def _name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one that takes its name."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


@contextmanager
def temporary(beside: Path) -> Iterator[Path]:
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
def replacing(target: Path) -> Iterator[Path]:
    """A file to fill, which takes `target`'s name once it is whole and on the disk."""
    with temporary(target) as draft:
        yield draft
        sync(draft)
        os.replace(draft, target)
        sync(target)


def sync(path: Path) -> None:
    """Make a file, and its name in its folder, survive a loss of power."""
    for each in (path, path.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
