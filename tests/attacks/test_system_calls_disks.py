"""Real disks instead of injected faults: full at every page, read-only, immutable, limited (G7).

The kernel itself decides here where it fails, and how much of a write it takes. Quotas are not
among them: they need a kernel with CONFIG_QFMT_V2; EDQUOT is injected in `test_system_calls.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.crash_scene import FOREIGN, GONE, NEW, Scene, first_sync, staged
from tests.support.disk_faults import End, Syncs, library
from tests.support.machine import REPOSITORY, clean_environment, key_line
from tests.support.own_mounts import in_own_mounts, mount, read_only, small_disk

pytestmark = pytest.mark.attack

_MANY = FOREIGN + b"# a line that is nobody's key\n" * 450  # some pages
_PAGE = os.sysconf("SC_PAGESIZE")
_FULL = "the disk is full"


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("preload"))


def _big_first_sync(scene: Scene) -> None:
    first_sync(scene)
    scene.write(scene.target.path, _MANY)
    scene.target.before = scene.target.original = _MANY
    scene.target.after = _MANY + NEW
    scene.machine.state.mkdir(mode=0o700)


def _big_change(scene: Scene) -> None:
    """The original is saved; a key goes, which is journalled, and another one comes."""
    _big_first_sync(scene)
    [new] = scene.console.account.stored()
    scene.console.edit_key(new.id, key_line("gone"))
    scene.synced()
    scene.console.edit_key(new.id, key_line("new"))
    scene.target.before = _MANY + GONE


@pytest.fixture(params=[_big_first_sync])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with staged(request.param, tmp_path / "machine") as made:
        yield made


Work = Callable[[Syncs], None]


def _with_syncs(scene: Scene, preload: Path, folder: Path, work: Work, *under: str) -> None:
    machine = scene.machine
    with Syncs.serving(preload, machine.config, folder, machine.folder, *under) as syncs:
        work(syncs)


def _told(end: End, *words: str) -> None:
    assert end.code == 74, end
    error = end.json["error"]
    assert all(word in error["message"] for word in words), error
    assert error["hint"]
    assert "Traceback" not in end.stderr


def _fill(folder: Path, pages: int) -> Path:
    """Takes all space but so many pages."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - pages * _PAGE))
    return ballast


def _disk_of(scene: Scene, where: str) -> Path:
    return scene.home if where == "key file" else scene.machine.state


def _no_leftovers(scene: Scene) -> None:
    assert os.listdir(scene.ssh) == [scene.target.path.name]
    assert [name for name in os.listdir(scene.machine.state) if name.startswith(".")] == []


@pytest.mark.parametrize("scene", [_big_first_sync, _big_change], indirect=True)
@pytest.mark.parametrize("where", ["key file", "state"])
def test_a_disk_that_fills_up_at_any_page(
    scene: Scene, preload: Path, tmp_path: Path, where: str
) -> None:
    """G5, G7: from no free page to enough of them; a write that fits only in part is real here."""
    ends = []

    def work(syncs: Syncs) -> None:
        for pages in range(16):
            with small_disk(_disk_of(scene, where), "size=256k"):
                scene.reset()
                ballast = _fill(_disk_of(scene, where), pages)
                ends.append(_fails_or_not(scene, syncs))
                ballast.unlink()
                scene.check_done(syncs.sync())
                scene.check_idle(syncs.sync)

    in_own_mounts(lambda: _with_syncs(scene, preload, tmp_path, work))
    released = where == "state" and (scene.machine.state / "reserve").exists()
    assert ends[0] == (0 if released else 74)  # G11: the reserve is room enough
    assert ends[-1] == 0
    assert ends == sorted(ends, reverse=True)


def _fails_or_not(scene: Scene, syncs: Syncs) -> int:
    end = syncs.sync()
    scene.check_whole(end)
    _no_leftovers(scene)
    if end.code != 0:
        _told(end, str(scene.machine.folder), _FULL)
    return end.code


