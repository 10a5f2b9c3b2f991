"""The documentation is true.

Its configurations parse, its programs run, its tables are those of the code.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from billing import Pockets, split
from console import public
from console.docs import openapi, pages, snippets
from console.ui import format, i18n
from relay import administration, errors
from tests import providers
from tests.console.console_stage import PLANS, ROOT, links, model, site, text
from tests.fake_upstream import answer
from tests.stage import upstream_config

OTHERS = {*snippets.SAMPLES, *snippets.STREAM_SAMPLES, snippets.EMBEDDINGS, snippets.CONFIG}
EVERY = sorted(
    OTHERS | {s for tool in snippets.TOOLS for s in tool.snippets}, key=lambda s: s.source
)
USUAL = snippets.SitePlace(
    "https://relay.example", "PingToken", "deepseek-v4-pro", 131072, 8192, "sk-secret"
)
HOSTILE = snippets.SitePlace(
    "https://relay.example",
    'Ping"; rm -rf / #\n$(x) `y` \\ 令牌',
    "acme/big:1 {{7*7}}",
    token="sk-secret",
)
NAMES = [snippet.source for snippet in EVERY]


def parse(source: str, written: str, folder: Path):
    """Read a snippet as its own format does; raises what that format's parser raises."""
    kind = source.rsplit(".", 1)[1]
    if kind == "json":
        return json.loads(written)
    if kind == "toml":
        return tomllib.loads(written)
    if kind == "yaml":
        return pytest.importorskip("yaml").safe_load(written)
    if kind == "py":
        return compile(written, source, "exec")
    path = folder / source
    path.write_text(written, encoding="utf-8")
    command = {
        "sh": ["bash", "-n"],
        "mjs": ["node", "--check"],
        "java": ["javac", "-d", str(folder)],
    }[kind]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return None


@pytest.fixture
def app(tmp_path):
    return site(tmp_path)


@pytest.fixture
def reader(app):
    return app.test_client()


def english(reader, path: str) -> str:
    return reader.get(path, headers={"Accept-Language": "en"}).get_data(as_text=True)


# Snippets


@pytest.mark.parametrize("snippet", EVERY, ids=NAMES)
def test_a_snippet_is_what_its_format_reads(snippet, tmp_path):
    parse(snippet.source, snippets.render(snippet, USUAL), tmp_path)


@pytest.mark.parametrize("snippet", EVERY, ids=NAMES)
def test_a_snippet_stays_readable_whatever_the_site_and_its_models_are_called(snippet, tmp_path):
    parse(snippet.source, snippets.render(snippet, HOSTILE), tmp_path)


@pytest.mark.parametrize("snippet", EVERY, ids=NAMES)
def test_a_snippet_is_filled_in_completely(snippet):
    written = snippets.render(snippet, USUAL)
    left = re.findall(
        r"\b(?:BASE_URL|SITE_\w+|MODEL_ID|YOUR_API_TOKEN|CONTEXT_LENGTH|OUTPUT_LENGTH)\b", written
    )
    assert not left
    if snippet is not snippets.CONFIG:
        assert "sk-secret" in written or "PINGTOKEN_API_KEY" in written


def test_every_snippet_file_is_in_the_table():
    assert {path.name for path in snippets.FOLDER.iterdir()} == set(NAMES)


def filled(slug: str, number: int = 0):
    snippet = snippets.BY_SLUG[slug].snippets[number]
    return parse(snippet.source, snippets.render(snippet, USUAL), None)


def test_claude_code_gets_the_address_without_the_version_and_a_model_for_each_of_its_names():
    env = filled("claude-code")["env"]
    assert env["ANTHROPIC_BASE_URL"] == "https://relay.example/api"
    assert env["ANTHROPIC_AUTH_TOKEN"] == "sk-secret"
    assert {value for name, value in env.items() if name.endswith("MODEL")} == {"deepseek-v4-pro"}
    assert len(env) == 6


def test_codex_speaks_responses_through_a_provider_of_its_own():
    config = filled("codex")
    provider = config["model_providers"][config["model_provider"]]
    assert provider["wire_api"] == "responses"
    assert provider["base_url"] == "https://relay.example/api/v1"
    assert f'export {provider["env_key"]}="sk-secret"' in snippets.render(
        snippets.BY_SLUG["codex"].snippets[1], USUAL
    )


