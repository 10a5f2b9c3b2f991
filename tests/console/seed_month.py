"""A relay that a team has used for a month, for walks over all its pages and for pictures of them.

Owns what happened there: who came, what they paid, which tokens they made, what they called and how
it ended; and the table of all pages. Everything is done by the product's own functions, in the
order of time and in one transaction, so that the ledger can be proved. It is the same month every
time, but for the clock.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from unittest import mock
from zoneinfo import ZoneInfo

import billing
import codes
import plans
from billing import Call, Ending, Usage
from console.docs import pages, snippets
from members import accounts, audit, call_rows, caps, teams, tokens

PASSWORD = "some words in a row"
DAYS, HOUR_MS, DAY_MS = 30, 3_600_000, 86_400_000
LONG_NAME = "a-member-with-a-name-that-is-as-long-as-a-name-can-possibly-be--"
KINDS = (
    ("MacBook · Claude Code", 40),
    ("VS Code", 25),
    ("Dify 知识库", 20),
    ("nightly-report", 15),
)

# Name, calls on a working day, models with how often each is called.
TEAM = (
    (
        "alice",
        14,
        {
            "deepseek-v4-pro": 6,
            "qwen3-max": 3,
            "glm-5": 2,
            "kimi-k2.7-code": 2,
            "deepseek-flash": 1,
        },
    ),
    ("carol", 3, {"qwen3-max": 2, "deepseek-v4-pro": 1}),
    ("陈明", 18, {"deepseek-flash": 7, "qwen3-plus": 2}),
    ("Maria Santos", 8, {"glm-5": 3, "qwen3-max": 1}),
    ("bob", 6, {"kimi-k2.7-code": 3, "deepseek-v4-pro": 1}),
    ("wang.fang", 10, {"qwen3-plus": 5, "ernie-5.0": 2}),
    ("李娜", 0, {"deepseek-flash": 1}),
    ("Noah Becker", 4, {"deepseek-r1": 2, "doubao-pro": 2}),
    ("intern-2026", 2, {"deepseek-flash": 1}),
    ("研发流水线机器人", 22, {"deepseek-flash": 5, "text-embedding-v4": 1}),
    (LONG_NAME, 1, {"qwen3-max": 1}),
)
ENDINGS = (
    ("complete", 900),
    ("client_left", 30),
    ("failed", 25),
    ("refused", 20),
    ("upstream_cut", 10),
    ("interrupted", 5),
)
REFUSALS = (("context_length_exceeded", 400), ("model_not_allowed", 403))
FAILURES = (("upstream_timeout", 504), ("upstream_overloaded", 503), ("upstream_account", 502))


@dataclass
class Month:
    """What came of it: ids by name, the newest call of alice's for each ending."""

    people: dict[str, int] = field(default_factory=dict)
    tokens: dict[tuple[str, str], int] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    subscription: int = 0
    team: int = 0


class Within:
    """A database within one transaction, for functions that want a `Database`.

    What they write is synced at the end.
    """

    def __init__(self, conn):
        self.conn = conn

    def read(self):
        return self.conn

    def one(self, sql: str, values=()):
        return self.conn.execute(sql, values).fetchone()

    def write(self, act: Callable, *args):
        return act(self.conn, *args)

    write_admitting = write


def live(app, busy: float = 1.0) -> Month:
    """Let a month pass on this app. `busy` times the usual number of calls."""
    relay, hashed = app.extensions["relay"], accounts.hash_password(PASSWORD)
    with mock.patch.object(
        accounts, "hash_password", lambda _: hashed
    ):  # one of these costs a tenth of a second
        return relay.db.write(lambda conn: _Life(Within(conn), relay, busy).month)


