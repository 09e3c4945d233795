"""Killed beside others: somebody edits the file at any moment, or another agent waits (G7).

Each pair of an edit before one call and a death before a later one is a case; a full sweep leaves
none out.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.support import open_files, until
from tests.attacks.support import Lane, open_lane
from tests.support.crash_scene import FOREIGN, GONE, LATE, NEW, STAYS, Disk, Scene, add_and_remove
from tests.support.disk_faults import Edit, End, Fault, Kind, Point, library

pytestmark = pytest.mark.attack

# An editor took out one line and added another one; keysync's own work comes on top.
_EDITED = STAYS.replace(FOREIGN, b"") + GONE + LATE
_REST = STAYS.replace(FOREIGN, b"")
_AFTER_EDITED = (_REST + NEW + LATE, _REST + LATE + NEW)
_PARTS = 4  # of the moments, each a test: one alone would take minutes
_AFTER_APPENDED = (STAYS + NEW + LATE, STAYS + LATE + NEW)


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("preload"))


@pytest.fixture
def lane(preload: Path, tmp_path: Path) -> Iterator[Lane]:
    with open_lane(add_and_remove, preload, tmp_path) as opened:
        opened.scene.write(_edited(opened.scene), _EDITED)
        opened.scene.save()
        yield opened


def _edited(scene: Scene) -> Path:
    return scene.home / "edited"


def _edit(scene: Scene, how: str, at: int) -> Edit:
    if how == "save":
        return Edit(at, scene.target.path, file=_edited(scene))
    return Edit(at, scene.target.path, text=LATE.decode())


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("how", ["save", "append"])
@pytest.mark.parametrize("kind", [Kind.KILL_BEFORE, Kind.FAIL], ids=["killed", "failed"])
def test_no_edit_is_lost_wherever_the_sync_ends(
    lane: Lane, how: str, kind: Kind, part: int, full_sweep: bool
) -> None:
    """G7: what somebody saves or appends at any moment is there after the next sync.

    A plain run takes every third pair, for each moment other ones.
    """
    scene, sync = lane.scene, lane.syncs.sync
    mended: set[Disk] = set()
    cases = 0

    def check(earlier: End, case: object) -> None:
        if scene.disk not in mended:  # two syncs that find the same disk do the same
            mended.add(scene.disk)
            _check(scene, sync(), how, earlier, case)

    moments = _moments(scene, sync().points, how)
    assert len(moments) > _PARTS
    for at in moments[part::_PARTS]:
        scene.reset()
        edit = _edit(scene, how, at)
        undisturbed = sync(edit=edit)
        check(undisturbed, edit)
        later = [
            point
            for point in undisturbed.points[at - 1 :]
            if kind is Kind.FAIL or not _takes_back(undisturbed.points, point)
        ]
        for point in later if full_sweep else later[at % 3 :: 3]:
            fault = Fault(point, kind, errno.ENOSPC if kind is Kind.FAIL else 0)
            scene.reset()
            end = sync(fault, edit)
            assert end.was_killed or kind is Kind.FAIL
            check(end, (edit, str(fault)))
            cases += 1
    assert cases > (150 if full_sweep else 50) // _PARTS


def _moments(scene: Scene, points: tuple[Point, ...], how: str) -> list[int]:
    """Before each call from the first to the last that concerns the key file.

    Without leases somebody can append to the replaced file through an open descriptor between the
    last look at it and its removal; that is the one moment for which there is no remedy.
    """
    ours = [point for point in points if point.path.startswith(str(scene.ssh))]
    removal = [point.number for point in ours if point.call == "unlinkat"]
    last = ours[-1].number if how == "save" else removal[0] - 1
    return list(range(ours[0].number, last + 1))


def _takes_back(points: tuple[Point, ...], point: Point) -> bool:
    """Whether it is the second exchange in a row, which gives a faster one's file its name back.

    A sync killed in between leaves that file under a temporary name: the case that G7 excludes.
    """
    earlier = points[point.number - 2]
    return earlier.call == point.call == "renameat2"


def _check(scene: Scene, end: End, how: str, earlier: End, case: object) -> None:
    data = scene.target.path.read_bytes()
    # R6: in this order; only whether keysync's own line came before the edit or after is open.
    assert data in (_AFTER_EDITED if how == "save" else _AFTER_APPENDED), (case, data, earlier)
    assert end.code == 0, (case, end)
    assert os.listdir(scene.ssh) == ["authorized_keys"], case
    assert [name for name in os.listdir(scene.machine.state) if name.startswith(".")] == [], case


def test_one_dies_while_another_waits(preload: Path, tmp_path: Path) -> None:
    """G7: at whatever call an agent is killed, its lock is free and the other does all the work."""
    with open_lane(add_and_remove, preload, tmp_path) as lane:
        scene, one = lane.scene, lane.syncs
        points = one.sync().points
        lock = str(scene.machine.state / "lock")
        [locked, *_] = [point.number for point in points if point.call == "flock"]
        with lane.another() as other:
            for point in points:
                scene.reset()
                killed = one.start(Fault(point, Kind.STOP_BEFORE))
                until(lambda pid=killed: _state(pid) == "T", f"stopped at {point}")  # type: ignore[misc]  # reason: mypy does not infer a lambda's default
                waiting = other.start()
                if point.number > locked:
                    until(lambda pid=waiting: lock in open_files(pid), "the other waits")  # type: ignore[misc]  # reason: as above
                    assert scene.target.on_disk in (scene.target.before, scene.target.after)
                    assert Path(f"/proc/{waiting}").exists()
                os.kill(killed, signal.SIGKILL)
                assert one.end().was_killed
                scene.check_done(other.end())
                scene.check_idle(one.sync)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
