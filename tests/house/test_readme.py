"""What README and docs/ show is true.

Commands run, programs answer, settings parse, links lead somewhere.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import click
import pytest

import app as application
import settings
from relay import metrics
from tests.stage import ROOT, in_thread, write_config

READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
HERE = "http://127.0.0.1:8000"
COMMAND = re.compile(r"(?:flask|sudo relay) ((?:[a-z]+(?:-[a-z]+)* ?)+)((?:[^`\n|)&]|\|(?!\|))*)")

ids = {"ids": lambda path: path.name}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [
        text for found, text in BLOCK.findall(path.read_text(encoding="utf-8")) if found == language
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A relay as it is after `make run` and nothing else, but for port and file.

    (its address, its settings' file).
    """
    folder = tmp_path_factory.mktemp("readme")
    config = write_config(
        folder, {"server": {"port": 0}, "database": {"path": str(folder / "relay.db")}}
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.endswith("_API_KEY"):
                patch.delenv(name)
        relay = in_thread(config, folder / "relay.db")
        yield relay.url, config
        relay.stop()


def shell(script: str, demo, **environment) -> subprocess.CompletedProcess:
    """Run a block as a reader types it, with the commands of this environment, against the demo."""
    url, config = demo
    script = script.replace(HERE, url).replace(". .venv/bin/activate\n", "")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PATH": path, "RELAY_CONFIG": str(config)} | environment,
    )


@pytest.mark.parametrize("path", READMES, **ids)
def test_it_begins_with_the_two_commands(path):
    assert blocks(path, "sh")[:2] == ["make run\n", "make test\n"]


def test_both_languages_show_the_same_programs():
    english, chinese = (BLOCK.findall(path.read_text(encoding="utf-8")) for path in READMES)
    assert english == chinese


def test_the_first_call_works_as_it_is_shown(demo):
    first = next(text for text in blocks(READMES[0], "sh") if "curl" in text)
    done = shell(first, demo)
    assert done.returncode == 0, done.stderr
    assert '"finish_reason":"stop"' in done.stdout.replace(" ", "")
    assert re.search(r"alice +laptop +deepseek-v4-pro +demo +complete", done.stdout), done.stdout


def test_the_program_works_as_it_is_shown(demo):
    url, _ = demo
    setup = "flask user add dave --password 'correct horse battery staple' && flask credit dave --wallet 10"
    assert shell(setup, demo).returncode == 0
    token = shell("flask token add dave laptop", demo).stdout.strip()
    [program] = blocks(READMES[0], "python")
    done = subprocess.run(
        [sys.executable, "-c", program.replace(HERE, url).replace("YOUR_API_TOKEN", token)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


@pytest.mark.parametrize("path", PAGES, **ids)
def test_settings_that_are_shown_are_settings(path):
    for text in blocks(path, "toml"):
        given = tomllib.loads(text)
        for name, shipped in tomllib.loads(
            (ROOT / "config.example.toml").read_text(encoding="utf-8")
        ).items():
            if name == "plans" or (name in ("upstreams", "models") and "upstreams" not in given):
                given.setdefault(name, shipped)
        assert settings.check(given, {})


@pytest.mark.parametrize("path", PAGES, **ids)
def test_settings_that_are_named_are_settings(path):
    kinds = settings.Settings.__annotations__.items()
    tables = {
        name: kind.__struct_fields__ for name, kind in kinds if hasattr(kind, "__struct_fields__")
    }
    named = re.findall(rf"`({'|'.join(tables)})\.(?!py\b)(\w+)", path.read_text(encoding="utf-8"))
    assert [f"{table}.{name}" for table, name in named if name not in tables[table]] == []


def test_the_variables_of_providers_are_those_of_the_example():
    shipped = set(
        re.findall(
            r'^api_key = "\$(\w+)"',
            (ROOT / "config.example.toml").read_text(encoding="utf-8"),
            re.M,
        )
    )
    for path in READMES:
        assert (
            set(re.findall(r"\| `(\w+_API_KEY)` \|", path.read_text(encoding="utf-8"))) == shipped
        )


@pytest.mark.parametrize("path", PAGES, **ids)
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    assert [
        each for each in targets if "://" not in each and not (path.parent / each).exists()
    ] == []


@pytest.mark.parametrize("path", PAGES, **ids)
def test_files_that_are_named_exist(path):
    folders = "deploy|docs|tests|commands|console|db|members|relay|server|settings|bench"
    pattern = rf"`((?:{folders})/[\w./-]*|[\w-]+\.(?:py|sql|example\.toml))`"
    named = re.findall(pattern, path.read_text(encoding="utf-8"))
    missing = {
        each
        for each in named
        if not any(
            (ROOT / folder / (each + end)).exists()
            for end in ("", ".py")
            for folder in ("", "tests")
        )
    }
    assert missing == set()


@pytest.mark.parametrize("path", PAGES, **ids)
def test_make_targets_that_are_named_exist(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`make ([a-z]+)", path.read_text(encoding="utf-8"))) <= targets


@pytest.fixture(scope="module")
def command_line(tmp_path_factory):
    """The group of all commands."""
    folder = tmp_path_factory.mktemp("commands")
    made = application.create_app(
        settings.check({"plans": {"free": {}}, "database": {"path": f"{folder}/r.db"}}, {})
    )
    with closing(made.extensions["relay"].db):
        yield made.cli


@pytest.mark.parametrize("path", PAGES, **ids)
def test_commands_that_are_named_exist_with_their_options(path, command_line):
    for words, rest in COMMAND.findall(path.read_text(encoding="utf-8")):
        command = command_line
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"flask {words}"
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, f"flask {words}{rest}"


def test_commands_in_blocks_are_typed_rightly():
    for path in PAGES:
        for text in blocks(path, "sh"):
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
            assert done.returncode == 0, f"{path.name}: {done.stderr}"
            assert shlex.split(text.replace("\\\n", ""))


def test_metrics_that_are_named_exist():
    text = metrics.text().decode()
    named = {
        name
        for path in PAGES
        for name in re.findall(r"`(relay_\w+)`", path.read_text(encoding="utf-8"))
    }
    assert named and {name for name in named if f"# HELP {name} " not in text} == set()


def test_the_layers_in_the_docs_are_those_of_the_house_test():
    from tests.house.test_house import LAYER

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"```\n(5  .*?)```", text, re.S)[1]
    for line in drawn.splitlines():
        if found := re.match(r"(\d)  (.*?)   ", line):
            for name in found[2].split():
                assert LAYER[name.strip("/").replace("/", ".")] == int(found[1]), name
