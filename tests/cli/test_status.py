"""`keysync status`: who can log in and why, from the disk alone (G6)."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from sandbox.console import Console
from sandbox.users import current_user
from tests.support.machine import TAG, Machine, clean_environment, fingerprint, key_line

LAPTOP, DESKTOP, PHONE = key_line("laptop"), key_line("desktop"), key_line("phone")
PIN, COLLEAGUE, ROBOT = key_line("emergency"), key_line("colleague"), key_line("robot")


def remember(machine: Machine, **fields: object) -> None:
    """Rewrites fields of state.json; the mark of a later success goes."""
    (machine.state / "success.json").unlink(missing_ok=True)
    path = machine.state / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_json(machine: Machine, console: Console) -> None:
    """Every key of the object, with one key of each sort, its line and why it may log in."""
    machine.options = f"pins:\n  - {PIN}\n"
    machine.configure()
    machine.key_file.write_text(
        f"# by hand\n{COLLEAGUE}\n"
        f'from="10.0.0.1",no-pty {ROBOT}\n'
        f"no-such-option {DESKTOP}\n"
        f"restrict {PHONE}\n"
        "no key at all\n"
    )
    ids = [console.add_key(text) for text in (LAPTOP, PHONE)]
    bad = console.add_key("my laptop")
    assert machine.here("sync").code == 0
    console.delete_key(ids[1])
    assert machine.here("sync").code == 0
    requests = len(console.requests)
    before = machine.everything()
    done = machine.here("status", "--json")
    assert len(console.requests) == requests
    assert machine.everything() == before
    status = done.json
    assert status.pop("last_success").startswith("20")
    assert 0 <= status.pop("last_success_age") < 60

    def row(
        line: int,
        access: str,
        text: str,
        key_id: int | None = None,
        note: str | None = None,
        options: tuple[str, ...] = (),
        login: str = "yes",
    ) -> dict[str, object]:
        return {
            "line": line,
            "access": access,
            "fingerprint": fingerprint(text),
            "key_type": "ssh-ed25519",
            "comment": text.split()[2],
            "key_id": key_id,
            "note": note,
            "login": login,
            "options": list(options),
        }

    [target] = status.pop("targets")
    since = [one.pop("since") for one in target["keys"]]
    assert [text is not None for text in since] == [False, False, False, True, True, False]
    last = target.pop("last_result")
    assert (last["result"], last["at"][:2]) == ("changed", "20")
    notes = [one["note"] for one in target["keys"]]
    assert notes[2].startswith("sshd ignores this line: ")
    assert "still authorized" in notes[3]
    assert target == {
        "user": current_user(),
        "path": str(machine.key_file),
        "origin": "configured",
        "error": None,
        "sshd_problem": None,
        "sshd_disagreement": None,
        "keys": [
            row(2, "foreign", COLLEAGUE),
            row(3, "restricted", ROBOT, None, None, ("from", "no-pty"), "depends"),
            row(4, "restricted", DESKTOP, None, notes[2], login="no"),
            row(5, "restricted", PHONE, ids[1], notes[3], ("restrict",)),
            row(7, "managed", LAPTOP, ids[0]),
            row(8, "pinned", PIN),
        ],
    }
    verdict = status.pop("verdict")
    assert verdict[0]["severity"] == "ok"
    assert [re.split(": | by|: deleted", one["text"])[0] for one in verdict[1:]] == [
        "rejected",
        f"{fingerprint(PHONE)} phone can still log in as {current_user()}",
    ]
    assert status == {
        "account_id": console.user_id,
        "stale": False,
        "failing": False,
        "last_error": None,
        "held": [],
        "waiting": [],
        "retired": [],
        "forgotten": [],
        "skipped": [],
        "agent": None,
        "config_problem": None,
        "no_way_in": [],
        "exit_code": 0,
        "rejected": [
            {
                "key_id": bad,
                "reason": "not_a_key",
                "detail": "it does not begin with a key type such as ssh-ed25519",
            }
        ],
        "state_problem": None,
    }
    assert done.code == 0


def test_who_cannot_log_in_although_the_key_stands_there(machine: Machine) -> None:
    """Incident 14: a line that sshd ignores, or that has expired, is no way in; status says so."""
    machine.key_file.write_text(
        f'environment="no variable" {LAPTOP}\nexpiry-time="20200101Z" {PHONE}\n'
    )
    status = machine.here("status", "--json").json
    keys = status["targets"][0]["keys"]
    assert [(key["login"], key["note"]) for key in keys] == [
        ("no", "sshd ignores this line: invalid environment string"),
        ("no", "expired at 2020-01-01T00:00:00Z"),
    ]
    assert "no key can log in" in machine.here("status").stdout
    with machine.key_file.open("a") as file:
        file.write(f"restrict {DESKTOP}\n")
    assert "no key can log in" not in machine.here("status").stdout


def test_text(machine: Machine, console: Console) -> None:
    """Commands: the same for a person, in plain text."""
    machine.key_file.write_text(f'{COLLEAGUE}\nfrom="10.0.0.1" {ROBOT}\n')
    console.add_key(LAPTOP)
    bad = console.add_key("my laptop")
    machine.here("sync")
    done = machine.here("status")
    lines = done.stdout.splitlines()
    assert (done.code, done.stderr) == (0, "")
    assert re.fullmatch(r"OK: in sync \d+ s ago; no agent is set up here", lines[0])
    assert lines[1].startswith(f"WARNING: rejected: key {bad} on the console: ")
    assert lines[4] == f"{current_user()}  {machine.key_file}  (configured)"
    since = json.loads((machine.state / "state.json").read_bytes())["keys"][0]["first_listed"][:10]
    assert [" ".join(line.split()) for line in lines[5:9]] == [
        "ACCESS KEY TYPE COMMENT SINCE NOTE",
        f"foreign {fingerprint(COLLEAGUE)} ssh-ed25519 colleague",
        f"restricted (from) {fingerprint(ROBOT)} ssh-ed25519 robot",
        f"managed {fingerprint(LAPTOP)} ssh-ed25519 laptop {since}",
    ]
    assert f"account       {console.user_id}" in lines
    assert re.search(r"^last success  20[0-9T:-]+Z$", done.stdout, re.MULTILINE)
    assert "\033" not in done.stdout


def test_before_the_first_sync(machine: Machine) -> None:
    """Commands: on a machine that never synced, status says so and makes nothing."""
    before = machine.everything()
    status = machine.here("status", "--json").json
    assert (status["account_id"], status["last_success"], status["last_success_age"]) == (None,) * 3
    assert [one["text"].split(" (")[0] for one in status["verdict"]] == [
        f"nobody can log in as {current_user()}",
        "no sync has succeeded yet",
    ]
    done = machine.here("status")
    text = done.stdout
    assert done.code == status["exit_code"] == 4
    assert "no key can log in" in text
    assert "account       not known yet" in text
    assert "last success  never" in text
    assert machine.everything() == before


def test_a_file_out_of_all_bounds(machine: Machine, console: Console) -> None:
    """R5: where nobody looks for deleted keys, the sync fails, and that is the verdict."""
    console.add_key(LAPTOP)
    key_id = console.add_key(PHONE)
    assert machine.here("sync").code == 0
    console.delete_key(key_id)
    machine.key_file.write_bytes(machine.key_file.read_bytes() + b"words, maybe a key\n" * 250_001)
    done = machine.here("sync", "--json")
    [target] = done.json["targets"]
    assert (done.code, target["result"], target["error"]["kind"]) == (
        74,
        "failed",
        "key_file_too_large",
    )
    problem = done.event("target.failed")
    assert problem["message"].endswith("deleted keys in it may still log in.")
    done = machine.here("status", "--json")
    assert done.code == done.json["exit_code"] == 74
    [target] = done.json["targets"]
    assert target["error"]["message"] == problem["message"]
    [verdict] = [one for one in done.json["verdict"] if one["severity"] == "problem"]
    assert (verdict["text"], verdict["fix"]) == (problem["message"], problem["hint"])
    assert f"PROBLEM: {problem['message']}" in machine.here("status").stdout


def test_lines_are_numbered_as_in_the_file(machine: Machine, console: Console) -> None:
    """Commands: whoever reads `status` finds the line in an editor, whatever stands around it."""
    machine.key_file.write_text(f"\n# one\n\n{COLLEAGUE}\n\n\nwords\n{ROBOT}\n{DESKTOP}\n\n")
    [target] = machine.here("status", "--json").json["targets"]
    assert [row["line"] for row in target["keys"]] == [4, 8, 9]


def test_options_that_were_not_read(machine: Machine, console: Console) -> None:
    """G12, commands: of a line with too many options `status` says that only sshd knows."""
    machine.key_file.write_bytes(b"pty," * (1 << 20) + b"pty " + COLLEAGUE.encode() + b"\n")
    [target] = machine.here("status", "--json").json["targets"]
    [row] = target["keys"]
    assert (row["access"], row["login"], row["options"]) == ("restricted", "depends", [])
    assert "only sshd knows" in row["note"]


def test_failing_and_solved(machine: Machine, console: Console) -> None:
    """Incident 22: a failure is the verdict, since when and with its exit code; once it is
    solved only the last line tells of it.
    """
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "html"
    machine.here("sync")
    done = machine.here("status", "--json")
    assert done.code == done.json["exit_code"] == 65
    assert done.json["failing"] is True
    assert done.json["last_error"]["kind"] == "html_page"
    assert set(done.json["last_error"]) == {"at", "since", "kind", "message", "hint"}
    text = machine.here("status").stdout
    assert re.match(r"PROBLEM: failing since 20\S+Z \(\d+ s ago\): ", text)
    assert "Check api.url" in text
    console.fault = None
    machine.here("sync")
    text = machine.here("status").stdout
    assert "solved since" in text
    assert "Check api.url" not in text
    assert machine.here("status", "--json").json["failing"] is False


def test_held(machine: Machine, console: Console) -> None:
    """G3: what is held is the verdict, with its count, until when, and how to confirm it."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    machine.here("sync")
    done = machine.here("status", "--json")
    [held] = done.json["held"]
    assert held.pop("until") > done.json["last_error"]["at"]
    assert held == {
        "user": None,
        "reason": "empty_listing",
        "seen": 1,
        "needed": 3,
        "applied": False,
    }
    text = machine.here("status")
    assert (text.code, done.code) == (3, 3)
    assert re.match(
        r"PROBLEM: held until about 20[0-9-]+T[0-9:]+Z for all targets: the account's list of SSH "
        r"keys is empty \(seen in 1 of 3 polls\)\n  To apply it now: keysync "
        r"--config \S+ sync --confirm",
        text.stdout,
    )


