"""providers.toml: what is connected in the browser, beside the database and below config.toml."""

import os
import signal
import stat
import subprocess
import sys
import tomllib
from datetime import date
from decimal import Decimal

import pytest

import settings
from settings import providers
from tests.stage import ROOT, write_config

UPSTREAM = {"name": "north", "base_url": "https://north.example/v1", "api_key": "sk-of-the-north"}
MODEL = {
    "id": "north-1",
    "routes": [{"upstream": "north", "model": "n1"}],
    "prices": {"input": "2", "output": "8"},
}


@pytest.fixture
def keep(tmp_path):
    """A function that writes providers.toml beside the database."""

    def write(**tables):
        providers.change(
            tmp_path / "providers.toml", lambda kept: kept.update(tables), lambda kept: None
        )

    return write


def loaded(folder, env=None, **config):
    config = {"database": {"path": str(folder / "relay.db")}} | config
    path = write_config(folder, config)
    return settings.load(path, env or {}), settings.origins(path, env or {})


def test_what_is_connected_is_in_force_and_ends_the_offer_of_what_has_no_key(tmp_path, keep):
    keep(upstreams=[UPSTREAM], models=[MODEL])
    found, origins = loaded(tmp_path)
    assert [each.name for each in found.upstreams] == ["north"]
    assert [each.id for each in found.models] == ["north-1"] and "free" in found.plans
    assert found.upstreams[0].keys == ("sk-of-the-north",)
    assert origins["upstreams.north"] == origins["models.north-1"] == "providers.toml"


def test_a_key_in_the_environment_goes_on_working_beside_it(tmp_path, keep):
    keep(upstreams=[UPSTREAM], models=[MODEL])
    found, origins = loaded(tmp_path, {"DEEPSEEK_API_KEY": "sk-of-deepseek"})
    assert {each.name for each in found.upstreams} == {"north", "deepseek"}
    assert {each.id for each in found.models} >= {"north-1", "deepseek-flash"}
    assert origins["upstreams.deepseek"] == "config.example.toml"
    assert all(route.upstream != "qianfan" for each in found.models for route in each.routes)


def test_config_toml_wins_name_by_name(tmp_path, keep):
    keep(upstreams=[UPSTREAM, UPSTREAM | {"name": "south"}], models=[MODEL])
    mine = {"name": "north", "base_url": "https://mine.example/v1", "api_key": "sk-mine"}
    found, origins = loaded(tmp_path, upstreams=[mine])
    addresses = {each.name: each.base_url for each in found.upstreams}
    assert addresses == {"north": "https://mine.example/v1", "south": "https://north.example/v1"}
    assert (origins["upstreams.north"], origins["upstreams.south"]) == (
        "config.toml",
        "providers.toml",
    )
    assert found.models[0].routes[0].upstream == "north"


def test_a_route_to_what_config_toml_has_no_more_is_left_out(tmp_path, keep):
    keep(models=[MODEL])
    found, _ = loaded(tmp_path, upstreams=[UPSTREAM | {"name": "south"}])
    assert found.models[0].routes == ()


def test_plans_are_merged_name_by_name(tmp_path, keep):
    keep(plans={"free": {"title": "Team"}})
    assert loaded(tmp_path)[0].plans["free"].title == "Team"
    assert "pro" in loaded(tmp_path)[0].plans
    assert loaded(tmp_path, plans={"free": {"title": "Mine"}})[0].plans["free"].title == "Mine"


def test_a_mistake_in_it_is_named_and_a_broken_file_too(tmp_path, keep):
    keep(upstreams=[UPSTREAM | {"base_url": "north"}])
    with pytest.raises(settings.SettingsError, match=r"upstreams\.north\.base_url"):
        loaded(tmp_path)
    (tmp_path / "providers.toml").write_text("[[upstreams]")
    with pytest.raises(settings.SettingsError, match=r"providers\.toml"):
        loaded(tmp_path)


