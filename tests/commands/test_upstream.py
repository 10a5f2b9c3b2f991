"""`flask upstream`: from nothing to an answer in the shell, and what goes wrong on the way."""

import json
import stat

import pytest

import settings
from settings import providers
from tests.fake_upstream import FakeUpstream, answer
from tests.open_provider import KEY, provider
from tests.stage import LIMIT_S, flask, free_port, wait_until, write_config


@pytest.fixture
def north():
    """A provider with a key, listening."""
    with FakeUpstream() as upstream:
        yield upstream.always(provider())


@pytest.fixture
def config(tmp_path):
    """A relay that nobody has configured."""
    return write_config(tmp_path, {"database": {"path": str(tmp_path / "relay.db")}})


@pytest.fixture
def run(config):
    """`run("list")` runs `flask upstream list`; the result."""
    return lambda *words, key="": flask(config, "upstream", *words, input=f"{key}\n")


def kept(config) -> dict:
    return providers.read(config.parent / "providers.toml")


def test_a_provider_at_any_address_is_connected_with_the_models_that_it_lists(run, config, north):
    done = run("add", "--base-url", north.url, "--name", "north", "--json", key=KEY)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["models"] == ["north-large", "north-embed"] and shown["test"]["ok"]
    assert [each["name"] for each in kept(config)["upstreams"]] == ["north"]
    assert stat.S_IMODE((config.parent / "providers.toml").stat().st_mode) == 0o600
    found = settings.load(config, {})
    assert {each.id: each.kind for each in found.models} == {
        "north-large": "chat",
        "north-embed": "embeddings",
    }
    assert KEY not in done.stdout + done.stderr


def test_the_key_is_in_no_file_but_one(run, config, north):
    run("add", "--base-url", north.url, "--name", "north", key=KEY)
    run("test", "north")
    run("list")
    holding = [
        path.name
        for path in config.parent.rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert holding == ["providers.toml"]


def test_a_forgotten_v1_is_added(run, config, north):
    done = run("add", "--base-url", f"127.0.0.1:{north.port}", "--name", "north", key=KEY)
    assert done.returncode == 0, done.stderr
    assert kept(config)["upstreams"][0]["base_url"] == north.url


@pytest.mark.parametrize(
    ("key", "reason"),
    [("sk-wrong-key-of-somebody", "Incorrect API key provided"), ("", "no key was given")],
)
def test_a_wrong_key_is_refused_in_the_providers_words_and_nothing_is_kept(
    run, config, north, key, reason
):
    # Private addresses need no key, so the one that must have it is a preset's.
    words = ("--base-url", north.url, "--name", "north") if key else ()
    done = run("add", *(words or ("deepseek",)), key=key)
    assert done.returncode == 1 and reason in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (config.parent / "providers.toml").exists() and "wrong-key" not in done.stderr


def test_a_dead_address_says_so(run):
    done = run("add", "--base-url", f"http://127.0.0.1:{free_port()}/v1", key=KEY)
    assert done.returncode == 1
    assert "nobody listens at this address: Connection refused" in done.stderr


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "http://", "http://a b/", "https://u:p@x/v1", "http://[::1"]
)
def test_what_is_no_address_is_refused(run, url):
    done = run("add", "--base-url", url, key=KEY)
    assert done.returncode == 1 and "no http or https address" in done.stderr


def test_a_page_in_place_of_an_api_is_a_wrong_address(run, north):
    north.always(answer(b"<html>Welcome</html>", content_type="text/html"))
    done = run("add", "--base-url", north.url, key=KEY)
    assert done.returncode == 1 and "there is no API at this address" in done.stderr


