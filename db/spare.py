"""A small file whose place on the disk is taken beforehand, for what must not be lost when the disk
is full.

Owns its form: records one behind the other, each with its length and a checksum; the first that does
not fit its sum is the end. It knows nothing of what is in them.
"""

import errno
import os
import struct
import threading
import zlib
from pathlib import Path

BYTES = 256 * 1024
HEAD = struct.Struct(">II")  # of a record: its length, and zlib's CRC-32 of it


class Spare:
    """Records in a file that is as large as it will ever be. Safe to use from many threads."""

    def __init__(self, path: Path):
        """Open the file at this path, or make it; while there is no room for it nothing is kept."""
        self._path = path
        self._lock = threading.Lock()
        self._end = 0
        self._file: int | None = None
        self._closed = False
        with self._lock:
            self._open()

    def _open(self) -> int | None:
        """The open file, None if there is none: the disk may take now what it did not take before."""
        if self._file is not None or self._closed:
            return self._file
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            if os.fstat(file).st_size < BYTES:
                # Written, not only promised: not every file system keeps a promise.
                os.pwrite(file, b"\0" * (BYTES - os.fstat(file).st_size), os.fstat(file).st_size)
                os.fsync(file)
            if os.fstat(file).st_size >= BYTES:
                self._file = file
                return file
        except OSError:
            pass
        os.close(file)
        return None

    def keep(self, record: bytes) -> bool:
        """Write a record so that it outlives the process and the power; False if it cannot be."""
        with self._lock:
            room, file = BYTES - self._end - 2 * HEAD.size, self._open()
            if file is None or not record or len(record) > room:
                return False
            data = HEAD.pack(len(record), zlib.crc32(record)) + record
            try:
                # The end is written with it: what stood there before is no record any more.
                os.pwrite(file, data + HEAD.pack(0, 0), self._end)
                os.fdatasync(file)
            except OSError:
                return False
            self._end += len(data)
            return True

    def kept(self) -> list[bytes]:
        """The records, in the order in which they came. Raises OSError if there is a file that
        cannot be read or forgotten: whoever takes it for empty breaks what was promised."""
        with self._lock:
            file = self._open()
            if file is None:
                if self._path.exists() and self._path.stat().st_size:
                    raise OSError(errno.EACCES, "it cannot be read and written", str(self._path))
                return []
            data = os.pread(file, BYTES, 0)
            found, at = [], 0
            while at + HEAD.size <= len(data):
                length, checksum = HEAD.unpack_from(data, at)
                record = data[at + HEAD.size : at + HEAD.size + length]
                if not length or len(record) < length or zlib.crc32(record) != checksum:
                    break
                found.append(record)
                at += HEAD.size + length
            self._end = at
            return found

    def clear(self) -> None:
        """Forget the records."""
        with self._lock:
            self._end = 0
            if self._file is not None:
                try:
                    os.pwrite(self._file, HEAD.pack(0, 0), 0)
                    os.fdatasync(self._file)
                except OSError:
                    pass  # they are found once more, and were written already

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                os.close(self._file)
                self._file = None
