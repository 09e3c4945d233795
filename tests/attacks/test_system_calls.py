"""Every system call of a sync that changes the disk, and everything that can happen there (G7).

The points are recorded from a sync, not written down; `test_system_calls_traced.py` shows with
strace that no call which changes the disk is missing among them.

Each point is killed after, and never before: what a call has given to the kernel survives the
process, its locks and leases end with it, and nothing changes the disk between two points. So a
sync that is killed before a call leaves the disk of one that is killed after the call before;
`test_killed_before_a_call_is_killed_after_the_one_before` takes a sample of that. Likewise two
syncs that find the same disk do the same, so each disk that a fault leaves is mended once.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.support import Lane, open_lane
from tests.support.crash_scene import (
    SCENES,
    Disk,
    Scene,
    absent_without_exchange,
    add_and_remove,
    first_sync,
    new_directory,
)
from tests.support.disk_faults import End, Fault, Kind, Point, library

pytestmark = pytest.mark.attack

Plot = Callable[[Scene], None]
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


def _every_call(points: tuple[Point, ...]) -> Iterator[Fault]:
    """A kill, a full disk, and half a write, wherever they can be."""
    for point in points:
        yield Fault(point, Kind.KILL_AFTER)
        yield Fault(point, Kind.FAIL, errno.ENOSPC)
        if point.call == "write":
            for kind in _HALVES:
                yield Fault(point, kind, errno.ENOSPC if kind is Kind.HALF_THEN_FAIL else 0)


def _every_reason(scene: Scene, points: tuple[Point, ...]) -> Iterator[Fault]:
    """Each other errno at the first call of each name, for the key files and for the state.

    What keysync does depends on the call and on which of the two it is; the errno decides the
    words, and EINTR whether Python repeats the call.
    """
    first = {(point.call, _in_state(scene, point)): point for point in reversed(points)}
    for point in first.values():
        for code in _SAID:
            if code != errno.ENOSPC:
                yield Fault(point, Kind.FAIL, code)


@pytest.mark.parametrize("plot", SCENES, ids=lambda plot: plot.__name__)
def test_every_fault_at_every_call(plot: Plot, preload: Path, tmp_path: Path) -> None:
    """G5, G7, state: old or new, whole and the user's; said by name; mended by the next sync."""
    with open_lane(plot, preload, tmp_path) as lane:
        _sweep(lane, lambda _, points: _every_call(points))


@pytest.mark.parametrize(
    "plot", [first_sync, new_directory, absent_without_exchange], ids=lambda plot: plot.__name__
)
def test_every_reason_at_every_kind_of_call(plot: Plot, preload: Path, tmp_path: Path) -> None:
    """G7: each errno is said by name; between them these scenes make every kind of call."""
    with open_lane(plot, preload, tmp_path) as lane:
        _sweep(lane, _every_reason)


def test_killed_before_a_call_is_killed_after_the_one_before(preload: Path, tmp_path: Path) -> None:
    """G7: for a whole sync, both leave the same names, bytes, modes and owners."""
    with open_lane(add_and_remove, preload, tmp_path) as lane:
        points = lane.syncs.sync().points
        for earlier, later in itertools.pairwise(points):
            found = []
            for fault in (Fault(earlier, Kind.KILL_AFTER), Fault(later, Kind.KILL_BEFORE)):
                lane.scene.reset()
                assert lane.syncs.sync(fault).was_killed
                found.append(lane.scene.disk)
            assert found[0] == found[1], later


Faults = Callable[[Scene, tuple[Point, ...]], Iterator[Fault]]


def _sweep(lane: Lane, of_points: Faults) -> None:
    scene, sync = lane.scene, lane.syncs.sync
    recorded = sync()
    scene.check_done(recorded)
    scene.check_idle(sync)
    faults = list(of_points(scene, recorded.points))
    assert faults
    mended: set[Disk] = set()
    for fault in faults:
        scene.reset()
        end = sync(fault)
        try:
            _check_reached(end, fault)
            scene.check_whole(end)
            _check_end(scene, end, fault)
            if scene.disk not in mended:
                mended.add(scene.disk)
                _check_mended(scene, sync, mended)
        except AssertionError as failure:
            raise AssertionError(f"{fault}: {failure}\n{end}") from failure


def _check_mended(scene: Scene, sync: Callable[[], End], known: set[Disk]) -> None:
    """The next sync does all the work, and the one after it none."""
    scene.check_done(sync())
    if scene.disk not in known:
        known.add(scene.disk)
        scene.check_idle(sync)


def _check_reached(end: End, fault: Fault) -> None:
    """The run was the recorded one up to the fault."""
    assert len(end.points) >= fault.point.number
    assert end.points[fault.point.number - 1].plain == fault.point.plain


def _check_end(scene: Scene, end: End, fault: Fault) -> None:
    if fault.kind in (Kind.KILL_AFTER, Kind.HALF_THEN_KILL):
        assert end.was_killed
        return
    assert "Traceback" not in end.stderr
    events = [json.loads(line)["event"] for line in end.stderr.splitlines()]
    has_reserve = fault.code in (errno.ENOSPC, errno.EDQUOT)  # a revocation gets its room (G11)
    listed_but_malformed = end.code == scene.code and (has_reserve or _in_state(scene, fault.point))
    if (
        listed_but_malformed and fault.point.call == "unlinkat"
    ):  # what a killed run left waits for the next
        return
    if listed_but_malformed or not _is_fatal(scene, fault):
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
    """A short write is continued, an interrupted call repeated, a courtesy lock done without.

    In the state folder, besides, the reserve is released for a full disk and the mark of a success
    is a courtesy (G11): whoever ends well there must have done everything.
    """
    if fault.kind is Kind.HALF:
        return False
    if fault.code == errno.EINTR and fault.point.call in _REPEATED:
        return False
    return _in_state(scene, fault.point) or fault.point.call != "flock"


def _in_state(scene: Scene, point: Point) -> bool:
    """Also the folder in which the state folder is made."""
    return point.path.startswith(str(scene.machine.state)) or point.path == str(
        scene.machine.folder
    )


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
