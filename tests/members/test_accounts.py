"""Members: names, passwords, roles, invites, the first administrator, and the audit trail."""

import threading

import pytest

import billing
from billing import Usage
from members import accounts, audit
from tests.money.ledger_book import ALICE, BOB, CAROL, open_book
from tests.money.test_billing import at_once

PASSWORD = "a long enough password"


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


@pytest.fixture
def quick(monkeypatch):
    """Passwords that cost nothing to hash, for tests that are not about them."""
    monkeypatch.setattr(accounts, "generate_password_hash", lambda password: f"plain:{password}")


def test_who_registers_can_sign_in_and_nobody_else(book):
    dora = accounts.add(book.db, "Dora", PASSWORD)
    assert accounts.authenticate(book.db, "dora", PASSWORD) == dora
    assert accounts.authenticate(book.db, " DORA ", PASSWORD) == dora
    for name, password in (
        ("dora", PASSWORD + "x"),
        ("dora", ""),
        ("dorothy", PASSWORD),
        ("\ud800", PASSWORD),
        ("dora", "x" * 10_000),
        ("dora", "\ud800" * 9),
        ("", ""),
    ):
        assert accounts.authenticate(book.db, name, password) is None
    assert accounts.password_is(book.db, dora.id, PASSWORD) and not accounts.password_is(
        book.db, dora.id, "other"
    )


def test_an_unknown_name_costs_as_much_as_a_wrong_password(book, monkeypatch):
    """One comparison each, with a hash of the same strength."""
    accounts.add(book.db, "dora", PASSWORD)
    compared, compare = [], accounts.check_password_hash

    def noted(hashed, password):
        compared.append((hashed.split("$")[0], password, len(hashed.split("$")[2])))
        return compare(hashed, password)

    monkeypatch.setattr(accounts, "check_password_hash", noted)
    for name in ("dora", "nobody"):
        assert accounts.authenticate(book.db, name, "wrong password") is None
    known, unknown = compared
    assert known == unknown and known[0].startswith("scrypt:")


def test_no_more_than_two_passwords_are_hashed_at_a_time(book, monkeypatch):
    lock, running, most = threading.Lock(), [0], [0]

    def slow(password):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.01)
        with lock:
            running[0] -= 1
        return password

    monkeypatch.setattr(accounts, "generate_password_hash", slow)
    at_once(10, lambda: accounts.hash_password(PASSWORD))
    assert most[0] == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "x" * 65,
        "a\nb",
        "a\x00b",
        "a\u202eb",
        "a\u200bb",
        "a\tb",
        "a\u00a0b",
        "\ud800",
        "a\u2028b",
        "a\u034fb",
        "a\u3164",
        "a\ufe0f",
        "a\u2800",
        "\u0301",
    ],
)
def test_names_are_visible_and_short(book, name):
    with pytest.raises(accounts.BadName):
        accounts.add(book.db, name, PASSWORD)


@pytest.mark.parametrize(
    "first, second",
    [
        ("Dora", "dORA"),
        ("Zoë", "Zoe\u0308"),
        ("straße", "STRASSE"),
        ("Dora", "Ｄｏｒａ"),
        ("李雷", " 李雷 "),
    ],
)
def test_names_that_look_alike_are_one(book, quick, first, second):
    accounts.add(book.db, first, PASSWORD)
    with pytest.raises(accounts.NameTaken):
        accounts.add(book.db, second, PASSWORD)
    assert accounts.named(book.db, second) == accounts.named(book.db, first)


def test_of_many_who_take_a_name_at_once_one_has_it(book, quick):
    results = at_once(10, lambda: accounts.add(book.db, "dora", PASSWORD, signup_reward=5))
    assert sum(isinstance(result, accounts.Member) for result in results) == 1
    assert sum(isinstance(result, accounts.NameTaken) for result in results) == 9
    assert book.is_right()


