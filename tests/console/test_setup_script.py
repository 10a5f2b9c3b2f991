"""One command connects a developer's machine: in a home full of foreign settings, and back again."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.console.console_stage import site
from tests.stage import configuration, in_thread, write_config

FOREIGN = {
    ".claude/settings.json": (
        '{\n    "theme": "dark",\n    "env": {"MINE": "1", "ANTHROPIC_MODEL": "old"},\n    "hooks": {}\n}'
    ),
    ".codex/config.toml": (
        '# mine\nmodel = "gpt-5"\napproval_policy = "never"\n\n[model_providers.other]\nname = "Other"\n'
        '\n[mcp_servers.x]\ncommand = "y"\n'
    ),
    ".qwen/settings.json": '{"modelProviders":{"openai":[{"id":"mine","baseUrl":"http://x"}]}}\n',
    ".config/opencode/opencode.json": '{\n\t"provider": {"mine": {"name": "Mine"}}\n}\n',
    ".claude-code-router/config.json": '{"Providers": [{"name": "mine"}], "LOG": true}',
    ".continue/config.yaml": "name: mine\nmodels:\n  - name: mine\n    model: m\nrules:\n  - be kind\n",
}


@pytest.fixture
def home(tmp_path):
    """The home of somebody who uses all the tools."""
    folder = tmp_path / "home"
    for name, text in FOREIGN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    (folder / ".claude/settings.json").chmod(0o640)
    return folder


@pytest.fixture
def script(relay):
    """setup.sh as the relay of a test serves it."""
    answered = relay.client().get("/setup.sh")
    assert answered.status == 200
    return answered.body


def run(script: bytes, home: Path, *words: str, token: str = "", shell: str = "sh"):
    """`curl ... | sh -s -- words`."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    environment |= {"RELAY_TOKEN": token} if token else {}
    return subprocess.run(
        [shell, "-s", "--", *words],
        input=script,
        env=environment,
        capture_output=True,
        timeout=60,
        start_new_session=True,  # no terminal to ask
    )


