"""The console on the real app in demo mode, without a socket: a house of a test, and browsers in
it.

Owns how pages are asked for and forms are sent, with the tokens that the pages themselves hand out.
"""

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from html import unescape
from pathlib import Path
from zoneinfo import ZoneInfo

import app as application
import billing
import settings
from members import accounts, call_rows, tokens

PLANS = {
    "free": {"requests_per_minute": 60, "input_tokens_max": 5000},
    "pro": {
        "title": "Pro",
        "price": "29.90",
        "quota": "40.00",
        "requests_per_minute": 600,
        "discount": "0.80",
    },
}
MODELS = [
    {
        "id": "plain-1",
        "provider": "Acme",
        "title": "Plain 1",
        "context": 131072,
        "output_max": 8192,
        "prices": {"input": "2", "cached": "0.5", "output": "8"},
    },
    {
        "id": "other-2",
        "provider": "Acme",
        "title": "Other 2",
        "context": 131072,
        "output_max": 8192,
        "prices": {"input": "1", "cached": "0.5", "output": "4"},
    },
    {
        "id": "gratis-3",
        "provider": "Acme",
        "title": "Gratis 3",
        "context": 131072,
        "output_max": 8192,
        "prices": {"input": "0", "cached": "0", "output": "0"},
    },
]
PASSWORD = "correct horse battery"


@dataclass
class House:
    """A running console: its app and its database."""

    app: object
    folder: Path

    @property
    def relay(self):
        return self.app.extensions["relay"]

    @property
    def db(self):
        return self.relay.db

    def member(self, name: str = "alice", wallet: str = "0", grant: int = 0, **options):
        """Make a member with these pockets."""
        who = accounts.add(self.db, name, PASSWORD, **options)
        if billing.nano(wallet):
            kind = "top_up" if billing.nano(wallet) > 0 else "adjust"
            billing.credit(self.db, who.id, "wallet", billing.nano(wallet), kind)
        if grant:
            billing.credit(self.db, who.id, "grant", grant, "reward")
        return who

    def token(self, who, name: str = "laptop", **limits) -> int:
        """Make a token; its id."""
        return tokens.mint(self.db, who.id, name, **limits)[0]

    def called(
        self,
        who,
        token_id: int,
        *,
        at: int | None = None,
        model: str = "plain-1",
        usage=(1000, 200, 100),
        outcome: str | None = "complete",
        **facts,
    ) -> str:
        """Let a call have happened at a time (ms), charged by the ledger; its id.

        `outcome` None: it runs.
        """
        at = at or billing.now_ms()
        call_id = f"{call_rows.first_id(at)}{secrets.token_hex(10)}"
        day = datetime.fromtimestamp(at / 1000, ZoneInfo(self.relay.settings.site.timezone)).date()
        call = billing.Call(call_id, who.id, token_id, "chat", model, True, at, str(day))
        if outcome == "refused":
            billing.refuse(self.db, call, billing.Ending("refused", 402, **facts))
            return call_id
        price, used = self.relay.catalog.models[model].price("free", at), billing.Usage(*usage)
        billing.hold(self.db, call, used, price, overdraft=billing.nano(1_000_000))
        if outcome is not None:
            facts = {
                "usage_source": "upstream",
                "first_byte_ms": 340,
                "duration_ms": 1200,
                "status": 200,
            } | facts
            charged = used if outcome in ("complete", "client_left", "upstream_cut") else None
            billing.close(self.db, call_id, billing.Ending(outcome, usage=charged, **facts), price)
        return call_id

    def browser(self, who=None, language: str = "en", address: str = "127.0.0.1") -> "Browser":
        """A browser, in which this member is signed in."""
        browser = Browser(self, self.app.test_client(), language, address)
        if who is not None:
            answer = browser.send("/login", name=who.name, password=PASSWORD)
            assert answer.status_code == 303, browser.text(answer)
        return browser


@dataclass
class Browser:
    """Asks for pages and sends forms, as a person does."""

    house: House
    client: object
    language: str
    address: str
    headers: dict = field(default_factory=dict)

    def get(self, path: str, **options):
        """The answer for a page."""
        return self.client.get(
            path,
            headers={"Accept-Language": self.language, **self.headers},
            environ_base={"REMOTE_ADDR": self.address},
            **options,
        )

    def page(self, path: str) -> str:
        """A page that is there, as HTML."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.get_data(as_text=True)

    def read(self, path: str) -> str:
        """What a reader sees of a page."""
        return text(self.page(path))

    def csrf(self) -> str:
        """The token that forms of this session carry."""
        html = self.client.get("/login").get_data(as_text=True)
        if 'name="csrf_token"' not in html:
            html = self.client.get("/console").get_data(as_text=True)
        return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', html)[1]

    def send(self, path: str, **fields):
        """Send a form."""
        return self.client.post(
            path,
            data={"csrf_token": self.csrf(), **fields},
            environ_base={"REMOTE_ADDR": self.address},
            headers={"Accept-Language": self.language, **self.headers},
        )

    def send_json(self, path: str, body, *, whole: bool = True, **headers):
        """What the script of a page sends; not `whole`: to be read, and closed, by who calls."""
        return self.client.post(
            path,
            json=body,
            buffered=whole,
            environ_base={"REMOTE_ADDR": self.address},
            headers={"Accept-Language": self.language, "X-CSRFToken": self.csrf(), **headers},
        )

    @staticmethod
    def text(answer) -> str:
        return text(answer.get_data(as_text=True))


def text(html: str) -> str:
    """What a reader sees of a page, blanks squeezed."""
    without = re.sub(r"<(script|style|title|template)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", without))).strip()


def error_of(html: str, name: str) -> str:
    """What stands beside a field as its error; empty if nothing does."""
    found = re.search(rf'id="{name}-error">([^<]*)<', html)
    return unescape(found[1]) if found else ""


def house(folder: Path, **changes) -> House:
    """A console with these settings over the usual ones, without upstreams.

    Everything is answered by the demo.
    """
    given = {
        "site": {"language": "en"},
        "database": {"path": str(folder / "relay.db")},
        "plans": PLANS,
        "models": MODELS,
    } | changes
    app = application.create_app(settings.check(given, {}))
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return House(app, folder)
