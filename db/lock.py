"""Which process serves a database: a lock beside the file, with the number of the process that
holds it.

The system lets go of it when the process ends, however it ends.
"""

import fcntl
import os
import time
from pathlib import Path

from db.writer import Unusable

TRIES, PAUSE_S = 5, 0.02


def lock(path: Path) -> int:
    """The descriptor of the held lock; closing it, or the process's end, lets go.

    Raises Unusable if another holds it, OSError where the disk takes no lock.
    """
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(TRIES):  # `serving_pid` holds it for a moment when it looks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(PAUSE_S)
        else:
            return _signed(file)
    os.close(file)
    raise Unusable(f"another relay serves {path}; stop it first")


def _signed(file: int) -> int:
    try:
        os.truncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
    except OSError:
        os.close(file)
        raise
    return file


def serving_pid(path: str | Path) -> int | None:
    """The process of the server that serves this file, or None if none does."""
    path = Path(path)
    try:
        file = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        written = os.pread(file, 20, 0)
        return int(written) if written.isdigit() else None
    finally:
        os.close(file)
