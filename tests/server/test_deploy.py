"""What deploy/ holds works.

The unit is sound, nginx streams, the scripts parse, the container has what it needs.
"""

import configparser
import json
import re
import runpy
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib

import pytest

import settings
from relay import metrics
from tests.client import CHAT, ask
from tests.fake_upstream import Gate, stream
from tests.providers import plain as openai_plain
from tests.stage import LIMIT_S, ROOT, free_port, wait_until

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")


def test_the_environment_names_every_key_of_the_example():
    keys = set(re.findall(r"^#(\w+)=$", (DEPLOY / "relay.env.example").read_text(), re.M))
    assert keys == set(
        re.findall(r'^api_key = "\$(\w+)"', (ROOT / "config.example.toml").read_text("utf-8"), re.M)
    )


def test_the_container_listens_beyond_itself_and_keeps_its_data_on_the_volume():
    loaded = settings.load(str(DEPLOY / "container.toml"), {})
    assert loaded.server.host == "0.0.0.0"
    assert (
        f"VOLUME {loaded.database.path.rpartition('/')[0]}\n" in (DEPLOY / "Dockerfile").read_text()
    )


def test_the_image_holds_every_module_and_no_secret():
    allowed = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M)
    needed = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {
        "tests",
        "bench",
        "clients",
    }
    assert needed | {
        "templates",
        "static",
        "translations",
        "*.py",
        "models.sql",
        "config.example.toml",
    } <= set(allowed)
    assert not {"config.toml", "data", ".git", "deploy"} & set(allowed)
    assert [each for each in allowed if "*" not in each and not (ROOT / each).exists()] == []


def test_the_unit_waits_longer_than_the_relay_drains():
    unit = (DEPLOY / "relay.service").read_text()
    assert (
        int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]) > settings.ServerSettings().drain_s
    )


def test_the_unit_starts_what_there_is():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(DEPLOY / "relay.service")
    assert parser["Service"]["ExecStart"].split()[-1] == "app.py" and (ROOT / "app.py").exists()
    assert parser["Service"]["User"] != "root"


def test_systemd_holds_the_port_of_the_example():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(DEPLOY / "relay.socket")
    assert parser["Socket"]["ListenStream"] == "127.0.0.1:8000"
    assert settings.ServerSettings().port == 8000


def test_the_supervisor_hears_when_the_port_answers_and_when_it_ends(
    tmp_path, start_relay, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        relay = start_relay(process=True)
        assert supervisor.recv(100) == b"READY=1"
        relay.end(signal.SIGTERM)
        assert supervisor.recv(100) == b"STOPPING=1"


def test_the_scripts_parse_and_can_be_run():
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"]).returncode == 0
    compile((DEPLOY / "relay").read_text(), "relay", "exec")
    assert all((ROOT / name).stat().st_mode & 0o111 for name in (".ci/run", "deploy/relay"))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=Acme Co", "Acme Co"),
        ("A=sk-$HOME-`id`", "sk-$HOME-`id`"),
        ("A=$(id); rm x & y | z > w", "$(id); rm x & y | z > w"),
        ("  A = b  ", "b"),
        ("A=", ""),
        ('A="two  words " ', "two  words "),
        ("A='$x \\ y'", "$x \\ y"),
        ('A="a\\"b\\$c\\d"', 'a"b$c\\d'),
        ("A=it's", "it's"),
        ("A=one\\\ntwo", "onetwo"),
        ("A=b\\ ", "b "),
        ('A="a" "b"', "ab"),
        ("A=b # no comment", "b # no comment"),
        ("#A=no\n;A=no\nA=yes\n", "yes"),
        ("A=1\r\n", "1"),
        ("A=a=b=c", "a=b=c"),
        ("nothing\nA=x\nA=y", "y"),
    ],
)
def test_the_command_line_reads_variables_as_systemd_does(line, value):
    """systemd.exec(5), EnvironmentFile."""
    assert runpy.run_path(str(DEPLOY / "relay"))["read"](line)["A"] == value


