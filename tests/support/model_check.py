"""One sync of the model check: what must come of it, and whether it did, law by law."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.adapters.state import StateDirectory
from agent.events import (
    KeyRejected,
    KeyStillAuthorized,
    StateSetAside,
    SyncCompleted,
    SyncFailed,
    SyncHeld,
)
from agent.service.report import SyncReport, TargetReport
from tests.support.model import (
    Asked,
    Expected,
    Hold,
    Listed,
    Memory,
    Order,
    Seen,
    danger,
    held,
    keys,
    read,
    refused,
)
from tests.support.model_world import Target, World

_MAX_STALENESS = {"1h": 3600, "2d": 172800}


@dataclass(frozen=True)
class Verdict:
    """What the guards make of a sync, and what is remembered afterwards."""

    code: int
    result: str
    kind: str | None
    memory: Memory
    listed: Listed | None = None  # None: there was none, or it was a stranger's
    applied: bool = False


class Check:
    """The model's side of the machine: its memory, and everything that must never be lost."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = Memory()
        self.broken_state = False
        self.originals: dict[str, bytes | None] = {}
        self.journalled: dict[str, set[bytes]] = {}
        self.last_code, self.last_result = 0, ""

    def lose_state(self, how: str) -> None:
        self.memory, broken = self.world.lose_state(how, self.memory)
        self.broken_state = broken or (self.broken_state and how not in ("folder", "ledger"))
        if how == "folder":
            self.originals, self.journalled = {}, {}

    # ---- one sync ----

    def sync(self, order: Order) -> SyncReport:
        """Runs it and holds it against every law."""
        world = self.world
        world.tick()
        before = [target.stamp for target in world.targets]
        data = [target.data for target in world.targets]
        everything = world.everything() if order.dry_run else {}
        asked, files = self._asked(), self._files()
        verdict = self._judge(order, files)
        report = world.run(order)
        self.last_code, self.last_result = report.exit_code, report.result
        self._outcome(report, verdict, order)
        if order.dry_run:
            assert world.everything() == everything, "a dry run changed something"
        for at, target in enumerate(world.targets):
            shown = next((one for one in report.targets if one.path == str(target.path)), None)
            if not verdict.applied or order.dry_run or target.obstacle:
                assert target.stamp == before[at], ("G1, G3, G4, G6, R11: untouched", target)
            else:
                self._bytes(target, before[at], files[str(target.path)])
                self._laws(read(data[at]), read(target.data), asked)
                self._nothing_lost(target, before[at] is not None, data[at])
            self._target(target, shown, verdict, files.get(str(target.path)), asked)
        stored = StateDirectory(str(world.state)).originals()
        assert {one.path: one.data for one in stored} == self.originals, "G5"
        assert world.victim.read_bytes() == b"of somebody else\n", "G8"
        if not order.dry_run:
            self._events(report, verdict)
            self.memory = verdict.memory
            self.broken_state = False
            self.status()
            self._clean()
        return report

    def _asked(self) -> Asked:
        world = self.world
        return Asked.of(world.listed, world.pins, self.memory, strict=world.policy.strict)

    def _files(self) -> dict[str, Expected]:
        asked = self._asked()
        free = (target for target in self.world.targets if not target.obstacle)
        return {str(target.path): Expected.of(target.data, asked) for target in free}

    # ---- what must come of it ----

    def _judge(self, order: Order, files: dict[str, Expected]) -> Verdict:
        """G1, G4, G3, in this order."""
        world, memory = self.world, self.memory
        if failure := world.failure:
            lost = replace(memory.broken_row(), failing=True)
            return Verdict(failure[0], "failed", failure[1], lost)
        listed = world.listed
        if kind := refused(listed, memory, order):
            return Verdict(3, "held", kind, replace(memory.broken_row(), failing=True))
        if order.accept is not None:
            memory = replace(memory, account=order.accept)
        memory = replace(memory, rejected=tuple(listed.rejected))
        own = {
            target.user: [
                files[str(t.path)]
                for t in world.targets
                if t.user == target.user and not t.obstacle
            ]
            for target in world.targets
        }
        found = danger(listed, own)
        kind, hold = held(listed, found, memory, world.policy.confirmations, order)
        memory = replace(memory, hold=hold, known=memory.known | listed.present)
        if kind:
            return Verdict(3, "held", kind, replace(memory, failing=True), listed)
        return self._applied(listed, memory, files)

    def _applied(self, listed: Listed, memory: Memory, files: dict[str, Expected]) -> Verdict:
        failing = any(target.obstacle for target in self.world.targets)
        memory = replace(
            memory,
            account=listed.account if memory.account is None else memory.account,
            gone=memory.known - listed.present,
            last_success=memory.last_success if failing else self.world.clock,
            failing=failing,
        )
        if failing:
            return Verdict(74, "failed", None, memory, listed, applied=True)
        changed = any(one.changes for one in files.values())
        result = "changed" if changed else "in_sync"
        return Verdict(0, result, None, memory, listed, applied=True)

    # ---- whether it did ----

    def _outcome(self, report: SyncReport, verdict: Verdict, order: Order) -> None:
        """G1-G4: every end has its name and its exit code; section 7."""
        kind = report.problem.kind if report.problem else None
        got = (report.exit_code, report.result, report.dry_run)
        assert got == (verdict.code, verdict.result, order.dry_run), (report, verdict)
        assert kind == verdict.kind or verdict.code == 74, (report, verdict)
        rejected = [(entry.key_id, entry.reason) for entry in report.rejected]
        bad = verdict.listed.rejected if verdict.listed else []
        assert rejected == [(key_id, one.reason) for key_id, one in bad], ("G2", report)
        if verdict.kind in ("empty_listing", "no_valid_entry", "would_lock_out"):
            hold = verdict.memory.hold
            assert hold is not None
            assert report.problem is not None
            said = f"seen in {hold.seen} of {hold.needed} polls"
            assert said in report.problem.hint, ("G3: counted", report.problem)

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
        assert target.path.stat().st_mode & 0o7777 == 0o600, "G9"

    def _laws(self, before: list[Seen], after: list[Seen], asked: Asked) -> None:
        """R1-R5 and R8 as they are written, on the file alone."""
        spoken_for = {line.key for line in after if line.sort == "restricted"}
        plain, managed = keys(after, "plain"), keys(after, "managed")
        for key in asked.wanted:
            count = (plain + managed).count(key)
            assert count == (0 if key in spoken_for else 1), ("R1, R4", key)
        assert not set(plain) & set(asked.listed), "R3"
        assert set(managed) <= {*asked.wanted, *asked.spared}, "R2"
        assert not asked.revoked & {*plain, *managed}, "R5"
        restricted = [line.raw for line in before if asked.stays(line)]
        stands = [line.raw.rstrip(b"\n") for line in after if line.sort == "restricted"]
        assert stands == [raw.rstrip(b"\n") for raw in restricted], "R4"
        if asked.strict:
            foreign = {*plain, *keys(after, "restricted")}
            assert foreign <= set(asked.pins), "R8"

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
        self,
        target: Target,
        shown: TargetReport | None,
        verdict: Verdict,
        expected: Expected | None,
        asked: Asked,
    ) -> None:
        """R10, R11, R4: what is said of a target is what was done to it."""
        if verdict.listed is None:
            assert shown is None, shown
            return
        assert shown is not None, ("R11: served, or said to have failed", target)
        if expected is None:
            assert shown.result == "failed", ("R11", shown)
            assert shown.problem is not None, ("R11", shown)
            return
        gone = {line.key for line in expected.removed}
        if not verdict.applied:
            assert shown.result == "held"
            assert {one.fingerprint for one in shown.would_remove} == gone, ("G3", shown)
            return
        assert shown.result == ("changed" if expected.changes else "in_sync"), ("R7, R11", shown)
        said = {name: [one.fingerprint for one in shown.entries[name]] for name in shown.entries}
        assert set(said["removed"]) == gone, ("R10", shown)
        assert sorted(said["added"]) == sorted(expected.added), ("R10", shown)
        assert sorted(said["adopted"]) == sorted(expected.adopted), ("R10", shown)
        staying = [line for line in expected.before if asked.stays(line)]
        assert said["restricted"] == [line.key for line in staying], ("R4", shown)
        loud = [one.fingerprint for one in shown.entries["restricted"] if one.reason == "revoked"]
        assert loud == [line.key for line in staying if line.key in asked.revoked], ("R4", shown)

    def _events(self, report: SyncReport, verdict: Verdict) -> None:
        """Section 9: one line for the cycle, and what must be said loudly is."""
        events = self.world.events
        kinds = {"failed": SyncFailed, "held": SyncHeld}
        last = [e for e in events if isinstance(e, SyncCompleted | SyncFailed | SyncHeld)]
        assert [type(e) for e in last] == [kinds.get(verdict.result, SyncCompleted)], events
        aside = [e for e in events if isinstance(e, StateSetAside)]
        assert len(aside) == self.broken_state, ("section 10", events)
        loud = sorted(
            (target.path, entry.fingerprint)
            for target in report.targets
            for entry in target.entries.get("restricted", ())
            if verdict.applied and entry.reason == "revoked"
        )
        events_loud = [e for e in events if isinstance(e, KeyStillAuthorized)]
        assert sorted((e.path, e.fingerprint) for e in events_loud) == loud, ("R4", events)
        new = [e.key_id for e in events if isinstance(e, KeyRejected)]
        if verdict.listed is not None:
            news = [e for e in verdict.listed.rejected if e not in self.memory.rejected]
            assert new == [key_id for key_id, _ in news], ("G2: said once", events)

    def status(self) -> None:
        """R4, R5, G3, G4, G6: `status --json` agrees with an independent reading of the disk."""
        world, memory = self.world, self.memory
        status = json.loads(json.dumps(world.status().as_json()))
        age = None if memory.last_success is None else _seconds(memory.last_success, world.clock)
        most = _MAX_STALENESS.get(world.policy.max_staleness or "")
        stale = most is not None and (age is None or abs(age) > most)
        assert (status["last_success_age"], status["stale"]) == (age, stale), "G6"
        assert (status["account_id"], status["failing"]) == (memory.account, memory.failing), "G4"
        assert status["held"] == _hold_json(memory.hold), "G3"
        assert bool(status["state_problem"]) == self.broken_state, "section 10"
        for target, shown in zip(world.targets, status["targets"], strict=True):
            assert bool(shown["error"]) == bool(target.obstacle), "R11"
            if not target.obstacle:
                found = [_shown(key) for key in shown["keys"]]
                assert found == self._read_status(target), ("status", shown)

    def _read_status(self, target: Target) -> list[tuple[int, str, str, str]]:
        world = self.world
        gone = self.memory.gone - set(world.pins)
        found = []
        for at, line in enumerate(read(target.data), 1):
            access = {"plain": "foreign"}.get(line.sort, line.sort)
            if line.key in world.pins and line.sort != "restricted":
                access = "pinned"
            if line.key:
                found.append((at, access, line.key, _note(line, revoked=line.key in gone)))
        return found

    def _clean(self) -> None:
        """G7: nothing half done is left behind."""
        for path in self.world.folder.rglob(".*"):
            raise AssertionError(("G7: left behind", path))


def _note(line: Seen, *, revoked: bool) -> str:
    """R4, R5: the word that tells a person what is special about the line."""
    if b"bad-option" in line.options:
        return "ignores"
    if not revoked:
        return ""
    return "still authorized" if line.sort == "restricted" else "next sync removes"


def _shown(key: dict[str, Any]) -> tuple[int, str, str, str]:
    words = ("ignores", "still authorized", "next sync removes", "")
    note = next(word for word in words if word in (key["note"] or ""))
    return key["line"], key["access"], key["fingerprint"], note


def _hold_json(hold: Hold | None) -> dict[str, object] | None:
    if hold is None:
        return None
    return {
        "reason": hold.reason,
        "seen": hold.seen,
        "needed": hold.needed,
        "applied": hold.passed,
    }


def _seconds(start: str, end: str) -> int:
    first, last = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (start, end))
    return int((last - first).total_seconds())
