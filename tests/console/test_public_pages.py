"""What every visitor sees.

The frame of all pages, the model plaza, the calculator, languages and looks.
"""

import os
import re
import stat
import threading
import time
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

import billing
from billing import Pockets, Usage, nano, split
from console import context, session
from console.ui import charts, format, i18n
from db import StorageError
from tests.console.console_stage import MODELS, ROOT, links, model, site, text
from tests.stage import configuration, flask, write_config

PUBLIC = [
    "/",
    "/models",
    "/models?q=nothing-has-this-name",
    "/models/plain-1",
    "/models/tiered-2",
    "/models/peaky-3",
    "/models/vectors-5",
    "/models/nobody-6",
    "/calculator",
    "/calculator?input=abc",
    "/docs/",
    "/docs/chat",
    "/docs/errors",
    "/docs/billing",
    "/docs/rates",
    "/docs/tools",
    "/docs/tools/claude-code",
    "/docs/tools/cc-switch",
    "/no-such-page",
]


@pytest.fixture
def app(tmp_path):
    return site(tmp_path)


@pytest.fixture
def visitor(app):
    return app.test_client()


ENGLISH = {"Accept-Language": "en"}


def english(visitor, path: str) -> str:
    return visitor.get(path, headers=ENGLISH).get_data(as_text=True)


# The frame of every page


def test_every_link_of_every_public_page_leads_somewhere(visitor):
    seen, ahead, broken = set(), ["/"], []
    while ahead:
        path = ahead.pop()
        if path in seen or "lang=" in path or "theme=" in path:
            continue
        seen.add(path)
        answer = visitor.get(path)
        to_sign_in = answer.status_code == 302 and "/login" in answer.headers["Location"]
        if answer.status_code != 200 and not to_sign_in:
            broken.append((answer.status_code, path))
        if answer.mimetype == "text/html":
            ahead += links(answer.get_data(as_text=True))
    assert not broken
    assert len(seen) > 60


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("language, html_language", [("zh", "zh-CN"), ("en", "en")])
def test_a_page_keeps_to_the_content_policy_and_says_what_it_is(
    visitor, path, language, html_language
):
    answer = visitor.get(path, headers={"Accept-Language": language})
    html = answer.get_data(as_text=True)
    assert answer.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self';"
    )
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert f'<html lang="{html_language}"' in html
    assert html.count("<h1") == 1
    assert re.search(r"<title>[^<]+</title>", html)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", html)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", html)
    assert 'href="#main"' in html and 'id="main"' in html
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", PUBLIC)
def test_every_field_has_a_label(visitor, path):
    html = visitor.get(path).get_data(as_text=True)
    fields = re.findall(r"<(?:input|select|textarea)[^>]*\sid=\"([^\"]+)\"", html)
    unnamed = [field for field in fields if f'<label for="{field}"' not in html]
    assert not unnamed


def test_an_unknown_page_has_a_sentence_and_a_way_back(visitor):
    answer = visitor.get("/no-such-page", headers={"Accept-Language": "en"})
    assert answer.status_code == 404
    assert "There is no page at this address." in answer.get_data(as_text=True)
    assert "/" in links(answer.get_data(as_text=True))


def test_a_page_that_breaks_shows_no_details(tmp_path):
    app = site(tmp_path)
    app.add_url_rule("/breaks", view_func=lambda: {}["secret-detail"])
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = app.test_client().get("/breaks", headers={"Accept-Language": "en"})
    assert answer.status_code == 500
    assert "Something broke on our side" in answer.get_data(as_text=True)
    assert "secret-detail" not in answer.get_data(as_text=True)


def test_a_page_about_a_broken_database_does_not_ask_the_database(tmp_path):
    def refuse(_key):
        raise StorageError("disk full")

    app = site(tmp_path)
    app.login_manager._user_callback, before = refuse, app.login_manager._user_callback
    try:
        visitor = app.test_client()
        with visitor.session_transaction() as kept:
            kept["_user_id"] = "1"
        answer = visitor.get("/", headers={"Accept-Language": "en"})
    finally:
        app.login_manager._user_callback = before
    assert answer.status_code == 503
    assert "cannot save anything right now" in answer.get_data(as_text=True)


def test_the_console_leaves_the_answers_of_the_api_alone(visitor):
    answer = visitor.get("/api/v1/no-such-thing")
    assert answer.status_code == 404
    assert "Content-Security-Policy" not in answer.headers
    assert "<nav" not in answer.get_data(as_text=True)


