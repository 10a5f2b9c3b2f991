"""A wallet that a team shares: who pays, in which order, and that it never pays more than it has."""

import threading

import pytest

import billing
import plans
from billing import Cap, CapExceeded, NotCovered, Pockets, Price, Usage
from db import IntegrityError
from members import accounts, audit, teams
from tests.money.ledger_book import ALICE, BOB, CAROL, NOW, PRICE, open_book

CALL = Usage(1_000, 0, 500)  # ¥0.006 at PRICE
COST = 6_000_000
TODAY = "2026-11-18"


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    assert book.is_right()
    book.db.close()


@pytest.fixture
def ops(book):
    """A team of alice and bob, with ¥1."""
    team = teams.add(book.db, "ops", by=CAROL)
    billing.credit(book.db, team.id, "wallet", billing.nano("1"), by=CAROL, now=NOW)
    teams.join(book.db, team.id, ALICE)
    teams.join(book.db, team.id, BOB)
    return team.id


def wallet(book, who: int) -> int:
    return book.balance(who).wallet


def test_the_team_pays_after_grant_and_quota_and_before_the_own_wallet(book, ops):
    book.give(ALICE, wallet="1", grant=400)
    charged = book.close(book.hold(ALICE, CALL), CALL)
    assert charged == Pockets(grant=400, quota=0, wallet=0, team=COST - 400 * 2_000)
    assert wallet(book, ops) == billing.nano("1") - charged.team
    assert wallet(book, ALICE) == billing.nano("1")


def test_one_call_is_split_over_all_four_pockets(book, ops):
    book.give(ALICE, wallet="1", grant=1_000)
    plans.give_plan(book.db, ALICE, "pro", quota=1_000_000, days=30, now=NOW)
    billing.credit(book.db, ops, "wallet", -billing.nano("1") + 500_000, "adjust", now=NOW)
    charged = book.close(book.hold(ALICE, CALL), CALL)
    assert charged == Pockets(grant=1_000, quota=1_000_000, team=500_000, wallet=2_500_000)


def test_an_entry_says_who_spent_it(book, ops):
    call = book.hold(BOB, CALL)
    book.close(call, CALL)
    (newest, *_rest) = book.entries(ops)
    assert (newest["member_id"], newest["member"], newest["request_id"]) == (BOB, "bob", call)
    assert newest["amount"] == -COST and newest["balance_after"] == wallet(book, ops)
    assert book.entries(BOB) == []


def test_a_hold_of_one_member_is_gone_for_the_other(book, ops):
    billing.credit(book.db, ops, "wallet", COST - billing.nano("1"), "adjust", now=NOW)
    running = book.hold(ALICE, CALL)
    with pytest.raises(NotCovered) as refused:
        book.hold(BOB, CALL)
    assert refused.value.shares and refused.value.available.team == 0
    book.close(running, None, outcome="failed")
    book.hold(BOB, CALL)


def test_a_call_dearer_than_its_hold_ends_the_team_at_nothing(book, ops):
    billing.credit(book.db, ops, "wallet", COST - billing.nano("1"), "adjust", now=NOW)
    charged = book.close(book.hold(ALICE, CALL), Usage(1_000, 0, 600))
    assert charged == Pockets(0, 0, wallet=800_000, team=COST)
    assert wallet(book, ops) == 0 and wallet(book, ALICE) == -800_000


def test_a_call_that_passes_its_promise_takes_nothing_that_another_is_promised(book, ops):
    """A provider that writes more than it was asked for is the trouble of who called it alone."""
    promised = book.call(ALICE)
    most = billing.hold(book.db, promised, CALL, PRICE, output_max=10**6).output
    charged = book.close(book.hold(BOB, CALL), Usage(1_000, 0, 10**6))
    assert charged.wallet > 0
    assert book.close(promised.id, Usage(1_000, 0, most)).wallet == 0
    assert wallet(book, ops) == 0 == wallet(book, ALICE)


def test_who_owes_something_may_still_spend_what_the_team_has(book, ops):
    billing.credit(book.db, ALICE, "wallet", -5, "adjust", now=NOW)
    assert book.close(book.hold(ALICE, CALL), CALL) == Pockets(0, 0, 0, team=COST)


