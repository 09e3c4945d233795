"""How events become log lines: whole lines, for a service, a person and the journal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TextIO

import pytest

from agent import __version__, events
from agent.core.results import Result
from agent.log import FORMATS, LEVELS, make_emit
from tests.support.event_fields import NO_CHANGES

REMOVED = events.KeyRemoved(
    sync_id="0a1b2c3d",
    user="root",
    path="/root/.ssh/authorized_keys",
    fingerprint="SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    key_type="ssh-ed25519",
    comment='käthe\'s "laptop" \u202e 🔑',
    key_id=4711,
    reason="revoked",
)
FAILED = events.SyncFailed(
    sync_id="0a1b2c3d",
    kind="timeout",
    message="console.vast.ai did not answer completely within 10 s.",
    hint="The next poll tries again.",
    duration_ms=10012,
    listed=None,
    rejected=0,
    listing_age_s=61,
    **NO_CHANGES,
)
HELD = events.SyncHeld(
    sync_id="0a1b2c3d",
    kind="empty_listing",
    message="It is empty.",
    hint="Wait.",
    duration_ms=9,
    listed=0,
    rejected=0,
    listing_age_s=None,
    **NO_CHANGES,
)
SET_ASIDE = events.StateSetAside(
    sync_id="0a1b2c3d", path="/var/lib/keysync/state.json.unreadable", reason="no JSON"
)
COMPLETED = events.SyncCompleted(
    sync_id="0a1b2c3d",
    result=Result.CHANGED,
    dry_run=False,
    duration_ms=120,
    listed=3,
    rejected=1,
    added=2,
    adopted=0,
    removed=1,
    not_modified=False,
)
IN_THE_RESULT = (
    events.UserLockedOut(
        sync_id="0a1b2c3d",
        user="root",
        paths="/root/.ssh/authorized_keys",
        reason="No key.",
        hint="Add one.",
    ),
    events.StateWriteFailed(
        sync_id="0a1b2c3d", kind="no_space", message="Could not write.", hint="Make room."
    ),
    events.TargetDefaulted(
        sync_id="0a1b2c3d", user="root", path="/root/.ssh/authorized_keys", reason="no sshd"
    ),
)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[TextIO]:
    with path.open("a+", encoding="utf-8") as stream:
        yield stream


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def logged(path: Path, event: events.Event, style: str = "auto", level: str | None = None) -> str:
    """The one line that an event becomes in a file."""
    with log_file(path) as stream:
        make_emit(level, style, stream)(event)
    [line] = lines(path)
    return line


def without_origin(line: dict[str, Any]) -> dict[str, Any]:
    """The line without what is the same in all lines of a machine."""
    assert (line.pop("service"), line.pop("version")) == ("keysync", __version__)
    assert line.pop("host") == os.uname().nodename
    del line["instance_id"]
    return line


@pytest.mark.parametrize(("given", "found"), [("C.4711", "C.4711"), ("x" * 999, "x" * 64)])
def test_the_instance_has_its_platforms_id(given: str, found: str) -> None:
    """Logs: CONTAINER_ID tells a fleet's lines apart."""
    assert instance_id(CONTAINER_ID=given) == found


def test_the_instance_without_a_platform_has_the_machines_id() -> None:
    """Logs: machine-id(5), where neither this process nor process 1 knows the platform's."""
    with contextlib.suppress(PermissionError):
        if b"CONTAINER_ID=" in Path("/proc/1/environ").read_bytes():
            pytest.skip(reason="needs a machine whose first process has no CONTAINER_ID")
    file = Path("/etc/machine-id")
    assert instance_id() == (file.read_text().strip() or None if file.exists() else None)


def instance_id(**environment: str) -> object:
    """What the lines of a process with this environment say."""
    code = (
        "import sys; from agent.log import make_emit; from tests import test_log as t\n"
        "make_emit(None, 'json', sys.stderr)(t.COMPLETED)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stderr)["instance_id"]


def test_json_line(tmp_path: Path) -> None:
    """Logs: under a service an event is one JSON line with time, level and name first."""
    before = datetime.now(timezone.utc)
    line = json.loads(logged(tmp_path / "log", REMOVED))
    assert list(line)[:3] == ["timestamp", "level", "event"]
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) < moment < before + timedelta(minutes=1)
    assert without_origin(line) == {
        "level": "info",
        "event": "key.removed",
        "sync_id": "0a1b2c3d",
        "trigger": "manual",
        "user": "root",
        "path": "/root/.ssh/authorized_keys",
        "fingerprint": "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        "key_type": "ssh-ed25519",
        "comment": 'käthe\'s "laptop" \u202e 🔑',
        "key_id": 4711,
        "reason": "revoked",
    }


