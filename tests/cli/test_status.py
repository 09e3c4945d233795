"""`keysync status`: who can log in and why, from the disk alone (§7, G6)."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

import pytest

from agent.cli.terminal import ago
from sandbox.console import Console
from sandbox.users import current_user
from tests.support.machine import TAG, Machine, fingerprint, key_line

LAPTOP, DESKTOP, PHONE = key_line("laptop"), key_line("desktop"), key_line("phone")
PIN, COLLEAGUE, ROBOT = key_line("emergency"), key_line("colleague"), key_line("robot")


def remember(machine: Machine, **fields: object) -> None:
    """Rewrites fields of state.json."""
    path = machine.state / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_json(machine: Machine, console: Console) -> None:
    """§7: every key of the object, with one key of each sort, its line and why it may log in."""
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
    assert (last["result"], last["at"][:2]) == ("in_sync", "20")
    notes = [one["note"] for one in target["keys"]]
    assert notes[2].startswith("sshd ignores this line: ")
    assert "still authorized" in notes[3]
    assert target == {
        "user": current_user(),
        "path": str(machine.key_file),
        "error": None,
        "keys": [
            row(2, "foreign", COLLEAGUE),
            row(3, "restricted", ROBOT, None, None, ("from", "no-pty"), "depends"),
            row(4, "restricted", DESKTOP, None, notes[2], login="no"),
            row(5, "restricted", PHONE, ids[1], notes[3], ("restrict",)),
            row(7, "managed", LAPTOP, ids[0]),
            row(8, "pinned", PIN),
        ],
    }
    assert status == {
        "account_id": console.user_id,
        "stale": False,
        "failing": False,
        "last_error": None,
        "held": None,
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
    """§7: a line that sshd ignores, or that has expired, is no way in, and both is said."""
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
    """§7: the same for a person, in plain text."""
    machine.key_file.write_text(f'{COLLEAGUE}\nfrom="10.0.0.1" {ROBOT}\n')
    console.add_key(LAPTOP)
    bad = console.add_key("my laptop")
    machine.here("sync")
    done = machine.here("status")
    lines = done.stdout.splitlines()
    assert (done.code, done.stderr) == (0, "")
    assert lines[0] == f"{current_user()}  {machine.key_file}"
    since = json.loads((machine.state / "state.json").read_bytes())["keys"][0]["first_listed"][:10]
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "ACCESS KEY TYPE COMMENT SINCE NOTE",
        f"foreign {fingerprint(COLLEAGUE)} ssh-ed25519 colleague",
        f"restricted (from) {fingerprint(ROBOT)} ssh-ed25519 robot",
        f"managed {fingerprint(LAPTOP)} ssh-ed25519 laptop {since}",
    ]
    assert f"account       {console.user_id}" in lines
    assert re.search(r"^last success  \d+ s ago \(20[0-9T:-]+Z\)$", done.stdout, re.MULTILINE)
    assert f"rejected      key {bad}: " in done.stdout
    assert "\033" not in done.stdout


def test_before_the_first_sync(machine: Machine) -> None:
    """§7: on a machine that never synced, status says so and makes nothing."""
    before = machine.everything()
    status = machine.here("status", "--json").json
    assert (status["account_id"], status["last_success"], status["last_success_age"]) == (None,) * 3
    text = machine.here("status").stdout
    assert "no key can log in" in text
    assert "account       not known yet" in text
    assert "last success  never" in text
    assert machine.everything() == before


def test_failing_and_solved(machine: Machine, console: Console) -> None:
    """§7, G6: the last error stays visible, and whether it is solved since."""
    console.add_key(LAPTOP)
    machine.here("sync")
    remember(machine, last_success="2024-01-01T00:00:00Z")
    console.fault = "html"
    machine.here("sync")
    done = machine.here("status", "--json")
    assert done.code == 0
    assert done.json["failing"] is True
    assert done.json["last_error"]["kind"] == "html_page"
    assert set(done.json["last_error"]) == {"at", "kind", "message", "hint"}
    text = machine.here("status").stdout
    assert "html_page" in text
    assert "not solved" in text
    assert "Check api.url" in text
    console.fault = None
    machine.here("sync")
    remember(machine, last_success="2999-01-01T00:00:00Z")
    text = machine.here("status").stdout
    assert "solved since" in text
    assert "Check api.url" not in text
    assert machine.here("status", "--json").json["failing"] is False


def test_held(machine: Machine, console: Console) -> None:
    """§7, G3: what is held is shown with its count and how to confirm it."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    machine.here("sync")
    machine.here("sync")
    assert machine.here("status", "--json").json["held"] == {
        "reason": "empty_listing",
        "seen": 2,
        "needed": 3,
        "applied": False,
    }
    text = machine.here("status").stdout
    assert "empty_listing: seen in 2 of 3 polls in a row" in text
    assert "keysync sync --confirm-removals" in text
    machine.here("sync")
    assert machine.here("status", "--json").json["held"]["applied"] is True
    assert "\nheld " not in machine.here("status").stdout


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
        (timedelta(days=-1), "1h", True),  # stamped by a wrong clock
        (timedelta(minutes=-1), "1h", False),
    ],
)
def test_stale(
    machine: Machine, console: Console, age: timedelta | None, limit: str, stale: bool
) -> None:
    """G6: with policy.max_staleness an old state fails the check, and without it only says so."""
    machine.options = f"policy: {{max_staleness: {limit}}}\n"
    machine.configure()
    console.add_key(LAPTOP)
    machine.here("sync")
    if age is not None:
        moment = datetime.now(timezone.utc) - age
        remember(machine, last_success=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    else:
        remember(machine, last_success=None)
    done = machine.here("status", "--json")
    assert (done.json["stale"], done.code) == (stale, 75 if stale else 0)
    text = machine.here("status")
    assert text.code == done.code
    assert ("TOO OLD" in text.stdout) == stale


def test_unreadable_target(machine: Machine, console: Console) -> None:
    """§7, R11: a target that cannot be read is shown with its reason; the exit code is 74."""
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
    """§10: a state that nobody understands is said, stops nothing, and changes no key."""
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    (machine.state / "state.json").write_bytes(data)
    done = machine.here("status", "--json")
    assert (done.code, done.json["account_id"]) == (74, None)
    assert done.json["state_problem"]
    assert len(done.json["targets"][0]["keys"]) == 1
    assert "state         could not be read" in machine.here("status").stdout
    synced = machine.here("sync")
    assert synced.code == 0
    aside = synced.event("state.set_aside")
    assert (aside["level"], aside["reason"]) == ("warning", done.json["state_problem"])
    with open(aside["path"], "rb") as file:
        assert file.read() == data
    assert machine.fixed == before
    assert machine.here("status").code == 0


def test_state_that_cannot_be_read(machine: Machine) -> None:
    """§7: without its state status still shows who can log in, and fails with the reason."""
    machine.key_file.write_text(COLLEAGUE + "\n")
    machine.state.write_text("a file in the folder's place")
    done = machine.here("status", "--json")
    assert (done.code, len(done.json["targets"][0]["keys"])) == (74, 1)
    assert str(machine.state) in done.json["state_problem"]


@pytest.mark.parametrize("moment", ["yesterday", "2024-01-01T00:00:00", "", "9999-99-99T00:00:00Z"])
def test_time_that_is_none(machine: Machine, console: Console, moment: str) -> None:
    """§10: a time in the state that is no time stops neither status nor sync."""
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


def test_ages() -> None:
    """§7: an age is told in one unit that a person takes in at a glance."""
    told = {0: "0 s", -5: "0 s", 119: "119 s", 120: "2 min", 7199: "119 min", 7200: "2 h"}
    told |= {172799: "47 h", 172800: "2 d", 10**8: "1157 d"}
    assert {seconds: ago(seconds) for seconds in told} == {s: f"{t} ago" for s, t in told.items()}
    assert ago(None) == "never"
