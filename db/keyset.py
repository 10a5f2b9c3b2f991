"""Pages of long lists, newest first: from the key of the last row seen, never by counting rows.

Owns the two ways through a list (`before` and `after` a key), and the promise that a page looks at
a bounded number of rows however rare what it filters for is. Refuses to know what is listed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db.connection import Connection

SIZE = 30  # rows on a page
REACH = 10_000  # rows that one page may look at
Key = str | int | None
KEY_MAX = 2**63 - 1  # the largest integer of SQLite: an address may hold any


@dataclass(frozen=True)
class Page:
    """Rows, newest first, and the keys to go on from (None: nothing is there).

    `cut`: the search ended at its reach, and `older` leads on from there.
    """

    rows: list[Any]
    newer: Key = None
    older: Key = None
    cut: bool = False


@dataclass(frozen=True)
class Walk:
    """Up to so many rows from one key on, and the key at which the reach ended the search, if it
    did."""

    rows: list[Any]
    more: bool
    edge: Key


@dataclass(frozen=True)
class List:
    """A list in the database, in SQL of ours; what people typed belongs into `values`.

    `within` is what an index finds, in the order of `key`; `low` and `high` are keys that it lies
    between (the first included); `matching` filters what is found.
    """

    table: str
    columns: str
    key: str
    within: str
    matching: str = ""
    values: dict[str, Any] | None = None
    low: Key = None
    high: Key = None

    def page(
        self, conn: Connection, before: Key = None, after: Key = None, size: int = SIZE
    ) -> Page:
        """The rows older than `before`, else those newer than `after`, else the newest.

        Where fewer than a page are newer, or too rare to be met within the reach, it is the newest.
        """
        if after is not None and before is None:
            walk = self.walk(conn, after, size, older=False)
            if walk.more or (walk.edge is not None and len(walk.rows) == size):
                return Page(walk.rows[::-1], walk.rows[-1]["key"], walk.rows[0]["key"])
        walk = self.walk(conn, before, size)
        newer = walk.rows[0]["key"] if walk.rows and before is not None else None
        return Page(
            walk.rows,
            newer,
            walk.rows[-1]["key"] if walk.more else walk.edge,
            not walk.more and walk.edge is not None,
        )

    def all(self, conn: Connection, size: int, start: Key = None) -> Iterator[list[Any]]:
        """All rows, or those older than `start`, so many at a time; between two batches nothing is
        open."""
        while True:
            walk = self.walk(conn, start, size)
            yield walk.rows
            start = walk.rows[-1]["key"] if walk.more else walk.edge
            if start is None:
                return

    def walk(self, conn: Connection, start: Key, size: int, older: bool = True) -> Walk:
        """Rows from a key on (None: from the end of the list), in the direction of the walk."""
        span, order = self._span(start, older), "DESC" if older else "ASC"
        edge = self._edge(conn, span, order) if self.matching else None
        if edge is not None:
            span = span | ({"low": edge, "from": ">="} if older else {"high": edge, "to": "<="})
        matching = f" AND {self.matching}" if self.matching else ""
        rows = conn.execute(
            f"SELECT {self.key} AS key, {self.columns} FROM {self.table} WHERE {self._within(span)}{matching}"
            f" ORDER BY {self.key} {order} LIMIT :size",
            {**(self.values or {}), **span, "size": size + 1},
        ).fetchall()
        return Walk(rows[:size], len(rows) > size, edge)

    def _span(self, start: Any, older: bool) -> dict[str, Any]:
        """The keys to look at.

        One lower bound and one upper one, for of two an index uses but one.
        """
        span = {"low": self.low, "from": ">=", "high": self.high, "to": "<"}
        if isinstance(start, int):
            start = max(-KEY_MAX, min(start, KEY_MAX))
        if start is not None and older:
            span["high"] = start if self.high is None else min(start, self.high)
        elif start is not None and (self.low is None or start >= self.low):
            span |= {"low": start, "from": ">"}
        return span

    def _within(self, span: dict[str, Any]) -> str:
        low = f" AND {self.key} {span['from']} :low" if span["low"] is not None else ""
        return (
            self.within
            + low
            + (f" AND {self.key} {span['to']} :high" if span["high"] is not None else "")
        )

    def _edge(self, conn: Connection, span: dict[str, Any], order: str) -> Key:
        """The key at which so many rows have been looked at, or None if the list ends before that."""
        looked, edge = conn.execute(
            f"SELECT count(*), {'min' if order == 'DESC' else 'max'}(key) FROM (SELECT {self.key} AS key"
            f" FROM {self.table} WHERE {self._within(span)} ORDER BY {self.key} {order} LIMIT :reach)",
            {**(self.values or {}), **span, "reach": REACH},
        ).fetchone()
        return edge if looked == REACH else None
