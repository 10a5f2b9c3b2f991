"""What is in a file: the version of its schema and the way to today's, and whether it is sound."""

from contextlib import closing
from pathlib import Path

from db.connection import connect, let_shrink, sqlite3
from db.files import replacing
from db.migrations import MIGRATIONS, SCHEMA
from db.writer import Unusable

APPLICATION_ID = 0x50494E47  # "PING", in the file's header


def newest() -> int:
    """The version of today's schema."""
    return len(MIGRATIONS) + 1


def migrate(conn: sqlite3.Connection, path: Path, keep: bool = True) -> None:
    """Make the schema in an empty file, or bring an older one up to date.

    `keep` a copy of it beside the file.
    """
    version = version_of(conn, path)
    if version == newest():
        return
    if version and keep:
        with replacing(path.with_name(f"{path.name}.version-{version}")) as draft:
            vacuum_into(path, draft)
    conn.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(conn, path)  # another process may have been first
        for step in MIGRATIONS[version - 1 :] if version else (_create,):
            step(conn)
        conn.execute(f"PRAGMA user_version = {newest()}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def version_of(conn: sqlite3.Connection, path: Path) -> int:
    """The version of the schema in the file; 0 if it is empty.

    Raises Unusable if it is not ours or too new.
    """
    ours, version, objects = conn.execute(
        "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_application_id AS a, pragma_user_version AS v"
    ).fetchone()
    if ours != APPLICATION_ID and (ours or version or objects):
        raise Unusable(f"{path} is a database, but not one of this relay")
    if version > newest():
        raise Unusable(
            f"{path} was written by a newer relay (schema {version}; this one knows {newest()})"
        )
    return int(version)


def _create(conn: sqlite3.Connection) -> None:
    """Run models.sql, statement by statement, in the transaction that is open."""
    statement = ""
    for line in SCHEMA.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            conn.execute(statement)
            statement = ""
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def vacuum_into(source: Path, target: Path) -> None:
    """Copy a database, compact, as of one moment, into the empty file `target`, and check the copy."""
    with closing(connect(source, "ro")) as conn:
        conn.execute("PRAGMA query_only = OFF")
        let_shrink(conn)
        conn.execute("VACUUM INTO ?", (str(target),))
    with closing(connect(target, "ro")) as conn:
        version_of(conn, target)
        check(conn, "quick_check", target)


def check(conn: sqlite3.Connection, pragma: str, path: Path) -> None:
    found = [row[0] for row in conn.execute(f"PRAGMA {pragma}(5)")]
    if found != ["ok"]:
        raise Unusable(f"{path} is damaged: {'; '.join(found)}")
