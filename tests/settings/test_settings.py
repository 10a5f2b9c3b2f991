"""config.toml.

What is read, what is refused and how it is said, and the shipped file held against the code.
"""

import json
import re
import tomllib
from datetime import date
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies

import settings
from relay.catalog import Catalog
from relay.upstream import quirks
from settings.reader import sentences

SHIPPED = settings.SHIPPED.read_text(encoding="utf-8")
FREE = {"free": {}}
MICROSOFT = "https://login.microsoftonline.com"
UPSTREAM = {"name": "house", "base_url": "https://house.example/v1"}
MODEL = {
    "id": "m",
    "prices": {"input": "1", "output": "2"},
    "routes": [{"upstream": "house", "model": "m-1"}],
}

HEADERS = {
    "site": settings.Site,
    "server": settings.ServerSettings,
    "database": settings.DatabaseFile,
    "accounts": settings.Accounts,
    "sign_in": settings.SignIn,
    "billing": settings.Billing,
    "limits": settings.Limits,
    "failover": settings.Failover,
    "backups": settings.BackupSettings,
    "retention": settings.Retention,
    "notices": settings.NoticeSettings,
    "notices.hooks": settings.Hook,
    "plans.NAME": settings.Plan,
    "upstreams": settings.UpstreamSettings,
    "models": settings.ModelSettings,
    "models.routes": settings.Route,
    "models.prices": settings.Prices,
    "models.prices.tiers": settings.Tier,
    "models.prices.peak": settings.PeakSettings,
}


def load(tmp_path, text: str, env=()) -> settings.Settings:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return settings.load(path, dict(env))


def check(env=(), **given) -> settings.Settings:
    return settings.check({"plans": FREE} | given, dict(env))


def mistakes(env=(), **given) -> list[str]:
    with pytest.raises(settings.SettingsError) as caught:
        check(env, **given)
    return caught.value.mistakes


def keys(*given: str, env=(), **changes) -> tuple[str, ...]:
    return check(env, upstreams=[UPSTREAM | {"api_keys": list(given)} | changes]).upstreams[0].keys


# The shipped file


def shown() -> dict[tuple[str, str], tuple[str, str]]:
    """What the shipped file says of settings: (table, name) -> (value as written, sentence).

    The first one counts.
    """
    found, header = {}, ""
    for line in SHIPPED.splitlines():
        bare = line.removeprefix("# ")
        if table := re.fullmatch(r"\[+([\w.]+)]+", bare):
            header = table[1]
        elif setting := re.fullmatch(r"(\w+) = (.+?) +# (.+)", bare):
            found.setdefault((header, setting[1]), setting.groups()[1:])
    return found


@pytest.mark.parametrize("header", HEADERS)
def test_the_shipped_file_shows_every_setting_with_its_default_and_its_sentence(header):
    kind = HEADERS[header]
    for field in msgspec.structs.fields(kind):
        if field.name == "keys":
            continue
        assert (header, field.name) in shown(), f"{field.name} of [{header}] is not in the file"
        value, sentence = shown()[header, field.name]
        assert sentence == sentences(kind).get(field.name, "As in the prices.")
        default = (
            field.default_factory()
            if field.default_factory is not msgspec.NODEFAULT
            else field.default
        )
        if default is not msgspec.NODEFAULT and default is not None:
            assert value == written(default), f"{field.name} of [{header}]"


