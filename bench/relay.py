"""The relay of the benchmark: `python app.py` with everything on, in a folder of its own.

Tokens, limits and the durable ledger are those of a member's call; only the numbers are high enough
not to refuse.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from bench.target import MODEL, ROOT, Target, free_port, launch, wait_for_answer

MEMBER, PASSWORD = "alice", "alice-has-a-long-password"

CONFIG = """
[server]
port = {port}
threads = {threads}

[database]
path = "{folder}/relay.db"

[plans.free]
requests_per_minute = 100000000
calls_at_once = 100000

[[upstreams]]
name = "bench"
base_url = "http://127.0.0.1:{upstream_port}/v1"
api_key = "sk-bench"
allow_private = true
speaks = ["chat"]

[[models]]
id = "{model}"
context = 1000000
output_max = 8192
routes = [ {{ upstream = "bench", model = "{model}" }} ]
[models.prices]
input = "2"
cached = "0.5"
output = "8"
"""


class Relay:
    """One folder, one file, one process at a time."""

    def __init__(self, folder: Path, upstream_port: int, threads: int = 1100):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "relay.log"
        self.config = folder / "config.toml"
        port = free_port()
        self.config.write_text(
            CONFIG.format(
                port=port, folder=folder, upstream_port=upstream_port, threads=threads, model=MODEL
            )
        )
        self.flask("user", "add", MEMBER, "--password", PASSWORD)
        self.flask("credit", MEMBER, "--wallet", "100000")
        token = self.flask("token", "add", MEMBER, "bench").strip()
        self.target = Target("relay", port, "/api/v1/chat/completions", token)
        self.process: subprocess.Popen | None = None

    def flask(self, *words: str) -> str:
        """Run the command line; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", *words],
            cwd=ROOT,
            env=os.environ | {"RELAY_CONFIG": str(self.config)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"flask {' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def start(self) -> float:
        """Start; the seconds from nothing to the first answered call."""
        self.started_ms = time.time() * 1000
        self.process = launch([sys.executable, "app.py"], self.log, RELAY_CONFIG=str(self.config))
        self.target.pid = self.process.pid
        return wait_for_answer(self.target, self.process, self.log)

    def await_proof(self) -> None:
        """Wait until the ledger is proved, as it is at every start.

        Beside a million calls that takes some seconds.
        """
        database = sqlite3.connect(f"file:{self.folder}/relay.db?mode=ro", uri=True)
        while (
            not (
                found := database.execute(
                    "SELECT value FROM meta WHERE key = 'fact:proof'"
                ).fetchone()
            )
            or json.loads(found[0])["at"] < self.started_ms
        ):
            time.sleep(0.1)
        database.close()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)
            self.process = None
