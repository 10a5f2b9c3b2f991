"""What stands on the stage of tests over real sockets: configurations, running relays, and people.

It owns how a relay of a test is configured, started and looked into. The fixtures are conftest's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tests.client import Client

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = {"alice": "member", "bob": "member", "carol": "admin"}
LIMIT_S = 60  # what takes longer is broken; a busy machine may take much longer than an idle one


def toml(value) -> str:
    """A value as TOML on one line; dicts become inline tables."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name)} = {toml(each)}" for name, each in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, date):
        return str(value)
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    return json.dumps(str(value), ensure_ascii=False)


def merged(base: dict, changes: dict) -> dict:
    """`base` with `changes` laid over it; inner dicts are merged, everything else is replaced."""
    inner = {
        name: merged(base[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return base | changes | inner


def upstream_config(url: str, name: str = "fake", **changes) -> dict:
    """An `[[upstreams]]` row for a fake upstream."""
    return {
        "name": name,
        "base_url": url,
        "api_key": "sk-upstream-secret",
        "allow_private": True,
        "speaks": ["chat"],
    } | changes


def model_config(name: str = "test-model", upstreams=("fake",), **changes) -> dict:
    """A `[[models]]` row at 2, 0.5 and 8 yuan per million.

    2,000, 500 and 8,000 nano-yuan per LLM token.
    """
    routes = [
        {"upstream": each, "model": "upstream-model", "priority": number}
        for number, each in enumerate(upstreams)
    ]
    prices = {"input": "2", "cached": "0.5", "output": "8"}
    return {
        "id": name,
        "context": 1_000_000,
        "output_max": 8192,
        "routes": routes,
        "prices": prices,
    } | changes


def configuration(folder: Path, url: str, changes: dict) -> dict:
    """The usual configuration of a test; `changes` are laid over it."""
    usual = {
        "server": {"host": "127.0.0.1", "port": 0, "threads": 32, "drain_s": 1},
        "database": {"path": str(folder / "relay.db")},
        "plans": {"free": {"requests_per_minute": 60_000, "input_tokens_max": 1_000_000}},
        "upstreams": [upstream_config(url)],
        "models": [model_config()],
    }
    return merged(usual, changes)


@dataclass
class Relay:
    """A running relay and the file behind it.

    `db` is a second door to that file, as the CLI has one.
    """

    port: int
    config: Path
    database: Path
    process: subprocess.Popen | None = None
    log: Path | None = None
    server: object = None
    app: object = None
    _db: object = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def db(self):
        from db import Database

        if self._db is None:
            self._db = Database(str(self.database), writer=False)
        return self._db

    def client(self, token: str | None = None) -> Client:
        return Client(self.port, token)

    def rows(self, where: str = "1", *values) -> list[dict]:
        """Rows of `requests`, oldest first."""
        found = self.db.read().execute(f"SELECT * FROM requests WHERE {where} ORDER BY id", values)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def row_of(self, request_id: str) -> dict:
        """The one row of a request."""
        (row,) = self.rows("id = ?", request_id)
        return row

    def closed_row(self, request_id: str | None = None, timeout_s: float = LIMIT_S) -> dict:
        """The row of a request (or the only one there is) once it is closed.

        The close follows the answer.
        """
        where, values = ("id = ?", (request_id,)) if request_id else ("1", ())
        return wait_until(
            lambda: next((row for row in self.rows(where, *values) if row["closed_at"]), None),
            timeout_s,
        )

    def ledger_is_right(self) -> bool:
        """Prove the ledger, holds included; the assertion names what is wrong."""
        import verify

        assert verify.verify(self.db) == []
        return True

    def start_again(self, before: list[str] | tuple = ()) -> None:
        """Start the process (again, after its end; `before`: by this command), and wait until it
        answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, sys.executable, "app.py"],
                cwd=ROOT,
                env=os.environ | {"RELAY_CONFIG": str(self.config)},
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: answers(self))

    def processor_s(self) -> float:
        """Seconds of processor time that the process has used since its start (proc(5), stat,
        fields 14 and 15)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        if self._db is not None:
            self._db.close()
        if self.process is not None:
            self.end(signal.SIGKILL)
        else:
            self.server.stop()
            lines = self.app.extensions["relay"].sender._watcher._lines
            wait_until(lambda: not lines)  # nothing is asked of a provider for nobody
            self.app.extensions["relay"].close()

    def end(self, number: int) -> int:
        """Send a signal to the process and wait for its end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


def wait_until(found, timeout_s: float = LIMIT_S):
    """The first true value of `found()`, asked every few milliseconds.

    For things that send no event.
    """
    until = time.monotonic() + timeout_s
    while not (value := found()):
        if time.monotonic() > until:
            raise AssertionError(f"still not true after {timeout_s} s")
        threading.Event().wait(0.005)
    return value


def free_port() -> int:
    """A port that nobody listens at, kept.

    The system gives it to nobody who does not ask for it by number.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _keepers.append(keeper)
    return keeper.getsockname()[1]


_keepers: list[socket.socket] = []  # till the end of the process: few tests need one


@dataclass
class Person:
    """A member: the name, the user id, an API token, and the relay that is spoken to."""

    name: str
    id: int
    token: str
    relay: Relay

    @property
    def client(self) -> Client:
        return self.relay.client(self.token)

    def __getattr__(self, name):
        return getattr(self.client, name)

    def given(self, wallet: str = "0", grant: int = 0) -> Person:
        """Put money (yuan) or LLM tokens into pockets."""
        import billing

        if billing.nano(wallet):
            kind = "top_up" if billing.nano(wallet) > 0 else "adjust"
            billing.credit(self.relay.db, self.id, "wallet", billing.nano(wallet), kind, "test")
        if grant:
            billing.credit(self.relay.db, self.id, "grant", grant, "reward", "test")
        return self

    def balance(self):
        """Pockets(grant, quota, wallet)."""
        import billing

        return billing.balances(self.relay.db, self.id)["balance"]

    def held(self):
        import billing

        return billing.balances(self.relay.db, self.id)["held"]


def flask(config: Path, *words: str, **options) -> subprocess.CompletedProcess:
    """Run the command line as an operator does, in a process of its own."""
    command = [sys.executable, "-m", "flask", "--app", "app", *words]
    environment = os.environ | {"RELAY_CONFIG": str(config)}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        **options,
    )


def write_config(folder: Path, config: dict) -> Path:
    path = folder / "config.toml"
    path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in config.items()))
    return path


