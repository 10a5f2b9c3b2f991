"""The documented samples, run verbatim but for the address and the token."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.clients.install import gson, javac, node
from tests.clients.stage import HELLO, Stage, Wrong

SAMPLES = Path(__file__).parent / "samples"
ADDRESS, TOKEN = "https://pingtoken.cn", "YOUR_API_TOKEN"
SAMPLE_S = 120
COUNT = "Tokens used: 30"  # of providers.usage()


@dataclass(frozen=True)
class Sample:
    """A file of samples/, the commands that run it, and what it prints. {file} and {jar} are filled in."""

    file: str
    commands: tuple[tuple[str, ...], ...]
    prints: tuple[str, ...]
    calls: int

    @property
    def name(self) -> str:
        return self.file

    def run(self, stage: Stage) -> None:
        """Raises Wrong if it fails, prints anything else, or if its calls did not end well."""
        folder = stage.fresh()
        text = (SAMPLES / self.file).read_text()
        if ADDRESS not in text or TOKEN not in text:
            raise Wrong("its address or its token is not where it should be")
        (folder / self.file).write_text(
            text.replace(ADDRESS, stage.url).replace(TOKEN, stage.token)
        )
        output = "".join(self.execute(command, folder) for command in self.commands)
        at = 0
        for words in self.prints:
            at = output.find(words, at) + len(words)
            if at < len(words):
                raise Wrong(f"{words!r} is not where it should be in:\n{output}")
        if len(stage.calls()) != self.calls:
            raise Wrong(f"it made {len(stage.calls())} calls, not {self.calls}")

    def execute(self, command: tuple[str, ...], folder: Path) -> str:
        """Run a command in the folder; what it prints."""
        words = [
            word.format(file=self.file, jar=gson() if "{jar}" in word else "") for word in command
        ]
        places = (
            [node(), javac(), Path(sys.executable).parent]
            if self.file.endswith("java")
            else [node(), Path(sys.executable).parent]
        )
        path = os.pathsep.join(map(str, [*places, "/usr/local/bin", "/usr/bin", "/bin"]))
        environment = {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
        }
        try:
            done = subprocess.run(
                words, env=environment, cwd=folder, capture_output=True, text=True, timeout=SAMPLE_S
            )
        except subprocess.TimeoutExpired as error:
            raise Wrong(
                f"it was still running after {SAMPLE_S} s:\n{error.stdout}\n{error.stderr}"
            ) from error
        if done.returncode:
            raise Wrong(
                f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout


SCENES = (
    Sample("chat.sh", (("sh", "{file}"),), (HELLO, '"total_tokens":30'), 1),
    Sample("chat.py", (("python", "{file}"),), (HELLO, COUNT, HELLO), 2),
    Sample("test.py", (("python", "{file}"),), (HELLO,), 1),
    Sample("chat.mjs", (("node", "{file}"),), (HELLO, COUNT, HELLO), 2),
    Sample(
        "ChatExample.java",
        (("javac", "-cp", "{jar}", "{file}"), ("java", "-cp", "{jar}:.", "ChatExample")),
        (HELLO, COUNT),
        1,
    ),
)
