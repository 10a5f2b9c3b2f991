"""Something that answers chat calls: where it listens, and what its processes weigh."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_S = 180
MODEL = "bench"


@dataclass
class Target:
    """`pid` None: not weighed (the upstream itself)."""

    name: str
    port: int
    path: str = "/v1/chat/completions"
    token: str = "sk-none"
    pid: int | None = None
    headers: dict[str, str] = field(default_factory=dict)  # what a call must say besides the usual

    def rss_mib(self) -> float:
        """Resident memory of the process and all its descendants, in MiB."""
        return sum(map(resident_kib, family(self.pid))) / 1024

    def cpu_ms(self) -> float:
        """Processor time that the process and its descendants have used, in ms."""
        return sum(map(used_ticks, family(self.pid))) * 1000 / os.sysconf("SC_CLK_TCK")

    def answered(self) -> bool:
        """Whether one plain call is answered with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 64,
        }
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            **self.headers,
        }
        try:
            connection.request("POST", self.path, json.dumps(body), headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def used_ticks(pid: int) -> int:
    """User and system time, in clock ticks (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [each for child in children for each in family(int(child))]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def launch(command: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """Start a server from the project's folder, its output into `log`. Its code is compiled once,
    as an operator's is, whatever this process was told."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=given | environment, stdout=output, stderr=output
        )


def wait_for_answer(target: Target, process: subprocess.Popen, log: Path) -> float:
    """Seconds until the first answered call; RuntimeError with the log's end if it never comes."""
    started = time.monotonic()
    while not target.answered():
        if process.poll() is not None or time.monotonic() - started > START_S:
            raise RuntimeError(f"{target.name} does not answer:\n{log.read_text()[-3000:]}")
        time.sleep(0.005)
    return time.monotonic() - started
