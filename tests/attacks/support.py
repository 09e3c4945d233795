"""A machine on which whole syncs run, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.crash_scene import Scene, staged
from tests.support.disk_faults import Syncs


@dataclass(frozen=True, slots=True)
class Lane:
    """A machine with the scene on it, and the syncs on it."""

    scene: Scene
    syncs: Syncs
    folder: Path
    preload: Path

    @contextlib.contextmanager
    def another(self) -> Iterator[Syncs]:
        """Further syncs of the same machine, at the same time."""
        folder = self.folder / "another"
        folder.mkdir()
        machine = self.scene.machine
        with Syncs.serving(self.preload, machine.config, folder, machine.folder) as syncs:
            yield syncs


@contextlib.contextmanager
def open_lane(plot: Callable[[Scene], None], preload: Path, folder: Path) -> Iterator[Lane]:
    """With the scene in this folder."""
    with staged(plot, folder / "machine") as scene:
        machine = scene.machine
        with Syncs.serving(preload, machine.config, folder, machine.folder) as syncs:
            syncs.exchange = scene.exchange
            yield Lane(scene, syncs, folder, preload)