def test_who_leaves_takes_nothing_along_and_what_runs_is_paid_as_it_began(book, ops):
    running = book.hold(ALICE, CALL)
    assert teams.leave(book.db, ALICE) is True and teams.leave(book.db, ALICE) is False
    with pytest.raises(NotCovered):
        book.hold(ALICE, CALL)
    assert book.close(running, CALL).team == COST
    assert wallet(book, ALICE) == 0


def test_who_changes_teams_draws_on_the_new_one(book, ops):
    web = teams.add(book.db, "web").id
    billing.credit(book.db, web, "wallet", billing.nano("1"), now=NOW)
    running = book.hold(ALICE, CALL)
    teams.join(book.db, web, ALICE)
    book.close(running, CALL)
    book.close(book.hold(ALICE, CALL), CALL)
    assert wallet(book, ops) == wallet(book, web) == billing.nano("1") - COST


def test_what_an_interrupted_call_held_comes_back_to_the_team(book, ops):
    book.hold(ALICE, CALL)
    assert book.held(ops).wallet == COST
    assert billing.release_orphans(book.db, NOW) == 1
    assert book.held(ops).wallet == 0 and wallet(book, ops) == billing.nano("1")


def test_a_free_model_debits_no_team(book, ops):
    free = Price(0, 0, 0)
    assert book.close(book.hold(ALICE, CALL, free), CALL, free) == Pockets(0, 0, 0)


def test_a_members_caps_bind_in_the_team_too(book, ops):
    caps = (Cap("member", 2 * COST - 1, TODAY, "Capped."),)
    billing.hold(book.db, book.call(ALICE), CALL, PRICE, caps=caps)
    with pytest.raises(CapExceeded):
        billing.hold(book.db, book.call(ALICE), CALL, PRICE, caps=caps)
    assert billing.spent(book.db.read(), "member", TODAY, ALICE) == COST
    assert billing.spent(book.db.read(), "site", TODAY) == COST


def test_what_was_spent_of_the_team_counts_against_the_cap_afterwards(book, ops):
    book.close(book.hold(ALICE, CALL), CALL)
    assert billing.spent(book.db.read(), "member", TODAY, ALICE) == COST
    assert billing.spent(book.db.read(), "token", TODAY, ALICE, ALICE) == COST


def test_an_invite_is_not_rewarded_for_money_of_the_team(book, ops):
    book.db.write(
        lambda conn: conn.execute(
            "UPDATE balances SET invite_pending = 1 WHERE user_id = ?", (BOB,)
        )
    )
    book.close(book.hold(BOB, CALL), CALL)
    pending = "SELECT invite_pending FROM balances WHERE user_id = ?"
    assert book.db.one(pending, (BOB,))[0] == 1


def may_write(book, who: int, most: int = 10**6) -> int:
    """How much output a call may come to that likely writes 10 tokens."""
    call = book.call(who)
    return billing.hold(book.db, call, Usage(0, 0, 10), PRICE, output_max=most).output


def test_output_that_the_team_pays_for_is_promised_once(book, ops):
    """¥1 pays for 125,000 tokens of output at ¥8 per million."""
    first = may_write(book, ALICE)
    assert first == 10 + (125_000 - 10) // 4
    assert may_write(book, BOB) == 10 + (125_000 - first - 10) // 4


def test_what_is_the_members_own_is_promised_to_nobody_else(book, ops):
    book.give(BOB, grant=10_000)
    first = may_write(book, ALICE)
    assert may_write(book, BOB) == 10 + (10_000 + 125_000 - first - 10) // 4


def test_a_crowd_that_asks_for_much_leaves_nobody_in_debt(book, ops):
    """Each call costs all that it was promised, and all that is the team's."""
    running = []
    for number in range(60):
        call = book.call((ALICE, BOB)[number % 2])
        try:
            held = billing.hold(book.db, call, CALL, PRICE, output_max=10**6)
        except NotCovered:
            break
        running.append((call.id, held.output))
    assert len(running) > 10
    for call, most in running:
        book.close(call, Usage(1_000, 0, most))
    assert wallet(book, ALICE) == wallet(book, BOB) == 0 <= wallet(book, ops)


