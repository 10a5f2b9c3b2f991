"""Usage.

Lists, filters, charts and files of calls, each call's price explained, and lists that never grow
slow.
"""

import csv
import functools
import io
import operator
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import billing
from billing import COUNTS, KINDS, Pockets, Price, Usage, split
from console.member import usage
from console.ui import date_range
from db import keyset
from members import call_rows
from tests.console.member_stage import house

DAY_MS = 86_400_000


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="50")


@pytest.fixture
def browser(home, alice):
    return home.browser(alice)


def calls(html: str) -> list[str]:
    """The calls of a page, in its order."""
    return re.findall(r'<a href="/console/usage/(req_\w+)" class="num"', html)


def ago(days: float) -> int:
    return billing.now_ms() - round(days * DAY_MS)


# The page


def test_the_page_lists_the_calls_of_thirty_days_newest_first(home, alice, browser):
    token = home.token(alice)
    made = [home.called(alice, token, at=ago(days)) for days in (40, 20, 10, 1)]
    assert calls(browser.page("/console/usage")) == made[:0:-1]


def test_it_sums_up_the_same_days(home, alice, browser):
    token = home.token(alice)
    for days in (40, 20, 10):
        home.called(alice, token, at=ago(days), usage=(1000, 200, 100))
    home.called(alice, token, outcome="refused", error="insufficient_balance")
    page = browser.read("/console/usage")
    assert (
        "Requests 3 1 refused" in page
        and "Input tokens 2,000 400 cached" in page
        and "Output tokens 200" in page
    )
    assert "Cost ¥0.005" in page


def test_what_is_asked_for_by_token_model_outcome_and_days_is_what_is_shown(home, alice, browser):
    one, two = home.token(alice, "one"), home.token(alice, "two")
    a = home.called(alice, one, at=ago(3))
    b = home.called(alice, two, at=ago(2), model="other-2")
    c = home.called(alice, one, at=ago(1), outcome="failed", error="upstream_error")
    d = home.called(alice, one, outcome=None)
    today = spans_today(home)
    for query, shown in (
        (f"token={one}", [d, c, a]),
        (f"token={two}", [b]),
        ("model=other-2", [b]),
        ("model=plain-1", [d, c, a]),
        ("outcome=failed", [c]),
        ("outcome=open", [d]),
        ("outcome=complete", [b, a]),
        ("model=unheard-of", []),
        (f"token={two}&model=plain-1", []),
        (f"from={today}", [d]),
        ("outcome=nonsense", [d, c, b, a]),
    ):
        assert calls(browser.page(f"/console/usage?{query}")) == shown, query


def spans_today(home) -> str:
    with home.app.test_request_context():
        return str(date_range.today())


@pytest.mark.parametrize(
    "query, says",
    [
        ("from=yesterday", "Not a date"),
        ("to=2026-13-45", "Not a date"),
        ("from=0001-01-01", "Not a date"),
        ("from=9999-12-31", "Not a date"),
        ("from=2026-05-02&to=2026-05-01", "after the end"),
        ("from=2001-01-01&to=2010-01-01", "At most 366 days"),
    ],
)
def test_days_that_cannot_be_are_named_and_kept(browser, query, says):
    html = browser.page(f"/console/usage?{query}")
    assert says in html
    assert all(f'value="{typed}"' in html for typed in re.findall(r"=([^&]+)", query))


@pytest.mark.parametrize(
    "query",
    [
        "before=%00",
        "after=%27",
        "before=zzz&after=zzz",
        "token=99999999999999999999",
        "token=abc",
        "model=" + "x" * 5000,
        "measure=x",
        "from=%ff&to=%ff",
    ],
)
def test_nonsense_in_the_address_breaks_nothing(browser, query):
    assert browser.get(f"/console/usage?{query}").status_code in (200, 404)