def written(value) -> str:
    """A default as the file writes it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str | Decimal):
        return json.dumps(str(value), ensure_ascii=False)
    return str(value).lower()


def test_the_shipped_file_shows_no_setting_that_there_is_not():
    known = {(header, name) for header, kind in HEADERS.items() for name in kind.__struct_fields__}
    assert set(shown()) <= known


def test_without_changes_the_shipped_file_says_what_no_file_says(tmp_path):
    assert load(tmp_path, SHIPPED) == load(tmp_path, "")


def test_the_shipped_file_tells_what_every_quirk_does():
    listed = dict(re.findall(r"^# (\w+) {2,}(.+)$", SHIPPED, re.M))
    assert listed == settings.QUIRKS
    assert set(quirks.FILTERS) == set(settings.QUIRKS)


def test_what_the_shipped_file_gives_as_examples_is_valid():
    example = SHIPPED.partition("# Any other address")[2].partition("\n# ---- Models")[0]
    lines = (line.removeprefix("#").strip() for line in example.splitlines()[1:])
    text = "\n".join(line for line in lines if line.startswith("[") or " = " in line)
    loaded = check(**tomllib.loads(text))
    assert [upstream.name for upstream in loaded.upstreams] == ["openrouter", "ollama"]
    assert loaded.upstreams[1].usable and not loaded.upstreams[0].usable
    assert Catalog(loaded).models["qwen3-local"].available


def test_the_shipped_file_has_its_providers_each_with_its_variable():
    names = {upstream.name for upstream in settings.load(env={}).upstreams}
    assert names == {
        "dashscope",
        "deepseek",
        "qianfan",
        "moonshot",
        "zhipu",
        "ark",
        "spark",
    }
    for name in names:
        loaded = settings.load(env={f"{name.upper()}_API_KEY": "sk-1"})
        assert [upstream.name for upstream in loaded.upstreams if upstream.usable] == [name]


def test_the_shipped_file_has_the_models_that_were_promised():
    assert {
        "qwen3-max",
        "qwen3-plus",
        "deepseek-v4-pro",
        "deepseek-r1",
        "ernie-5.0",
        "kimi-k2",
        "glm-5",
        "doubao-pro",
        "spark-4.0",
        "text-embedding-v4",
    } <= {model.id for model in settings.load(env={}).models}


# Where settings come from


def test_tables_that_are_left_out_are_those_that_are_shipped(tmp_path):
    shipped, mine = load(tmp_path, SHIPPED), load(tmp_path, "[server]\nport = 9000\n")
    assert (mine.plans, mine.upstreams, mine.models) == (
        shipped.plans,
        shipped.upstreams,
        shipped.models,
    )
    assert mine.server.port == 9000 and mine.server.threads == 128


def test_upstreams_or_models_of_ones_own_replace_all_that_are_shipped(tmp_path):
    loaded = load(
        tmp_path, '[[upstreams]]\nname = "house"\nbase_url = "https://house.example/v1"\n'
    )
    assert [upstream.name for upstream in loaded.upstreams] == ["house"]
    assert loaded.models == ()


def test_the_variable_names_the_file_unless_an_argument_does(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('[site]\nname = "One"\n')
    other.write_text('[site]\nname = "Other"\n')
    assert settings.load(env={"RELAY_CONFIG": str(one)}).site.name == "One"
    assert settings.load(other, {"RELAY_CONFIG": str(one)}).site.name == "Other"


def test_the_file_beside_the_code_is_read_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "HERE", tmp_path)
    assert settings.load(env={}).site.name == "PingToken"
    (tmp_path / "config.toml").write_text('[site]\nname = "Beside"\n')
    assert settings.load(env={}).site.name == "Beside"


def test_a_database_path_does_not_depend_on_where_the_relay_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.load(env={}).database.path == str(settings.HERE.resolve() / "data/relay.db")
    assert check(database={"path": "/srv/relay.db"}).database.path == "/srv/relay.db"


def test_a_database_behind_a_link_is_the_one_it_leads_to(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "relay.db")
    assert check(database={"path": str(tmp_path / "link.db")}).database.path == str(
        tmp_path.resolve() / "relay.db"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"[site\n", "line 1"),
        (b"\xff\xfe", "utf-8"),
        (b"a = 1\na = 2\n", "line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, content, said):
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(path, {})
    (mistake,) = caught.value.mistakes
    assert str(path) in mistake and said in mistake


# Values


@pytest.mark.parametrize("price", ['"0.8"', "0.8", '"0.800"'])
def test_prices_are_exact_however_they_are_written(tmp_path, price):
    text = f'[plans.free]\ndiscount = {price}\n[[models]]\nid = "m"\nprices = {{ input = {price}, output = 1 }}\n'
    loaded = load(tmp_path, text)
    assert loaded.models[0].prices.input == loaded.plans["free"].discount == Decimal("0.8")


def test_seconds_may_have_a_fraction(tmp_path):
    loaded = load(
        tmp_path, '[[upstreams]]\nname = "a"\nbase_url = "https://a.example"\nfirst_byte_s = 0.25\n'
    )
    assert loaded.upstreams[0].first_byte_s == 0.25


def test_holidays_are_dates(tmp_path):
    peak = 'peak = { days = "mon-fri", hours = ["09:00-12:00"], input = 2, output = 2, holidays = [2027-01-01] }'
    loaded = load(
        tmp_path, f'[[models]]\nid = "m"\n[models.prices]\ninput = 1\noutput = 1\n{peak}\n'
    )
    assert loaded.models[0].prices.peak.holidays == (date(2027, 1, 1),)


# Keys


def test_a_key_stands_in_the_environment_or_in_the_file():
    assert keys("$ONE", env={"ONE": "sk-1"}) == ("sk-1",)
    assert keys("sk-0") == ("sk-0",)
    assert check({"ONE": "sk-1"}, upstreams=[UPSTREAM | {"api_key": "$ONE"}]).upstreams[0].keys == (
        "sk-1",
    )


def test_variables_that_are_unset_or_empty_are_no_keys():
    assert keys("$ONE", "$TWO", "$THREE", env={"TWO": "  ", "THREE": "sk-3\n"}) == ("sk-3",)
    assert not check(upstreams=[UPSTREAM | {"api_key": "$ONE"}]).upstreams[0].usable


def test_a_local_server_needs_no_key():
    assert (
        check(
            upstreams=[
                {"name": "a", "base_url": "http://127.0.0.1:11434/v1", "allow_private": True}
            ]
        )
        .upstreams[0]
        .usable
    )


def test_no_key_shows_in_what_is_printed_of_settings_and_catalogue():
    loaded = check({"ONE": "sk-secret"}, upstreams=[UPSTREAM | {"api_key": "$ONE"}], models=[MODEL])
    assert "sk-secret" not in repr(loaded) + str(loaded.upstreams) + repr(Catalog(loaded).upstreams)


@pytest.mark.parametrize("key", ["sk-sec ret", "sk-sec\nret", "sk-secrét", "$sec ret", "$"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    (mistake,) = mistakes(upstreams=[UPSTREAM | {"api_key": key}])
    assert mistake.startswith("upstreams.house.api_key: ") and "sec" not in mistake
    if not key.startswith("$"):
        (mistake,) = mistakes({"ONE": key}, upstreams=[UPSTREAM | {"api_key": "$ONE"}])
        assert mistake == "upstreams.house.api_key: the variable ONE cannot be sent in a header"


# Mistakes


def model(**changes) -> dict:
    return {"models": [MODEL | changes], "upstreams": [UPSTREAM]}


def priced(**changes) -> dict:
    return model(prices=MODEL["prices"] | changes)


def peak(**changes) -> dict:
    return priced(
        peak={"days": "mon-fri", "hours": ["09:00-12:00"], "input": "1", "output": "1"} | changes
    )


def upstream(**changes) -> dict:
    return {"upstreams": [UPSTREAM | changes]}


AMOUNT = "an amount not below 0 with at most nine decimals"
PRICE = "must be a price not below 0 with at most three decimals"
URL = "must be an http or https address without user, query or fragment"
PROXY = "must be an address like http://host:port or socks5://host:port"
QUERIED = "must be an http or https address without user or fragment"

REFUSED = [
    ({"sitte": {}}, "sitte: is not a setting; site is"),
    ({"site": 3}, "site: must be a table"),
    ({"site": {"language": "fr"}}, "site.language: must be one of zh, en"),
    (
        {"site": {"timezone": "Asia/Nowhere"}},
        "site.timezone: must be a time zone like Asia/Shanghai",
    ),
    (
        {"site": {"timezone": "../../etc/passwd"}},
        "site.timezone: must be a time zone like Asia/Shanghai",
    ),
    ({"site": {"public_url": "relay.example"}}, f"site.public_url: {URL}"),
    (
        {"site": {"public_url": "https://relay.example/ai"}},
        "site.public_url: must be without a path",
    ),
    ({"site": {"public_url": "https://relay.example?a=b"}}, f"site.public_url: {URL}"),
    (upstream(proxy="ftp://proxy:21"), f"upstreams.house.proxy: {PROXY}"),
    (upstream(proxy="http://proxy:8080/path"), f"upstreams.house.proxy: {PROXY}"),
    (upstream(proxy="proxy:8080"), f"upstreams.house.proxy: {PROXY}"),
    (upstream(proxy="socks5://"), f"upstreams.house.proxy: {PROXY}"),
    (
        {"sign_in": {"issuer": "http://sso.example.com", "client_id": "x"}},
        "sign_in.issuer: must be https, but for a host of the local network",
    ),
    ({"sign_in": {"issuer": "sso.example.com", "client_id": "x"}}, f"sign_in.issuer: {URL}"),
    (
        {"sign_in": {"issuer": "https://sso.example.com"}},
        "sign_in.client_id: is missing: the identity provider gives it",
    ),
    (
        {"sign_in": {"issuer": "https://sso.example.com", "client_id": "x", "scopes": ["email"]}},
        "sign_in.scopes: must contain openid",
    ),
    (
        {"sign_in": {"issuer": "https://accounts.google.com", "client_id": "x"}},
        "sign_in.domains: say who may come: anybody in the world can have an account there",
    ),
    (
        {"sign_in": {"issuer": f"{MICROSOFT}/common/v2.0", "client_id": "x"}},
        f"sign_in.issuer: give your own tenant's: {MICROSOFT}/TENANT-ID/v2.0",
    ),
    (
        {"sign_in": {"passwords": False}},
        "sign_in.passwords: nobody could come in: give issuer or header first",
    ),
    ({"sign_in": {"plan": "gold"}}, "sign_in.plan: there is no plan 'gold'"),
    (
        {"sign_in": {"header": "Remote-User"}},
        "sign_in.header: server.trusted_proxy must name the proxy whose word it is",
    ),
    (
        {"sign_in": {"header": "Remote-User"}, "server": {"trusted_proxy": "*"}},
        "sign_in.header: server.trusted_proxy must name the proxy whose word it is",
    ),
    (
        {"sign_in": {"header": "a b"}, "server": {"trusted_proxy": "::1"}},
        "sign_in.header: must be the name of a header",
    ),
    ({"sign_in": {"check_every": "never"}}, 'sign_in.check_every: must be like "8h" or "1d"'),
    (
        {"sign_in": {"domains": ["Example.com"]}},
        "sign_in.domains[0]: must be a domain in small letters, like example.com",
    ),
    ({"sign_in": {"proxy": "socks5://p:1"}}, "sign_in.proxy: must be like http://host:port"),
    ({"server": {"port": 65536}}, "server.port: Expected `int` <= 65535"),
    ({"server": {"port": -1}}, "server.port: Expected `int` >= 0"),
    ({"server": {"port": "8000"}}, "server.port: Expected `int`, got `str`"),
    ({"server": {"prot": 1}}, "server.prot: is not a setting; port is"),
    (
        {"server": {"metrics_from": ["::1", "here"]}},
        "server.metrics_from[1]: must be an IP address or network",
    ),
    (
        {"server": {"trusted_proxy": "nginx"}},
        "server.trusted_proxy: must be IP addresses or networks, with commas between them",
    ),
    ({"server": {"drain_s": Decimal("nan")}}, "server.drain_s: Expected `float` >= 0.0"),
    (
        {"billing": {"overdraft": "-1"}},
        "billing.overdraft: must be an amount not below 0 with at most nine decimals",
    ),
    (
        {"billing": {"overdraft": Decimal("NaN")}},
        "billing.overdraft: must be an amount not below 0 with at most nine decimals",
    ),
    *(
        ({"site": {"cap_month": amount}}, f"site.cap_month: must be {AMOUNT}")
        for amount in ("0.0000000001", "99999999999", "NaN", "Infinity", "1e400", "-1")
    ),
    ({"site": {"cap_month": "1e3"}}, "site.cap_month: must be without an exponent"),
    ({"plans": {"free": {"quota": "1e3"}}}, "plans.free.quota: must be without an exponent"),
    *(
        ({"notices": {"wallet_below": amount}}, f"notices.wallet_below: must be {AMOUNT}")
        for amount in ("Infinity", "1e400")
    ),
    ({"plans": {"free": {"price": "1e400"}}}, f"plans.free.price: must be {AMOUNT}"),
    ({"billing": {"overdraft": "much"}}, "billing.overdraft: Invalid decimal string"),
    (
        {"limits": {"storage_uri": "mysql://x"}},
        "limits.storage_uri: must be memory://, or the address of a Redis or Valkey",
    ),
    ({"plans": {"pro": {}}}, "plans.free: must exist: it is the plan of who has no other"),
    ({"plans": FREE | {"a,b": {}}}, "plans.a,b: a plan's name has letters, digits, - and _ only"),
    ({"plans": {"free": {"discount": "0"}}}, "plans.free.discount: must be above 0 and at most 1"),
    (
        {"plans": {"free": {"discount": "1.01"}}},
        "plans.free.discount: must be above 0 and at most 1",
    ),
    (
        {"plans": {"free": {"requests_per_minute": 0}}},
        "plans.free.requests_per_minute: Expected `int` >= 1",
    ),
    ({"plans": []}, "plans: must be a table of tables"),
    ({"upstreams": {}}, "upstreams: must be a list of tables"),
    (
        {"models": [{"id": "a", "aliases": ["*"]}]},
        "models.a.aliases[0]: must be a name, with one * at most",
    ),
    (
        {"models": [{"id": "a", "aliases": ["a-*-*"]}]},
        "models.a.aliases[0]: must be a name, with one * at most",
    ),
    (
        {"models": [{"id": "a"}, {"id": "b", "aliases": ["a"]}]},
        "models.b.aliases: 'a' is a name of a already",
    ),
    (
        {"models": [{"id": "a", "aliases": ["c-*"]}, {"id": "b", "aliases": ["c-*"]}]},
        "models.b.aliases: 'c-*' is a name of a already",
    ),
    ({"upstreams": [3]}, "upstreams[0]: must be a table"),
    ({"upstreams": [{"name": "a"}]}, "upstreams.a.base_url: is missing"),
    ({"upstreams": [{"base_url": "https://a.example"}]}, "upstreams[0].name: is missing"),
    ({"upstreams": [UPSTREAM, UPSTREAM]}, "upstreams.house: stands there twice"),
    (upstream(name="demo"), "upstreams.demo.name: is taken by the built-in demo"),
    (upstream(base_url="ftp://house.example"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https://me:pw@house.example"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https://house.example/v1#a"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https://house.example:99999/"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https://[::1/"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https:///v1"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(base_url="https://house.example/a b"), f"upstreams.house.base_url: {QUERIED}"),
    (upstream(speaks=[]), "upstreams.house.speaks: Expected `array` of length >= 1"),
    (
        upstream(speaks=["chat", "tele"]),
        "upstreams.house.speaks[1]: must be one of chat, messages, responses, embeddings, completions, rerank",
    ),
    (
        upstream(wire_urls={"tele": "https://a.example"}),
        "upstreams.house.wire_urls: must be one of chat, messages, responses, embeddings, completions, rerank",
    ),
    (upstream(wire_urls={"chat": "a.example"}), f"upstreams.house.wire_urls.chat: {QUERIED}"),
    (
        upstream(wire_urls={"messages": "https://a.example"}),
        "upstreams.house.wire_urls.messages: messages is not among what it speaks",
    ),
    (
        upstream(on_disconnect="charge"),
        "upstreams.house.on_disconnect: must be one of estimate, drain, free",
    ),
    (upstream(idle_s=0), "upstreams.house.idle_s: Expected `float` > 0.0"),
    (
        upstream(quirks=["no_stream_options", "polite"]),
        f"upstreams.house.quirks[1]: must be one of {', '.join(sorted(settings.QUIRKS))}",
    ),
    (
        upstream(api_key="a", api_keys=["b"]),
        "upstreams.house.api_keys: give either api_key or api_keys",
    ),
    (upstream(keys=["sk"]), "upstreams.house.keys: is not a setting; api_keys is"),
    ({"models": [MODEL, MODEL], "upstreams": [UPSTREAM]}, "models.m: stands there twice"),
    (
        model(routes=[{"upstream": "horse", "model": "m-1"}]),
        "models.m.routes[0].upstream: there is no upstream 'horse'",
    ),
    (model(routes=[{"upstream": "house"}]), "models.m.routes[0].model: is missing"),
    (
        model(routes=[{"upstream": "house", "model": "m", "weight": 0}]),
        "models.m.routes[0].weight: Expected `int` >= 1",
    ),
    (model(kind="video"), "models.m.kind: must be one of chat, embeddings"),
    (model(context=0), "models.m.context: Expected `int` >= 1"),
    (model(id=" m"), "models[0].id: must be a name"),
    (priced(input="-0.001"), f"models.m.prices.input: {PRICE}"),
    (priced(input="0.0001"), f"models.m.prices.input: {PRICE}"),
    (priced(cached="Infinity"), f"models.m.prices.cached: {PRICE}"),
    (priced(output="1000000"), f"models.m.prices.output: {PRICE}"),
    (model(prices={"output": "1"}), "models.m.prices.input: is missing"),
    (model(prices={"input": "1"}), "models.m.prices.output: is missing"),
    (
        priced(
            tiers=[{"above": 5, "input": 1, "output": 1}, {"above": 5, "input": 2, "output": 2}]
        ),
        "models.m.prices.tiers: must be ascending",
    ),
    (priced(tiers=[{"above": 5, "input": 1}]), "models.m.prices.tiers[0].output: is missing"),
    (peak(days="mon-"), "models.m.prices.peak.days: must be like mon-fri or sat"),
    (peak(days="Mon"), "models.m.prices.peak.days: must be like mon-fri or sat"),
    (peak(hours=[]), "models.m.prices.peak.hours: Expected `array` of length >= 1"),
    (
        peak(hours=["09:00-12:00", "24:00-25:00"]),
        "models.m.prices.peak.hours[1]: must be like 09:00-12:00",
    ),
    (peak(hours=["09:00-09:00"]), "models.m.prices.peak.hours[0]: must be like 09:00-12:00"),
    (
        peak(timezone="Beijing"),
        "models.m.prices.peak.timezone: must be a time zone like Asia/Shanghai",
    ),
    (peak(input="1.2345"), f"models.m.prices.peak.input: {PRICE}"),
]


@pytest.mark.parametrize(("given", "mistake"), REFUSED, ids=[mistake for _, mistake in REFUSED])
def test_a_mistake_is_named_with_its_key_and_causes_no_other(given, mistake):
    assert mistakes(**given) == [mistake]


def test_all_mistakes_are_named_at_once():
    found = mistakes(
        site={"language": "fr"},
        server={"port": "x", "threads": 1},
        plans={"free": {"days": 0}},
        upstreams=[UPSTREAM | {"idle_s": -1, "quirks": ["polite"]}, {"name": "other"}, UPSTREAM],
        models=[
            *priced(input="1.0001", output="x")["models"],
            {"id": "n", "routes": [{"upstream": "no", "model": "n"}]},
        ],
    )
    assert [mistake.partition(":")[0] for mistake in found] == [
        "site.language",
        "server.port",
        "server.threads",
        "plans.free.days",
        "upstreams.house.idle_s",
        "upstreams.house.quirks[0]",
        "upstreams.other.base_url",
        "models.m.prices.input",
        "models.m.prices.output",
        "upstreams.house",
        "models.n.routes[0].upstream",
    ]


plain = strategies.one_of(
    strategies.text(max_size=12),
    strategies.integers(),
    strategies.booleans(),
    strategies.dates(),
    strategies.decimals(allow_nan=False),
    strategies.sampled_from(
        [Decimal("nan"), Decimal("-inf"), "$A", "", "demo", "chat", "0.8", "nan", "mon-fri"]
    ),
)
values = strategies.recursive(
    plain,
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(document, path=()):
    """Every place in a parsed file."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