class _Life:
    """The month as it passes: things to do, each at its time."""

    def __init__(self, db: Within, relay, busy: float):
        self.db, self.catalog, self.busy = db, relay.catalog, busy
        self.zone, self.dice = ZoneInfo(relay.settings.site.timezone), random.Random(7)
        self.month, self.pro_since, self.now = Month(), {}, billing.now_ms()
        self.do: list[tuple[int, Callable, tuple]] = []
        self._come()
        self._pay()
        for name, a_day, models in TEAM:
            self._work(name, a_day, models)
        for at, act, args in sorted(self.do, key=lambda each: each[0]):
            act(at, *args)
        self._end()

    def ago(self, days: float) -> int:
        return self.now - round(days * DAY_MS)

    def id(self, name: str) -> int:
        return self.month.people[name]

    # ---- people and what they pay

    def _come(self) -> None:
        for number, (name, *_) in enumerate(TEAM):
            came = {"bob": 21, "李娜": 2, "Noah Becker": 12}.get(name, DAYS - number / 10)
            host = accounts.find(self.db, self.id("alice")).invite_code if came < DAYS - 5 else None
            who = accounts.add(
                self.db,
                name,
                PASSWORD,
                role="admin" if name == "carol" else "member",
                invite=host,
                signup_reward=100_000,
                invite_reward=50_000,
                now=self.ago(came),
            )
            self.month.people[name] = who.id
            for token, _share in KINDS[: 4 if name == "alice" else 2]:
                limits = {
                    "Dify 知识库": {"models": ["qwen3-max", "glm-5", "kimi-k2.7-code"]},
                    "nightly-report": {"rpm": 30, "cap_day": billing.nano("5"), "calls_at_once": 2},
                }.get(token, {})
                self.month.tokens[name, token] = tokens.mint(self.db, who.id, token, **limits)[0]

    def _pay(self) -> None:
        by = self.id("carol")
        self.month.team = teams.add(self.db, "平台组", by=by).id
        amount = billing.nano("200")
        billing.credit(self.db, self.month.team, "wallet", amount, note="十一月", by=by)
        teams.join(self.db, self.month.team, self.id("Maria Santos"), by=by)
        for name, days, amount in (
            ("alice", 28, "20"),
            ("陈明", 27, "100"),
            ("Maria Santos", 25, "20"),
            ("wang.fang", 26, "30"),
            ("研发流水线机器人", 29, "50"),
            ("Noah Becker", 11, "0.05"),
        ):
            self.do.append((self.ago(days), self._credit, (name, amount, "November", by)))
        self.do += [
            (self.ago(14.2), self._code, ("alice", "20", by)),
            (self.ago(14), self._buy, ("alice",)),
            (self.ago(20), self._allow, ("陈明", by)),
        ]

    def _credit(self, at: int, name: str, amount: str, note: str, by: int) -> None:
        billing.credit(
            self.db, self.id(name), "wallet", billing.nano(amount), "top_up", note, by=by, now=at
        )

    def _code(self, at: int, name: str, amount: str, by: int) -> None:
        code, *_ = codes.make(
            self.db, "wallet", 6, amount=billing.nano(amount), note="Workshop", by=by, now=at
        )
        codes.redeem(self.db, self.id(name), code, at)

    def _buy(self, at: int, name: str) -> None:
        plans.purchase(
            self.db,
            self.id(name),
            "pro",
            price=billing.nano("29.90"),
            quota=billing.nano("40"),
            days=30,
            now=at,
        )
        self.pro_since[name] = at

    def _allow(self, at: int, name: str, by: int) -> None:
        given = plans.give_plan(
            self.db,
            self.id(name),
            "pro",
            quota=billing.nano("100"),
            days=30,
            renew=True,
            by=by,
            now=at,
        )
        self.pro_since[name], self.month.subscription = at, given["subscription"]

    # ---- calls

    def _work(self, name: str, a_day: int, models: dict[str, int]) -> None:
        used = KINDS[: 4 if name == "alice" else 2]
        began = accounts.find(self.db, self.id(name)).created_at
        for day in range(DAYS):
            midnight = datetime.fromtimestamp(self.ago(day) / 1000, self.zone).replace(
                hour=0, minute=0, second=0
            )
            share = (
                self.busy * (0.15 if midnight.weekday() > 4 else 1) * self.dice.uniform(0.4, 1.6)
            )
            for _ in range(round(a_day * share)):
                at = round(
                    (
                        midnight + timedelta(minutes=self.dice.triangular(8 * 60, 20 * 60))
                    ).timestamp()
                    * 1000
                )
                if began < at < self.now - 120_000:
                    model = self._one_of(models.items())
                    self.do.append(
                        (at, self._call, (name, self._one_of(used), model, self._one_of(ENDINGS)))
                    )

    def _one_of(self, weighted):
        names, weights = zip(*weighted, strict=True)
        return self.dice.choices(names, weights)[0]

    def _call(self, at: int, name: str, token: str, model: str, outcome: str) -> None:
        found, dice = self.catalog.models[model], self.dice
        upstream = next((each.upstream.name for each in found.targets), "demo")
        day = str(datetime.fromtimestamp(at / 1000, self.zone).date())
        call = Call(
            f"{call_rows.first_id(at)}{dice.getrandbits(80):020x}",
            self.id(name),
            self.month.tokens[name, token],
            "chat",
            model,
            dice.random() < 0.8,
            at,
            day,
            upstream,
        )
        if model == "kimi-k2.7-code" and at > self.ago(3) and dice.random() < 0.5:
            outcome = "failed"
        given = round(dice.lognormvariate(8.8, 0.9))
        usage = Usage(
            given, round(given * dice.choice((0, 0, 0.3, 0.8))), round(dice.lognormvariate(6, 0.8))
        )
        price = found.price("pro" if name in self.pro_since else "free", at)
        if outcome == "refused":
            return self._refused(call, *dice.choice(REFUSALS))
        try:
            billing.hold(self.db, call, usage, price)
        except billing.NotCovered:
            return self._refused(call, "insufficient_balance", 402)
        first, whole = round(dice.lognormvariate(6.2, 0.5)), round(dice.lognormvariate(8.5, 0.6))
        billing.close(
            self.db,
            call.id,
            self._ending(outcome, usage, upstream, first, first + whole),
            price,
            at + first + whole,
        )
        return self._keep(call, outcome)

    def _ending(self, outcome: str, usage: Usage, upstream: str, first: int, whole: int) -> Ending:
        if outcome in ("failed", "interrupted"):
            code, status = self.dice.choice(FAILURES)
            tries = [
                {"upstream": upstream, "error": code, "status": status, "ms": 900 + 400 * n}
                for n in range(2)
            ]
            return Ending(
                outcome,
                status if outcome == "failed" else None,
                upstream=upstream,
                duration_ms=whole,
                error=code if outcome == "failed" else None,
                attempts=tries if outcome == "failed" else (),
            )
        source = "upstream" if outcome == "complete" else "estimated"
        cut = outcome == "upstream_cut"
        return Ending(
            outcome,
            200,
            usage,
            source,
            "output_tokens estimated" if cut else None,
            upstream,
            first_byte_ms=first,
            duration_ms=whole,
            error="upstream_error" if cut else None,
            attempts=[{"upstream": upstream, "error": None, "status": 200, "ms": first}],
        )

    def _refused(self, call: Call, error: str, status: int) -> None:
        billing.refuse(self.db, call, Ending("refused", status, error=error, duration_ms=3))
        self._keep(call, "refused")

    def _keep(self, call: Call, outcome: str) -> None:
        if call.user_id == self.id("alice"):
            self.month.calls[outcome] = call.id

    # ---- the end of the month, which is now

    def _end(self) -> None:
        alice, by, conn = self.id("alice"), self.id("carol"), self.db.conn
        for outcome, _share in ENDINGS:  # of a quiet month, too, every ending is seen
            if outcome not in self.month.calls:
                self._call(self.now - 90_000, "alice", "VS Code", "qwen3-max", outcome)
        day = str(datetime.fromtimestamp(self.now / 1000, self.zone).date())
        began, token = self.now - 4000, self.month.tokens["alice", "VS Code"]
        runs = Call(
            f"{call_rows.first_id(began)}{0:020x}",
            alice,
            token,
            "chat",
            "qwen3-max",
            True,
            began,
            day,
        )
        billing.hold(
            self.db,
            runs,
            Usage(1200, 0, 800),
            self.catalog.models["qwen3-max"].price("pro", self.now),
        )
        self.month.calls["open"] = runs.id
        caps.put(self.db, alice, caps.Caps(day=billing.nano("5"), month=billing.nano("30")), by)
        old, _ = tokens.mint(self.db, alice, "old laptop")
        tokens.revoke(self.db, old, alice)
        trial, _ = tokens.mint(
            self.db, alice, "trial", addresses=["203.0.113.0/24"], cap_month=billing.nano("20")
        )
        conn.execute("UPDATE tokens SET expires_at = ? WHERE id = ?", (self.ago(3), trial))
        accounts.disable(self.db, self.id("intern-2026"), by=by)
        audit.record(
            conn,
            by,
            "upstream.test",
            None,
            {"upstream": "moonshot", "model": "kimi-k2.7-code", "outcome": ["upstream_timeout"]},
        )
        codes.make(self.db, "grant", 3, amount=200_000, note="for new colleagues", by=by)
        codes.make(
            self.db,
            "plan",
            2,
            plan="pro",
            quota=billing.nano("40"),
            days=30,
            by=by,
            expires_at=self.now + 20 * DAY_MS,
        )
        codes.make(self.db, "wallet", 1, amount=billing.nano("5"), by=by, expires_at=self.ago(1))
        codes.revoke(self.db, 2, by=by)


