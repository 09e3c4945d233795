"""What once locked somebody out, let somebody in or told it wrong, with real logins both ways."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.users import temporary_user
from tests.e2e.support import TAG, World, make_world, running

# ---- one user's file and everybody else's revocations (incident 3) ----


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a second user")
def test_a_users_own_file_holds_up_nobody_else(
    instance: Instance, console: Console, tmp_path: Path
) -> None:
    """G3, incident 3: a user whose file would be left without a way in holds that file alone."""
    with temporary_user() as user, Instance(user, ".ssh/authorized_keys") as hostile:
        targets = ", ".join(
            f"{{user: {one.user}, path: {one.authorized_keys}}}" for one in (hostile, instance)
        )
        world = make_world(instance, console, tmp_path, targets=f"[{targets}]")
        stays, first, second = (instance.keygen(f"hostile-{name}") for name in "abc")
        key_ids = [console.add_key(key.public_line) for key in (stays, first, second)]
        world.sync()
        own = hostile.keygen("own")
        expired = [
            f'restrict,expiry-time="19700101" {key.public_line}' for key in (stays, first, second)
        ]
        hostile.authorize(*expired, f"{own.public_line} {TAG.decode()}")
        before = hostile.authorized_keys.read_bytes()
        for key_id, revoked in zip(key_ids[1:], (first, second), strict=True):
            assert world.lets_in(revoked)
            console.delete_key(key_id)
            report = world.sync(exits=3)  # each change of the list begins his hold anew
            assert not world.lets_in(revoked)
            assert world.lets_in(stays)
            assert [one["result"] for one in report["targets"]] == ["held", "changed"]
            assert report["error"]["message"] == f"No usable key would be left for {user}."
            assert hostile.authorized_keys.read_bytes() == before
            assert hostile.can_log_in(own.private_path)
        world.sync("--confirm-removals", exits=4)  # he has shut himself out
        assert not hostile.can_log_in(own.private_path)
        assert world.lets_in(stays)


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


# ---- an empty list that is applied (incident 4) ----


def test_a_lockout_that_is_applied_is_told_as_one(world: World) -> None:
    """G3, incident 4: an error event, exit code 4 of `sync` and `status`, and no "recovered"."""
    world.configure("policy: {removal_confirmations: 1, removal_hold: 0s}")
    key = world.instance.keygen("locked-out")
    key_id = world.console.add_key(key.public_line)
    world.sync()
    assert world.lets_in(key)
    world.console.delete_key(key_id)
    _, events = world.sync_and_log(exits=4)
    assert not world.lets_in(key)
    [told] = [event for event in events if event["event"] == "user.locked_out"]
    assert (told["level"], told["user"]) == ("error", world.instance.user)
    assert f"nobody can log in as {world.instance.user}" in world.verdict(exits=4)
    assert world.status(exits=4)["no_way_in"] == [world.instance.user]
    world.console.add_key(key.public_line)
    world.sync()
    assert world.lets_in(key)
    assert world.status()["no_way_in"] == []


def test_the_agent_does_not_recover_by_locking_everybody_out(world: World, tmp_path: Path) -> None:
    """G3, incident 4: after a hold that was applied the log says locked out, and says recovered
    only when somebody can log in again.
    """
    world.configure(
        "poll: {interval: 1s, jitter: 0s}\npolicy: {removal_confirmations: 2, removal_hold: 0s}"
    )
    key, log = world.instance.keygen("agent-locked-out"), tmp_path / "log"
    key_id = world.console.add_key(key.public_line)
    with running(world, log) as agent:
        agent.await_event("key.added")
        assert world.lets_in(key)
        world.console.delete_key(key_id)
        agent.await_event("user.locked_out")
        assert not world.lets_in(key)
        assert agent.events("sync.held")
        agent.await_polls(3)
        assert len(agent.events("user.locked_out")) == 1
        assert not agent.events("sync.recovered")
        world.status(exits=4)
        world.console.add_key(key.public_line)
        agent.await_event("sync.recovered")
        assert world.lets_in(key)


# ---- a restricted line and a plain one for the same key (incidents 11 and 31) ----


@pytest.mark.parametrize("restricted_in", ["first", "second"])
def test_a_restriction_holds_for_all_targets_of_a_user(
    instance: Instance, console: Console, tmp_path: Path, restricted_in: str
) -> None:
    """R4, incident 11: a key that is restricted in one target of a user is not put into another."""
    with Instance(instance.user) as other:
        instance.authorize()
        limited = instance.keygen(f"limited-{restricted_in}")
        listed = instance.keygen(f"listed-{restricted_in}")
        paths = [one.authorized_keys for one in (instance, other)]
        if restricted_in == "first":
            paths.reverse()
        targets = ", ".join(f"{{user: {instance.user}, path: {path}}}" for path in paths)
        world = make_world(instance, console, tmp_path, targets=f"[{targets}]")
        line = f'restrict,command="echo limited" {limited.public_line}'
        other.authorize(line)
        for key in (limited, listed):
            console.add_key(key.public_line)
        world.sync()
        assert not world.lets_in(limited)
        assert other.run(limited.private_path, "id") == "limited\n"
        assert other.authorized_keys.read_bytes().startswith(line.encode() + b"\n")
        assert world.lets_in(listed)
        assert other.can_log_in(listed.private_path)
        world.sync()
        assert not world.lets_in(limited)


def test_a_plain_line_beside_a_restricted_one_keeps_its_owners_shell(world: World) -> None:
    """R4, R5, incident 31: neither line is touched while the key is listed; once it is deleted, the
    plain one goes and the restricted one stays, with a warning.
    """
    stays, both = world.instance.keygen("beside-stays"), world.instance.keygen("beside-both")
    restricted = f'restrict,command="echo limited" {both.public_line}'
    world.instance.authorize(both.public_line, restricted)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(both.public_line)
    report = world.sync()
    assert world.lines[:2] == [both.public_line.encode(), restricted.encode()]
    assert world.lets_in(both)
    [target] = report["targets"]
    assert [entry["reason"] for entry in target["foreign"]] == ["used_beside_restricted"]
    world.console.delete_key(key_id)
    _, events = world.sync_and_log()
    assert world.lines[0] == restricted.encode()
    assert world.instance.run(both.private_path, "id") == "limited\n"
    assert world.lets_in(stays)
    [warning] = [event for event in events if event["event"] == "key.still_authorized"]
    assert (warning["level"], warning["fingerprint"]) == ("warning", both.fingerprint)
    assert f"{both.fingerprint} beside-both can still log in" in world.verdict(exits=0)


def test_a_tagged_line_beside_a_restricted_one_goes(world: World) -> None:
    """R4: a refusal stays a refusal; a managed line for the same key is not kept beside it."""
    stays, limited = world.instance.keygen("tagged-stays"), world.instance.keygen("tagged-limited")
    restricted = f'from="203.0.113.1" {limited.public_line}'
    world.instance.authorize(restricted, f"{limited.public_line} {TAG.decode()}")
    assert world.lets_in(limited)
    for key in (stays, limited):
        world.console.add_key(key.public_line)
    world.sync()
    assert [world.lets_in(key) for key in (stays, limited)] == [True, False]
    assert world.lines[0] == restricted.encode()


# ---- additions that wait (G14) ----


def test_a_new_key_waits_for_a_person(world: World) -> None:
    """G14: with additions: hold a new key does not log in until it is confirmed."""
    world.configure("policy: {additions: hold}")
    platforms, new, other = (world.instance.keygen(f"hold-{name}") for name in "pno")
    world.instance.authorize(platforms.public_line)
    for key in (platforms, new, other):
        world.console.add_key(key.public_line)
    report, events = world.sync_and_log()
    waiting = {key.fingerprint for key in (platforms, new, other)}
    assert {key["fingerprint"] for key in report["waiting"]} == waiting
    assert {e["fingerprint"] for e in events if e["event"] == "key.held"} == waiting
    assert [world.lets_in(key) for key in (platforms, new, other)] == [True, False, False]
    world.sync("--confirm-additions", new.fingerprint)
    assert [world.lets_in(key) for key in (platforms, new, other)] == [True, True, False]
    world.sync()
    assert [world.lets_in(key) for key in (platforms, new, other)] == [True, True, False]
    world.sync("--confirm-additions", "all")
    assert world.lets_in(other)


def test_an_edit_of_the_only_key_is_held(world: World) -> None:
    """G14, G3: the old key logs in until the new one is confirmed, and not after that."""
    old, new = world.instance.keygen("edited-old"), world.instance.keygen("edited-new")
    world.configure("policy: {additions: hold}")
    key_id = world.console.add_key(old.public_line)
    world.sync("--confirm-additions", "all")
    assert world.lets_in(old)
    world.console.edit_key(key_id, new.public_line)
    world.sync(exits=3)
    assert [world.lets_in(key) for key in (old, new)] == [True, False]
    world.sync("--confirm-additions", new.fingerprint)
    assert [world.lets_in(key) for key in (old, new)] == [False, True]


def test_a_deleted_key_waits_again_when_it_is_listed_again(world: World) -> None:
    """G14, R5: what was revoked is a new key."""
    world.configure("policy: {additions: hold}")
    stays, back = world.instance.keygen("back-stays"), world.instance.keygen("back-again")
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(back.public_line)
    world.sync("--confirm-additions", "all")
    world.console.delete_key(key_id)
    world.sync()
    world.console.add_key(back.public_line)
    world.sync()
    assert [world.lets_in(key) for key in (stays, back)] == [True, False]
    with world.instance.authorized_keys.open("a") as file:
        file.write(back.public_line + "\n")
    assert world.lets_in(back)
    world.sync()
    assert [world.lets_in(key) for key in (stays, back)] == [True, False]
    world.sync("--confirm-additions", "all")
    assert world.lets_in(back)