PLACES = list(places(tomllib.loads(SHIPPED)))


@hypothesis_given(strategies.sampled_from(PLACES), values)
def test_whatever_stands_in_a_file_is_taken_or_named(place, value):
    given = tomllib.loads(SHIPPED, parse_float=Decimal)
    inner = given
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        Catalog(settings.check(given, {"A": "sk-1"}))
    except settings.SettingsError as err:
        assert err.mistakes and all(": " in mistake for mistake in err.mistakes)


def test_the_secret_of_the_client_is_read_from_where_keys_are_and_shown_nowhere(tmp_path):
    rules = {"issuer": "https://sso.example.com", "client_id": "relay"}
    given = check({"SSO": "a-secret"}, sign_in=rules | {"client_secret": "$SSO"})
    assert given.sign_in.keys == ("a-secret",) and "a-secret" not in repr(given.sign_in)
    (tmp_path / "secret").write_text("in-a-file\n")
    env = {"SSO_FILE": str(tmp_path / "secret")}
    assert check(env, sign_in=rules | {"client_secret": "$SSO"}).sign_in.keys == ("in-a-file",)
    # A command of another shell, which has no such variable, goes on working.
    assert check(sign_in=rules | {"client_secret": "$SSO"}).sign_in.keys == ()


@pytest.mark.parametrize(
    "issuer", ["http://localhost:8080", "http://keycloak:8080/realms/x", "http://10.0.0.7"]
)
def test_plain_http_is_for_providers_of_the_local_network(issuer):
    assert check(sign_in={"issuer": issuer, "client_id": "relay"}).sign_in.source == issuer


def test_a_check_is_so_many_seconds():
    for written, seconds in {"30m": 1800, "8h": 28800, "2d": 172800}.items():
        assert check(sign_in={"check_every": written}).sign_in.check_s == seconds