def test_a_form_from_elsewhere_is_refused(tmp_path):
    app = site(tmp_path)
    for path in ("/changes", "/api/v1/changes"):
        app.add_url_rule(path, path, lambda: "changed", methods=["POST"])
    visitor = app.test_client()
    assert visitor.post("/changes").status_code == 400
    assert visitor.post("/changes", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 400
    assert visitor.post("/api/v1/changes").status_code == 200


def test_static_files_are_kept_until_they_change(visitor):
    html = english(visitor, "/")
    address = re.search(r'href="(/static/console\.css\?v=\w+)"', html)[1]
    assert "immutable" in visitor.get(address).headers["Cache-Control"]
    assert visitor.get("/static/console.css").headers["Cache-Control"] == "no-cache"


def test_pages_differ_by_visitor_for_caches(visitor):
    answer = visitor.get("/")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert {"Cookie", "Accept-Language"} <= set(answer.vary)


def test_the_demo_banner_stands_on_every_page_until_a_key_is_there(tmp_path):
    without_keys = site(
        tmp_path, upstreams=[{"name": "fake", "base_url": "https://upstream.example"}]
    ).test_client()
    for path in PUBLIC:
        assert "Demo mode:" in english(without_keys, path)
    assert "Demo mode:" not in english(site(tmp_path).test_client(), "/")


# Language and look


@pytest.mark.parametrize(
    "wishes, expected",
    [
        ({"headers": {"Accept-Language": "en-GB,en;q=0.9"}}, "en"),
        ({"headers": {"Accept-Language": "zh-TW"}}, "zh-CN"),
        ({"headers": {"Accept-Language": "fr"}}, "zh-CN"),
        ({}, "zh-CN"),
        ({"headers": {"Accept-Language": "zh"}, "query_string": {"lang": "en"}}, "en"),
        ({"headers": {"Accept-Language": "en"}, "query_string": {"lang": "klingon"}}, "en"),
    ],
)
def test_the_language_is_the_visitors_choice_then_the_browsers_then_the_sites(
    visitor, wishes, expected
):
    assert f'<html lang="{expected}"' in visitor.get("/", **wishes).get_data(as_text=True)


def test_a_choice_of_language_and_theme_is_remembered(visitor):
    visitor.get("/?lang=en&theme=dark", headers={"Accept-Language": "zh"})
    html = visitor.get("/models", headers={"Accept-Language": "zh"}).get_data(as_text=True)
    assert '<html lang="en" data-theme="dark"' in html


def test_a_theme_that_does_not_exist_changes_nothing(visitor):
    answer = visitor.get('/?theme="><script>')
    assert 'data-theme="auto"' in answer.get_data(as_text=True)
    assert "theme" not in answer.headers.get("Set-Cookie", "")


def test_the_switch_of_language_keeps_what_was_searched(visitor):
    assert "/models?q=plain&lang=zh" in links(english(visitor, "/models?q=plain"))


def test_every_sentence_has_its_chinese():
    assert not i18n.missing("zh")


def test_translations_keep_the_names_and_the_markup_of_their_sentences():
    pattern = re.compile(r"%\(\w+\)s|</?\w+")
    catalog = i18n.translations("zh")._catalog
    wrong = [
        one
        for one in i18n.sentences()
        if isinstance(catalog.get(one), str)
        and sorted(pattern.findall(one)) != sorted(pattern.findall(catalog[one]))
    ]
    assert not wrong


def test_a_catalogue_is_compiled_again_when_it_changed(tmp_path):
    po = tmp_path / "zh" / "some.po"
    po.parent.mkdir()
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
    po.write_text(header + 'msgid "old"\nmsgstr "旧"\n', encoding="utf-8")
    assert "旧".encode() in i18n.compiled(po)
    po.write_text(header + 'msgid "new"\nmsgstr "新"\n', encoding="utf-8")
    os.utime(po, (time.time() + 10, time.time() + 10))
    assert "新".encode() in i18n.compiled(po)


def test_a_catalogue_in_a_read_only_folder_is_compiled_all_the_same(tmp_path, monkeypatch):
    po = tmp_path / "zh" / "some.po"
    po.parent.mkdir()
    po.write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\nmsgid "a"\nmsgstr "甲"\n',
        encoding="utf-8",
    )

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(type(po), "write_bytes", refuse)
    assert "甲".encode() in i18n.compiled(po)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    "ink, papers",
    [
        (
            "text",
            ["bg", "sunk", "raised", "code", "info-soft", "warn-soft", "bad-soft", "good-soft"],
        ),
        ("soft", ["bg", "sunk", "raised"]),
        ("faint", ["bg", "raised"]),
        ("accent", ["bg", "raised", "accent-soft"]),
        ("on-accent", ["accent"]),
        ("good", ["good-soft", "bg"]),
        ("warn", ["warn-soft", "bg"]),
        ("bad", ["bad-soft", "bg"]),
        ("info", ["info-soft", "bg"]),
    ],
)
def test_colours_have_the_contrast_of_wcag_aa_in_light_and_dark(ink, papers):
    css = (ROOT / "static" / "console.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", css)
    light = {name: colour for name, colour, _ in pairs}
    dark = {name: colour for name, _, colour in pairs}
    for colours in (light, dark):
        for paper in papers:
            lighter, darker = sorted(
                (_luminance(colours[ink]), _luminance(colours[paper])), reverse=True
            )
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{ink} on {paper}"


