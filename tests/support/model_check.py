"""One sync of the model check: what must come of it, and whether it did, law by law."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from agent.adapters.state import StateDirectory
from agent.events import (
    KeyHeld,
    KeyRejected,
    KeyStillAuthorized,
    StateSetAside,
    StateWriteFailed,
    SyncCompleted,
    SyncFailed,
    SyncHeld,
    TargetRetired,
    UserLockedOut,
)
from agent.service.report import SyncReport, TargetReport
from tests.support.model import (
    EVERYBODY,
    Asked,
    Expected,
    Hold,
    Instant,
    Listed,
    Memory,
    Order,
    Seen,
    danger,
    held,
    keys,
    locks_out,
    read,
    refused,
    waits,
)
from tests.support.model_world import INTERVAL, Target, World

_MAX_STALENESS = {"1h": 3600, "2d": 172800}
_TO_REMOVE = "deleted on the console; "  # by the next sync, or once it is held no more
_EXPIRED = datetime(2020, 1, 1, tzinfo=timezone.utc)  # of the lines that have an end
_MOST_EVENTS = 10  # of one kind for one file, or for one answer (docs/events.md)
_MARK_SECONDS = 60.0  # how far behind the last success may be that is on disk


@dataclass(frozen=True)
class Verdict:
    """What the guards make of a sync, and what is remembered afterwards.

    `files` is what each readable one must become, by path; `held` are the users whose files are
    held; `full` says that nothing could be recorded where that was needed (G11).
    """

    code: int
    result: str
    kind: str | None
    memory: Memory
    listed: Listed | None = None  # None: there was none, or it was a stranger's
    applied: bool = False
    asked: Asked = field(default_factory=Asked)
    files: dict[str, Expected] = field(default_factory=dict)
    served: tuple[Target, ...] = ()
    held: frozenset[str] = frozenset()
    shut_out: tuple[str, ...] = ()
    full: bool = False
    nothing_enters: frozenset[str] = frozenset()  # paths
    spoken: dict[str, frozenset[str]] = field(default_factory=dict)  # R4: keys, by user

    def writes(self, target: Target) -> bool:
        """Whether the file may be written at all."""
        return self.applied and str(target.path) in self.files and target.user not in self.held


class Check:
    """The model's side of the machine: its memory, and everything that must never be lost.

    `memory` is what the process remembers, `disk` what is left when it ends: they differ while the
    state cannot be written.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = self.disk = Memory()
        self.broken_state = False
        self.originals: dict[str, bytes | None] = {}
        self.journalled: dict[str, set[bytes]] = {}
        self.successes: set[tuple[str, str, float]] = set()
        self.last_code, self.last_result = 0, ""
        self._syncer = world.syncer

    def lose_state(self, how: str) -> None:
        self.disk, broken = self.world.lose_state(how, self.disk)
        self.memory = self.disk
        self.broken_state = broken or (self.broken_state and how not in ("folder", "ledger"))
        if how == "folder":
            self.originals, self.journalled = {}, {}

    # ---- one sync ----

    def sync(self, order: Order, tick: float = INTERVAL) -> SyncReport:
        """Runs it and holds it against every law."""
        world = self.world
        if world.syncer is not self._syncer:  # keysync was started anew
            self._syncer, self.memory = world.syncer, self.disk
        world.tick(tick)
        before = [target.stamp for target in world.targets]
        data = [target.data for target in world.targets]
        ways_in = self._ways_in()
        everything = world.everything() if order.dry_run else {}
        verdict = self._judge(order)
        report = world.run(order)
        self.last_code, self.last_result = report.exit_code, report.result
        self._outcome(report, verdict, order)
        if order.dry_run:
            assert world.everything() == everything, "a dry run changed something"
        for at, target in enumerate(world.targets):
            expected = verdict.files.get(str(target.path))
            if expected is None or order.dry_run or not verdict.writes(target):
                assert target.stamp == before[at], ("G1, G3, G4, G6, R11: untouched", target)
            else:
                self._bytes(target, before[at], expected)
                self._laws(target, expected, verdict)
                if not world.is_shut:
                    self._nothing_lost(target, before[at] is not None, data[at])
            shown = self._shown(report, target)
            self._target(target, shown, verdict, dry_run=order.dry_run)
        self._nobody_shut_out(ways_in, verdict, order)
        stored = StateDirectory(str(world.state)).originals()
        assert {one.path: one.data for one in stored} == self.originals, "G5"
        assert world.victim.read_bytes() == b"of somebody else\n", "G8"
        if not order.dry_run:
            self._events(report, verdict)
            self._remember(report, verdict)
            self.status()
            self._clean()
        return report

    def _ways_in(self) -> dict[str, bool]:
        """G3: whether each user's files let somebody in; the users with an unread one aside."""
        users = {one.user: True for one in self.world.targets}
        for user in list(users):
            own = self._doors(user, self.world.targets)
            if any(one.obstacle for one in own):
                del users[user]
            else:
                users[user] = any(line.opens for one in own for line in read(one.data))
        return users

    def _nobody_shut_out(self, before: dict[str, bool], verdict: Verdict, order: Order) -> None:
        """G3, whatever else happens: the last way in goes only by a hold that was let pass, or
        by the operator's word.
        """
        for user, way_in in self._ways_in().items():
            passed = {EVERYBODY, user} & set(verdict.memory.holds)
            assert way_in or not before[user] or passed or order.confirm, ("G3: locked out", user)

    def _shown(self, report: SyncReport, target: Target) -> TargetReport | None:
        found = [one for one in report.targets if one.path == str(target.path)]
        assert len(found) < 2, found
        return found[0] if found else None

    def _remember(self, report: SyncReport, verdict: Verdict) -> None:
        world = self.world
        self.memory = verdict.memory
        if verdict.code in (0, 4):
            self.successes.add((world.now.text, world.now.boot, world.now.seconds))
        if world.is_shut:  # a success is not on record then, and its age is overstated later
            self.memory = replace(self.memory, last_success=self.disk.last_success)
            return
        if report.exit_code == 2:  # a slip of the operator's; only a broken ledger is mended
            self.memory = self.disk
        self.disk, self.broken_state = self.memory, False

    # ---- what must come of it ----

    def _judge(self, order: Order) -> Verdict:
        """G1, G4, G14, G3, in this order."""
        world, memory = self.world, self.memory
        if failure := world.failure:
            return Verdict(failure[0], "failed", failure[1], replace(memory, failing=True))
        listed = world.listed
        if kind := refused(listed, memory, order):
            return Verdict(3, "held", kind, replace(memory, failing=True))
        if set(order.confirmed) - {"all"} - set(listed.valid):
            return Verdict(2, "failed", "not_listed", memory)
        if order.accept is not None:
            memory = replace(memory, account=order.accept)
        listed = listed.protecting(memory)
        holds_back = world.policy.additions == "hold"
        waiting = waits(listed, memory, order) if holds_back else frozenset[str]()
        memory = memory.recorded(listed)
        configured = frozenset(str(target.path) for target in world.configured)
        memory = memory.targeted(configured)
        entering = frozenset(listed.valid) - waiting
        on_record = set(listed.valid) <= self.disk.known
        if holds_back:  # G14: what is accepted is on record too before it enters
            memory = memory.accepting(entering)
            on_record &= entering <= self.disk.accepted
        asked = Asked.of(listed, world.pins, memory, waiting, strict=world.policy.strict)
        can_record = not world.is_shut or on_record
        verdict = self._planned(
            Verdict(0, "in_sync", None, memory, listed, asked=asked),
            may_enter=can_record or order.dry_run,
        )
        return self._guarded(verdict, listed, waiting, order, full=not can_record)

    def _planned(self, verdict: Verdict, *, may_enter: bool) -> Verdict:
        """What R1-R8 ask for in each file that is or was a target."""
        asked, memory = verdict.asked, verdict.memory
        retired = [one for one in self.world.targets if str(one.path) in memory.retired]
        served = (*self.world.configured, *retired)
        readable = [one for one in served if not one.obstacle]
        spoken = {
            user: asked.speaks(
                line for one in readable if one.user == user for line in read(one.data)
            )
            for user in {one.user for one in readable}
        }
        files, closed = {}, set[str]()
        for one in readable:
            path = str(one.path)
            if one in retired or not may_enter:
                closed.add(path)
                files[path] = Expected.where_nothing_enters(one.data, asked)
            else:
                files[path] = Expected.of(one.data, asked, spoken[one.user])
        return replace(
            verdict,
            served=served,
            files=files,
            nothing_enters=frozenset(closed),
            spoken=spoken,
        )

    def _own(self, verdict: Verdict) -> dict[str, list[Expected]]:
        """The readable files of each user by which one can log in, as they must become."""
        return {
            user: [
                verdict.files[str(one.path)]
                for one in self._doors(user, verdict.served)
                if str(one.path) in verdict.files
            ]
            for user in dict.fromkeys(one.user for one in verdict.served)
        }

    def _doors(self, user: str, targets: Sequence[Target]) -> list[Target]:
        """G3: a retired file is no way in, unless the user has no other."""
        mine = [one for one in targets if one.user == user]
        return [one for one in mine if one in self.world.configured] or mine

    def _guarded(
        self,
        verdict: Verdict,
        listed: Listed,
        waiting: frozenset[str],
        order: Order,
        *,
        full: bool,
    ) -> Verdict:
        """G3: for everybody, and then for each user alone."""
        world, memory = self.world, verdict.memory
        rule = replace(world.rule, confirmed=order.confirm)
        now, earlier = world.now, memory.holds
        kind = danger(listed)
        holds = {}
        before = earlier.get(EVERYBODY)
        if kind is None and before and before.passed and not set(listed.valid) - waiting:
            holds[EVERYBODY] = before  # until something may enter
        if kind:
            is_held, hold = held(kind, before, rule, now)
            if is_held:
                memory = replace(memory, holds={**earlier, EVERYBODY: hold}, failing=True)
                return replace(verdict, code=3, result="held", kind=kind, memory=memory, full=full)
            holds[EVERYBODY] = hold
            if not (before and before.passed):  # it ends now, and nobody is held once more
                rule = replace(rule, confirmed=True)
        users_held = set()
        for user, own in self._own(verdict).items():
            last = earlier.get(user)
            if locks_out(own):
                counts = not full or order.dry_run  # G11: not while nothing may enter
                is_held, holds[user] = held("would_lock_out", last, rule, now, counts=counts)
                if is_held:
                    users_held.add(user)
            elif last and last.passed and not any(one.ways_in for one in own):
                holds[user] = last  # until there is a way in
        memory = replace(memory.applied(listed, waiting), holds=holds)
        verdict = replace(
            verdict,
            memory=memory,
            applied=True,
            held=frozenset(users_held),
            full=full and not order.dry_run,
        )
        if world.is_shut and not order.dry_run:
            verdict = self._where_nothing_can_be_kept(verdict, order)
        return self._concluded(verdict)

    def _where_nothing_can_be_kept(self, verdict: Verdict, order: Order) -> Verdict:
        """G5, G11: where the original cannot be saved nothing enters, and keys go; where it is the
        journal alone, keys enter all the same if only lines of deleted ones go.
        """
        files, closed, full = dict(verdict.files), set(verdict.nothing_enters), verdict.full
        for one in verdict.served:
            expected = files.get(str(one.path))
            if expected is None or not verdict.writes(one) or not expected.changes:
                continue
            is_saved = str(one.path) in self.originals
            if is_saved and not expected.removed:
                continue
            full = True
            if is_saved and expected.only_revokes:
                continue
            closed.add(str(one.path))
            files[str(one.path)] = Expected.where_nothing_enters(one.data, verdict.asked)
            own = self._own(replace(verdict, files=files))[one.user]
            is_door = one in self._doors(one.user, verdict.served)
            confirmed = order.confirm or one.user in verdict.memory.holds
            if is_door and not confirmed and locks_out(own):
                del files[str(one.path)]  # G3: it stays as it is, and is said to have failed
        return replace(verdict, files=files, nothing_enters=frozenset(closed), full=full)

    def _concluded(self, verdict: Verdict) -> Verdict:
        """How the cycle ends, the gravest first."""
        memory = verdict.memory
        shut_out = tuple(
            user
            for user, own in self._own(verdict).items()
            if user not in verdict.held and self._shut_out(user, own, verdict)
        )
        verdict = replace(verdict, shut_out=shut_out)
        failing = any(target.obstacle for target in verdict.served)
        if failing or verdict.full:
            code, result, kind = 74, "failed", None
        elif verdict.held:
            code, result, kind = 3, "held", "would_lock_out"
        else:
            changed = any(one.changes for one in verdict.files.values())
            code, result, kind = 4 if shut_out else 0, "changed" if changed else "in_sync", None
            memory = replace(memory, last_success=self.world.now)
        memory = replace(memory, failing=code not in (0, 4))
        return replace(verdict, code=code, result=result, kind=kind, memory=memory)

    def _shut_out(self, user: str, own: Sequence[Expected], verdict: Verdict) -> bool:
        """Whether nobody can log in as this user of a target; unknown where a file is unread."""
        mine = self._doors(user, verdict.served)
        configured = any(target in self.world.configured for target in mine)
        return configured and len(own) == len(mine) and not any(one.ways_in for one in own)

    # ---- whether it did ----

    def _outcome(self, report: SyncReport, verdict: Verdict, order: Order) -> None:
        """G1-G4: every end has its name and its exit code."""
        kind = report.problem.kind if report.problem else None
        assert report.dry_run == order.dry_run
        got = (report.exit_code, report.result)
        if self.world.is_shut and not order.dry_run and verdict.code in (0, 3, 4):
            # G11: where something had to be remembered that could not be.
            assert got in ((verdict.code, verdict.result), (74, "failed")), (report, verdict)
        else:
            assert got == (verdict.code, verdict.result), (report, verdict)
        assert kind == verdict.kind or report.exit_code == 74, (report, verdict)
        rejected = [(entry.key_id, entry.reason) for entry in report.rejected]
        bad = verdict.listed.rejected if verdict.listed else []
        assert rejected == [(key_id, one.reason) for key_id, one in bad], ("G2", report)
        waiting = {one.fingerprint for one in report.waiting}
        assert not verdict.applied or waiting == verdict.memory.waiting, ("G14", report)
        assert sorted(report.no_way_in) == sorted(verdict.shut_out), ("G3", report, verdict)
        if report.exit_code == 3 and kind not in ("account_changed", "account_unknown"):
            assert report.problem is not None
            users = verdict.held if verdict.applied else {EVERYBODY}
            holds = [verdict.memory.holds[user] for user in users]
            said = [f"Seen in {hold.seen} of {hold.needed} polls" for hold in holds]
            assert any(one in report.problem.hint for one in said), ("G3: counted", report.problem)
            named = all(user in report.problem.message for user in users)
            assert named, ("G3: says whose files", report.problem)

    def _bytes(self, target: Target, before: Any, expected: Expected) -> None:
        """R6, R7, R9, G7: the bytes are the old ones and the new lines, and else not written."""
        if not expected.changes:
            assert target.stamp == before, ("R7", target)
            return
        data = target.data
        assert data.startswith(expected.kept), ("R6", expected.kept, data)
        new = read(data[len(expected.kept) :])
        assert [line.sort for line in new] == ["managed"] * len(expected.added), ("R1", new)
        assert {line.key for line in new} == expected.added, ("R1", new)
        assert not new or data.endswith(b"\n"), ("R6: others append behind it", data)
        mode = target.path.stat().st_mode & 0o7777
        assert mode == (before[2] & 0o7777 if before else target.new_mode), "G9"

    def _laws(self, target: Target, expected: Expected, verdict: Verdict) -> None:
        """R1-R5, R8, G11 and G14 as they are written, on the user's files alone."""
        asked, before, after = verdict.asked, expected.before, read(target.data)
        plain, managed = keys(after, "plain"), keys(after, "managed")
        assert set(managed) <= {*asked.desired, *asked.listed_but_malformed, *asked.waiting}, "R2"
        assert not asked.revoked & {*plain, *managed}, "R5"
        entered = set(managed) - set(keys(before, "managed"))
        assert not entered & verdict.memory.waiting - set(asked.pins), "G14"
        assert not self.world.is_shut or entered <= {*self.disk.known, *asked.pins}, "G11"
        if str(target.path) in verdict.nothing_enters:
            assert not entered, "R5, G11: nothing is added"
            return
        spoken_for = asked.speaks(
            line
            for one in verdict.served
            if one.user == target.user and not one.obstacle
            for line in read(one.data)
        )
        for key in asked.desired:
            if key in spoken_for:
                assert key not in managed, ("R4", key)
                assert plain.count(key) == keys(before, "plain").count(key), ("R4", key)
            else:
                assert (plain + managed).count(key) == 1, ("R1", key)
        assert not set(plain) & set(asked.listed) - spoken_for, "R3"
        restricted = [line.raw for line in before if asked.stays(line)]
        stands = [line.raw.rstrip(b"\n") for line in after if line.sort == "restricted"]
        assert stands == [raw.rstrip(b"\n") for raw in restricted], "R4"
        if asked.strict:
            foreign = {*plain, *keys(after, "restricted")}
            assert foreign <= {*asked.pins, *asked.waiting}, "R8, G14"

    def _nothing_lost(self, target: Target, existed: bool, data: bytes) -> None:
        """G5: the first bytes are saved, and every line that went can be read in the journal."""
        path = str(target.path)
        if target.data == data and existed == target.path.exists():
            return
        self.originals.setdefault(path, data if existed else None)
        after = [line.raw.rstrip(b"\n") for line in read(target.data)]
        for line in read(data):
            raw, tagged = line.raw.rstrip(b"\n"), line.tagged.rstrip(b"\n")
            if raw in after or (line.sort == "plain" and tagged in after):
                continue
            self.journalled.setdefault(path, set()).add(raw)
        self._journal(path)

    def _journal(self, path: str) -> None:
        journal = self.world.state / "journal.jsonl"
        text = journal.read_bytes() if journal.exists() else b""
        records = [json.loads(line) for line in text.splitlines()]
        found = [base64.b64decode(one["removed"]) for one in records if one["path"] == path]
        assert self.journalled.get(path, set()) <= set(found), ("G5", path)
        assert len(found) == len(set(found)), ("the journal grows without need", path)

    def _target(
        self, target: Target, shown: TargetReport | None, verdict: Verdict, *, dry_run: bool
    ) -> None:
        """R10, R11, R4: what is said of a target is what was done to it."""
        if target not in verdict.served:
            assert shown is None, shown
            return
        assert shown is not None, ("R11: served, or said to have failed", target)
        path, asked = str(target.path), verdict.asked
        origin = "retired" if path in verdict.memory.retired else "configured"
        assert (shown.user, shown.origin) == (target.user, origin), ("R5", shown)
        expected = verdict.files.get(path)
        if expected is None:
            assert shown.result == "failed", ("R11", shown)
            assert shown.problem is not None, ("R11", shown)
            return
        gone = {line.key for line in expected.removed}
        if not verdict.writes(target):
            assert shown.result == "held"
            assert {one.fingerprint for one in shown.would_remove} == gone, ("G3", shown)
            return
        result = "changed" if expected.changes else "in_sync"
        if not dry_run and origin == "configured" and path in verdict.nothing_enters:
            full = Expected.of(target.data, asked, verdict.spoken[target.user])
            result = "failed" if full.changes else result  # G11: something waits
        assert shown.result == result, ("R7, R11, G11", shown)
        said = {name: [one.fingerprint for one in shown.entries[name]] for name in shown.entries}
        assert set(said["removed"]) == gone, ("R10", shown)
        assert sorted(said["added"]) == sorted(expected.added), ("R10", shown)
        assert sorted(said["adopted"]) == sorted(expected.adopted), ("R10", shown)
        staying = [
            line
            for line, what in zip(expected.before, expected.fate, strict=True)
            if line.sort == "restricted" and what == "keep"
        ]
        assert said["restricted"] == [line.key for line in staying], ("R4", shown)
        loud = [one.fingerprint for one in shown.entries["restricted"] if one.reason == "revoked"]
        assert loud == [line.key for line in staying if line.key in asked.revoked], ("R4", shown)

    def _events(self, report: SyncReport, verdict: Verdict) -> None:
        """Logs: one line for the cycle, and what must be said loudly is."""
        events = self.world.events
        kinds = {"failed": SyncFailed, "held": SyncHeld}
        last = [e for e in events if isinstance(e, SyncCompleted | SyncFailed | SyncHeld)]
        assert [type(e) for e in last] == [kinds.get(report.result, SyncCompleted)], events
        aside = [e for e in events if isinstance(e, StateSetAside)]
        assert len(aside) == self.broken_state, ("state", events)
        loud = []
        for target in report.targets if verdict.listed else ():
            restricted = target.entries.get("restricted", ())
            revoked = [one.fingerprint for one in restricted if one.reason == "revoked"]
            loud += [(target.path, one) for one in revoked[:_MOST_EVENTS]]  # G12
        events_loud = [e for e in events if isinstance(e, KeyStillAuthorized)]
        assert sorted((e.path, e.fingerprint) for e in events_loud) == sorted(loud), ("R4", events)
        new = [e.key_id for e in events if isinstance(e, KeyRejected)]
        if verdict.listed is not None:
            told = {(key_id, one.reason) for key_id, one in self.memory.rejected}
            news = [(key_id, one.reason) for key_id, one in verdict.listed.rejected]
            said = [key_id for key_id, reason in news if (key_id, reason) not in told]
            assert new == said[:_MOST_EVENTS], ("G2: said once", events)
        shut_out = [e.user for e in events if isinstance(e, UserLockedOut)]
        assert sorted(shut_out) == sorted(verdict.shut_out), ("G3", events)
        if verdict.applied:
            waiting = {e.fingerprint for e in events if isinstance(e, KeyHeld)}
            assert waiting == verdict.memory.waiting - self.memory.waiting, ("G14", events)
        retired = {e.path for e in events if isinstance(e, TargetRetired)}
        assert retired == verdict.memory.retired - self.memory.retired, ("R5", events)
        unwritten = [e for e in events if isinstance(e, StateWriteFailed)]
        assert len(unwritten) <= self.world.is_shut, ("G11", events)
        assert unwritten or not verdict.full, ("G11", events)

    def status(self) -> None:
        """R4, R5, G3, G4, G6: `status --json` agrees with an independent reading of the disk."""
        world, memory = self.world, self.disk
        ledger, _ = StateDirectory(str(world.state)).load()
        status = json.loads(json.dumps(world.status().as_json()))
        success = ledger.last_success
        shown = success and Instant(_wall(success.at), success.boot, success.seconds)
        self._last_success(shown, status)
        assert status["account_id"] == memory.account, "G4"
        assert status["failing"] == memory.failing
        found = {
            user: (hold.reason, hold.seen, hold.needed, hold.waited_s, hold.wait_s, hold.confirmed)
            for user, hold in ledger.holds.items()
        }
        assert found == {user: _hold(hold) for user, hold in memory.holds.items()}, "G3"
        counted = {one["user"] or EVERYBODY: one["seen"] for one in status["held"]}
        assert counted == {user: hold.seen for user, hold in memory.holds.items()}, "G3"
        assert {one["fingerprint"] for one in status["waiting"]} == memory.waiting, "G14"
        assert {one["path"] for one in status["retired"]} == memory.retired, "R5"
        assert bool(status["state_problem"]) == self.broken_state, "state"
        targets = {one["path"]: one for one in status["targets"]}
        # The last are those that the next sync will retire, if they are configured no more.
        known = {*(str(one.path) for one in world.configured), *memory.retired}
        known |= {one.path for one in ledger.targets}
        assert set(targets) == known, "R5"
        for path, target in ((str(one.path), one) for one in world.targets):
            if path not in known:
                continue
            assert bool(targets[path]["error"]) == bool(target.obstacle), "R11"
            if not target.obstacle:
                lines = [_shown(key) for key in targets[path]["keys"]]
                assert lines == self._read_status(target), ("status", targets[path])

    def _last_success(self, shown: Instant | None, status: dict[str, Any]) -> None:
        """G6: the age that is shown is that of a success, and of the last but for a minute."""
        world, last = self.world, self.disk.last_success
        if shown is not None:
            known = (shown.text, shown.boot, shown.seconds) in self.successes
            assert known, ("G6: that was no success", shown)
        if last is not None:
            assert shown is not None, "G6"
            behind = last.since(shown)
            assert behind is None or behind < _MARK_SECONDS, ("G6", shown, last)
        passed = world.now.since(shown) if shown else None
        age = None if passed is None else int(passed)
        most = _MAX_STALENESS.get(world.policy.max_staleness or "")
        stale = most is not None and (age is None or age > most)
        assert (status["last_success_age"], status["stale"]) == (age, stale), "G6"

    def _read_status(self, target: Target) -> list[tuple[int, str, str, str]]:
        world = self.world
        gone = self.disk.gone - set(world.pins)
        found = []
        for at, line in enumerate(read(target.data), 1):
            access = {"plain": "foreign"}.get(line.sort, line.sort)
            if line.key in world.pins and line.sort != "restricted":
                access = "pinned"
            if line.key:
                found.append((at, access, line.key, self._note(line, revoked=line.key in gone)))
        return found

    def _note(self, line: Seen, *, revoked: bool) -> str:
        """R4, R5: the word that tells a person what is special about the line."""
        if b"bad-option" in line.options:
            return "ignores"
        if b"expiry-time" in line.options and self.world.now.wall > _EXPIRED:
            return "expired"
        if not revoked:
            return ""
        return "still authorized" if line.sort == "restricted" else _TO_REMOVE

    def _clean(self) -> None:
        """G7: nothing half done is left behind."""
        for path in self.world.folder.rglob(".*"):
            raise AssertionError(("G7: left behind", path))


def _shown(key: dict[str, Any]) -> tuple[int, str, str, str]:
    words = ("ignores", "expired", "still authorized", _TO_REMOVE, "")
    note = next(word for word in words if word in (key["note"] or ""))
    return key["line"], key["access"], key["fingerprint"], note


def _hold(hold: Hold) -> tuple[str, int, int, float, float, bool]:
    return hold.reason, hold.seen, hold.needed, hold.waited, hold.wait, hold.passed


def _wall(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
