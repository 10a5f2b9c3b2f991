"""The ledger against a model of it.

Whatever happens in whatever order, both agree on every balance and every hold.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

import billing
import plans
from billing import NotCovered, Pockets, Price, Usage
from members import teams
from tests.money.ledger_book import ALICE, BOB, DAY, NOW, open_book

PEOPLE = st.sampled_from([ALICE, ALICE, ALICE, ALICE, BOB])
AMOUNTS = st.integers(1, 20_000)
COUNTS = st.integers(0, 40) | st.integers(0, 300)
FEW = st.integers(0, 9)


@st.composite
def usages(draw):
    """A usage of every kind; most calls use three of them."""
    plain, cached, output = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    if draw(st.booleans()):
        return Usage(plain + cached, cached, output)
    write, write_1h, reads, searches = draw(FEW), draw(FEW), draw(FEW), draw(FEW)
    return Usage(
        plain + cached + reads + write + write_1h,
        cached + reads,
        output,
        reads,
        write,
        write_1h,
        searches,
    )


USAGES = usages()
PRICES = st.sampled_from(
    [
        Price(20, 2, 80),
        Price(7, 7, 7),
        Price(5, 5, 5, ((100, Price(50, 9, 70)),)),
        Price(0, 0, 9),
        Price(20, 4, 80, cache_read=2, cache_write=25, cache_write_1h=40, search=500),
        Price(5, 5, 5, ((100, Price(50, 9, 70, cache_write=60)),), search=3),
        Price(0, 0, 0),
    ]
)


class Model:
    """What the ledger promises, in the plainest words.

    No database, no sums kept, everything counted anew.
    """

    def __init__(self):
        self.now = NOW
        self.grant, self.wallet = {ALICE: 0, BOB: 0}, {ALICE: 0, BOB: 0}
        self.subscriptions = []  # [user, left, starts, ends], in the order in which they came
        self.calls = {}  # call id -> (user, begun, held, team)
        self.team_of = {ALICE: None, BOB: None}
        self.teams = {}  # team -> what its wallet holds

    def held(self, user, but=None):
        holds = [
            held
            for call, (owner, _, held, _) in self.calls.items()
            if owner == user and call != but
        ]
        return [sum(held[pocket] for held in holds) for pocket in range(3)]

    def shared(self, team, but=None):
        """What a team has free."""
        return self.teams.get(team, 0) - sum(
            held[3] for call, (*_, held, of) in self.calls.items() if of == team and call != but
        )

    def paying(self, user, at):
        return sorted(
            (s for s in self.subscriptions if s[0] == user and s[2] <= at < s[3]),
            key=lambda s: s[3],
        )

    def pay(self, usage, price, grant, quota, shared):
        price, unpaid, granted = price.at(usage.input_tokens), 0, 0
        unpaid = usage.searches * price.search
        write, long = usage.cache_write_tokens, usage.cache_write_1h_tokens
        for count, each in (
            (usage.input_tokens - usage.cached_tokens - write - long, price.input),
            (write, price.cache_write),
            (long, price.cache_write_1h),
            (usage.cached_tokens - usage.cache_read_tokens, price.cached),
            (usage.cache_read_tokens, price.cache_read),
            (usage.output_tokens, price.output),
        ):
            for _ in range(count):
                granted, unpaid = (
                    (granted + 1, unpaid) if granted < grant else (granted, unpaid + each)
                )
        by_quota = min(quota, unpaid)
        by_team = min(shared, unpaid - by_quota)
        return granted, by_quota, unpaid - by_quota - by_team, by_team

    def hold(self, call, user, usage, price, overdraft):
        grant, quota, wallet = self.held(user)
        left = max(0, sum(s[1] for s in self.paying(user, self.now)) - quota)
        team = self.team_of[user]
        free = self.grant[user] - grant, left, self.shared(team)
        share = (0, 0, 0, 0) if price.free else self.pay(usage, price.highest(), *free)
        if share[2] and share[2] > self.wallet[user] - wallet + overdraft:
            return False
        self.calls[call] = (user, self.now, share, team)
        return True

    def close(self, call, usage, price):
        user, begun, _, team = self.calls[call]
        grant, quota, _ = self.held(user, but=call)
        paying = self.paying(user, begun)
        everything = sum(s[1] for s in self.subscriptions if s[0] == user)
        left = min(sum(s[1] for s in paying), everything - quota)
        free = self.grant[user] - grant, left, self.shared(team, but=call)
        share = self.pay(usage, price, *free) if usage and not price.free else (0, 0, 0, 0)
        del self.calls[call]
        self.grant[user] -= share[0]
        self.wallet[user] -= share[2]
        if team:
            self.teams[team] -= share[3]
        rest = share[1]
        for subscription in paying:
            part = min(rest, subscription[1])
            subscription[1], rest = subscription[1] - part, rest - part

    def expire(self):
        for s in sorted(self.subscriptions, key=lambda s: s[3]):
            if s[3] <= self.now:
                needed = sum(
                    held[1]
                    for user, begun, held, _ in self.calls.values()
                    if user == s[0] and s[2] <= begun < s[3]
                )
                everything = sum(other[1] for other in self.subscriptions if other[0] == s[0])
                s[1] -= max(0, min(s[1] - needed, everything - self.held(s[0])[1]))


class Ledger(RuleBasedStateMachine):
    """Does the same to both, and compares."""

    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.book, self.model = open_book(self.folder, writer=False), Model()
        self.book.db._writer._conn.execute(
            "PRAGMA synchronous = OFF"
        )  # quicker; nothing is lost but power
        self.teams = [teams.add(self.book.db, name).id for name in ("ops", "web")]
        self.model.teams = dict.fromkeys(self.teams, 0)

    def teardown(self):
        for call in list(self.model.calls):
            self.book.close(call, None)
            self.model.close(call, None, Price(0, 0, 0))
        self.agree()
        assert billing.verify(self.book.db) == []
        self.book.db.close()
        shutil.rmtree(self.folder)

    @rule(
        user=PEOPLE,
        wallet=st.integers(-9_000, 90_000).filter(bool),
        grant=st.none() | st.integers(1, 90),
    )
    def credit(self, user, wallet, grant):
        billing.credit(self.book.db, user, "wallet", wallet, "adjust", now=self.model.now)
        self.model.wallet[user] += wallet
        if grant:
            billing.credit(self.book.db, user, "grant", grant, "reward", now=self.model.now)
            self.model.grant[user] += grant

    @rule(number=st.integers(0, 1), amount=st.integers(-9_000, 40_000).filter(bool))
    def credit_a_team(self, number, amount):
        team = self.teams[number]
        covered = amount > 0 or self.model.shared(team) + amount >= 0
        try:
            billing.credit(self.book.db, team, "wallet", amount, "adjust", now=self.model.now)
        except NotCovered:
            assert not covered
        else:
            assert covered
            self.model.teams[team] += amount

    @rule(user=PEOPLE, number=st.none() | st.integers(0, 1) | st.integers(0, 1))
    def share_a_wallet(self, user, number):
        team = None if number is None else self.teams[number]
        if team:
            teams.join(self.book.db, team, user)
        else:
            teams.leave(self.book.db, user)
        self.model.team_of[user] = team

    @rule(user=PEOPLE, quota=st.integers(1, 100_000), days=st.integers(1, 5))
    def be_given_a_plan(self, user, quota, days):
        plans.give_plan(self.book.db, user, "pro", quota=quota, days=days, now=self.model.now)
        self.model.subscriptions.append([user, quota, self.model.now, self.model.now + days * DAY])

    @rule(user=PEOPLE, quota=AMOUNTS, price=AMOUNTS, days=st.integers(1, 5))
    def buy_a_plan(self, user, quota, price, days):
        covered = price <= self.model.wallet[user] - self.model.held(user)[2]
        try:
            plans.purchase(
                self.book.db, user, "pro", price=price, quota=quota, days=days, now=self.model.now
            )
        except NotCovered:
            assert not covered
        else:
            assert covered
            self.model.wallet[user] -= price
            self.model.subscriptions.append(
                [user, quota, self.model.now, self.model.now + days * DAY]
            )

    @rule(
        target=calls, user=PEOPLE, usage=USAGES, price=PRICES, overdraft=st.sampled_from([0, 3_000])
    )
    def hold(self, user, usage, price, overdraft):
        call = self.book.call(user, self.model.now)
        admitted = self.model.hold(call.id, user, usage, price, overdraft)
        try:
            billing.hold(self.book.db, call, usage, price, overdraft)
        except NotCovered:
            assert not admitted
            return multiple()
        assert admitted
        return call.id

    @rule(
        call=consumes(calls),
        usage=st.none() | USAGES | USAGES | USAGES,
        price=PRICES,
        again=st.booleans(),
    )
    def close(self, call, usage, price, again):
        assert self.book.close(call, usage, price, at=self.model.now) is not None
        self.model.close(call, usage, price)
        if again:
            assert self.book.close(call, usage, price, at=self.model.now) is None

    @rule(hours=st.integers(1, 40), noticed=st.booleans())
    def time_passes(self, hours, noticed):
        self.model.now += hours * DAY // 24
        if noticed:
            plans.expire_due(self.book.db, self.model.now)
            self.model.expire()

    @invariant()
    def agree(self):
        for user in (ALICE, BOB):
            left = [
                s[1] for s in sorted(self.model.subscriptions, key=lambda s: s[3]) if s[0] == user
            ]
            assert [s.left for s in plans.subscriptions(self.book.db, user)] == left
            assert self.book.balance(user) == Pockets(
                self.model.grant[user], sum(left), self.model.wallet[user]
            )
            assert self.book.held(user) == Pockets(*self.model.held(user))
        for team, wallet in self.model.teams.items():
            assert self.book.balance(team) == Pockets(0, 0, wallet)
            assert wallet - self.book.held(team).wallet == self.model.shared(team) >= 0


Ledger.TestCase.settings = settings(
    max_examples=100, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheLedgerAgreesWithItsModel = Ledger.TestCase