def test_a_long_list_pages_both_ways_without_gaps(home, alice, browser):
    token = home.token(alice)
    made = [home.called(alice, token, at=ago(5) + n * 1000, usage=(10, 0, 1)) for n in range(70)][
        ::-1
    ]
    pages, path = [], "/console/usage"
    while path:
        html = browser.page(path)
        pages.append(calls(html))
        found = re.search(r'rel="next" href="([^"]+)"', html)
        path = found and found[1].replace("&amp;", "&")
    assert [len(page) for page in pages] == [30, 30, 10]
    assert functools.reduce(operator.iadd, pages, []) == made
    back = re.search(r'rel="prev" href="([^"]+)"', html)[1].replace("&amp;", "&")
    assert calls(browser.page(back)) == pages[1]


def test_the_page_says_how_to_begin_when_there_is_nothing(browser):
    page = browser.read("/console/usage")
    assert "No requests in these days" in page and "Open the model test" in page


def test_the_charts_stay_when_old_calls_are_forgotten(home, alice, browser):
    token = home.token(alice)
    home.called(alice, token, at=ago(20))
    before = browser.page("/console/usage")
    balance = billing.balances(home.db, alice.id)
    assert call_rows.forget(home.db, 10) == 1
    after = browser.page("/console/usage")
    assert calls(before) and not calls(after)
    bars = re.compile(r'<rect class="bar.*?</rect>')
    assert bars.findall(before) == bars.findall(after) != []
    assert billing.balances(home.db, alice.id) == balance and billing.verify(home.db) == []


@pytest.mark.parametrize("measure, says", [("cost", "¥0.0005"), ("llm", "300"), ("calls", "1")])
def test_the_chart_stacks_days_by_model_and_puts_many_together(home, alice, measure, says):
    rows = [
        {
            "day": "2026-01-02",
            "model": f"m{n}",
            "calls": 1,
            "refused": 0,
            "input_tokens": 100 * n,
            "cached_tokens": 0,
            "output_tokens": 0,
            "cost": n * 100_000,
            "grant": 0,
            "quota": 0,
            "wallet": 0,
            "team": 0,
        }
        for n in range(1, 8)
    ]
    with home.app.test_request_context(headers={"Accept-Language": "en"}):
        span = date_range.Span(date_range.date(2026, 1, 1), date_range.date(2026, 1, 3))
        drawn = usage.chart(rows, span, measure, usage.sums_by(rows, "model"))
    assert len(drawn.series) == 6 and drawn.series[-1] == "others"
    assert [name for name, _ in drawn.rows] == ["01-01", "01-02", "01-03"]
    assert says in drawn.rows[1][1]


def test_a_year_is_drawn_by_month(home):
    with home.app.test_request_context():
        points = date_range.Span(
            date_range.date(2026, 1, 1), date_range.date(2026, 12, 31)
        ).points()
    assert (
        next(iter(points)) == "2026-01"
        and len(points) == 12
        and sum(map(len, points.values())) == 365
    )


# One call


def test_a_calls_page_explains_its_price_line_by_line(home, browser, alice):
    billing.credit(home.db, alice.id, "grant", 900, "reward")
    call = home.called(alice, home.token(alice), usage=(1000, 200, 100))
    page = browser.read(f"/console/usage/{call}")
    assert "Input, not cached 800 800 0 ¥2 ¥0.00" in page
    assert "Input, cached 200 100 100 ¥0.5 ¥0.00005" in page
    assert "Output 100 0 100 ¥8 ¥0.0008" in page
    assert "Sum 1,100 900 200 ¥0.00085" in page
    assert "Token balance 900 tokens" in page and "Wallet ¥0.00085" in page
    assert "would have cost ¥0.0025" in page and "counted by the provider" in page