def test_agents_are_told_the_size_of_the_model():
    limit = filled("opencode")["provider"]["pingtoken"]["models"]["deepseek-v4-pro"]["limit"]
    assert limit == {"context": 131072, "output": 8192}
    listed = filled("openclaw")["models"]["providers"]["pingtoken"]["models"][0]
    assert (listed["contextWindow"], listed["maxTokens"]) == (131072, 8192)


def test_the_router_names_the_whole_address_and_qwen_code_the_base():
    router = filled("claude-code-router")
    assert router["Providers"][0]["api_base_url"] == "https://relay.example/api/v1/chat/completions"
    assert router["Router"]["default"] == "pingtoken,deepseek-v4-pro"
    qwen = filled("qwen-code")
    (entry,) = qwen["modelProviders"]["openai"]
    assert entry["baseUrl"] == "https://relay.example/api/v1"
    assert qwen["env"][entry["envKey"]] == "sk-secret"


@pytest.mark.parametrize(
    "name, slug, variable",
    [
        ("PingToken", "pingtoken", "PINGTOKEN_API_KEY"),
        ("My Relay 2", "my-relay-2", "MY_RELAY_2_API_KEY"),
        ("令牌站", "relay", "RELAY_API_KEY"),
        ("2 fast", "2-fast", "_2_FAST_API_KEY"),
    ],
)
def test_a_site_name_becomes_a_key_and_a_variable(name, slug, variable):
    place = snippets.SitePlace("https://relay.example", name, "m")
    assert (place.slug, place.variable) == (slug, variable)


def test_deep_links_say_what_their_programs_read():
    claude = urlsplit(snippets.link("cc-switch-claude", USUAL))
    asked = {name: values[0] for name, values in parse_qs(claude.query).items()}
    assert (claude.scheme, claude.netloc, claude.path) == ("ccswitch", "v1", "/import")
    assert (asked["resource"], asked["app"], asked["apiKey"]) == ("provider", "claude", "sk-secret")
    assert (
        asked["endpoint"] == "https://relay.example/api"
        and asked["haikuModel"] == "deepseek-v4-pro"
    )
    codex = parse_qs(urlsplit(snippets.link("cc-switch-codex", USUAL)).query)
    assert codex["endpoint"] == ["https://relay.example/api/v1"]
    cherry = urlsplit(snippets.link("cherry-studio", HOSTILE))
    provider = json.loads(base64.b64decode(parse_qs(cherry.query)["data"][0]))
    assert (cherry.scheme, cherry.netloc, cherry.path) == ("cherrystudio", "providers", "/api-keys")
    assert provider["apiKey"] == "sk-secret" and provider["name"] == HOSTILE.site_name


def test_a_fresh_token_comes_filled_into_every_tool(app):
    model = app.extensions["relay"].catalog.models["plain-1"]
    with app.test_request_context():
        macro = app.jinja_env.get_template("public/macros.html").make_module({})
        html = macro.ready_tools(public.ready(public.place(model, "sk-fresh")))
    sections = html.split("<section")[1:]
    assert len(sections) == len(snippets.TOOLS)
    assert "YOUR_API_TOKEN" not in html
    for tool, section in zip(snippets.TOOLS, sections, strict=True):
        assert "sk-fresh" in section or tool.links, tool.slug
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


# Programs, run against a relay


def greet(request):
    """What the upstream says to any of the programs."""
    if "/embeddings" in request.path:
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
        counts = {"prompt_tokens": 1, "total_tokens": 1}
        return answer({"object": "list", "data": [vector], "model": "m", "usage": counts})
    counts = providers.usage()
    return (
        providers.openai_stream(counts) if request.json.get("stream") else providers.plain(counts)
    )


PROGRAMS = [
    s
    for s in EVERY
    if s.source
    in (
        "curl.sh",
        "curl-stream.sh",
        "embeddings.sh",
        "chat.py",
        "stream.py",
        "chat.mjs",
        "stream.mjs",
        "Chat.java",
        "openai-sdk.py",
        "anthropic-sdk.py",
    )
]
COMMANDS = {"sh": ["bash"], "py": [sys.executable], "mjs": ["node"], "java": ["java"]}


