"""What members used on days, from the roll-ups, grouped as somebody wants it.

Owns these sums. Counts are LLM tokens, money is nano-yuan.
"""

from collections.abc import Iterable

from db import Database

NAMED = {  # group -> the columns that say which
    "day": {"day": "day"},
    "member": {
        "member_id": "user_id",
        "member": "(SELECT name FROM users WHERE users.id = user_id)",
    },
    "token": {
        "token_id": "token_id",
        "token": "(SELECT name FROM tokens WHERE tokens.id = token_id)",
    },
    "model": {"model": "model"},
    "upstream": {"upstream": "upstream"},
}
COUNTED = {
    "calls": "sum(calls)",
    "refused": "sum(refused)",
    "input_tokens": "sum(input_tokens)",
    "cached_tokens": "sum(cached_tokens)",
    "output_tokens": "sum(output_tokens)",
    "cost": "sum(cost)",
    "paid": "sum(charged_quota + charged_team + charged_wallet)",
}
OF_UPSTREAMS = ("calls", "input_tokens", "output_tokens", "cost")


def between(db: Database, first: str, last: str, groups: Iterable[str]) -> list[dict]:
    """What was used from the day `first` to `last`, YYYY-MM-DD, in the order of `key`. `groups` are
    one or more of NAMED; upstreams are counted by day alone. Raises ValueError for others."""
    groups = tuple(groups)
    if not groups or not set(groups) <= set(NAMED):
        raise ValueError(f"give one or more of {', '.join(NAMED)}")
    of_upstreams = "upstream" in groups
    if of_upstreams and not set(groups) <= {"upstream", "day"}:
        raise ValueError("upstreams are counted by day alone")
    table = "daily_upstreams" if of_upstreams else "daily"
    named = {name: sql for group in groups for name, sql in NAMED[group].items()}
    counted = {name: COUNTED[name] for name in (OF_UPSTREAMS if of_upstreams else COUNTED)}
    columns = ", ".join(f'{sql} AS "{name}"' for name, sql in (named | counted).items())
    by = ", ".join(next(iter(NAMED[group].values())) for group in groups)
    rows = db.read().execute(
        f"SELECT {columns} FROM {table} WHERE day BETWEEN ? AND ? GROUP BY {by}", (first, last)
    )
    found = [dict(zip((*named, *counted), row, strict=True)) for row in rows.fetchall()]
    return sorted(found, key=lambda row: key(row, groups))


def key(row: dict, groups: Iterable[str]) -> tuple[str, ...]:
    """What tells a row from the others, and orders them: ids by their number."""
    values = (row[next(iter(NAMED[group]))] for group in groups)
    return tuple(f"{each:020d}" if isinstance(each, int) else each or "" for each in values)