@pytest.mark.parametrize("where", ["key file", "state"])
def test_a_disk_without_inodes(scene: Scene, preload: Path, tmp_path: Path, where: str) -> None:
    """G7: each further file may be the one too many."""
    ends = []

    def work(syncs: Syncs) -> None:
        for inodes in range(12):
            with small_disk(_disk_of(scene, where), "size=1m"):
                scene.reset()
                disk = _disk_of(scene, where)
                status = os.statvfs(disk)
                used = status.f_files - status.f_ffree
                mount("-o", f"remount,nr_inodes={used + inodes}", str(disk))
                ends.append(_fails_or_not(scene, syncs))
                mount("-o", "remount,nr_inodes=1000", str(disk))
                scene.check_done(syncs.sync())

    in_own_mounts(lambda: _with_syncs(scene, preload, tmp_path, work))
    assert (ends[0], ends[-1]) == (74, 0)


@pytest.mark.parametrize("where", ["key file", "state"])
def test_a_read_only_mount(scene: Scene, preload: Path, tmp_path: Path, where: str) -> None:
    """G7: nothing is changed, the message names the path and the reason. G11: while only the state
    cannot be written, the deleted key goes and the new one waits.
    """

    def work(syncs: Syncs) -> None:
        with read_only(_disk_of(scene, where)):
            end = syncs.sync()
            _told(end, str(_disk_of(scene, where)), "the file system is read-only")
            scene.check_whole(end)
            target = scene.target
            assert target.on_disk == (target.revoked if where == "state" else target.before)
            _no_leftovers(scene)
        scene.check_done(syncs.sync())
        with read_only(scene.home):  # there is nothing to do, so there is nothing to complain about
            scene.check_idle(syncs.sync)

    in_own_mounts(lambda: _with_syncs(scene, preload, tmp_path, work))


@pytest.mark.parametrize("attribute", ["i", "a"])
@pytest.mark.parametrize("name", ["home/.ssh/authorized_keys", "home/.ssh", "state"])
def test_immutable(scene: Scene, preload: Path, tmp_path: Path, name: str, attribute: str) -> None:
    """G7: chattr +i and +a are named, with the way out."""
    path = scene.machine.folder / name
    with _attribute(path, attribute):

        def work(syncs: Syncs) -> None:
            end = syncs.sync()
            _told(end, str(scene.machine.folder), "not permitted")
            assert "chattr" in end.json["error"]["hint"]
            assert scene.target.on_disk == scene.target.before

        _with_syncs(scene, preload, tmp_path, work)
    _with_syncs(scene, preload, tmp_path, lambda syncs: scene.check_done(syncs.sync()))


@contextlib.contextmanager
def _attribute(path: Path, letter: str) -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip(reason="needs root and chattr (e2fsprogs)")
    done = subprocess.run(["chattr", f"+{letter}", str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(reason=f"this file system has no such attribute: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{letter}", str(path)], check=True)


@pytest.mark.parametrize("scene", [_big_first_sync, _big_change], indirect=True)
def test_a_limit_of_file_sizes(scene: Scene, preload: Path, tmp_path: Path) -> None:
    """G7: with RLIMIT_FSIZE the kernel really takes only a part of a write, and then no more."""
    ends = []

    def work(syncs: Syncs) -> None:
        for limit in range(2500, len(_MANY) + 2000, 509):  # what it prints and the state fit
            scene.reset()
            end = syncs.sync(limit=limit)
            ends.append(end.code)
            scene.check_whole(end)
            _no_leftovers(scene)
            if end.code != 0:
                _told(end, str(scene.machine.folder), "larger than it may be")
            scene.check_done(syncs.sync())

    _with_syncs(scene, preload, tmp_path, work)
    assert ends == sorted(ends, reverse=True)
    assert {*ends} == {74, 0}


def test_a_result_that_finds_no_room(scene: Scene) -> None:
    """Where standard output is full, that is said; a long result makes no traceback either."""
    scene.write(scene.target.path, b"".join(f"{key_line(str(at))}\n".encode() for at in range(150)))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "--config", scene.machine.config, "sync", "--json"],
            cwd=REPOSITORY,
            env=clean_environment() | {"HOME": str(scene.machine.folder)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "The result could not be written: No space left on device." in done.stderr