def test_the_command_line_takes_from_its_caller_the_terminal_and_the_settings_alone(monkeypatch):
    script = runpy.run_path(str(DEPLOY / "relay"))
    monkeypatch.setitem(script["environment"].__globals__, "USER", "root")
    file = {"RELAY_CONFIG": "/etc/relay/config.toml", "DEEPSEEK_API_KEY": "sk-file"}
    caller = {
        "http_proxy": "http://x",
        "DEEPSEEK_API_KEY": "sk-shell",
        "FLASK_DEBUG": "1",
        "COLUMNS": "99",
    }
    made = script["environment"](caller, file)
    assert made | file == made and made["COLUMNS"] == "99"
    assert not {"http_proxy", "FLASK_DEBUG"} & set(made)
    drill = script["environment"](caller | {"RELAY_CONFIG": "/root/drill.toml"}, file)
    assert drill["RELAY_CONFIG"] == "/root/drill.toml"


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_every_metric_of_the_dashboard_and_the_alerts_is_there(relay, alice, fake, name):
    fake.always(openai_plain())
    assert alice.chat().status == 200
    shown = relay.client().get("/metrics").body.decode()
    known = set(re.findall(r"^(?:# TYPE )?(relay_\w+)", shown, re.M))
    said = (DEPLOY / name).read_text()
    if name.endswith(".json"):
        said = " ".join(
            each["expr"] for panel in json.loads(said)["panels"] for each in panel["targets"]
        )
    asked = set(re.findall(r"\brelay_\w+", said))
    assert asked and not asked - known
    for label in re.findall(r"by \(([\w, ]+)\)", said):
        every = [each for each in vars(metrics).values() if hasattr(each, "_labelnames")]
        declared = {name for each in every for name in each._labelnames}
        assert {each.strip() for each in label.split(",")} <= declared | {"le"}


def test_metrics_say_what_is_set_aside_and_how_many_threads_serve(relay, alice, fake):
    gate = Gate()
    fake.always([gate, *openai_plain()])
    connection = alice.send(CHAT, ask())
    fake.wait_for(1)
    shown = dict(
        re.findall(r"^(relay_\w+) ([\d.e+-]+)$", relay.client().get("/metrics").body.decode(), re.M)
    )
    assert float(shown["relay_held_nano_yuan"]) > 0
    assert 1 <= float(shown["relay_threads_busy"]) <= float(shown["relay_threads_max"])
    assert float(shown["relay_disk_free_bytes"]) > 0 < float(shown["relay_database_bytes"])
    gate.open()
    connection.getresponse().read()
    connection.close()
    relay.closed_row()


@pytest.fixture
def nginx(tmp_path, relay):
    """nginx with our example, in front of the relay: its TLS port."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            tmp_path / "privkey.pem",
            "-out",
            tmp_path / "fullchain.pem",
            "-days",
            "2",
            "-subj",
            "/CN=relay.example.com",
        ],
        check=True,
        capture_output=True,
    )
    port, plain = free_port(), free_port()
    site = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        (r"/etc/letsencrypt/live/relay.example.com", str(tmp_path)),
        (r"listen \[::\].*", ""),
        (r"listen 443", f"listen 127.0.0.1:{port}"),
        (r"listen 80;", f"listen 127.0.0.1:{plain};"),
        (r"127\.0\.0\.1:8000;", f"127.0.0.1:{relay.port};"),
    ):
        site = re.sub(old, new, site)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1;\nevents {{}}\nhttp {{ access_log off;\n"
        + "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + site
        + "\n}\n"
    )
    process = subprocess.Popen(
        [NGINX, "-p", tmp_path, "-c", tmp_path / "nginx.conf"], stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: _listens(port, process))
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int, process) -> bool:
    assert process.poll() is None, process.stderr.read().decode()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def through(port: int, request: bytes) -> ssl.SSLSocket:
    """A request through nginx, sent; the answer is still to be read."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 60))
    line.sendall(request)
    return line


