"""The system: version, database, disk, backup, and the proof of the ledger.

Owns the page. The proof is `proof`'s, the copy `db`'s.
"""

import os
import platform
import shutil
import tempfile
import threading
import time
from pathlib import Path

from flask import flash, redirect, render_template, send_file, url_for

from billing import now_ms
from console.admin.guard import note, pages, recently_authenticated
from console.context import state
from console.ui import date_range
from console.ui.i18n import gettext as _
from db import meta
from server import backups, jobs, status

STARTED_AT = now_ms()
PATIENCE_S = 4  # for a proof, before the page says that it runs
COUNTS = """
SELECT (SELECT count(*) FROM users WHERE NOT is_team) AS members,
       (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) AS tokens,
       (SELECT coalesce(sum(calls), 0) FROM daily) AS calls, (SELECT max(id) FROM entries) AS entries,
       (SELECT count(*) FROM requests WHERE closed_at IS NULL) AS open, sqlite_version() AS sqlite,
       (SELECT min(id) FROM requests) AS oldest"""

_proving = threading.Lock()


@pages.get("/system", endpoint="system")
def page():
    """How the house is, and what the last proof of the ledger found."""
    relay, path = state(), state().db.path
    disk = shutil.disk_usage(path.parent)
    return render_template(
        "admin/system.html",
        version=status.VERSION,
        python=platform.python_version(),
        started_at=STARTED_AT,
        counts=relay.db.read().execute(COUNTS).fetchone(),
        database=path,
        size=size_of(path),
        disk=disk,
        problem=relay.db.problem,
        draining=relay.draining,
        clock=relay.clock.problem,
        retention=relay.settings.retention.requests_days,
        calls_max=relay.calls_max,
        backup=meta.get(relay.db, "backup"),
        backup_state=backups.state(relay, time.time()),
        backups=backups.Backups(relay, None).folder,
        hooks=len(relay.notices.hooks()),
        proof=meta.get(relay.db, "proof"),
        proving=_proving.locked(),
    )


@pages.post("/system/notice", endpoint="test_notice")
def send_test():
    """A notice that says that it is a test, to every hook."""
    said = "This is a test. If you read it, notices arrive."
    state().notices.tell("test", said, "error")
    note("notice.test")
    flash(_("A test notice is on its way. What a hook refuses stands in the log."), "good")
    return redirect(url_for("admin.system"), 303)


def size_of(path: Path) -> int:
    """The bytes of the database, with what waits in its log."""
    return sum(
        each.stat().st_size
        for end in ("", "-wal")
        if (each := path.with_name(path.name + end)).exists()
    )


@pages.post("/system/verify")
def verify():
    """Compute the whole ledger again, in the background: with a million calls it takes a while."""
    if _proving.acquire(blocking=False):
        note("ledger.verify")
        worker = threading.Thread(target=_prove, args=(state().db,), name="proof", daemon=True)
        worker.start()
        worker.join(PATIENCE_S)
    return redirect(f"{url_for('admin.system')}#ledger", 303)


def _prove(db) -> None:
    try:
        jobs.prove(db)
    finally:
        _proving.release()


@pages.post("/system/backup")
@recently_authenticated
def backup():
    """A consistent copy of the database, streamed.

    On this disk its name is gone before it is sent.
    """
    folder = state().db.path.parent
    note("database.backup")
    with tempfile.TemporaryDirectory(prefix="backup-", dir=folder) as kept:
        copy = Path(kept) / "relay.db"
        state().db.backup(copy)
        file = copy.open("rb")
    response = send_file(
        file,
        mimetype="application/vnd.sqlite3",
        as_attachment=True,
        download_name=f"relay-{date_range.today()}.db",
    )
    response.content_length = os.fstat(file.fileno()).st_size
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(file.close)
    return response