# Front page and model plaza


def test_the_front_page_shows_the_base_address_and_a_sample_for_a_model_of_this_site(visitor):
    html = english(visitor, "/")
    assert '<code id="base-address">https://relay.example/api/v1</code>' in html
    assert "plain-1" in html and "curl https://relay.example/api/v1/chat/completions" in html


def test_the_address_shown_is_the_configured_one_and_never_the_host_header(visitor):
    answer = visitor.get("/", headers={"Host": "evil.lan"})
    assert answer.status_code == 200 and "evil.lan" not in answer.get_data(as_text=True)


COPIED = ("/", "/docs/", "/docs/tools/claude-code", "/docs/openapi.json", "/docs/postman.json")


@pytest.mark.parametrize("path", COPIED)
@pytest.mark.parametrize("host", ["192.168.7.5:8000", "relay.lan", "[fd00::5]:8000", "a_b.lan:80"])
def test_without_a_configured_address_what_is_copied_has_the_one_by_which_the_visitor_came(
    tmp_path, path, host
):
    visitor = site(tmp_path, site={}).test_client()
    html = visitor.get(path, headers={"Host": host}).get_data(as_text=True)
    assert f"http://{host}/api" in html and "127.0.0.1" not in html


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example/x",
        "a b",
        "a@b",
        "[::1",
        "a:99999",
        "a:0",
        '"><script>',
        "a..b",
        "-a",
        "[1]",
    ],
)
def test_what_is_no_host_is_repeated_nowhere(tmp_path, host):
    app = site(tmp_path, site={})
    with app.test_request_context("/", environ_overrides={"HTTP_HOST": host}):
        assert context.site_url() == "http://127.0.0.1:80"


def test_behind_https_the_address_and_the_cookies_are_https_without_a_word_of_configuration(
    tmp_path,
):
    app = site(tmp_path, site={})
    with app.test_request_context("/", base_url="https://relay.lan"):
        assert context.site_url() == "https://relay.lan"
        assert app.session_interface.get_cookie_secure(app)
    with app.test_request_context("/", base_url="http://relay.lan"):
        assert not app.session_interface.get_cookie_secure(app)


def rows(html: str) -> list[str]:
    return [text(row) for row in re.findall(r"<tr>.*?</tr>", html.split("<tbody>")[1], flags=re.S)]


def test_the_plaza_lists_every_model_with_list_and_pro_price(visitor):
    listed = rows(english(visitor, "/models"))
    assert len(listed) == len(MODELS)
    plain = next(row for row in listed if "plain-1" in row)
    assert "Acme" in plain and "128K" in plain and "8K" in plain
    assert (
        "¥2 Pro : ¥1.6" in plain.replace("Pro: ", "Pro : ")
        and "¥6.4" in plain
        and "Available" in plain
    )


def test_the_plaza_says_which_prices_depend_on_length_or_hour(visitor):
    listed = rows(english(visitor, "/models"))
    assert "Price by input length" in next(row for row in listed if "tiered-2" in row)
    assert "Peak hours cost more" in next(row for row in listed if "peaky-3" in row)
    assert "free" in next(row for row in listed if "gratis-4" in row)
    assert "Unavailable" in next(row for row in listed if "nobody-6" in row)


@pytest.mark.parametrize(
    "query, expected",
    [
        ("q=tiered", ["tiered-2"]),
        ("q=BRAVO", ["peaky-3", "tiered-2"]),
        ("provider=Charity", ["gratis-4"]),
        ("q=bravo+peaky", ["peaky-3"]),
        ("q=bravo&provider=Acme", []),
        ("sort=input", ["gratis-4", "vectors-5", "tiered-2", "nobody-6", "plain-1", "peaky-3"]),
        ("sort=nonsense&q=bravo", ["peaky-3", "tiered-2"]),
    ],
)
def test_the_plaza_searches_filters_and_sorts(visitor, query, expected):
    html = english(visitor, f"/models?{query}")
    assert re.findall(r'class="mono">([\w-]+)</span>', html) == expected


def test_a_search_without_a_find_says_what_to_do(visitor):
    assert "Show all models" in english(visitor, "/models?q=zzz")


def test_a_site_without_models_still_has_its_pages(tmp_path):
    visitor = site(tmp_path, models=[]).test_client()
    for path in (
        "/",
        "/models",
        "/calculator",
        "/docs/",
        "/docs/billing",
        "/docs/tools/codex",
        "/docs/postman.json",
    ):
        assert visitor.get(path).status_code == 200


def test_a_model_page_shows_tiers_and_peak_hours(visitor):
    tiered, peaky = (
        text(english(visitor, "/models/tiered-2")),
        text(english(visitor, "/models/peaky-3")),
    )
    assert "input above 32,000" in tiered and "¥16" in tiered and "¥12.8" in tiered
    assert "Mon–Fri 09:00-12:00 (Asia/Shanghai)" in peaky and "¥4.8" in peaky


def test_a_model_may_have_a_slash_in_its_name(tmp_path):
    visitor = site(tmp_path, models=[model("acme/big-1")]).test_client()
    assert "acme/big-1" in english(visitor, "/models/acme/big-1")
    assert visitor.get("/models/acme/none").status_code == 404


def test_names_and_searches_are_never_markup(tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    app = site(
        tmp_path,
        site={"name": hostile, "public_url": "https://relay.example"},
        models=[model("plain-1", title=hostile, provider=hostile)],
    )
    for path in (
        "/",
        "/models",
        f"/models?q={hostile}",
        "/models/plain-1",
        f"/calculator?input={hostile}",
        "/docs/tools/codex",
        "/docs/tools/opencode",
    ):
        html = english(app.test_client(), path)
        assert "<img src=x" not in html and "&lt;img src=x" in html


# The calculator


@pytest.mark.parametrize(
    "query, usage, held, plan",
    [
        (
            "input=3000&cached=1000&output=800&grant=1500&quota=0.002&wallet=10",
            (3000, 1000, 800),
            (1500, "0.002", "10"),
            "free",
        ),
        (
            "input=3000&cached=0&output=800&grant=0&quota=0&wallet=10&plan=pro",
            (3000, 0, 800),
            (0, "0", "10"),
            "pro",
        ),
        (
            "input=1,000&cached=0&output=0&grant=5000&quota=0&wallet=0",
            (1000, 0, 0),
            (5000, "0", "0"),
            "free",
        ),
        ("input=0&cached=0&output=0&grant=0&quota=0&wallet=0", (0, 0, 0), (0, "0", "0"), "free"),
    ],
)
def test_the_calculator_says_what_the_ledger_would_do(app, visitor, query, usage, held, plan):
    price = app.extensions["relay"].catalog.models["plain-1"].prices[plan][0]
    paid = split(Usage(*usage), price, Pockets(held[0], nano(held[1]), nano(held[2])))
    page = text(english(visitor, f"/calculator?model=plain-1&{query}"))
    with app.test_request_context():
        quota, wallet = format.money(paid.quota), format.money(paid.wallet)
        cost = format.money(price.cost(Usage(*usage)))
    assert f"Price of the whole request {cost}" in page
    assert f"Token balance {paid.grant:,} tokens Plan quota {quota} Wallet {wallet}" in page


def test_the_calculator_takes_the_tier_of_the_whole_input_and_the_peak_price(visitor):
    page = text(english(visitor, "/calculator?model=tiered-2&input=40000&output=0&wallet=10"))
    assert "Price of the whole request ¥0.16" in page
    page = text(
        english(visitor, "/calculator?model=peaky-3&input=1000000&output=0&wallet=10&peak=yes")
    )
    assert "Price of the whole request ¥6.00" in page


@pytest.mark.parametrize(
    "field, typed, sentence",
    [
        ("input", "abc", "A whole number from 0 to 10,000,000."),
        ("output", "-1", "A whole number"),
        ("grant", "1e9", "A whole number"),
        ("input", "9" * 30, "A whole number"),
        ("input", "٣", "A whole number"),
        ("cached", "99999", "Not more than the input"),
        ("wallet", "ten", "An amount from 0"),
        ("quota", "-1", "An amount from 0"),
        ("wallet", "NaN", "An amount from 0"),
        ("wallet", "1e9999", "An amount from 0"),
        ("wallet", "0.0000000001", "An amount from 0"),
    ],
)
def test_the_calculator_says_beside_the_field_what_is_wrong_and_keeps_what_was_typed(
    visitor, field, typed, sentence
):
    answer = visitor.get(
        "/calculator", query_string={field: typed}, headers={"Accept-Language": "en"}
    )
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    place = re.search(rf'<input id="{field}".*?</div>', html, flags=re.S)[0]
    assert 'aria-invalid="true"' in place and sentence in place
    assert f'value="{typed[:40]}"' in place
    assert "Who pays" not in html


def test_the_calculator_says_when_a_call_would_be_refused(visitor):
    assert "is refused with 402" in english(
        visitor, "/calculator?model=plain-1&input=1000000&wallet=1"
    )
    assert "is refused with 402" not in english(
        visitor, "/calculator?model=plain-1&input=1000000&wallet=20"
    )


# How things are written


@pytest.mark.parametrize(
    "amount, expected",
    [
        (0, "¥0.00"),
        (nano("20"), "¥20.00"),
        (nano("-0.0000125"), "-¥0.0000125"),
        (nano("1234567.5"), "¥1,234,567.50"),
        (1, "¥0.000000001"),
        (None, "–"),
    ],
)
def test_money_is_exact_and_without_needless_zeros(app, amount, expected):
    with app.test_request_context():
        assert format.money(amount) == expected


@pytest.mark.parametrize(
    "amount, expected",
    [
        (0, "¥0.00"),
        (nano("0.01755"), "¥0.0175"),
        (99_999, "<¥0.0001"),
        (-99_999, "-¥0.000099999"),
        (nano("-1.23456"), "-¥1.2346"),
    ],
)
def test_short_money_has_at_most_four_decimals_and_never_promises_more_than_there_is(
    app, amount, expected
):
    with app.test_request_context():
        assert format.money_short(amount) == expected


@pytest.mark.parametrize(
    "n, expected",
    [
        (131072, "128K"),
        (128000, "128K"),
        (1_000_000, "1M"),
        (1_048_576, "1M"),
        (5000, "5K"),
        (8192, "8K"),
        (999, "999"),
        (12_345, "12.3K"),
        (384_000, "384K"),
        (1_024_000, "1M"),
        (None, "–"),
    ],
)
def test_sizes_are_written_as_people_say_them(n, expected):
    assert format.count_short(n) == expected


@pytest.mark.parametrize(
    "price, expected", [("4.5", "¥4.5"), ("0.125", "¥0.125"), ("10", "¥10"), ("0", "¥0")]
)
def test_prices_are_shown_per_million(app, price, expected):
    with app.test_request_context():
        assert format.per_million(int(Decimal(price) * 1000)) == expected


def test_times_are_those_of_the_sites_time_zone(app):
    with app.test_request_context(headers={"Accept-Language": "en"}):
        assert (
            format.when(0) == '<time datetime="1970-01-01T08:00:00+08:00">1970-01-01 08:00</time>'
        )
        assert "3 hours ago" in format.ago(0, 3 * 3600 * 1000)
        assert format.ago(None) == "–"


def test_a_chart_stacks_its_values_and_bears_zeros_and_negatives():
    chart = charts.stacked_bars("x", [("a", [3, 4]), ("b", [0, 0]), ("c", [-2, 1])], ["one", "two"])
    assert [(bar.series, bar.title) for bar in chart.bars] == [
        (0, "a · one: 3"),
        (1, "a · two: 4"),
        (1, "c · two: 1"),
    ]
    assert chart.bars[0].y == pytest.approx(chart.bars[1].y + chart.bars[1].height, abs=0.2)
    assert [text for _, text in chart.grid] == ["0", "4", "8"]
    assert charts.stacked_bars("x", []).empty and charts.lines("x", [("a", [0])]).empty


# Sessions


@pytest.mark.parametrize(
    "wish",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        None,
        "/\t/evil.example",
        "\\\\evil.example",
        "/ok\r\nLocation: evil",
        " /x",
        "/\x00",
        "https:evil.example",
        "///evil.example",
        "/%09/\\evil\\",
    ],
)
def test_the_way_back_never_leaves_the_site(wish):
    assert session.safe_way_back(wish, "/console") == "/console"


