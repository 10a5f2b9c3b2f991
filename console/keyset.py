"""Pages of long lists, newest first: from the key of the last row seen, never by counting rows.

Owns the two ways through a list (`before` and `after` a key), and the promise that a page looks at a bounded number of
rows however rare what it filters for is. Refuses to know what is listed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

SIZE = 30                          # rows on a page
REACH = 20_000                     # rows that one page may look at


@dataclass(frozen=True)
class Page:
    """Rows, newest first, and the keys to go on from (None: nothing is there).

    `cut`: the search ended at its reach, and `older` leads on from there.
    """

    rows: list
    newer: str | int | None = None
    older: str | int | None = None
    cut: bool = False


@dataclass(frozen=True)
class Walk:
    """Up to so many rows from one key on, and the key at which the reach ended the search, if it did."""

    rows: list
    more: bool
    edge: str | int | None


@dataclass(frozen=True)
class List:
    """A list in the database, in SQL of ours; what people typed belongs into `values`.

    `within` is what an index finds, in the order of `key`; `matching` filters what it finds.
    """

    table: str
    columns: str
    key: str
    within: str
    matching: str = ""
    values: dict | None = None

    def page(self, conn, before=None, after=None, size: int = SIZE) -> Page:
        """The rows older than `before`, else those newer than `after`, else the newest."""
        if after is not None and before is None:
            walk = self.walk(conn, after, size, older=False)
            if walk.more or walk.edge is not None:
                rows = walk.rows[::-1]
                return Page(rows, rows[0]["key"] if walk.more else walk.edge, rows[-1]["key"] if rows else after)
        walk = self.walk(conn, before, size)
        rows = walk.rows
        newer = (rows[0]["key"] if rows else before) if before is not None else None
        return Page(rows, newer, rows[-1]["key"] if walk.more else walk.edge, not walk.more and walk.edge is not None)

    def all(self, conn, size: int) -> Iterator[list]:
        """All rows, so many at a time; between two batches nothing is open."""
        start = None
        while True:
            walk = self.walk(conn, start, size)
            yield walk.rows
            start = walk.rows[-1]["key"] if walk.more else walk.edge
            if start is None:
                return

    def walk(self, conn, start, size: int, older: bool = True) -> Walk:
        """Rows from a key on (None: from the end of the list), in the direction of the walk."""
        beyond, up_to, order, last = ("<", ">=", "DESC", "min") if older else (">", "<=", "ASC", "max")
        values = {**(self.values or {}), "start": start, "reach": REACH, "size": size + 1}
        within = self.within + (f" AND {self.key} {beyond} :start" if start is not None else "")
        if self.matching:
            looked, edge = conn.execute(
                f"SELECT count(*), {last}(key) FROM (SELECT {self.key} AS key FROM {self.table} WHERE {within}"
                f" ORDER BY {self.key} {order} LIMIT :reach)", values).fetchone()
            values["edge"] = edge if looked == REACH else None
            within += f" AND {self.matching}" + (f" AND {self.key} {up_to} :edge" if looked == REACH else "")
        rows = conn.execute(f"SELECT {self.key} AS key, {self.columns} FROM {self.table} WHERE {within}"
                            f" ORDER BY {self.key} {order} LIMIT :size", values).fetchall()
        return Walk(rows[:size], len(rows) > size, values.get("edge"))
