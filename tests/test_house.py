"""The style guide is a test: who may know whom, which file does what, and how long things may be."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import ops
import relay
from relay import errors

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("commands", "console", "relay")

LAYERS = """
5  app commands server
4  console
3  relay relay.api chores ops
2  relay.gate relay.meter relay.upstream relay.answer relay.payload
1  relay.catalog relay.chat relay.completions relay.cursor relay.embeddings relay.messages relay.responses
1  relay.demo relay.demo_answers relay.demo_schema relay.faults relay.tokens notices
0  accounts billing db facts logs plans pricing proof serving settings tables writer
0  relay.body relay.errors relay.estimate relay.exchange relay.health relay.line relay.lookups relay.metrics
0  relay.named relay.quirks relay.routing relay.sse relay.windows
"""
LAYER = {name: int(level) for level, *names in map(str.split, LAYERS.strip().splitlines()) for name in names}

# Finer than the layers: these know only those.
KNOWS_ONLY = {
    "relay.sse": set(), "relay.errors": set(), "relay.estimate": set(), "relay.quirks": set(), "relay.metrics": set(),
    "relay.windows": set(), "relay.routing": set(), "relay.line": set(), "relay.exchange": {"relay.line"},
    "pricing": set(), "logs": set(), "tables": set(), "settings": {"tables"},
    "db": {"serving", "writer"}, "serving": {"writer"},
    "relay.body": {"relay.errors"}, "relay.health": {"relay.errors"}, "relay.faults": {"relay.errors"},
    "relay.named": {"relay.sse"}, "relay.lookups": {"billing"}, "relay.catalog": {"billing", "relay.errors"},
    "billing": {"db", "pricing", "proof"}, "proof": {"db", "pricing"}, "writer": set(),
}
WIRES = ("chat", "completions", "cursor", "embeddings", "messages", "responses")
WIRES_KNOW = {"billing", "relay.named", "relay.sse", "relay.body", "relay.errors", "relay.estimate",
              *(f"relay.{name}" for name in WIRES)}

DOORS = {                                  # what comes from outside, and who may touch it
    "flask": {"app", "commands", "console", "ops", "relay", "relay.api"},
    "flask_limiter": {"app"},
    "flask_login": {"console"},
    "flask_wtf": {"console"},
    "limits": {"console.throttle", "relay.gate", "relay.windows"},
    "prometheus_client": {"relay.metrics"},
    "httptools": {"relay.exchange"},
    "requests": {"relay.upstream"},
    "socket": {"relay.exchange", "relay.line", "server"},
    "sqlite3": {"db"},
    "pysqlite3": {"db"},
    "sqlite_utils": {"db"},
    "waitress": {"server"},
    "werkzeug.security": {"accounts"},
}
KNOW_THE_DISK = {"accounts", "app", "billing", "commands", "console", "facts", "notices", "plans", "proof",
                 "relay", "relay.gate", "relay.meter", "relay.tokens"}
WRITE_SQL = {"accounts", "billing", "console", "db", "facts", "notices", "plans", "proof", "relay.gate", "relay.tokens"}
MOVE_MONEY = {"accounts", "billing", "plans"}

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
MOST_FUNCTIONS_LINES_MAX = 40
SQL = re.compile(r"\b(SELECT\s.+?\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\b", re.S)


def named(path: Path) -> str:
    """The module's name: relay/chat.py is relay.chat, relay/__init__.py relay."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
FILES = {named(path): path for path in PATHS}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
EVERY = sorted(FILES)


def lineage(name: str) -> list[str]:
    """A module and the packages that speak for it; `relay` speaks only for itself."""
    parts = name.split(".")
    return [name, *(each for count in range(len(parts) - 1, 0, -1) if (each := ".".join(parts[:count])) != "relay")]


def member_of(name: str, names) -> bool:
    return any(each in names for each in lineage(name))


def layer(name: str) -> int:
    known = next((each for each in lineage(name) if each in LAYER), None)
    assert known, f"{name} is in no layer: put it into LAYERS where it belongs"
    return LAYER[known]