def test_json_line_of_a_cycle(tmp_path: Path) -> None:
    """Logs: the canonical line says duration, listing size, changes and the listing's age."""
    done = json.loads(logged(tmp_path / "completed", COMPLETED))
    failed = json.loads(logged(tmp_path / "failed", FAILED))
    held = json.loads(logged(tmp_path / "held", HELD))
    for line in (done, failed, held):
        del line["timestamp"]
        without_origin(line)
    assert done == {
        "level": "info",
        "event": "sync.completed",
        "sync_id": "0a1b2c3d",
        "trigger": "manual",
        "result": "changed",
        "dry_run": False,
        "duration_ms": 120,
        "listed": 3,
        "rejected": 1,
        "added": 2,
        "adopted": 0,
        "removed": 1,
        "not_modified": False,
        "listing_age_s": 0,
    }
    assert failed == {
        "level": "error",
        "event": "sync.failed",
        "sync_id": "0a1b2c3d",
        "trigger": "manual",
        "kind": "timeout",
        "message": "console.vast.ai did not answer completely within 10 s.",
        "hint": "The next poll tries again.",
        "dry_run": False,
        "duration_ms": 10012,
        "listed": None,
        "rejected": 0,
        "added": 0,
        "adopted": 0,
        "removed": 0,
        "listing_age_s": 61,
        "failing_since": None,
        "next_poll_s": None,
    }
    assert (held["level"], held["event"], held["kind"]) == ("warning", "sync.held", "empty_listing")
    assert set(held) == set(failed)


def test_json_is_plain_ascii(tmp_path: Path) -> None:
    """Logs: a JSON line can be read by anything, whatever a comment holds."""
    assert logged(tmp_path / "log", REMOVED).isascii()


def test_console_line(tmp_path: Path) -> None:
    """Logs: for a person a line has time, level and name, then NAME=VALUE; no colour in a file."""
    line = logged(tmp_path / "log", FAILED, "console")
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 \[error +\] sync\.failed +"
    found = re.match(pattern, line)
    assert found
    fields = line[found.end() :]
    assert "\033" not in line
    assert "kind=timeout" in fields
    assert "message='console.vast.ai did not answer completely within 10 s.'" in fields
    assert "listing_age_s=61" in fields


@pytest.mark.parametrize(("style", "is_json"), [("auto", True), ("json", True), ("console", False)])
def test_format_in_a_file(tmp_path: Path, style: str, is_json: bool) -> None:
    """Commands: auto is JSON where no terminal is."""
    assert logged(tmp_path / "log", COMPLETED, style).startswith("{") is is_json


def on_a_terminal(style: str, level: str | None, **environment: str) -> str:
    """What a process logs when its stderr is a terminal: a failure, a hold and a completion."""
    code = (
        "import sys; from agent.log import make_emit; from tests import test_log as t\n"
        f"emit = make_emit({level!r}, {style!r}, sys.stderr)\n"
        "for event in (t.FAILED, t.HELD, t.COMPLETED, t.SET_ASIDE, *t.IN_THE_RESULT): emit(event)"
    )
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.stdout == b""
    return seen


def test_terminal() -> None:
    """Commands, logs: on a terminal auto is for people, in colour, without what the result says."""
    seen = on_a_terminal("auto", None)
    assert "state.set_aside" in seen
    assert not any(name in seen for name in ("sync.", "user.", "target.defaulted", "write_failed"))
    assert "\033[3" in seen
    plain = on_a_terminal("console", "info", NO_COLOR="1")
    assert "sync.completed" in plain
    assert "\033" not in plain
    as_json = on_a_terminal("json", "debug")
    assert [json.loads(line)["event"] for line in as_json.splitlines()] == [
        "sync.failed",
        "sync.held",
        "sync.completed",
        "state.set_aside",
        "user.locked_out",
        "state.write_failed",
        "target.defaulted",
    ]


@pytest.mark.parametrize(
    ("level", "names"),
    [
        (None, ["sync.failed", "sync.held", "sync.completed"]),
        ("debug", ["sync.failed", "sync.held", "sync.completed"]),
        ("info", ["sync.failed", "sync.held", "sync.completed"]),
        ("warning", ["sync.failed", "sync.held"]),
        ("error", ["sync.failed"]),
    ],
)
def test_level(tmp_path: Path, level: str | None, names: list[str]) -> None:
    """Events of at least the level are logged; without one that is info, outside a terminal."""
    with log_file(tmp_path / "log") as stream:
        emit = make_emit(level, "json", stream)
        for event in (FAILED, HELD, COMPLETED):
            emit(event)
    assert [json.loads(line)["event"] for line in lines(tmp_path / "log")] == names


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(("event", "prefix"), [(FAILED, "<3>"), (HELD, "<4>"), (COMPLETED, "<6>")])
def test_journal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event: events.Event,
    prefix: str,
    style: str,
) -> None:
    """Logs: into the journal each line carries its priority (sd-daemon(3)), for journalctl -p."""
    path = tmp_path / "log"
    path.touch()
    status = path.stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    line = logged(path, event, style)
    assert line.startswith(prefix)
    assert line[3:4] in "{2"


@pytest.mark.parametrize("value", ["", "8:12345", "yes"])
def test_not_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Logs: a process that only inherited the variable, its stderr led elsewhere, writes no prefix
    (systemd.exec(5), JOURNAL_STREAM).
    """
    monkeypatch.setenv("JOURNAL_STREAM", value)
    assert logged(tmp_path / "log", FAILED).startswith("{")


def test_stream_that_takes_nothing() -> None:
    """Logs: a log that cannot be written, on a full disk or a closed pipe, stops nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    for target in ("/dev/full", writing):
        stream = open(target, "w", buffering=1)  # noqa: SIM115  # reason: its close fails
        make_emit("debug", "json", stream)(FAILED)
        make_emit("debug", "console", stream)(FAILED)
        with contextlib.suppress(OSError):
            stream.close()


def test_choices() -> None:
    """Commands: the levels and formats of the command line."""
    assert LEVELS == ("debug", "info", "warning", "error")
    assert FORMATS == ("auto", "json", "console")