@pytest.mark.parametrize("password", ["", "1234567", "x" * 129, "\ud800" * 10])
def test_passwords_have_8_to_128_characters(book, password):
    with pytest.raises(accounts.BadPassword):
        accounts.add(book.db, "dora", password)
    assert accounts.named(book.db, "dora") is None


def test_a_sign_up_is_rewarded_in_the_grant(book, quick):
    dora = accounts.add(book.db, "dora", PASSWORD, signup_reward=100_000)
    assert book.balance(dora.id).grant == 100_000 and book.is_right()


# ---- invites


def invite(book, **rewards):
    code = accounts.find(book.db, ALICE).invite_code
    assert accounts.inviter(book.db, code).name == "alice"
    dora = accounts.add(book.db, "dora", PASSWORD, invite=code, **rewards)
    book.db.write(
        lambda conn: conn.execute(
            "INSERT INTO tokens (id, user_id, name, digest, hint, created_at) VALUES (?1, ?1, 'test', x'00', '', 0)",
            (dora.id,),
        )
    )
    return dora


def test_who_invited_is_rewarded_once_after_the_first_charged_call(book, quick):
    dora = invite(book, invite_reward=500)
    book.give(dora.id, wallet="1")
    assert accounts.invited(book.db, ALICE)[0]["rewarded_at"] is None
    book.close(book.hold(dora.id, Usage(5, 0, 5)), None, outcome="failed")
    assert book.balance(ALICE).grant == 0
    for _ in range(3):
        book.close(book.hold(dora.id, Usage(5, 0, 5)), Usage(5, 0, 5))
    assert book.balance(ALICE).grant == 500
    (found,) = accounts.invited(book.db, ALICE)
    assert found["name"] == "dora" and found["reward"] == 500 and found["rewarded_at"]
    assert book.is_right()


def test_many_first_calls_at_once_reward_once(book, quick):
    dora = invite(book, invite_reward=500)
    book.give(dora.id, wallet="1")
    calls = [book.hold(dora.id, Usage(5, 0, 5)) for _ in range(20)]
    at_once(20, lambda: book.close(calls.pop(), Usage(5, 0, 5)))
    assert book.balance(ALICE).grant == 500 and book.is_right()


def test_an_invite_of_nobody_or_of_a_disabled_member_is_refused(book, quick):
    with pytest.raises(accounts.BadInvite):
        accounts.add(book.db, "dora", PASSWORD, invite="none")
    accounts.disable(book.db, ALICE)
    with pytest.raises(accounts.BadInvite):
        accounts.add(book.db, "dora", PASSWORD, invite="invite-alice")
    assert (
        accounts.named(book.db, "dora") is None
        and accounts.inviter(book.db, "invite-alice") is None
    )


# ---- changes


def test_a_disabled_member_cannot_sign_in_until_enabled(book):
    dora = accounts.add(book.db, "dora", PASSWORD)
    accounts.disable(book.db, dora.id, by=CAROL)
    assert accounts.authenticate(book.db, "dora", PASSWORD) is None
    assert accounts.find(book.db, dora.id).session_epoch != dora.session_epoch
    accounts.enable(book.db, dora.id, by=CAROL)
    assert accounts.authenticate(book.db, "dora", PASSWORD).id == dora.id


def test_a_new_password_and_signing_out_everywhere_end_all_sessions(book, quick):
    epochs = [accounts.find(book.db, ALICE).session_epoch]
    accounts.set_password(book.db, ALICE, PASSWORD, by=ALICE)
    epochs.append(accounts.find(book.db, ALICE).session_epoch)
    accounts.end_sessions(book.db, ALICE)
    epochs.append(accounts.find(book.db, ALICE).session_epoch)
    assert len(set(epochs)) == 3


