"""The style guide is a test.

Who may know whom, which file does what, and how long things may be.
"""

import ast
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from relay import errors
from relay.wires.registry import WIRES
from server import status

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("commands", "console", "db", "members", "relay", "server", "settings")

LAYERS = """
5  app commands
4  console server.http
3  relay.administration
3  relay.bill relay.pricelist relay.spine relay.door relay.api relay.probe relay.connect server.jobs server.status
2  relay.gate relay.ending relay.settlement relay.meter relay.refusals
2  relay.upstream.sender relay.upstream.reply relay.answer relay.upstream.payload
1  relay.upstream.discovery
1  relay.catalog relay.wires relay.upstream.demo relay.upstream.provider_errors members.tokens members.caps
1  members.teams server.notices server.outbox server.backups server.contents server.clock server.digest
0  members.call_rows members.budget members.usage members.entries members.turned_away members.credit_requests
0  members.terms members.identities members.way_in
0  billing ledger codes db members.accounts members.audit plans pricing verify settings server.logs
0  processor turns relay.body relay.errors relay.estimate relay.limits relay.lookups relay.metrics relay.unquoted
0  relay.upstream.race relay.upstream.proxy relay.upstream.coding
0  relay.upstream.http1 relay.upstream.health relay.upstream.connection relay.upstream.quirks relay.upstream.order
0  server.connections server.client server.request server.task server.streams server.hooks server.memory
0  relay members server relay.upstream
"""
LAYER = {
    name: int(level)
    for level, *names in map(str.split, LAYERS.strip().splitlines())
    for name in names
}

BARE = {
    "relay",
    "members",
    "server",
    "relay.upstream",
}  # their modules stand in layers of their own

# Finer than the layers: these know only those.
KNOWS_ONLY = {
    "relay.wires.sse": set(),
    "relay.wires.reader": {"relay.errors"},
    "relay.errors": set(),
    "relay.estimate": set(),
    "relay.metrics": set(),
    "relay.upstream.quirks": set(),
    "relay.limits": {"turns"},
    "processor": set(),
    "turns": {"processor"},
    "relay.upstream.order": set(),
    "relay.upstream.connection": {"relay.upstream.race", "relay.upstream.proxy", "turns"},
    "relay.upstream.proxy": set(),
    "relay.upstream.coding": set(),
    "relay.upstream.race": set(),
    "relay.upstream.http1": {"relay.upstream.connection", "relay.upstream.coding", "turns"},
    "pricing": set(),
    "server.logs": set(),
    "server.hooks": set(),
    "settings.reader": set(),
    "settings": {
        "settings",
        "settings.addresses",
        "settings.providers",
        "settings.quirks",
        "settings.reader",
        "settings.sign_in",
    },
    "settings.quirks": set(),
    "settings.sign_in": {"settings.addresses", "settings.reader"},
    "settings.addresses": set(),
    "settings.providers": set(),
    "settings.changes": set(),
    "db": {
        "db.copies",
        "db.connection",
        "db.files",
        "db.lock",
        "db.migrations",
        "db.schema",
        "db.spare",
        "db.writer",
    },
    "db.copies": {"db.connection", "db.files", "db.lock", "db.schema", "db.writer"},
    "db.schema": {"db.connection", "db.files", "db.migrations", "db.writer"},
    "db.connection": {"db.writer"},
    "db.files": set(),
    "db.migrations": set(),
    "db.lock": {"db.writer"},
    "db.keyset": {"db.connection"},
    "db.writer": {"turns"},
    "relay.body": {"relay.errors"},
    "relay.unquoted": set(),
    "relay.upstream.health": {"relay.errors"},
    "relay.upstream.provider_errors": {"relay.errors"},
    "relay.wires.named": {"relay.wires.sse"},
    "relay.lookups": {"billing"},
    "relay.catalog": {"billing", "relay.errors", "relay.wires.registry"},
    "billing": {"db", "ledger", "pricing", "verify"},
    "ledger": {"db", "pricing"},
    "verify": {"db", "pricing"},
}
WIRES_KNOW = {"billing", "pricing", "relay.body", "relay.errors", "relay.estimate", "relay.wires"}

