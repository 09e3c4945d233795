"""What people are told to do next is true, and helps."""

from __future__ import annotations

import json

from sandbox.console import Console
from sandbox.users import current_user
from tests.support.bad_server import eventually
from tests.support.machine import Machine, fingerprint, key_line

LAPTOP, DESKTOP, PHONE = key_line("laptop"), key_line("desktop"), key_line("phone")
_ADDITIONS_HELD = "policy: {additions: hold}\n"
_LET_IN = " sync --confirm-additions"


# ---- nobody can log in ----


def test_a_lockout_while_a_key_waits(machine: Machine, console: Console) -> None:
    """G14: where a listed key waits, another one on the console would wait too; `sync`, `status`
    and the log name the command that lets it in.
    """
    machine.options = _ADDITIONS_HELD
    machine.configure()
    console.add_key(LAPTOP)
    done = machine.here("sync")
    assert done.code == 4
    let_in = f"{_LET_IN} {fingerprint(LAPTOP)}"
    assert let_in in done.event("user.locked_out")["hint"]
    assert let_in in done.stdout.splitlines()[-1]
    first = machine.here("status", "--json").json["verdict"][0]
    assert (first["text"].startswith("nobody can log in"), let_in in first["fix"]) == (True, True)


def test_a_hold_while_a_key_waits(machine: Machine, console: Console) -> None:
    """G3, G14: what prevents the removal is the key that waits, not one more on the console."""
    machine.options = _ADDITIONS_HELD
    machine.configure()
    old = console.add_key(DESKTOP)
    assert machine.here("sync", "--confirm-additions", "all").code == 0
    console.delete_key(old)
    console.add_key(LAPTOP)
    done = machine.here("sync")
    assert done.code == 3
    assert _LET_IN in done.event("sync.held")["hint"]
    [held] = [
        one for one in machine.here("status", "--json").json["verdict"] if "held" in one["text"]
    ]
    assert _LET_IN in held["fix"]
    assert "Keys page" not in held["fix"]


def test_a_lockout_before_the_first_sync(machine: Machine) -> None:
    """The account's keys may be fine: they are not on this machine yet."""
    first = machine.here("status", "--json").json["verdict"][0]
    assert first["text"].startswith("nobody can log in")
    assert first["fix"].endswith(" sync")
    assert "not on this machine yet" in first["fix"]


# ---- what waits, and what is held ----


def test_a_waiting_key_that_a_line_lets_in(machine: Machine, console: Console) -> None:
    """G14: a key in a line of its own waits and can log in all the same; both are said."""
    machine.options = _ADDITIONS_HELD
    machine.configure()
    console.add_key(LAPTOP)
    console.add_key(PHONE)
    machine.key_file.write_text(f'from="10.0.0.1" {LAPTOP}\n')
    told = machine.here("sync").stdout
    rows = {line.split()[1]: line for line in told.splitlines() if line.startswith("waiting")}
    assert f"a line of {machine.key_file} holds it now" in rows[fingerprint(LAPTOP)]
    assert "holds it now" not in rows[fingerprint(PHONE)]
    texts = [one["text"] for one in machine.here("status", "--json").json["verdict"]]
    waiting = {text.split()[3].rstrip(";"): text for text in texts if text.startswith("waits")}
    assert waiting[fingerprint(LAPTOP)].endswith(f"a line of {machine.key_file} lets it in now")
    assert "lets it in" not in waiting[fingerprint(PHONE)]


def test_a_deleted_key_whose_removal_is_held(machine: Machine, console: Console) -> None:
    """G3, G4: `status` does not promise that the next sync removes what is held."""
    first, second = console.add_key(LAPTOP), console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(first)
    machine.here("sync")
    machine.key_file.write_text(f"{LAPTOP}\n" + machine.key_file.read_text())
    assert _notes(machine) == ["deleted on the console; the next sync removes it", None]
    console.delete_key(second)
    assert machine.here("sync").code == 3
    assert _notes(machine)[0] == "deleted on the console; its removal is held, see above"


def test_another_account_is_held(machine: Machine, console: Console) -> None:
    """G4: `status` calls it what `sync` calls it, and promises no removal meanwhile."""
    gone = console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(gone)
    machine.here("sync")
    console.fault = "another_account"
    assert machine.here("sync").code == 3
    machine.key_file.write_text(f"{LAPTOP}\n" + machine.key_file.read_text())
    status = machine.here("status", "--json").json
    assert status["verdict"][0]["text"].startswith("held since 20")
    assert _notes(machine)[0] == "deleted on the console; its removal is held, see above"


def _notes(machine: Machine) -> list[str | None]:
    [target] = machine.here("status", "--json").json["targets"]
    return [key["note"] for key in target["keys"]]


# ---- a lost state ----


