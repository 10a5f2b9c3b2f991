"""How long the console's pages take with a million calls in the database.

Owns how such a database is filled (in bulk, but by the ledger's laws: it can be proved) and which pages are asked.
"""

from __future__ import annotations

import http.cookiejar
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from statistics import median

MEMBERS, DAYS = 200, 90
MODELS = ("bench-model", "deepseek-v4-pro", "qwen3-max", "glm-5", "kimi-k2")
DAY_MS = 86_400_000
PASSWORD = "a password of the bench"
MEMBER_PAGES = ("/console", "/console/usage", "/console/usage?outcome=failed", "/console/usage?model=glm-5",
                "/console/tokens", "/console/wallet", "/console/wallet/statement", "/console/invites",
                "/console/account", "/console/test")
ADMIN_PAGES = ("/admin/", "/admin/?q=member&state=active", "/admin/members/3", "/admin/members/3/statement",
               "/admin/calls", "/admin/calls?member=alice", "/admin/calls?outcome=failed", "/admin/calls?model=glm-5",
               "/admin/codes", "/admin/upstreams", "/admin/models", "/admin/system", "/admin/audit")
PUBLIC_PAGES = ("/", "/models", "/calculator", "/docs/")

CALLS = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at, closed_at, outcome, status,
    error, input_tokens, cached_tokens, output_tokens, usage_source, price_input, price_cached, price_output, cost,
    charged_wallet, first_byte_ms, duration_ms, attempts)
WITH RECURSIVE
    n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :count - 1),
    made(i, at, user_id, model, broken, given, got) AS (
        SELECT i, :from_ms + i * :span_ms / :count, 1 + (i * 7919 + i / 13) % :members,
               json_extract(:models, '$[' || (i * 31 / 7 % 5) || ']'), i % 97 = 0, 200 + i * 37 % 4000, i * 53 % 900
          FROM n)
SELECT printf('req_%012x%020x', at, i), user_id, user_id, 'chat', model, 'bench', i % 2,
       strftime('%Y-%m-%d', at / 1000 + 8 * 3600, 'unixepoch'), at, at + 900,
       iif(broken, 'failed', 'complete'), iif(broken, 502, 200), iif(broken, 'upstream_error', NULL),
       iif(broken, NULL, given), iif(broken, NULL, given / 4), iif(broken, NULL, got),
       iif(broken, 'none', 'upstream'), 2000, 500, 8000,
       iif(broken, 0, (given - given / 4) * 2000 + given / 4 * 500 + got * 8000),
       iif(broken, 0, (given - given / 4) * 2000 + given / 4 * 500 + got * 8000), 100 + i % 900, 900, '[]'
  FROM made"""

ROLL_UPS = """
INSERT INTO daily
SELECT user_id, day, token_id, model, count(*), 0, coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0),
       coalesce(sum(output_tokens), 0), sum(cost), 0, 0, sum(charged_wallet), max(started_at)
  FROM requests GROUP BY user_id, day, token_id, model"""

CHARGES = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, created_at)
SELECT user_id, 'wallet', 'charge', -charged_wallet,
       (SELECT wallet_balance FROM balances WHERE balances.user_id = requests.user_id)
       - sum(charged_wallet) OVER (PARTITION BY user_id ORDER BY id), id, closed_at
  FROM requests WHERE charged_wallet > 0 ORDER BY id"""


def fill(path: Path, count: int) -> None:
    """A new database with so many calls of 200 members over 90 days, all paid; alice is a member, carol rules."""
    import accounts
    import billing
    from db import Database
    from relay import tokens

    database, now = Database(path, writer=False), int(time.time() * 1000)
    hashed = accounts.hash_password(PASSWORD)
    names = ["alice", "carol", *(f"member-{number}" for number in range(3, MEMBERS + 1))]
    for name in names:
        user_id = database.write(accounts._insert, name, hashed, "admin" if name == "carol" else "member", "en", now)
        billing.credit(database, user_id, "wallet", billing.nano("1000000"), "top_up", "bench")
        tokens.mint(database, user_id, "bench")
    values = {"count": count, "members": MEMBERS, "models": str(list(MODELS)).replace("'", '"'),
              "from_ms": now - DAYS * DAY_MS, "span_ms": DAYS * DAY_MS - 1000}
    database.write(_calls, values)
    database.close()


def _calls(conn, values: dict) -> None:
    """All at once: the roll-ups are counted afterwards, instead of by a trigger for each call."""
    name = "a_refused_call_is_rolled_up"
    trigger, = conn.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    conn.execute(f"DROP TRIGGER {name}")
    conn.execute(CALLS, values)
    conn.execute(ROLL_UPS)
    conn.execute(CHARGES)
    conn.execute(trigger)


class Browser:
    """A visitor with cookies."""

    def __init__(self, port: int):
        self.address = f"http://127.0.0.1:{port}"
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({}))

    def get(self, path: str) -> str:
        with self.opener.open(self.address + path, timeout=60) as answer:
            return answer.read().decode()

    def sign_in(self, name: str) -> None:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get("/login"))[1]
        form = {"csrf_token": token, "name": name, "password": PASSWORD}
        self.opener.open(self.address + "/login", urllib.parse.urlencode(form).encode(), timeout=60).read()

    def median_ms(self, path: str, times: int) -> float:
        """The median of so many views, after one that warms up."""
        found = []
        for _ in range(times + 1):
            began = time.perf_counter()
            self.get(path)
            found.append((time.perf_counter() - began) * 1000)
        return median(found[1:])


def measured(port: int, times: int) -> dict[str, float]:
    """The median of each page in ms: for a visitor, for alice, for carol."""
    found = {}
    for name, pages in ((None, PUBLIC_PAGES), ("alice", MEMBER_PAGES), ("carol", ADMIN_PAGES)):
        browser = Browser(port)
        if name:
            browser.sign_in(name)
        found |= {path: browser.median_ms(path, times) for path in pages}
    return found
