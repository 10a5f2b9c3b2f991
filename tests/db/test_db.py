"""The disk's door.

The one writer, refusals of the disk, versions of the schema, backup and restore.
"""

import logging
import os
import sqlite3 as plain_sqlite
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import pytest

import billing
import db
from billing import Usage
from db import SPARE_PAGES, Database, IntegrityError, StorageError, Unusable, restore, schema
from db.connection import PRAGMAS
from db.migrations import MIGRATIONS
from tests.money.ledger_book import ALICE, PRICE, open_book
from tests.stage import wait_until

NORMAL, FULL = 1, 2  # of PRAGMA synchronous


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


def settle(copy: Database) -> list[str]:
    billing.release_orphans(copy)
    return billing.verify(copy)


def note(conn, key: str, value: str = "x") -> None:
    conn.execute("INSERT INTO meta VALUES (?, ?)", (key, value))


def noted(database: Database) -> set[str]:
    return {row["key"] for row in database.read().execute("SELECT key FROM meta").fetchall()}


# ---- writing


def test_a_write_is_there_for_others_when_its_caller_goes_on(book):
    with closing(db.connect(book.db.path, "ro")) as stranger:
        book.db.write(note, "one")
        assert stranger.execute("SELECT count(*) FROM meta").fetchone()[0] == 1


@pytest.mark.parametrize("writer", [True, False])
def test_what_a_write_raises_undoes_it_and_comes_back(tmp_path, writer):
    with closing(Database(tmp_path / "x.db", writer)) as database:

        def fail(conn):
            note(conn, "half")
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            database.write(fail)
        assert noted(database) == set()
        database.write(note, "whole")
        assert noted(database) == {"whole"} and database.healthy


def test_one_that_fails_takes_no_other_of_its_batch_down(book):
    with one_batch(
        book.db, [lambda n=n: book.db.write(note, f"key {n % 20}") for n in range(40)]
    ) as errors:
        pass
    assert len(errors) == 20 and all(
        isinstance(err, IntegrityError) for err in errors
    )  # every key came twice
    assert noted(book.db) == {f"key {n}" for n in range(20)}


def test_commands_write_beside_a_server(book):
    script = (
        "import sys; from db import Database; d = Database(sys.argv[1], writer=False)\n"
        "for n in range(50):\n"
        "    d.write(lambda c: c.execute('INSERT INTO meta VALUES (?, ?)', (f'command {n}', '')))"
    )
    command = subprocess.Popen([sys.executable, "-c", script, str(book.db.path)])
    written = 0
    while command.poll() is None:
        book.db.write(note, f"server {written}")
        written += 1
    assert command.returncode == 0 and len(noted(book.db)) == 50 + written


def test_a_closed_database_refuses_to_write(tmp_path):
    database = Database(tmp_path / "x.db")
    database.close()
    database.close()
    with pytest.raises(StorageError):
        database.write(note, "late")


def test_what_waits_when_it_is_closed_is_still_written(tmp_path):
    database, entered, go = Database(tmp_path / "x.db"), threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=database.write, args=(lambda conn: (entered.set(), go.wait(60)),))
    ]
    threads[0].start()
    assert entered.wait(60)
    threads += [threading.Thread(target=database.write, args=(note, f"{n}")) for n in range(5)]
    for thread in threads[1:]:
        thread.start()
    assert wait_until(lambda: len(database._writer._waiting) == 5)
    threads.append(threading.Thread(target=database.close))
    threads[-1].start()
    assert wait_until(lambda: database._writer._closed)
    go.set()
    for thread in threads:
        thread.join(60)
    with closing(Database(tmp_path / "x.db", writer=False)) as again:
        assert noted(again) == {f"{n}" for n in range(5)}


def test_more_than_one_transaction_holds_are_written_in_turn(book, monkeypatch):
    monkeypatch.setattr("db.writer.BATCH_MAX", 3)
    with one_batch(book.db, [lambda n=n: book.db.write(note, f"{n}") for n in range(10)]) as errors:
        pass
    assert errors == [] and noted(book.db) == {f"{n}" for n in range(10)}


def test_too_many_that_wait_are_refused(book, monkeypatch):
    monkeypatch.setattr("db.writer.WAITING_MAX", 0)
    with pytest.raises(StorageError, match="waiting"):
        book.db.write(note, "one")


def test_a_reading_connection_cannot_write(book):
    with pytest.raises(db.Error):
        book.db.read().execute("DELETE FROM meta")