def test_ollama_needs_no_key_and_its_models_cost_nothing(run, config):
    listed = {"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "size": 1}]}

    def script(request):
        if request.path == "/api/tags":
            return answer(listed)
        if request.path == "/v1/chat/completions":
            return provider(key=None)(request)
        return answer(b"404 page not found", 404, content_type="text/plain")

    with FakeUpstream() as ollama:
        ollama.always(script)
        done = run("add", "ollama", "--base-url", f"http://127.0.0.1:{ollama.port}")
        assert done.returncode == 0, done.stderr
        assert run("test", "ollama").returncode == 0
        assert kept(config)["upstreams"][0]["base_url"] == ollama.url
    (model,) = settings.load(config, {}).models
    assert model.id == "qwen3:8b" and model.prices.input == 0


def test_only_the_named_models_are_taken_at_the_price_that_is_given(run, config, north):
    done = run(
        *("add", "--base-url", north.url, "--name", "north", "--model", "north-large"),
        *("--input", "2", "--output", "8.5"),
        key=KEY,
    )
    assert done.returncode == 0, done.stderr
    (model,) = settings.load(config, {}).models
    assert (model.id, str(model.prices.input), str(model.prices.output)) == (
        "north-large",
        "2",
        "8.5",
    )


def test_a_wrong_price_changes_nothing(run, config, north):
    done = run("add", "--base-url", north.url, "--input", "cheap", key=KEY)
    assert done.returncode == 1 and "prices.input" in done.stderr
    assert not kept(config)


def test_a_second_provider_of_a_model_is_a_route_for_when_the_first_fails(run, config, north):
    run("add", "--base-url", north.url, "--name", "north", "--model", "north-large", key=KEY)
    run("add", "--base-url", north.url, "--name", "south", "--model", "north-large", key=KEY)
    (model,) = settings.load(config, {}).models
    assert [(each.upstream, each.priority) for each in model.routes] == [("north", 0), ("south", 1)]
    assert run("add", "--base-url", north.url, "--name", "south", key=KEY).returncode == 1
    assert json.loads(run("remove", "north", "--json").stdout) == {"name": "north", "models": []}
    assert [each.upstream for each in settings.load(config, {}).models[0].routes] == ["south"]
    assert json.loads(run("remove", "south", "--json").stdout)["models"] == ["north-large"]
    assert kept(config) == {"upstreams": [], "models": []}


def test_a_key_is_rotated_and_a_provider_switched_off_and_on(run, config, north):
    run("add", "--base-url", north.url, "--name", "north", key=KEY)
    north.always(provider(key="sk-the-next-key-of-north"))
    failed = run("test", "north")
    assert failed.returncode == 1 and "Incorrect API key" in failed.stdout
    assert run("key", "north", key="sk-the-next-key-of-north").returncode == 0
    assert run("test", "north").returncode == 0
    assert run("disable", "north").returncode == 0
    assert not settings.load(config, {}).upstreams[0].usable
    assert run("enable", "north").returncode == 0
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["name"], row["enabled"], row["from"]) == ("north", True, "providers.toml")


def test_what_config_toml_says_is_not_changed_from_here(run, config, north):
    text = config.read_text()
    config.write_text(
        f'{text}\n[[upstreams]]\nname = "mine"\nbase_url = "{north.url}"\napi_key = "x"\n'
    )
    for words in (("remove", "mine"), ("disable", "mine")):
        done = run(*words)
        assert done.returncode == 1 and "config.toml" in done.stderr
    done = run("add", "--base-url", north.url, "--name", "mine", key=KEY)
    assert done.returncode == 1 and "config.toml has an upstream" in done.stderr


def test_the_settings_are_shown_merged_with_where_each_comes_from(run, config, north):
    run("add", "--base-url", north.url, "--name", "north", "--model", "north-large", key=KEY)
    done = flask(config, "config", "show", "--json")
    assert done.returncode == 0, done.stderr
    rows = {each["key"]: each for each in json.loads(done.stdout)}
    assert rows["database.path"]["from"] == "config.toml"
    assert rows["server.port"] == {"key": "server.port", "value": 8000, "from": "default"}
    assert rows["upstreams.north"]["from"] == rows["models.north-large"]["from"] == "providers.toml"
    assert rows["plans.free"]["from"] == "config.example.toml"
    assert KEY not in done.stdout + flask(config, "config", "show").stdout


def test_the_demo_ends_without_a_restart(start_relay, north, person):
    relay = start_relay(process=True, upstreams=[], models=[])
    assert relay.client().get("/healthz").json["demo"]
    words = ("upstream", "add", "--base-url", north.url, "--name", "north")
    done = flask(relay.config, *words, input=f"{KEY}\n")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not relay.client().get("/healthz").json["demo"], LIMIT_S)
    alice = person("alice", relay)
    answered = alice.chat(model="north-large")
    assert answered.status == 200, answered.body
    assert KEY not in relay.log.read_text()