def test_nothing_is_taken_out_that_is_promised_to_running_calls(book, ops):
    promised = may_write(book, ALICE) * 8_000
    with pytest.raises(NotCovered):
        billing.credit(book.db, ops, "wallet", promised - billing.nano("1") - 1, "adjust", now=NOW)
    billing.credit(book.db, ops, "wallet", promised - billing.nano("1"), "adjust", now=NOW)


def test_an_invite_is_not_rewarded_for_a_debt(book, ops):
    book.db.write(
        lambda conn: conn.execute(
            "UPDATE balances SET invite_pending = 1 WHERE user_id = ?", (BOB,)
        )
    )
    billing.credit(book.db, ops, "wallet", COST - billing.nano("1"), "adjust", now=NOW)
    assert book.close(book.hold(BOB, CALL), Usage(1_000, 0, 600)).wallet > 0
    pending = "SELECT invite_pending FROM balances WHERE user_id = ?"
    assert book.db.one(pending, (BOB,))[0] == 1


def test_nothing_is_taken_out_that_running_calls_count_on(book, ops):
    book.hold(ALICE, CALL)
    with pytest.raises(NotCovered):
        billing.credit(book.db, ops, "wallet", -billing.nano("1") + COST - 1, "adjust", now=NOW)
    billing.credit(book.db, ops, "wallet", -billing.nano("1") + COST, "adjust", now=NOW)
    assert wallet(book, ops) == COST


def test_a_team_has_no_grant(book, ops):
    with pytest.raises(ValueError, match="no grant"):
        billing.credit(book.db, ops, "grant", 5, now=NOW)


def test_a_crowd_never_spends_a_nano_more_than_the_team_has(book, ops):
    """Fifty callers at once, of whom ten calls' worth is there, and each costs what was held."""
    billing.credit(book.db, ops, "wallet", 10 * COST - billing.nano("1"), "adjust", now=NOW)
    outcomes, start = [], threading.Barrier(50)

    def caller(number: int) -> None:
        start.wait()
        try:
            call = book.hold((ALICE, BOB)[number % 2], CALL)
        except NotCovered:
            outcomes.append("refused")
        else:
            book.close(call, CALL)
            outcomes.append("paid")

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("paid") == 10 and wallet(book, ops) == 0
    assert wallet(book, ALICE) == wallet(book, BOB) == 0


# ---- who is in a team


def test_shares_say_for_whom_the_wallet_paid(book, ops):
    book.close(book.hold(ALICE, CALL), CALL)
    book.close(book.hold(BOB, CALL), CALL)
    book.close(book.hold(BOB, CALL), CALL)
    teams.leave(book.db, BOB)
    found = [
        (each.name, each.inside, each.calls, each.charged)
        for each in teams.shares(book.db, ops, TODAY, TODAY)
    ]
    assert found == [("alice", True, 1, COST), ("bob", False, 2, 2 * COST)]
    later = teams.shares(book.db, ops, "2026-11-19", "2026-11-30")
    assert [(each.name, each.charged) for each in later] == [("alice", 0)]


def test_a_closed_team_pays_nothing_and_keeps_what_it_has(book, ops):
    assert teams.close(book.db, ops, by=CAROL) == 2
    assert teams.of(book.db, ALICE) is None
    with pytest.raises(NotCovered):
        book.hold(ALICE, CALL)
    with pytest.raises(teams.TeamError, match="closed"):
        teams.join(book.db, ops, ALICE)
    with pytest.raises(teams.TeamError):
        teams.close(book.db, ops)
    teams.reopen(book.db, ops)
    teams.join(book.db, ops, ALICE)
    assert teams.find(book.db, ops).available == billing.nano("1")


@pytest.mark.parametrize("name", ["alice", "ALICE", "ops", "Ops"])
def test_a_name_is_one_members_or_one_teams(book, ops, name):
    with pytest.raises(accounts.NameTaken):
        teams.add(book.db, name)


def test_no_member_can_be_called_like_a_team(book, ops):
    with pytest.raises(accounts.NameTaken):
        accounts.add(book.db, "OPS", "a good password")


