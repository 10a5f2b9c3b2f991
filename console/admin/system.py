"""The system: version, database, disk, backup, and the proof of the ledger.

Owns the page. The proof is `proof`'s, the copy `db`'s.
"""

import os
import platform
import shutil
import tempfile
import time
from datetime import date
from pathlib import Path

from flask import render_template, send_file

import ops
import proof
from billing import now_ms
from console.admin.door import note, pages, proven
from console.current import state

STARTED_AT = now_ms()
COUNTS = """
SELECT (SELECT count(*) FROM users) AS members, (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) AS tokens,
       (SELECT coalesce(sum(calls), 0) FROM daily) AS calls, (SELECT max(id) FROM entries) AS entries,
       (SELECT count(*) FROM requests WHERE closed_at IS NULL) AS open, sqlite_version() AS sqlite,
       (SELECT min(id) FROM requests) AS oldest"""


@pages.get("/system", endpoint="system")
def page():
    """How the house is."""
    return show()


def show(findings: list[str] | None = None, took_ms: int | None = None) -> str:
    """The page; `findings` are those of a proof that was just made."""
    relay, path = state(), state().db.path
    disk = shutil.disk_usage(path.parent)
    return render_template(
        "admin/system.html", version=ops.VERSION, python=platform.python_version(), started_at=STARTED_AT,
        counts=relay.db.read().execute(COUNTS).fetchone(), database=path, size=size_of(path), disk=disk,
        problem=relay.db.problem, draining=relay.draining, retention=relay.settings.retention.requests_days,
        calls_max=relay.calls_max, findings=findings, took_ms=took_ms)


def size_of(path: Path) -> int:
    """The bytes of the database, with what waits in its log."""
    return sum(each.stat().st_size for end in ("", "-wal") if (each := path.with_name(path.name + end)).exists())


@pages.post("/system/verify")
def verify():
    """Compute the whole ledger again, and say what is wrong with it, if anything is."""
    began = time.monotonic()
    findings = proof.verify(state().db)
    note("ledger.verify", wrong=len(findings))
    return show(findings, round((time.monotonic() - began) * 1000))


@pages.post("/system/backup")
@proven
def backup():
    """A consistent copy of the database, streamed; on this disk its name is gone before it is sent."""
    folder = state().db.path.parent
    note("database.backup")
    with tempfile.TemporaryDirectory(prefix="backup-", dir=folder) as kept:
        copy = Path(kept) / "relay.db"
        state().db.backup(copy)
        file = copy.open("rb")
    response = send_file(file, mimetype="application/vnd.sqlite3", as_attachment=True,
                         download_name=f"relay-{date.today()}.db")
    response.content_length = os.fstat(file.fileno()).st_size
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(file.close)
    return response
