"""The agents: how each is configured, as our documentation tells its users, and what must come out.

Each scene runs one agent headless in an empty home. It passes if both secrets stand in the final
answer, if the agent asked no more often than it had to, and if every call ended well and was
charged.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from console.docs.snippets import BY_SLUG, SitePlace, render
from tests.clients.install import agents, node
from tests.clients.stage import MODEL, Stage, Wrong

PROMPT = "What do the files first.txt and second.txt in this folder say?"
SCENE_S = 180  # agents start slowly on a busy machine
MISTYPED = "sk-" + "x" * 43
MISTYPED_S = 30  # a wrong token must be told soon: Claude Code would go on for 40 s

CODEX_BUILT_IN = """
model = "{model}"
openai_base_url = "{url}/api/v1"
"""


@dataclass(frozen=True)
class Agent:
    """One way to run an agent. In `environment` and `files` {url}, {token}, {model} and {home} are
    filled in.

    `documented`: whose page of our documentation it follows. The files that stand there are
    written, filled in as there. What the environment adds then is its token, or keeps it from
    asking for news.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    tool: str
    arguments: Callable[[Path], dict]
    wire: str
    files: dict[str, str] = field(default_factory=dict)  # below the home
    documented: str = ""  # the slug of a tool

    def run(self, stage: Stage) -> None:
        """Let it read two secrets. Raises Wrong."""
        home = stage.fresh()
        kept = stage.secrets(home, self.tool, self.arguments)
        done = self.start(stage, home, stage.token)
        output = f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        if done.returncode or not all(secret in done.stdout for secret in kept):
            raise Wrong(
                f"exit status {done.returncode}, looking for {' and '.join(kept)}:\n{output}"
            )
        if kept[0] in str(stage.model.asked[0]):
            raise Wrong("the secret was in the prompt, so this proves nothing")
        wires = {row["wire"] for row in stage.calls()}
        if wires != {self.wire}:
            raise Wrong(f"it spoke {wires}, not {self.wire}:\n{output}")

    def start(self, stage: Stage, home: Path, token: str) -> subprocess.CompletedProcess:
        """Run it in an empty home, with nothing of our own environment."""

        def filled(text: str) -> str:
            return text.format(url=stage.url, token=token, model=MODEL, home=home)

        texts = {name: filled(text) for name, text in self.files.items()} | self.written(
            stage, token
        )
        for name, text in texts.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        work = home / "work"
        work.mkdir(exist_ok=True)
        path = os.pathsep.join([str(node()), str(agents()), "/usr/local/bin", "/usr/bin", "/bin"])
        environment = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
        environment |= {name: filled(value) for name, value in self.environment.items()}
        try:
            return subprocess.run(
                [filled(word) for word in self.command],
                env=environment,
                cwd=work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SCENE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise Wrong(
                f"it was still running after {SCENE_S} s:\n{error.stdout}\n{error.stderr}"
            ) from error

    def written(self, stage: Stage, token: str) -> dict[str, str]:
        """The files that our documentation tells its readers to write, by their place below the
        home."""
        place = SitePlace(stage.url, "PingToken", MODEL, 131_072, 8192, token)
        told = BY_SLUG[self.documented].snippets if self.documented else ()
        return {
            each.file.removeprefix("~/"): render(each, place)
            for each in told
            if each.file.startswith("~/")
        }


@dataclass(frozen=True)
class Mistyped:
    """An agent with a wrong token.

    Its user must soon read what is wrong, and be charged nothing.
    """

    agent: Agent

    @property
    def name(self) -> str:
        return f"{self.agent.name}-mistyped"

    def run(self, stage: Stage) -> None:
        """Raises Wrong."""
        started = time.monotonic()
        done = self.agent.start(stage, stage.fresh(), MISTYPED)
        took_s, output = time.monotonic() - started, done.stdout + done.stderr
        if not done.returncode or "API key provided: it is missing or not valid" not in output:
            raise Wrong(f"exit status {done.returncode}:\n{output[-4000:]}")
        if took_s > MISTYPED_S:
            raise Wrong(f"it took {took_s:.0f} s to say so")
        if stage.calls():
            raise Wrong("somebody was charged")


@dataclass(frozen=True)
class Turns:
    """An agent that is asked again and again in one conversation.

    What the provider reads must begin with what it read before, to the byte, or its prefix cache is
    lost and each turn is paid in full.
    """

    agent: Agent
    again: tuple[tuple[str, ...], ...]  # the commands of the further turns

    @property
    def name(self) -> str:
        return f"{self.agent.name}-turns"

    def run(self, stage: Stage) -> None:
        """Raises Wrong."""
        home, before = stage.fresh(), len(stage.fake.requests)
        stage.secrets(home, self.agent.tool, self.agent.arguments)
        for command in (self.agent.command, *self.again):
            done = replace(self.agent, command=command).start(stage, home, stage.token)
            if done.returncode:
                raise Wrong(f"exit status {done.returncode}:\n{done.stdout}\n{done.stderr}"[-6000:])
        read = [messages_of(each.body.decode()) for each in stage.fake.requests[before:]]
        if len(read) < len(self.again) + 2:
            raise Wrong(f"only {len(read)} requests were made")
        for number, (earlier, later) in enumerate(itertools.pairwise(read), 2):
            if not later.startswith(earlier[:-1]):
                pairs = enumerate(zip(earlier, later, strict=False))
                same = next((at for at, (a, b) in pairs if a != b), len(later))
                raise Wrong(
                    f"request {number} differs at {same}: {earlier[same - 80 : same + 200]!r} was"
                    f" {later[same - 80 : same + 200]!r}"
                )


def messages_of(body: str) -> str:
    """The list of messages of a chat request, as it was written."""
    start = body.index("[", body.index('"messages":'))
    _, end = json.JSONDecoder().raw_decode(body, start)
    return body[start:end]


CLAUDE = ("claude", "-p", PROMPT, "--allowedTools", "Read")
CODEX = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", PROMPT)

claude_code = Agent(
    "claude-code",
    CLAUDE,
    {},
    "Read",
    lambda file: {"file_path": str(file)},
    "messages",
    documented="claude-code",
)
claude_code_pasted = Agent(  # the base address of all other tools, and the other header
    "claude-code-pasted",
    CLAUDE,
    {
        "ANTHROPIC_BASE_URL": "{url}/api/v1",
        "ANTHROPIC_API_KEY": "{token}",
        "ANTHROPIC_MODEL": "{model}",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "{model}",
    },
    "Read",
    lambda file: {"file_path": str(file)},
    "messages",
)
codex = Agent(
    "codex",
    CODEX,
    {"PINGTOKEN_API_KEY": "{token}"},
    "exec_command",
    lambda file: {"cmd": f"cat {file}"},
    "responses",
    documented="codex",
)
codex_built_in = Agent(  # tries a websocket first
    "codex-built-in",
    CODEX,
    {"CODEX_HOME": "{home}/.codex", "CODEX_API_KEY": "{token}"},
    "exec_command",
    lambda file: {"cmd": f"cat {file}"},
    "responses",
    {".codex/config.toml": CODEX_BUILT_IN},
)
qwen_code = Agent(
    "qwen-code",
    ("qwen", "-p", PROMPT, "--yolo"),
    {},
    "read_file",
    lambda file: {"file_path": str(file)},
    "chat",
    documented="qwen-code",
)
opencode = Agent(
    "opencode",
    ("opencode", "run", PROMPT),
    {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
    "read",
    lambda file: {"filePath": str(file)},
    "chat",
    documented="opencode",
)
continue_cli = Agent(
    "continue",
    ("cn", "-p", PROMPT, "--auto"),
    {"CONTINUE_TELEMETRY_ENABLED": "0"},
    "Read",
    lambda file: {"filepath": str(file)},
    "chat",
    documented="continue",
)

SCENES = (
    claude_code,
    claude_code_pasted,
    Mistyped(claude_code),
    codex,
    codex_built_in,
    Mistyped(codex),
    Turns(
        codex,
        tuple(
            (*CODEX[:2], "resume", "--last", "--skip-git-repo-check", text)
            for text in ("And what does the first one say?", "Thank you. Say goodbye.")
        ),
    ),
    qwen_code,
    opencode,
    continue_cli,
)
