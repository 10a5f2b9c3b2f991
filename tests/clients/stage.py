"""Where a client plays: a relay in a process of its own, a scripted model behind it, alice's token,
and a secret.

The model knows no secret. Asked with tools it calls the one that it was told to, twice at once;
given the results it repeats them. So a secret can only come back if the client understood the
calls, ran its real tool and sent back what it found.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.install import ROOT

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests import stage as relays  # noqa: E402
from tests.fake_upstream import FakeUpstream, Request  # noqa: E402
from tests.wires.scripted_model import Says  # noqa: E402

MODEL = "deepseek-v4-pro"  # what the documented samples ask for
HELLO = "Hello! How can I help you today?"


class Wrong(Exception):
    """A client did not do what it should. The message is what a person needs to find out why."""


@dataclass
class Model:
    """What the upstream says.

    `tool` and `arguments` are the call that reads a file in the client's own words.
    """

    files: list[Path] = field(default_factory=list)
    tool: str = ""
    arguments: Callable[[Path], dict] = dict
    asked: list[dict] = field(default_factory=list)

    def __call__(self, request: Request) -> list:
        body = request.json
        self.asked.append(body)
        found = results(body["messages"])
        if found:
            return Says("The files say: " + " and ".join(found), reasoning="That is it.")(request)
        offered = {tool["function"]["name"] for tool in body.get("tools", ())}
        if self.tool not in offered:
            return Says(HELLO)(request)
        calls = [
            (f"call_{number}", self.tool, json.dumps(self.arguments(file)))
            for number, file in enumerate(self.files)
        ]
        return Says("Let me look.", reasoning="I must read them first.", calls=tuple(calls))(
            request
        )


def results(messages: list[dict]) -> list[str]:
    """What tools have found since the model spoke last."""
    found = []
    for message in reversed(messages):
        if message["role"] == "assistant":
            break
        if message["role"] == "tool":
            found.append(
                message["content"]
                if isinstance(message["content"], str)
                else json.dumps(message["content"])
            )
    return found[::-1]


@dataclass
class Stage:
    """One relay for all clients; `fresh` begins a scene."""

    relay: relays.Relay
    fake: FakeUpstream
    token: str
    folder: Path
    scenes: int = 0
    model: Model = field(default_factory=Model)
    _rows: int = 0

    @property
    def url(self) -> str:
        return self.relay.url

    def fresh(self) -> Path:
        """A new folder with nothing in it, for a client's home.

        What was said before is forgotten.
        """
        self.scenes += 1
        self.model = Model()
        self.fake.always(self.model)
        self._rows = len(self.relay.rows())
        folder = self.folder / str(self.scenes)
        folder.mkdir()
        return folder

    def secrets(self, home: Path, tool: str, arguments: Callable[[Path], dict]) -> list[str]:
        """Two files with a secret each in a folder of work, which the model will want to have read
        by this tool."""
        kept = [secrets.token_hex(12) for _ in range(2)]
        self.model.files = [home / "work" / f"{name}.txt" for name in ("first", "second")]
        self.model.tool, self.model.arguments = tool, arguments
        for file, secret in zip(self.model.files, kept, strict=True):
            file.parent.mkdir(exist_ok=True)
            file.write_text(secret + "\n")
        return kept

    def calls(self) -> list[dict]:
        """The rows of this scene's calls, all of which ended well and were charged.

        Raises Wrong.
        """
        rows = self.relay.rows()[self._rows :]
        for row in rows:
            if row["outcome"] != "complete" or not row["cost"]:
                raise Wrong(
                    f"a call ended as {row['outcome']} {row['status']} {row['error']} and cost {row['cost']}"
                )
        self.relay.ledger_is_right()
        return rows


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage in this folder, which it leaves behind; the relay is stopped at the end."""
    with FakeUpstream() as fake:
        config = relays.configuration(
            folder,
            fake.url,
            {
                "server": {"port": relays.free_port()},
                "models": [relays.model_config(MODEL, output_max=64_000)],
            },
        )
        path = relays.write_config(folder, config)
        relay = relays.in_process(path, config)
        try:
            for words in (
                ("user", "add", "alice", "--password", "alice has a long password"),
                ("credit", "alice", "--wallet", "1000"),
            ):
                cli(path, *words)
            yield Stage(relay, fake, cli(path, "token", "add", "alice", "clients").strip(), folder)
        finally:
            relay.stop()


def cli(config: Path, *words: str) -> str:
    done = relays.flask(config, *words)
    if done.returncode:
        raise Wrong(f"flask {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout
