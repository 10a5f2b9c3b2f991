"""What attempts teach about upstreams and keys, on a clock that the test turns."""

from types import SimpleNamespace

import pytest

from relay import errors
from relay.upstream.health import FAILURES_TO_REST, PROBE_S, REFUSED_S, TELL_AGAIN_S, Health


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def notices():
    return []


@pytest.fixture
def health(clock, notices):
    return Health(notice=notices.append, clock=clock)


def upstream(name="a", keys=("k1",), calls_at_once=None):
    return SimpleNamespace(name=name, keys=keys, calls_at_once=calls_at_once)


def attempt(health, each, error=None, wish=0):
    """One attempt as the sender makes it; the key that was tried, or None."""
    key = health.begin(each, wish, set())
    if key is not None:
        finish(health, each.name, key, error)
    return key


def finish(health, name, key, error=None):
    health.learn(name, key, error, 10)
    health.end(name)
    if error is None:
        health.learn_end(name, key, None)


def rests_s(health, each=None):
    return health.report([each or upstream()])[0]["rests_s"]


def test_a_key_that_is_refused_rests_until_it_is_probed_and_administrators_hear_of_it(
    health, clock, notices
):
    assert attempt(health, upstream(), errors.UpstreamAccount()) == "k1"
    assert attempt(health, upstream()) is None
    assert len(notices) == 1 and "k1" not in notices[0]
    clock.now += REFUSED_S
    assert health.begin(upstream(), 0, set()) == "k1"  # the probe
    assert health.begin(upstream(), 0, set()) is None  # and no other call beside it
    health.learn("a", "k1", None, 10)
    assert attempt(health, upstream()) == "k1"


def test_a_refused_key_rests_longer_each_time(health, clock):
    attempt(health, upstream(), errors.UpstreamAccount())
    clock.now += REFUSED_S
    attempt(health, upstream(), errors.UpstreamAccount())
    clock.now += REFUSED_S
    assert attempt(health, upstream()) is None
    clock.now += REFUSED_S
    assert attempt(health, upstream()) == "k1"


def test_another_key_serves_while_one_rests(health):
    two = upstream(keys=("k1", "k2"))
    attempt(health, two, errors.UpstreamAccount())
    assert attempt(health, two) == "k2"
    assert health.report([two])[0] | {"state": "ok", "keys_usable": 1} == health.report([two])[0]


def test_keys_are_used_as_wished(health):
    two = upstream(keys=("k1", "k2"))
    assert [attempt(health, two, wish=wish) for wish in range(4)] == ["k1", "k2", "k1", "k2"]


def test_a_busy_provider_is_left_alone_as_long_as_it_says(health, clock):
    attempt(health, upstream(), errors.UpstreamOverloaded(retry_after=7))
    assert attempt(health, upstream()) is None
    told = health.exhausted([upstream()])
    assert (type(told), told.status, told.retry_after) == (errors.UpstreamBusy, 429, 7)
    clock.now += 7
    assert attempt(health, upstream()) == "k1"


def test_an_upstream_that_fails_again_and_again_rests_with_growing_pauses(health, clock, notices):
    for _ in range(FAILURES_TO_REST):
        assert attempt(health, upstream(), errors.UpstreamError())
    assert attempt(health, upstream()) is None
    told = health.exhausted([upstream()])
    assert (told.status, told.code) == (503, "upstream_unavailable") and told.retry_after >= 1
    clock.now += 1
    assert attempt(health, upstream(), errors.UpstreamError())  # the probe fails
    clock.now += 1
    assert attempt(health, upstream()) is None  # the second pause is longer
    assert len(notices) == 1
    clock.now += 1
    assert attempt(health, upstream())
    assert len(notices) == 2 and "answers again" in notices[1]
    assert health.report([upstream()])[0]["state"] == "ok"


def test_a_few_failures_change_nothing(health):
    for _ in range(FAILURES_TO_REST - 1):
        attempt(health, upstream(), errors.UpstreamTimeout())
    attempt(health, upstream())
    for _ in range(FAILURES_TO_REST - 1):
        attempt(health, upstream(), errors.UpstreamTimeout())
    assert attempt(health, upstream())


def test_a_hundred_bad_requests_change_no_health(health):
    for _ in range(100):
        assert attempt(health, upstream(), errors.UpstreamRefused(400, "no"))
    assert health.report([upstream()])[0]["state"] == "ok"


