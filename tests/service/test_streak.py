"""What is logged of a state that lasts (product §9): its beginning, its change and its end."""

from __future__ import annotations

from collections.abc import Sequence

from agent import events
from agent.service.streak import StreakFilter

WELL = events.SyncCompleted("id", "in_sync", False, 1, 2, 0, 0, 0, 0, not_modified=False)
DEFECT = events.AgentFailed("KeyError", "service/sync.py:1 sync")


def failed(kind: str) -> events.SyncFailed:
    return events.SyncFailed("id", kind, "m", "h", False, 1, None, 0, 0, 0, 0, None)


def held(kind: str) -> events.SyncHeld:
    return events.SyncHeld("id", kind, "m", "h", False, 1, 2, 0, 0, 0, 0, None)


def broken(user: str, kind: str = "hard_link") -> events.TargetProblem:
    return events.TargetProblem("id", user, f"/home/{user}", kind, "m", "h")


def still(fingerprint: str) -> events.KeyStillAuthorized:
    return events.KeyStillAuthorized("id", "root", "/k", fingerprint, "t", "", 1, "revoked")


def passed(*given: events.Event) -> Sequence[events.Event]:
    """What comes through, in order."""
    found: list[events.Event] = []
    news = StreakFilter(found.append)
    for event in given:
        news(event)
    return found


def names(*given: events.Event) -> list[str]:
    return [event.name for event in passed(*given)]


def test_a_streak_is_its_first_failure_and_its_end() -> None:
    """§9: not every repetition; the end says what it was, how often and how long."""
    first = failed("timeout")
    end = events.SyncRecovered("id", "timeout", 3, 0)
    assert passed(first, failed("timeout"), failed("timeout"), WELL) == [first, end, WELL]


def test_a_change_of_kind_is_news() -> None:
    """§9: each change of kind is said, also back to one that was said before."""
    kinds = ["timeout", "timeout", "html_page", "html_page", "timeout"]
    found = passed(*(failed(kind) for kind in kinds))
    assert found == [failed("timeout"), failed("html_page"), failed("timeout")]


def test_held_and_failed_are_different_news() -> None:
    """§9: a hold that follows a failure is said, whatever its kind is called."""
    assert names(failed("k"), held("k"), held("k")) == ["sync.failed", "sync.held"]


def test_one_recovery_for_a_streak_of_several_kinds() -> None:
    """§9: the streak lasts from the first failure to the first cycle in sync."""
    found = passed(failed("timeout"), held("empty_listing"), WELL, WELL)
    assert found[-3:] == [events.SyncRecovered("id", "empty_listing", 2, 0), WELL, WELL]


def test_each_streak_begins_anew() -> None:
    """§9: after the end the same failure is news again."""
    once = [failed("timeout"), WELL]
    assert names(*once, *once) == ["sync.failed", "sync.recovered", "sync.completed"] * 2


def test_cycles_that_go_well_are_each_said() -> None:
    """§9: one canonical line per cycle."""
    assert passed(WELL, WELL, WELL) == [WELL, WELL, WELL]


def test_a_defect_is_a_streak_too() -> None:
    """§9: an exception in every cycle is one line, and its end is said."""
    other = events.AgentFailed("TypeError", "service/sync.py:1 sync")
    found = passed(DEFECT, DEFECT, other, WELL)
    assert found == [DEFECT, other, events.SyncRecovered("id", "TypeError", 3, 0), WELL]


def test_a_failing_target_is_said_once() -> None:
    """§9: of one target among others too only the beginning, the change and the end."""
    cycle = [broken("a"), failed("hard_link")]
    changed = [broken("a", "not_a_file"), failed("not_a_file")]
    found = passed(*cycle, *cycle, *changed, WELL, *cycle)
    assert [event for event in found if isinstance(event, events.TargetProblem)] == [
        broken("a"),
        broken("a", "not_a_file"),
        broken("a"),
    ]


def test_a_target_that_failed_again_within_another_ones_streak_is_said_again() -> None:
    """§9: what a cycle looked at and found well is over."""
    both = [broken("a"), broken("b"), failed("hard_link")]
    one = [broken("b"), failed("hard_link")]
    found = passed(*both, *one, *both)
    assert found.count(broken("a")) == 2
    assert found.count(broken("b")) == 1


def test_a_cycle_that_did_not_get_to_the_targets_ends_nothing() -> None:
    """§9: a key that is still authorized is not said again because the network failed between."""
    found = passed(still("x"), WELL, failed("timeout"), still("x"), WELL)
    assert found.count(still("x")) == 1


def test_a_key_that_is_still_authorized_is_said_once_while_it_lasts() -> None:
    """R4, §9: said loudly, not every 30 seconds; after it was gone, again."""
    cycle = [still("x"), still("y"), WELL]
    found = passed(*cycle, *cycle, still("y"), WELL, *cycle)
    assert found.count(still("x")) == 2
    assert found.count(still("y")) == 1


def test_what_changes_is_never_kept_back() -> None:
    """§9: one line per key that changes, also when another tool puts it back in every cycle."""
    back = events.KeyReappeared("id", "root", "/k", "f", "t", "", 1, "revoked")
    assert passed(back, WELL, back, WELL) == [back, WELL, back, WELL]


def test_a_default_path_is_said_once() -> None:
    """§9: that sshd cannot be asked is a state, not an event of each cycle."""
    default = events.TargetDefaulted("id", "root", "/k", "no sshd is installed")
    assert passed(default, WELL, default, WELL).count(default) == 1