def test_the_way_back_leads_where_the_visitor_was():
    assert session.safe_way_back("/console/usage?day=1", "/console") == "/console/usage?day=1"


def test_the_secret_key_is_made_once_and_for_its_owner_alone(tmp_path):
    key = session.secret_key(tmp_path / "data" / "relay.db")
    assert session.secret_key(tmp_path / "data" / "relay.db") == key and len(key) == 32
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("key", [b"", b"dev", bytes(31)])
def test_a_secret_key_that_is_too_short_stops_the_start_with_a_sentence(tmp_path, key):
    (tmp_path / "secret.key").write_bytes(key)
    done = flask(
        write_config(tmp_path, configuration(tmp_path, "http://127.0.0.1:1", {})), "user", "list"
    )
    assert done.returncode == 1
    assert "secret.key is shorter than 32 bytes" in done.stderr and "Traceback" not in done.stderr


def test_a_secret_key_that_was_being_written_when_the_machine_died_is_none(tmp_path, monkeypatch):
    """What the name holds is a whole key, or there is no such name."""
    monkeypatch.setattr("db.files.os.fsync", _dies)
    with pytest.raises(StorageError, match=r"secret\.key cannot be read or made"):
        session.secret_key(tmp_path / "relay.db")
    assert list(tmp_path.iterdir()) == []


def _dies(descriptor):
    raise OSError(5, "Input/output error")


def test_of_two_processes_that_start_at_once_one_makes_the_key_for_both(tmp_path):
    keys = []
    both = threading.Barrier(8)

    def start():
        both.wait()
        keys.append(session.secret_key(tmp_path / "relay.db"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(keys) == 8 and len(set(keys)) == 1


def _session_cookie(app) -> str:
    answer = app.test_client().get("/login")
    return next(each for each in answer.headers.getlist("Set-Cookie") if "session=" in each)


def test_cookies_are_strict_on_https(tmp_path):
    cookie = _session_cookie(site(tmp_path))
    assert cookie.startswith("__Host-session=") and "Secure" in cookie and "Path=/" in cookie
    cookie = _session_cookie(site(tmp_path, site={"public_url": "http://127.0.0.1:8000"}))
    assert cookie.startswith("session=") and "Secure" not in cookie
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_cookies_follow_the_address_when_the_settings_are_reloaded(tmp_path):
    app = site(tmp_path, site={"public_url": "http://relay.example"})
    (tmp_path / "new").mkdir()
    app.extensions["relay"].settings = site(tmp_path / "new").extensions["relay"].settings
    assert _session_cookie(app).startswith("__Host-session=")


def test_who_signs_in_over_http_where_the_site_has_https_is_told_so(tmp_path):
    app = site(tmp_path)
    said = "this site is served over https"
    form = {"name": "alice", "password": "a long password"}
    for scheme, told in (("http", True), ("https", False)):
        page = app.test_client().post(
            "/login", data=form, base_url=f"{scheme}://relay.example", headers=ENGLISH
        )
        html = page.get_data(as_text=True)
        assert page.status_code == 400
        assert (said in html and '<a href="https://relay.example">' in html) == told


@pytest.mark.parametrize(("hour", "said"), [(10, "peak hours now"), (20, "normal hours now")])
def test_a_models_page_says_which_hours_hold_now(visitor, monkeypatch, hour, said):
    at = datetime(2026, 11, 25, hour, tzinfo=ZoneInfo("Asia/Shanghai"))
    monkeypatch.setattr(billing, "now_ms", lambda: int(at.timestamp() * 1000))
    assert said in text(english(visitor, "/models/peaky-3"))