def test_a_crowd_that_fails_at_once_counts_once(health, clock, notices):
    crowd = [health.begin(upstream(), 0, set()) for _ in range(50)]
    for key in crowd:
        finish(health, "a", key, errors.UpstreamError())
    assert rests_s(health) == 1 and len(notices) == 1


def test_a_crowd_whose_key_is_refused_is_told_of_once(health, clock, notices):
    crowd = [health.begin(upstream(), 0, set()) for _ in range(50)]
    for key in crowd:
        finish(health, "a", key, errors.UpstreamAccount())
    assert rests_s(health) == REFUSED_S and len(notices) == 1
    clock.now += REFUSED_S
    attempt(health, upstream(), errors.UpstreamAccount())
    assert rests_s(health) == 2 * REFUSED_S and len(notices) == 1


def test_trouble_that_comes_and_goes_is_told_of_once(health, clock, notices):
    for _ in range(20):
        for _ in range(FAILURES_TO_REST):
            attempt(health, upstream(), errors.UpstreamError())
        clock.now += 2
        attempt(health, upstream())
    assert len(notices) == 2
    clock.now += TELL_AGAIN_S
    for _ in range(FAILURES_TO_REST):
        attempt(health, upstream(), errors.UpstreamError())
    assert len(notices) == 3


def test_a_busy_key_without_a_time_is_passed_over_while_another_can_be_asked(health, clock):
    two = upstream(keys=("k1", "k2"))
    attempt(health, two, errors.UpstreamOverloaded())
    assert health.begin(two, 0, set()) == "k2"
    attempt(health, upstream(), errors.UpstreamOverloaded())
    assert health.begin(upstream(), 0, set()) is None
    assert health.begin(upstream(), 0, set(), last_resort=True) == "k1"
    clock.now += 1
    assert health.begin(two, 0, set()) == "k1"


def test_a_time_that_the_provider_gave_is_kept_even_when_pressed_and_when_an_earlier_call_answers(
    health, clock
):
    health.begin(upstream(), 0, set())
    attempt(health, upstream(), errors.UpstreamOverloaded(retry_after=60))
    finish(health, "a", "k1")
    finish(health, "a", "k1", errors.UpstreamOverloaded(retry_after=3))
    assert health.begin(upstream(), 0, set(), last_resort=True) is None and rests_s(health) == 60


def test_answers_that_break_off_again_and_again_put_an_upstream_to_rest(health, clock):
    for _ in range(FAILURES_TO_REST):
        assert (key := health.begin(upstream(), 0, set()))
        health.learn("a", key, None, 10)  # its content began
        health.end("a")
        health.learn_end("a", key, errors.UpstreamError())
    assert health.begin(upstream(), 0, set()) is None
    assert health.report([upstream()])[0]["failed"] == FAILURES_TO_REST


def test_a_key_that_is_refused_in_mid_answer_rests(health):
    key = health.begin(upstream(), 0, set())
    health.learn("a", key, None, 10)
    health.learn_end("a", key, errors.UpstreamAccount())
    assert health.report([upstream()])[0]["state"] == "refused"


def test_when_one_can_soon_be_asked_again_the_caller_is_told_to_wait_for_it(health):
    attempt(health, upstream("broken"), errors.UpstreamAccount())
    attempt(health, upstream("busy"), errors.UpstreamOverloaded(retry_after=4))
    told = health.exhausted([upstream("broken"), upstream("busy")])
    assert (told.status, told.retry_after) == (429, 4)
    assert health.exhausted([upstream("broken")]).status == 502


def test_keys_that_are_configured_no_more_do_not_count(health):
    attempt(health, upstream(keys=("old",)), errors.UpstreamAccount())
    attempt(health, upstream(keys=("new",)), errors.UpstreamOverloaded(retry_after=4))
    assert health.exhausted([upstream(keys=("new",))]).status == 429


def test_who_is_woken_is_asked_again_at_once(health):
    attempt(health, upstream(), errors.UpstreamAccount())
    health.wake()
    assert attempt(health, upstream()) == "k1"


def test_a_caller_who_leaves_during_a_probe_does_not_block_the_next(health, clock):
    attempt(health, upstream(), errors.UpstreamAccount())
    clock.now += REFUSED_S
    assert attempt(health, upstream(), RuntimeError("left"))
    assert attempt(health, upstream()) == "k1"


def test_no_more_calls_at_once_than_the_upstream_takes(health):
    small = upstream(calls_at_once=1)
    assert health.begin(small, 0, set()) == "k1"
    assert health.begin(small, 0, set()) is None
    assert health.exhausted([small]).status == 429
    health.end("a")
    assert health.begin(small, 0, set()) == "k1"