DOORS = {  # what comes from outside, and who may touch it
    "flask": {"app", "commands", "console", "server.status", "relay.api", "relay.administration"},
    "flask_login": {"console"},
    "flask_wtf": {"console"},
    "limits": {"relay.limits"},
    "prometheus_client": {"relay.metrics"},
    "httptools": {"relay.upstream.http1"},
    "authlib": {"console.sign_on.provider"},
    "joserfc": {"console.sign_on.provider"},
    "requests": {"relay.upstream.sender", "console.sign_on.provider"},
    "socket": {
        "relay.upstream.http1",
        "relay.upstream.connection",
        "relay.upstream.race",
        "relay.upstream.proxy",
        "server.http",
        "server.client",
        "server.connections",
        "server.streams",
        "turns",
    },
    "sqlite3": {"db"},
    "pysqlite3": {"db"},
    "sqlite_utils": {"db"},
    "waitress": {
        "server.http",
        "server.connections",
        "server.client",
        "server.request",
        "server.task",
    },
    "werkzeug.security": {"members.accounts"},
}
KNOW_THE_DISK = {
    "app",
    "billing",
    "ledger",
    "codes",
    "commands",
    "console",
    "members",
    "plans",
    "relay.bill",
    "relay.gate",
    "relay.meter",
    "relay.pricelist",
    "relay.settlement",
    "relay.spine",
    "server.backups",
    "server.clock",
    "server.contents",
    "server.digest",
    "server.jobs",
    "server.notices",
    "server.outbox",
    "verify",
}
WRITE_SQL = {
    "billing",
    "ledger",
    "codes",
    "console",
    "db",
    "members",
    "plans",
    "relay.bill",
    "relay.gate",
    "server.contents",
    "server.digest",
    "server.notices",
    "verify",
}
MOVE_MONEY = {"billing", "ledger", "codes", "members.accounts", "members.credit_requests", "plans"}

FILE_LINES_MAX = 640
FUNCTION_LINES_MAX = 70
MOST_FUNCTIONS_LINES_MAX = 40
SQL = re.compile(
    r"\b(SELECT\s.+?\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\b", re.S
)


def named(path: Path) -> str:
    """The module's name: relay/gate.py is relay.gate, db/__init__.py db."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = [
    *ROOT.glob("*.py"),
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
]
FILES = {named(path): path for path in PATHS}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
EVERY = sorted(FILES)


def lineage(name: str) -> list[str]:
    """A module and the packages that speak for it, the nearest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def member_of(name: str, names) -> bool:
    return any(each in names for each in lineage(name))


def layer(name: str) -> int:
    known = next((each for each in lineage(name) if each in LAYER), None)
    assert known and (known == name or known not in BARE), (
        f"{name} is in no layer: put it into LAYERS where it belongs"
    )
    return LAYER[known]


def imports(name: str) -> set[str]:
    """Every module that a module imports, ours by their names, of others `package.module` too."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {
                f"{base}.{each.name}" if f"{base}.{each.name}" in FILES else base
                for each in node.names
            }
    return found


def ours(name: str) -> set[str]:
    return imports(name) & set(FILES)


def strings(name: str):
    """Every text in a module that is no docstring, the fixed parts of f-strings too."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(TREES[name]):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value


def functions(name: str):
    """Every function of a module: (its name, its lines)."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("name", EVERY)
def test_imports_go_downward_only(name):
    wrong = {each for each in ours(name) if layer(each) > layer(name)}
    assert not wrong


@pytest.mark.parametrize("name", sorted(KNOWS_ONLY))
def test_a_leaf_knows_only_what_it_is_made_of(name):
    if name in FILES:
        assert ours(name) <= KNOWS_ONLY[name]


@pytest.mark.parametrize("name", [each for each in EVERY if each.startswith("relay.wires.")])
def test_a_wire_knows_bytes_errors_and_usage_and_nothing_else(name):
    assert {each for each in ours(name) if not member_of(each, WIRES_KNOW)} == set()
    taken = {
        each.name
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom) and node.module == "billing"
        for each in node.names
    }
    whole = {
        each.name
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Import)
        for each in node.names
    }
    assert taken <= {"Usage", "Price"} and "billing" not in whole


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_library_has_its_door(door):
    users = {
        name
        for name in EVERY
        if any(each == door or each.startswith(f"{door}.") for each in imports(name))
    }
    assert {name for name in users if not member_of(name, DOORS[door])} == set()


def test_the_disk_is_reached_only_by_those_who_keep_something():
    users = {name for name in EVERY if "db" in ours(name) and lineage(name)[-1] != "db"}
    assert {name for name in users if not member_of(name, KNOW_THE_DISK)} == set()


def test_sql_stands_only_where_tables_are_known():
    writers = {name for name in EVERY if any(SQL.search(text) for text in strings(name))}
    assert {name for name in writers if not member_of(name, WRITE_SQL)} == set()


def test_entries_are_written_in_one_place():
    writers = {
        name for name in EVERY if any(re.search(r"INTO\s+entries", text) for text in strings(name))
    }
    assert writers == {"ledger"}


def test_only_the_ledger_posts_entries():
    posts = re.compile(r"\bbilling\.post\(|from billing import [^\n]*\bpost\b")
    users = {name for name in EVERY if posts.search(FILES[name].read_text(encoding="utf-8"))}
    assert users <= MOVE_MONEY


def test_prices_are_never_floats():
    for name in ("billing", "ledger", "plans", "pricing"):
        if name in FILES:
            assert not [
                node
                for node in ast.walk(TREES[name])
                if isinstance(node, ast.Constant) and isinstance(node.value, float)
            ]


def test_a_leaf_is_imported_without_flask_and_the_database():
    """What wires and streams are made of can be used and tested alone."""
    code = "import sys, relay.wires.sse, relay.errors, relay.limits; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"flask", "werkzeug", "sqlite3", "db", "prometheus_client"} & set(
        loaded.stdout.split()
    )


def test_who_has_no_single_sign_on_does_not_pay_for_its_library():
    code = "import sys, app, settings; app.create_app(settings.check({'plans': {'free': {}}}, {}))"
    code += "; print(*{each.partition('.')[0] for each in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "flask" in loaded.stdout and loaded.returncode == 0, loaded.stderr
    assert not {"authlib", "joserfc", "cryptography", "requests"} & set(loaded.stdout.split())


def test_a_relay_that_serves_does_not_pay_for_the_command_line(tmp_path):
    code = f"""
