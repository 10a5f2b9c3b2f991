"""`python -m tests.soak.overspend`: fifty callers of ten members on one wallet and one cap.

Each round puts a little money into a team's wallet and sets each member's cap a little above what
was spent, so that both run out in the middle of a crowd. Then nothing may be spent that was not
there: not a nano-yuan of the wallet, of a cap, or of anybody's own pocket.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import billing
import verify
from bench.target import free_port, launch
from db import Database
from members import accounts, caps, teams, tokens
from tests.soak.run import until

MEMBERS, CALLERS = 10, 50
CALLS_MAX = 45  # of a round that the money is for
CONFIG = """
[server]
port = {port}
threads = 66

[database]
path = "{folder}/relay.db"

[site]
timezone = "UTC"

[plans.free]
requests_per_minute = 100000000
calls_at_once = 60

[[models]]
id = "soak"
output_max = 64
prices = {{ input = "2", cached = "2", output = "8" }}
"""
BODY = json.dumps(
    {"model": "soak", "max_tokens": 8, "messages": [{"role": "user", "content": "Count."}]}
)


class Overspend:
    """A relay in demo mode, ten members of one team, and five callers for each."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.port, self.rng = folder, free_port(), random.Random(seed)
        (folder / "config.toml").write_text(CONFIG.format(port=self.port, folder=folder))
        self.db = Database(folder / "relay.db", writer=False)
        self.team = teams.add(self.db, "crowd").id
        self.members, self.callers = [], []
        for number in range(MEMBERS):
            who = accounts.add(self.db, f"member {number}", "a long enough password").id
            teams.join(self.db, self.team, who)
            self.members.append(who)
            for _ in range(CALLERS // MEMBERS):
                self.callers.append(tokens.mint(self.db, who, "caller")[1])
        self.counted: Counter = Counter()
        self.problems: list[str] = []
        self.cost = 0  # of one call, which the first round finds

    @property
    def today(self) -> str:
        return str(datetime.now(ZoneInfo("UTC")).date())

    def start(self) -> None:
        self.process = launch(
            [sys.executable, "app.py"],
            self.folder / "relay.log",
            RELAY_CONFIG=str(self.folder / "config.toml"),
        )
        until(self.answers, 60, "the relay did not start")
        self.lines = [http.client.HTTPConnection("127.0.0.1", self.port) for _ in self.callers]
        billing.credit(self.db, self.team, "wallet", billing.nano("1"))
        self.call(0)
        self.cost = billing.nano("1") - self.wallet()
        billing.credit(self.db, self.team, "wallet", -self.wallet(), "adjust")

    def answers(self) -> bool:
        try:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            line.request("GET", "/healthz")
            return line.getresponse().status == 200
        except OSError:
            return False

    def wallet(self) -> int:
        return billing.balances(self.db, self.team)["balance"].wallet

    def spent(self, who: int) -> int:
        return billing.spent(self.db.read(), "member", self.today, who)

    def call(self, seat: int) -> None:
        line = self.lines[seat]
        headers = {
            "Authorization": f"Bearer {self.callers[seat]}",
            "Content-Type": "application/json",
        }
        line.request("POST", "/api/v1/chat/completions", BODY, headers)
        answer = line.getresponse()
        answer.read()
        self.counted[f"answered {answer.status}"] += 1

    def round(self) -> None:
        """A crowd at once, for whom there is less than they want."""
        today = self.today
        money = self.rng.randint(0, CALLS_MAX * self.cost)
        if money:
            billing.credit(self.db, self.team, "wallet", money)
        limits = {}
        for who in self.members:
            limits[who] = self.spent(who) + self.rng.randint(0, 6 * self.cost)
            caps.put(self.db, who, caps.Caps(day=limits[who]))
        crowd = [threading.Thread(target=self.call, args=(seat,)) for seat in range(CALLERS)]
        for caller in crowd:
            caller.start()
        for caller in crowd:
            caller.join()
        self.judge(limits if today == self.today else {})

    def judge(self, limits: dict[int, int]) -> None:
        left = teams.find(self.db, self.team)
        assert left is not None
        if left.balance < 0 or left.held:
            self.problems.append(f"the team has {left.balance}, of which {left.held} are held")
        for who, limit in limits.items():
            if (spent := self.spent(who)) > limit:
                self.problems.append(f"member {who} spent {spent} of {limit}")
            if own := billing.balances(self.db, who)["balance"].wallet:
                self.problems.append(f"member {who} has {own} in a wallet that was empty")
        if left.balance:  # each round begins with nothing
            billing.credit(self.db, self.team, "wallet", -left.balance, "adjust")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.problems += verify.verify(self.db)
        shares = teams.shares(self.db, self.team, str(date.min), str(date.max))
        paid = sum(each.charged for each in shares)
        if paid != self.cost * sum(each.calls for each in shares):
            self.problems.append(f"the team paid {paid} for calls of {self.cost} each")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.overspend", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is random")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="overspend-"))
    crowd = Overspend(folder, options.seed)
    try:
        crowd.start()
        for number in range(options.rounds):
            crowd.round()
            if number % 100 == 99:
                print(f"round {number + 1}: {dict(crowd.counted)}", flush=True)
        crowd.end()
    finally:
        crowd.process.kill()
    for problem in crowd.problems[:20]:
        print(f"WRONG: {problem}")
    print(
        f"{len(crowd.problems)} problems in {options.rounds} rounds: {dict(crowd.counted)}, "
        f"seed {options.seed}, files in {folder}"
    )
    return bool(crowd.problems)


if __name__ == "__main__":
    sys.exit(main())