def test_one_that_is_full_is_busy_though_another_of_its_keys_is_refused(health):
    small = upstream(keys=("k1", "k2"), calls_at_once=1)
    assert attempt(health, small, errors.UpstreamAccount()) == "k1"
    assert health.begin(small, 0, set()) == "k2"
    assert health.begin(small, 0, set()) is None
    told = health.exhausted([small, upstream("b")])
    assert (told.status, told.retry_after) == (429, 1)


def test_who_waits_is_told_when_an_upstream_and_a_key_of_it_are_free(health, clock):
    for _ in range(FAILURES_TO_REST):
        attempt(health, upstream(), errors.UpstreamError())
    health.learn("a", "k1", errors.UpstreamOverloaded(retry_after=20), 10)
    assert health.exhausted([upstream()]).retry_after == 20
    assert health.exhausted([upstream(keys=("k1", "k2"))]).retry_after == 1


def test_a_probe_that_hangs_does_not_keep_others_from_probing_for_ever(health, clock):
    attempt(health, upstream(), errors.UpstreamAccount())
    clock.now += REFUSED_S
    assert health.begin(upstream(), 0, set()) == "k1", "a long answer, or none"
    clock.now += PROBE_S - 1
    assert health.begin(upstream(), 0, set()) is None
    clock.now += 1
    assert attempt(health, upstream()) == "k1" and health.report([upstream()])[0]["state"] == "ok"


def test_the_picture_shows_the_last_error_and_no_key(health):
    attempt(health, upstream(keys=("sk-secret",)), errors.UpstreamAccount())
    picture = health.report([upstream(keys=("sk-secret",))])[0]
    assert picture["state"] == "refused" and picture["last_error"] == "upstream_account"
    assert picture["last_error_at"] and "sk-secret" not in str(picture)


# ---- models at an upstream


def failing(health, house, model, times=FAILURES_TO_REST, caller="a"):
    for number in range(times):
        health.begin(house, 0, set(), True, f"{caller}{number}", model)
        health.end(house.name)
        health.learn(house.name, "k1", errors.UpstreamError(), 1, f"{caller}{number}", model)


def may(health, house, model):
    key = health.begin(house, 0, set(), False, "somebody", model)
    if key is not None:
        health.end(house.name)
    return key is not None


def test_a_model_that_fails_rests_and_the_others_of_its_upstream_go_on():
    health, house = Health(notice=lambda _: None, clock=lambda: 100.0), upstream()
    failing(health, house, "bad")
    assert not may(health, house, "bad") and may(health, house, "good")


def test_answers_of_another_model_do_not_wake_one_that_fails():
    now = [100.0]
    health, house = Health(notice=lambda _: None, clock=lambda: now[0]), upstream()
    for number in range(FAILURES_TO_REST):
        failing(health, house, "bad", times=1, caller=f"member {number} ")
        health.learn(house.name, "k1", None, 1, "x", "good")
        health.learn_end(house.name, "k1", None, "x", "good")
    assert not may(health, house, "bad") and may(health, house, "good")
    now[0] += 1.5
    assert may(health, house, "bad"), "a probe"
    health.learn(house.name, "k1", None, 1, "x", "bad")
    assert may(health, house, "bad")


def test_an_upstream_rests_when_several_models_fail():
    health, house = Health(notice=lambda _: None, clock=lambda: 100.0), upstream()
    failing(health, house, "one", times=3)
    failing(health, house, "two", times=3)
    assert not may(health, house, "three")


def test_what_rests_is_said_of_the_model_that_was_wanted():
    health, house = Health(notice=lambda _: None, clock=lambda: 100.0), upstream()
    failing(health, house, "bad")
    assert isinstance(health.exhausted([house], ["bad"]), errors.UpstreamUnavailable)
    assert 0 < health.free_in([house], ["bad"]) <= 2


def test_what_rests_is_named_by_the_last_characters_of_its_key_and_by_its_model(notices, clock):
    health, house = (
        Health(notice=notices.append, clock=clock),
        upstream(keys=("sk-" + "x" * 20 + "abcd",)),
    )
    failing(health, house, "bad")
    health.learn(house.name, house.keys[0], errors.UpstreamAccount(), 1, "x", "good")
    (picture,) = health.report([house])
    assert picture["resting"] == [
        "key …abcd: refused (upstream_account)",
        "model bad: failing (upstream_error)",
    ]
    assert any("the key …abcd" in each for each in notices)
    assert "xxxx" not in str(notices) + str(picture)
