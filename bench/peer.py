"""The peer: LiteLLM's proxy, in an environment of its own (`python -m bench --install-peer`).

It checks one master key and writes no ledger: without a Postgres server it has neither members nor money.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.target import MODEL, Target, free_port, launch, wait_for_answer

ENVIRONMENT = Path(__file__).parent / ".peer"
PACKAGE = "litellm[proxy]"

CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{ model: openai/{model}, api_base: "http://127.0.0.1:{upstream_port}/v1", api_key: sk-bench }}
general_settings: {{ master_key: sk-bench }}
litellm_settings: {{ telemetry: false }}
"""


def installed() -> bool:
    return (ENVIRONMENT / "bin" / "litellm").exists()


def install() -> None:
    """Make the environment; needs the package index and some minutes."""
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "-q", PACKAGE], check=True)


def version() -> str:
    listed = subprocess.run(
        [ENVIRONMENT / "bin" / "pip", "show", "litellm"], capture_output=True, text=True, check=True
    ).stdout
    return next(line.split()[1] for line in listed.splitlines() if line.startswith("Version:"))


class LiteLLM:
    """One process of the proxy, as its documentation starts it."""

    def __init__(self, folder: Path, upstream_port: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.log = folder / "litellm.yaml", folder / "litellm.log"
        self.config.write_text(CONFIG.format(model=MODEL, upstream_port=upstream_port))
        self.target = Target("litellm", free_port(), "/v1/chat/completions", "sk-bench")
        self.process: subprocess.Popen | None = None

    def start(self) -> float:
        """Start; the seconds from nothing to the first answered call."""
        command = [str(ENVIRONMENT / "bin" / "litellm"), "--config", str(self.config)]
        command += ["--host", "127.0.0.1", "--port", str(self.target.port)]
        # The list of prices is otherwise fetched from the network at every start.
        self.process = launch(command, self.log, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR")
        self.target.pid = self.process.pid
        return wait_for_answer(self.target, self.process, self.log)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(60)
            self.process = None