# ---- all pages


def public_pages() -> dict[str, str]:
    """What everybody sees: a name for each page, and its address."""
    return {
        "front": "/",
        "models": "/models",
        "models-searched": "/models?q=qwen&sort=input",
        "models-none": "/models?q=xyz",
        "model": "/models/deepseek-v4-pro",
        "model-tiers": "/models/qwen3-max",
        "model-vectors": "/models/text-embedding-v4",
        "calculator": "/calculator?grant=1500&quota=0.01&wallet=10.00",
        "calculator-mistaken": "/calculator?input=many",
        "docs": "/docs/",
        **{f"docs-{name}": f"/docs/{name}" for name in pages.GUIDE},
        "tools": "/docs/tools",
        **{f"tool-{slug}": f"/docs/tools/{slug}" for slug in snippets.BY_SLUG},
        "sign-in": "/login",
        "register": "/register",
        "no-page": "/no-such-page",
    }


def member_pages(month: Month) -> dict[str, str]:
    """What alice sees."""
    token = month.tokens["alice", "nightly-report"]
    return {
        "overview": "/console",
        "tokens": "/console/tokens",
        "token-new": "/console/tokens/new",
        "token-edit": f"/console/tokens/{token}",
        "token-revoke": f"/console/tokens/{token}/revoke",
        "usage": "/console/usage",
        "usage-filtered": "/console/usage?outcome=failed&measure=llm",
        "usage-none": "/console/usage?model=nothing",
        **{f"call-{outcome}": f"/console/usage/{call}" for outcome, call in month.calls.items()},
        "wallet": "/console/wallet",
        "credit": "/console/credit",
        "buy": "/console/wallet/plans/pro",
        "statement": "/console/wallet/statement",
        "model-test": "/console/test",
        "invites": "/console/invites",
        "account": "/console/account",
        "sessions": "/console/account/sessions",
    }


