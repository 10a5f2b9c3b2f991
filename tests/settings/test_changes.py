"""What a reload changes is said before it does, in the shell and in the log."""

import json
import os

import settings
from settings import changes
from tests.stage import flask, model_config, upstream_config

UPSTREAM = upstream_config("http://127.0.0.1:9/v1")


def picture(**tables):
    given = {"plans": {"free": {}}, "upstreams": [UPSTREAM], "models": [model_config()]} | tables
    return changes.picture(settings.check(given, {}))


def test_what_is_added_removed_and_changed_is_named():
    dearer = model_config(prices={"input": "3", "output": "8"})
    found = changes.difference(
        picture(models=[model_config(), model_config("gone")]),
        picture(models=[dearer, model_config("new")], site={"name": "Other"}),
    )
    assert found == {
        "settings": {"changed": ["site.name"]},
        "models": {"added": ["new"], "removed": ["gone"], "changed": ["test-model"]},
    }
    assert changes.sentence(found) == "settings ~1; models -1 +1 ~1"


def test_nothing_is_said_of_nothing_and_no_key_is_in_a_picture():
    assert changes.difference(picture(), picture()) == {}
    assert changes.sentence({}) == ""
    other = picture(upstreams=[UPSTREAM | {"api_key": "sk-another-secret"}])
    assert other == picture()
    more = upstream_config("http://127.0.0.1:9/v1", api_keys=["a", "b"])
    del more["api_key"]
    assert changes.difference(picture(), picture(upstreams=[more]))["upstreams"]["changed"] == [
        "fake"
    ]


def test_a_dry_run_says_what_a_reload_changes_and_changes_nothing(relay_process, person):
    alice = person("alice", relay_process)
    text = relay_process.config.read_text()
    relay_process.config.write_text(text.replace('"test-model"', '"renamed-model"'))
    done = flask(relay_process.config, "reload", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["changes"]["models"] == {"added": ["renamed-model"], "removed": ["test-model"]}
    said = flask(relay_process.config, "reload", "--dry-run").stdout
    assert "models -1 +1" in said
    assert [each["id"] for each in alice.get("/api/v1/models").json["data"]] == ["test-model"]


def test_a_variable_that_the_relay_was_started_without_is_said(relay_process, monkeypatch):
    text = relay_process.config.read_text()
    relay_process.config.write_text(text.replace('"sk-upstream-secret"', '"$KEY_OF_FAKE"'))
    monkeypatch.setitem(os.environ, "KEY_OF_FAKE", "sk-new")
    shown = json.loads(flask(relay_process.config, "reload", "--dry-run", "--json").stdout)
    assert shown["unseen_variables"] == ["KEY_OF_FAKE"]
    assert shown["changes"]["upstreams"] == {"changed": ["fake"]}


def test_the_settings_page_shows_it_before_a_reload(tmp_path, monkeypatch):
    from tests.console.member_stage import house

    home = house(tmp_path)
    desk = home.browser(home.member("carol", role="admin"))
    config = tmp_path / "changed.toml"
    config.write_text(f'[database]\npath = "{home.db.path}"\n[site]\nname = "Another"\n')
    monkeypatch.setenv("RELAY_CONFIG", str(config))
    html = desk.page(desk.send("/admin/models/reload", check="1").headers["Location"])
    assert "site.name" in html and "What a reload changes" in html
    assert home.relay.settings.site.name != "Another"
    home.db.close()
