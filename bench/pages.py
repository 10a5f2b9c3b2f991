"""How long the console's pages take with a million calls in the database.

Owns how such a database is filled (in bulk, but by the ledger's laws: it can be proved) and which
pages are asked.
"""

from __future__ import annotations

import http.cookiejar
import re
import time
import urllib.parse
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from bench.relay import MEMBER, PASSWORD
from bench.target import Target

ADMINISTRATOR, MEMBERS, DAYS = "carol", 200, 90
MODELS = ("bench-model", "deepseek-v4-pro", "qwen3-max", "glm-5", "kimi-k2")
DAY_MS = 86_400_000
VIEWS = 5  # of each page, the first not counted; files may be asked for ten times a minute
FIRST_BYTES = 2048  # of a file: how soon it begins is what a person waits for

# A year, one old day, and the filters that are asked for alone and together; `nothing` finds
# nothing.
TODAY = datetime.now().astimezone().date()
YEAR = f"from={TODAY - timedelta(365)}&to={TODAY}"
OLD_DAY = f"from={TODAY - timedelta(80)}&to={TODAY - timedelta(80)}"
FILTERS = (
    "",
    "outcome=complete",
    "outcome=failed",
    "outcome=refused",
    "outcome=open",
    "model=glm-5",
    "model=nothing",
    "model=glm-5&outcome=failed",
    YEAR,
    f"{YEAR}&model=glm-5&outcome=failed",
    f"{YEAR}&outcome=refused",
    OLD_DAY,
    "before={old}",
    "after={old}",
    "before={old}&outcome=refused",
    "after={old}&outcome=refused",
)
STATEMENT = (
    "",
    "?kind=charge",
    "?kind=top_up",
    "?pocket=grant",
    "?before=400000&kind=reward",
    "?after=400000&kind=reward",
)
PAGES = {
    "a visitor": ("/", "/models", "/calculator", "/docs/"),
    "a member": (
        "/console",
        *(f"/console/usage?{each}" for each in FILTERS),
        f"/console/usage?{YEAR}&token=1",
        "/console/usage/calls.csv",
        "/console/tokens",
        "/console/wallet",
        *(f"/console/wallet/statement{each}" for each in STATEMENT),
        "/console/wallet/statement.csv",
        "/console/invites",
        "/console/account",
        "/console/test",
    ),
    "an administrator": (
        "/admin/",
        "/admin/members",
        "/admin/members?q=member&state=active",
        "/admin/members?state=empty",
        "/admin/members/1",
        "/admin/members/3",
        *(f"/admin/members/1/statement{each}" for each in STATEMENT),
        "/admin/members/1/statement.csv",
        *(f"/admin/calls?{each}" for each in FILTERS),
        "/admin/calls?member=alice",
        "/admin/calls?member=alice&model=glm-5",
        "/admin/calls?member=member-3&outcome=refused",
        "/admin/calls?upstream=bench",
        "/admin/calls?upstream=nothing",
        "/admin/calls.csv",
        "/admin/codes",
        "/admin/upstreams",
        "/admin/models",
        "/admin/system",
        "/admin/audit",
        "/admin/audit?who=nobody",
    ),
}

CALLS = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at, closed_at, outcome, status,
    error, input_tokens, cached_tokens, output_tokens, usage_source, price_input, price_cached, price_output, cost,
    charged_wallet, first_byte_ms, duration_ms, attempts)
WITH RECURSIVE
    n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :count - 1),
    made(i, at, user_id, model, broken, given, got) AS (
        SELECT i, :from_ms + i * :span_ms / :count, iif(i % 4, 1 + (i * 7919 + i / 13) % :members, 1),
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
       coalesce(sum(output_tokens), 0), sum(cost), 0, 0, sum(charged_wallet), max(started_at), 0, 0, 0, 0, 0, 0
  FROM requests GROUP BY user_id, day, token_id, model"""

CHARGES = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, created_at)
SELECT user_id, 'wallet', 'charge', -charged_wallet,
       (SELECT wallet_balance FROM balances WHERE balances.user_id = requests.user_id)
       - sum(charged_wallet) OVER (PARTITION BY user_id ORDER BY id), id, closed_at
  FROM requests WHERE charged_wallet > 0 ORDER BY id"""


def fill(path: Path, count: int) -> None:
    """Add so many paid calls of 200 members over 90 days, every fourth alice's, to the file of a
    new Relay that is stopped. Carol administers.
    """
    import billing
    from db import Database
    from members import accounts, tokens

    database, now = Database(path, writer=False), int(time.time() * 1000)
    hashed = accounts.hash_password(PASSWORD)
    for number in range(2, MEMBERS + 1):
        name, role = (f"member-{number}", "member") if number > 2 else (ADMINISTRATOR, "admin")
        user_id = database.write(accounts._insert, name, hashed, role, "en", now)
        billing.credit(database, user_id, "wallet", billing.nano("100000"), "top_up", "bench")
        tokens.mint(database, user_id, "bench")
    values = {
        "count": count,
        "members": MEMBERS,
        "models": str(list(MODELS)).replace("'", '"'),
        "from_ms": now - DAYS * DAY_MS,
        "span_ms": DAYS * DAY_MS - DAY_MS // 24,
    }
    database.write(_calls, values)
    database.close()


def _calls(conn, values: dict) -> None:
    """All at once: the roll-ups are counted afterwards, instead of by a trigger for each call."""
    name = "a_refused_call_is_rolled_up"
    (trigger,) = conn.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
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
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            urllib.request.ProxyHandler({}),
        )

    def get(self, path: str) -> str:
        with self.opener.open(self.address + path, timeout=60) as answer:
            return (answer.read1(FIRST_BYTES) if ".csv" in path else answer.read()).decode(
                errors="replace"
            )

    def sign_in(self, name: str) -> None:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get("/login"))[1]
        form = {"csrf_token": token, "name": name, "password": PASSWORD}
        with self.opener.open(
            self.address + "/login", urllib.parse.urlencode(form).encode(), timeout=60
        ) as answer:
            if answer.url.endswith("/login"):
                raise RuntimeError(f"{name} could not sign in")

    def median_ms(self, path: str) -> float:
        """The median of some views, after one that warms up."""
        found = []
        for _ in range(VIEWS):
            began = time.perf_counter()
            self.get(path)
            found.append((time.perf_counter() - began) * 1000)
        return median(found[1:])


def measured(target: Target) -> dict[str, tuple[dict[str, float], float]]:
    """By who asks.

    The median of each page in ms, and the processor time of a page in ms, the mean of all views.
    """
    old, found = f"req_{int(time.time() * 1000) - 45 * DAY_MS:012x}", {}
    for who, name in (
        ("a visitor", None),
        ("a member", MEMBER),
        ("an administrator", ADMINISTRATOR),
    ):
        browser = Browser(target.port)
        if name:
            browser.sign_in(name)
        before = target.cpu_ms()
        medians = {path: browser.median_ms(path.replace("{old}", old)) for path in PAGES[who]}
        found[who] = medians, (target.cpu_ms() - before) / len(medians) / VIEWS
    return found
