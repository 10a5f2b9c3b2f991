"""The system: version, database, disk, backup, and the proof of the ledger.

Owns the page. The proof is `proof`'s, the copy `db`'s.
"""

import os
import platform
import shutil
import time

from flask import flash, redirect, render_template, send_file, url_for

from console.admin.guard import note, pages, recently_authenticated
from console.context import state
from console.ui import date_range
from console.ui.i18n import gettext as _
from db import meta
from server import backups, contents, jobs, status


@pages.get("/system", endpoint="system")
def page():
    """How the house is, and what the last proof of the ledger found."""
    relay, path = state(), state().db.path
    disk = shutil.disk_usage(path.parent)
    return render_template(
        "admin/system.html",
        version=status.VERSION,
        python=platform.python_version(),
        started_at=contents.STARTED_AT,
        counts=contents.counts(relay.db),
        database=path,
        size=contents.size(path),
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
        proving=jobs.proving(),
    )


@pages.post("/system/notice", endpoint="test_notice")
def send_test():
    """A notice that says that it is a test, to every hook."""
    state().notices.test()
    note("notice.test")
    flash(_("A test notice is on its way. What a hook refuses stands in the log."), "good")
    return redirect(url_for("admin.system"), 303)


@pages.post("/system/verify")
def verify():
    """Compute the whole ledger again, in the background: with a million calls it takes a while."""
    jobs.prove_soon(state().db, lambda: note("ledger.verify"))
    return redirect(f"{url_for('admin.system')}#ledger", 303)


@pages.post("/system/backup")
@recently_authenticated
def backup():
    """A consistent copy of the database, streamed.

    On this disk its name is gone before it is sent.
    """
    note("database.backup")
    file = backups.copy(state().db)
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
