"""Administration's first page, requests for credit, and members who are stuck."""

import csv
import io
import threading
from datetime import date

import pytest

import billing
from billing import nano
from console.admin import overview
from console.ui import date_range
from db import connect, migrations
from members import budget, caps, credit_requests
from tests.console.member_stage import error_of, house

DAY_MS = 86_400_000
PRICE = 1000 * 2_000 - 200 * 1_500 + 100 * 8_000  # of the usual call of a house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="50")


@pytest.fixture
def bob(home):
    return home.member("bob")


@pytest.fixture
def carol(home):
    return home.member("carol", role="admin")


@pytest.fixture
def desk(home, carol):
    return home.browser(carol)


def wallet(home, who):
    return billing.balances(home.db, who.id)["balance"].wallet


def lines(answer):
    return list(csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"))))


# ---- requests for credit


def test_a_member_asks_and_an_administrator_grants(home, bob, desk):
    browser = home.browser(bob)
    browser.send("/console/credit", amount="12.50", note="for the report")
    assert "You asked for ¥12.50" in browser.read("/console")
    (waiting,) = credit_requests.waiting(home.db)
    seen = desk.read("/admin/")
    assert "Needs somebody" in seen and "for the report" in seen and "bob" in seen
    desk.send(f"/admin/credit-requests/{waiting.id}", amount="10", reason="half for now")
    assert wallet(home, bob) == nano("10")
    assert "carol granted you ¥10.00" in (seen := browser.read("/console/wallet"))
    assert "half for now" in seen
    assert "for the report" not in desk.read("/admin/")
    trail = desk.read("/admin/audit")
    assert "Credit granted" in trail and "¥12.50" in trail
    assert billing.verify(home.db) == []


def test_a_declined_request_moves_no_money_and_says_why(home, bob, desk):
    browser = home.browser(bob)
    browser.send("/console/credit", amount="12.50", note="for the report")
    (waiting,) = credit_requests.waiting(home.db)
    desk.send(f"/admin/credit-requests/{waiting.id}", amount="12.50", decline="1", reason="no")
    assert wallet(home, bob) == 0
    assert "carol declined your request" in browser.read("/console/credit")
    browser.send("/console/credit", amount="1", note="less then")
    assert len(credit_requests.waiting(home.db)) == 1


@pytest.mark.parametrize("amount", ["", "0", "-5", "ten", "1e30"])
@pytest.mark.parametrize("who", ["member", "administrator"])
def test_what_is_no_amount_is_refused(home, bob, desk, amount, who):
    if who == "member":
        home.browser(bob).send("/console/credit", amount=amount, note="x")
        assert credit_requests.newest(home.db, bob.id) is None
    else:
        made = credit_requests.ask(home.db, bob.id, 5, "x")
        desk.send(f"/admin/credit-requests/{made.id}", amount=amount)
        assert credit_requests.newest(home.db, bob.id).decided_at is None
    assert wallet(home, bob) == 0


def test_one_request_waits_at_a_time_and_a_day_has_only_so_many(home, bob, carol):
    browser = home.browser(bob)
    for number in range(credit_requests.OF_DAY_MAX):
        made = credit_requests.ask(home.db, bob.id, 5, f"nr {number}")
        html = browser.send("/console/credit", amount="1", note="again").get_data(as_text=True)
        assert "asked already" in error_of(html, "amount") or "You asked for" in html
        credit_requests.decide(home.db, made.id, 0)
    html = browser.send("/console/credit", amount="1", note="again").get_data(as_text=True)
    assert "often enough" in error_of(html, "amount")


def test_of_two_administrators_who_click_at_once_one_decides(home, bob):
    carol, dora = (home.member(name, role="admin") for name in ("carol", "dora"))
    made = credit_requests.ask(home.db, bob.id, nano("7"), "x")
    desks, answers = [home.browser(carol), home.browser(dora)], []
    path, gate = f"/admin/credit-requests/{made.id}", threading.Barrier(2)
    tokens = [desk.csrf() for desk in desks]

    def click(desk, token):
        gate.wait()
        sent = {"csrf_token": token, "amount": "7"}
        answers.append(desk.client.post(path, data=sent, follow_redirects=True).data.decode())

    threads = [
        threading.Thread(target=click, args=each) for each in zip(desks, tokens, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wallet(home, bob) == nano("7")
    assert len(answers) == 2 and sum("7.00" in answer for answer in answers) >= 1


def test_members_find_no_way_to_decide(home, alice, bob):
    made = credit_requests.ask(home.db, bob.id, 5, "x")
    browser = home.browser(alice)
    assert browser.send(f"/admin/credit-requests/{made.id}", amount="5").status_code == 404
    assert wallet(home, bob) == 0


def test_the_request_of_who_was_disabled_waits_for_nobody(home, bob, desk):
    from members import accounts

    credit_requests.ask(home.db, bob.id, 5, "x")
    accounts.disable(home.db, bob.id)
    assert credit_requests.waiting(home.db) == []


# ---- who is stuck


def test_a_member_whose_newest_call_was_refused_for_money_sees_it_above_everything(home, bob, desk):
    token = home.token(bob)
    said = "The balances do not cover this call: it may need 0.02 yuan."
    home.called(bob, token, outcome="refused", error="insufficient_balance", message=said)
    browser = home.browser(bob)
    html = browser.page("/console")
    assert html.index('id="stuck"') < html.index('class="grid trio"') and said in html
    seen = desk.read("/admin/")
    assert "bob is stuck: 1 requests were refused in 7 days" in seen
    billing.credit(home.db, bob.id, "wallet", nano("5"))
    home.called(bob, token)
    assert 'id="stuck"' not in browser.page("/console")
    assert "stuck" not in desk.read("/admin/")


def test_what_is_used_of_a_cap_is_shown_to_whom_it_binds_and_to_administrators(home, bob, desk):
    browser = home.browser(bob)
    assert "What you may spend" not in browser.read("/console")
    caps.put(home.db, bob.id, caps.Caps(day=nano("0.002"), month=nano("5")))
    billing.credit(home.db, bob.id, "wallet", nano("1"))
    home.called(bob, home.token(bob, cap_month=nano("0.01")))
    for page in (browser.read("/console"), desk.read(f"/admin/members/{bob.id}")):
        assert "¥0.0025 of ¥0.002 today" in page and "¥0.0025 of ¥5.00 this month" in page
    assert "¥0.0025 of ¥0.01 this month" in browser.read("/console/tokens")


def test_a_refusal_for_another_reason_is_not_being_stuck(home, bob, desk):
    home.called(bob, home.token(bob), outcome="refused", error="model_not_allowed")
    assert 'id="stuck"' not in home.browser(bob).page("/console")
    assert "stuck" not in desk.read("/admin/")


def test_the_sentence_that_a_refused_caller_read_stays_with_the_call(home, bob, desk):
    token = home.token(bob)
    said = "This member may spend 5.00 yuan a day."
    call = home.called(bob, token, outcome="refused", error="spending_cap_reached", message=said)
    seen = home.browser(bob).read(f"/console/usage/{call}")
    assert said in seen and "Ask for credit" in seen
    seen = desk.read(f"/admin/calls/{call}")
    assert said in seen and "Ask for credit" not in seen


# ---- the month


def test_the_month_says_who_spent_what_on_which_model(home, alice, bob, desk):
    billing.credit(home.db, bob.id, "wallet", nano("50"))
    mine, his = home.token(alice), home.token(bob)
    home.called(alice, mine)
    home.called(alice, mine, model="other-2")
    home.called(bob, his)
    home.called(bob, his, outcome="failed")
    seen = desk.read("/admin/")
    assert "Who spent what on which model" in seen
    rows = lines(desk.get("/admin/overview.csv"))
    assert rows[0][:3] == ["member", "model", "calls"]
    assert [row[:3] for row in rows[1:]] == [
        ["alice", "other-2", "1"],
        ["alice", "plain-1", "1"],
        ["bob", "plain-1", "2"],
    ]
    html = desk.page("/admin/")
    assert "/admin/calls?member=alice&amp;model=plain-1" in html
    assert "75% of the newest 4 served well" in seen


@pytest.mark.parametrize("by", ["model", "member", "token", "nonsense"])
@pytest.mark.parametrize("measure", ["cost", "llm", "calls", "nonsense"])
def test_the_chart_is_grouped_and_measured_as_the_address_says(home, alice, desk, by, measure):
    home.called(alice, home.token(alice, "laptop"))
    seen = desk.page(f"/admin/?by={by}&measure={measure}")
    named = {"member": "alice", "token": "laptop #"}.get(by, "plain-1")
    assert named in seen


def test_a_page_of_another_span_leads_to_its_calls_and_its_file(home, alice, desk):
    last = date_range_of_last_month(home)
    html = desk.page(f"/admin/?from={last[0]}&to={last[1]}")
    assert f"/admin/overview.csv?from={last[0]}&amp;to={last[1]}" in html


def date_range_of_last_month(home):
    with home.app.test_request_context():
        span = date_range.month(1)
    return span.first, span.last


def test_months_begin_with_their_first_day_and_end_with_their_last(home, monkeypatch):
    monkeypatch.setattr(date_range, "today", lambda: date(2027, 3, 31))
    assert date_range.month() == date_range.Span(date(2027, 3, 1), date(2027, 3, 31))
    assert date_range.month(1) == date_range.Span(date(2027, 2, 1), date(2027, 2, 28))
    assert date_range.month(3) == date_range.Span(date(2026, 12, 1), date(2026, 12, 31))
    assert date_range.month_end(date(2028, 2, 1)) == date(2028, 2, 29)
    assert date_range.month_end(date(2026, 12, 31)) == date(2026, 12, 31)


def spent_on_each_of(home, who, days, today):
    token = home.token(who)
    for back in range(1, days + 1):
        home.called(who, token, at=billing.now_ms() - back * DAY_MS)
    return (date_range.month_end(today) - today).days


def test_the_forecast_goes_by_the_last_days(home, alice):
    with home.app.test_request_context():
        today = date_range.today()
        assert budget.forecast(home.db, today, 0) is None
        left = spent_on_each_of(home, alice, 14, today)
        found = budget.forecast(home.db, today, 5)
        assert (found.likely, found.least, found.most) == (5 + left * PRICE,) * 3
        for _ in range(14):
            home.called(alice, home.token(alice), at=billing.now_ms() - DAY_MS)
        found = budget.forecast(home.db, today, 5)
        assert found.likely == 5 + left * 2 * PRICE
        assert left == 0 or found.least < found.likely < found.most


def test_the_forecast_of_a_young_house_does_not_count_days_before_it(home, alice):
    with home.app.test_request_context():
        today = date_range.today()
        left = spent_on_each_of(home, alice, 3, today)
        assert budget.forecast(home.db, today, 0).likely == left * PRICE


def test_the_forecast_against_a_limit_counts_money_and_says_when_it_is_reached(home):
    """Gifts count against no limit, so they are in no forecast of it."""
    gifted = home.member("gina", grant=10**9)
    payer = home.member("paul", wallet="50")
    with home.app.test_request_context():
        real = date_range.today()
        spent_on_each_of(home, gifted, 3, real)
        spent_on_each_of(home, payer, 3, real)
        found = budget.forecast(home.db, real, 0, 10**18, "paid")
        assert found.likely == (date_range.month_end(real) - real).days * PRICE
        assert found.reached is None
        assert budget.forecast(home.db, real, PRICE, PRICE, "paid").reached == real


def test_the_limit_of_the_site_is_shown_with_what_is_paid_in_money(tmp_path):
    home = house(tmp_path, site={"cap_month": "80"})
    alice = home.member("alice", wallet="50")
    home.called(alice, home.token(alice))
    desk = home.browser(home.member("carol", role="admin"))
    seen = desk.read("/admin/")
    assert "This month's limit: ¥80.00" in seen and "¥0.0025 of ¥80.00" in seen
    home.db.close()


def test_many_models_and_members_are_summed_up():
    cells = [
        (f"m{n:02}", f"model-{k}", 1, 0, 0, (n + 1) * (k + 1), 0)
        for n in range(overview.MEMBERS_SHOWN + 2)
        for k in range(overview.MODELS_SHOWN + 2)
    ]
    found = overview.matrix(cells)
    assert found.models[-1] is None and found.others == 2
    assert len(found.rows) == overview.MEMBERS_SHOWN
    assert all(sum(cells) == total for _name, cells, total in found.rows)
    assert sum(found.sums) == sum(cell[5] for cell in cells)


# ---- a request's id


def test_a_request_id_leads_to_its_call_and_only_to_ones_own(home, alice, bob, desk):
    call = home.called(alice, home.token(alice))
    mine, his = home.browser(alice), home.browser(bob)
    assert mine.get(f"/console/usage/find?id=+{call}+").location.endswith(f"/console/usage/{call}")
    assert his.get(f"/console/usage/find?id={call}").location.endswith("/console/usage")
    assert "None of your requests has the id" in his.read("/console/usage")
    assert desk.get(f"/admin/calls/find?id={call}").location.endswith(f"/admin/calls/{call}")
    assert desk.get("/admin/calls/find?id=req_x").location.endswith("/admin/calls")


def test_a_request_for_credit_forges_no_line_of_the_log(home, bob):
    made = credit_requests.ask(home.db, bob.id, 5, "please\n2026-11-27 ERROR all is lost")
    assert "\n" not in made.note


# ---- by upstream, and how soon answers begin


def drawn_by_upstream(conn) -> dict[str, tuple[int, int]]:
    rows = conn.execute("SELECT upstream, sum(calls), sum(cost) FROM daily_upstreams GROUP BY 1")
    return {name: (calls, cost) for name, calls, cost in rows}


def test_the_chart_by_upstream_holds_all_that_was_answered(home, alice, desk):
    token = home.token(alice)
    for number, upstream in enumerate(["north", "north", "south"]):
        home.called(alice, token, upstream=upstream, at=billing.now_ms() - number * DAY_MS)
    home.called(alice, token, outcome="refused", error="insufficient_balance")
    for measure, written in {"cost": "¥0.005", "calls": "2", "llm": "2,200"}.items():
        page = desk.read(f"/admin/?by=upstream&measure={measure}&from=2026-01-01")
        assert "north" in page and "south" in page and written in page


def test_a_house_of_before_knows_what_its_upstreams_served_as_far_as_calls_are_kept(home, alice):
    token = home.token(alice)
    for upstream in ("north", "north", "south"):
        home.called(alice, token, upstream=upstream)
    conn = connect(home.db.path)
    rolled_up = drawn_by_upstream(conn)
    conn.execute("DROP TRIGGER a_call_that_ends_is_its_upstreams")
    conn.execute("DROP TABLE daily_upstreams")
    migrations.upstreams(conn)
    assert drawn_by_upstream(conn) == rolled_up == {"north": (2, 2 * PRICE), "south": (1, PRICE)}


def test_the_chart_of_first_bytes_shows_each_days_median(home, alice, desk):
    token, now = home.token(alice), billing.now_ms()
    for took in (100, 300, 900):
        home.called(alice, token, upstream="north", at=now, first_byte_ms=took)
    home.called(alice, token, upstream="south", at=now - 2 * DAY_MS, first_byte_ms=50)
    for group, name in {"upstream": "north", "model": "plain-1", "member": "alice"}.items():
        page = desk.read(f"/admin/?by={group}&measure=first_byte")
        assert name in page and "The median of each day" in page
    assert "300 ms" in desk.read("/admin/?by=upstream&measure=first_byte")
    assert desk.get("/admin/?by=upstream&measure=first_byte&from=2020-01-01").status_code == 200
