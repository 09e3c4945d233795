"""The whole of keysync against a small model of its laws, in a world where everything happens.

A state machine edits the console and the key files by hand, lets other tools rewrite them, breaks
the API, the state, the clock and the files, changes the policy and lets keysync sync in between.
After each sync `Check` holds what it did against tests/support/model.py:

| law | check | rules that provoke it, beside many others |
|---|---|---|
| R1 each listed key and pin once | `_laws`, `_bytes` | `add_key`, `set_pins`, `remove_line` |
| R2 managed and not listed goes | `_laws` | `delete_key`, `edit_key`, `write_line` (forged tag) |
| R3 adopted in place | `_laws`, `_bytes` | `refresh`, `write_line`, `strip_tags` |
| R4 restricted stays, no managed line beside it | `_laws`, `_target` | `write_restricted_line` |
| R5 revocation sticks | `_laws` | `delete_key`, then `refresh`, `propagate`, `write_line` |
| R5 only a valid entry brings a key back | `_laws`, `status` | `quote_deleted` |
| R5 retired targets | `_laws`, `_target`, `status` | `retire`, `take_back` |
| R6 the rest, byte for byte, in order | `_bytes` | `write_noise`, `crlf`, `cut_newline`, `glue` |
| R7 no second write | `_bytes`, `sync_twice` | every sync |
| R8 strict mode | `_laws` | `toggle_unmanaged` |
| R9 nothing remembered of a file | `_bytes` | every edit of a file between two syncs |
| R10 reported is done | `_target` | every sync |
| R11 the other targets | `_target`, `_bytes` | `block` |
| G1 only a whole listing changes anything | `sync`, `_outcome` | `break_api`, `break_api_key` |
| G2 a bad entry stops no good one | `_outcome`, `_laws` | `add_bad_key`, `edit_key` |
| G3 held for everybody | `_outcome`, `_target`, `status` | `delete_all`, `confirm` |
| G3 nobody puts off the end of a hold | `status` | `delete_all` with `junk`, `vary_list` |
| G3 held for one user | the same | `lock_up`, `lock_out_oneself`, `edit_key` |
| G3 which polls count | `status` | `hurry`, `break_api`, `reboot`, `jump`, `set_hold` |
| G4 account pin | `_outcome`, `status` | `swap_account`, `accept`, `lose_state` |
| G5 original and journal | `_nothing_lost`, `_journal` | every sync that writes |
| G6 last state and its age | `sync`, `status` | `break_api`, `jump`, `set_max_staleness` |
| G7 whole, nothing left behind | `_bytes`, `_clean` | every sync |
| G11 nothing can be recorded | `_laws`, `_outcome`, `_events` | `shut_state`, `list_while_shut` |
| G14 additions held | `_laws`, `_outcome`, `status` | `hold_additions`, `confirm_additions` |
| G14 a deleted key that waits | `_laws`, `status` | `relist` |

Not checked here: late edits and crashes (G7; tests/adapters), further files that sshd reads for a
user (here each one is a target of its own), a list that holds keys and names no account (the local
console always names it; tests/core/test_guards.py), G8-G10. G11 is checked for root alone, who may
mount.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sandbox.account import StoredKey
from sandbox.faults import KeyField, ListShape
from tests.support.model import BAD, FINGERPRINTS, LINES, NAMES, SPOILT, TAG, WEAK, Order, read
from tests.support.model_check import Check
from tests.support.model_world import BREAKAGES, INTERVAL, Policy, Target, World
from tests.support.own_mounts import in_own_mounts

pytestmark = pytest.mark.attack

MOST = settings().max_examples
LONG = MOST > 1000  # --hypothesis-profile=long
EXAMPLES, STEPS = (MOST, 60) if LONG else (10, 40)
# Shrinking runs the world thousands of times more; a test's two minutes are too short for it.
PHASES = (Phase.generate, Phase.shrink) if LONG else (Phase.generate,)
TALLY: Counter[str] = Counter()
# A plain run takes a sample of the seeds: they are random walks through the same world.
_SAMPLE, _ALL = (1, 1) if LONG else (8, 20)
SEEDS = [*range(_SAMPLE), *(pytest.param(n, marks=pytest.mark.sweep) for n in range(_SAMPLE, _ALL))]
_MOST_KEYS, _MOST_LINES, _TARGETS = 8, 24, 4
_MAY_MOUNT = os.geteuid() == 0
FAULTS = (None, "dead", "outage", "error_500", "rate_limited", "html", "truncated", "empty_list")
OBSTACLES = ("symlink", "hard_link", "fifo", "directory")

OPTIONS = (
    b'from="10.0.0.0/8"',
    b'command="/bin/true"',
    b"restrict",
    b'no-pty,command="echo no, not here"',
    b"bad-option",
    b'restrict,expiry-time="20200101"',
)
NOISE = (
    b"# a comment",
    b"# keysync:managed",
    b"",
    b" \t",
    b"\r",
    b"\xff\xfe\0 no text",
    "Zo\u00eb\u2028new line?".encode(),
    b"# " + LINES["ada"].encode(),
    LINES["ben"][:60].encode() + b" " + TAG,
    b"ssh-ed25519 not-base64 " + TAG,
)
TEXTS = (
    *LINES.values(),
    *(f"{line} renamed keysync:managed now" for line in LINES.values()),
    *(f" \t{line}\r\n" for line in LINES.values()),  # trimmed (G2)
)

names = st.sampled_from(NAMES)
places = st.integers(0, _MOST_LINES)
ids = st.integers(0, _MOST_KEYS)
targets = st.integers(0, _TARGETS - 1)
then = st.integers(0, 2)  # syncs after the edit
rarely = st.sampled_from((False, False, False, True))
good_texts = st.sampled_from(TEXTS)
bad_texts = st.sampled_from(sorted(BAD))


def plain(name: str) -> bytes:
    return LINES[name].encode()


LINE_KINDS: dict[str, Callable[[str], bytes]] = {
    "plain": plain,
    "without comment": lambda name: plain(name).rsplit(b" ", 1)[0],
    "another comment": lambda name: plain(name) + " \u00fc\u2028ssh-ed25519 AAAA".encode(),
    "carriage return": lambda name: plain(name) + b" \r",
    "tabs": lambda name: b"\t" + plain(name).replace(b" ", b"\t"),
    "tag forged": lambda name: plain(name) + b" " + TAG,
    "tag forged with carriage return": lambda name: plain(name) + b"\t" + TAG + b"\r",
    "tag in the middle": lambda name: plain(name) + b" " + TAG + b" more",
    "weak": lambda _: WEAK.encode(),
    "weak, tag forged": lambda _: WEAK.encode() + b" " + TAG,
}
restricted_lines = st.builds(
    lambda options, name, end: options + b" " + plain(name) + end,
    st.sampled_from(OPTIONS),
    names,
    st.sampled_from((b"", b"", b" " + TAG, b"\r")),
)
key_lines = st.builds(
    lambda kind, name: LINE_KINDS[kind](name), st.sampled_from(sorted(LINE_KINDS)), names
)


class Machine(RuleBasedStateMachine):
    """The rules; what they do is real, and `Check` knows what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(targets=_TARGETS)
        self.check = Check(self.world)
        self.created: list[bytes] = []
        TALLY["machines"] += 1
        if LONG and TALLY["machines"] % 100 == 0:
            print(tally(), flush=True)  # noqa: T201  # reason: an hour without a word is long

    def teardown(self) -> None:
        self.world.close()

    @invariant()
    def count(self) -> None:
        TALLY["steps"] += 1

    def sync(self, order: Order | None = None, times: int = 1, seconds: float = INTERVAL) -> None:
        for _ in range(times):
            TALLY["syncs"] += 1
            report = self.check.sync(order or Order(), seconds)
            TALLY[f"{report.result} {report.problem.kind if report.problem else ''}".strip()] += 1

    @initialize(
        strict=st.booleans(),
        confirmations=st.integers(1, 3),
        created=st.lists(names, unique=True, max_size=3),
        newline=rarely,
        hold_s=st.sampled_from((0, 0, 60, 100)),
        shape=st.sampled_from(("list", "wrapped")),
        field=st.sampled_from(("key", "public_key", "ssh_key")),
        etag=st.booleans(),
        include_deleted=st.booleans(),
    )
    def boot(
        self,
        strict: bool,
        confirmations: int,
        created: list[str],
        newline: bool,
        hold_s: int,
        shape: ListShape,
        field: KeyField,
        etag: bool,
        include_deleted: bool,
    ) -> None:
        """The platform has made the machine with the keys that the account had then.

        With `newline` the console holds them with a line break, as the official client sends it.
        """
        switches = self.world.console.switches
        switches.shape, switches.key_field = shape, field
        switches.etag, switches.include_deleted = etag, include_deleted
        self.created = [plain(name) + b"\n" for name in created]
        for name in created:
            self.world.account.add_key(LINES[name] + "\n" * newline)
        for target in self.world.targets[:2]:
            target.write(b"".join(self.created))
        self.set_policy(Policy((), strict, confirmations, hold_s), 1)

    # ---- syncs ----

    @rule(times=st.integers(1, 5))
    def poll(self, times: int) -> None:
        self.sync(times=times)

    @rule()
    def sync_twice(self) -> None:
        """R7, incident 29: the second writes nothing, without asking the model."""
        self.sync()
        before = [target.stamp for target in self.world.targets]
        if self.check.last_code == 0 and not self.world.is_shut:
            ledger = self.world.ledger_stamp
            self.sync()
            assert [target.stamp for target in self.world.targets] == before, "R7"
            assert self.world.ledger_stamp == ledger, "R7: not the state either"
            assert self.check.last_result == "in_sync", "R7"

    @rule(times=st.integers(1, 5), seconds=st.sampled_from((1.0, 10.0, 26.0, 28.0)))
    def hurry(self, times: int, seconds: float) -> None:
        """G3: polls that come early do not count, each on its own."""
        self.sync(times=times, seconds=seconds)

    @rule(order=st.sampled_from((Order(), Order(confirm=True))))
    def dry_run(self, order: Order) -> None:
        """A dry run says what the next sync does."""
        self.sync(Order(order.confirm, dry_run=True))
        self.sync(order)

    @rule(then=then)
    def confirm(self, then: int) -> None:
        self.sync(Order(confirm=True))
        self.sync(times=then)

    @rule(right=st.booleans(), confirm=st.booleans(), then=then)
    def accept(self, right: bool, confirm: bool, then: int) -> None:
        """The operator accepts the account of the moment, or by a slip the other one."""
        world = self.world
        console = world.console
        account = console.stranger if world.swapped == right else console.account
        self.sync(Order(confirm, account.user_id))
        self.sync(times=then)

    @rule()
    def look(self) -> None:
        self.check.status()

    # ---- the console ----

    def stored(self, at: int) -> StoredKey | None:
        found = self.world.stored()
        return found[at % len(found)] if found else None

    @rule(text=good_texts, then=then)
    def add_key(self, text: str, then: int) -> None:
        """Also the same key a second time, under another id."""
        self.add_text(text)
        self.sync(times=then)

    @rule(text=bad_texts, then=then)
    def add_bad_key(self, text: str, then: int) -> None:
        self.add_text(text)
        self.sync(times=then)

    def add_text(self, text: str) -> None:
        if len(self.world.stored()) < _MOST_KEYS:
            self.world.account.add_key(text)

    @rule(at=targets, tag=st.sampled_from((b"", b" " + TAG)), times=st.integers(1, 3))
    def add_weak_key(self, at: int, tag: bytes, times: int) -> None:
        """G2, R2: refused for what it is, so no line of keysync's is left for it."""
        self.add_text(WEAK)
        self.insert(at, 0, WEAK.encode() + tag)
        self.sync(times=times)

    @rule(at=ids, text=good_texts | bad_texts, then=then)
    def edit_key(self, at: int, text: str, then: int) -> None:
        """Another key, another comment, or a form that is refused."""
        if key := self.stored(at):
            self.world.account.edit_key(key.id, text)
        self.sync(times=then)

    @rule(
        at=ids,
        form=st.integers(0, 3),
        options=st.sampled_from((None, None, *OPTIONS)),
        mended=st.booleans(),
        times=st.integers(1, 2),
    )
    def spoil_key(
        self, at: int, form: int, options: bytes | None, mended: bool, times: int
    ) -> None:
        """G2: the same key, saved in a form that is refused; R4: the owner restricts it, too."""
        key = self.stored(at)
        name = key and next((name for name in NAMES if key.text == LINES[name]), None)
        if key and name:
            self.world.account.edit_key(key.id, list(SPOILT[name])[form])
            if options:
                self.insert(at % _TARGETS, 0, options + b" " + plain(name))
            self.sync(times=times)
            if mended:
                self.world.account.edit_key(key.id, key.text)
        self.sync()

    @rule(at=ids, then=then)
    def delete_key(self, at: int, then: int) -> None:
        if key := self.stored(at):
            self.world.account.delete_key(key.id)
        self.sync(times=then)

    @rule(at=ids, form=st.integers(0, 3), put_back=st.lists(targets, max_size=2), then=then)
    def quote_deleted(self, at: int, form: int, put_back: list[int], then: int) -> None:
        """R5: a deleted key in an entry that is refused for its form, and in the files again."""
        key = self.stored(at)
        name = key and next((name for name in NAMES if key.text == LINES[name]), None)
        if key and name:
            self.world.account.delete_key(key.id)
            self.sync()
            self.add_text(list(SPOILT[name])[form])
            for one in put_back:
                self.insert(one, 0, plain(name))
        self.sync(times=then)

    @rule(junk=st.lists(bad_texts, max_size=4), then=then)
    def delete_all(self, junk: list[str], then: int) -> None:
        """G3: all at once; somebody then saves another useless entry at each poll."""
        for key in self.world.stored():
            self.world.account.delete_key(key.id)
        for text in junk:
            for key in self.world.stored():
                self.world.account.delete_key(key.id)
            self.add_text(text)
            self.sync()
        self.sync(times=then)

    @rule(name=names, seen=st.lists(st.lists(names, max_size=3), min_size=2, max_size=4))
    def vary_list(self, name: str, seen: list[list[str]]) -> None:
        """G3: the list changes at each poll, and the owner lets none of its keys open a session."""
        for some in seen:
            for key in self.world.stored():
                self.world.account.delete_key(key.id)
            others = [one for one in NAMES if one != name]
            for one in [one for one in some if one != name] or others[:1]:
                self.add_text(LINES[one])
            forced = [b'command="/bin/true" ' + plain(one) for one in others]
            for target in self.world.targets:
                target.write(b"\n".join([*forced, plain(name) + b" " + TAG, b""]))
            self.sync()

    @rule(stays=rarely, times=st.integers(1, 3))
    def swap_account(self, stays: bool, times: int) -> None:
        """The API key is another account's for a while, or from now on."""
        self.swap()
        self.sync(times=times)
        if not stays:
            self.swap()
            self.sync()

    def swap(self) -> None:
        self.world.swapped = not self.world.swapped
        self.world.apply_fault()

    @rule(fault=st.sampled_from(FAULTS), stays=rarely, times=st.integers(1, 4))
    def break_api(self, fault: str | None, stays: bool, times: int) -> None:
        etag = self.world.console.switches.etag
        # A 304 has no body that could be cut off.
        self.world.set_fault(None if etag and fault == "truncated" else fault)
        self.sync(times=times)
        if not stays:
            self.world.set_fault(None)
            self.sync()

    @rule(how=st.sampled_from(("reset", "missing", "exposed")), then=then)
    def break_api_key(self, how: str, then: int) -> None:
        self.world.break_api_key(how)
        self.sync(times=then)
        self.world.use_api_key()
        self.sync(times=then)

    # ---- the files, by hand ----

    def lines(self, at: int) -> tuple[Target, list[bytes]]:
        target = self.world.targets[at]
        return target, [line.raw for line in read(target.data)]

    def insert(self, at: int, location: int, line: bytes) -> None:
        target, lines = self.lines(at)
        if len(lines) < _MOST_LINES:
            location = min(location, len(lines))
            if location == len(lines) and lines and not lines[-1].endswith(b"\n"):
                lines[-1] += b"\n"
            target.write(b"".join([*lines[:location], line + b"\n", *lines[location:]]))

    @rule(at=targets, location=places, line=key_lines, then=then)
    def write_line(self, at: int, location: int, line: bytes, then: int) -> None:
        self.insert(at, location, line)
        self.sync(times=then)

    @rule(at=targets, location=places, line=restricted_lines, then=then)
    def write_restricted_line(self, at: int, location: int, line: bytes, then: int) -> None:
        self.insert(at, location, line)
        self.sync(times=then)

    @rule(at=targets, location=places, line=st.sampled_from(NOISE), then=then)
    def write_noise(self, at: int, location: int, line: bytes, then: int) -> None:
        self.insert(at, location, line)
        self.sync(times=then)

    @rule(name=names, tag=st.sampled_from((b"", b" " + TAG)), times=st.integers(1, 4))
    def lock_up(self, name: str, tag: bytes, times: int) -> None:
        """G3: the owner forces a command on every listed key; one other way in is left."""
        if not self.stored_good():
            self.add_text(LINES[name])
        listed = {key.text.split(" ")[1] for key in self.stored_good()}
        forced = [
            b'command="/bin/true" ' + line.encode()
            for line in LINES.values()
            if line.split(" ")[1] in listed
        ]
        for _ in range(2):  # the second time another tool puts it back
            for target in self.world.targets:
                target.write(b"\n".join([*forced, plain(name) + tag, b""]))
            self.sync(times=times)

    @rule(
        at=targets,
        options=st.sampled_from((OPTIONS[1], OPTIONS[-1])),
        name=names,
        tags=st.booleans(),
        times=st.integers(1, 4),
    )
    def lock_out_oneself(self, at: int, options: bytes, name: str, tags: bool, times: int) -> None:
        """G3: a user's own files say that no listed key opens a session, with lines that go.

        That may hold up this user's files and no others.
        """
        user = self.world.targets[at].user
        shut = [options + b" " + plain(one) for one in NAMES]
        forged = [plain(name) + b" " + TAG * tags]
        for target in self.world.targets:
            if target.user == user:
                target.write(b"\n".join([*shut, *forged, b""]))
        self.sync(times=times)

    def stored_good(self) -> list[StoredKey]:
        return [key for key in self.world.stored() if key.text not in BAD]

    @rule(at=targets, location=places, then=then)
    def remove_line(self, at: int, location: int, then: int) -> None:
        target, lines = self.lines(at)
        if lines:
            lines.pop(location % len(lines))
            target.write(b"".join(lines))
        self.sync(times=then)

    @rule(at=targets, location=places, to=places, then=then)
    def copy_line(self, at: int, location: int, to: int, then: int) -> None:
        _, lines = self.lines(at)
        if lines:
            self.insert(at, to, lines[location % len(lines)].rstrip(b"\n"))
        self.sync(times=then)

    @rule(at=targets, order=st.randoms(use_true_random=False), then=then)
    def reorder(self, at: int, order: Random, then: int) -> None:
        target, lines = self.lines(at)
        if lines and lines[-1].endswith(b"\n"):
            order.shuffle(lines)
            target.write(b"".join(lines))
        self.sync(times=then)

    @rule(at=targets, then=then)
    def strip_tags(self, at: int, then: int) -> None:
        target, _ = self.lines(at)
        target.write(target.data.replace(b" " + TAG, b""))
        self.sync(times=then)

    @rule(at=targets, then=then)
    def crlf(self, at: int, then: int) -> None:
        target, _ = self.lines(at)
        target.write(target.data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        self.sync(times=then)

    @rule(at=targets, tags=st.booleans(), then=then)
    def cut_newline(self, at: int, tags: bool, then: int) -> None:
        """R6: with the tags gone there is something to write and nothing to append."""
        target, _ = self.lines(at)
        data = target.data.replace(b" " + TAG, b"") if tags else target.data
        target.write(data.removesuffix(b"\n"))
        self.sync(times=then)

    @rule(at=targets, name=names, then=then)
    def glue(self, at: int, name: str, then: int) -> None:
        """`>>` to a file that may have no final newline."""
        target, lines = self.lines(at)
        if len(lines) < _MOST_LINES:
            target.write(target.data + plain(name) + b"\n")
        self.sync(times=then)

    @rule(at=targets, then=then)
    def delete_file(self, at: int, then: int) -> None:
        target, _ = self.lines(at)
        if not target.obstacle:
            target.path.unlink(missing_ok=True)
        self.sync(times=then)

    @rule(at=targets, what=st.sampled_from(OBSTACLES), then=st.integers(1, 4))
    def block(self, at: int, what: str, then: int) -> None:
        """R11: what must not be touched stands in the file's place for some cycles."""
        target, _ = self.lines(at)
        target.block(what, self.world.victim)
        self.sync(times=then)
        target.unblock()
        self.sync()

    # ---- other tools ----

    @rule(then=then)
    def propagate(self, then: int) -> None:
        """The platform's boot script: each line of root's file to each user's, never one away."""
        _, roots = self.lines(0)
        for target in self.world.targets[1:]:
            data = target.data
            new = [line for line in roots if line not in data]
            if len(read(data)) + len(new) < _MOST_LINES:
                target.write(data + b"".join(new))
        self.sync(times=then)

    @rule(attached=st.lists(names, max_size=2), then=then)
    def refresh(self, attached: list[str], then: int) -> None:
        """The platform's refresh: root's file is what it was at creation, and what was attached."""
        more = [plain(name) + b"\n" for name in attached]
        self.world.targets[0].write(b"".join([*self.created, *more]))
        self.sync(times=then)

    @rule(at=targets, then=then)
    def cloud_init(self, at: int, then: int) -> None:
        """cloud-init's disable_root: a forced command in front of every key."""
        target, _ = self.lines(at)
        prefix = b'no-port-forwarding,command="echo \'Please log in as \\"user\\"\'" '
        target.write(
            b"".join(
                prefix + line.raw if line.sort == "plain" else line.raw
                for line in read(target.data)
            )
        )
        self.sync(times=then)

    # ---- keysync itself ----

    @rule(then=then)
    def restart(self, then: int) -> None:
        self.world.restart()
        self.sync(times=then)

    @rule(how=st.sampled_from(BREAKAGES), then=then)
    def lose_state(self, how: str, then: int) -> None:
        self.open_state()
        self.check.lose_state(how)
        self.sync(times=then)

    @rule(days=st.sampled_from((-20_000, -366, -1, 1, 366)), then=then)
    def jump(self, days: int, then: int) -> None:
        self.world.jump(days)
        self.check.status()
        self.sync(times=then)

    @rule(days=st.sampled_from((-1, 0, 0, 1)), then=then)
    def reboot(self, days: int, then: int) -> None:
        """The machine was off for a while, or its clock is wrong at first."""
        self.world.jump(days)
        self.world.reboot()
        self.check.status()
        self.sync(times=then)

    @precondition(lambda self: _MAY_MOUNT and not self.world.is_shut)
    @rule(stays=rarely, times=st.integers(0, 2))
    def shut_state(self, stays: bool, times: int) -> None:
        """G11: the state cannot be written, for a while or until further notice."""
        self.shut()
        self.sync(times=times)
        if not stays:
            self.open_state()

    @precondition(lambda _: _MAY_MOUNT)
    @rule(
        text=good_texts,
        at=ids,
        restart=rarely,
        put_back=st.lists(targets, max_size=2),
        times=st.integers(1, 2),
    )
    def list_while_shut(
        self, text: str, at: int, restart: bool, put_back: list[int], times: int
    ) -> None:
        """R5, G11: keys are listed and deleted meanwhile, and put back by others afterwards."""
        self.shut()
        if key := self.stored(at):
            self.world.account.delete_key(key.id)
        self.add_text(text)
        self.sync(times=times)
        if restart:
            self.world.restart()
        self.open_state()
        for stored in self.world.stored():
            if stored.text == text:
                self.world.account.delete_key(stored.id)
        self.sync()
        for one in put_back:
            self.insert(one, 0, text.strip().encode())
        self.sync()

    def shut(self) -> None:
        if self.check.broken_state or not self.world.state.exists():
            self.sync()
        if not self.world.is_shut:
            self.world.shut_state()

    @rule()
    def open_state(self) -> None:
        if self.world.is_shut:
            self.world.open_state()
            self.sync()

    def set_policy(self, policy: Policy, then: int) -> None:
        self.world.policy = policy
        self.world.restart()
        self.sync(times=then)

    @rule(at=targets, then=then)
    def retire(self, at: int, then: int) -> None:
        """R5: a target is taken out of the configuration."""
        policy = self.world.policy
        retired = policy.retired | {at}
        if len(retired) < _TARGETS:
            self.set_policy(replace(policy, retired=retired), then)

    @rule(at=targets, then=then)
    def take_back(self, at: int, then: int) -> None:
        policy = self.world.policy
        self.set_policy(replace(policy, retired=policy.retired - {at}), then)

    @rule(hold=st.booleans(), name=names, then=then)
    def hold_additions(self, hold: bool, name: str, then: int) -> None:
        """G14: from now on new keys wait, or no more."""
        additions = "hold" if hold else "apply"
        self.set_policy(replace(self.world.policy, additions=additions), then)
        self.add_text(LINES[name])
        self.sync(times=then)

    @rule(which=st.sampled_from(("all", "listed", *NAMES)), dry=rarely, then=then)
    def confirm_additions(self, which: str, dry: bool, then: int) -> None:
        """G14: all, or one, by a slip one that is not listed."""
        listed = [name for name in NAMES if FINGERPRINTS[name] in self.world.listed.valid]
        if which == "listed":
            which = listed[0] if listed else "all"
        self.sync(Order(additions=(which,), dry_run=dry))
        self.sync(times=then)

    @rule(at=ids, put_back=st.lists(targets, max_size=2), then=then)
    def relist(self, at: int, put_back: list[int], then: int) -> None:
        """G14: a key that comes back after its deletion waits again, and so does its line (R5)."""
        if key := self.stored(at):
            self.world.account.delete_key(key.id)
            self.sync()
            self.add_text(key.text)
            for one in put_back if key.text not in BAD else ():
                self.insert(one, 0, key.text.strip().encode())
        self.sync(times=then)

    @rule(pins=st.lists(names, unique=True, max_size=2), then=then)
    def set_pins(self, pins: list[str], then: int) -> None:
        self.set_policy(replace(self.world.policy, pins=tuple(pins)), then)

    @rule(then=then)
    def toggle_unmanaged(self, then: int) -> None:
        policy = self.world.policy
        self.set_policy(replace(policy, strict=not policy.strict), then)

    @rule(confirmations=st.integers(1, 3), then=then)
    def set_confirmations(self, confirmations: int, then: int) -> None:
        self.set_policy(replace(self.world.policy, confirmations=confirmations), then)

    @rule(hold_s=st.sampled_from((0, 60, 100)), then=then)
    def set_hold(self, hold_s: int, then: int) -> None:
        self.set_policy(replace(self.world.policy, hold_s=hold_s), then)

    @rule(most=st.sampled_from((None, "1h", "2d")), then=then)
    def set_max_staleness(self, most: str | None, then: int) -> None:
        self.set_policy(replace(self.world.policy, max_staleness=most), then)


def tally() -> str:
    return ", ".join(f"{count} {what}" for what, count in TALLY.most_common())


@pytest.mark.timeout(0 if LONG else 120)
@pytest.mark.parametrize("number", SEEDS)
def test_the_laws_hold_whatever_happens(number: int) -> None:
    """R1-R11, G1-G7, G11, G14: nobody is let in or locked out by any order of events."""
    if _MAY_MOUNT:
        in_own_mounts(lambda: run(number))
    else:
        run(number)
    print(f"seed {number}: {tally()}")  # noqa: T201  # reason: how much was tried, with -s


def run(number: int) -> None:
    seeded = type("Machine", (Machine,), {})
    run_state_machine_as_test(
        seeded if LONG else seed(number)(seeded),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=False,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