import sys, app, settings
wanted = {{"plans": {{"free": {{}}}}, "database": {{"path": "{tmp_path}/relay.db"}}}}
app.create_app(settings.check(wanted, {{}}), serving=True)
print(*[each for each in sys.modules if each.startswith("commands.")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["commands.given"], done.stderr


def test_a_service_finds_the_whole_program_compiled():
    """It may not write beside its code: what is not compiled is compiled at each start."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    compiled = re.search(r"compileall .* \*\.py (.*)", makefile)[1].split()
    assert set(compiled) == set(FOLDERS)


def test_no_wire_is_asked_whether_it_has_a_name():
    """`interface.Wire` says what a wire is, and the type checker that it is so."""
    probing = re.compile(r"\b(?:has|get)attr\((?:wire|spoken|turned|turn\.\w+)\b")
    assert [name for name in EVERY if probing.search(FILES[name].read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
def test_every_error_can_be_said_on_every_wire(wire):
    for kind in every_error(errors.RelayError):
        err = kind.__new__(kind)
        Exception.__init__(err)
        assert kind.__doc__, f"{kind.__name__} speaks to nobody"
        assert 400 <= kind.status <= 599 and kind.type
    assert wire.error(errors.RelayError(), "req_1")


def every_error(kind) -> set:
    return {kind}.union(*(every_error(each) for each in kind.__subclasses__()))


def test_functions_are_short():
    lengths = dict(each for name in EVERY for each in functions(name))
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}
    longer = [name for name, lines in lengths.items() if lines > MOST_FUNCTIONS_LINES_MAX]
    assert len(longer) <= len(lengths) / 10, longer
    assert statistics.median(lengths.values()) <= 13


@pytest.mark.parametrize("name", EVERY)
def test_a_file_holds_one_idea(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("name", EVERY)
def test_a_module_says_what_it_owns(name):
    assert ast.get_docstring(TREES[name])


def test_no_module_is_named_after_nothing():
    vague = {
        "utils",
        "util",
        "helpers",
        "helper",
        "services",
        "service",
        "managers",
        "manager",
        "common",
        "misc",
    }
    assert not [name for name in EVERY if vague & set(name.split("."))]


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_for_later(name):
    later = re.compile(
        "|".join(("TO" + "DO", "FIX" + "ME", r"# *X" + r"XX\b", "NotImplemented" + "Error"))
    )
    assert not later.search(FILES[name].read_text(encoding="utf-8"))


def test_tests_wait_for_events_and_not_for_time():
    sleepers = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"\btime\.sleep\(", path.read_text(encoding="utf-8"))
        and path.name != Path(__file__).name
    ]
    assert sleepers == []


def test_the_changes_tell_of_this_version():
    assert f"## {status.VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_two_classes_of_the_product_share_a_name():
    names = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name in names if names.count(name) > 1] == []


def test_the_licence_is_mit():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


@pytest.mark.parametrize(
    "path", [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"], ids=lambda path: path.name
)
def test_requirements_are_pinned_to_the_version_and_the_file(path):
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    wanted = [line for line in text.splitlines() if line and not line.startswith(("#", "-r "))]
    form = r"[\w.-]+==[\w.]+(; [^-]+?)?( +--hash=sha256:[0-9a-f]{64})+"
    assert [line for line in wanted if not re.fullmatch(form, line)] == []


@pytest.mark.skipif(
    not shutil.which("ruff", path=Path(sys.executable).parent), reason="ruff is not installed"
)
def test_the_linter_has_nothing_to_say():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
