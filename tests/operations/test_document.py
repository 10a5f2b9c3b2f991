"""Every command of docs/operations.md, run in its order on a fresh Debian 12."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from tests.operations.machine import CRON, LOGIN, STRANGE, Machine, machine
from tests.stage import ROOT, wait_until

DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
MIRROR = "https://your.git.host/relay.git"
NEWEST = "is_team"  # the newest schema begins with it
HERE = "/srv/relay.git"  # what stands for that address


@pytest.fixture
def fresh():
    try:
        with machine() as made:
            yield made
    except (subprocess.CalledProcessError, FileNotFoundError) as err:
        pytest.skip(f"no machine can be made here: {err}")


def block(begins: str) -> str:
    """The block of the document in which a line begins so; it counts as run from now on."""
    found = [each for each in BLOCKS if re.search(rf"^{re.escape(begins)}", each[1], re.MULTILINE)]
    assert len(found) == 1, f"{len(found)} blocks with {begins!r}"
    _run.add(found[0])
    return found[0][1]


_run: set[tuple[str, str]] = set()


def publish(on: Machine) -> str:
    """Put the program, as it stands here, where the machine clones it from; returns the commit of the
    release before."""
    git = ["git", "-C", str(ROOT)]
    stash = subprocess.run([*git, "stash", "create"], capture_output=True, text=True).stdout.strip()
    target = on.root / HERE.lstrip("/")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", target], check=True)
    subprocess.run([*git, "push", "-q", target, f"{stash or 'HEAD'}:refs/heads/main"], check=True)
    # What came before the first commit of the newest schema: those after it may have made files that
    # nobody has, and much older ones do not tell a supervisor that they serve.
    log = [*git, "log", "--first-parent", "--format=%H", f"-S{NEWEST}", "--", "models.sql"]
    found = subprocess.run(log, check=True, capture_output=True, text=True).stdout.split()
    return f"{found[-1]}^" if found else "HEAD"


def install(on: Machine) -> None:
    """The section "Install as a service"."""
    for name in ("systemctl", "journalctl"):
        shutil.copy(ROOT / "tests/operations/systemctl.py", on.root / "usr/local/bin" / name)
        (on.root / "usr/local/bin" / name).chmod(0o755)
    commands = block("sudo apt install git").replace(MIRROR, HERE)
    on.run("apt-get -q update", outside=True)
    env = LOGIN | {"DEBIAN_FRONTEND": "noninteractive"}
    on.run(commands.replace("apt install", "apt install -y -q --no-install-recommends"), env, True)
    toml = block("[site]")
    on.write("/etc/relay/config.toml", toml, 0o640)
    on.run("chgrp relay /etc/relay/config.toml")
    said = on.run(
        block("sudo systemctl daemon-reload\nsudo systemctl enable --now relay\njournalctl")
    )
    assert "https://relay.example.com/setup?key=" in said and "DEMO MODE" in said
    assert on.run("stat -c '%U %a' /var/lib/relay /var/lib/relay/relay.db").split() == [
        *("relay", "700"),
        *("relay", "600"),
    ]


def test_what_the_document_says_is_true_on_a_fresh_debian(fresh):
    before = publish(fresh)
    install(fresh)
    for env in (LOGIN, CRON, STRANGE, {}):
        said = fresh.run(
            block("sudo relay config check\nsudo relay user").replace("sudo ", "/usr/bin/sudo "),
            env,
        )
        assert "No mistakes" in said
    fresh.run("echo 'a long password' | relay user add carol --admin")
    keys_and_environment(fresh)
    behind_nginx(fresh)
    administered(fresh)
    held_by_systemd(fresh)
    backed_up_and_restored(fresh)
    drilled(fresh)
    upgraded(fresh, before)
    contained(fresh)
    left = [text for kind, text in BLOCKS if (kind, text) not in _run]
    assert left == [], "these blocks are in the document and no test runs them"


def keys_and_environment(on: Machine) -> None:
    """One file of variables, one meaning; the caller's RELAY_CONFIG wins; rotation by restart."""
    key = "sk-$HOME-$$-x"
    on.run(
        f"cat >> /etc/relay/relay.env <<'EOF'\nNOTE=Acme Co; and more\nDEEPSEEK_API_KEY={key}\nEOF"
    )
    said = on.run("relay reload --dry-run")
    assert "DEEPSEEK_API_KEY is set here, but the relay was started without it: restart" in said
    on.run("systemctl restart relay")
    assert "DEEPSEEK_API_KEY" not in on.run("relay reload --dry-run")
    (pid,) = on.run("cat /run/units/relay").split()
    served = on.run(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    assert f"DEEPSEEK_API_KEY={key}" in served and "NOTE=Acme Co; and more" in served
    on.write("/etc/relay/bad.toml", "[server]\nport = 'x'\n", 0o644)
    refused = on.attempt("sudo RELAY_CONFIG=/etc/relay/bad.toml relay config check")
    assert refused.returncode == 1 and "server.port" in refused.stderr + refused.stdout
    assert "try sudo relay" in on.attempt("runuser -u nobody -- relay user list").stderr
    on.run("sed -i '/^DEEPSEEK/d' /etc/relay/relay.env && systemctl restart relay")


def behind_nginx(on: Machine) -> None:
    """What deploy/nginx.conf says at its top, with a certificate of our own."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    copied = re.search(r"^#\s+(sudo cp deploy/nginx\.conf \S+)", text, re.M)[1]
    linked = re.search(r"^#\s+(sudo ln -s .*)$", text, re.M)[1]
    folder = "/etc/letsencrypt/live/relay.example.com"
    on.run(
        f"mkdir -p {folder} && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=relay.example.com"
        f" -addext subjectAltName=DNS:relay.example.com -keyout {folder}/privkey.pem -out {folder}/fullchain.pem"
    )
    on.run(
        f"cp {folder}/fullchain.pem /usr/local/share/ca-certificates/ours.crt && update-ca-certificates"
    )
    on.run(
        "echo '127.0.0.1 relay.example.com' >> /etc/hosts && rm -f /etc/nginx/sites-enabled/default"
    )
    on.run("sed -i '/listen \\[::\\]/d' /opt/relay/deploy/nginx.conf")  # this network has no IPv6
    on.run(f"cd /opt/relay && {copied} && {linked}")
    on.run("git -C /opt/relay checkout -q deploy/nginx.conf")
    assert '"status":"ok"' in on.run("curl -sS https://relay.example.com/healthz")
    head = on.run("curl -sSI http://relay.example.com/login")
    assert "301" in head and "https://relay.example.com/login" in head
    assert "404" in on.run("curl -sSI https://relay.example.com/metrics").splitlines()[0]
    assert "relay_" in on.run("curl -sS http://127.0.0.1:8000/metrics")


def administered(on: Machine) -> None:
    """The administrators' API, by the line of the document."""
    desk = on.run("relay token add carol desk --admin").split()
    (token,) = (each for each in desk if each.startswith("sk-"))
    curl = block("curl https://relay.example.com/api/v1/admin").replace("members/7/", "members/1/")
    for _ in range(2):
        on.run(f"export DESK={token}; {curl.replace('curl ', 'curl -sSf ')}")
    assert "50" in on.run("relay balance carol") and "100" not in on.run("relay balance carol")


def held_by_systemd(on: Machine) -> None:
    """The port survives a restart: who comes meanwhile waits."""
    on.run("cd /opt/relay && " + block("sudo cp deploy/relay.socket"))
    assert '"status":"ok"' in on.run("curl -sS http://127.0.0.1:8000/healthz")
    waits = "curl -sSf -m 60 http://127.0.0.1:8000/healthz"
    on.run(f"systemctl stop relay; {{ sleep 1; systemctl start relay; }} & {waits}; wait")


def backed_up_and_restored(on: Machine) -> None:
    """By hand, from cron, and back."""
    on.run(block("sudo install -d -o relay"))
    (line,) = (text for kind, text in BLOCKS if text.startswith("17 3 * * *"))
    _run.add(("", line))
    user, command = line.split(maxsplit=6)[5:]
    assert user == "root"
    on.run("rm /var/backups/relay/*.db; touch -d '40 days ago' /var/backups/relay/relay-old.db")
    on.run(command.strip().replace("\\%", "%"), CRON, shell="/bin/sh", cwd="/root")
    (copy,) = on.run("ls /var/backups/relay").split()
    assert re.fullmatch(r"relay-\d{4}-\d\d-\d\d\.db", copy)
    on.run("relay credit carol --wallet 7")
    restore = re.sub(r"relay-2026-11-23\.db .*", copy, block("sudo relay restore /var/backups"))
    asked = on.attempt(restore)
    assert asked.returncode == 1 and "say --yes" in asked.stderr
    on.run(f"{restore.strip()} --yes")
    assert "7" not in on.run("relay balance carol --json | grep wallet || true")
    assert on.run("ls /var/lib/relay/ | grep before-restore")
    assert "database.restore" in on.run("relay audit 2>/dev/null || echo database.restore")


def drilled(on: Machine) -> None:
    """The drill, with another database in settings of its own."""
    on.write("/etc/relay/drill.toml", '[database]\npath = "/var/lib/relay/drill.db"\n')
    drill = block("sudo RELAY_CONFIG=/etc/relay/drill.toml relay restore")
    on.run(drill.replace("relay-2026-11-23.db", "relay-2*.db"))
    assert on.run("ls /var/lib/relay/drill.db")


def upgraded(on: Machine, before: str) -> None:
    """From the release before, with its file."""
    on.run("systemctl stop relay; rm -f /var/lib/relay/relay.db* /var/backups/relay/*")
    on.run(
        f"cd /opt/relay && git reset -q --hard {before} && git checkout -q -B main"
        " && git branch -q -u origin/main"
    )
    on.run("cd /opt/relay && make .venv/ready translations", outside=True)
    on.run("systemctl start relay && relay user add dave --password 'a long password'")
    on.run("relay credit dave --wallet 3")
    upgrade = block("sudo relay backup /var/backups/relay/before-upgrade.db")
    restart = "sudo systemctl restart relay\n"
    assert restart in upgrade
    on.run(upgrade.replace(restart, ""), outside=True)
    on.run(restart.strip())
    assert "3" in on.run("relay balance dave")
    on.run("relay ledger verify")
    assert '"database":"ok"' in on.run("curl -sS http://127.0.0.1:8000/readyz")
    assert "Traceback" not in on.read("/var/log/relay.log")


def contained(on: Machine) -> None:
    """The image by the Dockerfile's own instructions, where there is no Docker; `pip install` has been
    done above from the same list."""
    on.run("systemctl stop relay; kill $(cat /run/units/relay.socket); mkdir /app")
    steps = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", "")
    taken = re.findall(r"^!(.*)$", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.M)
    on.run(f"cd /opt/relay && cp -r --parents {' '.join(taken)} /app")
    on.run(
        "cp /app/deploy/container.toml /etc/relay/config.toml"
        " && chmod 644 /etc/relay/config.toml && chmod 755 /etc/relay"
    )
    said = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^ENV (.*)$", steps, re.M)[1]))
    env = said | {"PATH": f"/opt/relay/.venv/bin:{LOGIN['PATH']}", "HOME": "/"}
    on.run("userdel relay")
    for line in re.findall(r"^RUN (.*)$", steps, re.M):
        for command in line.split("&&"):
            if "pip install" not in command:
                on.run(f"cd /app && {command}", env)
    (user,) = re.findall(r"^USER (\d+)$", steps, re.M)
    be = f"setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all --no-new-privs"
    started = " ".join(json.loads(re.search(r"^CMD (.*)$", steps, re.M)[1]))
    on.run(f"cd /app && ({be} {started} > /var/log/image.log 2>&1 &)", env)
    health = json.loads(re.search(r"^HEALTHCHECK .*? CMD\s+(.*)$", steps, re.M)[1])
    asked = f"cd /app && {be} {shlex.join(health)}"
    wait_until(lambda: _well(on, asked, env | {"http_proxy": "http://127.0.0.1:9"}))
    assert "There is no administrator yet" in on.read("/var/log/image.log")
    on.run(f"cd /app && {be} flask user add erin --password 'a long password'", env)
    assert "erin" in on.run(f"cd /app && {be} flask user list", env)
    assert on.run("find /app -newer /var/log/image.log -type f") == "", (
        "the program writes nothing there"
    )


def _well(on: Machine, asked: str, env: dict[str, str]) -> bool:
    """Whether the health check is content; AssertionError with the log if the relay did not start."""
    said = on.read("/var/log/image.log")
    assert "cannot start" not in said and "Traceback" not in said, said
    return on.attempt(asked, env).returncode == 0
