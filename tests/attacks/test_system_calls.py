"""Every system call of a sync that changes the disk, and everything that can happen there (G7).

The points are recorded from a sync, not written down; `test_system_calls_traced.py` shows with
strace that no call which changes the disk is missing among them.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.attacks.support import Lane, open_lanes
from tests.support.crash_scene import SCENES, Scene
from tests.support.disk_faults import End, Fault, Kind, Point, library

pytestmark = pytest.mark.attack

_KILLS = (Kind.KILL_BEFORE, Kind.KILL_AFTER)
_HALVES = (Kind.HALF, Kind.HALF_THEN_KILL, Kind.HALF_THEN_FAIL)
_SAID = {
    errno.ENOSPC: "the disk is full",
    errno.EIO: "the disk reported an I/O error",
    errno.EROFS: "the file system is read-only",
    errno.EDQUOT: "the disk quota is used up",
    errno.EINTR: "a signal interrupted it",
}
# These are repeated by Python when a signal interrupts them (PEP 475).
_REPEATED = {"openat", "write", "fsync", "fchmod", "fchown", "flock"}


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("preload"))


@pytest.fixture(params=SCENES, ids=lambda plot: plot.__name__)
def lanes(request: pytest.FixtureRequest, preload: Path, tmp_path: Path) -> Iterator[list[Lane]]:
    with open_lanes(request.param, preload, tmp_path) as found:
        yield found


def _faults(point: Point) -> Iterator[Fault]:
    for kind in _KILLS:
        yield Fault(point, kind)
    for code in _SAID:
        yield Fault(point, Kind.FAIL, code)
    if point.call == "write":
        for kind in _HALVES:
            yield Fault(point, kind, errno.ENOSPC if kind is Kind.HALF_THEN_FAIL else 0)


def test_every_fault_at_every_call(lanes: list[Lane]) -> None:
    """G5, G7, §7, §10: old or new, whole and the user's; said by name; mended by the next sync."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        assert sum(pool.map(_run_lane, lanes)) > 0


def _run_lane(lane: Lane) -> int:
    """Every so many-th fault of all; gives how many they were."""
    recorded = lane.syncs.sync()
    lane.scene.check_done(recorded)
    lane.scene.check_idle(lane.syncs.sync)
    faults = [fault for point in recorded.points for fault in _faults(point)]
    known: set[frozenset[tuple[str, bytes]]] = set()
    for fault in faults[lane.number :: lane.of]:
        lane.scene.reset()
        end = lane.syncs.sync(fault)
        try:
            _check_reached(end, fault)
            lane.scene.check_whole()
            _check_end(lane.scene, end, fault)
            lane.scene.check_done(lane.syncs.sync())
            if lane.scene.outcome not in known:  # byte for byte as after another fault
                known.add(lane.scene.outcome)
                lane.scene.check_idle(lane.syncs.sync)
        except AssertionError as failure:
            raise AssertionError(f"{fault}: {failure}\n{end}") from failure
    return len(faults[lane.number :: lane.of])


def _check_reached(end: End, fault: Fault) -> None:
    """The run was the recorded one up to the fault."""
    assert len(end.points) >= fault.point.number
    assert end.points[fault.point.number - 1].plain == fault.point.plain


def _check_end(scene: Scene, end: End, fault: Fault) -> None:
    if fault.kind in (*_KILLS, Kind.HALF_THEN_KILL):
        assert end.was_killed
        return
    assert "Traceback" not in end.stderr
    events = [json.loads(line)["event"] for line in end.stderr.splitlines()]
    if not _is_fatal(scene, fault):
        scene.check_done(end)
        return
    assert end.code == 74
    assert events[-1] == "sync.failed"
    error = end.json["error"]
    assert str(scene.machine.folder) in error["message"]
    assert _SAID[fault.code] in error["message"]
    assert error["hint"]
    _check_others(scene, end, fault)


def _is_fatal(scene: Scene, fault: Fault) -> bool:
    """A short write is continued, an interrupted call repeated, a courtesy lock done without."""
    if fault.kind is Kind.HALF:
        return False
    if fault.code == errno.EINTR and fault.point.call in _REPEATED:
        return False
    in_state = fault.point.path.startswith(str(scene.machine.state))
    return in_state or fault.point.call != "flock"


def _check_others(scene: Scene, end: End, fault: Fault) -> None:
    """R11: the targets in other folders were served; nothing unfinished lies about."""
    for target in scene.targets:
        folder = str(target.path.parent)
        mine = fault.point.path.startswith(folder)
        if not mine and fault.point.path.startswith(str(scene.home)) and len(scene.targets) > 1:
            assert target.on_disk == target.after, "another target's failure stopped this one"
        if fault.point.call != "unlinkat" and target.path.parent.exists():
            names = {target.path.name, *scene.names_before(target.path.parent)}
            assert set(os.listdir(folder)) <= names