def test_it_is_for_its_owner_alone_whatever_the_umask(tmp_path, keep):
    before = os.umask(0o777)
    try:
        keep(upstreams=[UPSTREAM])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "providers.toml").stat().st_mode) == 0o600


def test_what_is_refused_changes_nothing(tmp_path, keep):
    keep(upstreams=[UPSTREAM])
    before = (tmp_path / "providers.toml").read_bytes()

    def refuse(_kept):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        providers.change(tmp_path / "providers.toml", lambda kept: kept.clear(), refuse)
    assert (tmp_path / "providers.toml").read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from settings import providers
path, n = Path(sys.argv[1]), 0
print("on", flush=True)
while True:
    n += 1
    rows = [{"name": str(n), "base_url": "x" * 20000} for _ in range(n % 7 + 1)]
    providers.change(path, lambda kept: kept.update(upstreams=rows), lambda kept: None)
"""


@pytest.mark.parametrize("writes", range(8))
def test_a_kill_in_the_middle_leaves_the_old_file_or_the_new_one(tmp_path, writes):
    path = tmp_path / "providers.toml"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    while not path.exists() or not _names(path) or int(_names(path)[0]) <= writes * 3:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    names = _names(path)
    assert len(names) == int(names[0]) % 7 + 1
    providers.change(path, lambda kept: kept.clear(), lambda kept: None)
    assert [each.name for each in tmp_path.iterdir()] == ["providers.toml"]


def _names(path) -> list[str]:
    return [each["name"] for each in providers.read(path)["upstreams"]]


def test_what_is_written_is_read_back():
    document = {
        "plans": {"free": {"title": 'a"b\\c\n\x7f\x01é😀', "n": 3}, "a b": {}},
        "upstreams": [{"name": "x", "speaks": ["chat"], "on": True, "urls": {"m.n": "y"}}],
        "models": [{"prices": {"peak": {"holidays": [date(2027, 1, 1)]}}, "s": Decimal("0.5")}],
        "empty": [],
    }
    assert tomllib.loads(providers.dumps(document), parse_float=Decimal) == document


def with_key(tmp_path, env=None, **key):
    base = {"name": "north", "base_url": "https://north.example/v1"}
    return loaded(tmp_path, env, upstreams=[base | key], models=[])[0].upstreams[0]


def test_a_key_may_stand_in_a_file_in_a_credential_or_where_the_environment_says(tmp_path):
    (tmp_path / "key").write_text("sk-from-a-file\n")
    here = str(tmp_path / "key")
    assert with_key(tmp_path, api_key_file=here).keys == ("sk-from-a-file",)
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert with_key(tmp_path, credentials, api_key_file="key").keys == ("sk-from-a-file",)
    assert with_key(tmp_path, credentials, api_key="$key").keys == ("sk-from-a-file",)
    assert with_key(tmp_path, {"NORTH_FILE": here}, api_key="$NORTH").keys == ("sk-from-a-file",)
    assert with_key(tmp_path, api_key="$NORTH").keys == ()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({"api_key_file": "/no/such/file"}, "api_key_file: the file /no/such/file cannot be read"),
        ({"api_key_file": "x", "api_key": "y"}, "give either a key or the file"),
    ],
)
def test_a_key_that_cannot_be_had_is_a_mistake(tmp_path, key, reason):
    with pytest.raises(settings.SettingsError, match=reason):
        with_key(tmp_path, **key)


def test_a_file_whose_key_cannot_be_sent_is_a_mistake_that_does_not_show_it(tmp_path):
    (tmp_path / "key").write_text("two words\n")
    with pytest.raises(settings.SettingsError, match="cannot be sent in a header") as refused:
        with_key(tmp_path, api_key_file=str(tmp_path / "key"))
    assert "two words" not in str(refused.value)


def test_what_is_switched_off_is_asked_nothing_and_does_not_bring_the_demo_back(tmp_path):
    from relay.catalog import Catalog

    off = UPSTREAM | {"enabled": False}
    catalog = Catalog(loaded(tmp_path, upstreams=[off], models=[MODEL])[0])
    assert not catalog.demo and not catalog.models["north-1"].available