def test_a_lost_state_is_told_until_it_was_looked_after(machine: Machine, console: Console) -> None:
    """R5: `sync` and `status` say what is not known any more, as long as the old state is there."""
    console.add_key(LAPTOP)
    machine.here("sync")
    (machine.state / "state.json").write_text("broken")
    done = machine.here("sync")
    [aside] = machine.state.glob("state.json.unreadable-*")
    assert (done.code, done.stdout.count(f"rm {aside}")) == (0, 1)
    assert "deleted on the console before are no longer known" in done.stdout
    [lost] = [
        one
        for one in machine.here("status", "--json").json["verdict"]
        if "state was lost" in one["text"]
    ]
    assert (lost["severity"], lost["fix"]) == ("warning", f"When that is done: rm {aside}")
    aside.unlink()
    assert "state was lost" not in machine.here("sync").stdout + machine.here("status").stdout


# ---- the commands in hints ----


def test_hints_name_the_configuration(machine: Machine, console: Console) -> None:
    """A command that is copied from a hint is about the configuration that --config gave."""
    machine.options = _ADDITIONS_HELD
    machine.configure()
    console.add_key(LAPTOP)
    let_in = f"keysync --config {machine.config} sync --confirm-additions {fingerprint(LAPTOP)}"
    done = machine.here("sync")
    assert done.stdout.count(let_in) == 2
    assert let_in in done.event("key.held")["hint"]
    assert let_in in machine.here("status").stdout
    machine.config.write_text("nonsense: true\n")
    done = machine.here("config", "check")
    assert done.stderr.endswith(f"then run: keysync --config {machine.config} config check\n")


def test_hints_without_an_agent(machine: Machine, console: Console) -> None:
    """Where no agent runs, nothing tries again by itself: a person has to."""
    console.fault = "outage"
    again = f"No agent runs here: run keysync --config {machine.config} sync again."
    assert machine.here("sync").stdout.splitlines()[-1] == again
    assert "No agent runs" not in machine.here("sync", "--dry-run").stdout
    with machine.started("run"):
        eventually((machine.state / "agent.json").exists, 15.0)
        assert "No agent runs" not in machine.here("sync").stdout


def test_a_manual_sync_says_since_when_it_fails(machine: Machine, console: Console) -> None:
    """The log's `failing_since` is that of the row of failures, as `status` has it."""
    console.fault = "outage"
    first = machine.here("sync").event("sync.failed")["failing_since"]
    remember_failure(machine, "2026-01-02T03:04:05Z")
    failed = machine.here("sync").event("sync.failed")
    since = machine.here("status", "--json").json["last_error"]["since"]
    assert first.startswith("20")
    assert failed["failing_since"] == since == "2026-01-02T03:04:05Z"


def remember_failure(machine: Machine, since: str) -> None:
    """Lets the row of failures have begun at this time."""
    path = machine.state / "state.json"
    state = json.loads(path.read_bytes())
    state["last_failure"]["since"]["at"] = since
    path.write_text(json.dumps(state))


# ---- what is wrong ----


def test_an_empty_file_for_the_api_key(machine: Machine) -> None:
    """Which file, and one thing to do."""
    machine.api_key_file.write_text("\n")
    error = machine.here("sync", "--json").json["error"]
    assert error["message"] == f"{machine.api_key_file} is empty."
    assert f"cat >{machine.api_key_file} " in error["hint"]


def test_a_proxy_that_cannot_be_resolved(machine: Machine) -> None:
    """The culprit is the proxy, by host and port and without its password (G10)."""
    variables = {
        "VAST_URL": "https://console.invalid",
        "HTTPS_PROXY": "http://u:hunter2@no.invalid:3128",
    }
    done = machine.here("sync", "--json", **variables, RES_OPTIONS="attempts:1 timeout:1")
    error = done.json["error"]
    assert error["kind"] == "name_unknown"
    assert error["message"].startswith("The proxy no.invalid:3128 could not be reached: ")
    assert "HTTPS_PROXY" in error["hint"]
    assert "hunter2" not in done.stdout + done.stderr


def test_a_file_whose_mode_was_corrected(machine: Machine, console: Console) -> None:
    """G9: a change without a key is named too."""
    console.add_key(LAPTOP)
    machine.here("sync")
    machine.key_file.chmod(0o666)
    text = f"  ~  owner and mode corrected: {machine.key_file} (it was 0666)"
    assert text in machine.here("sync").stdout.splitlines()


def test_a_broken_configuration_and_the_way_out(machine: Machine, console: Console) -> None:
    """G5: the original comes out all the same; what needs the configuration says so."""
    machine.key_file.write_text(f"{PHONE}\n")
    console.add_key(LAPTOP)
    machine.here("sync")
    with machine.config.open("a") as file:
        file.write("nonsense: true\n")
    done = machine.here("original", current_user())
    assert (done.code, done.stdout) == (0, f"{PHONE}\n")
    done = machine.here("forget", current_user())
    assert done.code == 78
    assert "keysync forget needs a valid configuration, so nothing was done." in done.stderr
    assert machine.here("--config", "/no/such.yaml", "original", "root").code == 78