def files(home: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(home)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_it_merges_without_losing_a_foreign_setting_and_undo_restores_every_byte(
    script, home, alice, relay, shell
):
    before = files(home)
    done = run(script, home, "--yes", token=alice.token, shell=shell)
    assert done.returncode == 0, done.stderr.decode()
    claude = json.loads((home / ".claude/settings.json").read_text())
    assert claude["theme"] == "dark" and claude["env"]["MINE"] == "1"
    assert claude["env"]["ANTHROPIC_AUTH_TOKEN"] == alice.token
    assert claude["env"]["ANTHROPIC_BASE_URL"] == f"{relay.url}/api"
    codex = tomllib.loads((home / ".codex/config.toml").read_text())
    assert codex["approval_policy"] == "never" and codex["mcp_servers"]["x"]["command"] == "y"
    assert codex["model_provider"] == "pingtoken" and codex["model"] == "test-model"
    provider = codex["model_providers"]["pingtoken"]
    assert provider["base_url"] == f"{relay.url}/api/v1"
    assert provider["experimental_bearer_token"] == alice.token
    assert codex["model_providers"]["other"] == {"name": "Other"}
    qwen = json.loads((home / ".qwen/settings.json").read_text())
    assert [each["id"] for each in qwen["modelProviders"]["openai"]] == ["mine", "test-model"]
    router = json.loads((home / ".claude-code-router/config.json").read_text())
    assert [each["name"] for each in router["Providers"]] == ["mine", "pingtoken"] and router["LOG"]
    listed = (home / ".continue/config.yaml").read_text()
    assert "  - name: mine\n    model: m\nrules:" in listed and f'apiKey: "{alice.token}"' in listed
    assert alice.token not in (done.stdout + done.stderr).decode()
    assert oct((home / ".claude/settings.json").stat().st_mode)[-3:] == "640"

    again = files(home)
    assert run(script, home, "--yes", token=alice.token).returncode == 0
    assert files(home) == again  # a second run changes nothing
    assert run(script, home, "--undo", shell=shell).returncode == 0
    assert files(home) == before


def test_a_dry_run_asks_for_nothing_and_changes_nothing(script, home):
    before = files(home)
    done = run(script, home, "--dry-run")
    assert done.returncode == 0 and b"ANTHROPIC_BASE_URL" in done.stdout
    assert b"Nothing was changed" in done.stdout and files(home) == before


def test_a_fresh_home_gets_files_for_its_owner_alone_and_is_empty_after_undo(
    script, tmp_path, alice
):
    (tmp_path / "fresh").mkdir()
    done = run(script, tmp_path / "fresh", "--yes", "--all", token=alice.token)
    assert done.returncode == 0, done.stderr.decode()
    made = files(tmp_path / "fresh")
    assert ".codex/config.toml" in made and {mode for _, mode in made.values()} == {0o600}
    tomllib.loads(made[".codex/config.toml"][0].decode())
    assert run(script, tmp_path / "fresh", "--undo").returncode == 0
    assert files(tmp_path / "fresh") == {}


def test_what_was_changed_since_is_left_alone_by_undo(script, home, alice):
    run(script, home, "--yes", token=alice.token)
    path = home / ".claude/settings.json"
    path.write_text(path.read_text().replace("dark", "light"))
    done = run(script, home, "--undo")
    assert done.returncode == 1 and b"left alone" in done.stdout
    assert "light" in path.read_text()
    assert (home / ".codex/config.toml").read_text() == FOREIGN[".codex/config.toml"]


@pytest.mark.parametrize(
    ("words", "token", "reason"),
    [
        (("--yes",), "sk-of-nobody-at-all", b"does not know this token"),
        (("--yes",), "", b"RELAY_TOKEN"),
        (("--yes",), 'sk-"; rm -rf', b"no token"),
        (("--frobnicate",), "", b"there are only"),
        (("--undo",), "", b"nothing to take back"),
    ],
)
def test_it_says_why_it_does_nothing(script, home, words, token, reason):
    before = files(home)
    done = run(script, home, *words, token=token)
    assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert files(home) == before


def test_a_file_that_is_no_plain_json_is_left_alone(script, home, alice):
    path = home / ".config/opencode/opencode.json"
    path.write_text('{ // mine\n "a": 1 }')
    done = run(script, home, "--yes", token=alice.token)
    assert done.returncode == 0 and b"left alone" in done.stdout
    assert path.read_text() == '{ // mine\n "a": 1 }'


def test_half_a_script_does_nothing(script, home, alice):
    before = files(home)
    for share in (0.2, 0.5, 0.9, 0.99):
        run(script[: int(len(script) * share)], home, "--yes", token=alice.token)
    assert files(home) == before


def test_a_hostile_name_of_the_site_is_only_a_name(tmp_path, alice):
    name = "x'\"$(touch /tmp/pwned)`id`\nEND_OF_THE_PROGRAM\n'@ \\ é"
    app = site(tmp_path, site={"name": name.replace("\n", " "), "public_url": alice.relay.url})
    script = app.test_client().get("/setup.sh").data
    (tmp_path / "fresh").mkdir()
    done = run(script, tmp_path / "fresh", "--dry-run", "--all")
    assert done.returncode == 0, done.stderr.decode()


def test_the_powershell_twin_carries_the_same_program(relay):
    script = relay.client().get("/setup.ps1").body.decode()
    program = script.split("@'\n")[1].split("\n'@")[0]
    compile(program, "setup.py", "exec")
    assert f"{relay.url}/api/v1" in program


def test_codex_settings_of_before_are_replaced_and_not_doubled(tmp_path, fake, people_file, person):
    folder = tmp_path / "second"
    folder.mkdir()
    relay = in_thread(
        write_config(folder, configuration(folder, fake.url, {})), folder / "relay.db"
    )
    try:
        script = relay.client().get("/setup.sh").body
        home = tmp_path / "home2"
        (home / ".codex").mkdir(parents=True)
        table = '[model_providers.pingtoken]\nname = "Old"\nbase_url = "http://old"\n'
        text = f'model = "x"\nmodel_provider = "y"\n\n{table}\n[tui]\ntheme = "z"\n'
        (home / ".codex/config.toml").write_text(text)
        done = run(script, home, "--dry-run")
        assert done.returncode == 0 and b"-base_url" in done.stdout and b"tui" not in done.stdout
    finally:
        relay.stop()