def imports(name: str) -> set[str]:
    """Every module that a module imports, ours by their names, of others `package.module` too."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{each.name}" if f"{base}.{each.name}" in FILES else base for each in node.names}
    return found


def ours(name: str) -> set[str]:
    return imports(name) & set(FILES)


def strings(name: str):
    """Every text in a module that is no docstring, the fixed parts of f-strings too."""
    docstrings = {id(node.body[0].value) for node in ast.walk(TREES[name])
                  if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and node.body
                  and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
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


@pytest.mark.parametrize("name", [each for each in EVERY if each.split(".")[1:2] and each.split(".")[1] in WIRES])
def test_a_wire_knows_bytes_errors_and_usage_and_nothing_else(name):
    assert {each for each in ours(name) if not member_of(each, WIRES_KNOW)} == set()
    taken = {each.name for node in ast.walk(TREES[name]) if isinstance(node, ast.ImportFrom)
             and node.module == "billing" for each in node.names}
    whole = {each.name for node in ast.walk(TREES[name]) if isinstance(node, ast.Import) for each in node.names}
    assert taken <= {"Usage", "Price"} and "billing" not in whole


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_library_has_its_door(door):
    users = {name for name in EVERY if any(each == door or each.startswith(f"{door}.") for each in imports(name))}
    assert {name for name in users if not member_of(name, DOORS[door])} == set()


def test_the_disk_is_reached_only_by_those_who_keep_something():
    users = {name for name in EVERY if "db" in ours(name)}
    assert {name for name in users if not member_of(name, KNOW_THE_DISK)} == set()


def test_sql_stands_only_where_tables_are_known():
    writers = {name for name in EVERY if any(SQL.search(text) for text in strings(name))}
    assert {name for name in writers if not member_of(name, WRITE_SQL)} == set()


def test_entries_are_written_in_one_place():
    writers = {name for name in EVERY if any(re.search(r"INTO\s+entries", text) for text in strings(name))}
    assert writers == {"billing"}


def test_only_the_ledger_posts_entries():
    posts = re.compile(r"\bbilling\.post\(|from billing import [^\n]*\bpost\b")
    users = {name for name in EVERY if posts.search(FILES[name].read_text(encoding="utf-8"))}
    assert users <= MOVE_MONEY


def test_prices_are_never_floats():
    for name in ("billing", "plans", "pricing"):
        if name in FILES:
            assert not [node for node in ast.walk(TREES[name])
                        if isinstance(node, ast.Constant) and isinstance(node.value, float)]


@pytest.mark.parametrize("wire", relay.WIRES.values(), ids=relay.WIRES)
def test_wires_answer_to_the_same_names(wire):
    assert wire.PATH.startswith("/")
    assert wire.TEXTS is not None
    for name in ("read", "usage", "error", "error_event"):
        assert callable(getattr(wire, name))


@pytest.mark.parametrize("name", ["messages", "responses", "completions"])
def test_wires_around_the_hub_are_turned_into_chat_and_back(name):
    for function in ("to_chat", "from_chat", "stream_from_chat"):
        assert callable(getattr(relay.WIRES[name], function))


@pytest.mark.parametrize("wire", relay.WIRES.values(), ids=relay.WIRES)
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
    vague = {"utils", "util", "helpers", "helper", "services", "service", "managers", "manager", "common", "misc"}
    assert not [name for name in EVERY if vague & set(name.split("."))]


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_for_later(name):
    later = re.compile("|".join(("TO" + "DO", "FIX" + "ME", r"# *X" + r"XX\b", "NotImplemented" + "Error")))
    assert not later.search(FILES[name].read_text(encoding="utf-8"))


def test_tests_wait_for_events_and_not_for_time():
    sleepers = [path.name for path in (ROOT / "tests").glob("test_*.py")
                if re.search(r"\btime\.sleep\(", path.read_text(encoding="utf-8")) and path.name != Path(__file__).name]
    assert sleepers == []


def test_the_changes_tell_of_this_version():
    assert f"## {ops.VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_is_mit():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


@pytest.mark.parametrize("path", [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"], ids=lambda path: path.name)
def test_requirements_are_pinned(path):
    lines = [line.split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


@pytest.mark.skipif(not shutil.which("ruff", path=Path(sys.executable).parent), reason="ruff is not installed")
def test_the_linter_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
