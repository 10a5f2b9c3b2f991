"""Answers that come packed although none was asked for so: gzip or deflate, told by their header.

Owns the unpacking, a bounded piece at a time: what a few bytes can become is the reader's to bound.
"""

import zlib

PIECE_BYTES = 65536  # the most that one step unpacks
PLAIN = ("", "identity")
PACKED = ("gzip", "x-gzip", "deflate")
GZIP_OR_ZLIB, BARE = 47, -15  # zlib's wbits


class Damaged(OSError):
    """What came is no packed data, or not all of it."""


class Unpacker:
    """Unpacks one body. Raises Damaged for an encoding that cannot be read."""

    def __init__(self, encoding: str):
        self._name = encoding.strip().lower()
        if self._name not in PACKED:
            raise Damaged(f"the answer came as {self._name[:40]}, which was not asked for")
        self._inflater: zlib._Decompress | None = None
        self._rest = b""

    def give(self, data: bytes) -> None:
        """More of the packed body."""
        self._rest += data
        if self._inflater is None and len(self._rest) >= 2:
            first, second = self._rest[:2]
            # Some call bare deflate "deflate", which has no header to know it by.
            bare = self._name == "deflate" and (first & 15 != 8 or (first << 8 | second) % 31)
            self._inflater = zlib.decompressobj(BARE if bare else GZIP_OR_ZLIB)

    def more(self) -> bytes:
        """The next piece of what was packed; b"" while there is nothing more to unpack."""
        while self._inflater is not None and self._rest and not self._inflater.eof:
            try:
                data = self._inflater.decompress(self._rest, PIECE_BYTES)
            except zlib.error as err:
                raise Damaged(f"the answer cannot be unpacked: {err}") from None
            self._rest = self._inflater.unconsumed_tail
            if data:
                return data
        return b""

    def finish(self) -> None:
        """The body is over. Raises Damaged if what it holds is not."""
        if self._inflater is None or not self._inflater.eof:
            raise Damaged("the packed answer broke off")
