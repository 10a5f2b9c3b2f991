"""Notices: what administrators should hear of, told in the log and to a webhook.

Owns what is worth a notice about pockets, that it is told once, and its sending. Upstream health
tells its own. What a hook gets is hooks.py's; one that cannot be reached is tried again a few
times, and what is lost stands in the log.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator

import billing
from db import Database, meta
from server import hooks
from server.hooks import LEVELS
from settings import Hook

log = logging.getLogger("notices")

WAITING_MAX = 2000
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
        self._troubles: dict[str, str] = {}  # those that last

    def tell(self, kind: str, message: str, level: str = "warning") -> None:
        """Say it in the log now, and to the hooks that hear this level, soon."""
        log.log(logging.INFO if level == "info" else logging.WARNING, "%s: %s", kind, message)
        heard = [hook for hook in self.hooks() if LEVELS.index(level) >= LEVELS.index(hook.level)]
        if not heard:
            return
        notice = {
            "site": self.settings.site.name,
            "kind": kind,
            "message": message,
            "at": time.time_ns() // 1_000_000,
        }
        for hook in heard:
            try:
                self._waiting.put_nowait((hook, notice))
            except queue.Full:
                log.error("too many notices wait for the webhook; this one is lost")
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
                self._thread.start()

    def hooks(self) -> list[Hook]:
        """All hooks of the settings."""
        rules = self.settings.notices
        return [*([Hook(url=rules.webhook)] if rules.webhook else []), *rules.hooks]

    def trouble(self, kind: str, message: str | None, level: str = "error") -> None:
        """Tell of a trouble that lasts when it begins, and when it is over (`message` None)."""
        with self._lock:
            known = self._troubles.get(kind)
            if message is None:
                self._troubles.pop(kind, None)
            else:
                self._troubles[kind] = message
        if message is not None and known is None:
            self.tell(kind, message, level)
        elif message is None and known is not None:
            self.tell(kind, f"Over: {known}", "info")

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
            hook, notice = self._waiting.get()
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(BETWEEN_TRIES_S)
                if self._sent(hook, notice):
                    break

    def _sent(self, hook: Hook, notice: dict) -> bool:
        form = hooks.form_of(hook.url, hook.form)
        url, body = hooks.request(hook.url, form, hook.secret, notice)
        headers = {"Authorization": hook.authorization} if hook.authorization else {}
        try:
            refusal = hooks.refusal(form, self._post(url, body, headers))
        except Exception as err:
            refusal = type(err).__name__  # its words hold the address, which is a robot's key
        if refusal:
            log.warning("the webhook did not take a notice: %s", refusal)
        return not refusal