def test_nobody_can_log_in(machine: Machine, console: Console) -> None:
    """Incident 4: when an empty list was applied and nobody has a way in, that is the verdict, and
    the exit code is 4, also beside another problem.
    """
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    machine.here("sync", "--confirm-removals")
    done = machine.here("status", "--json")
    assert (done.code, done.json["no_way_in"]) == (4, [current_user()])
    held = [(one["user"], one["applied"], one["until"]) for one in done.json["held"]]
    assert held == [(None, True, None), (current_user(), True, None)]
    console.fault = "outage"
    machine.here("sync")
    done = machine.here("status")
    assert done.code == 4
    lines = done.stdout.splitlines()
    path = machine.key_file
    assert lines[0] == f"PROBLEM: nobody can log in as {current_user()} (no usable key in {path})"
    assert "PROBLEM: failing since" in done.stdout
    check = machine.here("status", "--check")
    assert (check.code, check.stdout) == (4, lines[0] + "\n")


@pytest.mark.parametrize(
    "options", ['command="/bin/backup"', 'expiry-time="20990101Z"', 'permitopen="h:http"']
)
def test_sync_and_status_agree_on_who_is_locked_out(
    machine: Machine, console: Console, options: str
) -> None:
    """Incident 4, G3: a line by which nobody gets a session for good is a way in for neither of
    them, so that a lockout that `sync` reports is not well for a health check.
    """
    machine.key_file.write_text(f"{options} {ROBOT}\n")
    console.add_key(LAPTOP)
    assert machine.here("sync").code == machine.here("status", "--check").code == 0
    console.fault = "empty_list"
    synced = machine.here("sync", "--confirm-removals", "--json")
    done = machine.here("status", "--json")
    assert (synced.code, synced.json["no_way_in"]) == (4, [current_user()])
    assert (done.code, done.json["no_way_in"]) == (4, [current_user()])
    assert machine.here("status", "--check").stdout.startswith("PROBLEM: nobody can log in as ")
    [key] = done.json["targets"][0]["keys"]
    assert key["login"] in ("yes", "depends")
    assert "does not count as a way in for a person" in key["note"]


