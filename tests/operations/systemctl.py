#!/usr/bin/python3
"""`systemctl` and `journalctl` on a machine without an init, as far as docs/operations.md needs them.

It starts a unit of /etc/systemd/system as systemd would: its user, folder, environment and umask, an
environment without anything of the caller's, sockets handed over, and ready when the unit says so.
"""

import configparser
import os
import pwd
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS, RUN = Path("/etc/systemd/system"), Path("/run/units")
LIMIT_S = 60


def unit(name: str) -> dict[str, list[str]]:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, dict_type=Several, empty_lines_in_values=False
    )
    parser.optionxform = str
    parser.read(UNITS / name)
    kind = name.rpartition(".")[2].capitalize()
    return {key: value.split("\n") for key, value in parser[kind].items()}


class Several(dict):
    """What is said twice counts twice."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def pid_of(name: str) -> int | None:
    try:
        pid = int((RUN / name).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return None if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text() else pid


def start(name: str) -> None:
    if pid_of(name) is not None:
        return
    RUN.mkdir(exist_ok=True)
    said, owner = unit(f"{name}.service"), pwd.getpwnam(unit(f"{name}.service")["User"][-1])
    state = Path("/var/lib") / said["StateDirectory"][-1]
    state.mkdir(mode=int(said["StateDirectoryMode"][-1], 8), exist_ok=True)
    os.chown(state, owner.pw_uid, owner.pw_gid)
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}
    env |= {"HOME": owner.pw_dir, "USER": owner.pw_name, "LOGNAME": owner.pw_name}
    for line in said["Environment"]:
        env |= dict(each.split("=", 1) for each in shlex.split(line))
    env |= runpy.run_path("/usr/local/sbin/relay")["read"](
        Path(said["EnvironmentFile"][-1]).read_text()
    )
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(f"\0{name}-{os.getpid()}")
    notify.settimeout(LIMIT_S)
    env["NOTIFY_SOCKET"] = f"@{name}-{os.getpid()}"
    listening = held(name)
    pid = os.fork()
    if pid == 0:
        log = os.open(f"/var/log/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        for number in (1, 2):
            os.dup2(log, number)
        os.setsid()
        if listening is not None:
            os.dup2(listening, 3)
            env |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        os.umask(int(said["UMask"][-1], 8))
        os.initgroups(owner.pw_name, owner.pw_gid)
        os.setgid(owner.pw_gid)
        os.setuid(owner.pw_uid)
        os.chdir(said["WorkingDirectory"][-1])
        command = shlex.split(said["ExecStart"][-1])
        os.execve(command[0], command, env)
    (RUN / name).write_text(str(pid))
    if notify.recv(100) != b"READY=1":
        sys.exit(f"{name} did not start")


def held(name: str) -> int | None:
    """The socket of a unit that is enabled, held by a process of its own as pid 1 would."""
    if pid_of(f"{name}.socket") is None:
        return None
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(f"\0{name}.socket")
        return socket.recv_fds(line, 1, 1)[1][0]


def hold(name: str) -> None:
    host, _, port = unit(f"{name}.socket")["ListenStream"][-1].rpartition(":")
    listening = socket.create_server((host, int(port)))
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"\0{name}.socket")
    door.listen()
    pid = os.fork()
    if pid:
        RUN.mkdir(exist_ok=True)
        (RUN / f"{name}.socket").write_text(str(pid))
        return
    os.setsid()
    for number in (1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), number)
    while True:
        line, _ = door.accept()
        with line:
            socket.send_fds(line, [b"x"], [listening.fileno()])


def stop(name: str) -> None:
    pid = pid_of(name)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + LIMIT_S
        while pid_of(name) is not None and time.monotonic() < until:
            time.sleep(0.05)


def main(verb: str, *words: str) -> None:
    names = [each.removesuffix(".service") for each in words if not each.startswith("-")]
    if verb == "daemon-reload":
        for file in UNITS.glob("relay.*"):
            subprocess.run(["systemd-analyze", "verify", file], check=True)
    for name in names:
        if name == "nginx":
            pid = Path("/run/nginx.pid")  # `nginx -t` leaves an empty one
            running = pid.exists() and pid.read_text().strip()
            subprocess.run(["nginx", *(["-s", "reload"] if running else [])], check=True)
        elif name.endswith(".socket"):
            hold(name.removesuffix(".socket"))
        elif verb in ("stop", "restart"):
            stop(name)
        elif verb == "reload":
            os.kill(pid_of(name), signal.SIGHUP)
        if (
            verb in ("start", "restart", "enable")
            and not name.endswith(".socket")
            and name != "nginx"
        ):
            start(name)


if __name__ == "__main__":
    if sys.argv[0].endswith("journalctl"):
        print(Path("/var/log/relay.log").read_text())
    else:
        main(*sys.argv[1:])