@pytest.mark.parametrize("snippet", PROGRAMS, ids=[s.source for s in PROGRAMS])
def test_a_program_of_the_documentation_runs(snippet, start_relay, person, fake, tmp_path):
    command = COMMANDS[snippet.source.rsplit(".", 1)[1]]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    fake.always(greet)
    vectors = model("vectors", kind="embeddings", prices={"input": "1"})
    chat = model("test-model")
    relay = start_relay(
        models=[chat, vectors], upstreams=[upstream_config(fake.url, speaks=["chat", "embeddings"])]
    )
    alice = person("alice", relay).given(wallet="10")
    named = "vectors" if snippet is snippets.EMBEDDINGS else "test-model"
    program = tmp_path / snippet.source
    program.write_text(
        snippets.render(snippet, snippets.SitePlace(relay.url, "Test", named, token=alice.token))
    )
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = ["0.25"] if snippet is snippets.EMBEDDINGS else providers.TEXT
    assert all(word in done.stdout for word in expected)


# Pages


def test_every_tool_of_the_table_has_a_page_in_both_languages(reader):
    for tool in snippets.TOOLS:
        for language in ("en", "zh"):
            answer = reader.get(f"/docs/tools/{tool.slug}", headers={"Accept-Language": language})
            html = answer.get_data(as_text=True)
            assert answer.status_code == 200
            assert "plain-1" in html or tool.slug == "langchain"
            for snippet in tool.snippets:
                assert f'id="{snippet.id}"' in html
    assert {path.stem for path in (ROOT / "templates/docs/tools").iterdir()} == set(
        snippets.BY_SLUG
    )


def test_the_snippets_of_a_page_are_for_the_model_picked(reader):
    assert '"tiered-2"' in english(reader, "/docs/tools/claude-code?model=tiered-2").replace(
        "&#34;", '"'
    )
    assert '"plain-1"' in english(reader, "/docs/tools/claude-code?model=no-such-model").replace(
        "&#34;", '"'
    )


def test_a_token_never_comes_from_the_address(reader):
    for path in ("/docs/tools/codex", "/docs/", "/docs/tools/cc-switch", "/docs/postman.json"):
        html = reader.get(f"{path}?token=sk-evil&api_key=sk-evil").get_data(as_text=True)
        assert "sk-evil" not in re.sub(
            r'href="/[^"]*"', "", html
        )  # the switch of language keeps the address


def test_plans_that_turn_an_agent_away_are_named_where_it_is_set_up(tmp_path, reader):
    for slug in ("claude-code", "codex"):
        assert "The plan Free takes at most 5,000" in text(english(reader, f"/docs/tools/{slug}"))
    assert "takes at most" not in english(reader, "/docs/tools/cursor")
    roomy = site(tmp_path, plans={"free": {"input_tokens_max": 200_000}}).test_client()
    assert "takes at most" not in english(roomy, "/docs/tools/claude-code")


def test_the_table_of_errors_is_the_tree_of_errors(reader):
    page = text(english(reader, "/docs/errors"))
    for each in pages.error_classes():
        assert f"{each.status} {each.type}" in page
        assert each.code is None or each.code in page
    assert (
        errors.UpstreamAccount in pages.error_classes()
        and errors.UpstreamRefused not in pages.error_classes()
    )


def test_the_sentences_of_errors_are_said_in_chinese():
    chinese = i18n.translations("zh")
    assert not [
        each for each in pages.error_classes() if chinese.gettext(each.sentence) == each.sentence
    ]


def test_rates_are_those_of_the_settings(tmp_path):
    plans = {
        "free": {"requests_per_minute": 7},
        "gold": PLANS["pro"] | {"title": "Gold", "discount": "0.55"},
    }
    page = text(english(site(tmp_path, plans=plans).test_client(), "/docs/rates"))
    assert "Free 7 up to the model's context List price free" in page
    assert (
        "Gold 600" in page
        and "55% of the list price" in page
        and "¥29.90 for 30 days with ¥40.00 of quota" in page
    )


