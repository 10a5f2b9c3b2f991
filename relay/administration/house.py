"""The house: its state, the proof of the ledger, backups, notices, and the audit trail."""

import json
import os
import shutil
import time
from typing import Any

import msgspec
from flask import Response, send_file

from db import meta
from members import accounts, audit
from relay.administration.shape import Address, Desk, Listing, Query, RequestBody, page_of, when
from server import backups, contents, jobs, status


class AuditQuery(Query):
    """Of one action; done by or to somebody (a name)."""

    action: str | None = None
    who: str = ""


class AuditRecord(msgspec.Struct):
    """What was done. `by` null: at the command line. Amounts in `detail` are as the ledger has them:
    nano-yuan, and LLM tokens of the grant."""

    id: int
    at: str | None
    by: str | None
    action: str
    target: str | None
    detail: dict[str, Any]


class ProofRecord(msgspec.Struct):
    """The ledger, computed again. `running`: that still goes on, and this is the one before."""

    running: bool
    at: str | None
    took_ms: int | None
    wrong: list[str] | None


class BackupRecord(msgspec.Struct):
    """How backups are: "ok", "off", "none yet", or what is wrong; and the newest."""

    state: str
    folder: str
    at: str | None
    file: str | None


class SystemRecord(msgspec.Struct):
    """The relay and its machine. `problem` and `clock`: what is wrong with the disk and the time."""

    version: str
    started_at: str | None
    demo: bool
    draining: bool
    members: int
    tokens: int
    calls: int
    open: int
    calls_max: int
    database: str
    database_bytes: int
    disk_free_bytes: int
    sqlite: str
    problem: str | None
    clock: str | None
    retention_days: int
    hooks: int
    backup: BackupRecord


class Told(msgspec.Struct):
    """To how many hooks a test notice goes."""

    hooks: int


def trail(desk: Desk) -> Listing[AuditRecord]:
    """What was done, newest first."""
    asked = desk.query
    who = accounts.named(desk.db, asked.who) if asked.who else None
    found = audit.listed(asked.action, who.name if who else asked.who, who.id if who else None)
    return page_of(found.walk(desk.db.read(), asked.after, asked.limit), _done)


def _done(row: Any) -> AuditRecord:
    detail = json.loads(row["detail"] or "{}")
    return AuditRecord(row["id"], when(row["at"]), row["by"], row["action"], row["target"], detail)


def proof(desk: Desk) -> ProofRecord:
    """What the last proof of the ledger found."""
    fact = meta.get(desk.db, "proof") or {}
    at = when(fact.get("at"))
    return ProofRecord(jobs.proving(), at, fact.get("took_ms"), fact.get("wrong"))


def verify(desk: Desk) -> ProofRecord:
    """Compute the whole ledger again. Where that takes long, it goes on in the background."""
    jobs.prove_soon(desk.db, lambda: _note(desk, "ledger.verify"))
    return proof(desk)


def backup_state(desk: Desk) -> BackupRecord:
    """How the backups are that happen by themselves."""
    fact = meta.get(desk.db, "backup") or {}
    folder = str(backups.Backups(desk.relay, None).folder)
    state = backups.state(desk.relay, time.time())
    return BackupRecord(state, folder, when(fact.get("at")), fact.get("file"))


def backup(desk: Desk) -> Response:
    """A consistent copy of the database."""
    _note(desk, "database.backup")
    file = backups.copy(desk.db)
    name = f"relay-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
    response = send_file(
        file, mimetype="application/vnd.sqlite3", as_attachment=True, download_name=name
    )
    response.content_length = os.fstat(file.fileno()).st_size
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(file.close)
    return response


def _note(desk: Desk, action: str) -> None:
    desk.db.write(audit.record, desk.by, action)


def system(desk: Desk) -> SystemRecord:
    """How the relay is."""
    relay, path = desk.relay, desk.db.path
    counts = contents.counts(desk.db)
    return SystemRecord(
        version=status.VERSION,
        started_at=when(contents.STARTED_AT),
        demo=relay.catalog.demo,
        draining=relay.draining,
        members=counts["members"],
        tokens=counts["tokens"],
        calls=counts["calls"],
        open=counts["open"],
        calls_max=relay.calls_max,
        database=str(path),
        database_bytes=contents.size(path),
        disk_free_bytes=shutil.disk_usage(path.parent).free,
        sqlite=counts["sqlite"],
        problem=relay.db.problem,
        clock=relay.clock.problem,
        retention_days=desk.settings.retention.requests_days,
        hooks=len(relay.notices.hooks()),
        backup=backup_state(desk),
    )


def test_notice(desk: Desk) -> Told:
    """A notice that says that it is a test, to every hook."""
    desk.relay.notices.test()
    _note(desk, "notice.test")
    return Told(len(desk.relay.notices.hooks()))


ADDRESSES = (
    Address("GET", "/audit", trail, Listing[AuditRecord], query=AuditQuery),
    Address("GET", "/ledger/proof", proof, ProofRecord),
    Address("POST", "/ledger/verify", verify, ProofRecord, RequestBody),
    Address("GET", "/backup", backup_state, BackupRecord),
    Address("POST", "/backup", backup, bytes, RequestBody, media="application/vnd.sqlite3"),
    Address("GET", "/system", system, SystemRecord),
    Address("POST", "/notices/test", test_notice, Told, RequestBody),
)
