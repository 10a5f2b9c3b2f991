"""Backups that happen by themselves.

Owns when one is due, its name, that it is proved, and which old ones go. How a file is copied is
`db`'s; what is wrong with a ledger is `verify`'s to say.
"""

import contextlib
import logging
import re
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import verify
from db import Database, DatabaseError, meta
from relay import metrics

log = logging.getLogger("backups")

OURS = re.compile(r"relay-\d{8}T\d{6}Z\.db").fullmatch  # an operator's own copies lie beside them
UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
RETRY_S = 600  # after one that failed
LATE = 2  # a backup is late after so many of its periods


class Backups:
    """Makes a backup when one is due; called every so often.

    `tell(kind, trouble)` hears of what fails (a sentence) and of its end (None).
    """

    def __init__(self, relay, tell):
        self._relay, self._tell = relay, tell
        self._again_at = 0.0

    def __call__(self) -> None:
        now, rules = time.time(), self._relay.settings.backups
        every_s = period_s(rules.every)
        if not every_s:
            metrics.backup_age.set(-1)
            return
        age_s = self.age_s(now)
        if (age_s is None or age_s >= every_s) and time.monotonic() >= self._again_at:
            self._make(now)
            age_s = self.age_s(now)
        metrics.backup_age.set(-1 if age_s is None else age_s)

    @property
    def folder(self) -> Path:
        """Where they are: beside the database, if the setting says no more."""
        return self._relay.db.path.parent / self._relay.settings.backups.folder

    def age_s(self, now: float) -> float | None:
        """Seconds since the newest; None if there is none. One of the future is as of now."""
        made = []
        for each in self._made():
            with contextlib.suppress(FileNotFoundError):  # it has just been pushed out
                made.append(each.stat().st_mtime)
        return max(0.0, now - max(made)) if made else None

    def _made(self) -> list[Path]:
        """The backups that were made here, oldest first."""
        try:
            return sorted(each for each in self.folder.iterdir() if OURS(each.name))
        except OSError:  # there is none yet, or it is not for us
            return []

    def _make(self, now: float) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        target, problem = self.folder / f"relay-{stamp}.db", ""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._relay.db.backup(target)
            problem = "; ".join(wrong_with(target))
        except (DatabaseError, OSError) as err:
            problem = str(err)
        if problem:
            self._again_at = time.monotonic() + RETRY_S
            log.error("no backup was made: %s", problem)
            self._tell("backup", f"No backup could be made: {problem}")
        else:
            self._tell("backup", None)
            log.info("a backup was made: %s", target)
            self._prune()
        fact = {"at": int(now * 1000), "file": target.name, "problem": problem}
        meta.put(self._relay.db, "backup", fact)

    def _prune(self) -> None:
        """Remove the oldest. Only what was named here: whatever else lies there is not ours."""
        for old in self._made()[: -self._relay.settings.backups.keep]:
            old.unlink(missing_ok=True)


def copy(db: Database) -> BinaryIO:
    """A consistent copy of the database, open for reading. On this disk its name is gone already."""
    with tempfile.TemporaryDirectory(prefix="backup-", dir=db.path.parent) as kept:
        target = Path(kept) / "relay.db"
        db.backup(target)
        return target.open("rb")


def period_s(text: str) -> int:
    """ "12h" in seconds; 0 for "never"."""
    return 0 if text == "never" else int(text[:-1]) * UNITS_S[text[-1]]


def wrong_with(path: Path) -> list[str]:
    """What the ledger in a backup has against it."""
    with closing(Database.open_for_command(path)) as copy:
        wrong = verify.verify(copy)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return wrong


def state(relay, now: float) -> str:
    """For /readyz: "ok", "off", "none yet", or what is wrong."""
    every_s = period_s(relay.settings.backups.every)
    if not every_s:
        return "off"
    fact = meta.get(relay.db, "backup") or {}
    if fact.get("problem"):
        return f"failed: {fact['problem']}"
    age_s = Backups(relay, None).age_s(now)
    if age_s is None:
        return "none yet"
    return f"late: {int(age_s)} s old" if age_s > LATE * every_s else "ok"
