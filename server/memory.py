"""The memory that the process holds, and how often it is looked through.

Glibc keeps what has been freed, unless it is told otherwise. Where the C library is another one, it is
told nothing.
"""

import contextlib
import ctypes
import gc

M_ARENA_MAX = -8  # of <malloc.h>
# After so many new objects the collector looks at those; after so many looks, at older ones too.
COLLECT_AT = (10_000, 20, 20)


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


def keep() -> None:
    """What is there now stays: the collector of cycles looks at it no more.

    It takes what tens of calls at once have made for things that last, and then goes through all
    others too. Of new ones it looks less often for cycles: a call makes a thousand, and hardly any.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)
