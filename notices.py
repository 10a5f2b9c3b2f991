"""Notices: what administrators should hear of, told in the log and to a webhook.

Owns what is worth a notice about pockets, that it is told once, and its sending. Upstream health tells its own.
A webhook gets `{"site", "kind", "message", "at"}` by POST; one that cannot be reached is tried again a few times, and
what is lost stands in the log.
"""

import logging
import queue
import threading
import time

import msgspec

import billing
import facts
from db import Database

log = logging.getLogger("notices")

WAITING_MAX = 200
TRIES = 3
BETWEEN_TRIES_S = 5.0

LOW = """
SELECT users.id, name, grant_balance, wallet_balance FROM balances JOIN users ON users.id = user_id
 WHERE disabled_at IS NULL AND (wallet_balance < :wallet OR grant_balance < :grant)"""


class Notices:
    """Sends notices one after the other, in a thread of its own. `post(url, body)` is the outbound door's."""

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
            self._waiting.put_nowait({"site": self.settings.site.name, "kind": kind, "message": message,
                                      "at": time.time_ns() // 1_000_000})
        except queue.Full:
            log.error("too many notices wait for the webhook; this one is lost")
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
                self._thread.start()

    def look_at_pockets(self, db: Database) -> None:
        """Tell of each member whose wallet or grant has fallen under its threshold: once, until it is above again."""
        rules = self.settings.notices
        wallet, grant = billing.nano(rules.wallet_below), rules.grant_below
        if not wallet and not grant:
            return
        told = set(facts.get(db, "low_pockets", []))
        low = {}
        for user_id, name, has_grant, has_wallet in db.read().execute(
                LOW, {"wallet": wallet or -2**62, "grant": grant}).fetchall():
            if wallet and has_wallet < wallet:
                low[f"{user_id}:wallet"] = f"The wallet of {name} holds {billing.yuan(has_wallet)} yuan."
            if has_grant < grant:
                low[f"{user_id}:grant"] = f"The grant of {name} holds {has_grant} LLM tokens."
        for key in low.keys() - told:
            self.tell("pocket_low", low[key])
        if low.keys() != told:
            facts.put(db, "low_pockets", sorted(low))

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
