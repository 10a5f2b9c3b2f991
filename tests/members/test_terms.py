"""What a name in the settings gives, and what a change of plans means for whom."""

import pytest

import plans
from billing import nano
from members import caps, terms
from settings import check
from tests.console.member_stage import MODELS, PLANS, house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


def changed(**of_pro):
    return check({"plans": PLANS | {"pro": PLANS["pro"] | of_pro}, "models": MODELS}, {})


def test_a_change_of_a_plan_says_to_whom_and_from_when(home):
    before = terms.terms_of(home.relay.settings)
    after = changed(quota="50.00", requests_per_minute=100, models=["plain-1"])
    assert terms.plan_changes(home.db, before, after) == [], "nobody holds it"
    terms.give_plan(home.db, home.relay.settings, home.member("alice").id, "pro")
    (said,) = terms.plan_changes(home.db, before, after)
    assert said.startswith("The plan pro changes for its holders (1): ")
    at_once, _, later = said.partition("; ")
    assert "requests_per_minute 600 -> 100" in at_once and "models all -> plain-1" in at_once
    assert at_once.endswith("from the next request on")
    assert "quota 40.00 -> 50.00 for what is bought or given from now on" in later
    assert terms.plan_changes(home.db, before, changed()) == []


def test_it_is_told_once_also_where_the_relay_was_started_again(home, monkeypatch):
    from server import jobs
    from server.notices import Notices

    said = []
    monkeypatch.setattr(
        Notices, "tell", lambda self, kind, message, *_: said.append((kind, message))
    )
    terms.give_plan(home.db, home.relay.settings, home.member("alice").id, "pro")
    jobs.note_settings(home.relay)
    home.relay.settings = changed(discount="0.5")
    for _ in range(2):
        jobs.note_settings(home.relay)
    assert [kind for kind, _ in said] == ["plan_terms"], said
    ((_kind, message),) = said
    assert "discount 0.80 -> 0.5 from the next request on" in message


def test_an_allowance_keeps_its_terms_as_the_sentence_says(home):
    alice = home.member("alice")
    terms.give_plan(home.db, home.relay.settings, alice.id, "pro", monthly=True)
    (period,) = plans.active(home.db, alice.id)
    plans.expire_due(home.db, period.ends_at)
    (renewed,) = plans.active(home.db, alice.id, period.ends_at)
    assert renewed.quota == nano("40") and renewed.months_of == "Asia/Shanghai"


def test_a_member_is_offered_the_models_that_they_may_use(home):
    alice = home.member("alice")
    home.token(alice)
    visit = home.browser(alice)
    assert "other-2" in visit.page("/console/test") and "not for you" not in visit.page("/models")
    caps.put(home.db, alice.id, caps.Caps(models=("plain-1",)))
    assert "other-2" not in visit.page("/console/test")
    assert "plain-1" in visit.page("/console/test")
    assert "not for you" in visit.page("/models")
    assert 'value="other-2"' not in visit.page("/docs/chat")


def test_a_plans_models_come_first_in_what_visitors_are_shown(tmp_path):
    free = PLANS["free"] | {"models": ["other-2"]}
    home = house(tmp_path, plans=PLANS | {"free": free})
    assert home.relay.gate.models_of(None) == {"other-2"}
    text = home.browser().page("/docs/chat")
    assert "other-2" in text
    home.db.close()


def test_a_preview_names_a_plan_that_would_vanish_while_it_is_held(home, monkeypatch):
    from server import jobs

    without = {name: each for name, each in PLANS.items() if name != "pro"}
    after = check({"plans": without, "models": MODELS}, {})
    monkeypatch.setattr("settings.load", lambda *_, **__: after)
    assert jobs.preview(home.relay)[2] == []
    terms.give_plan(home.db, home.relay.settings, home.member("alice").id, "pro")
    (said,) = jobs.preview(home.relay)[2]
    assert "pro (held by 1)" in said