def read_until(line: ssl.SSLSocket, mark: bytes) -> bytes:
    read = b""
    while mark not in read:
        piece = line.recv(65536)
        assert piece, read
        read += piece
    return read


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_events_pass_nginx_when_they_come(nginx, alice, fake):
    """At the best of several times.

    It would be a second later at all times if nginx gathered them.
    """
    word = {"choices": [{"index": 0, "delta": {"content": "first"}}]}
    body = b'{"model":"test-model","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    took = []
    while min(took, default=1) >= 1 and len(took) < 10:
        gate = Gate()
        fake.always(stream(word, gate, {"choices": [{"index": 0, "delta": {"content": "second"}}]}))
        line = through(
            nginx,
            b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: relay.example.com\r\nContent-Type: "
            b"application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
            % (alice.token.encode(), len(body), body),
        )
        began = time.monotonic()
        assert b"second" not in read_until(line, b"first")
        took.append(time.monotonic() - began)
        gate.open()
        read_until(line, b"[DONE]")
        line.close()
    assert min(took) < 1


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
@pytest.mark.parametrize("size", [32 * 2**20 + 1, 33 * 2**20 + 1, 2**40])
def test_a_body_that_is_too_long_is_refused_through_nginx_in_the_apis_words(nginx, alice, size):
    line = through(
        nginx,
        b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: relay.example.com\r\nContent-Type: "
        b"application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n{"
        % (alice.token.encode(), size),
    )
    read = read_until(line, b'"code"')
    assert b" 413 " in read.partition(b"\r\n")[0] and b"application/json" in read
    line.close()


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_tools_can_read_what_nginx_says_while_the_relay_is_away(nginx, relay):
    relay.stop()
    for path in (b"/api/v1/models", b"/v1/chat/completions"):
        line = through(nginx, b"GET %s HTTP/1.1\r\nHost: relay.example.com\r\n\r\n" % path)
        head, _, body = read_until(line, b"}}").partition(b"\r\n\r\n")
        assert b" 503 " in head and b"Retry-After: 2" in head and b"application/json" in head
        said = json.loads(body)
        assert said["type"] == "error" and said["error"]["type"] == "overloaded_error"
        assert "again" in said["error"]["message"]
        line.close()


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_metrics_are_not_seen_through_nginx(nginx):
    line = through(nginx, b"GET /metrics HTTP/1.1\r\nHost: relay.example.com\r\n\r\n")
    assert b" 404 " in read_until(line, b"\r\n")
    line.close()


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_pages_go_through_nginx_compressed(nginx):
    asked = b"GET /static/console.css HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    line = through(nginx, asked)
    assert b"content-encoding: gzip" in read_until(line, b"\r\n\r\n").lower()
    line.close()


def test_the_example_is_a_whole_configuration():
    assert tomllib.loads((ROOT / "config.example.toml").read_text("utf-8"))["plans"]["free"]


def test_the_compose_file_is_whole_and_gives_no_more_rights_than_needed():
    yaml = pytest.importorskip("yaml")
    relay = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["relay"]
    assert relay["build"]["dockerfile"] == "deploy/Dockerfile" and relay["read_only"]
    assert relay["logging"]["options"]["max-size"] and relay["restart"] == "unless-stopped"
    assert relay["cap_drop"] == ["ALL"] and relay["volumes"] == ["data:/data"]


def test_the_bundle_installs_without_a_network_what_the_list_says():
    rules = (ROOT / "Makefile").read_text()
    assert "--no-index --find-links wheels" in rules and "--only-binary :all:" in rules
    for line in rules.splitlines():
        assert "-r requirements" not in line or "--require-hashes" in line or "import" in line


def test_the_container_is_no_root_by_number_and_its_health_is_asked_at_the_configured_port(
    tmp_path,
):
    image = (DEPLOY / "Dockerfile").read_text()
    assert re.search(
        r"^USER \d+$", image, re.M
    )  # by name, Kubernetes cannot tell that it is not root
    command = re.search(r"HEALTHCHECK .*?(\[.*?\]) *$", image.replace("\\\n", ""), re.M)[1]
    python, *args = json.loads(command)
    (tmp_path / "config.toml").write_text("[server]\nport = 1\n")
    asked = subprocess.run(
        [sys.executable, *args],
        env={"RELAY_CONFIG": str(tmp_path / "config.toml"), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert python == "python" and asked.returncode == 1 and "refused" in asked.stderr


def test_the_containers_health_is_good_when_the_relay_serves(tmp_path, relay):
    image = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    _, *args = json.loads(re.search(r"HEALTHCHECK .*?(\[.*?\]) *$", image, re.M)[1])
    (tmp_path / "config.toml").write_text(f"[server]\nport = {relay.port}\n")
    env = {"RELAY_CONFIG": str(tmp_path / "config.toml"), "http_proxy": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, *args], env=env, check=True)
