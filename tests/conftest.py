"""The stage for tests over real sockets: a scripted upstream, the real server, and three people
with tokens.

alice is a member, bob another one, carol an administrator. They are made once, in a file that each
relay then gets a copy of; money is given by the ledger's own functions. `relay` is the server in a
thread of this process; `relay_process` is `python app.py`, for tests that kill it.
"""

import functools
import os
import re
import shutil
from contextlib import closing
from pathlib import Path

import hypothesis
import jinja2
import pytest
from flask import Flask
from werkzeug.routing import Rule

from tests import browser_stage
from tests.fake_upstream import FakeUpstream
from tests.stage import (
    PEOPLE,
    Person,
    Relay,
    configuration,
    free_port,
    in_process,
    in_thread,
    write_config,
)

# What whoever runs the tests may have set for other programs, and tests and what they start must
# not see.
FOREIGN = re.compile(
    r"\w+_proxy|\w+_api_key|\w+_auth_token|(openai|anthropic|flask|relay)_\w+|columns", re.I
).fullmatch


def pytest_configure(config):
    """Leave the environment behind, and keep the files of tests in memory if it is large.

    Synced writes are slow.
    """
    for name in filter(FOREIGN, list(os.environ)):
        del os.environ[name]
    memory, needed = Path("/dev/shm"), 2 << 30
    if memory.is_dir() and os.access(memory, os.W_OK):
        room = os.statvfs(memory)
        if room.f_bavail * room.f_frsize > needed and not room.f_flag & os.ST_NOEXEC:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


# The same examples each time, however long they take; `--hypothesis-profile=default` looks for
# others.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("suite")


class CompiledTemplates(jinja2.BytecodeCache):
    """The code of templates, kept for the next app."""

    def __init__(self):
        self._kept = {}

    def load_bytecode(self, bucket):
        bucket.code = self._kept.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket):
        self._kept[bucket.key, bucket.checksum] = bucket.code


@pytest.fixture(scope="session", autouse=True)
def computed_once():
    """What takes long and is the same in every test.

    Hashes of passwords, and the code of routes and templates.
    """
    from members import accounts

    code, compile_builder = {}, Rule._compile_builder

    def remembered(rule, append_unknown=True):
        key = (rule.rule, *rule._trace, repr(rule.defaults), append_unknown)
        if key not in code:
            code[key] = compile_builder(rule, append_unknown)
        return code[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", remembered)
        patch.setattr(Flask, "jinja_options", {"bytecode_cache": CompiledTemplates()})
        for name in ("generate_password_hash", "check_password_hash"):
            patch.setattr(accounts, name, functools.cache(getattr(accounts, name)))
        yield


@pytest.fixture(scope="session")
def people_file(tmp_path_factory):
    """A database with alice, bob and carol in it, and their tokens: (path, {name: (id, token)})."""
    from db import Database
    from members import accounts, tokens

    folder, people = tmp_path_factory.mktemp("people"), {}
    with closing(Database(folder / "people.db", writer=False)) as database:
        for name, role in PEOPLE.items():
            member = accounts.add(database, name, f"{name} has a long password", role=role)
            _, token = tokens.mint(database, member.id, "test")
            people[name] = (member.id, token)
    return folder / "people.db", people


@pytest.fixture
def fake():
    """The upstream of the usual configuration."""
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def other_fake():
    """A second upstream, for routes."""
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def start_relay(tmp_path, fake, people_file):
    """A function that starts a relay.

    `start_relay(process=False, **changes of the configuration)`.
    """
    started = []

    def start(process: bool = False, **changes) -> Relay:
        config = configuration(tmp_path, fake.url, changes)
        database = Path(config["database"]["path"])
        if not database.exists():
            shutil.copyfile(people_file[0], database)
        if process and not config["server"]["port"]:
            config["server"]["port"] = free_port()
        path = write_config(tmp_path, config)
        started.append(in_process(path, config) if process else in_thread(path, database))
        return started[-1]

    yield start
    for each in reversed(started):
        each.stop()


@pytest.fixture
def relay(start_relay) -> Relay:
    """A relay with the usual configuration, in this process."""
    return start_relay()


@pytest.fixture
def relay_process(start_relay) -> Relay:
    """`python app.py` with the usual configuration."""
    return start_relay(process=True)


@pytest.fixture(scope="module")
def chromium():
    """A browser, for the tests of one file."""
    with browser_stage.chromium() as browser:
        yield browser


@pytest.fixture
def person(people_file):
    """A function: `person("alice", relay)`, for tests that start a relay of their own."""
    return lambda name, relay: Person(name, *people_file[1][name], relay)


@pytest.fixture
def alice(person, relay) -> Person:
    """A member with 10 yuan."""
    return person("alice", relay).given(wallet="10")


@pytest.fixture
def bob(person, relay) -> Person:
    """Another member with 10 yuan."""
    return person("bob", relay).given(wallet="10")


@pytest.fixture
def carol(person, relay) -> Person:
    """The administrator, with 10 yuan."""
    return person("carol", relay).given(wallet="10")