@pytest.mark.parametrize(
    "outcome, error, says",
    [
        ("refused", "insufficient_balance", "The balances do not cover this request."),
        ("failed", "upstream_timeout", "did not answer in time"),
        ("interrupted", None, "weren't charged"),
        ("client_left", None, "disconnected before the end"),
        ("upstream_cut", "upstream_error", "You paid for what had arrived"),
        (None, None, "is on hold"),
    ],
)
def test_a_call_that_did_not_end_well_says_why_and_what_it_cost(
    home, alice, browser, outcome, error, says
):
    facts = {"error": error} if error else {}
    call = home.called(alice, home.token(alice), outcome=outcome, **facts)
    assert says in browser.read(f"/console/usage/{call}")


def test_counts_that_were_not_believed_are_explained(home, alice, browser):
    call = home.called(
        alice,
        home.token(alice),
        usage_note="output_tokens clamped, something new",
        usage_source="estimated",
    )
    page = browser.read(f"/console/usage/{call}")
    assert (
        "it was cut to the limit" in page and "something new" in page and "estimated by us" in page
    )


def test_members_see_attempts_without_the_providers_names(home, alice):
    attempts = [
        {
            "upstream": "secret-provider",
            "model": "m",
            "status": 503,
            "ms": 340,
            "error": "upstream_overloaded",
        },
        {"upstream": "other-provider", "model": "m", "status": 200, "ms": 900},
    ]
    call = home.called(alice, home.token(alice), attempts=attempts)
    page = home.browser(alice).read(f"/console/usage/{call}")
    assert (
        "upstream_overloaded (503), 340 ms" in page
        and "provider," not in page
        and "secret-provider" not in page
    )


@given(
    st.tuples(*[st.integers(0, 9000)] * 7),
    st.integers(0, 60_000),
    st.tuples(*[st.integers(0, 99_999)] * 7),
)
def test_the_lines_sum_up_to_what_quota_and_wallet_paid(counts, grant, prices):
    plain, cached, output, reads, write, write_1h, searches = counts
    total = plain + cached + reads + write + write_1h
    used = Usage(total, cached + reads, output, reads, write, write_1h, searches)
    price = Price(**dict(zip(KINDS, prices, strict=True)))
    paid = split(used, price, Pockets(grant, 0, 0))
    row = dict(zip(COUNTS, used.counts(), strict=True)) | {"charged_grant": paid.grant}
    row |= {f"price_{kind}": each for kind, each in price.by_kind().items()}
    lines = usage.price_lines(row)
    assert sum(line.cost for line in lines) == paid.quota + paid.wallet
    assert sum(line.by_grant for line in lines) == paid.grant


def test_searches_are_no_llm_tokens_in_the_sum_of_a_call(home, alice, browser):
    call = home.called(alice, home.token(alice), usage=(1000, 200, 100, 0, 0, 0, 7))
    page = browser.read(f"/console/usage/{call}")
    assert "Searches 7" in page and "Sum 1,100" in page


# Files


def test_the_file_has_what_the_filters_show_exactly(home, alice, browser):
    token = home.token(alice, "=cmd|' /C calc'!A0")
    home.called(alice, token, at=ago(2), usage=(1001, 200, 1))
    home.called(alice, token, at=ago(1), outcome="failed", error="upstream_error")
    answer = browser.get(f"/console/usage/calls.csv?token={token}&outcome=complete")
    head, *rows = csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig")))
    (row,) = (dict(zip(head, each, strict=True)) for each in rows)
    assert row["token"] == "'=cmd|' /C calc'!A0"
    assert (row["input_tokens"], row["cost"], row["charged_wallet"]) == (
        "1001",
        "0.001710000",
        "0.001710000",
    )
    assert (row["price_input"], row["outcome"], row["first_byte_ms"]) == (
        "0.000002000",
        "complete",
        "340",
    )
    assert row["created_at"].endswith("+08:00")  # Asia/Shanghai, the site's