def admin_pages(month: Month) -> dict[str, str]:
    """What carol sees."""
    alice, chen, token = (
        month.people["alice"],
        month.people["陈明"],
        month.tokens["alice", "VS Code"],
    )
    return {
        "admin-overview": "/admin/",
        "admin-overview-last": "/admin/?by=member&measure=llm",
        "admin-overview-upstreams": "/admin/?by=upstream",
        "admin-overview-first-bytes": "/admin/?by=upstream&measure=first_byte",
        "members": "/admin/members",
        "members-none": "/admin/members?q=nobody",
        "member": f"/admin/members/{alice}",
        "member-new": "/admin/members/new",
        "member-allowed": f"/admin/members/{chen}",
        "member-statement": f"/admin/members/{alice}/statement",
        "member-disable": f"/admin/members/{alice}/disable",
        "member-role": f"/admin/members/{alice}/role",
        "member-token-revoke": f"/admin/members/{alice}/tokens/{token}/revoke",
        "plan-end": f"/admin/members/{chen}/plans/{month.subscription}/end",
        "teams": "/admin/teams",
        "team": f"/admin/teams/{month.team}",
        "team-statement": f"/admin/teams/{month.team}/statement",
        "team-close": f"/admin/teams/{month.team}/close",
        "calls": "/admin/calls",
        "calls-failed": "/admin/calls?outcome=failed",
        "admin-call": f"/admin/calls/{month.calls['failed']}",
        "codes": "/admin/codes",
        "codes-new": "/admin/codes/new",
        "codes-revoke": "/admin/codes/revoke?code=3",
        "upstreams": "/admin/upstreams",
        "admin-models": "/admin/models",
        "connect": "/admin/upstreams/new",
        "upstream": "/admin/upstreams/deepseek",
        "bill": "/admin/upstreams/deepseek/bill",
        "prices": "/admin/models/prices",
        "system": "/admin/system",
        "audit": "/admin/audit",
    }
