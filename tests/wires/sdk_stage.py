"""The official SDKs pointed at a relay, with every HTTP answer that they got, and no waiting
between retries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import anthropic
import openai
import pytest

from tests.stage import wait_until

COST = (
    20 * 2000 + 10 * 8000
)  # nano-yuan, of providers.usage() at the prices of stage.model_config()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Sdk:
    """A client as its makers made it, with the statuses of the answers that it saw."""

    client: object
    statuses: list[int] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.client, name)

    def saw(self, response) -> None:
        self.statuses.append(response.status_code)
        self.headers.append(dict(response.headers))


def openai_sdk(person, token: str | None = None, **options) -> Sdk:
    return _sdk(openai, openai.OpenAI, person.relay.url + "/api/v1", token or person.token, options)


def anthropic_sdk(person, token: str | None = None, **options) -> Sdk:
    return _sdk(
        anthropic, anthropic.Anthropic, person.relay.url + "/api", token or person.token, options
    )


def _sdk(package, make, base_url: str, token: str, options: dict) -> Sdk:
    sdk = Sdk(None)
    http = package.DefaultHttpxClient(event_hooks={"response": [sdk.saw]}, trust_env=False)
    sdk.client = make(base_url=base_url, api_key=token, http_client=http, **options)
    return sdk


def mint(person, **limits) -> str:
    """Another token of a person, with limits."""
    from members import tokens

    return tokens.mint(person.relay.db, person.id, "bound", **limits)[1]


def charged(person) -> int:
    """What the calls of a person with 10 yuan have cost, in nano-yuan.

    All are closed, and the ledger holds.
    """
    wait_until(lambda: all(row["closed_at"] for row in person.relay.rows()))
    assert person.relay.ledger_is_right()
    return 10_000_000_000 - person.balance().wallet


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The pauses, in seconds, that the SDKs wanted to make between retries; none is made."""
    wanted = []
    clock = SimpleNamespace(
        **vars(time) | {"sleep": wanted.append}
    )  # theirs alone: the relay sleeps on
    for package in (openai, anthropic):
        monkeypatch.setattr(package._base_client, "time", clock)
    return wanted
