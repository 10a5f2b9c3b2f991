"""The peers, each in an environment of its own (`python -m bench --install-peer`).

LiteLLM's proxy checks one master key and writes no ledger: without a Postgres server it has neither
members nor money. Portkey's gateway, for Node, checks and counts nothing at all; it is here for
what a bare gateway costs. It is left out where there is no Node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.target import MODEL, Target, free_port, launch, wait_for_answer

ENVIRONMENT = Path(__file__).parent / ".peer"

LITELLM_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{ model: openai/{model}, api_base: "http://127.0.0.1:{upstream_port}/v1", api_key: sk-bench }}
general_settings: {{ master_key: sk-bench }}
litellm_settings: {{ telemetry: false }}
"""


class Peer:
    """One process of another gateway, as its documentation starts it.

    By what its `command()` says.
    """

    name: str
    path = "/v1/chat/completions"
    environment: dict[str, str] = {}

    def __init__(self, folder: Path, upstream_port: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log, self.upstream_port = (
            folder,
            folder / f"{self.name}.log",
            upstream_port,
        )
        self.target = Target(self.name, free_port(), self.path, "sk-bench", headers=self.headers())
        self.process: subprocess.Popen | None = None

    def headers(self) -> dict[str, str]:
        """What a call to it must say besides the usual."""
        return {}

    def start(self) -> float:
        """Start; the seconds from nothing to the first answered call."""
        self.process = launch(self.command(), self.log, **self.environment)
        self.target.pid = self.process.pid
        return wait_for_answer(self.target, self.process, self.log)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(60)
            self.process = None


class LiteLLM(Peer):
    name = "litellm"
    package = "litellm[proxy]"
    # The list of prices is otherwise fetched from the network at every start.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}

    @staticmethod
    def install() -> None:
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "-q", LiteLLM.package], check=True)

    @staticmethod
    def version() -> str | None:
        """What is installed; None if it is not."""
        pip = ENVIRONMENT / "bin" / "pip"
        if not (ENVIRONMENT / "bin" / "litellm").exists():
            return None
        listed = subprocess.run(
            [pip, "show", "litellm"], capture_output=True, text=True, check=True
        ).stdout
        return next(line.split()[1] for line in listed.splitlines() if line.startswith("Version:"))

    def command(self) -> list[str]:
        config = self.folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG.format(model=MODEL, upstream_port=self.upstream_port))
        return [
            str(ENVIRONMENT / "bin" / "litellm"),
            "--config",
            str(config),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.target.port),
        ]


class Portkey(Peer):
    name = "portkey"
    package = "@portkey-ai/gateway"
    home = ENVIRONMENT / "node_modules" / "@portkey-ai" / "gateway"

    @staticmethod
    def install() -> None:
        if shutil.which("npm"):
            subprocess.run(
                [
                    "npm",
                    "install",
                    "--silent",
                    "--no-save",
                    "--prefix",
                    ENVIRONMENT,
                    Portkey.package,
                ],
                check=True,
            )

    @staticmethod
    def version() -> str | None:
        """What is installed; None if it is not."""
        about = Portkey.home / "package.json"
        return (
            json.loads(about.read_text())["version"]
            if about.exists() and shutil.which("node")
            else None
        )

    def headers(self) -> dict[str, str]:
        return {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{self.upstream_port}/v1",
        }

    def command(self) -> list[str]:
        return [
            "node",
            str(self.home / "build" / "start-server.js"),
            f"--port={self.target.port}",
            "--headless",
        ]


PEERS = (LiteLLM, Portkey)


def install() -> None:
    """Make the environments; needs the package indexes and some minutes."""
    for each in PEERS:
        each.install()


def installed() -> list[type[Peer]]:
    """The peers that can be measured here."""
    return [each for each in PEERS if each.version()]
