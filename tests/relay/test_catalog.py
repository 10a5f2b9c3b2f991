"""The catalogue.

Integers of prices, tiers and peaks at their edges, who may answer, and when the demo does.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest

import settings
from billing import Price
from relay import errors
from relay.catalog import Catalog

PRICES = {"input": "4", "cached": "1", "output": "16"}
PEAK = {
    "days": "mon-fri",
    "hours": ["09:00-12:00", "14:00-18:00"],
    "input": "8",
    "cached": "2",
    "output": "32",
}
BEIJING = timezone(timedelta(hours=8))
NOON = datetime(2026, 11, 23, 12, tzinfo=BEIJING)


def upstream(name="house", **changes) -> dict:
    return {"name": name, "base_url": f"https://{name}.example/v1", "api_key": "sk-1"} | changes


def model(name="m", upstreams=("house",), **changes) -> dict:
    return {
        "id": name,
        "prices": PRICES,
        "routes": [{"upstream": each, "model": f"{each}-m"} for each in upstreams],
    } | changes


def catalog(models=None, upstreams=None, plans=None, env=()) -> Catalog:
    return Catalog(
        settings.check(
            {
                "plans": plans or {"free": {}, "pro": {"discount": "0.8"}},
                "upstreams": [upstream()] if upstreams is None else upstreams,
                "models": [model()] if models is None else models,
            },
            dict(env),
        )
    )


def at(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def price(of: Catalog, moment: datetime = NOON, plan: str = "free") -> Price:
    return of.models["m"].price(plan, at(moment))


def asked(of: Catalog, wire: str = "chat", name: str = "m") -> list[tuple]:
    return [
        (target.upstream.name, target.model, target.wire) for target in of.targets(name, wire)[1]
    ]


# Prices


def test_a_price_per_million_is_whole_nano_yuan_per_llm_token():
    assert price(
        catalog([model(prices={"input": "4.5", "cached": "0.15", "output": "0.001"})])
    ) == Price(4500, 150, 1)


def test_cached_input_without_a_price_of_its_own_costs_as_input():
    tiers = [{"above": 10, "input": "6", "output": "20"}]
    found = price(catalog([model(prices={"input": "4", "output": "16", "tiers": tiers})]))
    assert (found.cached, found.at(11).cached) == (4000, 6000)


def test_cached_input_may_be_free():
    assert price(catalog([model(prices=PRICES | {"cached": "0"})])).cached == 0


@pytest.mark.parametrize(
    ("listed", "discount", "nano"),
    [
        ("2", "0.8", 1600),
        ("0.001", "0.5", 1),  # half of one goes up
        ("0.003", "0.5", 2),  # 1.5
        ("0.001", "0.49", 0),
        ("0.021", "0.8333", 17),  # 17.4993
        ("0.15", "0.85", 128),  # 127.5
        ("4.5", "1", 4500),
    ],
)
def test_a_discount_is_rounded_half_up_to_whole_nano_yuan_once(listed, discount, nano):
    prices = {
        "input": listed,
        "cached": listed,
        "output": listed,
        "tiers": [{"above": 10, "input": listed, "cached": listed, "output": listed}],
    }
    found = price(
        catalog([model(prices=prices)], plans={"free": {}, "pro": {"discount": discount}}),
        plan="pro",
    )
    assert found == Price(nano, nano, nano, ((10, Price(nano, nano, nano)),))


def test_the_free_plan_may_have_a_discount_too():
    assert price(catalog(plans={"free": {"discount": "0.5"}})).input == 2000


def test_a_plan_that_is_gone_from_the_settings_pays_the_free_price():
    assert price(catalog(), plan="gold") == price(catalog(), plan="free")


def test_a_tier_begins_above_its_limit():
    tiers = [
        {"above": 32000, "input": "6", "cached": "1.5", "output": "22"},
        {"above": 128000, "input": "9", "cached": "2", "output": "33"},
    ]
    found = price(catalog([model(prices=PRICES | {"tiers": tiers})]))
    assert [found.at(n).input for n in (0, 31999, 32000, 32001, 128000, 128001, 10**9)] == [
        4000,
        4000,
        4000,
        6000,
        6000,
        9000,
        9000,
    ]
    assert found.highest().output == 33000


# Peaks


def peaked(**changes) -> Catalog:
    return catalog([model(prices=PRICES | {"peak": PEAK | changes})])


FRIDAY, SATURDAY, SUNDAY, MONDAY = (
    datetime(2026, 11, day, tzinfo=BEIJING) for day in (27, 28, 29, 30)
)


@pytest.mark.parametrize(
    ("moment", "is_peak"),
    [
        (FRIDAY.replace(hour=8, minute=59, second=59, microsecond=999_000), False),
        (FRIDAY.replace(hour=9), True),
        (FRIDAY.replace(hour=11, minute=59, second=59, microsecond=999_000), True),
        (FRIDAY.replace(hour=12), False),
        (FRIDAY.replace(hour=13, minute=59, second=59), False),
        (FRIDAY.replace(hour=14), True),
        (FRIDAY.replace(hour=17, minute=59, second=59), True),
        (FRIDAY.replace(hour=18), False),
        (SATURDAY.replace(hour=10), False),
        (SUNDAY.replace(hour=17), False),
        (MONDAY, False),
        (MONDAY.replace(hour=9), True),
        (datetime(2026, 11, 27, 1, tzinfo=UTC), True),  # nine in Beijing
        (datetime(2026, 11, 27, 9, tzinfo=UTC), True),  # seventeen
        (datetime(2026, 11, 27, 10, tzinfo=UTC), False),
    ],
)
def test_the_peak_holds_from_its_first_to_before_its_last_minute_on_its_days(moment, is_peak):
    assert price(peaked(), moment) == (
        Price(8000, 2000, 32000) if is_peak else Price(4000, 1000, 16000)
    )


def test_the_hours_are_those_of_the_windows_own_time_zone():
    there = peaked(timezone="America/New_York", days="fri", hours=["09:00-12:00"])
    assert price(there, FRIDAY.replace(hour=10)).input == 4000
    assert price(there, datetime(2026, 11, 27, 14, tzinfo=UTC)).input == 8000  # nine, in winter
    assert price(there, datetime(2026, 7, 3, 13, tzinfo=UTC)).input == 8000  # nine, in summer
    assert price(there, datetime(2026, 7, 3, 12, 59, 59, tzinfo=UTC)).input == 4000


@pytest.mark.parametrize(
    ("moment", "is_peak"),
    [
        (FRIDAY.replace(hour=21, minute=59), False),
        (FRIDAY.replace(hour=22), True),
        (SATURDAY.replace(hour=5, minute=59), True),  # Friday's night
        (SATURDAY.replace(hour=6), False),
        (SATURDAY.replace(hour=22), False),
        (MONDAY.replace(hour=5), False),  # Sunday's night
        (MONDAY.replace(hour=23, minute=59), True),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(moment, is_peak):
    assert price(peaked(hours=["22:00-06:00"]), moment).input == (8000 if is_peak else 4000)


def test_a_window_may_last_all_day_and_days_may_go_round_the_week():
    whole = peaked(days="sat-mon", hours=["00:00-24:00"])
    assert [price(whole, day).input for day in (FRIDAY, SATURDAY, SUNDAY, MONDAY)] == [
        4000,
        8000,
        8000,
        8000,
    ]
    assert price(whole, MONDAY + timedelta(hours=23, minutes=59, seconds=59)).input == 8000
    assert price(whole, MONDAY + timedelta(days=1)).input == 4000


def test_a_single_day_is_a_window_too():
    assert [price(peaked(days="fri"), day.replace(hour=10)).input for day in (FRIDAY, MONDAY)] == [
        8000,
        4000,
    ]


def test_holidays_have_no_peak_nor_has_the_night_that_begins_on_one():
    spring = peaked(hours=["09:00-12:00", "22:00-06:00"], holidays=["2026-11-27"])
    assert price(spring, FRIDAY.replace(hour=10)).input == 4000
    assert price(spring, SATURDAY.replace(hour=1)).input == 4000
    assert price(spring, FRIDAY.replace(hour=1)).input == 8000  # still Thursday's night


def test_a_discount_holds_in_the_peak_too():
    assert price(peaked(), FRIDAY.replace(hour=10), "pro") == Price(6400, 1600, 25600)


def test_both_prices_can_be_shown():
    shown = peaked().models["m"]
    assert shown.prices["pro"] == (Price(3200, 800, 12800), Price(6400, 1600, 25600))
    assert (shown.peak_days, shown.peak_hours) == ("mon-fri", ("09:00-12:00", "14:00-18:00"))


# Demo


def test_without_any_key_every_model_is_answered_by_the_demo():
    keyless = [upstream(api_key="$NO_SUCH_KEY"), upstream("other", api_key="")]
    demo = catalog([model(), model("e", kind="embeddings"), model("n", routes=[])], keyless)
    assert demo.demo
    assert asked(demo) == [("demo", "m", "chat")]
    assert asked(demo, "messages") == [("demo", "m", "chat")]
    assert asked(demo, "embeddings", "e") == [("demo", "e", "embeddings")]
    assert all(each.available for each in demo.models.values())


def test_variables_that_are_not_set_do_not_end_the_demo():
    assert catalog(upstreams=[upstream(api_key="$ONE")], env={"ONE": " "}).demo
    assert catalog(
        upstreams=[upstream(api_keys=["$ONE", "$TWO"], api_key="")], env={"THREE": "sk"}
    ).demo
    assert Catalog(settings.load(env={"DEEPSEEK_API_KEY": ""})).demo


def test_one_key_ends_the_demo_for_all_models():
    live = catalog(
        [model(), model("n", ("other",))],
        [upstream(api_key="$ONE"), upstream("other", api_key="$TWO")],
        env={"ONE": "sk-1"},
    )
    assert not live.demo
    assert asked(live) == [("house", "house-m", "chat")]
    assert not live.models["n"].available
    with pytest.raises(errors.Unavailable):
        live.targets("n", "chat")


def test_a_local_server_ends_the_demo_too():
    assert not catalog(upstreams=[upstream(api_key="", allow_private=True)]).demo


def test_a_model_without_prices_is_shown_by_the_demo_and_costs_nothing():
    demo = catalog([{"id": "m"}], [])
    assert demo.models["m"].available and price(demo).free


def test_a_model_without_prices_is_otherwise_switched_off():
    live = catalog([{"id": "m", "routes": [{"upstream": "house", "model": "m"}]}])
    assert live.models == {}
    with pytest.raises(errors.ModelNotFound):
        live.targets("m", "chat")


@pytest.mark.parametrize("upstreams", [[], [upstream()]])
def test_a_model_that_is_not_enabled_is_unknown(upstreams):
    off = catalog([model(enabled=False, routes=[])], upstreams)
    assert off.models == {}
    with pytest.raises(errors.ModelNotFound):
        off.targets("m", "chat")


# Targets


def test_an_unknown_model_is_not_found():
    with pytest.raises(errors.ModelNotFound) as caught:
        catalog().targets("gpt-99", "chat")
    assert caught.value.status == 404 and "gpt-99" in caught.value.message


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        ("embeddings", "chat"),
        ("embeddings", "messages"),
        ("embeddings", "responses"),
        ("chat", "embeddings"),
    ],
)
def test_a_model_answers_only_for_what_it_is(kind, wire):
    speaks = ["chat", "messages", "responses", "embeddings"]
    with pytest.raises(errors.BadRequest) as caught:
        catalog([model(kind=kind)], [upstream(speaks=speaks)]).targets("m", wire)
    assert (caught.value.status, caught.value.param) == (400, "model")


@pytest.mark.parametrize(
    ("speaks", "wire", "spoken"),
    [
        (["chat"], "chat", "chat"),
        (["chat"], "messages", "chat"),
        (["chat"], "responses", "chat"),
        (["chat", "messages"], "messages", "messages"),
        (["messages"], "messages", "messages"),
    ],
)
def test_the_callers_wire_is_spoken_if_it_can_be_else_chat(speaks, wire, spoken):
    assert asked(catalog(upstreams=[upstream(speaks=speaks)]), wire) == [
        ("house", "house-m", spoken)
    ]


@pytest.mark.parametrize(
    ("speaks", "wire"),
    [(["messages"], "chat"), (["messages"], "responses"), (["embeddings"], "chat")],
)
def test_a_wire_that_no_upstream_can_be_asked_on_is_unavailable(speaks, wire):
    with pytest.raises(errors.Unavailable) as caught:
        catalog(upstreams=[upstream(speaks=speaks)]).targets("m", wire)
    assert caught.value.status == 503


def test_embeddings_are_never_turned_into_chat():
    with pytest.raises(errors.Unavailable):
        catalog([model(kind="embeddings")]).targets("m", "embeddings")


def test_upstreams_without_a_key_are_passed_over():
    found = catalog(
        [model(upstreams=("first", "house"))], [upstream("first", api_key="$NONE"), upstream()]
    )
    assert asked(found) == [("house", "house-m", "chat")]


def test_targets_go_by_priority_and_then_by_weight():
    routes = [
        {"upstream": "a", "model": "late", "priority": 1, "weight": 9},
        {"upstream": "b", "model": "light"},
        {"upstream": "a", "model": "heavy", "weight": 5},
    ]
    found = catalog([model(routes=routes)], [upstream("a"), upstream("b")])
    assert [name for _, name, _ in asked(found)] == ["heavy", "light", "late"]


def test_quirks_of_the_upstream_and_of_the_route_add_up():
    routes = [{"upstream": "house", "model": "m", "quirks": ["temperature_one"]}]
    (target,) = catalog([model(routes=routes)], [upstream(quirks=["tool_choice_auto"])]).targets(
        "m", "chat"
    )[1]
    assert target.quirks == ("tool_choice_auto", "temperature_one")


def test_models_keep_the_order_of_the_file():
    assert list(catalog([model(name) for name in "zax"]).models) == list("zax")


# Addresses


@pytest.mark.parametrize(
    ("base", "wire", "url"),
    [
        ("https://a.example/v1", "chat", "https://a.example/v1/chat/completions"),
        ("https://a.example/v1/", "chat", "https://a.example/v1/chat/completions"),
        ("https://a.example/v1", "responses", "https://a.example/v1/responses"),
        ("https://a.example/v1", "embeddings", "https://a.example/v1/embeddings"),
        ("https://a.example/v1", "completions", "https://a.example/v1/completions"),
        ("https://a.example/v1", "messages", "https://a.example/v1/messages"),
    ],
)
def test_an_address_is_the_base_and_the_wires_path(base, wire, url):
    assert catalog(upstreams=[upstream(base_url=base)]).upstreams["house"].url(wire) == url


def test_a_wire_may_live_elsewhere():
    elsewhere = "https://a.example/anthropic/v1/messages"
    both = upstream(speaks=["chat", "messages"], wire_urls={"messages": elsewhere})
    house = catalog(upstreams=[both]).upstreams["house"]
    assert house.url("messages") == elsewhere
    assert house.url("chat") == "https://house.example/v1/chat/completions"


# The shipped models


@pytest.fixture
def shipped() -> Catalog:
    """All shipped models, with a key for every provider."""
    names = ("DASHSCOPE", "DEEPSEEK", "QIANFAN", "MOONSHOT", "ZHIPU", "ARK", "SPARK")
    return Catalog(settings.load(env={f"{name}_API_KEY": "sk-1" for name in names}))


def test_every_shipped_model_that_is_on_can_be_called(shipped):
    assert shipped.models and all(each.available for each in shipped.models.values())
    for each in shipped.models.values():
        assert shipped.targets(each.id, each.kind)[1]


def test_the_demo_shows_what_is_switched_off_for_want_of_a_price(shipped):
    assert set(Catalog(settings.load(env={})).models) - set(shipped.models) == {
        "spark-4.0",
        "kimi-k3.1-pro",
        "qwen3.8-flash",
        "ernie-5.1",
    }


@pytest.mark.parametrize(
    ("name", "wire", "url"),
    [
        ("qwen3-max", "chat", "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ("qwen3-max", "messages", "https://dashscope.aliyuncs.com/apps/anthropic/v1/messages"),
        (
            "text-embedding-v4",
            "embeddings",
            "https://dashscope.aliyuncs.com/compatible-mode/v1/embeddings",
        ),
        ("deepseek-v4-pro", "chat", "https://api.deepseek.com/chat/completions"),
        ("deepseek-v4-pro", "responses", "https://api.deepseek.com/chat/completions"),
        ("ernie-5.0", "chat", "https://qianfan.baidubce.com/v2/chat/completions"),
        ("kimi-k2.7-code", "chat", "https://api.moonshot.cn/v1/chat/completions"),
        ("glm-5", "chat", "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
        ("doubao-pro", "chat", "https://ark.cn-beijing.volces.com/api/v3/chat/completions"),
    ],
)
def test_a_shipped_model_is_asked_where_its_provider_answers(shipped, name, wire, url):
    target = shipped.targets(name, wire)[1][0]
    assert target.upstream.url(target.wire) == url


def test_deepseek_costs_twice_as_much_while_beijing_works(shipped):
    found = shipped.models["deepseek-v4-pro"]
    assert found.price("free", at(FRIDAY.replace(hour=12))) == Price(
        4500, 150, 13500, search=5_000_000
    )
    assert found.price("free", at(FRIDAY.replace(hour=11))) == Price(
        9000, 300, 27000, search=5_000_000
    )


def test_every_shipped_price_is_at_least_as_dear_uncached_as_cached(shipped):
    for each in shipped.models.values():
        for usual, at_peak in each.prices.values():
            for found in (usual, at_peak, *(tier for _, tier in usual.tiers)):
                assert found.cached <= found.input and found.input > 0