def test_a_file_goes_on_where_a_page_would_end(home, alice, browser, monkeypatch):
    monkeypatch.setattr("console.ui.csv.BATCH", 7)
    monkeypatch.setattr(keyset, "REACH", 10)
    token = home.token(alice)
    for n in range(45):
        home.called(
            alice,
            token,
            at=ago(5) + n * 1000,
            usage=(10, 0, 1),
            outcome="failed" if n % 9 else "complete",
        )
    lines = (
        browser.get("/console/usage/calls.csv?outcome=complete").get_data(as_text=True).splitlines()
    )
    assert len(lines) == 1 + 5


# Lists that never grow slow

TOTAL = 60


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A list of numbers in which every seventh is odd in kind."""
    from db import Database

    db = Database.open_for_command(tmp_path_factory.mktemp("keyset") / "numbers.db")
    db.write(lambda conn: conn.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, kind TEXT)"))
    db.write(
        lambda conn: conn.executemany(
            "INSERT INTO numbers VALUES (?, ?)",
            [(n, "rare" if n % 7 == 0 else "usual") for n in range(TOTAL)],
        )
    )
    yield db.read()
    db.close()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 20),
    reach=st.integers(1, 70),
    kind=st.sampled_from(["rare", "usual", None, "none"]),
    low=st.none() | st.integers(0, 59),
    high=st.none() | st.integers(0, 70),
)
def test_walking_a_list_by_its_pages_meets_every_row_once_and_the_way_back_too(
    numbers, size, reach, kind, low, high
):
    keyset.REACH, before = reach, keyset.REACH
    try:
        listed = keyset.List(
            "numbers", "kind", "id", "1", "kind = :kind" if kind else "", {"kind": kind}, low, high
        )
        wanted = [
            n
            for n in reversed(range(TOTAL))
            if (kind is None or (n % 7 == 0) == (kind == "rare"))
            and kind != "none"
            and (low is None or n >= low)
            and (high is None or n < high)
        ]
        pages = [listed.page(numbers, size=size)]
        while pages[-1].older is not None:
            pages.append(listed.page(numbers, before=pages[-1].older, size=size))
            assert len(pages) < 200
        seen = [row["key"] for page in pages for row in page.rows]
        assert max(len(page.rows) for page in pages) <= size
        assert (
            seen == wanted == [row["key"] for batch in listed.all(numbers, size) for row in batch]
        )
        page = next((page for page in reversed(pages) if page.rows), pages[0])
        back = [row["key"] for row in page.rows]
        while page.newer is not None:
            page = listed.page(numbers, after=page.newer, size=size)
            back = [row["key"] for row in page.rows if row["key"] not in back] + back
        assert back == wanted if reach > TOTAL or not kind else set(back) <= set(wanted)
        assert wanted[:1] == back[:1] or pages[0].cut
    finally:
        keyset.REACH = before


def test_the_queries_of_lists_and_charts_find_their_rows_by_an_index(
    home, alice, browser, monkeypatch
):
    """No page reads a whole table, counts it, skips rows, or sorts calls or entries."""
    asked = []
    home.db.read().set_trace_callback(asked.append)
    for path in (
        "/console",
        "/console/usage",
        "/console/usage?outcome=failed&model=plain-1&before=req_z",
        "/console/usage?after=req_0",
        "/console/usage?outcome=open",
        "/console/wallet/statement?kind=redeem",
        "/console/wallet/statement",
        "/console/wallet",
        "/console/invites",
        "/console/test",
    ):
        browser.page(path)
    home.db.read().set_trace_callback(None)
    assert len(asked) > 30
    for sql in asked:
        assert "OFFSET" not in sql.upper()
        plan = [row["detail"] for row in home.db.read().execute("EXPLAIN QUERY PLAN " + sql)]
        assert not [
            step
            for step in plan
            if re.match(r"SCAN (requests|entries|daily|users|tokens|invites|codes)", step)
        ], (sql, plan)
        if (
            re.search(r"FROM (requests|entries) .*ORDER BY", sql, re.S)
            and "requests_open" not in sql
        ):
            assert not [step for step in plan if "TEMP B-TREE" in step], (sql, plan)
