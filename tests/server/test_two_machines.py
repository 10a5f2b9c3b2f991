"""Two machines, as network namespaces: what the second one copies works there."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.client import ask
from tests.stage import ROOT, flask, free_port, shown_config, wait_until

NAMES = [f"relay-{os.getpid()}-{letter}" for letter in "ab"]
ADDRESSES = ["10.213.7.1", "10.213.7.2"]
READ = """
import sys, urllib.request
url, token, body = sys.argv[1:4]
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
asked = urllib.request.Request(url, body.encode() or None, headers)
sys.stdout.write(urllib.request.urlopen(asked, timeout=10).read().decode())
"""


def run(*words):
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def machines():
    """Two namespaces with a cable between them."""
    if os.geteuid() or run("ip", "netns", "add", NAMES[0]).returncode:
        pytest.skip("needs root and network namespaces")
    try:
        run("ip", "netns", "add", NAMES[1])
        ends = [f"rl{os.getpid() % 100_000}{letter}" for letter in "ab"]
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(NAMES, ends, ADDRESSES, strict=True):
            run("ip", "link", "set", end, "netns", name)
            for more in (
                ("addr", "add", f"{address}/24", "dev", end),
                ("link", "set", end, "up"),
                ("link", "set", "lo", "up"),
            ):
                run("ip", "netns", "exec", name, "ip", *more)
        yield NAMES
    finally:
        for name in NAMES:
            run("ip", "netns", "del", name)


def test_what_another_machine_copies_works_there(machines, tmp_path):
    here, there = machines
    port = free_port()
    config = shown_config(tmp_path, port)
    config.write_text(config.read_text().replace('host = "127.0.0.1"', 'host = "0.0.0.0"', 1))
    flask(config, "user", "add", "alice", "--password", "a-good-password")
    flask(config, "credit", "alice", "--wallet", "1")
    token = flask(config, "token", "add", "alice", "laptop").stdout.strip()
    serving = subprocess.Popen(
        ["ip", "netns", "exec", here, sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"RELAY_CONFIG": str(config)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def read(url, body=""):
        found = run("ip", "netns", "exec", there, sys.executable, "-c", READ, url, token, body)
        return found.stdout

    try:
        page = wait_until(lambda: read(f"http://{ADDRESSES[0]}:{port}/docs/chat"))
        bases = set(re.findall(r"http://[\d.]+:\d+/api/v1", page))
        assert bases == {f"http://{ADDRESSES[0]}:{port}/api/v1"}
        answer = json.loads(
            read(f"{bases.pop()}/chat/completions", json.dumps(ask(model="deepseek-v4-pro")))
        )
        assert answer["choices"][0]["message"]["content"]
        script = read(f"http://{ADDRESSES[0]}:{port}/setup.sh")
        assert f"{ADDRESSES[0]}:{port}" in script and "127.0.0.1" not in script
    finally:
        serving.terminate()
        serving.wait(60)
