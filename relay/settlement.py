"""What all meters share: the database, the rules of holds, and endings that the disk has not taken.

Whoever has read an answer is charged for it, whatever the disk does meanwhile.
"""

import logging
import threading
from collections.abc import Callable
from zoneinfo import ZoneInfo

import msgspec

import billing
from billing import Price, Usage
from db import Database, Spare, StorageError
from relay import metrics
from relay.gate import Caller

log = logging.getLogger("relay.settlement")


class Kept(msgspec.Struct, frozen=True):
    """An ending that the database has not taken."""

    call_id: str
    end: billing.Ending
    price: Price | None


class Settlement:
    """What all meters share.

    The database, the rules of holds, and endings that the disk has not taken yet.
    """

    def __init__(self, db: Database, settings):
        self.db = db
        self.configure(settings)
        self.on_close: Callable[[Caller, Usage], None] = lambda caller, usage: None
        self._waiting: list[tuple] = []
        self._lock = threading.Lock()
        self._spare = Spare(db.path.with_name(f"{db.path.name}-endings"))

    def configure(self, settings) -> None:
        """Take over the rules of (new) settings."""
        self.hold_output_tokens = settings.billing.hold_output_tokens
        self.overdraft = billing.nano(settings.billing.overdraft)
        self.timezone = ZoneInfo(settings.site.timezone)

    def close(self, call_id: str, end: billing.Ending, price) -> None:
        """Close a call.

        If the disk refuses, the ending waits and `retry` writes it later: in memory, and where there
        was room beforehand, so that whoever has read the answer is charged whatever comes.
        """
        try:
            billing.close(self.db, call_id, end, price)
        except StorageError:
            log.exception("the ending of %s could not be written; it will be tried again", call_id)
            with self._lock:
                self._waiting.append((call_id, end, price))
                self._spare.keep(msgspec.json.encode(Kept(call_id, end, price)))
                metrics.unrecorded.set(len(self._waiting))

    def end(self) -> None:
        """Let the file of what waits go; what is in it is found at the next start."""
        self._spare.close()

    def recover(self) -> None:
        """Write the endings that the last process could not. Raises StorageError, also where what
        was kept cannot be read: to go on without it would give answers away."""
        try:
            kept = self._spare.kept()
        except OSError as err:
            raise StorageError(f"the endings kept in {err.filename}: {err.strerror}") from err
        for record in kept:
            try:
                found = msgspec.json.decode(record, type=Kept)
            except msgspec.DecodeError:
                log.exception("an ending that was kept cannot be read")
                continue
            billing.close(self.db, found.call_id, found.end, found.price)
        if kept:
            log.warning("%s endings that the disk had not taken are written now", len(kept))
            self._spare.clear()

    def retry(self) -> None:
        """Write the endings that wait, in order, as far as the disk takes them."""
        while self._waiting:
            try:
                billing.close(self.db, *self._waiting[0])
            except StorageError:
                return
            with self._lock:
                self._waiting.pop(0)
                metrics.unrecorded.set(len(self._waiting))
                if not self._waiting:
                    self._spare.clear()