@pytest.mark.skipif(
    db.sqlite3.__name__ == "sqlite3.dbapi2" or db.sqlite3.__name__ == "sqlite3",
    reason="the standard library's wait for the garbage collector, and SQLite keeps their files to use again",
)
def test_the_connections_of_threads_that_end_are_closed(book):
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    book.db.read().execute("SELECT 1 FROM meta").fetchall()
    before = files()
    for _ in range(50):
        thread = threading.Thread(
            target=lambda: book.db.read().execute("SELECT 1 FROM meta").fetchall()
        )
        thread.start()
        thread.join()
    assert files() <= before + 2


def test_sqlite_utils_reads_through_the_same_door(book):
    assert [row["name"] for row in book.db.tables()["users"].rows] == ["alice", "bob", "carol"]
    with pytest.raises(db.Error):
        book.db.tables()["meta"].insert({"key": "a", "value": "b"})


# ---- a disk that refuses


def test_a_full_disk_is_said_and_gone_when_there_is_room(tmp_path, monkeypatch, caplog):
    database = Database(tmp_path / "x.db")
    (pages,) = database.read().execute("PRAGMA page_count").fetchone()
    usual = PRAGMAS["rw"]
    monkeypatch.setitem(PRAGMAS, "rw", (*usual, f"max_page_count = {pages}"))
    database.write(lambda conn: conn.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StorageError, match="full"):
        for n in range(1_000):
            database.write(note, f"{n}", "x" * 1_000)
    kept = noted(database)
    assert not database.healthy and "full" in database.problem
    with pytest.raises(StorageError):
        database.write(note, "still full", "x" * 50_000)
    monkeypatch.setitem(PRAGMAS, "rw", usual)
    database.write(note, "room", "x" * 50_000)
    assert database.healthy and noted(database) == kept | {"room"}
    assert "the disk takes writes again" in caplog.text
    database.close()


def test_a_read_only_file_is_noticed_and_its_end_too_without_a_call(tmp_path, monkeypatch):
    monkeypatch.setattr("db.writer.PROBE_S", 0.02)
    database, usual = Database(tmp_path / "x.db"), PRAGMAS["rw"]
    monkeypatch.setitem(PRAGMAS, "rw", (*usual, "query_only = ON"))
    database.write(lambda conn: conn.execute("PRAGMA query_only = ON"))
    with pytest.raises(StorageError, match="readonly"):
        database.write(note, "one")
    assert not database.healthy
    healthy = threading.Event()
    monkeypatch.setattr(database._writer, "_note", noticing(database._writer._note, healthy))
    monkeypatch.setitem(PRAGMAS, "rw", usual)
    assert healthy.wait(60) and database.healthy
    database.write(note, "one")
    database.close()


def noticing(note, event):
    def noted(refused):
        note(refused)
        if refused is None:
            event.set()

    return noted


def test_all_of_a_batch_hear_of_a_commit_that_failed(book, monkeypatch):
    class Broken:
        def __init__(self, conn):
            self._conn = conn

        def __getattr__(self, name):
            return getattr(self._conn, name)

        def execute(self, sql, *args):
            if sql == "COMMIT":
                raise OSError("the disk is gone")
            return self._conn.execute(sql, *args)

    with one_batch(book.db, [lambda n=n: book.db.write(note, f"{n}") for n in range(10)]) as errors:
        book.db._writer._conn = Broken(book.db._writer._conn)
    assert len(errors) == 10 and all(isinstance(err, StorageError) for err in errors)
    assert noted(book.db) == set()
    book.db.write(note, "after")
    assert noted(book.db) == {"after"} and book.db.healthy


@contextmanager
def one_batch(database, writes):
    """Let the writer find all these writes waiting at once.

    Yields, before it does, the list of their errors to be.
    """
    busy, free, errors = threading.Event(), threading.Event(), []

    def run(write):
        try:
            write()
        except Exception as err:
            errors.append(err)

    threads = [
        threading.Thread(target=database.write, args=(lambda conn: (busy.set(), free.wait(60)),))
    ]
    threads[0].start()
    busy.wait(60)
    threads += [threading.Thread(target=run, args=(write,)) for write in writes]
    for thread in threads[1:]:
        thread.start()
    assert wait_until(lambda: len(database._writer._waiting) == len(writes))
    yield errors
    free.set()
    for thread in threads:
        thread.join()


