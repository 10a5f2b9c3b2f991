"""Notices: what administrators should hear of, told in the log and to a webhook.

Owns what is worth a notice about pockets and caps, that it is told once, and its sending. Upstream
health tells its own. What a hook gets is hooks.py's; what it has not taken yet is outbox.py's.
"""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import billing
from db import Database, meta
from server import hooks
from server.hooks import LEVELS
from server.outbox import Outbox
from settings import Hook

log = logging.getLogger("notices")

SHARES = (50, 80, 100)  # per cent of a cap that are told of

LOW = """
SELECT users.id, name, is_team, grant_balance, wallet_balance FROM balances JOIN users ON users.id = user_id
 WHERE disabled_at IS NULL AND (wallet_balance < :wallet OR grant_balance < :grant AND NOT is_team)"""
EVER_FILLED = (
    "SELECT EXISTS (SELECT 1 FROM entries WHERE user_id = ? AND pocket = ? AND balance_after > 0)"
)


CAPPED = (
    "SELECT name, cap_day, cap_month FROM caps JOIN users ON users.id = user_id"
    " WHERE disabled_at IS NULL"
)
SPENT_SINCE = """
SELECT coalesce(sum(charged_quota + charged_team + charged_wallet), 0) FROM daily WHERE day >= :since
   AND (:name = '' OR user_id = (SELECT id FROM users WHERE name = :name))"""


WEEK_MS = 7 * 86_400_000
EXPIRING = """
SELECT tokens.id, users.name, tokens.name, expires_at FROM tokens JOIN users ON users.id = user_id
 WHERE revoked_at IS NULL AND disabled_at IS NULL AND expires_at BETWEEN :now AND :now + :week
   AND EXISTS (SELECT 1 FROM daily WHERE daily.user_id = users.id AND token_id = tokens.id
                                     AND last_at > :now - :week) ORDER BY tokens.id"""


class Notices:
    """Says what is worth it, to the log and to the hooks. `post(url, body, headers)` is the outbound
    door's."""

    def __init__(self, settings, post):
        self.settings = settings
        self._post = post
        self.outbox = Outbox(self.hooks, self._sent)
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
        self.outbox.put(heard, notice)

    def test(self) -> None:
        """A notice that says that it is a test, to every hook."""
        self.tell("test", "This is a test. If you read it, notices arrive.", "error")

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

    def look_at_caps(self, db: Database, day: str) -> None:
        """Tell when members, or the site, have spent a half, four fifths or all of what they may:
        each once in its day or month. `day` is the site's, YYYY-MM-DD."""
        cap = self.settings.site.cap_month
        rows = [] if cap is None else [("", "month", billing.nano(cap))]
        for name, a_day, a_month in db.read().execute(CAPPED).fetchall():
            rows += [
                (name, span, most) for span, most in (("day", a_day), ("month", a_month)) if most
            ]
        told = {tuple(each) for each in meta.get(db, "caps_told", [])}
        now = set()
        for name, span, most in rows:
            since = day if span == "day" else f"{day[:7]}-01"
            (spent,) = db.read().execute(SPENT_SINCE, {"name": name, "since": since}).fetchone()
            share = max((each for each in SHARES if spent * 100 >= most * each), default=0)
            if share:
                now.add((name, span, since, share))
                if not any(each[:3] == (name, span, since) and each[3] >= share for each in told):
                    whose = f"{name} has" if name else "All members together have"
                    self.tell(
                        "cap",
                        f"{whose} spent {billing.yuan(spent)} of {billing.yuan(most)} yuan that may be"
                        f" spent this {span} ({share} %).",
                    )
        if now != told:
            meta.put(db, "caps_told", sorted(now))

    def look_at_tokens(self, db: Database) -> None:
        """Tell once of each token that expires within the week and was used in the last one: what
        runs with it will stop."""
        now = time.time_ns() // 1_000_000
        rows = db.read().execute(EXPIRING, {"now": now, "week": WEEK_MS}).fetchall()
        told = meta.get(db, "expiring_told", [])
        for token_id, name, token, at in rows:
            if token_id not in told:
                day = datetime.fromtimestamp(at / 1000, ZoneInfo(self.settings.site.timezone))
                self.tell(
                    "token_expires",
                    f"The API key {token} of {name} expires on {day:%Y-%m-%d %H:%M}.",
                )
        found = [row[0] for row in rows]
        if found != told:
            meta.put(db, "expiring_told", found)

    def _low(self, db: Database) -> Iterator[tuple[tuple[int, str], str]]:
        """Each pocket that is under its threshold, as (member's id, pocket), and a sentence about
        it."""
        wallet, grant = (
            billing.nano(self.settings.notices.wallet_below),
            self.settings.notices.grant_below,
        )
        if not wallet and not grant:
            return
        for user_id, name, shared, has_grant, has_wallet in (
            db.read().execute(LOW, {"wallet": wallet or -(2**62), "grant": grant}).fetchall()
        ):
            if wallet and has_wallet < wallet:
                yield (
                    (user_id, "wallet"),
                    f"The wallet of {'the team ' if shared else ''}{name} holds {billing.yuan(has_wallet)} yuan.",
                )
            if has_grant < grant and not shared:
                yield (user_id, "grant"), f"The grant of {name} holds {has_grant} tokens."

    def _sent(self, hook: Hook, notice: dict) -> bool:
        form = hooks.form_of(hook.url, hook.form)
        url, body = hooks.request(hook.url, form, hook.secret, notice, time.time_ns() // 1_000_000)
        headers = {"Authorization": hook.authorization} if hook.authorization else {}
        try:
            refusal = hooks.refusal(form, self._post(url, body, headers))
        except Exception as err:
            refusal = type(err).__name__  # its words hold the address, which is a robot's key
        if refusal:
            log.warning("the webhook did not take a notice: %s", refusal)
        return not refusal