def test_the_worked_example_is_what_the_ledger_would_do(app, reader):
    price = app.extensions["relay"].catalog.models["plain-1"].prices["free"][0]
    page = text(english(reader, "/docs/billing"))
    rest = split(pages.EXAMPLE, price, Pockets(pages.EXAMPLE_GRANT, 0, 0)).wallet
    paid = split(pages.EXAMPLE, price, Pockets(pages.EXAMPLE_GRANT, rest // 2, 10**10))
    assert min(paid.grant, paid.quota, paid.wallet) > 0
    with app.test_request_context():
        quota, wallet, whole = (format.money(each) for each in (paid.quota, paid.wallet, rest))
    assert f"Token balance {paid.grant:,} tokens Plan quota {quota} Wallet {wallet}" in page
    assert f"Sum {whole}" in page


def test_the_example_opens_in_the_calculator_with_the_same_result(reader):
    billing_page = english(reader, "/docs/billing")
    (address,) = [link for link in links(billing_page) if link.startswith("/calculator?")]
    paid = re.search(r"Token balance [\d,]+ tokens Plan quota \S+ Wallet \S+", text(billing_page))[
        0
    ]
    assert paid in text(english(reader, address))


@pytest.mark.parametrize(
    "prices",
    [
        {"input": "0.001", "output": "0.003"},
        {"input": "0", "output": "1"},
        {"input": "999999", "output": "999999", "cached": "0"},
    ],
)
def test_the_example_bears_any_price(tmp_path, prices):
    reader = site(tmp_path, models=[model("odd-1", prices=prices)]).test_client()
    assert "An example" in english(reader, "/docs/billing")


def test_outcomes_in_the_documentation_are_those_of_the_schema(reader):
    schema = (ROOT / "models.sql").read_text()
    table = english(reader, "/docs/disconnects").split("<tbody>")[1].split("</tbody>")[0]
    outcomes = set(re.findall(r"<code>(\w+)</code>", table))
    assert len(outcomes) == 6
    assert all(f"'{outcome}'" in schema for outcome in outcomes)


def test_the_sample_of_a_configuration_is_accepted():
    import settings

    sample = tomllib.loads(snippets.render(snippets.CONFIG, USUAL))
    loaded = settings.check(sample | {"plans": PLANS}, {"DEEPSEEK_API_KEY": "sk-x"})
    assert loaded.models[0].id == "deepseek-v4-pro" and loaded.upstreams[0].usable


# Downloads


def refs(node):
    """Every $ref of a JSON document."""
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for each in node.values():
            yield from refs(each)
    if isinstance(node, list):
        for each in node:
            yield from refs(each)


def test_the_openapi_document_holds_together(reader):
    answer = reader.get("/docs/openapi.json")
    document = json.loads(answer.get_data())
    assert "attachment" in answer.headers["Content-Disposition"]
    assert document["openapi"].startswith("3.1") and document["servers"] == [
        {"url": "https://relay.example/api/v1"}
    ]
    for ref in refs(document):
        found = document
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
    statuses = set(document["paths"]["/chat/completions"]["post"]["responses"])
    assert {"200", "400", "401", "402", "403", "404", "429", "502", "503", "504"} <= statuses


def test_the_document_of_the_administrators_api_names_every_address(reader):
    document = json.loads(reader.get("/docs/admin-openapi.json").get_data())
    assert document["servers"] == [{"url": "https://relay.example/api/v1/admin"}]
    named = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert named == {
        (each.method, re.sub(r"<(?:int:)?(\w+)>", r"{\1}", each.path))
        for each in administration.ADDRESSES
    }
    schemas = document["components"]["schemas"]
    assert {"wallet", "grant", "kind", "note"} == set(schemas["Credit"]["properties"])
    for ref in refs(document):
        assert ref.removeprefix("#/components/schemas/") in schemas
    assert not [
        path
        for path, methods in document["paths"].items()
        if any(not each["summary"] for each in methods.values())
    ]


def test_the_postman_collection_uses_only_variables_that_it_brings(reader):
    collection = reader.get("/docs/postman.json?model=tiered-2").get_json()
    brought = {variable["key"]: variable["value"] for variable in collection["variable"]}
    used = set(
        re.findall(
            r"\{\{(\w+)\}\}", json.dumps(collection["item"]) + json.dumps(collection["auth"])
        )
    )
    assert used == set(brought)
    assert brought["model"] == "tiered-2" and brought["api_token"] == ""
    for item in collection["item"]:
        if "body" in item["request"]:
            json.loads(item["request"]["body"]["raw"])


def test_every_address_of_the_downloads_answers(relay, alice):
    asked = [("POST", path) for path, *_ in openapi.POSTS]
    asked += [
        (item["request"]["method"], item["request"]["url"].removeprefix("{{base_url}}"))
        for item in openapi.postman("Test", "", "test-model")["item"]
    ]
    for method, path in sorted(set(asked)):
        answer = alice.call(method, "/api/v1" + path, {} if method == "POST" else None)
        assert b"unknown_url" not in answer.body, path
        assert answer.status != 405, path