def test_a_retired_file_is_no_way_in_for_status_either(machine: Machine, console: Console) -> None:
    """Incident 4, G3: whether sshd reads a file that is no target any more is not known."""
    other = machine.folder / "other"
    other.touch(mode=0o600)
    other.write_text(f"{COLLEAGUE}\n")
    own = f"  - {{user: {current_user()}, path: {machine.key_file}}}\n"
    machine.configure(targets=f"{own}  - {{user: {current_user()}, path: {other}}}")
    console.add_key(LAPTOP)
    machine.here("sync")
    machine.configure()
    console.fault = "empty_list"
    assert machine.here("sync", "--confirm-removals").code == 4
    done = machine.here("status", "--json")
    assert [target["origin"] for target in done.json["targets"]] == ["configured", "retired"]
    assert (done.code, done.json["no_way_in"]) == (4, [current_user()])


def test_a_deleted_key_behind_a_restricted_line_is_no_way_in_less(machine: Machine) -> None:
    """R4: a line restricted to an address counts as a way in, an expired one does not."""
    machine.key_file.write_text(f'from="10.0.0.1" {ROBOT}\n')
    assert machine.here("status", "--json").json["no_way_in"] == []
    machine.key_file.write_text(f'expiry-time="20200101Z" {ROBOT}\n')
    assert machine.here("status", "--json").json["no_way_in"] == [current_user()]