def test_the_last_administrator_stays(book):
    for change in (
        lambda: accounts.disable(book.db, CAROL),
        lambda: accounts.set_role(book.db, CAROL, "member"),
    ):
        with pytest.raises(accounts.LastAdministrator):
            change()
    accounts.set_role(book.db, BOB, "admin", by=CAROL)
    accounts.disable(book.db, CAROL, by=BOB)
    with pytest.raises(accounts.LastAdministrator):
        accounts.set_role(book.db, BOB, "member")
    assert accounts.find(book.db, BOB).admin and accounts.find(book.db, CAROL).disabled


def test_two_administrators_who_demote_each_other_at_once_leave_one(book):
    for _ in range(20):
        accounts.set_role(book.db, BOB, "admin")
        accounts.set_role(book.db, CAROL, "admin")
        victims = [BOB, CAROL]
        at_once(2, lambda victims=victims: accounts.set_role(book.db, victims.pop(), "member"))
        assert sum(member.admin for member in accounts.members(book.db)) == 1


def test_changes_of_nobody_are_refused(book):
    for change in (
        lambda: accounts.disable(book.db, 99),
        lambda: accounts.set_role(book.db, 99, "admin"),
        lambda: accounts.set_language(book.db, 99, "en"),
    ):
        with pytest.raises(billing.Unknown):
            change()
    with pytest.raises(accounts.AccountError):
        accounts.set_role(book.db, ALICE, "emperor")


def test_members_are_found_by_the_beginning_of_their_names(book):
    assert [member.name for member in accounts.members(book.db)] == ["alice", "bob", "carol"]
    assert [member.name for member in accounts.members(book.db, "AL")] == ["alice"]
    assert [member.name for member in accounts.members(book.db, after=ALICE, limit=1)] == ["bob"]
    assert accounts.members(book.db, "%") == []
    accounts.set_language(book.db, ALICE, "en")
    assert accounts.find(book.db, ALICE).language == "en" and accounts.find(book.db, 99) is None


# ---- the first administrator


@pytest.fixture
def empty(book):
    """A file in which nobody administrates yet."""
    book.db.write(lambda conn: conn.execute("UPDATE users SET role = 'member'"))
    return book


def test_the_set_up_key_makes_one_administrator(empty, quick):
    key = accounts.setup_key(empty.db)
    assert accounts.setup_key_is(empty.db, key) and not accounts.setup_key_is(empty.db, "\ud800")
    with pytest.raises(accounts.BadInvite):
        accounts.set_up(empty.db, key + "x", "dora", PASSWORD)
    results = at_once(
        5, lambda: accounts.set_up(empty.db, key, f"dora{threading.get_ident()}", PASSWORD)
    )
    assert sum(isinstance(result, accounts.Member) for result in results) == 1
    assert accounts.setup_key(empty.db) is None and not accounts.setup_key_is(empty.db, key)


def test_a_newer_set_up_key_replaces_the_older_and_any_administrator_both(empty, quick):
    older, newer = accounts.setup_key(empty.db), accounts.setup_key(empty.db)
    assert not accounts.setup_key_is(empty.db, older) and accounts.setup_key_is(empty.db, newer)
    accounts.add(empty.db, "dora", PASSWORD, role="admin")
    with pytest.raises(accounts.BadInvite):
        accounts.set_up(empty.db, newer, "eve", PASSWORD)


# ---- the audit trail


def test_what_is_done_to_members_is_in_the_trail(book, quick):
    dora = accounts.add(book.db, "dora", PASSWORD, by=CAROL)
    accounts.set_role(book.db, dora.id, "admin", by=CAROL)
    accounts.disable(book.db, dora.id)
    newest = audit.trail(book.db, limit=2)
    assert [(row["by"], row["action"], row["target"]) for row in newest] == [
        (None, "member.disable", "dora"),
        ("carol", "member.role", "dora"),
    ]
    assert newest[1]["detail"] == {"role": "admin"}
    (older,) = audit.trail(book.db, before=newest[-1]["id"])
    assert older["action"] == "member.add"