def test_no_call_begins_on_a_disk_that_is_nearly_full_but_those_that_run_may_end(book, monkeypatch):
    book.give(ALICE, wallet="1")
    call_id = book.hold(ALICE, Usage(1, 0, 0))
    monkeypatch.setattr(book.db, "_looked_at", -1e9)
    monkeypatch.setattr(db, "RESERVE_BYTES_MAX", 1 << 62)
    real = os.statvfs(book.db.path.parent)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 0, *real[5:])))
    with pytest.raises(StorageError, match="nearly full"):
        book.hold(ALICE, Usage(1, 0, 0))
    assert "nearly full" in book.db.problem
    assert book.close(call_id, Usage(1, 0, 0)).wallet == PRICE.input


def test_no_call_begins_while_the_file_is_not_where_it_was(book, monkeypatch, tmp_path):
    book.give(ALICE, wallet="1")
    monkeypatch.setattr(db, "LOOK_S", -1)
    os.rename(book.db.path, tmp_path / "elsewhere.db")
    with pytest.raises(StorageError, match="removed or replaced"):
        book.hold(ALICE, Usage(1, 0, 0))
    assert "removed or replaced" in book.db.problem and not book.db.healthy
    book.db.path.write_bytes(b"")
    assert "removed or replaced" in book.db.problem
    os.rename(tmp_path / "elsewhere.db", book.db.path)
    assert book.db.healthy and book.hold(ALICE, Usage(1, 0, 0))


# ---- the file


def test_the_files_are_for_their_owner_only(tmp_path):
    with closing(Database(tmp_path / "data" / "relay.db")) as database:
        database.write(note, "x")
        database.backup(tmp_path / "copy.db")
        modes = {
            path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "data").iterdir()
        }
        assert modes == {"relay.db": "0o600", "relay.db-wal": "0o600", "relay.db-shm": "0o600"}
        assert oct((tmp_path / "data").stat().st_mode & 0o777) == "0o700"
        assert oct((tmp_path / "copy.db").stat().st_mode & 0o777) == "0o600"


def test_only_what_begins_a_call_may_be_committed_without_a_sync(tmp_path):
    def synchronous(conn) -> int:
        return conn.execute("PRAGMA synchronous").fetchone()[0]

    with closing(Database(tmp_path / "x.db")) as database:
        assert [
            database.write(synchronous),
            database.write_admitting(synchronous),
            database.write(synchronous),
        ] == [FULL, NORMAL, FULL]


def test_who_must_be_synced_has_it_for_all_that_commit_together(tmp_path):
    entered, go, found = threading.Event(), threading.Event(), {}

    def wait(conn) -> None:
        entered.set()
        assert go.wait(30)

    def look(conn, who: str) -> None:
        found[who] = conn.execute("PRAGMA synchronous").fetchone()[0]

    with closing(Database(tmp_path / "x.db")) as database:
        threads = [threading.Thread(target=database.write, args=(wait,))]
        threads[0].start()
        assert entered.wait(30)
        threads += [
            threading.Thread(target=database.write_admitting, args=(look, "hold")),
            threading.Thread(target=database.write, args=(look, "charge")),
        ]
        for thread in threads[1:]:
            thread.start()
        assert wait_until(lambda: len(database._writer._waiting) == 2)
        go.set()
        for thread in threads:
            thread.join(30)
    assert found == {"hold": FULL, "charge": FULL}


def test_many_may_open_a_new_file_at_once(tmp_path):
    results = []

    def open_it():
        try:
            Database(tmp_path / "x.db", writer=False).close()
            results.append(None)
        except Exception as err:
            results.append(err)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [None] * 8


def test_a_new_file_that_another_is_about_to_set_up_is_waited_for(tmp_path, monkeypatch):
    other = db.sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("db.connection.time.sleep", lambda seconds: other.execute("COMMIT"))
    with closing(other), closing(Database(tmp_path / "x.db", writer=False)) as database:
        assert database.read().execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_two_servers_of_one_file_are_refused(tmp_path):
    with closing(Database(tmp_path / "x.db")) as first:
        first.serve_lock()
        with closing(Database(tmp_path / "x.db", writer=False)) as second:
            with pytest.raises(Unusable, match="another relay"):
                second.serve_lock()
            first.close()
            second.serve_lock()


