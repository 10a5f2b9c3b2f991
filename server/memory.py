"""The memory that the process holds: glibc keeps what has been freed, unless it is told otherwise.

Where the C library is another one, nothing is done.
"""

import contextlib
import ctypes

M_ARENA_MAX = -8  # of <malloc.h>


def share_arenas() -> None:
    """Let threads share the allocator's memory.

    Glibc gives each its own, which a hundred idle ones never give back.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def give_back() -> None:
    """Give the system what is free: hundreds of streams at once would be remembered for ever."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