def test_a_team_is_no_member_and_nobody_signs_in_to_it(book, ops):
    assert accounts.find(book.db, ops) is None and accounts.named(book.db, "ops") is None
    assert ops not in [each.id for each in accounts.members(book.db)]
    assert accounts.authenticate(book.db, "ops", "!") is None
    with pytest.raises(IntegrityError, match="makes no calls"):
        book.db.write(
            lambda conn: conn.execute(
                "INSERT INTO tokens (user_id, name, digest, hint, created_at) VALUES (?, 'x', x'00', '', 0)",
                (ops,),
            )
        )


@pytest.mark.parametrize("who, whom", [(ALICE, BOB), ("ops", "ops"), (ALICE, 99)])
def test_members_share_the_wallet_of_a_team_and_of_nobody_else(book, ops, who, whom):
    values = tuple(ops if each == "ops" else each for each in (whom, who))
    with pytest.raises(IntegrityError):
        book.db.write(
            lambda conn: conn.execute("UPDATE balances SET team_id = ? WHERE user_id = ?", values)
        )
    with pytest.raises((teams.TeamError, billing.Unknown)):
        teams.join(book.db, *values)


def test_what_is_done_to_a_team_is_in_the_trail(book, ops):
    teams.leave(book.db, BOB, by=CAROL)
    teams.close(book.db, ops, by=CAROL)
    teams.reopen(book.db, ops, by=CAROL)
    done = [(each["action"], each["target"]) for each in audit.trail(book.db)]
    assert done == [
        ("team.reopen", "ops"),
        ("team.close", "ops"),
        ("team.leave", "bob"),
        ("team.join", "bob"),
        ("team.join", "alice"),
        ("ledger.top_up", "ops"),
        ("team.add", "ops"),
    ]


# ---- the proof


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE balances SET wallet_held = wallet_held + 1 WHERE user_id = :ops",
        "UPDATE balances SET wallet_balance = wallet_balance + 1 WHERE user_id = :ops",
        "UPDATE balances SET grant_balance = 5 WHERE user_id = :ops",
        "UPDATE requests SET charged_team = charged_wallet, charged_wallet = charged_team",
        "UPDATE daily SET charged_team = charged_team + 1",
        "UPDATE daily_teams SET charged = charged + 1",
        "DELETE FROM daily_teams",
        "UPDATE daily_teams SET calls = calls + 1",
        "UPDATE users SET is_team = 0",
        "UPDATE users SET is_team = 1 WHERE id = 1",
        "UPDATE daily_teams SET user_id = 3 WHERE user_id = 1",
    ],
)
def test_the_proof_finds_what_is_wrong_with_a_team(tmp_path, damage):
    book = open_book(tmp_path)
    team = teams.add(book.db, "ops").id
    billing.credit(book.db, team, "wallet", COST, now=NOW)
    teams.join(book.db, team, ALICE)
    book.give(ALICE, wallet="1")
    book.close(book.hold(ALICE, CALL), Usage(1_000, 0, 600))  # a part of it from her own wallet
    book.hold(ALICE, Usage(10, 0, 10))
    assert book.is_right()
    book.db.write(lambda conn: conn.execute(damage, {"ops": team} if ":ops" in damage else {}))
    assert billing.verify(book.db)
    book.db.close()


def test_the_proof_finds_an_entry_in_the_wrong_name(book, ops):
    book.close(book.hold(ALICE, CALL), CALL)

    _pay_for(book, BOB, instead_of=ALICE)
    assert any("its call says" in each for each in billing.verify(book.db))
    _pay_for(book, ALICE, instead_of=BOB)  # the book is right again


def _pay_for(book, who: int, instead_of: int) -> None:
    """Say of what the team paid that it was somebody else's, and let no law be missing."""
    law = "SELECT sql FROM sqlite_schema WHERE name = 'entries_are_never_changed'"

    def forge(conn) -> None:
        (forbids,) = conn.execute(law).fetchone()
        conn.execute("DROP TRIGGER entries_are_never_changed")
        conn.execute("UPDATE entries SET member_id = ? WHERE member_id = ?", (who, instead_of))
        conn.execute("UPDATE daily_teams SET user_id = ?", (who,))
        conn.execute(forbids)

    book.db.write(forge)
