"""Prices that stay right: the catalogue beside what is in force, accepted line by line."""

import json
from datetime import date, timedelta

import pytest

import settings
from relay import pricelist
from settings import Prices, providers
from tests.stage import flask, write_config


@pytest.fixture
def config(tmp_path):
    """A relay with a provider that was connected in the browser."""
    config = write_config(tmp_path, {"database": {"path": str(tmp_path / "relay.db")}})
    row = {"id": "flash", "title": "My Flash", "prices": {"input": "1", "output": "4"}}
    row["routes"] = [{"upstream": "north", "model": "north-flash"}]
    upstream = {"name": "north", "base_url": "https://north.example/v1", "api_key": "sk-1"}
    kept = {"upstreams": [upstream], "models": [row]}
    providers.change(tmp_path / "providers.toml", lambda doc: doc.update(kept), lambda doc: None)
    return config


def catalogue(tmp_path, *rows: str):
    path = tmp_path / "catalogue.toml"
    path.write_text("".join(f"[[models]]\n{row}\n" for row in rows), encoding="utf-8")
    return str(path)


def flash(prices: str, **row: str) -> str:
    more = "".join(f"{name} = {value}\n" for name, value in row.items())
    return f'id = "flash"\n{more}routes = [{{ upstream = "north", model = "x" }}]\nprices = {{ {prices} }}'


DEARER = (
    'input = "2", output = "4", search = "5", source = "north.example/prices", checked = 2026-11-01'
)
NEW = (
    'id = "pro"\nroutes = [{ upstream = "north", model = "north-pro" }]\n'
    'prices = { input = "8", output = "24" }'
)


def prices(config):
    return {each.id: each.prices for each in settings.load(config, {}).models}


def test_a_change_is_shown_and_accepted_line_by_line(config, tmp_path):
    path = catalogue(tmp_path, flash(DEARER), NEW)
    done = flask(config, "models", "update", "--from", path, input="y\nn\n")
    assert done.returncode == 0, done.stderr
    assert "flash: input 1 -> 2, search none -> 5 (north.example/prices, 2026-11-01)" in done.stdout
    assert "pro (new)" in done.stdout and "In force from now on: flash." in done.stdout
    found = prices(config)
    assert set(found) == {"flash"} and str(found["flash"].input) == "2"
    assert found["flash"].checked == date(2026, 11, 1)
    kept = providers.read(tmp_path / "providers.toml")["models"][0]
    assert kept["title"] == "My Flash" and kept["routes"][0]["model"] == "north-flash"


def test_asking_for_json_changes_nothing_and_yes_takes_all(config, tmp_path):
    path = catalogue(tmp_path, flash(DEARER), NEW)
    shown = json.loads(flask(config, "models", "update", "--from", path, "--json").stdout)
    assert [(each["id"], each["accepted"]) for each in shown["changes"]] == [
        ("flash", False),
        ("pro", False),
    ]
    assert shown["changes"][0]["prices"] == {"input": ["1", "2"], "search": [None, "5"]}
    assert set(prices(config)) == {"flash"}
    done = flask(config, "models", "update", "--from", path, "--json", "--yes")
    assert all(each["accepted"] for each in json.loads(done.stdout)["changes"])
    assert set(prices(config)) == {"flash", "pro"}
    again = flask(config, "models", "update", "--from", path)
    assert again.stdout == "The prices in force are the catalogue's.\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (flash('input = "0", output = "4"'), "input: zero is no price"),
        (flash('input = "-1", output = "4"'), "prices.input: must be a price not below 0"),
        (flash('input = "1"'), "prices.output: is missing"),
        (flash('input = "99", output = "4"'), "too far from the 1 in force"),
        (flash('input = "0.01", output = "4"'), "too far from the 1 in force"),
        (flash('input = "1", output = "4", search = "9999"'), "search: 9999 is no possible price"),
        (flash('input = "1", output = "4", checked = 2999-01-01'), "checked in the future"),
        (
            flash('input = "1", output = "4", tiers = [{ above = 5, input = "0", output = "1" }]'),
            "above 5 input: zero is no price",
        ),
        (
            NEW.replace("north", "nobody").replace('id = "pro"', 'id = "flash"'),
            "its provider is not known here: nobody",
        ),
        ("id = 5", "id"),
    ],
)
def test_a_hostile_catalogue_is_refused_with_its_reasons(config, tmp_path, row, said):
    done = flask(config, "models", "update", "--from", catalogue(tmp_path, row), "--yes")
    assert done.returncode == 1 and said in done.stdout
    assert str(prices(config)["flash"].input) == "1"


@pytest.mark.parametrize("text", ["", "models = 1", "[[models]", 'models = ["x"]'])
def test_what_is_no_catalogue_is_refused(config, tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    done = flask(config, "models", "update", "--from", str(path))
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and "x.toml" in done.stderr


def test_a_model_of_config_toml_is_shown_and_left_alone(tmp_path):
    config = write_config(
        tmp_path,
        {
            "database": {"path": str(tmp_path / "relay.db")},
            "upstreams": [{"name": "north", "base_url": "https://north.example", "api_key": "k"}],
            "models": [
                {
                    "id": "flash",
                    "routes": [{"upstream": "north", "model": "x"}],
                    "prices": {"input": "1", "output": "4"},
                }
            ],
        },
    )
    path = catalogue(tmp_path, flash(DEARER))
    done = flask(config, "models", "update", "--from", path, "--yes")
    assert done.returncode == 0 and "it stands in config.toml: change it there" in done.stdout
    assert str(prices(config)["flash"].input) == "1"


def test_the_catalogue_that_comes_along_agrees_with_itself(tmp_path):
    config = write_config(tmp_path, {"database": {"path": str(tmp_path / "relay.db")}})
    done = flask(config, "models", "update")
    assert done.stdout == "The prices in force are the catalogue's.\n"


def test_every_shipped_price_has_a_source_and_a_date():
    for row in pricelist.read():
        if "prices" in row:
            assert row["prices"]["source"] and row["prices"]["checked"], row["id"]


def test_prices_grow_old_after_sixty_days():
    checked = date(2026, 11, 1)
    prices = Prices(input=None, checked=checked)
    assert not pricelist.stale(prices, checked + timedelta(60))
    assert pricelist.stale(prices, checked + timedelta(61))
    assert not pricelist.stale(Prices(input=None)) and not pricelist.stale(None)


def test_the_history_of_a_price_is_kept_whoever_changed_it(tmp_path):
    from types import SimpleNamespace

    from tests.money.ledger_book import open_book
    from tests.settings.test_settings import check

    book = open_book(tmp_path, writer=False)

    def look(at, **prices):
        row = {"id": "flash", "routes": [], "prices": prices}
        settings_ = check(models=[row] if prices else [])
        pricelist.remember(SimpleNamespace(db=book.db, settings=settings_), at)

    look(1, input="1", output="4")
    look(2, input="1", output="4")
    assert pricelist.history(book.db, "flash") == []
    look(3, input="2", output="4", search="5")
    look(4)
    look(5, input="2", output="4")
    found = pricelist.history(book.db, "flash")
    assert [(each["at"], each["was"], each["now"]) for each in found] == [
        (5, None, "input 2, output 4"),
        (4, "input 2, output 4, search 5", None),
        (3, "input 1, output 4", "input 2, output 4, search 5"),
    ]
    assert pricelist.history(book.db, "other") == [] and pricelist.history(book.db, None) == []
    book.db.close()
