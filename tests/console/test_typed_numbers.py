"""Numbers as people type them on pages: with groups of thousands, and never guessed at."""

import pytest

from billing import nano
from console.ui.forms import typed_number
from members import credit_requests
from tests.console.member_stage import error_of, house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.mark.parametrize(
    "typed, number",
    [
        ("1000.5", "1000.5"),
        ("1,000.5", "1000.5"),
        ("1 000.5", "1000.5"),
        ("1\u00a0000", "1000"),
        ("-12,345,678", "-12345678"),
        (" 7 ", "7"),
    ],
)
def test_groups_of_thousands_are_read(typed, number):
    assert typed_number(typed) == number


@pytest.mark.parametrize(
    "typed", ["1,5", "1 5", "0,500", "1,0000", "10,00", "1,000,5", "1,000 000", ",5", "1.5,000"]
)
def test_a_comma_or_a_blank_elsewhere_is_no_number(typed):
    with pytest.raises(ValueError):
        typed_number(typed)


def test_a_decimal_comma_decides_no_request_for_credit(home):
    alice, desk = home.member("alice"), home.browser(home.member("carol", role="admin"))
    made = credit_requests.ask(home.db, alice.id, nano("5"), "please")
    desk.send(f"/admin/credit-requests/{made.id}", amount="1,5")
    assert credit_requests.find(home.db, made.id).decided_at is None
    desk.send(f"/admin/credit-requests/{made.id}", amount="1,000.50")
    assert credit_requests.find(home.db, made.id).given == nano("1000.50")


def test_a_decimal_comma_makes_no_codes(home):
    desk = home.browser(home.member("carol", role="admin"))
    answer = desk.send("/admin/codes/new", kind="wallet", amount="1,5", count="2")
    assert "An amount such as" in error_of(answer.get_data(as_text=True), "amount")
    assert home.db.one("SELECT count(*) FROM codes")[0] == 0


def test_the_calculator_takes_a_decimal_comma_for_a_mistake(home):
    page = home.browser().read("/calculator?input=1,5&wallet=1,5")
    assert "A whole number from 0" in page and "An amount from 0" in page
    page = home.browser().read("/calculator?input=1,500&wallet=1,500.00")
    assert "A whole number from 0" not in page and "An amount from 0" not in page
