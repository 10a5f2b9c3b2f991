"""Teams in the console: made, filled and joined by administrators, seen by who shares the wallet."""

import csv
import io

import pytest

import billing
from billing import nano
from members import teams
from tests.console.member_stage import error_of, house
from tests.console.test_admin import hidden


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice")


@pytest.fixture
def desk(home):
    """carol's browser."""
    return home.browser(home.member("carol", role="admin"))


@pytest.fixture
def ops(home, alice):
    """alice's team, with ¥5."""
    team = teams.add(home.db, "ops")
    billing.credit(home.db, team.id, "wallet", nano("5"))
    teams.join(home.db, team.id, alice.id)
    return team.id


def credit(desk, team_id: int, **fields):
    key = fields.pop("key", None) or hidden(desk.page(f"/admin/teams/{team_id}"), "credit-key")
    given = {"key": key, "kind": "top_up", "amount": "10", "note": "November"} | fields
    return desk.send(
        f"/admin/teams/{team_id}/credit", **{f"credit-{name}": each for name, each in given.items()}
    )


def wallet(home, team_id: int) -> int:
    return billing.balances(home.db, team_id)["balance"].wallet


def test_a_team_is_made_filled_and_joined(home, desk, alice):
    made = desk.send("/admin/teams", name="ops")
    team = teams.named(home.db, "ops")
    assert made.status_code == 303 and made.location.endswith(f"/admin/teams/{team.id}")
    assert credit(desk, team.id).status_code == 303
    joined = desk.send(f"/admin/teams/{team.id}/join", **{"join-name": "ALICE"})
    assert joined.status_code == 303
    assert teams.of(home.db, alice.id).available == nano("10")
    page = desk.read(f"/admin/teams/{team.id}")
    assert "¥10.00" in page and "alice" in page and "November · by carol" in page
    assert "ops" in desk.read("/admin/teams")


@pytest.mark.parametrize("name, says", [("", "Type a name"), ("alice", "called so"), ("OPS", "so")])
def test_a_name_that_cannot_be_is_said_beside_its_field(home, desk, ops, name, says):
    answer = desk.send("/admin/teams", name=name)
    assert says in error_of(answer.get_data(as_text=True), "name")
    assert len(teams.teams(home.db)) == 1


def test_a_credit_that_is_sent_twice_happens_once(home, desk, ops):
    key = hidden(desk.page(f"/admin/teams/{ops}"), "credit-key")
    for _ in range(3):
        assert credit(desk, ops, key=key).status_code == 303
    assert wallet(home, ops) == nano("15")
    credit(desk, ops, key=key, amount="99")
    assert wallet(home, ops) == nano("15")
    assert "Nothing was done now" in desk.read(f"/admin/teams/{ops}")


def test_no_more_is_taken_out_than_is_free(home, desk, alice, ops):
    home.called(alice, home.token(alice), outcome=None)  # it runs, and holds some of it
    answer = credit(desk, ops, kind="adjust", amount="-5")
    assert "are free" in error_of(answer.get_data(as_text=True), "credit-amount")
    assert wallet(home, ops) == nano("5")


def test_nobody_joins_who_is_not_there(home, desk, ops):
    answer = desk.send(f"/admin/teams/{ops}/join", **{"join-name": "mallory"})
    assert "no member" in error_of(answer.get_data(as_text=True), "join-name")
    answer = desk.send(f"/admin/teams/{ops}/join", **{"join-name": "ops"})
    assert "no member" in error_of(answer.get_data(as_text=True), "join-name")


def test_a_members_page_sets_their_team(home, desk, alice, ops):
    assert desk.send(f"/admin/members/{alice.id}/team", **{"team-team": "0"}).status_code == 303
    assert teams.of(home.db, alice.id) is None
    assert desk.send(f"/admin/members/{alice.id}/team", **{"team-team": ops}).status_code == 303
    assert teams.of(home.db, alice.id).id == ops
    answer = desk.send(f"/admin/members/{alice.id}/team", **{"team-team": "99"})
    assert answer.status_code == 200 and teams.of(home.db, alice.id).id == ops


def test_who_is_removed_draws_on_it_no_more(home, desk, alice, ops):
    home.called(alice, home.token(alice))
    assert desk.send(f"/admin/teams/{ops}/leave/{alice.id}").status_code == 303
    assert teams.of(home.db, alice.id) is None
    assert "left" in desk.read(f"/admin/teams/{ops}")  # what was paid for her stays to be seen


def test_a_team_is_closed_after_a_question_and_reopened(home, desk, alice, ops):
    question = desk.read(f"/admin/teams/{ops}/close")
    assert "¥5.00" in question and teams.of(home.db, alice.id)
    for _ in range(2):
        assert desk.send(f"/admin/teams/{ops}/close").status_code == 303
    assert teams.of(home.db, alice.id) is None and "Closed" in desk.read("/admin/teams")
    assert desk.send(f"/admin/teams/{ops}/join", **{"join-name": "alice"}).status_code == 303
    assert teams.of(home.db, alice.id) is None
    for _ in range(2):
        assert desk.send(f"/admin/teams/{ops}/reopen").status_code == 303
    assert not teams.find(home.db, ops).closed


def test_the_statement_says_whose_requests_were_paid(home, desk, alice, ops):
    call = home.called(alice, home.token(alice))
    assert "alice" in desk.read(f"/admin/teams/{ops}/statement?kind=charge")
    file = desk.get(f"/admin/teams/{ops}/statement.csv?kind=charge").get_data().decode("utf-8-sig")
    (line,) = csv.DictReader(io.StringIO(file))
    assert (line["member"], line["request_id"], line["pocket"]) == ("alice", call, "wallet")


def test_the_file_of_usage_has_what_a_team_paid_in_yuan(home, desk, alice, ops):
    for _ in range(3):
        home.called(alice, home.token(alice))
    paid = nano("5") - wallet(home, ops)
    file = desk.get("/admin/usage.csv").get_data().decode("utf-8-sig")
    (line,) = csv.DictReader(io.StringIO(file))
    assert paid and line["team"] == billing.yuan(paid)


def test_members_see_the_wallet_that_they_share_and_what_it_paid(home, alice, ops):
    browser = home.browser(alice)
    call = home.called(alice, home.token(alice))
    for path in ("/console", "/console/wallet"):
        page = browser.read(path)
        assert "Team wallet" in page and "shared in ops" in page and "out of credit" not in page
    assert "Team wallet" in browser.read(f"/console/usage/{call}")
    assert " team" in browser.read("/console/usage")


def test_who_is_in_no_team_reads_of_none(home, alice):
    browser = home.browser(alice)
    call = home.called(alice, home.token(alice))
    for path in ("/console", "/console/wallet", f"/console/usage/{call}"):
        assert "Team" not in browser.read(path)


def test_a_team_is_no_member_on_any_page(home, desk, ops):
    assert desk.get(f"/admin/members/{ops}").status_code == 404
    assert "ops" not in desk.read("/admin/members")
    assert desk.get("/admin/teams/1").status_code == 404  # alice
    assert "Team made" in desk.read("/admin/audit?who=ops")


@pytest.mark.parametrize("path", ["/admin/teams", "/admin/teams/2", "/admin/teams/2/statement.csv"])
def test_members_find_no_teams(home, alice, path):
    teams.add(home.db, "ops")
    assert home.browser(alice).get(path).status_code == 404
