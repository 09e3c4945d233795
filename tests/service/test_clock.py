"""A wall clock that jumps while the agent runs. libfaketime stands between the process and the
kernel's CLOCK_REALTIME and is told to jump; the monotonic clock and all waits stay the kernel's.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.support import FAST, SLOW, Agent
from tests.service.test_daemon import KEPT
from tests.support.bad_server import BadServer, answer, eventually
from tests.support.machine import Machine

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
needs_faketime = pytest.mark.skipif(not FAKETIME, reason="needs libfaketime (Debian: faketime)")
JUMP = "400d"  # always into another year


def year_of(event: dict[str, Any]) -> int:
    """Of the line's own timestamp."""
    return int(event["timestamp"][:4])


class Clock:
    """The wall clock of one process, which may be set while it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set("+0")

    def set(self, offset: str) -> None:
        """Sets it so far from the right time; by a rename, since it is read at any moment."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@needs_faketime
def test_a_jump_by_more_than_a_year(tmp_path: Path) -> None:
    """Back or forth, the polls go on at their interval: neither stopped nor in a burst."""
    clock = Clock(tmp_path)
    with (
        BadServer(KEPT) as server,
        Agent(Machine(tmp_path, server.url, FAST), clock.environment) as agent,
    ):
        right = year_of(agent.wait_for("sync.completed"))
        for jump, longest in ((f"-{JUMP}", 8.0), (f"+{JUMP}", 6.0)):
            clock.set(jump)
            begun, polls = time.monotonic(), len(server.heads)
            after = agent.wait_for("sync.completed", times=polls + 3)
            lasted = time.monotonic() - begun
            assert (year_of(after) > right) == jump.startswith("+")
            assert year_of(after) != right
            # Two intervals of 1 s at least; at most also the time in which a stop is noticed.
            assert 1.9 < lasted < longest
        assert agent.stop()[0] == 0


@needs_faketime
def test_an_age_by_a_wrong_clock_is_right(tmp_path: Path) -> None:
    """Incident 26: an age is right although the success was stamped a year ahead: it is counted by
    a clock that nobody sets.
    """
    clock = Clock(tmp_path)
    clock.set(f"+{JUMP}")
    with (
        BadServer(KEPT, answer(b"", "500 Oops")) as server,
        Agent(Machine(tmp_path, server.url, SLOW), clock.environment) as agent,
    ):
        agent.wait_for("sync.completed")
        clock.set("+0")
        agent.send(signal.SIGUSR1)
        assert 0 <= agent.wait_for("sync.failed")["listing_age_s"] < 60


@needs_faketime
def test_a_clock_that_jumps_again_and_again(tmp_path: Path) -> None:
    """At most one poll for each interval, however often the clock is set."""
    clock = Clock(tmp_path)
    with (
        BadServer(KEPT) as server,
        Agent(Machine(tmp_path, server.url, FAST), clock.environment) as agent,
    ):
        agent.wait_for("sync.completed")
        begun, polls = time.monotonic(), len(server.heads)
        for at in range(30):
            clock.set(f"{'-+'[at % 2]}{JUMP}")
            time.sleep(0.1)  # the pace of the jumps; nothing is waited for
        assert len(server.heads) - polls <= time.monotonic() - begun + 1
        agent.wait_for("sync.completed", times=polls + 2)


def test_a_process_that_stood_still(tmp_path: Path) -> None:
    """After a suspend (here SIGSTOP) one poll makes up for all that were missed."""
    with BadServer(KEPT) as server, Agent(Machine(tmp_path, server.url, FAST)) as agent:
        agent.wait_for("sync.completed")
        agent.send(signal.SIGSTOP)
        polls = len(server.heads)
        assert not eventually(lambda: len(server.heads) > polls, 2.5)
        agent.send(signal.SIGCONT)
        begun = time.monotonic()
        agent.wait_for("sync.completed", times=polls + 2)
        assert time.monotonic() - begun > 0.9