def foreign(path):
    with closing(plain_sqlite.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")


def newer(path):
    with closing(Database(path, writer=False)) as database:
        database.write(lambda conn: conn.execute("PRAGMA user_version = 99"))


@pytest.mark.parametrize(
    "make, said",
    [
        (foreign, "not one of this relay"),
        (newer, "newer relay"),
        (lambda path: path.write_bytes(b"no database at all" * 500), "not a database"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
def test_a_file_that_will_not_do_is_named_in_a_sentence(tmp_path, make, said):
    path = tmp_path / "x.db"
    make(path)
    with pytest.raises(db.DatabaseError, match=said):
        Database(path)


def test_an_older_schema_is_brought_up_to_date_and_its_copy_kept(tmp_path, monkeypatch):
    path = tmp_path / "x.db"
    with closing(Database(path)) as database:
        database.write(note, "old")

    before, version = MIGRATIONS, len(MIGRATIONS) + 1

    def first_try(conn):
        conn.execute("CREATE TABLE new (x)")
        raise RuntimeError("the power went")

    monkeypatch.setattr(schema, "MIGRATIONS", (*before, first_try))
    with pytest.raises(RuntimeError):
        Database(path)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*before, lambda conn: conn.execute("CREATE TABLE new (x)"))
    )
    with closing(Database(path)) as database:
        assert (
            noted(database) == {"old"}
            and database.read().execute("SELECT count(*) FROM new").fetchone()[0] == 0
        )
        assert database.read().execute("PRAGMA user_version").fetchone()[0] == version + 1
    monkeypatch.setattr(schema, "MIGRATIONS", before)
    with closing(Database(tmp_path / f"x.db.version-{version}")) as kept:
        assert noted(kept) == {"old"}


def test_an_old_sqlite_is_told_to_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(db, "SAFE_SQLITE", (99, 0, 0))
    with caplog.at_level(logging.WARNING):
        Database(tmp_path / "x.db").close()
    assert "3.51.3" in caplog.text


# ---- size


def test_a_file_shrinks_step_by_step_when_rows_are_gone(tmp_path):
    path = tmp_path / "x.db"
    with closing(Database(path)) as database:
        database.write(fill, 20 << 20)
        database.write(lambda conn: conn.execute("DELETE FROM filler"))
        assert pages(database) > 5000
        assert database.shrink() > 4500
        assert (
            SPARE_PAGES <= pages(database) < SPARE_PAGES + 400
        )  # what stays is for what comes next
        assert database.shrink() == 0
        assert database.one("PRAGMA quick_check")[0] == "ok"
    assert path.stat().st_size < 4 << 20


def test_a_file_of_an_earlier_release_shrinks_once_it_is_restored(tmp_path):
    path, kept = tmp_path / "x.db", tmp_path / "kept.db"
    Database(path).close()
    with closing(db.sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")
        conn.execute("PRAGMA auto_vacuum = NONE")
        conn.execute("VACUUM")
        assert conn.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    with closing(Database(path)) as database:
        database.write(fill, 4 << 20)
        database.write(lambda conn: conn.execute("DELETE FROM filler"))
        assert database.shrink() == 0
        database.backup(kept)
    restore(path, kept, lambda copy: [])
    assert path.stat().st_size < 1 << 20
    with closing(Database(path)) as database:
        database.write(fill, 4 << 20)
        database.write(lambda conn: conn.execute("DELETE FROM filler"))
        assert database.shrink() > 500


def fill(conn, size):
    conn.execute("CREATE TABLE IF NOT EXISTS filler (x)")
    conn.executemany("INSERT INTO filler VALUES (?)", [(bytes(100_000),)] * (size // 100_000))


def pages(database) -> int:
    return database.one("SELECT page_count FROM pragma_page_count")[0]


# ---- backup and restore


def test_a_backup_under_load_is_whole(book, tmp_path):
    book.give(ALICE, wallet="100")
    enough = threading.Event()

    def load():
        while not enough.is_set():
            book.close(book.hold(ALICE, Usage(10, 0, 10)), Usage(10, 0, 10))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(5):
            book.db.backup(tmp_path / f"copy-{n}.db")
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    for n in range(5):
        with closing(Database(tmp_path / f"copy-{n}.db", writer=False)) as copy:
            assert settle(copy) == []
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_backup_goes_nowhere_or_whole(book, tmp_path):
    with pytest.raises(StorageError):
        book.db.backup(tmp_path / "no such folder" / "copy.db")
    (tmp_path / "link.db").symlink_to(book.db.path)
    for end in ("", "-wal", "-shm", ".lock"):
        with pytest.raises(StorageError, match="itself"):
            book.db.backup(f"{book.db.path}{end}")
    with pytest.raises(StorageError, match="itself"):
        book.db.backup(tmp_path / "link.db")
    book.db.backup(tmp_path / "copy.db")
    book.db.write(note, "later")
    book.db.backup(tmp_path / "copy.db")
    with closing(Database(tmp_path / "copy.db", writer=False)) as copy:
        assert noted(copy) == {"later"}


def test_what_a_killed_backup_left_is_cleared_away_by_a_later_one(book, tmp_path):
    left, busy = tmp_path / "copy.db.abcdefgh.tmp", tmp_path / "copy.db.ijklmnop.tmp"
    for path in (left, tmp_path / f"{left.name}-journal", busy, tmp_path / "copy.db.mine"):
        path.write_bytes(b"half")
        if path != busy:
            os.utime(path, (1, 1))
    book.db.backup(tmp_path / "copy.db")
    assert {path.name for path in tmp_path.glob("copy.db*")} == {
        "copy.db",
        busy.name,
        "copy.db.mine",
    }


@pytest.fixture
def backup(book, tmp_path):
    """A backup with money and an open call, and a database that has gone on since."""
    book.give(ALICE, wallet="1")
    book.hold(ALICE, Usage(1_000, 0, 0))
    book.db.backup(tmp_path / "backup.db")
    book.give(ALICE, wallet="5")
    return tmp_path / "backup.db"


def test_a_restore_is_seen_by_a_server_that_runs_and_its_calls_are_released(book, backup):
    kept = db.restore(book.db.path, backup, settle)
    assert book.balance(ALICE).wallet == 10**9 and book.held(ALICE).wallet == 0 and book.is_right()
    book.give(ALICE, wallet="2")
    assert book.balance(ALICE).wallet == 3 * 10**9
    with closing(Database(kept, writer=False)) as old:
        assert billing.balances(old, ALICE)["balance"].wallet == 6 * 10**9


def test_each_restore_keeps_the_file_before_it_however_soon_it_follows(book, backup):
    kept = [db.restore(book.db.path, backup, settle) for _ in range(3)]
    assert len(set(kept)) == 3 and all(each.exists() for each in kept)
    with closing(Database(kept[0], writer=False)) as oldest:
        assert billing.balances(oldest, ALICE)["balance"].wallet == 6 * 10**9


@pytest.mark.parametrize("damage", ["missing", "garbage", "page", "cut"])
def test_a_restore_mends_a_file_that_is_missing_or_broken(book, backup, damage):
    path = book.db.path
    book.db.close()
    bytes_before = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 10_000)
    elif damage == "page":
        path.write_bytes(bytes_before[: 4096 * 3] + bytes(4096 * 5) + bytes_before[4096 * 8 :])
    else:
        path.write_bytes(bytes_before[:5_000])
    kept = db.restore(path, backup, settle)
    assert (kept is None) == (damage == "missing")
    with closing(Database(path, writer=False)) as restored:
        assert (
            billing.balances(restored, ALICE)["balance"].wallet == 10**9
            and billing.verify(restored) == []
        )


def test_a_file_that_cannot_be_opened_is_not_replaced_under_a_server(book, backup):
    book.db.serve_lock()
    with closing(db.connect(book.db.path)) as conn:
        conn.execute("PRAGMA user_version = 99")
    with pytest.raises(Unusable, match="stop it first"):
        db.restore(book.db.path, backup, settle)


def wrong_balance(path):
    with closing(db.connect(path)) as conn:
        conn.execute("UPDATE balances SET wallet_balance = 5 WHERE user_id = 1")


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_balance,
        newer,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), foreign(path)),
        lambda path: path.write_bytes(b"garbage" * 10_000),
        lambda path: path.write_bytes(path.read_bytes()[:-9_000]),
        lambda path: path.write_bytes(
            path.read_bytes()[: 4096 * 3] + bytes(4096 * 5) + path.read_bytes()[4096 * 8 :]
        ),
    ],
    ids=["wrong balance", "newer", "missing", "empty", "foreign", "garbage", "cut", "page"],
)
def test_a_backup_that_fails_its_checks_changes_nothing(book, backup, spoil):
    spoil(backup)
    before, files = book.everything(), set(book.db.path.parent.iterdir())
    with pytest.raises(db.DatabaseError):
        db.restore(book.db.path, backup, settle)
    assert book.everything() == before
    assert {
        path for path in book.db.path.parent.iterdir() if not path.name.startswith("backup.db-")
    } == files


def test_the_database_is_not_restored_from_itself(book):
    with pytest.raises(Unusable, match="itself"):
        db.restore(book.db.path, book.db.path, settle)
