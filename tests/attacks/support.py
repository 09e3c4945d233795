"""Machines on which whole syncs run side by side, as many as there are processors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.crash_scene import Scene, staged
from tests.support.disk_faults import Syncs


@dataclass(frozen=True, slots=True)
class Lane:
    """A machine with the scene on it, and the syncs on it: number so-and-so of so many."""

    scene: Scene
    syncs: Syncs
    folder: Path
    preload: Path
    number: int
    of: int

    @contextlib.contextmanager
    def another(self) -> Iterator[Syncs]:
        """Further syncs of the same machine, at the same time."""
        folder = self.folder / "another"
        folder.mkdir()
        machine = self.scene.machine
        with Syncs.serving(self.preload, machine.config, folder, machine.folder) as syncs:
            yield syncs


@contextlib.contextmanager
def open_lanes(
    plot: Callable[[Scene], None], preload: Path, folder: Path, count: int = 0
) -> Iterator[list[Lane]]:
    """Each with the scene in a folder of its own; by default one for each processor."""
    count = count or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            scene = stack.enter_context(staged(plot, own / "machine"))
            machine = scene.machine
            serving = Syncs.serving(preload, machine.config, own, machine.folder)
            syncs = stack.enter_context(serving)
            syncs.exchange = scene.exchange
            found.append(Lane(scene, syncs, own, preload, number, count))
        yield found
