"""Notices: what administrators should hear of, told in the log and to a webhook.

Owns what is worth a notice about pockets, that it is told once, and its sending. Upstream health
tells its own. A webhook gets `{"site", "kind", "message", "at"}` by POST; one that cannot be
reached is tried again a few times, and what is lost stands in the log.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator

import msgspec

import billing
from db import Database, meta

log = logging.getLogger("notices")

WAITING_MAX = 200
TRIES = 3
BETWEEN_TRIES_S = 5.0

LOW = """
SELECT users.id, name, grant_balance, wallet_balance FROM balances JOIN users ON users.id = user_id
 WHERE disabled_at IS NULL AND (wallet_balance < :wallet OR grant_balance < :grant)"""
EVER_FILLED = (
    "SELECT EXISTS (SELECT 1 FROM entries WHERE user_id = ? AND pocket = ? AND balance_after > 0)"
)


class Notices:
    """Sends notices one after the other, in a thread of its own.

    `post(url, body)` is the outbound door's.
    """

    def __init__(self, settings, post):
        self.settings = settings
        self._post = post
        self._waiting: queue.Queue = queue.Queue(WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def tell(self, kind: str, message: str) -> None:
        """Say it in the log now, and to the webhook, if there is one, soon."""
        log.warning("%s: %s", kind, message)
        if not self.settings.notices.webhook:
            return
        try:
            self._waiting.put_nowait(
                {
                    "site": self.settings.site.name,
                    "kind": kind,
                    "message": message,
                    "at": time.time_ns() // 1_000_000,
                }
            )
        except queue.Full:
            log.error("too many notices wait for the webhook; this one is lost")
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
                self._thread.start()

    def look_at_pockets(self, db: Database) -> None:
        """Tell of each member whose wallet or grant has fallen under its threshold: once, until it
        is above again.

        A pocket that never held anything has not fallen.
        """
        told = {tuple(each) for each in meta.get(db, "low_pockets", [])}
        low = dict(self._low(db))
        for user_id, pocket in low.keys() - told:
            if db.read().execute(EVER_FILLED, (user_id, pocket)).fetchone()[0]:
                self.tell("pocket_low", low[user_id, pocket])
        if low.keys() != told:
            meta.put(db, "low_pockets", sorted(low))

    def _low(self, db: Database) -> Iterator[tuple[tuple[int, str], str]]:
        """Each pocket that is under its threshold, as (member's id, pocket), and a sentence about
        it."""
        wallet, grant = (
            billing.nano(self.settings.notices.wallet_below),
            self.settings.notices.grant_below,
        )
        if not wallet and not grant:
            return
        for user_id, name, has_grant, has_wallet in (
            db.read().execute(LOW, {"wallet": wallet or -(2**62), "grant": grant}).fetchall()
        ):
            if wallet and has_wallet < wallet:
                yield (
                    (user_id, "wallet"),
                    f"The wallet of {name} holds {billing.yuan(has_wallet)} yuan.",
                )
            if has_grant < grant:
                yield (user_id, "grant"), f"The grant of {name} holds {has_grant} LLM tokens."

    def _run(self) -> None:
        while True:
            body = msgspec.json.encode(self._waiting.get())
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(BETWEEN_TRIES_S)
                try:
                    self._post(self.settings.notices.webhook, body)
                    break
                except Exception as err:
                    log.warning("the webhook did not take a notice: %s", type(err).__name__)