def test_a_plain_line_beside_a_restricted_one(machine: Machine) -> None:
    """R4: both are shown, with which of them sshd uses."""
    machine.key_file.write_text(f"{ROBOT}\nrestrict {ROBOT}\nrestrict {PHONE}\n{PHONE}\n")
    keys = machine.here("status", "--json").json["targets"][0]["keys"]
    assert [key["note"] for key in keys] == [
        "a restricted line holds the same key; sshd uses this one, the first",
        None,
        None,
        "a restricted line holds the same key; sshd uses the restricted one, the first",
    ]


def test_an_agent_that_is_gone(machine: Machine, console: Console) -> None:
    """Incident 22: an agent that was killed or stopped is a problem, exit 75; while it runs the
    verdict names its start and the next poll.
    """
    console.add_key(LAPTOP)
    for number, seen in ((signal.SIGKILL, "last seen"), (signal.SIGTERM, "last seen")):
        words = [sys.executable, "-m", "agent", "--config", str(machine.config), "run"]
        agent = subprocess.Popen(words, env=clean_environment(), stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while "next poll in" not in (done := machine.here("status", "--check")).stdout:
                assert time.monotonic() < deadline, done.stdout
                time.sleep(0.05)
            assert done.code == 0
            assert done.stdout.startswith("OK: in sync ")
            assert "the agent has been running since 20" in done.stdout
        finally:
            agent.send_signal(number)
            agent.wait()
        done = machine.here("status")
        assert done.code == 75
        assert done.stdout.startswith(f"PROBLEM: the agent is not running ({seen} 20")
        assert "systemctl start keysync" in done.stdout


def test_a_broken_configuration_is_answered_from_the_state(
    machine: Machine, console: Console
) -> None:
    """Commands, Incident 23: exit 78 and what is wrong with it, and still who can log in."""
    console.add_key(LAPTOP)
    machine.here("sync")
    with machine.config.open("a") as file:
        file.write("nonsense: 1\n")
    done = machine.here("status")
    assert done.code == 78
    assert done.stdout.startswith("PROBLEM: the configuration is wrong")
    assert 'unknown option "nonsense"' in done.stdout
    assert fingerprint(LAPTOP) in done.stdout
    assert machine.here("status", "--json").json["targets"][0]["path"] == str(machine.key_file)


@pytest.mark.parametrize("columns", [60, 80])
def test_it_fits_the_terminal(machine: Machine, console: Console, columns: int) -> None:
    """Commands: on a narrow terminal no line is wider than it, and fingerprints are shortened."""
    console.add_key(LAPTOP)
    console.add_key("my laptop")
    machine.here("sync")
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "agent", "--config", str(machine.config), "status"]
    environment = clean_environment() | {"NO_COLOR": "1", "COLUMNS": str(columns)}
    agent = subprocess.Popen(words, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    data = b""
    with contextlib.suppress(OSError):  # the end of a terminal (EIO)
        while part := os.read(leader, 4096):
            data += part
    os.close(leader)
    assert agent.wait() == 0
    lines = data.decode().splitlines()
    path = str(machine.key_file)
    assert [line for line in lines if len(line) > columns and path not in line] == []
    assert any(fingerprint(LAPTOP)[:17] + "…" in line for line in lines)
    assert fingerprint(LAPTOP) not in data.decode()


def test_a_revoked_line_that_is_back(machine: Machine, console: Console) -> None:
    """R5: between two cycles status already says that the line will go."""
    first = console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(first)
    machine.here("sync")
    with machine.key_file.open("a") as file:
        file.write(LAPTOP + "\n")
    rows = machine.here("status", "--json").json["targets"][0]["keys"]
    assert [(row["access"], row["note"]) for row in rows] == [
        ("managed", None),
        ("foreign", "deleted on the console; the next sync removes it"),
    ]
    done = machine.here("sync")
    assert done.event("key.reappeared")["key_id"] == first
    assert machine.lines == [f"{DESKTOP} {TAG}"]


@pytest.mark.parametrize(
    ("age", "limit", "stale"),
    [
        (None, "null", False),
        (None, "1h", True),
        (timedelta(minutes=30), "1h", False),
        (timedelta(hours=2), "1h", True),
        (timedelta(days=365), "null", False),
        (timedelta(days=-1), "1h", True),
    ],
)
def test_stale(
    machine: Machine, console: Console, age: timedelta | None, limit: str, stale: bool
) -> None:
    """G6, Incident 26: with policy.max_staleness an old state fails the check; a success in the
    future is a wrong clock, and is called so.
    """
    machine.options = f"policy: {{max_staleness: {limit}}}\n"
    machine.configure()
    console.add_key(LAPTOP)
    machine.here("sync")
    moment = None
    if age is not None:
        at = (datetime.now(timezone.utc) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
        moment = {"at": at, "boot": "another", "seconds": 0.0}
    remember(machine, last_success=moment)
    done = machine.here("status", "--json")
    assert (done.json["stale"], done.code) == (stale, 75 if stale else 0)
    text = machine.here("status")
    assert text.code == done.code
    if age and age < timedelta(0):
        assert "the clock is wrong: the last success lies in the future (20" in text.stdout
        assert done.json["last_success_age"] is None
    elif stale:
        assert re.match("PROBLEM: (stale|no sync has succeeded yet)", text.stdout)


def test_a_failed_sync_is_no_success(machine: Machine, console: Console) -> None:
    """G6: what `max_staleness` is measured from moves with a success alone."""
    console.add_key(LAPTOP)
    machine.here("sync")
    at = "2026-01-02T03:04:05Z"
    remember(machine, last_success={"at": at, "boot": "another", "seconds": 0.0})
    console.fault = "outage"
    for _ in range(2):
        assert machine.here("sync").code == 75
        assert machine.here("status", "--json").json["last_success"] == at
    console.fault = None
    assert machine.here("sync").code == 0
    assert machine.here("status", "--json").json["last_success"] > at


def test_unreadable_target(machine: Machine, console: Console) -> None:
    """Commands, R11: a target that cannot be read is shown with its reason; the exit code is 74."""
    folder = machine.folder / "folder"
    folder.mkdir()
    machine.configure(
        targets=f"  - {{user: {current_user()}, path: {folder}}}\n"
        f"  - {{user: {current_user()}, path: {machine.key_file}}}\n"
        "  - user: nobody-of-this-name"
    )
    machine.key_file.write_text(COLLEAGUE + "\n")
    done = machine.here("status", "--json")
    assert done.code == 74
    first, second, third = done.json["targets"]
    assert (first["error"]["kind"], first["keys"]) == ("not_a_file", [])
    assert (second["error"], len(second["keys"])) == (None, 1)
    assert third["error"]["kind"] == "unknown_user"
    text = machine.here("status")
    assert text.code == 74
    assert first["error"]["message"] in text.stdout
    assert first["error"]["hint"] in text.stdout


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"schema": 99}', b"\xff", b"[" * 100_000]
)
def test_unreadable_state(machine: Machine, console: Console, data: bytes) -> None:
    """State: a state that nobody understands is said, stops nothing, and changes no key."""
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    (machine.state / "state.json").write_bytes(data)
    done = machine.here("status", "--json")
    assert (done.code, done.json["account_id"]) == (74, None)
    assert done.json["state_problem"]
    assert len(done.json["targets"][0]["keys"]) == 1
    assert "PROBLEM: the state in " in machine.here("status").stdout
    synced = machine.here("sync")
    assert synced.code == 0
    aside = synced.event("state.set_aside")
    assert (aside["level"], aside["reason"]) == ("error", done.json["state_problem"])
    with open(aside["path"], "rb") as file:
        assert file.read() == data
    assert machine.fixed == before
    assert machine.here("status").code == 0


def test_state_that_cannot_be_read(machine: Machine) -> None:
    """Commands: without its state status still shows who can log in, and fails with the reason."""
    machine.key_file.write_text(COLLEAGUE + "\n")
    machine.state.write_text("a file in the folder's place")
    done = machine.here("status", "--json")
    assert (done.code, len(done.json["targets"][0]["keys"])) == (74, 1)
    assert str(machine.state) in done.json["state_problem"]


@pytest.mark.parametrize("moment", ["yesterday", "2024-01-01T00:00:00", "", "9999-99-99T00:00:00Z"])
def test_time_that_is_none(machine: Machine, console: Console, moment: str) -> None:
    """State: a time in the state that is no time stops neither status nor sync."""
    console.add_key(LAPTOP)
    machine.here("sync")
    remember(machine, last_success=moment)
    assert machine.here("status", "--json").json["last_success_age"] is None
    assert machine.here("status").code == 74
    console.fault = "outage"
    done = machine.here("sync")
    assert done.code == 75
    assert done.event("sync.failed")["listing_age_s"] is None
    console.fault = None
    assert machine.here("sync").code == 0