def shown_config(folder: Path, port: int = 0) -> Path:
    """config.example.toml with a port and a database of its own, and without keys.

    A relay in demo mode.
    """
    shown = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    shown = shown.replace("port = 8000 ", f"port = {port} ").replace(
        "data/relay.db", f"{folder}/relay.db"
    )
    path = folder / "config.toml"
    path.write_text(re.sub(r'"\$\w+"', '""', shown), encoding="utf-8")
    return path


def in_thread(config: Path, database: Path) -> Relay:
    """The real server of the real app, with its chores, in a thread of this process."""
    import app as application
    import commands
    import settings
    from server import http as serving
    from server import jobs

    loaded = settings.load(str(config))
    app = application.create_app(loaded, serving=True)
    commands.register(app)  # for tests that ask the same app both ways
    server = serving.Server(app, loaded)
    jobs.begin(app, server)
    server.start()
    return Relay(server.port, config, database, server=server, app=app)


def in_process(config: Path, written: dict) -> Relay:
    """`python app.py`, answering /healthz."""
    database, log = Path(written["database"]["path"]), config.parent / "relay.log"
    relay = Relay(written["server"]["port"], config, database, log=log)
    relay.start_again()
    return relay


def answers(relay: Relay) -> bool:
    """Whether the server answers /healthz; AssertionError with its log if the process ended."""
    assert relay.process.poll() is None, relay.log.read_text()
    try:
        return relay.client().get("/healthz").status == 200
    except OSError:
        return False
