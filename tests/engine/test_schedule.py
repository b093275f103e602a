"""Who takes the next step: those under way first, new prompts a bounded amount, keys and models in turn."""

from __future__ import annotations

from puma.engine.schedule import Ready, Schedule


def ready(name: str, rows: int = 1, begins: bool = False, served: str = "m") -> Ready:
    """A request of the key that its name begins with."""
    return Ready(name, name[0], served, begins, rows)


def names(chosen: list[Ready]) -> list[str]:
    return [each.name for each in chosen]


def test_all_under_way_go_on_and_a_bounded_amount_begins() -> None:
    schedule = Schedule(rows=8, prefill=64)
    going = [ready(f"{key}{i}") for key in "ab" for i in range(2)]
    prompts = [ready(f"{key}p{i}", 30, begins=True) for i in range(3) for key in "cd"]
    found = names(schedule.choose([*prompts, *going]))
    assert found[:4] == ["a0", "a1", "b0", "b1"] and len(found) == 6
    assert {name[0] for name in found[4:]} == {"c", "d"}, "one of each key, and none waits for the other's"


def test_a_long_prompt_goes_by_itself_and_keeps_nobody_under_way_waiting() -> None:
    schedule = Schedule(rows=8, prefill=64)
    asked = [ready("a0"), ready("bp", 500, begins=True), ready("cp", 10, begins=True)]
    first = names(schedule.choose(asked))
    left = [each for each in asked if each.name == "a0" or each.name not in first]
    second = names(schedule.choose(left))
    assert first[0] == second[0] == "a0" and {*first[1:], *second[1:]} == {"bp", "cp"}
    assert "bp" not in first or first == ["a0", "bp"]


def test_keys_have_equal_parts_however_much_they_ask() -> None:
    """One asks hundreds of prompts, the other a few, of another size: tokens are what is dealt out."""
    schedule = Schedule(prefill=64)
    waiting = [ready(f"a{i}", 16, begins=True) for i in range(400)] + [
        ready(f"b{i}", 48, begins=True) for i in range(60)
    ]
    served = {"a": 0, "b": 0}
    for _ in range(60):
        for each in schedule.choose(waiting):
            waiting.remove(each)
            served[each.key] += each.rows
    assert abs(served["a"] - served["b"]) <= 0.1 * served["a"], served


def test_more_than_fit_take_turns() -> None:
    schedule = Schedule(rows=3)
    asked = [ready(f"{key}{i}") for key in "abcde" for i in range(2)]
    counts = dict.fromkeys((each.name for each in asked), 0)
    for _ in range(20):
        chosen = schedule.choose(asked)
        assert 1 <= len(chosen) <= 4
        asked = [each for each in asked if each not in chosen] + chosen
        for each in chosen:
            counts[each.name] += 1
    assert max(counts.values()) <= 2 * min(counts.values()), counts


def test_models_take_turns_and_never_share_a_step() -> None:
    schedule = Schedule()
    asked = [ready("a0", served="m"), ready("b0", served="n"), ready("c0", served="m")]
    found = [names(schedule.choose(asked)) for _ in range(4)]
    assert found == [["a0", "c0"], ["b0"], ["a0", "c0"], ["b0"]]
    assert schedule.choose([]) == []


def test_a_long_prompt_is_read_in_pieces_beside_others_and_larger_ones_alone() -> None:
    schedule = Schedule()
    long = Ready("ap", "a", "m", True, 2000, pieces=True)
    assert [each.rows for each in schedule.choose([long])] == [512]
    beside = schedule.choose([ready("b0"), long])
    assert [(each.name, each.rows) for each in beside] == [("b0", 1), ("ap", 128)]
    assert [each.rows for each in schedule.choose([ready("b0"), ready("cp", 2000, begins=True)])] == [1, 2000]


def test_a_newcomer_does_not_wait_for_long_prompts_of_its_own_key() -> None:
    schedule = Schedule()
    waiting = [Ready(f"a{i}", "a", "m", True, 4000, pieces=True) for i in range(6)] + [ready("an", 5, begins=True)]
    steps = 0
    while True:
        steps += 1
        chosen = names(schedule.choose([ready("a-"), *waiting]))
        if "an" in chosen:
            break
        waiting = [each for each in waiting if each.name not in chosen] + [e for e in waiting if e.name in chosen]
    assert steps <= 3
