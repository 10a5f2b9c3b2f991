"""A fresh Debian 12 in a folder: what docs/operations.md is tried on.

`python -m tests.operations.machine` makes it once, in `.debian/`, with mmdebstrap or debootstrap,
which needs root and Debian's mirror. A `Machine` is that under an overlay in memory, so that each
begins fresh, with a network of its own, in which it may listen where it likes. Where nobody made
one, the Debian that runs the tests takes its place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stage import ROOT, wait_until

BASE = ROOT / ".debian"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
# What a server has before anybody thinks of a relay, and nginx. What the document installs is not among it.
THERE = "sudo,cron,systemd,ca-certificates,openssl,curl,nginx-light,python3"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT_S = 240

# The environments in which people and programs run commands.
LOGIN = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "PATH": PATH, "LANG": "C.UTF-8"}
CRON = {"HOME": "/root", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
STRANGE = LOGIN | {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "PYTHONPATH": "/nowhere",
    "PYTHONHOME": "/nowhere",
    "FLASK_APP": "other:app",
    "FLASK_DEBUG": "1",
    "LC_ALL": "C",
    "TMPDIR": "/nowhere",
}


def make() -> None:
    """Make the base. Raises CalledProcessError, FileNotFoundError."""
    draft = Path(f"{BASE}.new")
    shutil.rmtree(draft, ignore_errors=True)
    if shutil.which("mmdebstrap"):
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={THERE}"]
    else:
        command = ["debootstrap", "--variant=minbase", f"--include={THERE}"]
    subprocess.run([*command, SUITE, draft, MIRROR], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(BASE, ignore_errors=True)
    draft.rename(BASE)


class Machine:
    """A folder with a whole system, and a way to run commands in it."""

    def __init__(self, root: Path, keeper: int):
        self.root, self._keeper = root, keeper

    def run(
        self, script: str, env: dict[str, str] = LOGIN, outside: bool = False, **options
    ) -> str:
        """What a script of `sh` says, with this environment and no other. `outside`: with the network
        of the machine that runs the tests. Raises AssertionError if it fails."""
        done = self.attempt(script, env, outside, **options)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(self, script, env=LOGIN, outside=False, shell="bash", cwd="/root", **options):
        where = ["/usr/bin/nsenter", f"--target={self._keeper}", "--pid", "--mount"]
        where += [] if outside else ["--net"]
        # The mounts are the tests' own, and so is what is left in them.
        return subprocess.run(
            [
                *where,
                "/usr/sbin/chroot",
                self.root,
                "/bin/sh",
                "-c",
                f'cd {cwd} && exec {shell} -e -c "$0"',
                script,
            ],
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text(encoding="utf-8")


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine that has just been installed. Raises CalledProcessError where mounting is not allowed."""
    with tempfile.TemporaryDirectory() as name:
        top, root = Path(name), Path(name) / "root"
        mounted = []

        def mount(*words: str | Path) -> None:
            subprocess.run(["mount", *words], check=True, capture_output=True)
            mounted.append(words[-1])

        lower = BASE if BASE.is_dir() else Path("/")
        keeper = None
        try:
            mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", top)
            for each in ("upper", "work", "root"):
                (top / each).mkdir(mode=0o755)
            layers = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work"
            mount("-t", "overlay", "-o", layers, "overlay", root)
            mount("--bind", "/dev", root / "dev")
            mount("-t", "tmpfs", "tmpfs", root / "run")
            _as_reachable_as_here(root)
            keeper = subprocess.Popen(
                [
                    "unshare",
                    "--net",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    f"--mount-proc={root}/proc",
                    "sleep",
                    "infinity",
                ]
            )
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
            first = int(wait_until(lambda: children.read_text().split())[0])
            wait_until(lambda: Path(f"/proc/{first}/comm").read_text() == "sleep\n")
            _loopback(first)
            yield Machine(root, first)
        finally:
            if keeper is not None:  # with it ends whatever runs there
                keeper.kill()
                keeper.wait()
            for each in reversed(mounted):
                subprocess.run(["umount", "-l", each], check=False)


def _as_reachable_as_here(root: Path) -> None:
    """Names, authorities and the settings of pip: what a machine of this network would have."""
    for each in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/hosts"):
        target = root / each.lstrip("/")
        target.unlink(missing_ok=True)
        shutil.copyfile(each, target)
    # Debian's pip believes what certifi says as soon as that is installed beside it; and the system's
    # list is made anew when one more authority is believed.
    shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", root / "etc/pip.crt")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/pip.crt\n")


def _loopback(pid: int) -> None:
    """Bring up 127.0.0.1 in the network of a process (SIOCSIFFLAGS of netdevice(7))."""
    code = (
        "import fcntl, socket, struct; s = socket.socket();"
        "fcntl.ioctl(s, 0x8914, struct.pack('16sH14s', b'lo', 0x1 | 0x40, b''))"
    )
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("only root can make a system in a folder")
    make()
