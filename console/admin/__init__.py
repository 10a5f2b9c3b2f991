"""Administration: the pages that only administrators have, one module a group.

Owns nothing but the list of groups. The door is door.py's: each group puts its pages on the
blueprint there.
"""

from console.admin import (  # noqa: F401
    access,
    audit,
    bill,
    calls,
    codes,
    connect,
    member,
    members,
    models,
    money,
    overview,
    system,
    teams,
    upstreams,
)
from console.admin.guard import pages

__all__ = ["pages"]
