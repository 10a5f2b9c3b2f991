"""In what order targets are tried: priority, weight, and conversations that stay where they are."""

from collections import Counter
from types import SimpleNamespace

from relay.upstream.order import order


def target(name, priority=0, weight=1):
    return SimpleNamespace(
        upstream=SimpleNamespace(name=name), model="m", priority=priority, weight=weight
    )


def first(targets, stick=None):
    return order(targets, stick)[0].upstream.name


def test_lower_priority_is_tried_first_whatever_the_weight():
    targets = [target("b", priority=1, weight=1000), target("a", priority=0)]
    assert [each.upstream.name for each in order(targets, None)] == ["a", "b"]


def test_calls_are_shared_by_weight():
    targets = [target("a", weight=3), target("b", weight=1)]
    drawn = Counter(first(targets) for _ in range(4000))
    assert 0.70 < drawn["a"] / 4000 < 0.80
    stuck = Counter(first(targets, f"conversation {each}") for each in range(4000))
    assert 0.70 < stuck["a"] / 4000 < 0.80


def test_a_conversation_stays_with_its_target():
    targets = [target(name) for name in "abcd"]
    assert len({first(targets, "one conversation") for _ in range(20)}) == 1
    assert len({first(targets, f"conversation {each}") for each in range(50)}) == 4


def test_when_a_target_drops_out_only_its_own_conversations_move():
    targets = [target(name) for name in "abcd"]
    before = {each: first(targets, str(each)) for each in range(200)}
    after = {each: first(targets[1:], str(each)) for each in range(200)}
    assert all(after[each] == before[each] for each in before if before[each] != "a")


def test_every_target_is_in_the_order():
    targets = [target(name, priority) for name, priority in zip("abcd", (1, 0, 1, 0), strict=True)]
    assert sorted(each.upstream.name for each in order(targets, "x")) == list("abcd")
