"""In what order targets are tried.

Owns one function: by priority, then by weight; calls of one conversation go to the same target as
long as it can be asked, because that is where the provider's cache knows its beginning.
"""

import hashlib
import math
import random


def order(targets, affinity: str | None) -> list:
    """The targets in the order in which to try them. `affinity` is the conversation's key, None if
    there is none.

    Weighted rendezvous hashing (Thaler and Ravishankar; with logarithms for the weights): when a
    target drops out, only its own conversations move.
    """
    if len(targets) < 2:
        return list(targets)
    return sorted(targets, key=lambda target: (target.priority, _score(target, affinity)))


def _score(target, affinity: str | None) -> float:
    name = f"{affinity}|{target.upstream.name}|{target.model}".encode()
    drawn = (
        random.random()
        if affinity is None
        else int.from_bytes(hashlib.blake2b(name, digest_size=7).digest()) / 2**56
    )
    return -math.log(max(drawn, 1e-18)) / target.weight
